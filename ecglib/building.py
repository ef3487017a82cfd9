"""Build a cohort from a source: read each recording, find its median beat, write both as they come.

A large cohort is cut into shards that processes, or jobs on several machines, make side by side,
each with::

    python -m ecglib.building --study params/ptbxl.yaml --shard 3

`open_or_build` joins what is there and makes the rest; the result is the same, bit for bit, as
without shards.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from ecglib import BEAT_SAMPLES, LEADS, paths
from ecglib.cohort import Cohort, CohortError, check, describe_build, load_cohort
from ecglib.execute import hold, partial, replace, write_json
from ecglib.folds import twins
from ecglib.params import StudyError, load_study
from ecglib.sources import ReadError, Source, SourceError, open_source
from ecglib.workflow import cohort_code, shard_count

CHUNK = 32  # records a worker takes at once
FEW = 300  # records for which one more process isn't worth its start


def workers() -> int:
    """Processes to build a cohort with: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_or_build(
    source: Source, signal, folder: Path, workers: int = 1, shards: int = 1
) -> Cohort:
    """Open the cohort in `folder` if it was built from the same records, settings and code; else
    build it.
    """
    folder = Path(folder)
    with closing(hold(folder)):  # two studies may ask for the same cohort at the same time
        if not is_built(folder, made_from(source, signal)):
            return build_cohort(source, signal, folder, workers, shards)
    return load_cohort(folder, check_hashes=True)


def is_built(folder: Path, made: dict) -> bool:
    """Whether the cohort, or shard, in `folder` was made from exactly that."""
    told = folder / "cohort.json"
    return told.is_file() and json.loads(told.read_text()).get("made_from") == made


def build_cohort(source: Source, signal, folder: Path, workers: int = 1, shards: int = 1) -> Cohort:
    """Turn a source into a cohort, taking over the shards that were built of it before.

    Memory does not grow with the number of recordings; the result depends on neither `workers` nor
    `shards`.

    Parameters
    ----------
    source : Source
    signal : ecglib.params.Signal
    folder : Path
        The cohort's folder; it appears when it is complete.
    workers : int
        Processes.
    shards : int
        Into how many `build_shard` cut it.
    """
    aside, made = _new_folder(folder), made_from(source, signal)
    found = [_shard_folder(folder, i, shards) for i in range(shards)]
    kept, columns, rejected = [], [], []
    with open(aside / "beats.npy", "wb") as file:
        _write_header(file, len(source.records))
        for i, shard in enumerate(found):
            parts = (
                _read_shard(shard)
                if is_built(shard, made)
                else _median_beats(source, signal, i, shards, workers)
            )
            for beats, positions, qualities, rejects in parts:
                file.write(beats.tobytes())
                kept += positions
                columns += qualities
                rejected += rejects
        file.seek(0)
        _write_header(file, len(kept))
    # its processes would outlive the kernel's end as warnings in the log
    get_reusable_executor().shutdown()
    if not kept:
        first = rejected[0]["reason"] if rejected else "the source lists none"
        raise CohortError(f"No recording of {source.name} could be used; the first reason: {first}")
    records = source.records.loc[kept].reset_index(drop=True)
    records = pd.concat([records, pd.DataFrame(columns)], axis=1)
    records, again = _set_apart(records, aside / "beats.npy", source.duplicates)
    records.to_parquet(aside / "records.parquet", index=False)
    rejected = pd.concat(
        [
            source.rejected.assign(step="listed"),
            pd.DataFrame(rejected + again, columns=["record_id", "reason", "step"]),
        ],
        ignore_index=True,
    )
    labels = source.records.set_index("record_id").label
    rejected["label"] = rejected.record_id.map(labels).astype("Int64")
    rejected.to_csv(aside / "rejected.csv", index=False)
    write_json(aside / "cohort.json", describe_build(source, aside, records, rejected, made))
    check(records, np.load(aside / "beats.npy", mmap_mode="r"), aside)
    replace(aside, Path(folder))
    shutil.rmtree(found[0].parent, ignore_errors=True)
    return load_cohort(folder)


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


def build_shard(source: Source, signal, folder: Path, number: int, shards: int) -> None:
    """Make one shard of the cohort in `folder`, unless the shard or the whole cohort is there
    already.
    """
    shard, made = _shard_folder(folder, number, shards), made_from(source, signal)
    if is_built(Path(folder), made):
        return
    with closing(hold(shard)):
        if not is_built(shard, made):
            _write_shard(source, signal, shard, made, number, shards)


def _write_shard(source: Source, signal, shard: Path, made: dict, number: int, shards: int) -> None:
    """Write a shard: beats without a header, and what else `_median_beats` yielded."""
    aside = _new_folder(shard)
    told = {"made_from": made, "positions": [], "qualities": [], "rejects": []}
    with open(aside / "beats.int16", "wb") as file:
        for beats, *rest in _median_beats(source, signal, number, shards, 1):
            file.write(beats.tobytes())
            for name, more in zip(("positions", "qualities", "rejects"), rest, strict=True):
                told[name] += more
    write_json(aside / "cohort.json", told)
    replace(aside, shard)


def made_from(source: Source, signal) -> dict:
    """Hashes of what a cohort is made from: the listed records, the settings, and the code that
    reads and filters.
    """
    return {
        "records": hashlib.sha256(source.records.to_csv(index=False).encode()).hexdigest(),
        "signal": signal.model_dump(),
        "duplicates": source.duplicates,
        "code": hashlib.sha256(b"".join(file.read_bytes() for file in cohort_code())).hexdigest(),
    }


def _new_folder(folder: Path) -> Path:
    """Make an empty folder in which `folder` is written until it is complete."""
    aside = partial(Path(folder))
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def _shard_folder(folder: Path, number: int, shards: int) -> Path:
    return Path(f"{folder}.shards") / f"{number}_of_{shards}"


def _read_shard(shard: Path):
    """Yield what `_median_beats` yielded when the shard was made, in pieces that fit into
    memory.
    """
    told = json.loads((shard / "cohort.json").read_text())
    yield np.empty(0, np.int16), told["positions"], told["qualities"], told["rejects"]
    with open(shard / "beats.int16", "rb") as file:
        while piece := file.read(2**24):
            yield np.frombuffer(piece, np.int16), [], [], []


def _median_beats(source: Source, signal, number: int, shards: int, workers: int):
    """Process one shard of the source's recordings; yields chunk by chunk, in order."""
    bounds = [len(source.records) * i // shards for i in (number, number + 1)]
    rows = list(source.records.iloc[slice(*bounds)].itertuples(index=True, name="Record"))
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    jobs = (delayed(_process_chunk)(source.read, source.beats, signal, chunk) for chunk in chunks)
    few = -(-len(rows) // FEW)  # processes take seconds to start
    results = Parallel(n_jobs=max(1, min(workers, few)), return_as="generator", batch_size=1)(jobs)
    name = "median beats" if shards == 1 else f"median beats, shard {number} of {shards}"
    return tqdm(
        results,
        total=len(chunks),
        desc=name,
        unit="chunk",
        mininterval=2,
        ncols=100,
        file=sys.stdout,
    )


def _process_chunk(read, is_beat: bool, signal, rows) -> tuple[np.ndarray, list, list, list]:
    """Median beats, positions and quality of some records, and the reasons of those that can't be
    used.
    """
    # seconds to import, needed by whoever builds only
    from ecglib.signal import SignalError, process

    beats, positions, qualities, rejects = [], [], [], []
    for row in rows:
        try:
            recording, rate = read(row)
            if is_beat:
                beat, quality = (
                    recording,
                    {"n_beats": 0, "n_used": 0, "rr_ms": np.nan, "noise_uv": np.nan},
                )
                quality |= {"poor_quality": False, "quality_reasons": "", "band_hz": np.nan}
            else:
                result = process(recording, rate, signal)
                beat, quality = result.beat, result.columns()
                own = getattr(read, "rate", rate)  # of the file, which `read` may have resampled
                quality["band_hz"] = min(float(signal.low_pass_hz), own / 2)
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


def main(arguments: list[str] | None = None) -> int:
    """Command line: make one shard of a study's cohort; returns 0, or 1 with one sentence on what
    is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m ecglib.building", description=main.__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--data-dir", default="")
    given = parser.parse_args(arguments)
    try:
        study = load_study(given.study)
        # what has to be downloaded is downloaded by one of the shards
        with closing(hold(paths.DATA / "source")):
            source = open_source(study.cohort, study.seed, given.data_dir or None)
        folder = paths.cohort_folder(study.cohort_key)
        build_shard(source, study.signal, folder, given.shard, shard_count(study.cohort))
    except (StudyError, SourceError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
