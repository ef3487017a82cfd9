"""The cohort contract: median beats, one table of records, and what the labels mean.

A cohort is a folder: ``beats.npy`` int16 µV ``(n, 12, 600)`` at 500 Hz with the R peak at sample
300, ``records.parquet`` with one row per ECG in the same order, and ``cohort.json``.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from ecglib.beat import BEAT_SAMPLES, LEADS, R_SAMPLE, RATE_HZ
from ecglib.cohort.source import Source, count
from ecglib.errors import Refusal
from ecglib.folders import sha256

RECORDS = pa.DataFrameSchema(
    {
        "record_id": pa.Column(str, unique=True),
        "patient_id": pa.Column(str),
        "site": pa.Column(str),
        "age": pa.Column(float, pa.Check.in_range(0, 120), nullable=True),
        "sex": pa.Column(str, pa.Check.isin(["female", "male"]), nullable=True),
        # unknown in a cohort that models are only applied to
        "label": pa.Column(checks=pa.Check.isin([0, 1]), nullable=True),
        "poor_quality": pa.Column(bool),
    },
    strict=False,
)


class CohortError(Refusal, ValueError):
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

    def key_with(self, *columns: str) -> str:
        """Hash of beats, record ids, patients and labels, and of `columns`: what a run depends on.

        A new quality column, say, leaves it as it is.
        """
        used = self.records[["record_id", "patient_id", "label", *columns]].to_csv(index=False)
        rest = hashlib.sha256(used.encode()).hexdigest()
        return self.info["hashes"]["beats.npy"][:16] + rest[:16]

    @property
    def key(self) -> str:
        """Two cohorts with the same key have the same beats, ids, patients and labels."""
        return self.key_with()


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


def small_as_one(site: pd.Series, least: int = 20) -> pd.Series:
    """Sites with fewer ECGs than `least` under one name, since none of them says anything alone."""
    small = site.map(site.value_counts()) < least
    return site.mask(small, f"sites under {least} ECGs: {site[small].nunique()}")


def describe(records: pd.DataFrame, by: str) -> pd.DataFrame:
    """Describe a cohort as the paper's Table 3 does, patients and ECGs apart, with what is missing.

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
            "positive ECGs": f"{part.label.sum():,} ({part.label.mean():.1%})",
            "patients": len(patients),
            "positive patients": f"{positive:,} ({positive / len(patients):.1%})",
            "age (years)": f"{patients.age.mean():.0f} (±{patients.age.std():.0f})".replace(
                "nan (±nan)", "–"
            ),
            "female": f"{female:,} ({female / max(patients.sex.notna().sum(), 1):.0%})",
            "age missing": int(patients.age.isna().sum()),
            "sex missing": int(patients.sex.isna().sum()),
        }
    return pd.DataFrame(rows).T.rename_axis(by)


def describe_build(
    source: Source, folder: Path, records: pd.DataFrame, rejected: pd.DataFrame, made_from
) -> dict:
    """Contents of ``cohort.json`` for the beats and records in `folder`."""
    # in a cohort of mixed rates all that every beat holds; NaN of ready beats: unknown
    band = records["band_hz"].min() if "band_hz" in records else np.nan
    return {
        "source": source.name,
        "version": source.version,
        "label_kind": source.label_kind,
        "label_meaning": source.label_meaning,
        "attribution": source.attribution,
        "lead_order": list(LEADS),
        "units": "uV",
        "rate_hz": RATE_HZ,
        "r_sample": R_SAMPLE,
        "counts": count(records)
        | {"poor_quality": int(records.poor_quality.sum()), "rejected": len(rejected)},
        "selection": source.counts,
        "made_from": made_from,
        "band_hz": None if np.isnan(band) else float(band),
        "hashes": {name: sha256(folder / name) for name in ("beats.npy", "records.parquet")},
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
        For a missing file, wrong shape, unknown leads, duplicate record ids, labels other than 0, 1
        and unknown, a patient with two sexes, or a file that isn't the one that was written.
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
    for key, needed in (("lead_order", list(LEADS)), ("units", "uV")):
        if info.get(key) != needed:
            raise CohortError(
                f"Cohort {folder}: '{key}' is {info.get(key)}, not {needed}; build it again"
            )
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
            f"Cohort {folder}: beats are {beats.dtype} {beats.shape} but must be int16 {expected}"
        )
    try:
        RECORDS.validate(records)
    except pa.errors.SchemaError as error:
        reason = " ".join(str(error).split())[:300]
        raise CohortError(f"Cohort {folder}: the records break the contract: {reason}") from None
    sexes = records.groupby("patient_id").sex.nunique()
    if (sexes > 1).any():
        raise CohortError(
            f"Cohort {folder}: patient {sexes.idxmax()} is listed with two sexes; correct the table"
        )


def describe_folds(records: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """Count what each fold holds.

    Parameters
    ----------
    records, folds : pandas.DataFrame
        A cohort's records, and ``record_id, fold`` in the same order.

    Returns
    -------
    pandas.DataFrame
        By fold: ``ECGs, positives, age`` (mean, years), ``patients, positive patients (%)``.
    """
    parts = records.assign(fold=folds.fold.to_numpy())
    patients = (
        parts.groupby(["fold", "patient_id"]).label.max().groupby("fold").agg(["size", "mean"])
    )
    shape = parts.groupby("fold").agg(
        ECGs=("label", "size"), positives=("label", "sum"), age=("age", "mean")
    )
    shape["patients"], shape["positive patients (%)"] = patients["size"], 100 * patients["mean"]
    return shape
