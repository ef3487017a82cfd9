"""ACS-ECG: 12-lead ECGs of patients who had coronary angiography, with its outcome.

Written after the published description and others' audits of the files, whose headers don't tell
the truth: their "checksum" is a lead's minimum and their "initial value" its maximum, so neither is
compared with the samples. All patients had angiography, most of them without an occlusion, and most
ECGs were recorded more than a day before it: another population than the paper's.

Du et al., "A large-scale 12-lead electrocardiogram dataset for acute coronary syndrome prediction
containing 19,955 ECGs", Scientific Data 13:1009, 2026.
"""

import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import BEAT_SAMPLES, LEADS, R_SAMPLE, RATE_HZ
from ecglib.cohort.ptbxl import decode
from ecglib.cohort.source import ReadError, Source, SourceError, count
from ecglib.download import DownloadError, Wanted, download
from ecglib.signal.beats import to_peak
from ecglib.signal.fiducials import level_before_qrs

BASE_URL, TRIES = "https://ndownloader.figshare.com/files/", 6
ZIPS = {  # of version 1: number at figshare, and MD5
    "CSV": ("62951134", "1cb46279c0e68e6512bd39214fc56528"),
    "ECG_row_data": ("62951395", "acea6ca86a2d0b937ecfe7d1df6d30a2"),
    "ECG_median_data": ("62951137", "4da1650cdbfb9817aa66df58c66564e1"),
}
HOLDS = {"own": "ECG_row_data", "released": "ECG_median_data"}
MADE_UP = "made-up.txt"  # marks a folder of `ecglib.cohort.made_up`
ATTRIBUTION = (
    "ACS-ECG, Du et al., Scientific Data 13:1009, 2026; doi 10.6084/m9.figshare.29925314, CC0 1.0"
)
AGAIN = "download CSV.zip from figshare again"

VESSELS = {
    "LM": ["LM"],
    "LAD": ["PLAD", "MLAD", "DLAD", "DB"],
    "LCx": ["PLCX", "MLCX", "DLCX", "OM"],
    "RCA": ["PRCA", "MRCA", "DRCA"],
}
SEGMENTS = [segment for segments in VESSELS.values() for segment in segments]
COLUMNS = ["Patient_id", "ecg_row_record", "ecg_med_record", "gender", "age", "Time_Interval"]
OUTCOMES = ["OMI", "AMI", "STEMI", "NSTEMI", "UA", "CTO", "PCI", "Prior_PCI", "Paced", "VF_VT"]
LARGEST = {"gender": 1, "age": 120, "Time_Interval": np.inf}  # of others 2, as one audit saw
VERSION_1 = {"ECGs": 17960, "patients": 17018, "ECGs without labels": 1995}
COUNTS = (1151, 2679, 1442, 1235, 6213, 957, 4541, 1323, 338, 869)
VERSION_1 |= dict(zip(OUTCOMES, COUNTS, strict=True))

MISSING = -32768  # of 16 bits: no sample
SAMPLES, MEDIAN_SAMPLES = 5000, 500
UNREADABLE = (BadZipFile, OSError, EOFError, zlib.error)


def open_source(settings, seed: int, data_dir: Path | None, download_dir=None) -> Source:
    """Open ACS-ECG; what angiography found are columns of its records.

    `data_dir` is a folder with the zips, or with what was in them, and only read; without one, the
    zips that `download_dir` lacks are downloaded into it. `seed` is not used. With `settings.part`
    test the ECGs have no label. Raises `SourceError` if a file can't be had or used, a table is not
    as described, a patient or an ECG is in both tables, or no positive is left.
    """
    folder, released = data_dir or download_dir, settings.beats == "released"
    if not data_dir:
        _download(folder, ["CSV", HOLDS[settings.beats]])
    if (folder / MADE_UP).is_file() != settings.made_up:
        told = "wasn't" if settings.made_up else "was"
        mend = f"set cohort.made_up: {str(not settings.made_up).lower()}"
        raise SourceError(f"{folder} {told} made by make-acs-ecg; {mend}")
    files, (train, test) = contents(folder), read_tables(folder)
    version = "made up" if settings.made_up else _version(train, test)
    records, counts = _select(train if settings.part == "train" else test, settings)
    ends = [".med"] if released else [".hea", ".dat"]
    needed = pd.concat([records.file + end for end in ends])
    if len(absent := needed[~needed.isin(files)]):
        lacking = f"{len(absent):,} of {len(needed):,} files, for example {absent.min()}"
        raise SourceError(f"{folder} lacks {lacking}; download or unpack {HOLDS[settings.beats]}")
    if not released:
        sizes = (records.file + ".dat").map(lambda name: files[name][0])
        counts["shorter than 10 s"] = count(records[sizes < SAMPLES * len(LEADS) * 2])
    read = Reader(folder, _usual_r(files, records.file) if released else None)
    told = ("acs_ecg", version, *settings.means, records, read, counts)
    return Source(*told, beats=released, attribution=ATTRIBUTION)


def _download(folder: Path, names: list[str]) -> None:
    """Download the zips that `folder` lacks, verified by their MD5."""
    zips = {folder / f"{name}.zip": ZIPS[name] for name in names}
    wanted = [
        Wanted(BASE_URL + number, file, f"md5:{digits}")
        for file, (number, digits) in zips.items()
        if not file.is_file()
    ]
    try:
        download(wanted, "figshare", TRIES)
    except DownloadError as error:
        raise SourceError(str(error)) from None


@lru_cache(maxsize=2)
def contents(folder: Path) -> dict:
    """Files below a folder, and in zips that lie in it, by their bare names: size, and a function
    that reads one.

    A zip is read where it lies, and opened once a process.
    """
    found = {p.name: (p.stat().st_size, p.read_bytes) for p in folder.rglob("*.*") if p.is_file()}
    for file in folder.glob("*.zip"):
        try:
            archive = ZipFile(file)
        except UNREADABLE:
            raise SourceError(f"{file} is cut short or not a zip file; download it again") from None
        for member in archive.infolist():
            name = PurePosixPath(member.filename).name
            found[name] = member.file_size, partial(archive.read, member)
    return found


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read ``train.csv`` and ``test.csv``, by column name; file names stay text, with their zeros.

    Raises `SourceError` if one lacks a column or holds what the description doesn't allow, or if
    both hold the same ECG or patient.
    """
    train = _read_table(folder, "train.csv", [*COLUMNS, *OUTCOMES, *SEGMENTS])
    test = _read_table(folder, "test.csv", COLUMNS)
    for column in ("ecg_row_record", "Patient_id"):
        if both := sorted({*train[column]} & {*test[column]}):
            raise SourceError(f"{both[0]} is in both train.csv and test.csv; {AGAIN}")
    return train, test


def _read_table(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    """Read one table, which must have `columns`."""
    if name not in (files := contents(folder)):
        raise SourceError(
            f"{folder} has no {name}; give the folder of ACS-ECG, or none to download it"
        )
    try:  # it may begin with a byte order mark
        table = pd.read_csv(BytesIO(files[name][1]()), dtype=str, encoding="utf-8-sig")
    except (ValueError, *UNREADABLE) as error:
        raise SourceError(f"{name} can't be read ({error}); {AGAIN}") from None
    if missing := [column for column in columns if column not in table]:
        raise SourceError(f"{name} lacks the column '{missing[0]}'; {AGAIN}")
    table = table[COLUMNS[:3]].join(table[columns[3:]].apply(pd.to_numeric, errors="coerce"))
    files = table.ecg_row_record
    good = {c: table[c].between(0, LARGEST.get(c, 2)) for c in columns[3:]}
    good["Patient_id"] = table.Patient_id.notna()
    good["ecg_row_record"] = files.str.fullmatch(r"\d{5}\.dat").eq(True) & ~files.duplicated()
    for column, fine in good.items():
        if not fine.all():
            row = (~fine).argmax() + 2
            raise SourceError(f"{name}: '{column}' has an invalid value in row {row}; {AGAIN}")
    return table


def _version(train: pd.DataFrame, test: pd.DataFrame) -> str:
    """Compare the tables with the published counts; another version is warned of."""
    sizes = (len(train), train.Patient_id.nunique(), len(test))
    found = dict(zip(VERSION_1, [*sizes, *(train[OUTCOMES] > 0).sum()], strict=True))
    differ = [f"{k} {found[k]:,} ({n:,})" for k, n in VERSION_1.items() if found[k] != n]
    if differ:
        warnings.warn(
            f"Not version 1 of ACS-ECG (its counts in parentheses): {', '.join(differ)}",
            stacklevel=3,
        )
    return "not 1" if differ else "1"


def _select(table: pd.DataFrame, settings) -> tuple[pd.DataFrame, dict]:
    """Records of a table with their label, and what each step of the selection left.

    Columns of what angiography found: artery of an OMI, presentation, and each outcome as 0 or 1. A
    patient who is given both sexes has none.
    """
    sexes = table.groupby("Patient_id").gender.transform("nunique")
    file = table.ecg_row_record.str.removesuffix(".dat")
    records = pd.DataFrame(
        {
            "record_id": "acs-" + file,
            "patient_id": table.Patient_id,
            "site": "Chongqing",
            "age": table.age.astype(float),
            "sex": table.gender.map({0: "female", 1: "male"}).where(sexes == 1),
            "label": np.nan,
            "hours": table.Time_Interval / 60,
            "file": file,
        }
    )
    if settings.part == "test":
        return records, {"in the table": count(records)}
    found = table[OUTCOMES + SEGMENTS] > 0
    stages = ["STEMI", "NSTEMI", "UA"]
    records["presentation"] = np.select([found[name] for name in stages], stages, "other")
    hit = pd.DataFrame({name: found[part].any(axis=1) for name, part in VESSELS.items()})
    culprit = hit.idxmax(axis=1).mask(hit.sum(axis=1) > 1, "several")
    records["culprit"] = culprit.where(hit.any(axis=1), "not named").where(found.OMI, "none")
    records = records.join(found[OUTCOMES].rename(columns=str.lower).astype(int))
    records["label"] = records[settings.label.removeprefix("nstemi_")]
    counts = {"in the table": count(records)}
    if settings.label == "nstemi_omi":
        records = records[records.stemi == 0]
        counts["without STEMI"] = count(records)
    if settings.max_hours:
        records = records[records.hours <= settings.max_hours]
        counts[f"at most {settings.max_hours:g} h before angiography"] = count(records)
    if not records.label.any():
        raise SourceError(
            f"None of {len(records):,} ECGs is positive for {settings.label}; change cohort.label"
        )
    return records.reset_index(drop=True), counts


@dataclass(frozen=True)
class Reader:
    """Reads one recording, or one released median beat, from a folder or the zips in it.

    `usual_r` is the sample near which R lies in released beats; None: recordings are read.
    """

    folder: Path
    usual_r: int | None

    def __call__(self, row) -> tuple:
        """Return a recording, float32 ``(12, samples)`` in µV with missing samples and constant
        leads NaN, and its rate; or what `median_beat` does; or raise `ReadError`.
        """
        ends = (".hea", ".dat") if self.usual_r is None else (".med",)
        try:
            data = [contents(self.folder)[row.file + end][1]() for end in ends]
        except UNREADABLE as error:
            raise ReadError(f"{row.file}{ends[-1]}: the file can't be read ({error})") from None
        if self.usual_r is not None:
            return median_beat(row.file, *data, self.usual_r)
        header, samples = data
        signal, rate = decode(row.file, header.decode("latin-1"), samples, trusted=False)
        signal[np.ptp(signal, axis=1) == 0] = np.nan
        return signal, rate


def _released(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read a ``.med`` file, 1 s: int16 ``(12, 500)`` in µV, and its power over the leads."""
    raw = np.frombuffer(data, "<i2") if len(data) == 2 * len(LEADS) * MEDIAN_SAMPLES else None
    if raw is None or (raw == MISSING).any():
        raise ReadError(
            f"{name}.med has {len(data):,} bytes; it must have 12,000 without a missing sample"
        )
    raw = raw.reshape(MEDIAN_SAMPLES, len(LEADS)).T
    beat = gaussian_filter1d(raw - np.median(raw, axis=1, keepdims=True), 2, axis=1)
    return raw, np.square(beat).sum(axis=0)


def _usual_r(files: dict, names: pd.Series) -> int:
    """Where R lies in most released beats, which isn't documented: in a fast rhythm the next QRS
    complex is in a beat, too.
    """
    found = []
    for name in names[:: max(1, len(names) // 200)]:
        with suppress(ReadError):
            found.append(_released(name, files[f"{name}.med"][1]())[1].argmax())
    return int(np.median(found)) if found else MEDIAN_SAMPLES // 2


def median_beat(name: str, data: bytes, usual_r: int) -> tuple[np.ndarray, float, dict]:
    """Read a released median beat: float32 ``(12, 600)`` in µV with R at 300, Hz, and its quality.

    R is the largest RMS over the leads near the usual place, ``r_at`` the sample of the file where
    it lies. What the file doesn't hold repeats its first or last sample; flagged is a beat that
    lacks a part of what networks see, or a lead.
    """
    raw, power = _released(name, data)
    r = to_peak(power, usual_r)
    at = np.arange(BEAT_SAMPLES) + r - R_SAMPLE
    padded = ((at < 0) | (at >= MEDIAN_SAMPLES))[150:550].sum()
    beat = raw[:, np.clip(at, 0, MEDIAN_SAMPLES - 1)].astype(np.float32)
    reasons = [f"padded:{padded * 1000 // RATE_HZ}_ms"] if padded else []
    reasons += [f"flat:{LEADS[i]}" for i in np.flatnonzero(np.ptp(raw, axis=1) == 0)]
    quality = {"poor_quality": bool(reasons), "quality_reasons": ";".join(reasons), "r_at": r}
    return beat - level_before_qrs(beat), float(RATE_HZ), quality


def submission(cohort, probability: pd.Series, threshold: float) -> pd.DataFrame:
    """Return the table that the data's authors evaluate: ``ecg_row_record, ecg_med_record, OMI``.

    Parameters
    ----------
    cohort : ecglib.cohort.contract.Cohort
        Of `part` test; what it rejected is in the table too, with OMI 0.
    probability : pandas.Series
        By record, the mean over networks; OMI is 1 at or above `threshold`, chosen on validation.
    """
    called = (probability >= threshold).astype(int)
    every = [*called.index, *pd.read_csv(cohort.folder / "rejected.csv").record_id]
    called = called.reindex(every, fill_value=0).sort_index()
    file = called.index.str.removeprefix("acs-")
    table = {"ecg_row_record": file + ".dat", "ecg_med_record": file + ".med", "OMI": [*called]}
    return pd.DataFrame(table).set_index("ecg_row_record")
