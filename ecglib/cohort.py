"""The cohort contract: median beats, one table of records, and what the labels mean.

A cohort is a folder: ``beats.npy`` int16 µV ``(n, 12, 600)`` at 500 Hz with the R peak at sample
300, ``records.parquet`` with one row per ECG in the same order, and ``cohort.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from ecglib import BEAT_SAMPLES, LEADS, R_SAMPLE, RATE_HZ, paths
from ecglib.execute import sha256
from ecglib.sources import Source, count

RECORDS = pa.DataFrameSchema(
    {
        "record_id": pa.Column(str, unique=True),
        "patient_id": pa.Column(str),
        "site": pa.Column(str),
        "age": pa.Column(float, pa.Check.in_range(0, 120), nullable=True),
        "sex": pa.Column(str, pa.Check.isin(["female", "male"]), nullable=True),
        "label": pa.Column(int, pa.Check.isin([0, 1])),
        "poor_quality": pa.Column(bool),
    },
    strict=False,
)


class CohortError(ValueError):
    """A cohort that breaks the contract; one sentence that says where and what to do."""


@dataclass(frozen=True)
class Cohort:
    """A cohort in memory: beats memory-mapped, records as a table.

    Attributes
    ----------
    folder : Path
    beats : numpy.memmap
        int16, µV, ``(n, 12, 600)``.
    records : pandas.DataFrame
        One row per ECG, in the order of `beats`.
    info : dict
        ``cohort.json``: source, version, label_kind, label_meaning, lead_order, units, counts,
        flow, hashes.
    """

    folder: Path
    beats: np.ndarray
    records: pd.DataFrame
    info: dict

    @property
    def caption(self) -> str:
        """The label and its kind in words, for captions."""
        return f"{self.info['label_meaning']} [{self.info['label_kind']} label]"

    @property
    def key(self) -> str:
        """Hash of beats and records: two cohorts with the same key are the same."""
        return self.info["hashes"]["beats.npy"][:16] + self.info["hashes"]["records.parquet"][:16]


def cohort_of(study) -> Cohort:
    """Open the cohort that notebook 00 made, or opened, for a study."""
    told = paths.step_folder(study.name, "00_cohort") / "run.json"
    if not told.is_file():
        raise CohortError(
            f"Study {study.name} has no cohort yet: run notebook 00_cohort with it first"
        )
    return load_cohort(paths.ROOT / json.loads(told.read_text())["cohort"])


def folds_of(study) -> pd.DataFrame:
    """Folds that notebook 02 dealt for a study: ``record_id, fold``."""
    file = paths.step_folder(study.name, "02_folds") / "folds.parquet"
    if not file.is_file():
        raise CohortError(
            f"Study {study.name} has no folds yet: run notebook 02_folds with it first"
        )
    return pd.read_parquet(file)


def flow_table(cohort: Cohort) -> pd.DataFrame:
    """What became of each recording: ECGs (and patients, of the kept) read, rejected by reason,
    flagged, kept.
    """
    counts, rejected = cohort.info["counts"], pd.read_csv(cohort.folder / "rejected.csv")
    rows = [("listed", counts["ecgs"] + counts["rejected"], None)]
    kinds = rejected.reason.astype(str).str.replace(r"^.*?: ", "", regex=True)
    rows += [(f"rejected: {kind}", number, None) for kind, number in kinds.value_counts().items()]
    rows.append(("kept", counts["ecgs"], counts["patients"]))
    poor = cohort.records[cohort.records.poor_quality]
    rows.append(("of these, poor quality", len(poor), poor.patient_id.nunique()))
    reasons = poor.assign(reason=poor.quality_reasons.str.split(";")).explode("reason")
    reasons["reason"] = reasons.reason.astype(str).str.split(":").str[0]
    for kind, part in reasons.drop_duplicates(["record_id", "reason"]).groupby("reason"):
        rows.append((f"… {kind}", len(part), part.patient_id.nunique()))
    return (
        pd.DataFrame(rows, columns=["step", "ECGs", "patients"]).set_index("step").astype("Int64")
    )


def audit_table(cohort: Cohort) -> pd.DataFrame:
    """Count what each step of the signal chain did to the recordings of positive and negative ECGs.

    Rejected are those that can't be read, give no median beat, are of poor quality (if the study
    drops these), or hold a beat that is also another patient's. Of those kept, gaps were bridged,
    leads rebuilt, and doubts flagged; a recording counts in each that applies.
    """
    rejected = pd.read_csv(cohort.folder / "rejected.csv").convert_dtypes()
    rejected["label"] = rejected.label.astype("Int64")
    parts = {"listed": pd.concat([cohort.records.label.astype("Int64"), rejected.label])}
    for step in ("listed", "reading", "median beat", "poor quality", "duplicate"):
        parts[f"rejected: {step}"] = rejected.label[rejected.step == step]
    parts["kept"] = cohort.records.label
    words = cohort.records.quality_reasons.str.split(";").explode().str.split(":").str[0]
    for kind in ("bridged", "rebuilt"):
        parts[kind] = cohort.records.label[words.index[words == kind].unique()]
    parts["flagged"] = cohort.records.label[cohort.records.poor_quality]
    for kind in sorted(set(words) - {"", "bridged", "rebuilt"}):
        parts[f"… {kind}"] = cohort.records.label[words.index[words == kind].unique()]
    rows = {
        name: {
            "positive": (label == 1).sum(),
            "negative": (label == 0).sum(),
            "label unknown": label.isna().sum(),
        }
        for name, label in parts.items()
    }
    return pd.DataFrame(rows).T.rename_axis("step").astype(int)


def describe(records: pd.DataFrame, by: str) -> pd.DataFrame:
    """Describe a cohort as the paper's Table 3 does, patients and ECGs counted apart, with what is
    missing.

    A patient counts as positive if any of their ECGs is; age and sex are those of a patient's first
    ECG.

    Parameters
    ----------
    records : pandas.DataFrame
    by : str
        Column whose values become rows, for example ``site``; a last row holds the total.
    """
    rows = {}
    for name, part in [*records.groupby(by), ("total", records)]:
        first = {"age": "first", "sex": lambda sex: sex.iloc[0], "label": "max"}
        patients = part.groupby("patient_id").agg(first)
        female, positive = (patients.sex == "female").sum(), patients.label.sum()
        rows[name] = {
            "ECGs": len(part),
            "positive ECGs": f"{part.label.sum()} ({part.label.mean():.1%})",
            "patients": len(patients),
            "positive patients": f"{positive} ({positive / len(patients):.1%})",
            "age (years)": f"{patients.age.mean():.0f} (±{patients.age.std():.0f})",
            "female": f"{female} ({female / max(patients.sex.notna().sum(), 1):.0%})",
            "age missing": int(patients.age.isna().sum()),
            "sex missing": int(patients.sex.isna().sum()),
        }
    return pd.DataFrame(rows).T.rename_axis(by)


def describe_build(
    source: Source, folder: Path, records: pd.DataFrame, rejected: pd.DataFrame, made_from
) -> dict:
    """Contents of ``cohort.json`` for the beats and records in `folder`."""
    told = {"source": source.name}
    told |= {
        name: getattr(source, name)
        for name in ("version", "label_kind", "label_meaning", "attribution")
    }
    told |= {"lead_order": list(LEADS), "units": "uV", "rate_hz": RATE_HZ, "r_sample": R_SAMPLE}
    told["counts"] = count(records) | {
        "poor_quality": int(records.poor_quality.sum()),
        "rejected": len(rejected),
    }
    told |= {"selection": source.counts, "made_from": made_from}
    # in a cohort of mixed rates all that every beat holds; NaN of ready beats: unknown
    band = records["band_hz"].min() if "band_hz" in records else np.nan
    told["band_hz"] = None if np.isnan(band) else float(band)
    return told | {
        "hashes": {name: sha256(folder / name) for name in ("beats.npy", "records.parquet")}
    }


def load_cohort(folder: str | Path, check_hashes: bool = False) -> Cohort:
    """Open a cohort, memory-mapped, and check that it keeps the contract.

    Parameters
    ----------
    folder : path
    check_hashes : bool
        Also read the files whole and compare their SHA-256 with ``cohort.json``.

    Raises
    ------
    CohortError
        For a missing file, wrong shape, unknown leads, NaN, duplicate record ids, labels other than
        0 and 1, a patient with two sexes, or a file that isn't the one that was written.
    """
    folder = Path(folder)
    for name in ("cohort.json", "beats.npy", "records.parquet"):
        if not (folder / name).is_file():
            raise CohortError(f"Cohort {folder} has no {name}; build it with notebook 00_cohort")
    info = json.loads((folder / "cohort.json").read_text())
    try:
        beats = np.load(folder / "beats.npy", mmap_mode="r")
    except ValueError as error:
        raise CohortError(
            f"{folder / 'beats.npy'} is damaged ({error}); build the cohort again"
        ) from None
    records = pd.read_parquet(folder / "records.parquet")
    if info.get("lead_order") != list(LEADS):
        raise CohortError(
            f"Cohort {folder} has leads {info.get('lead_order')}; they must be {', '.join(LEADS)}"
        )
    if info.get("units") != "uV":
        raise CohortError(f"Cohort {folder} has units {info.get('units')}; beats must be in uV")
    check(records, beats, folder)
    for name, expected in info["hashes"].items() if check_hashes else ():
        if sha256(folder / name) != expected:
            raise CohortError(
                f"{folder / name} is not the file that was built (SHA-256 differs); build it again"
            )
    return Cohort(folder, beats, records, info)


def check(records: pd.DataFrame, beats: np.ndarray, folder: Path) -> None:
    """Check records and beats against the contract; `CohortError` says where they break it."""
    expected = (len(records), len(LEADS), BEAT_SAMPLES)
    if beats.shape != expected or beats.dtype != np.int16:
        raise CohortError(
            f"Cohort {folder}: beats are {beats.dtype} {beats.shape}, must be int16 {expected}"
        )
    try:
        RECORDS.validate(records, lazy=False)
    except (pa.errors.SchemaError, pa.errors.SchemaErrors) as error:
        told = " ".join(str(error).split())[:300]
        raise CohortError(f"Cohort {folder}: the records break the contract: {told}") from None
    sexes = records.dropna(subset="sex").groupby("patient_id").sex.nunique()
    if (sexes > 1).any():
        raise CohortError(
            f"Cohort {folder}: patient {sexes.index[sexes > 1][0]} has two sexes; correct the table"
        )
