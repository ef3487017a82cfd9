"""Build a cohort from a source: read each recording, find its median beat, write both as they come.

One job with its cores fills a machine; the result doesn't depend on how many they are.
"""

import hashlib
import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from ecglib.beat import BEAT_SAMPLES, LEADS
from ecglib.cohort.contract import Cohort, CohortError, check, describe_build, load_cohort
from ecglib.cohort.source import ReadError, Source
from ecglib.folders import hold, partial, replace, write_json
from ecglib.folds import twins

PROTOCOL = 2
"""Part of a cohort's identity: raise it when a change of code changes beats or records."""

CHUNK = 32  # records a worker takes at once
FEW = 300  # records for which one more process isn't worth its start


def open_source(
    settings, seed: int, data_dir: Path | None = None, download_dir: Path | None = None
) -> Source:
    """Open the source that a study's ``cohort`` section names.

    Parameters
    ----------
    settings : ecglib.settings.SyntheticCohort, PtbxlCohort, AcsEcgCohort or FilesCohort
    seed : int
        The study's seed; fixes simulated records and drawn negatives.
    data_dir : path, optional
        Where the data lie already, in the layout of their public source.
    download_dir : path, optional
        Where a public source is completed by a download, if there is no `data_dir`.
    """
    module = import_module(f"ecglib.cohort.{settings.source}")  # the others needn't be loaded
    more = (download_dir,) if settings.source in ("ptbxl", "acs_ecg") else ()
    source = module.open_source(settings, seed, data_dir, *more)
    source.duplicates = getattr(settings, "duplicates", source.duplicates)
    return source


def workers() -> int:
    """Processes to build a cohort with: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_or_build(source: Source, signal, folder: Path, workers: int = 1) -> Cohort:
    """Open the cohort in `folder` if it was built from the same records and settings; else build
    it.
    """
    folder, made = Path(folder), made_from(source, signal)
    with hold(folder):  # two studies may ask for the same cohort at the same time
        told = folder / "cohort.json"
        if not told.is_file() or json.loads(told.read_text()).get("made_from") != made:
            return build_cohort(source, signal, folder, workers)
    return load_cohort(folder, check_hashes=True)


def build_cohort(source: Source, signal, folder: Path, workers: int = 1) -> Cohort:
    """Turn a source into a cohort.

    Memory does not grow with the number of recordings; the result doesn't depend on `workers`.

    Parameters
    ----------
    source : Source
    signal : ecglib.settings.Signal
    folder : Path
        The cohort's folder; it appears when it is complete.
    workers : int
        Processes.

    Raises
    ------
    CohortError
        If no recording can be used; it tells the first reason.
    """
    aside, made = partial(Path(folder)), made_from(source, signal)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    kept, columns, rejected = [], [], []
    with open(aside / "beats.npy", "wb") as file:
        _write_header(file, len(source.records))
        for beats, positions, qualities, rejects in _median_beats(source, signal, workers):
            file.write(beats.tobytes())
            kept += positions
            columns += qualities
            rejected += rejects
        file.seek(0)
        _write_header(file, len(kept))
    # its processes would outlive the kernel's end as warnings in the log
    get_reusable_executor().shutdown()
    _check_any(kept, rejected, source)
    records = source.records.loc[kept].reset_index(drop=True)
    records = pd.concat([records, pd.DataFrame(columns)], axis=1)
    records, again = _set_apart(records, aside / "beats.npy", source.duplicates)
    rejected += again
    _check_any(records, rejected, source)
    records.to_parquet(aside / "records.parquet", index=False)
    rejected = pd.DataFrame(rejected, columns=["record_id", "reason", "step"])
    listed = source.rejected.assign(step="listed")
    rejected = pd.concat([listed, rejected], ignore_index=True)
    labels = source.records.set_index("record_id").label
    rejected["label"] = rejected.record_id.map(labels).astype("Int64")
    rejected.to_csv(aside / "rejected.csv", index=False)
    write_json(aside / "cohort.json", describe_build(source, aside, records, rejected, made))
    check(records, np.load(aside / "beats.npy", mmap_mode="r"), aside)
    replace(aside, Path(folder))
    return load_cohort(folder)


def _check_any(kept, rejected: list, source: Source) -> None:
    """Refuse a source of which nothing is left."""
    if not len(kept):
        first = rejected[0]["reason"] if rejected else "the source lists none"
        raise CohortError(f"No recording of {source.name} could be used; the first reason: {first}")


def _set_apart(records: pd.DataFrame, file: Path, duplicates: str) -> tuple[pd.DataFrame, list]:
    """Take ECGs whose beat is also another patient's out of the table and the `file` of beats.

    Nobody can tell whose they are, and in two folds they leak. Returned are the records left and
    why the others are not.
    """
    same = twins(records, _stored(file, len(records)))
    if duplicates == "keep" or (same < 0).all():
        return records, []
    rejects = []
    for _, part in records[same >= 0].groupby(same):
        for record in part.record_id:
            others = ", ".join(part.record_id[part.record_id != record])
            reason = f"{others}: the same beat under another patient"
            rejects.append({"record_id": record, "reason": reason, "step": "duplicate"})
    left = np.flatnonzero(same < 0)
    with open(file.with_suffix(".left"), "wb") as out:
        _write_header(out, len(left))
        for apart, beat in zip(same >= 0, _stored(file, len(records)), strict=True):
            if not apart:
                out.write(beat)
    file.with_suffix(".left").replace(file)
    return records.iloc[left].reset_index(drop=True), rejects


def _stored(file: Path, count: int):
    """Yield the beats of a ``.npy`` as bytes; a memory map of all would count as memory."""
    size = len(LEADS) * BEAT_SAMPLES * np.dtype(np.int16).itemsize
    with open(file, "rb") as stored:
        stored.seek(-count * size, os.SEEK_END)
        for _ in range(count):
            yield stored.read(size)


def made_from(source: Source, signal) -> dict:
    """What a cohort is made from: the listed records, the settings, and the code's protocol."""
    return {
        "records": hashlib.sha256(source.records.to_csv(index=False).encode()).hexdigest(),
        "signal": signal.model_dump(exclude_defaults=True),
        "duplicates": source.duplicates,
        "protocol": PROTOCOL,
    }


def _median_beats(source: Source, signal, workers: int):
    """Process the source's recordings; yields chunk by chunk, in order."""
    rows = list(source.records.itertuples(index=True, name="Record"))
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    jobs = (delayed(_process_chunk)(source.read, source.beats, signal, chunk) for chunk in chunks)
    few = -(-len(rows) // FEW)  # processes take seconds to start
    results = Parallel(n_jobs=max(1, min(workers, few)), return_as="generator", batch_size=1)(jobs)
    bar = {"desc": "median beats", "unit": "chunk", "mininterval": 2, "ncols": 100}
    return tqdm(results, total=len(chunks), file=sys.stdout, **bar)


def _process_chunk(read, is_beat: bool, signal, rows) -> tuple[np.ndarray, list, list, list]:
    """Median beats, positions and quality of some records, and the reasons of those that can't be
    used.
    """
    # seconds to import, needed by whoever builds only
    from ecglib.signal import SignalError, process

    beats, positions, qualities, rejects = [], [], [], []
    for row in rows:
        try:
            recording, rate, *known = read(row)
            if is_beat:
                beat, quality = (
                    recording,
                    {"n_beats": 0, "n_used": 0, "rr_ms": np.nan, "noise_uv": np.nan},
                )
                quality |= {"poor_quality": False, "quality_reasons": "", "band_hz": np.nan}
                quality |= known[0] if known else {}
            else:
                own = getattr(read, "rate", rate)  # of the file, which `read` may have resampled
                band = min(signal.band_hz or np.inf, signal.low_pass_hz, own / 2)
                narrow = own < rate and band == own / 2  # in band already: the beat stays as it is
                used = signal.model_copy(update={"band_hz": None}) if narrow else signal
                result = process(recording, rate, used)
                beat, quality = result.beat, result.columns()
                quality["band_hz"] = float(band)
                # the reasons stay, but nothing sets the ECG apart
                if signal.on_poor_quality == "keep":
                    quality["poor_quality"] = False
        except (ReadError, SignalError) as error:
            step = "reading" if isinstance(error, ReadError) else "median beat"
            rejects.append({"record_id": row.record_id, "reason": str(error), "step": step})
            continue
        if quality["poor_quality"] and signal.on_poor_quality == "drop":
            rejects.append(
                {
                    "record_id": row.record_id,
                    "reason": f"poor quality: {quality['quality_reasons']}",
                    "step": "poor quality",
                }
            )
            continue
        beats.append(np.clip(np.rint(beat), -32767, 32767).astype(np.int16))
        positions.append(row.Index)
        qualities.append(quality)
    return (
        np.array(beats, dtype=np.int16).reshape(-1, len(LEADS), BEAT_SAMPLES),
        positions,
        qualities,
        rejects,
    )


def _write_header(file, count: int) -> None:
    """Write the header of an int16 ``.npy`` with `count` beats; numpy pads it, so its length
    doesn't change.
    """
    shape = (count, len(LEADS), BEAT_SAMPLES)
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<i2", "fortran_order": False, "shape": shape}
    )
