"""PTB-XL: 12-lead ECGs of 10 s from PhysioNet, with proxy labels read from their annotations.

PTB-XL has no label of occlusion: its statements were read from the ECG itself. Every label here is a proxy and is
called that wherever it is shown. Likelihoods of statements are not used: 0 means "not stated" in PTB-XL, not "absent".

Wagner et al., "PTB-XL, a large publicly available electrocardiography dataset", Scientific Data 7:154, 2020.
"""

import ast
import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import requests
from requests.adapters import HTTPAdapter
from scipy.signal import resample_poly
from tqdm.auto import tqdm

from ecglib import LEADS, RATE_HZ, paths
from ecglib.sources import ReadError, Source, SourceError

BASE_URL = "https://physionet.org/files/ptb-xl/1.0.3/"
CONNECTIONS, ATTEMPTS, PAUSE_S = 8, 4, 1.0  # of a download: at once, tries of one file, first pause between tries

LABELS = {
    "acute_mi": "acute MI or ischaemic injury statement (proxy)",
    "acute_mi_strict": "acute MI by the stated stage of infarction (proxy)",
    "mi": "any MI statement, acute or old (proxy)",
}
INJURY = {"INJAS", "INJAL", "INJIN", "INJLA", "INJIL"}  # subendocardial injury statements
ACUTE_STAGES = ("Stadium I", "Stadium I-II")
TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
COLUMNS = [
    *("ecg_id", "patient_id", "age", "sex", "site", "scp_codes", "infarction_stadium1", "infarction_stadium2"),
    *("validated_by_human", "strat_fold", "filename_lr", "filename_hr"),
]
ATTRIBUTION = (
    "PTB-XL (Wagner et al., Scientific Data 7:154, 2020; physionet.org/content/ptb-xl), CC BY 4.0; "
    "labels are derived from its annotations"
)


def open_source(settings, seed: int, data_dir: str | Path | None = None) -> Source:
    """Open PTB-XL with a proxy label.

    Parameters
    ----------
    settings : ecglib.params.PtbxlCohort
    seed : int
        Fixes which negatives are drawn when `settings.prevalence` is set.
    data_dir : path, optional
        Folder in PhysioNet's layout (1.0.1 or 1.0.3), only read. None: ``data/ptb-xl`` of the project, into which
        the files that are needed and absent are downloaded from PhysioNet.

    Returns
    -------
    Source
        Of label kind proxy, with all three labels as columns; `rejected` names the records without files.

    Raises
    ------
    SourceError
        If the tables can't be used, no ECG or no positive is left, the prevalence can't be reached, a download fails,
        or files are absent and `settings.allow_missing_records` is false.
    """
    folder = paths.find(data_dir) if data_dir is not None else paths.DATA / "ptb-xl"
    if data_dir is None:
        download(folder, [TABLE, STATEMENTS])
    table = read_tables(folder)
    version = _version(table)
    label, fast = settings.label, settings.sampling_rate == 100
    records = pd.DataFrame(
        {
            "record_id": table.ecg_id.map("ptbxl-{:05d}".format),
            "patient_id": table.patient_id.astype(int).astype(str),
            "site": table.site.map(lambda s: "unknown" if pd.isna(s) else f"{s:g}"),
            "age": table.age.mask(table.age == 300, 90.0).astype(float),  # 300: above 89, hidden in version 1.0.3
            "sex": table.sex.map({0: "male", 1: "female"}),
            "label": table[label].astype(int),
            **{name: table[name].astype(int) for name in LABELS},
            "validated_by_human": table.validated_by_human.astype(str).str.lower() == "true",
            "strat_fold": table.strat_fold.astype(int),
            "stage1": table.infarction_stadium1.astype("string"),
            "filename": table.filename_lr if fast else table.filename_hr,
        }
    )
    bad = ~records.filename.astype(str).str.fullmatch(r"records(100|500)/\d{5}/\d{5}_[lh]r")
    if bad.any():
        raise SourceError(
            f"{folder / TABLE}: {records.record_id[bad].iloc[0]} has the file name "
            f"{records.filename[bad].iloc[0]!r}, which is not of PTB-XL's form"
        )

    counts = {"in the table": _count(records)}
    if settings.same_patient_negatives == "drop":
        records = records[(records.label == 1) | ~records.patient_id.isin(records.patient_id[records.label == 1])]
        counts["without negatives of positive patients"] = _count(records)
    if settings.prevalence is not None:
        records = draw_negatives(records, settings.prevalence, seed)
        counts["negatives drawn to the prevalence"] = _count(records)
    if data_dir is None:
        download(folder, [f"{name}.{ending}" for name in records.filename for ending in ("hea", "dat")])
    absent = records.filename.map(lambda name: _absent(folder, name))
    rejected = pd.DataFrame({"record_id": records.record_id, "reason": absent})[absent != ""].reset_index(drop=True)
    records = records[absent == ""].reset_index(drop=True)
    counts["with files"] = _count(records)
    if len(rejected) and not settings.allow_missing_records:
        raise SourceError(
            f"{len(rejected):,} of {len(rejected) + len(records):,} records of {TABLE} have no files at "
            f"{settings.sampling_rate} Hz in {folder} (first: {rejected.reason.iloc[0]}); "
            "complete the folder, choose the other sampling_rate, or set cohort.allow_missing_records: true"
        )
    if not records.label.any():
        raise SourceError(
            f"No ECG is positive for '{label}' among the {len(records):,} selected from {folder}; choose another label "
            "or more records"
        )
    return Source(
        name="ptbxl",
        version=version,
        label_kind="proxy",
        label_meaning=LABELS[label],
        records=records,
        read=Reader(folder, settings.sampling_rate),
        counts=counts,
        rejected=rejected,
        attribution=ATTRIBUTION,
    )


def read_tables(folder: Path) -> pd.DataFrame:
    """Read PTB-XL's two tables and add a boolean column for each label of `LABELS`.

    Raises
    ------
    SourceError
        If a table or column is absent, or holds what PTB-XL never does.
    """
    tables = []
    for name, columns in ((TABLE, COLUMNS), (STATEMENTS, ["diagnostic_class"])):
        try:
            tables.append(pd.read_csv(folder / name))
        except FileNotFoundError:
            raise SourceError(
                f"{folder} has no {name}; give the folder of PTB-XL in PhysioNet's layout, or none to download it"
            ) from None
        except (ValueError, OSError) as error:
            raise SourceError(f"{folder / name} is not a readable CSV file: {str(error).splitlines()[0]}") from None
        missing = [column for column in columns if column not in tables[-1]]
        if missing:
            raise SourceError(f"{folder / name} lacks the column '{missing[0]}'; take the file from PhysioNet again")
    table, statements = tables
    if table.empty:
        raise SourceError(f"{folder / TABLE} has no rows; take the file from PhysioNet again")
    checks = {
        "ecg_id": pd.api.types.is_integer_dtype(table.ecg_id) and table.ecg_id.is_unique,
        "patient_id": pd.api.types.is_numeric_dtype(table.patient_id) and table.patient_id.notna().all(),
        "age": pd.api.types.is_numeric_dtype(table.age),
        "sex": table.sex.isin([0, 1]).all(),
        "site": pd.api.types.is_numeric_dtype(table.site),
        "strat_fold": table.strat_fold.isin(range(1, 11)).all(),
    }
    for column, good in checks.items():
        if not good:
            raise SourceError(
                f"{folder / TABLE}: the column '{column}' holds values that PTB-XL doesn't have; "
                "take the file from PhysioNet again"
            )
    try:
        codes = table.scp_codes.map(lambda text: frozenset(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise SourceError(f"{folder / TABLE}: the column 'scp_codes' doesn't hold dictionaries of statements") from None
    infarction = frozenset(statements.iloc[:, 0][statements.diagnostic_class == "MI"])
    stage = table.infarction_stadium1.isin(ACUTE_STAGES) | table.infarction_stadium2.isin(ACUTE_STAGES)
    return table.assign(
        acute_mi_strict=stage,
        acute_mi=stage | codes.map(lambda found: bool(found & INJURY)),
        mi=codes.map(lambda found: bool(found & infarction)),
    )


def draw_negatives(records: pd.DataFrame, prevalence: float, seed: int) -> pd.DataFrame:
    """Draw negative patients, with all their ECGs, until `prevalence` of the ECGs are positive.

    Patients with a positive ECG stay whole; the order of the rows doesn't change the draw. The share is met to within
    half of the last patient's ECGs.

    Raises
    ------
    SourceError
        If there are too few negatives, or too many in patients that also have a positive ECG.
    """
    positive = records.patient_id.isin(records.patient_id[records.label == 1])
    n_positive = int(records.label.sum())
    fixed = int(positive.sum()) - n_positive
    wanted = n_positive * (1 - prevalence) / prevalence
    sizes = records[~positive].groupby("patient_id").size()  # sorted by patient_id
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = fixed + np.concatenate([[0], np.cumsum(sizes.to_numpy()[order])])
    if not drawn[0] - 0.5 <= wanted <= drawn[-1] + 0.5:
        low, high = n_positive / (n_positive + drawn[-1]), n_positive / max(n_positive + drawn[0], 1)
        raise SourceError(
            f"cohort.prevalence {prevalence:g} can't be reached: {n_positive} positives allow {low:.4f} to {high:.4f}"
        )
    keep = sizes.index[order[: np.abs(drawn - wanted).argmin()]]
    return records[positive | records.patient_id.isin(keep)]


@dataclass(frozen=True)
class Reader:
    """Reads one record of PTB-XL as µV at 500 Hz; `rate` is that of the files, 100 or 500 Hz."""

    folder: Path
    rate: int

    def __call__(self, row) -> tuple[np.ndarray, float]:
        """Return float32 ``(12, samples)`` in µV, and 500; raise `ReadError` if the files can't be trusted."""
        signal, rate = read_record(self.folder / row.filename)
        if rate != self.rate:
            raise ReadError(f"{row.filename}.hea gives {rate:g} Hz where {self.rate} Hz was expected")
        return (upsample(signal) if rate == 100 else signal), float(RATE_HZ)


def read_record(path: Path) -> tuple[np.ndarray, float]:
    """Read a WFDB record of PTB-XL's form (one 16-bit file) and verify its checksums; several times wfdb's speed.

    Returns
    -------
    signal : numpy.ndarray
        float32 ``(12, samples)`` in µV, in the order of `ecglib.LEADS`.
    rate : float
        Hz, as in the header.

    Raises
    ------
    ReadError
        If a file is absent, the header is of another form, or a lead's 16-bit sum is not the header's.
    """
    name = path.name
    try:
        lines = path.with_suffix(".hea").read_text("ascii").splitlines()
        raw = np.fromfile(path.with_suffix(".dat"), "<i2")
        lines = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        n_leads, rate, samples = int(lines[0][1]), float(lines[0][2]), int(lines[0][3])
        parts = [re.fullmatch(r"([\d.]+)(?:\((-?\d+)\))?/(mV|uV)", line[2]).groups() for line in lines[1:]]
        gain = np.array([float(g) * (1000 if unit == "uV" else 1) for g, _, unit in parts])  # units per mV
        zero = np.array([int(b or line[4]) for (_, b, _), line in zip(parts, lines[1:], strict=True)])
        sums = np.array([int(line[6]) for line in lines[1:]])
        where = {line[8].upper(): i for i, line in enumerate(lines[1:])}
        plain = all(line[0] == f"{name}.dat" and line[1] == "16" for line in lines[1:])
        if not (plain and len(parts) == n_leads and rate > 0 and (gain > 0).all()):
            raise ValueError
    except OSError as error:
        raise ReadError(f"{Path(error.filename or path).name} can't be read: {error.strerror}") from None
    except (ValueError, IndexError, AttributeError):
        raise ReadError(f"{name}.hea is not a header of PTB-XL's form") from None
    if raw.size != n_leads * samples:
        raise ReadError(f"{name}.dat holds {raw.size:,} values where its header gives {n_leads * samples:,}")
    raw = raw.reshape(samples, n_leads)
    missing = [lead for lead in LEADS if lead.upper() not in where]
    if missing:
        raise ReadError(f"{name}.hea lacks lead {missing[0]}")
    wrong = (raw.sum(axis=0, dtype=np.int64) - sums) % 65536 != 0
    if wrong.any():
        raise ReadError(f"{name}.dat: the checksum of lead {lines[1 + wrong.argmax()][8]} is not the header's")
    order = [where[lead.upper()] for lead in LEADS]
    return ((raw[:, order] - zero[order]) * (1000 / gain[order])).T.astype(np.float32), rate


def _upsampling_kernel(shift: float = 0.625, half: int = 50) -> np.ndarray:
    """Low-pass of the upsampling by 5 (Kaiser-windowed sinc) that also delays by `shift` samples at 500 Hz."""
    n = np.arange(-half, half + 1) - shift
    kernel = np.sinc(n / 5) * np.i0(5 * np.sqrt(np.clip(1 - (n / (half + 1)) ** 2, 0, None)))
    return (kernel / kernel.sum()).astype(np.float32)


# PTB-XL's 100 Hz files run 1.25 ms ahead of the 500 Hz ones once interpolated: the same in all 71 records measured.
KERNEL = _upsampling_kernel()


def upsample(signal: np.ndarray) -> np.ndarray:
    """Bring ``(12, samples)`` of PTB-XL from 100 to 500 Hz, in time with the native 500 Hz files."""
    return resample_poly(signal, 5, 1, axis=1, window=KERNEL, padtype="line").astype(np.float32)


def download(folder: Path, names: list[str]) -> None:
    """Download what `folder` lacks of the files `names` from `BASE_URL`, verified against PhysioNet's SHA-256.

    A file gets its name only once verified; an interrupted one stays beside it as ``.part`` and is resumed.

    Raises
    ------
    SourceError
        If a file can't be downloaded, its SHA-256 stays wrong, or PhysioNet's list lacks it.
    """
    names = [name for name in names if not (folder / name).exists()]
    if not names:
        return
    with requests.Session() as session, ThreadPoolExecutor(CONNECTIONS) as pool:
        session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        listing = folder / "SHA256SUMS.txt"
        if not listing.exists():
            _fetch(session, folder, listing.name, None)
        sums = dict(line.split(maxsplit=1)[::-1] for line in listing.read_text().splitlines() if " " in line)
        unlisted = [name for name in names if name not in sums]
        if unlisted:
            raise SourceError(f"{listing} doesn't list {unlisted[0]}; delete it to download it again")
        jobs = [pool.submit(_fetch, session, folder, name, sums[name]) for name in names]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="PTB-XL from PhysioNet", unit="file"):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(session: requests.Session, folder: Path, name: str, sha256: str | None) -> None:
    """Download one file, going on from what an earlier try left (pooch would begin again)."""
    target, part = folder / name, folder / f"{name}.part"
    target.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S * 2 ** (attempt - 1) if attempt else 0)
        have = part.stat().st_size if part.exists() else 0
        asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with session.get(BASE_URL + name, headers=asked, stream=True, timeout=(10, 60)) as reply:
                if reply.status_code != 416:  # 416: nothing is left to send, so the part is whole or wrong
                    reply.raise_for_status()
                    with part.open("ab" if reply.status_code == 206 else "wb") as out:
                        for chunk in reply.iter_content(1 << 16):
                            out.write(chunk)
        except (requests.RequestException, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
            if getattr(getattr(error, "response", None), "status_code", None) in (403, 404):
                break
            continue
        if sha256 is None or hashlib.sha256(part.read_bytes()).hexdigest() == sha256:
            part.replace(target)
            return
        part.unlink()
        problem = "its SHA-256 is not the one PhysioNet gives"
    raise SourceError(f"{BASE_URL}{name} was not downloaded ({problem}); start again to go on from what is there")


def _absent(folder: Path, name: str) -> str:
    """Return which file of a record is absent, in words, or ''."""
    gone = [f"{name}.{ending}" for ending in ("hea", "dat") if not (folder / f"{name}.{ending}").is_file()]
    return f"{' and '.join(gone)} absent" if gone else ""


def _count(records: pd.DataFrame) -> dict[str, int]:
    """Count ECGs and patients, and the positive ones of each."""
    positive = records[records.label == 1]
    return {
        "ecgs": len(records),
        "patients": records.patient_id.nunique(),
        "positive_ecgs": len(positive),
        "positive_patients": positive.patient_id.nunique(),
    }


def _version(table: pd.DataFrame) -> str:
    """Tell the version from the rows and from how ages above 89 are given; 'unknown' where they don't tell."""
    rows, hidden, plain = len(table), (table.age == 300).any(), table.age.between(90, 299).any()
    if hidden != plain:
        version, whole = ("1.0.3", 21_799) if hidden else ("1.0.1", 21_837)
        return version if rows == whole else f"{version} by its ages, {rows:,} rows"
    return f"unknown, {rows:,} rows"
