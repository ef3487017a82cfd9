"""Median beats a second from beats to features, on one core: all at once beside one at a time.

python -m benchmarks.features [--cohort FOLDER] [--beats 1000]

Without --cohort it runs on simulated beats. Both rows compute the same features, which is checked;
the baseline is the loop over records that somebody would write first. Times are of the process
(other programs may run beside it).
"""

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ecglib.cohort import synthetic
from ecglib.cohort.contract import load_cohort
from ecglib.settings import SyntheticCohort
from ecglib.signal import fiducials
from ecglib.trees.features import NAMES, features


def beats_of(folder: str | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Beats ``(n, 12, 600)`` in µV and RR intervals in ms, of a built cohort or simulated."""
    if folder:
        cohort = load_cohort(Path(folder))
        return np.asarray(cohort.beats[:count]), cohort.records.rr_ms.to_numpy()[:count]
    source = synthetic.open_source(
        SyntheticCohort(source="synthetic", records=max(60, min(count, 300))), seed=42
    )
    beats = np.stack(
        [synthetic.true_beat(row, seed=42) for row in source.records.itertuples(index=False)]
    )
    repeat = np.arange(count) % len(beats)
    return beats[repeat].round().astype(np.int16), 60_000 / source.records.heart_rate.to_numpy()[
        repeat
    ]


def timed(task) -> tuple[float, object]:
    begun = time.process_time()
    result = task()
    return time.process_time() - begun, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort")
    parser.add_argument("--beats", type=int, default=1000)
    given = parser.parse_args()
    beats, rr = beats_of(given.cohort, given.beats)
    few = min(100, len(beats))
    with threadpool_limits(1):
        features(beats[:few], rr[:few])
        together, table = timed(lambda: features(beats, rr))
        points, _ = timed(lambda: fiducials.overall(beats.astype(np.float32)))
        alone, parts = timed(lambda: [features(beats[[k]], rr[[k]]) for k in range(few)])
    np.testing.assert_allclose(pd.concat(parts), table[:few], rtol=1e-3, atol=1e-2)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one used; {len(beats)} beats, {len(NAMES)} "
        "features"
    )
    print(
        f"all at once:             {len(beats) / together:8.0f} beats/s  ({points / together:.0%} "
        "in fiducial points)"
    )
    print(f"one at a time (baseline):{few / alone:8.0f} beats/s")
    print(f"ratio:                   {(len(beats) / together) / (few / alone):8.1f}")


if __name__ == "__main__":
    main()
