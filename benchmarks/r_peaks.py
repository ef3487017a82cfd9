"""R peaks, heart rates, quiet ends and flags over all of LUDB and PTB-XL, beside the
cardiologists' marks and two other detectors.

python -m benchmarks.r_peaks rates ends ludb --data FOLDER

`FOLDER` holds ``ludb/`` and ``ptb-xl/``. The rates of neurokit2 and xqrs (wfdb), each on lead II,
take a quarter of an hour once and are kept in ``logs/other_detectors.csv``; what differs from both
is listed in ``logs/heart_rates_that_differ.csv``.
"""

import argparse
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb
from joblib import Parallel, delayed

from ecglib.beat import LEADS, RATE_HZ
from ecglib.cohort.ptbxl import upsample
from ecglib.settings import Signal
from ecglib.signal import SignalError, process

OTHERS = Path("logs/other_detectors.csv")
DIFFERENT = Path("logs/heart_rates_that_differ.csv")
NOTES = ["baseline_drift", "static_noise", "burst_noise", "electrodes_problems"]
SETTINGS = Signal()
KINDS = "zeros", "constant", "noise"
NEAR = round(0.075 * RATE_HZ)


def read_ptbxl(file: Path) -> np.ndarray:
    """Read a record of PTB-XL in µV at the rate of its file, ``(12, samples)``."""
    return np.fromfile(file, "<i2").reshape(-1, len(LEADS)).T.astype(np.float32)


def read_ludb(path: Path) -> np.ndarray:
    """Read a record of LUDB; its raw values are µV."""
    record = wfdb.rdrecord(str(path), physical=False)
    names = [name.lower() for name in record.sig_name]
    return record.d_signal.T[[names.index(lead.lower()) for lead in LEADS]].astype(np.float32)


def all_ptbxl(data: Path) -> dict[int, Path]:
    """Files at 100 Hz by ECG id."""
    files = sorted((data / "ptb-xl" / "records100").glob("*/*.dat"))
    return {int(file.name[:5]): file for file in files}


def parallel(job, items, cores):
    return Parallel(n_jobs=cores, batch_size=8)(delayed(job)(item) for item in items)


def processed(signal: np.ndarray, rate: float):
    """Process a recording, or return None where it is refused."""
    try:
        return process(signal, rate, SETTINGS)
    except SignalError:
        return None


# Heart rates ------------------------------------------------------------------------------


def other_rates(file: Path) -> tuple[float, float]:
    """Heart rate by neurokit2 and by xqrs on lead II, NaN where one fails."""
    import neurokit2
    from wfdb.processing import xqrs_detect

    warnings.simplefilter("ignore")
    two = upsample(read_ptbxl(file))[1].astype(float) / 1000
    found = []
    for detect in (
        lambda: neurokit2.ecg_peaks(
            neurokit2.ecg_clean(two, sampling_rate=RATE_HZ), sampling_rate=RATE_HZ
        )[1]["ECG_R_Peaks"],
        lambda: xqrs_detect(two, fs=RATE_HZ, verbose=False),
    ):
        try:
            found.append(60 * RATE_HZ / np.median(np.diff(detect())))
        except Exception:  # whatever they meet in a recording that they can't use
            found.append(np.nan)
    return tuple(found)


def other_detectors(data: Path, cores: int) -> pd.DataFrame:
    """Heart rates of the other detectors, from `OTHERS` if they were computed before."""
    if not OTHERS.exists():
        files = all_ptbxl(data)
        rates = parallel(other_rates, files.values(), cores)
        table = pd.DataFrame(rates, index=list(files), columns=["neurokit2", "xqrs"])
        OTHERS.parent.mkdir(exist_ok=True)
        table.rename_axis("ecg_id").to_csv(OTHERS)
    return pd.read_csv(OTHERS, index_col="ecg_id")


def own(file: Path) -> dict:
    found = processed(upsample(read_ptbxl(file)), RATE_HZ)
    if found is None:
        return {"quality_reasons": "refused", "poor_quality": True}
    return found.columns()


def rates(data: Path, cores: int) -> None:
    """Compare heart rates with neurokit2 and xqrs, and count the flags."""
    files = all_ptbxl(data)
    table = pd.DataFrame(parallel(own, files.values(), cores), index=list(files))
    table = table.join(other_detectors(data, cores))
    table["rate"] = 60_000 / table.rr_ms
    notes = pd.read_csv(data / "ptb-xl" / "ptbxl_database.csv", index_col="ecg_id")
    table = table.join(notes[[*NOTES, "extra_beats", "pacemaker", "scp_codes", "report"]])
    agree = (table.neurokit2 - table.xqrs).abs() <= 5
    away = np.fmin((table.rate - table.neurokit2).abs(), (table.rate - table.xqrs).abs())
    good = away[agree] <= 5
    print(f"Heart rates of {len(table)} ECGs; neurokit2 and xqrs agree in {agree.sum()}:")
    print(f"  within 5/min of one of them: {good.sum()} ({good.mean():.2%})")
    different = table[agree & ~(away <= 5)]
    different.round(1).to_csv(DIFFERENT)
    silent = different[~different.poor_quality]
    print(f"  {len(different)} differ ({len(silent)} of them without a flag): {DIFFERENT}")
    clean = table[NOTES].isna().all(axis=1)
    for name, part in (("all", table), ("without PTB-XL's quality notes", table[clean])):
        print(f"Flagged, {name}: {part.poor_quality.sum()} of {len(part)}", end=" ")
        print(f"({part.poor_quality.mean():.2%})")
    few = table[table.n_used < 0.6 * table.n_beats]
    print(f"Less than 60 % of the beats used: {len(few)}, flagged {few.poor_quality.sum()}")
    words = table.quality_reasons[table.quality_reasons != ""].str.split(";").explode()
    words = words.str.split(":").str[0]
    print(words.reset_index().drop_duplicates().quality_reasons.value_counts().to_string())
    print("\nKnown victims (RR in ms)")
    print(table.loc[[3581, 10300, 2760, 11893], ["rr_ms", "n_used", "quality_reasons"]])


# Quiet ends -------------------------------------------------------------------------------


def quieten(signal, rate, rng, kind, seconds):
    """Replace one end or both by zeros, a constant a lead, or 2 µV of noise; also the excerpt."""
    end = round(seconds * rate)
    side = rng.choice(["start", "stop", "both"])
    samples = signal.shape[1]
    if samples - 2 * end < 4 * rate and side == "both":
        side = "start"
    keep = slice(end * (side != "stop"), samples - end * (side != "start"))
    quiet = np.zeros_like(signal)
    if kind == "constant":
        quiet += rng.normal(0, 300, (len(signal), 1)).round()
    elif kind == "noise":
        quiet += rng.normal(0, 2, signal.shape)
    quiet[:, keep] = signal[:, keep]
    return quiet.astype(np.float32), signal[:, keep], keep.start


def compare(item) -> list[dict]:
    """Compare a recording with quiet ends with the same excerpt cut out."""
    name, signal, rate, late, kinds = item
    rng, rows = np.random.default_rng(name), []
    for kind in kinds:
        seconds = rng.uniform(0.5, 5)
        quiet, excerpt, start = quieten(signal, rate, rng, kind, seconds)
        if late:  # as a file of PTB-XL goes: brought to 500 Hz by its reader
            quiet, excerpt, ours = upsample(quiet), upsample(excerpt), RATE_HZ
        else:
            ours = rate
        found, expected = processed(quiet, ours), processed(excerpt, ours)
        row = {"name": name, "rate": rate, "late": late, "kind": kind, "seconds": seconds}
        if expected is None or found is None:
            same = rhythm = place = found is expected
            flagged = found is None or found.poor_quality
        else:
            begin = round(start * RATE_HZ / rate) - found.start + expected.start
            rhythm = abs(found.rr_ms / expected.rr_ms - 1) <= 0.03
            # a beat that only just lies whole in one of them need not in the other
            a, b = found.r_peaks[found.used] - begin, expected.r_peaks
            place = np.abs(a[:, None] - b).min(axis=1).max() <= 2
            same, flagged = rhythm and place, found.poor_quality
        rows.append(row | {"same": same, "rhythm": rhythm, "place": place, "flagged": flagged})
    return rows


def ends(data: Path, cores: int) -> None:
    """Quiet ends: all of LUDB, the native 500 Hz files of PTB-XL, and every eighth 100 Hz file;
    the first two with each kind of end, the last with one each.
    """
    items = [
        (int(path.stem), read_ludb(path.with_suffix("")), 500, False, KINDS)
        for path in sorted((data / "ludb" / "data").glob("*.dat"))
    ]
    for file in sorted((data / "ptb-xl" / "records500").glob("*/*.dat")):
        items.append((int(file.name[:5]), read_ptbxl(file), 500, False, KINDS))
    for i, (name, file) in enumerate(list(all_ptbxl(data).items())[::8]):
        items.append((name, read_ptbxl(file), 100, i % 2 == 1, KINDS[i % 3 : i % 3 + 1]))
    table = pd.DataFrame(list(chain.from_iterable(parallel(compare, items, cores))))
    print(f"Quiet ends: {len(table)} excerpts of {table.name.nunique()} recordings")
    told = table.groupby(["rate", "late", "kind"])[["rhythm", "place", "same"]].mean()
    print(told.map("{:.1%}".format).assign(n=table.groupby(["rate", "late", "kind"]).size()))
    rest = table[~table.same]
    print(f"Same: {table.same.mean():.2%}; of the other {len(rest)}, {rest.flagged.sum()} flagged")
    print(rest.to_string())


# LUDB -------------------------------------------------------------------------------------


def marked(path: Path) -> np.ndarray:
    """R peaks by LUDB's cardiologists: the median over leads of marks less than 200 ms apart."""
    peaks = []
    for lead in LEADS:
        file = wfdb.rdann(str(path), lead.lower())
        peaks += [s for s, kind in zip(file.sample, file.symbol, strict=True) if kind == "N"]
    peaks = np.sort(peaks)
    groups = np.split(peaks, np.flatnonzero(np.diff(peaks) > 100) + 1)
    return np.array([np.median(group) for group in groups])


def judge(path: Path) -> dict:
    truth, found = marked(path), processed(read_ludb(path), 500)
    if found is None:
        return {"record": path.name, "missed": len(truth), "hits": 0, "extra": 0, "reasons": ""}
    away = np.abs(found.r_peaks[:, None] - truth)
    inside = (found.r_peaks >= truth[0] - NEAR) & (found.r_peaks <= truth[-1] + NEAR)
    return {
        "record": path.name,
        "hits": (away.min(axis=0) <= NEAR).sum(),
        "missed": (away.min(axis=0) > NEAR).sum(),
        "extra": (away.min(axis=1)[inside] > NEAR).sum(),
        "off": np.median(away.min(axis=1)),
        "rr_ms": found.rr_ms,
        "rr_marked": 2 * np.median(np.diff(truth)),
        "reasons": found.quality_reasons,
    }


def ludb(data: Path, cores: int) -> None:
    """R peaks of LUDB against its cardiologists' marks."""
    paths = [data / "ludb" / "data" / str(number) for number in range(1, 201)]
    table = pd.DataFrame(parallel(judge, paths, cores))
    hits, missed, extra = table[["hits", "missed", "extra"]].sum()
    print(f"LUDB, {hits + missed} beats: sensitivity {hits / (hits + missed):.2%}, ", end="")
    print(f"precision {hits / (hits + extra):.2%}")
    wrong = (table.missed + table.extra > 0) | (abs(table.rr_ms / table.rr_marked - 1) > 0.1)
    print(table[wrong].to_string())


def main():
    jobs = {"rates": rates, "ends": ends, "ludb": ludb}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+", choices=[*jobs, "others"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    jobs["others"] = other_detectors
    for name in arguments.jobs:
        jobs[name](arguments.data, arguments.cores)


if __name__ == "__main__":
    main()
