"""A user's own cohort: a folder of recordings, or of ready median beats, and a table that says what
each one is.

Nothing is guessed: a row that can't be used is rejected by name with its reason, and the others
become the cohort.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.beat import BEAT_SAMPLES, LEADS, R_SAMPLE, RATE_HZ
from ecglib.cohort.formats import utf8
from ecglib.cohort.reading import MICROVOLT, SPAN_UV, read_recording
from ecglib.cohort.source import ReadError, Source, SourceError, count
from ecglib.folders import sha256

COLUMNS = ["record_id", "patient_id", "site", "age", "sex", "label", "path"]
SEX = {"female": "female", "f": "female", "male": "male", "m": "male", "": None}
LABEL = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
SHAPE = (len(LEADS), BEAT_SAMPLES)
# endings of recordings: what else has the same name in the same folder belongs to them
RECORDINGS = {".hea", ".csv", ".xml", ".dcm", ".scp", ".edf", ".mwf", ".ecg", ".npy"}


def open_source(settings, seed: int, data_dir: str | Path | None = None) -> Source:
    """Open a folder of recordings, or of median beats, with its table.

    The table (CSV or parquet) has one row per ECG: ``record_id`` or ``path`` (from the folder),
    ``patient_id``, ``label`` (0 or 1), and where known ``site``, ``age`` (years), ``sex`` (female,
    male). Where no row has a label, models can be applied to the ECGs, but none is trained on them.
    Without ``path``, the file is the one in the folder, at any depth, that is named like the
    record.

    Median beats, when `settings.beats_unit` is set, are 12 leads in the order of `ecglib.LEADS` ×
    600 samples at 500 Hz, R peak at sample 300: one file each (.npy, or a format of recordings), or
    `settings.folder` names one file of all: .npy ``(n, 12, 600)`` in the order of the table, or
    .npz of such ``beats`` and their ``record_id``.

    `data_dir` stands in for `settings.folder`; `seed` is not used. Raises `SourceError` if folder,
    table or a column is absent, no positive is left, or the beats are not as described.
    """
    folder = Path(settings.folder if data_dir is None else data_dir)
    found = [p for p in (Path(settings.table), folder / settings.table) if p.is_file()]
    if not found or not folder.exists():
        raise SourceError(
            f"{folder if found else settings.table} does not exist; "
            "correct cohort.folder or cohort.table"
        )
    table = read_table(found[0])
    unlabelled = not table.empty and not table.label.any()
    in_one = folder.is_file() and settings.beats_unit is not None
    absent, spare = _match_beats(folder, table) if in_one else _match_files(folder, table, found[0])
    records = table.assign(
        site=table.site.replace("", "unknown"),
        age=pd.to_numeric(table.age, errors="coerce").astype(float),
        sex=table.sex.str.lower().map(SEX),
        label=table.label.map(LABEL),
    )
    reason = _reasons(table, records, absent)
    names = table.record_id.mask(table.record_id == "", "row " + (table.index + 2).astype(str))
    rejected = pd.DataFrame({"record_id": names, "reason": reason})[reason != ""].drop_duplicates(
        ignore_index=True
    )
    kind = {"label": float if unlabelled else int}
    usable = records[reason == ""].astype(kind).reset_index(drop=True)
    counts = {
        "in the table": count(records),
        "usable rows": count(usable),
        "files without a row": {"ecgs": spare},
    }
    if not unlabelled and not usable.label.any():
        first = f" (the first: {' '.join(rejected.iloc[0])})" if len(rejected) else ""
        raise SourceError(
            f"{found[0].name} has no usable row with the label 1; "
            f"rows rejected: {len(rejected)}{first}"
        )
    read = Reader(folder.parent if in_one else folder, settings.beats_unit)
    if settings.beats_unit:
        _check_beats(usable, read)
    version, told = f"table {sha256(found[0])[:12]}", settings.means
    return Source(
        settings.name, version, *told, usable, read, counts, rejected, bool(settings.beats_unit)
    )


def _reasons(table: pd.DataFrame, records: pd.DataFrame, absent: pd.Series) -> pd.Series:
    """Why each row of `table`, as text, can't be used; '' where it can.

    `records` is the same with values for words, `absent` says why a row has no file.
    """
    reason = pd.Series("", table.index)
    for bad, why in (
        (table.record_id == "", "has neither record_id nor path"),
        (table.record_id.duplicated(keep=False), "is listed more than once"),
        (absent != "", absent),
        (table.path.duplicated(keep=False), "shares its file with another row"),
        (table.patient_id == "", "has no patient_id"),
        (
            table.label.any() & ~table.label.isin(LABEL),
            "has the label '" + table.label + "', which is neither 0 nor 1",
        ),
        (
            ~table.sex.str.lower().isin(SEX),
            "has the sex '" + table.sex + "', which is neither female nor male",
        ),
        (
            (table.age != "") & ~records.age.between(0, 120),
            "has the age '" + table.age + "', which is not between 0 and 120 years",
        ),
        (
            records.sex.groupby(table.patient_id).transform("nunique") > 1,
            "belongs to a patient listed with both sexes",
        ),
    ):
        reason = reason.mask((reason == "") & bad, why)
    return reason


def read_table(path: Path) -> pd.DataFrame:
    """Read the table's `COLUMNS` as stripped text, '' where nothing is given; a path may give the
    record its name.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path).convert_dtypes()  # whole numbers lose their .0
        else:
            text = utf8(path.read_bytes())
            separator = max(",;\t", key=text.partition("\n")[0].count)
            table = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except ReadError as error:
        raise SourceError(f"{path.name}: {error}") from None
    except Exception as error:  # whatever pandas or arrow meets
        raise SourceError(
            f"{path.name} can't be read as a table: {' '.join(str(error).split())[:200]}"
        ) from None
    table = table.rename(columns=lambda name: str(name).strip().lower())
    needed = ["patient_id", "record_id" if "path" not in table else "path"]
    if missing := [column for column in needed if column not in table]:
        raise SourceError(f"{path.name} lacks the column {missing[0]}; it has {', '.join(table)}")
    table = table.reindex(columns=COLUMNS).astype("string").fillna("").astype(object)
    table = table.apply(lambda column: column.str.strip())
    return table.assign(
        record_id=table.record_id.mask(
            table.record_id == "", table.path.map(lambda p: Path(p).stem)
        )
    )


def _match_files(folder: Path, table: pd.DataFrame, table_path: Path) -> tuple[pd.Series, int]:
    """Fill `table.path`; return why a row has no file ('' where it has one), and how many files
    have no row.
    """
    files = {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p != table_path
    }
    sure = {Path(name).with_suffix("") for name in files if Path(name).suffix.lower() in RECORDINGS}
    known: dict[str, list[str]] = {}
    for path in map(Path, sorted(files)):
        keys, header = {path.as_posix(), path.name}, path.with_suffix(".hea").as_posix()
        if path.suffix.lower() in RECORDINGS or path.with_suffix("") not in sure:
            keys |= {path.with_suffix("").as_posix(), path.stem}
        else:  # a companion, only meant if named in full
            files.remove(path.as_posix())
        signal = path.suffix.lower() in (".dat", ".mat") and header in files
        for key in keys:
            known.setdefault(key, []).append(header if signal else path.as_posix())
    hits = table.path.mask(table.path == "", table.record_id).map(
        lambda key: known.get(key.removeprefix("./"), [])
    )
    table["path"] = hits.map(lambda fit: fit[0] if len(fit) == 1 else None)
    reason = {0: "has no file in the folder", 1: ""}
    return hits.map(
        lambda fit: reason.get(len(fit), f"matches several files: {', '.join(fit[:3])}")
    ), len(files - set(table.path))


def _match_beats(file: Path, table: pd.DataFrame) -> tuple[pd.Series, int]:
    """Do the same as `_match_files` for one file of all beats, where a path is ``file#place``."""
    beats, names = _stack(file)
    names = table.record_id if names is None else names
    if len(names) != len(beats) or len(set(names)) < len(names):
        raise SourceError(
            f"{file.name} has {len(beats)} beats, but {len(names)} names are given; "
            "give each beat one name of its own"
        )
    place = {name: f"{file.name}#{i}" for i, name in enumerate(names)}
    table["path"] = table.record_id.map(place)
    return table.path.isna().map({True: "has no beat in the file", False: ""}), len(
        set(place) - set(table.record_id)
    )


@lru_cache(maxsize=1)
def _stack(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """Open one file of beats: ``(n, 12, 600)``, memory-mapped if .npy, and their names if .npz."""
    try:
        beats, names = np.load(path, mmap_mode="r", allow_pickle=False), None
        if path.suffix.lower() == ".npz":
            beats, names = beats["beats"], beats["record_id"].astype(str).tolist()
    except Exception as error:  # whatever numpy meets in a broken file
        raise SourceError(
            f"{path.name} can't be read as beats: {' '.join(str(error).split())[:200]}"
        ) from None
    if beats.shape[1:] != SHAPE:
        raise SourceError(f"{path.name} has the shape {beats.shape}, but (n, 12, 600) is needed")
    return beats, names


@dataclass(frozen=True)
class Reader:
    """Reads a row's recording, or its median beat if `unit` says what the beats are in."""

    folder: Path
    unit: str | None

    def __call__(self, row) -> tuple[np.ndarray, float]:
        """Return float32 µV, ``(12, samples)`` or ``(12, 600)``, and the rate in Hz; raise
        `ReadError`.
        """
        if self.unit is None:
            return read_recording(self.folder / row.path)
        name, _, place = row.path.partition("#")
        path, factor, rate = self.folder / name, MICROVOLT[self.unit.lower()], float(RATE_HZ)
        if not place and path.suffix.lower() != ".npy":
            (beat, rate), factor = read_recording(path, shortest=BEAT_SAMPLES / RATE_HZ), 1.0
        else:
            try:
                beat = (
                    _stack(path)[0][int(place)]
                    if place
                    else np.load(path, mmap_mode="r", allow_pickle=False)
                )
                beat = np.asarray(beat, np.float32) * np.float32(factor)
            except Exception as error:  # whatever numpy meets in a broken file
                raise ReadError(
                    f"{row.path}: the file can't be read ({' '.join(str(error).split())[:200]})"
                ) from None
        if beat.shape != SHAPE or rate != RATE_HZ:
            raise ReadError(
                f"{row.path}: the beat is {beat.shape} at {rate:g} Hz, not {SHAPE} at {RATE_HZ} Hz"
            )
        if not np.isfinite(beat).all() or not SPAN_UV[0] <= np.ptp(beat) <= SPAN_UV[1]:
            raise ReadError(
                f"{row.path}: the beat spans {np.ptp(beat):.3g} µV, so it can't be in {self.unit}"
            )
        return beat, rate


def _check_beats(records: pd.DataFrame, read: Reader) -> None:
    """Refuse beats with their leads in another order or R peak elsewhere, which nothing later would
    show.
    """
    misfits, peaks = [], []
    for row in records.iloc[:: max(1, len(records) // 100)].itertuples():
        with suppress(ReadError):
            beat = read(row)[0]
            one, two = beat[:2]
            law = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2])
            misfits.append(
                (np.linalg.norm(beat[2:6] - law, axis=1) / (np.linalg.norm(law, axis=1) + 1)).max()
            )
            peaks.append(
                np.square(beat - np.median(beat, axis=1, keepdims=True)).sum(axis=0).argmax()
            )
    if peaks and np.median(misfits) > 0.5:
        raise SourceError(
            "The limb leads of the beats contradict each other; "
            f"put the leads in the order {' '.join(LEADS)}"
        )
    if peaks and abs(np.median(peaks) - R_SAMPLE) > 30:
        raise SourceError(
            f"Beats peak near sample {np.median(peaks):.0f}; move their R peak to sample {R_SAMPLE}"
        )
