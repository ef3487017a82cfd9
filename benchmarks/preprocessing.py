"""Recordings a second from 10 s to the median beat: ecglib beside neurokit2, and over 1 and 2
processes.

python -m benchmarks.preprocessing [--data FOLDER_OF_PTB_XL] [--records 300]

Without --data it runs on simulated recordings. All runs use one thread a process; PTB-XL is read
before the clock starts, from the 500 Hz files where they are, else from those at 100 Hz (upsampled
before the clock starts, too).
"""

import argparse
import os
import platform
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly
from threadpoolctl import threadpool_limits

from ecglib.beat import RATE_HZ
from ecglib.cohort.build import open_source
from ecglib.settings import Signal, SyntheticCohort
from ecglib.signal import SignalError, process

SETTINGS = Signal()


def recordings(data: str | None, count: int) -> list[np.ndarray]:
    """Read or simulate recordings: float32 ``(12, 5000)`` in µV at 500 Hz."""
    if data is None:
        source = open_source(SyntheticCohort(source="synthetic", records=max(count, 60)), seed=42)
        return [source.read(row)[0] for row in source.records.head(count).itertuples()]
    files = sorted(Path(data).glob("records500/*/*.dat"))
    if len(files) < count:
        files = sorted(Path(data).glob("records100/*/*.dat"))
    raw = [
        np.fromfile(file, dtype="<i2").reshape(-1, 12).T.astype(np.float32)
        for file in files[:count]
    ]
    return [
        x if x.shape[1] == 5000 else resample_poly(x, 5, 1, axis=1, padtype="line") for x in raw
    ]


def with_ecglib(signal: np.ndarray) -> np.ndarray | None:
    try:
        return process(signal, RATE_HZ, SETTINGS).beat
    except SignalError:
        return None


def with_neurokit2(signal: np.ndarray) -> np.ndarray | None:
    """The nearest neurokit2 offers: every lead cleaned, R peaks on II, beats of ±300 samples, their
    median.
    """
    import neurokit2

    clean = np.stack([neurokit2.ecg_clean(lead, sampling_rate=RATE_HZ) for lead in signal])
    try:
        r = neurokit2.ecg_peaks(clean[1], sampling_rate=RATE_HZ)[1]["ECG_R_Peaks"]
    except (ValueError, IndexError):
        return None
    r = r[(r >= 300) & (r <= signal.shape[1] - 300)]
    return np.median(clean[:, r[:, None] + np.arange(-300, 300)], axis=1) if len(r) else None


def timed(job, signals: list[np.ndarray], processes: int = 0) -> tuple[float, float, int]:
    """Return recordings a second of wall time and of processor time, and how many gave a beat."""
    if processes:
        with ProcessPoolExecutor(processes, initializer=threadpool_limits, initargs=(1,)) as pool:
            list(pool.map(job, signals[: 4 * processes]))  # imports don't count
            start = time.perf_counter()
            done = list(pool.map(job, signals, chunksize=16))
            return (
                len(signals) / (time.perf_counter() - start),
                np.nan,
                sum(d is not None for d in done),
            )
    job(signals[0])
    wall, cpu = time.perf_counter(), time.process_time()
    done = [job(signal) for signal in signals]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return len(signals) / wall, len(signals) / cpu, sum(d is not None for d in done)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of PTB-XL; without it, simulated recordings")
    parser.add_argument("--records", type=int, default=300)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    threadpool_limits(1)
    signals = recordings(arguments.data, arguments.records)
    load = os.getloadavg()[0]  # other work makes every figure smaller
    print(
        f"{len(signals)} recordings of 10 s from {arguments.data or 'the simulator'} on "
        f"{platform.machine()}"
    )
    print(f"{os.cpu_count()} cores, {load:.1f} of them busy when it began; one thread a process\n")
    print("| job | processes | recordings/s | recordings/s of processor time | with a beat |")
    print("|---|---:|---:|---:|---:|")
    rates = {}
    few = signals[: max(len(signals) // 5, 1)]
    for name, job, processes, given in (
        ("ecglib", with_ecglib, 0, signals),
        ("neurokit2", with_neurokit2, 0, few),
        ("ecglib, pool", with_ecglib, 1, signals),
        ("ecglib, pool", with_ecglib, 2, signals),
    ):
        wall, cpu, beats = timed(job, given, processes)
        rates[name, processes] = wall
        told = "" if np.isnan(cpu) else f"{cpu:.0f}"
        print(
            f"| {name} | {processes or 1} | {wall:.0f} | {told} | {beats} of {len(given)} |",
            flush=True,
        )
    print(
        f"\necglib is {rates['ecglib', 0] / rates['neurokit2', 0]:.1f} times as fast as neurokit2;",
        end=" ",
    )
    print(
        f"two processes do {rates['ecglib, pool', 2] / rates['ecglib, pool', 1]:.2f} times the "
        "work of one."
    )
    print(
        "Peak memory of this process: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
