"""Real OMI outcomes: the two feature tables published with Al-Zaiti et al. 2023, read, made
comparable, analysed.

The tables have no licence. They are read where they lie or fetched from their public place, never
stored in the repository; only counts, shares, means and intervals leave this module for a figure or
table. Small counts are suppressed (`ecglib.trees.disclosure`), predictions stay in memory, and
fitted trees are not saved.

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
from ecglib.errors import nearest
from ecglib.folders import sha256
from ecglib.settings import Label
from ecglib.trees import forest
from ecglib.trees.disclosure import count_text
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

SPLIT_SEED, TEST_SHARE = 99, 0.2  # of the notebook published with the tables

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
        If a file is absent, has changed, or doesn't hold what it should.
    """
    known = {name: getattr(settings, f"{kind}_sha256") for kind, name in FILES.items()}
    folder = data_dir or download_dir
    if not folder or (not data_dir and not _fetch(settings.url, known, folder)):
        return make_up(seed)
    tables = {}
    for kind, name in FILES.items():
        file, expected = folder / name, known[name]
        if not file.is_file():
            raise SourceError(
                f"{name} isn't in {folder}; give the folder that holds "
                f"{' and '.join(FILES.values())}"
            )
        if (found := sha256(file)) != expected:
            raise SourceError(
                f"{name} has changed: its SHA-256 is {found[:12]}…, not {expected[:12]}…; "
                "fetch it again"
            )
        tables[kind] = check_table(pd.read_csv(file, low_memory=False), name)
    return Tables(**tables)


def _fetch(url: str, known: dict[str, str], folder: Path) -> bool:
    """Fetch what isn't there, or has changed; False without a network."""
    wanted = [
        Wanted(url + name, folder / name, f"sha256:{digest}")
        for name, digest in known.items()
        if not ((folder / name).is_file() and sha256(folder / name) == digest)
    ]
    try:
        download(wanted, "the study file", tries=2, timeout_s=10)
    except DownloadError as error:
        if error.answered:
            raise SourceError(f"{error.url} isn't the published table: {error.problem}") from None
        return False
    return True


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
                f"{name}: column '{column}' holds {text.iloc[0]!r}; "
                "give numbers, nothing where missing"
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


def overview(tables: Tables) -> pd.DataFrame:
    """Patients, OMI and missing values of each table, and of both together."""
    parts = {"derivation": tables.derivation, "external": tables.external, "both": tables.both()[0]}
    rows = {
        name: {
            "patients": len(table),
            "OMI": table[LABEL].sum(),
            "OMI %": 100 * table[LABEL].mean(),
            "missing values %": 100 * table.isna().mean().mean(),
        }
        for name, table in parts.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"patients": int, "OMI": int})


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
        rows[column] = before, after, count_text(int(coded.sum())), count_text(clipped), decision
    told = ["distance", "distance_after", "not_measured", "clipped", "decision"]
    report = pd.DataFrame.from_dict(rows, orient="index", columns=told).rename_axis("column")
    dropped = list(report.index[report.decision == "dropped"])
    return Tables(
        derivation.drop(columns=dropped), external.drop(columns=dropped), tables.made_up
    ), report


def _distance(one: pd.Series, other: pd.Series) -> float:
    return float(ks_2samp(one.dropna(), other.dropna(), method="asymp").statistic)


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
        told = {"network": model.network or key, "options": model.options, "seed": seed}
        told["features"] = model.features
        fitted = forest.fit(told, x, y)
        for cohort, test in tests.items():
            row = {
                "patient_id": test.index,
                "record_id": test.index,
                "label": test[LABEL],
                "split": "test",
            }
            row |= {
                "model": key,
                "rotation": 0,
                "probability": forest.predict(fitted, test),
                "cohort": cohort,
            }
            parts.append(pd.DataFrame(row))
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

    # one thread a fit fixes its bits, however many run side by side; scikit-learn's threads leave
    # each other's filters of warnings behind
    with threadpool_limits(1), warnings.catch_warnings():
        parts = joblib.Parallel(jobs, backend="threading")(
            joblib.delayed(rotation)(k) for k in range(folds)
        )
    return pd.concat(parts, ignore_index=True)
