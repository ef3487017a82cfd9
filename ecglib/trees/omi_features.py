"""Real OMI outcomes: the two feature tables published with Al-Zaiti et al. 2023, read, made
comparable, analysed.

The tables have no licence. They are read where they lie or fetched from their public place, never
stored in the repository; only counts, shares, means and intervals leave this module for a figure or
table. Counts below `SMALLEST_CELL` are suppressed, predictions stay in memory, and fitted trees are
not saved.

Al-Zaiti SS et al. Machine learning for ECG diagnosis and risk stratification of occlusion
myocardial infarction. Nat Med 2023;29:1804-1813.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pooch
import requests
from scipy.stats import ks_2samp
from sklearn.model_selection import StratifiedKFold, train_test_split
from statsmodels.stats.proportion import proportion_confint
from threadpoolctl import threadpool_limits

from ecglib.cohort.source import SourceError
from ecglib.errors import nearest
from ecglib.study import places
from ecglib.trees import forest

LABEL = "Outcome_Occlusion_MI"
DEFINITIONS = pd.read_csv(
    Path(forest.__file__).with_name("features.csv"), index_col="name", keep_default_na=False
)
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

SPLIT_SEED, TEST_SHARE = 99, 0.2  # of the notebook published with the tables
RISK_LIMITS = (0.05, 0.20)
SMALLEST_CELL = 5

PUBLISHED = pd.DataFrame(
    {"auc": [0.91, 0.87], "low": [604, 2318], "intermediate": [165, 747], "high": [37, 222]},
    index=pd.Index(["test part", "external"], name="cohort"),
)
"""AUC and risk groups that the published notebook shows (its random forest, scikit-learn 1.1.3)."""


@dataclass(frozen=True)
class Tables:
    """Both tables: `LABEL` and the 74 `COLUMNS`, one row per patient; `made_up` if they hold
    nothing real.
    """

    derivation: pd.DataFrame
    external: pd.DataFrame
    made_up: bool = False

    def both(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return all patients in one table, and their site (0 derivation, 1 external)."""
        site = np.repeat([0, 1], [len(self.derivation), len(self.external)])
        return pd.concat([self.derivation, self.external], ignore_index=True), site


def open_tables(settings, data_dir: str | Path = "", seed: int = 42) -> Tables:
    """Read both tables from `data_dir`; without it fetch them; without a network make some up.

    `settings` (`ecglib.settings.OmiFeatures`) tell where they are published, and their SHA-256.
    They are fetched into ``data/omi-features``, which git ignores, unless the environment variable
    ECGLIB_OFFLINE is set. A file that is absent, has changed, or doesn't hold what it should is
    refused (SourceError).
    """
    folder = places.find(data_dir) if data_dir else _fetch(settings)
    if folder is None:
        return make_up(seed)
    tables = {}
    for kind, name in FILES.items():
        file, expected = folder / name, getattr(settings, f"{kind}_sha256")
        if not file.is_file():
            raise SourceError(
                f"{name} isn't in {folder}; give the folder that holds "
                f"{' and '.join(FILES.values())}"
            )
        if (found := pooch.file_hash(str(file))) != expected:
            raise SourceError(
                f"{name} has changed: its SHA-256 is {found[:12]}…, not {expected[:12]}…; fetch it "
                "again"
            )
        tables[kind] = check_table(pd.read_csv(file, low_memory=False), name)
    return Tables(**tables)


def _fetch(settings) -> Path | None:
    """Fetch both tables, unless they are there; None without a network."""
    folder = places.DATA / "omi-features"
    if os.environ.get("ECGLIB_OFFLINE"):
        return None
    for kind, name in FILES.items():
        try:
            known = "sha256:" + getattr(settings, f"{kind}_sha256")
            downloader = pooch.HTTPDownloader(timeout=10)
            pooch.retrieve(
                settings.url + name,
                known_hash=known,
                fname=name,
                path=folder,
                downloader=downloader,
            )
        except (requests.ConnectionError, requests.Timeout):
            return None
        except (requests.HTTPError, ValueError) as error:  # not there, or not with that hash
            raise SourceError(f"{settings.url}{name} isn't the published table: {error}") from None
    return folder


def check_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the table with its columns in order, or refuse it by the name of what is wrong
    (SourceError).
    """
    unknown = [c for c in table if c not in (LABEL, *COLUMNS)]
    for column in (LABEL, *COLUMNS):
        if column not in table:
            raise SourceError(f"{name} has no column '{column}'{nearest(column, unknown)}")
        text = table[column][
            pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
        ]
        if len(text):
            raise SourceError(
                f"{name}: column '{column}' holds {text.iloc[0]!r}; give numbers, nothing where "
                "missing"
            )
    if unknown:
        raise SourceError(f"{name} holds the unknown column '{unknown[0]}'; remove it")
    if not table[LABEL].isin([0, 1]).all():
        raise SourceError(
            f"{name}: {LABEL} holds values other than 0 and 1; give 1 for an occlusion, else 0"
        )
    return table[[LABEL, *COLUMNS]].apply(pd.to_numeric).astype({LABEL: int})


def make_up(seed: int, patients: tuple[int, int] = (240, 200)) -> Tables:
    """Make tables up that have the columns and the flaws of the published ones, and nothing else of
    them.
    """
    rng, tables = np.random.default_rng(seed), []
    for n in patients:
        label = (rng.random(n) < 0.15).astype(int)
        table = pd.DataFrame(rng.normal(100, 40, (n, len(COLUMNS))).round(1), columns=COLUMNS)
        for column in ("st80_V2", "st80_V3", "tamp_V3", "TrelAmp"):
            table[column] += 35 * label
        tables.append(table.mask(rng.random(table.shape) < 0.02).assign(**{LABEL: label}))
    tables[1]["TrelAmp"] *= -1000
    tables[1].loc[:9, "TCRT"] = NOT_MEASURED["TCRT"]
    return Tables(*(check_table(table, "made-up table") for table in tables), made_up=True)


def make_comparable(tables: Tables) -> tuple[Tables, pd.DataFrame]:
    """Drop or harmonise the columns that don't compare between the tables; outcomes play no part.

    A value of `NOT_MEASURED` becomes missing; one outside the derivation table's range is set to
    its bound (the derivation table is cut off there, the external one not everywhere); a column
    that then still differs by `DISTANCE_LIMIT` or more is dropped. The report gives, by column, the
    ``distance`` as published and ``distance_after``, how many external values were ``not_measured``
    and ``clipped``, and the ``decision``.
    """
    derivation, external = tables.derivation.copy(), tables.external.copy()
    rows = {}
    for column in COLUMNS:
        code, before = NOT_MEASURED.get(column), _distance(derivation[column], external[column])
        coded, raw = external[column] == code, external[column]
        derivation[column] = derivation[column].mask(derivation[column] == code)
        external[column] = raw.mask(coded).clip(derivation[column].min(), derivation[column].max())
        clipped = int((external[column] != raw)[external[column].notna()].sum())
        after = _distance(derivation[column], external[column])
        decision = (
            "dropped"
            if after >= DISTANCE_LIMIT
            else "harmonised"
            if clipped or coded.any()
            else "kept"
        )
        rows[column] = before, after, _count(int(coded.sum())), _count(clipped), decision
    told = ["distance", "distance_after", "not_measured", "clipped", "decision"]
    report = pd.DataFrame.from_dict(rows, orient="index", columns=told).rename_axis("column")
    dropped = list(report.index[report.decision == "dropped"])
    return Tables(
        derivation.drop(columns=dropped), external.drop(columns=dropped), tables.made_up
    ), report


def _distance(one: pd.Series, other: pd.Series) -> float:
    return float(ks_2samp(one.dropna(), other.dropna(), method="asymp").statistic)


def _count(number: int) -> str:
    """Text of a count; one from 1 to 4 is suppressed."""
    return f"<{SMALLEST_CELL}" if 0 < number < SMALLEST_CELL else str(number)


def published_split(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the derivation table into training and test part as the published notebook does."""
    table = tables.derivation
    return train_test_split(
        table, test_size=TEST_SHARE, stratify=table[LABEL], random_state=SPLIT_SEED
    )


def evaluate(models: dict, train: pd.DataFrame, tests: dict, seed: int) -> pd.DataFrame:
    """Fit every model of the study on one table and predict others.

    `models` are those of the study, `train` and `tests` tables with `LABEL`; the keys of `tests`
    name the cohorts. Returns predictions with the column ``cohort``, in which a patient is a number
    that means nothing outside of it.
    """
    parts = []
    for key, model in models.items():
        x, y = train.drop(columns=LABEL), train[LABEL].to_numpy()
        fitted = forest.fit(model.network or key, x, y, model.options, seed)
        for cohort, test in tests.items():
            told = {
                "patient_id": test.index,
                "record_id": test.index,
                "label": test[LABEL],
                "split": "test",
            }
            told |= {
                "model": key,
                "rotation": 0,
                "probability": forest.predict(fitted, test),
                "cohort": cohort,
            }
            parts.append(pd.DataFrame(told))
    return pd.concat(parts, ignore_index=True)


def cross_validate(
    models, table: pd.DataFrame, site, folds: int, seed: int, jobs: int = 1
) -> pd.DataFrame:
    """Predict every patient by cross-validation as in the paper: rotation k validates on fold k and
    tests on k + 1.

    Folds are stratified by label and site; `jobs` rotations run side by side.
    """
    fold, splitter = (
        np.empty(len(table), dtype=int),
        StratifiedKFold(folds, shuffle=True, random_state=seed),
    )
    for k, (_, rows) in enumerate(splitter.split(table, 2 * np.asarray(site) + table[LABEL])):
        fold[rows] = k

    def rotation(k):
        held = {"validation": fold == k, "test": fold == (k + 1) % folds}
        tests = {split: table[rows] for split, rows in held.items()}
        part = evaluate(models, table[~(held["validation"] | held["test"])], tests, seed)
        return part.assign(rotation=k, split=part.cohort, cohort="both")

    with threadpool_limits(1):  # of a fit: what fixes its bits, however many run side by side
        parts = joblib.Parallel(jobs, backend="threading")(
            joblib.delayed(rotation)(k) for k in range(folds)
        )
    return pd.concat(parts, ignore_index=True)


def risk_groups(label, probability) -> pd.DataFrame:
    """Patients and OMI in the published risk groups: low below 5 %, high from 20 % on; counts are
    text.

    A count is suppressed if it, or the group's patients without OMI, are fewer than
    `SMALLEST_CELL`; if only one is, so is the next smallest, which would give it away together with
    the total.
    """
    group = pd.cut(
        probability,
        [-np.inf, *RISK_LIMITS, np.inf],
        right=False,
        labels=["low", "intermediate", "high"],
    )
    table = (
        pd.DataFrame({"group": group, "omi": label})
        .groupby("group", observed=False)["omi"]
        .agg(["size", "sum"])
    )
    few = table["size"] < SMALLEST_CELL
    patients = _suppressed(table["size"], few)
    few |= (table["sum"] < SMALLEST_CELL) | (table["size"] - table["sum"] < SMALLEST_CELL)
    omi = _suppressed(table["sum"], few)
    known = patients.str.isdigit() & omi.str.isdigit()
    percent = (100 * table["sum"] / table["size"]).round(1).astype(str).where(known, "–")
    return pd.DataFrame({"patients": patients, "omi": omi, "omi_percent": percent})


def _suppressed(counts: pd.Series, hide: pd.Series) -> pd.Series:
    """Text of counts, those to hide and what would give a single one away left out."""
    if hide.sum() == 1:
        hide = hide | (counts.index == counts[~hide].idxmin())
    return (
        counts.astype(str)
        .mask(hide, "–")
        .mask(hide & (counts < SMALLEST_CELL), f"<{SMALLEST_CELL}")
    )


def calibration_bins(label, probability, bins: int = 10) -> pd.DataFrame:
    """Mean predicted and observed share of OMI, with 95 % Wilson interval, in bins of rising
    probability.

    A bin holds about 1 / `bins` of the patients, and at least `SMALLEST_CELL` with and without OMI.
    """
    label, probability = np.asarray(label), np.asarray(probability)
    edges = [np.inf]
    # from the highest down; patients of one probability stay together
    for value in np.unique(probability)[::-1]:
        inside = label[(probability >= value) & (probability < edges[-1])]
        if (
            len(inside) >= len(label) / bins
            and min(inside.sum(), (1 - inside).sum()) >= SMALLEST_CELL
        ):
            edges.append(value)
    edges[-1] = -np.inf  # what is left over joins the last bin
    table = pd.DataFrame({"predicted": probability, "observed": label})
    table = table.groupby(pd.cut(probability, edges[::-1], right=False), observed=True)
    low, high = proportion_confint(
        table["observed"].sum(), table["observed"].count(), method="wilson"
    )
    return (
        table.mean()
        .assign(low=low, high=high, patients=table["observed"].count())
        .reset_index(drop=True)
    )


def dependence(values: pd.Series, effect: pd.Series, bins: int = 8) -> pd.DataFrame:
    """Mean of a feature and of its effect (SHAP) in bins of equal size: a curve with no point per
    patient.
    """
    bin_of = pd.qcut(values, bins, duplicates="drop")
    table = pd.DataFrame({"value": values, "effect": effect}).groupby(bin_of, observed=True)
    return table.mean()[table["value"].count() >= SMALLEST_CELL].reset_index(drop=True)
