"""Real OMI outcomes: the two feature tables published with Al-Zaiti et al. 2023, read, made
comparable, analysed.

The tables have no licence. They are read where they lie or fetched from their public place, never
stored in the repository; only counts, shares, means and intervals leave this module for a figure or
table. Counts below 5 are suppressed, predictions stay in memory, and fitted trees are not saved.

Al-Zaiti SS et al. Machine learning for ECG diagnosis and risk stratification of occlusion
myocardial infarction. Nat Med 2023;29:1804-1813.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from scipy.stats import ks_2samp
from sklearn.model_selection import StratifiedKFold, train_test_split
from threadpoolctl import threadpool_limits

from ecglib.cohort.source import SourceError
from ecglib.download import DownloadError, Wanted, download
from ecglib.folders import sha256
from ecglib.settings import Label
from ecglib.trees import forest
from ecglib.trees.features import DEFINITIONS

LABEL = "Outcome_Occlusion_MI"
COLUMNS = tuple(DEFINITIONS.index)
FILES = {"derivation": "Derivation_dataset.csv", "external": "External_validation_dataset.csv"}
WORDING = "same group and task, overlapping source, not the same cohort"

NOT_MEASURED = {
    "Age": 0,
    "TCRT": -2,
    "TCRTangle": -361,
    "Tamp": -1,
    "TMD": 0,
    "TMDpre": 0,
    "TMDpost": 0,
}
"""Values that stand for a missing one."""

DISTANCE_LIMIT = 0.3
"""A column whose distributions in the two tables are this far apart (Kolmogorov-Smirnov) doesn't
compare.
"""

PUBLISHED_AUC = {"test part": 0.91, "external": 0.87}
"""What the published notebook shows (its random forest, scikit-learn 1.1.3)."""


@dataclass(frozen=True)
class Tables:
    """Both tables: `LABEL` and the 74 `COLUMNS`, one row per patient; `made_up` if they hold
    nothing real.
    """

    derivation: pd.DataFrame
    external: pd.DataFrame
    made_up: bool = False

    @property
    def label(self) -> Label:
        """What the outcome means."""
        if self.made_up:
            return Label("synthetic", "MADE-UP TABLES, nothing about patients")
        return Label("angiographic", "angiographic OMI, published feature tables")

    def both(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return all patients in one table, and their site (0 derivation, 1 external)."""
        site = np.repeat([0, 1], [len(self.derivation), len(self.external)])
        return pd.concat([self.derivation, self.external], ignore_index=True), site


def open_tables(
    settings, data_dir: Path | None, download_dir: Path | None, seed: int = 42
) -> Tables:
    """Read both tables from `data_dir`; without it fetch them; without a network make some up.

    Parameters
    ----------
    settings : ecglib.settings.OmiFeatures
        Where they are published, and their SHA-256.
    data_dir, download_dir : pathlib.Path or None
        Absolute. Into `download_dir`, which git ignores, they are fetched if there is no
        `data_dir`; without either, nothing is fetched.
    seed : int
        Of the made-up tables.

    Raises
    ------
    SourceError
        If a file isn't the published one.
    """
    folder = data_dir or download_dir
    if not folder:
        return make_up(seed)
    known = {folder / name: getattr(settings, f"{kind}_sha256") for kind, name in FILES.items()}
    absent = [file for file in known if not (file.is_file() and sha256(file) == known[file])]
    if data_dir and absent:
        raise SourceError(
            f"{folder} lacks the published {absent[0].name} (by its SHA-256); "
            f"give the folder that holds {' and '.join(FILES.values())}"
        )
    wanted = [Wanted(settings.url + file.name, file, f"sha256:{known[file]}") for file in absent]
    try:
        download(wanted, "the study file", tries=2, timeout_s=10)
    except DownloadError as error:
        if error.answered:
            raise SourceError(
                f"{error.url} doesn't give the published table: {error.problem}"
            ) from None
        return make_up(seed)
    return Tables(*(pd.read_csv(file, low_memory=False)[[LABEL, *COLUMNS]] for file in known))


def make_up(seed: int, patients: tuple[int, int] = (240, 200)) -> Tables:
    """Make tables up that have the columns and the flaws of the published ones, and nothing else of
    them.
    """
    rng, tables = np.random.default_rng(seed), []
    for n in patients:
        label = (rng.random(n) < 0.15).astype(int)
        table = pd.DataFrame(rng.normal(100, 40, (n, len(COLUMNS))).round(1), columns=COLUMNS)
        table[["st80_V2", "st80_V3", "tamp_V3", "TrelAmp"]] += 35 * label[:, None]
        tables.append(table.mask(rng.random(table.shape) < 0.02))
        tables[-1].insert(0, LABEL, label)
    tables[1]["TrelAmp"] *= -1000
    tables[1].loc[:9, "TCRT"] = NOT_MEASURED["TCRT"]
    return Tables(*tables, made_up=True)


def overview(tables: Tables) -> pd.DataFrame:
    """Patients, OMI and missing values of each table, and of both together."""
    parts = tables.derivation, tables.external, tables.both()[0]
    rows = [
        (len(t), t[LABEL].sum(), 100 * t[LABEL].mean(), 100 * t.isna().mean().mean()) for t in parts
    ]
    columns = ["patients", "OMI", "OMI %", "missing values %"]
    return pd.DataFrame(rows, ["derivation", "external", "both"], columns)


def make_comparable(tables: Tables) -> tuple[Tables, pd.DataFrame]:
    """Drop or harmonise the columns that don't compare between the tables; outcomes play no part.

    A value of `NOT_MEASURED` becomes missing; one outside the derivation table's range is set to
    its bound (the derivation table is cut off there, the external one not everywhere); a column
    that then still differs by `DISTANCE_LIMIT` or more is dropped. The report gives, by column, the
    ``distance`` as published and ``distance_after``, how many external values were ``not_measured``
    and ``clipped``, and the ``decision``.
    """
    published = tables.derivation[[*COLUMNS]], tables.external[[*COLUMNS]]
    codes = pd.Series(NOT_MEASURED).reindex(COLUMNS)
    derivation, measured = (table.mask(table == codes) for table in published)
    external = measured.clip(derivation.min(), derivation.max(), axis=1)
    report = pd.DataFrame({
        "distance": _distances(*published),
        "distance_after": _distances(derivation, external),
        "not_measured": (published[1] == codes).sum(),
        "clipped": ((external < measured) | (external > measured)).sum(),
    }).rename_axis("column")  # fmt: skip
    changed = report[["not_measured", "clipped"]].any(axis=1)
    apart = report["distance_after"] >= DISTANCE_LIMIT
    counts = report[["not_measured", "clipped"]].map(count_text)
    decision = np.select([apart, changed], ["dropped", "harmonised"], "kept")
    report = report.assign(**counts, decision=decision)
    parts = (
        whole[[LABEL]].join(part.loc[:, ~apart])
        for whole, part in ((tables.derivation, derivation), (tables.external, external))
    )
    return Tables(*parts, tables.made_up), report


def count_text(number: int) -> str:
    """Text of a count; one from 1 to 4 is suppressed."""
    return "<5" if 0 < number < 5 else str(number)


def _distances(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    return {
        column: ks_2samp(one[column].dropna(), other[column].dropna(), method="asymp").statistic
        for column in COLUMNS
    }


def published_split(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the derivation table into training and test part as the published notebook does."""
    label = tables.derivation[LABEL]
    return train_test_split(tables.derivation, test_size=0.2, stratify=label, random_state=99)


def evaluate(models: dict, train: pd.DataFrame, tests: dict, seed: int) -> pd.DataFrame:
    """Fit every model of the study on one table and predict others.

    `models` are those of the study, `train` and `tests` tables with `LABEL`; the keys of `tests`
    name the cohorts. Returns predictions with the column ``cohort``, in which a patient is a number
    that means nothing outside of it.
    """
    parts = []
    for key, model in models.items():
        x, y = train.drop(columns=LABEL), train[LABEL].to_numpy()
        told = {"network": model.network or key, "options": model.options, "seed": seed}
        fitted = forest.fit(told | {"features": model.features}, x, y)
        for cohort, test in tests.items():
            told = {"patient_id": test.index, "record_id": test.index, "label": test[LABEL]}
            told |= {"split": "test", "model": key, "rotation": 0}
            told |= {"probability": forest.predict(fitted, test), "cohort": cohort}
            parts.append(pd.DataFrame(told))
    return pd.concat(parts, ignore_index=True)


def cross_validate(
    models, table: pd.DataFrame, site, folds: int, seed: int, jobs: int = 1
) -> pd.DataFrame:
    """Predict every patient by cross-validation as in the paper: rotation k validates on fold k and
    tests on k + 1.

    Folds are stratified by label and site; `jobs` rotations run side by side.
    """
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    held = [rows for _, rows in splitter.split(table, 2 * np.asarray(site) + table[LABEL])]

    def rotation(k):
        tests = {"validation": table.loc[held[k]], "test": table.loc[held[(k + 1) % folds]]}
        train = table.drop(index=np.concatenate([part.index for part in tests.values()]))
        part = evaluate(models, train, tests, seed)
        return part.assign(rotation=k, split=part.cohort, cohort="both")

    # one thread a fit fixes its bits, however many run side by side; scikit-learn's threads leave
    # each other's filters of warnings behind
    with threadpool_limits(1), warnings.catch_warnings():
        parts = joblib.Parallel(jobs, backend="threading")(
            joblib.delayed(rotation)(k) for k in range(folds)
        )
    return pd.concat(parts, ignore_index=True)
