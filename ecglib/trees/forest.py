"""Trees on engineered features: the random forest that the paper measures itself against, and
boosting.

A fitted model is a scikit-learn pipeline in which imputation, scaling and calibration have seen
nothing but the rows given to `fit`. Features are a data frame, one row per ECG, NaN where a feature
couldn't be computed; columns are taken by name.
"""

import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ecglib.folds import predictions_table, rotate
from ecglib.trees import TREES
from ecglib.trees import features as engineered
from ecglib.trees.features import DEFINITIONS

FOREST_SETTINGS = {
    "nature_medicine_2023": {
        "n_estimators": 20,
        "min_samples_split": 0.01,
        "min_samples_leaf": 0.005,
        "ccp_alpha": 0.01,
        "min_impurity_decrease": 0.01,
    },
    "ecg_smart_2024": {
        "n_estimators": 50,
        "min_samples_split": 0.001,
        "min_samples_leaf": 0.001,
        "ccp_alpha": 0.001,
        "min_impurity_decrease": 0.0,
    },
}
"""Two settings that the group published; the paper doesn't say which one is in its Table 4."""

CALIBRATION_FOLDS, TUNING_FOLDS = 5, 3

BOOSTING = {"max_leaf_nodes": (7, 15, 31), "max_features": (0.15, 1.0)}
"""Six settings of boosting, of which each fit chooses one on folds of its own training rows."""

LEFT_OUT = {"all": (), "without_age_hr": ("Age", "HR", "JTc")}
"""Columns that a model does without; JTc is corrected by the RR interval."""

TRUSTED = [  # what a saved model consists of besides the types that skops trusts by itself
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
]


def random_forest(setting: str = "nature_medicine_2023", seed: int = 42) -> Pipeline:
    """Build the random forest of Al-Zaiti et al., in one of the settings that the group published.

    Both: entropy, log2 of the features a split, 75 % of the rows a tree, weights balanced in each
    tree's sample, missing values filled with the training mode (of equally frequent values the
    smallest), z-score.

    Parameters
    ----------
    setting : {'nature_medicine_2023', 'ecg_smart_2024'}
        The first has 20 trees, heavily pruned, and isotonic calibration with 5 folds; the second 50
        deeper trees and no calibration, so that its probabilities are too high (classes are
        weighted).
    seed : int

    References
    ----------
    Al-Zaiti SS et al. Machine learning for ECG diagnosis and risk stratification of occlusion
    myocardial infarction. Nat Med 2023;29:1804-1813.
    """
    forest = RandomForestClassifier(
        criterion="entropy", max_features="log2", max_samples=0.75,
        class_weight="balanced_subsample", random_state=seed, **FOREST_SETTINGS[setting],
    )  # fmt: skip
    if setting == "nature_medicine_2023":
        forest = CalibratedClassifierCV(forest, method="isotonic", cv=CALIBRATION_FOLDS)
    imputer = SimpleImputer(strategy="most_frequent", keep_empty_features=True)
    return Pipeline([("impute", imputer), ("scale", StandardScaler()), ("classify", forest)])


def gradient_boosting(seed: int = 42) -> Pipeline:
    """Build histogram gradient boosting, a stronger reference; a missing value is a branch of its
    own.

    It isn't a model of the paper. `fit` chooses among the settings of `BOOSTING`. Early stopping is
    off: scikit-learn would draw its validation rows without regard to patients.
    """
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=200, min_samples_leaf=10, l2_regularization=5.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    return Pipeline([("classify", trees)])


def train(identity: dict, cohort, folds: pd.DataFrame, folder: Path) -> dict:
    """Train one tree model on one rotation; as `ecglib.trainer.train`.

    Parameters
    ----------
    identity : dict
        Everything that decides the result: ``model, network, options, features, rotation, seed,
        threads``.
    cohort : ecglib.cohort.contract.Cohort
    folds : pandas.DataFrame
        ``record_id, fold``.
    folder : Path
        The run's folder; it receives ``model.skops`` and ``predictions.parquet``.

    Returns
    -------
    dict
        Facts for ``run.json``; ``chosen``: the setting of boosting.
    """
    begun, splits = time.perf_counter(), rotate(folds, identity["rotation"])
    table, known = cohort_features(cohort), cohort.records.iloc[splits["train"]]
    fitted = fit(identity, table.iloc[splits["train"]], known.label, known.patient_id)
    save(fitted, folder / "model.skops")
    shares = {split: predict(fitted, table.iloc[splits[split]]) for split in ("validation", "test")}
    predicted = predictions_table(cohort.records, splits, identity, shares)
    predicted.to_parquet(folder / "predictions.parquet", index=False)
    name = TREES[identity["network"]].display_name(identity["options"])
    facts = {"identity": identity, "label": name, "device": "cpu"}
    if identity["network"] == "gradient_boosting":
        facts["chosen"] = {setting: getattr(fitted[-1], setting) for setting in BOOSTING}
    return facts | {"train_seconds": time.perf_counter() - begun}


def cohort_features(cohort) -> pd.DataFrame:
    """Features of a cohort's beats, after the patient's age: one row per ECG."""
    table = engineered.features(cohort.beats, cohort.records.rr_ms)
    table.insert(0, "Age", cohort.records.age.to_numpy())
    return table


def describe_features(table: pd.DataFrame) -> pd.DataFrame:
    """Count the features of each family, and the percentage of ECGs with the rarest of it."""
    told = {"features": "size", "least often computed, % of ECGs": "min"}
    return (100 * table.notna().mean()).groupby(DEFINITIONS.family).agg(**told)


def test_fold(cohort, folds: pd.DataFrame, rotation: int, table: pd.DataFrame):
    """Features and labels of a rotation's test fold."""
    at = rotate(folds, rotation)["test"]
    return table.iloc[at].reset_index(drop=True), cohort.records.label.to_numpy()[at]


def fit(identity: dict, features, label, patients=None) -> Pipeline:
    """Build a registered tree model and fit it on training rows.

    Parameters
    ----------
    identity : dict
        ``network``, a model of `ecglib.trees.TREES`, its ``options`` and ``seed``; ``features``, a
        key of `LEFT_OUT`, all if absent; ``threads``, one if absent, don't change a forest, and
        boosting is reproducible for equal ones.
    features, label : pandas.DataFrame, array_like of 0 and 1
        Training rows only.
    patients : array_like, optional
        Whose ECG a row is: calibration, and the choice of boosting's setting by average precision
        on three folds of these rows, then never split a patient. Not needed with one ECG per
        patient.
    """
    model = TREES[identity["network"]].build(**identity["options"], seed=identity["seed"])
    left_out = LEFT_OUT[identity.get("features", "all")]
    features = features.drop(columns=[*left_out], errors="ignore").astype(np.float64)
    label, threads = np.asarray(label), identity.get("threads", 1)
    groups = np.arange(len(label)) if patients is None else np.asarray(patients)
    calibrated = isinstance(model[-1], CalibratedClassifierCV)
    if calibrated and patients is not None:
        model[-1].cv = list(StratifiedGroupKFold(CALIBRATION_FOLDS).split(features, label, groups))
    if isinstance(model[-1], HistGradientBoostingClassifier):
        folds = list(StratifiedGroupKFold(TUNING_FOLDS).split(features, label, groups))
        grid = {f"classify__{name}": tried for name, tried in BOOSTING.items()}
        model = GridSearchCV(model, grid, scoring="average_precision", cv=folds, n_jobs=1)
    with threadpool_limits(threads), joblib.parallel_config("threading", n_jobs=threads):
        model.fit(features, label)
    if calibrated:
        model[-1].cv = CALIBRATION_FOLDS  # a saved model doesn't carry row numbers
    return getattr(model, "best_estimator_", model)


def predict(model: Pipeline, features: pd.DataFrame) -> np.ndarray:
    """Return the probability of label 1, float64 ``(rows,)``; a column that training had must be
    there.
    """
    return model.predict_proba(features[model.feature_names_in_].astype(np.float64))[:, 1]


def save(model: Pipeline, file: str | Path) -> None:
    """Save a fitted model with skops: no pickle, nothing runs when it is loaded."""
    import skops.io  # seconds to import: it brings torch

    skops.io.dump(model, file)


def load(file: str | Path) -> Pipeline:
    """Load a model that `save` wrote; skops refuses a file that holds anything else (TypeError)."""
    import skops.io

    return skops.io.load(file, trusted=TRUSTED)


def importance(model: Pipeline, features, label, seed: int = 42, repeats: int = 5) -> pd.DataFrame:
    """Importance of the twenty columns that lead by SHAP, on rows that the model hasn't seen.

    Returns a table by ``feature``, most important first: ``importance``, the fall of average
    precision when the column is shuffled, ``sd`` of the repeats, and ``shap``, the mean absolute
    value.
    """
    size = shap_values(model, features).abs().mean().nlargest(20).rename("shap")
    table = features[model.feature_names_in_].astype(np.float64)
    falls = permutation_importance(
        model, table, label, scoring="average_precision", n_repeats=repeats, random_state=seed
    )
    found = {"importance": falls.importances_mean, "sd": falls.importances_std}
    found = pd.DataFrame(found, index=table.columns).join(size, how="right")
    return found.sort_values("importance", ascending=False).rename_axis("feature")


def shap_values(model: Pipeline, features: pd.DataFrame) -> pd.DataFrame:
    """SHAP values of the model's trees, one row per ECG, columns as the features (Lundberg et al.
    2020).

    Units: probability before calibration for a forest (the mean over its calibration folds), log
    odds for boosting.
    """
    import shap

    columns, classifier = model.feature_names_in_, model[-1]
    table = features[columns].to_numpy(np.float64)
    if len(model) > 1:
        table = model[:-1].transform(pd.DataFrame(table, columns=columns))
    folds = getattr(classifier, "calibrated_classifiers_", None)
    trees = [fold.estimator for fold in folds] if folds else [classifier]
    values = np.mean([shap.TreeExplainer(t).shap_values(table) for t in trees], axis=0)
    values = values[..., 1] if values.ndim == 3 else values  # a forest's come for both classes
    return pd.DataFrame(values, columns=columns, index=features.index)
