"""PTB-XL: 12-lead ECGs of 10 s from PhysioNet, with proxy labels read from their annotations.

PTB-XL has no label of occlusion; its statements were read from the ECG itself, so every label here
is called a proxy. Likelihoods of statements are not used: in PTB-XL a likelihood of 0 means "not
stated", not "absent".

Wagner et al., "PTB-XL, a large publicly available electrocardiography dataset", Scientific Data
7:154, 2020.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from ecglib.beat import LEADS, RATE_HZ
from ecglib.cohort.source import ReadError, Source, SourceError, count
from ecglib.download import DownloadError, Wanted
from ecglib.download import download as fetch

BASE_URL = "https://physionet.org/files/ptb-xl/1.0.3/"
TRIES = 6  # of each file that is downloaded

INJURY = {"INJAS", "INJAL", "INJIN", "INJLA", "INJIL"}  # statements of subendocardial injury
ACUTE_STAGES = ("Stadium I", "Stadium I-II")
TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
COLUMNS = ["ecg_id", "patient_id", "site", "age", "sex", "scp_codes", "validated_by_human"]
COLUMNS += ["strat_fold", "infarction_stadium1", "infarction_stadium2"]
ATTRIBUTION = (
    "PTB-XL, Wagner et al., Scientific Data 7:154, 2020; physionet.org/content/ptb-xl, CC BY 4.0"
)
HEAD = re.compile(r"\S+ (\d+) (\d+) (\d+)\s")  # leads, Hz, samples
LEAD_LINE = re.compile(
    r"^(\S+)\.dat 16 (\d+\.?\d*)(?:\((-?\d+)\))?/mV 16 -?\d+ -?\d+ (-?\d+) 0 (\S+)\s*$", re.M
)


def open_source(
    settings, seed: int, data_dir: Path | None, download_dir: Path | None = None
) -> Source:
    """Open PTB-XL with a proxy label; all three labels are columns of its records.

    `data_dir` is a folder in PhysioNet's layout (1.0.1 or 1.0.3) and only read; without one, what
    `download_dir` lacks is downloaded into it. Both are absolute paths; `seed` is not used. Raises
    `SourceError` if a table can't be used, no positive is left, a download fails, or files are
    absent and `settings.allow_missing_records` is false.
    """
    folder = data_dir or download_dir
    if not folder:
        raise SourceError("PTB-XL needs a folder; give data_dir, or download_dir to download it")
    if not data_dir:
        download(folder, [TABLE, STATEMENTS])
    records, version = read_tables(folder, settings.sampling_rate)
    records.insert(5, "label", records[settings.label])
    counts, unlisted = {"in the table": count(records)}, pd.DataFrame()
    if settings.records:
        records, unlisted = _listed(records, Path(settings.records), version)
        counts["of the study's list"] = count(records)

    if not data_dir:
        download(folder, [*records.filename + ".hea", *records.filename + ".dat"])
    absent = records.filename.map(
        lambda f: f"{f}.dat" if (folder / f"{f}.hea").is_file() else f"{f}.hea"
    )
    absent = absent.mask(absent.map(lambda f: (folder / f).is_file()), "")
    rejected = pd.DataFrame({"record_id": records.record_id, "reason": absent + " is missing"})
    rejected = pd.concat([unlisted, rejected[absent != ""]], ignore_index=True)
    if (absent != "").any() and not settings.allow_missing_records:
        lacking = (
            f"{(absent != '').sum():,} of {len(records):,} records at {settings.sampling_rate} Hz"
        )
        lacking += f", for example {absent.max()}"
        mend = "add them, change cohort.sampling_rate, or set cohort.allow_missing_records: true"
        raise SourceError(f"{folder} lacks {lacking}; {mend}")
    records = records[absent == ""].reset_index(drop=True)
    counts["with files"] = count(records)
    if not records.label.any():
        raise SourceError(
            f"None of {len(records):,} selected ECGs is positive for cohort.label {settings.label}"
        )
    read = Reader(folder, settings.sampling_rate)
    told = ("ptbxl", version, *settings.means, records, read, counts, rejected)
    return Source(*told, attribution=ATTRIBUTION)


def _listed(records, file: Path, version: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records whose ecg_id a study's file lists, and which of the file the table lacks."""
    try:
        ids = pd.read_csv(file).ecg_id.map("ptbxl-{:05d}".format)
    except (OSError, ValueError, AttributeError):
        raise SourceError(
            f"{file} is not a CSV file with a column ecg_id; name another in cohort.records"
        ) from None
    lacking = pd.DataFrame({"record_id": ids[~ids.isin(records.record_id)]})
    reason = f"is not in the table (version {version})"
    return records[records.record_id.isin(ids)].reset_index(drop=True), lacking.assign(
        reason=reason
    )


def read_tables(folder: Path, sampling_rate: int) -> tuple[pd.DataFrame, str]:
    """Read PTB-XL's two tables: one row per ECG with all labels, and the version as far as it can
    be told.

    Raises `SourceError` if a table or column is absent, or holds what PTB-XL never does.
    """
    filename = f"filename_{'lr' if sampling_rate == 100 else 'hr'}"
    table = _read_table(folder / TABLE, [*COLUMNS, filename])
    statements = _read_table(folder / STATEMENTS, ["diagnostic_class"])
    _check_values(table, filename, folder)
    codes = table.scp_codes.str.findall(r"'(\w+)':")
    stage = table.infarction_stadium1.isin(ACUTE_STAGES) | table.infarction_stadium2.isin(
        ACUTE_STAGES
    )
    infarction = set(statements.iloc[:, 0][statements.diagnostic_class == "MI"])
    # above 89: 300 in 1.0.3
    hidden, plain = (table.age == 300).any(), table.age.between(90, 299).any()
    version, whole = ("1.0.3", 21_799) if hidden else ("1.0.1", 21_837)
    if hidden == plain or len(table) != whole:
        version = (
            f"{'unknown' if hidden == plain else 'ages as in ' + version}, {len(table):,} rows"
        )
    records = pd.DataFrame(
        {
            "record_id": table.ecg_id.map("ptbxl-{:05d}".format),
            "patient_id": table.patient_id.astype(int).astype(str),
            "site": table.site.map(lambda site: "unknown" if pd.isna(site) else f"{site:g}"),
            "age": table.age.astype(float).replace(300.0, 90.0),
            "sex": table.sex.map({0: "male", 1: "female"}),
            "acute_mi": (stage | codes.map(lambda found: not INJURY.isdisjoint(found))).astype(int),
            "acute_mi_strict": stage.astype(int),
            "mi": codes.map(lambda found: not infarction.isdisjoint(found)).astype(int),
            "validated_by_human": table.validated_by_human.astype(str).str.lower() == "true",
            "strat_fold": table.strat_fold.astype(int),
            "stage1": table.infarction_stadium1.astype("string"),
            "filename": table[filename],
        }
    )
    return records, version


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read one of PTB-XL's tables, which must have `columns`."""
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise SourceError(
            f"{path.parent} has no {path.name}; give the folder of PTB-XL, or none to download it"
        ) from None
    except (ValueError, OSError) as error:
        raise SourceError(
            f"{path} is not a readable CSV file ({str(error).splitlines()[0]}); download it again"
        ) from None
    if missing := [column for column in columns if column not in table]:
        raise SourceError(
            f"{path} lacks the column '{missing[0]}'; download it from PhysioNet again"
        )
    return table


def _check_values(table: pd.DataFrame, filename: str, folder: Path) -> None:
    """Refuse a column that holds what PTB-XL never does."""
    number, path = pd.api.types.is_numeric_dtype, r"records(100|500)/\d{5}/\d{5}_[lh]r"
    whole = pd.api.types.is_integer_dtype(table.ecg_id)
    good = {
        "ecg_id": len(table) and whole and table.ecg_id.is_unique,
        "patient_id": number(table.patient_id) and table.patient_id.notna().all(),
        "site": number(table.site),
        "age": number(table.age) and table.age.dropna().between(0, 300).all(),
        "sex": table.sex.isin([0, 1]).all(),
        "scp_codes": table.scp_codes.astype(str).str.fullmatch(r"\{.*\}").all(),
        "strat_fold": table.strat_fold.isin(range(1, 11)).all(),
        filename: table[filename].astype(str).str.fullmatch(path).all(),
    }
    if wrong := [column for column, fine in good.items() if not fine]:
        raise SourceError(
            f"{folder / TABLE}: '{wrong[0]}' is empty or has values that PTB-XL never has; "
            "download the table from PhysioNet again"
        )


@dataclass(frozen=True)
class Reader:
    """Reads one record of PTB-XL at 500 Hz; `rate` is that of the files, 100 or 500 Hz."""

    folder: Path
    rate: int

    def __call__(self, row) -> tuple[np.ndarray, float]:
        """Return float32 ``(12, samples)`` in µV, and 500; or raise the `ReadError` of
        `read_record`.
        """
        signal, rate = read_record(self.folder / row.filename)
        if rate != self.rate:
            raise ReadError(f"{row.filename}.hea: the header gives {rate:g} Hz, not {self.rate} Hz")
        return (upsample(signal) if rate == 100 else signal), float(RATE_HZ)

    def native(self, row):
        """Return the same from the record's own file of 500 Hz; None if that isn't there."""
        path = self.folder / row.filename.replace("records100", "records500").replace("_lr", "_hr")
        return read_record(path) if path.with_suffix(".dat").is_file() else None


def read_record(path: Path) -> tuple[np.ndarray, float]:
    """Read a WFDB record of PTB-XL's form (one 16-bit file, mV) and verify its checksums; wfdb's
    reader is slower.

    Returns float32 ``(12, samples)`` in µV in the order of `ecglib.LEADS`, and the rate in Hz.
    Raises `ReadError` if a file can't be read, the header is of another form, or a lead's 16-bit
    sum is not the header's.
    """
    try:
        header = path.with_suffix(".hea").read_text("latin-1")
        raw = path.with_suffix(".dat").read_bytes()
    except OSError as error:
        raise ReadError(
            f"{Path(error.filename or path).name}: the file can't be read ({error.strerror})"
        ) from None
    return decode(path.name, header, raw)


def decode(name: str, header: str, data: bytes, trusted: bool = True) -> tuple[np.ndarray, float]:
    """Read the same from the text of a header and the bytes of its signal file.

    If a header isn't `trusted`, its checksums aren't compared, the signal may be shorter than it
    says, and WFDB's code for a missing sample is NaN.
    """
    head, leads = HEAD.match(header), {line[-1].upper(): line for line in LEAD_LINE.findall(header)}
    lines = leads.values()
    if head is None or len(leads) != int(head[1]) or any(line[0] != name for line in lines):
        raise ReadError(f"{name}.hea: the header doesn't have PTB-XL's format")
    if missing := [lead for lead in LEADS if lead.upper() not in leads]:
        raise ReadError(f"{name}.hea: lead {missing[0]} is missing")
    samples, rest = divmod(len(data), 2 * len(leads))
    if rest or samples > int(head[3]) or samples < int(head[3]) * trusted:
        raise ReadError(
            f"{name}.dat: {len(data) // 2:,} values, but the header gives {len(leads)} × {head[3]}"
        )
    raw = np.frombuffer(data, "<i2").reshape(-1, len(leads))
    gain, zero, sums = np.array([[float(part or 0) for part in line[1:4]] for line in lines]).T
    wrong = (trusted & ((raw.sum(axis=0) - sums) % 65536 != 0)) | (gain == 0)
    if wrong.any():
        raise ReadError(
            f"{name}: lead {list(leads)[wrong.argmax()]} doesn't match its checksum "
            "or has a gain of 0"
        )
    order = [list(leads).index(lead.upper()) for lead in LEADS]
    signal = ((raw - zero) * (1000 / gain)).astype(np.float32)
    signal[(raw == np.iinfo(raw.dtype).min) & (not trusted)] = np.nan
    return signal.T[order], float(head[2])


def _upsampling_phases(shift: float = 0.625, taps: int = 10) -> np.ndarray:
    """Kaiser-windowed sinc that interpolates by 5 and delays by `shift` samples at 500 Hz, as ``(21
    taps, 5)``.
    """
    n = np.arange(-5 * taps, 5 * taps + 5) - shift
    kernel = np.sinc(n / 5) * np.i0(5 * np.sqrt(1 - (n / (5 * taps + 5)) ** 2))
    phases = kernel.reshape(-1, 5)[::-1]
    return (phases / phases.sum(axis=0)).astype(np.float32)


# Interpolated, PTB-XL's 100 Hz files run 1.25 ms ahead of the 500 Hz ones: the same in all 71
# records measured.
PHASES = _upsampling_phases()


def upsample(signal: np.ndarray) -> np.ndarray:
    """Bring ``(12, samples)`` of PTB-XL from 100 to 500 Hz, in time with the native 500 Hz
    files.
    """
    padded = np.pad(signal, ((0, 0), (len(PHASES) // 2,) * 2), mode="edge")
    return (sliding_window_view(padded, len(PHASES), axis=1) @ PHASES).reshape(len(signal), -1)


def download(folder: Path, names: list[str]) -> None:
    """Download what `folder` lacks of the files `names` from `BASE_URL`, verified by PhysioNet's
    SHA-256.

    Raises `SourceError` if a file can't be had, its SHA-256 stays wrong, or PhysioNet's list lacks
    it.
    """
    if not (names := [name for name in names if not (folder / name).exists()]):
        return
    listing = folder / "SHA256SUMS.txt"
    try:
        if not listing.exists():
            fetch([Wanted(BASE_URL + listing.name, listing)], "PhysioNet", TRIES)
        lines = [line.split(maxsplit=1) for line in listing.read_text().splitlines()]
        sums = {line[1]: f"sha256:{line[0]}" for line in lines if len(line) == 2}
        if unlisted := [name for name in names if name not in sums]:
            raise SourceError(
                f"{listing} doesn't list {unlisted[0]}; delete it, and it is downloaded again"
            )
        wanted = [Wanted(BASE_URL + name, folder / name, sums[name]) for name in names]
        fetch(wanted, "PhysioNet", TRIES)
    except DownloadError as error:
        raise SourceError(str(error)) from None
