"""Forest and boosting: nothing leaks from rows that were not given, and a saved model is data, not
code.
"""

import json

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer

from ecglib.cohort.contract import Cohort
from ecglib.models import NETWORKS
from ecglib.study.params import Study
from ecglib.study.training import run_identity
from ecglib.trees import TREES, forest

MODELS = [
    ("random_forest", {"setting": "nature_medicine_2023"}),
    ("random_forest", {"setting": "ecg_smart_2024"}),
    ("gradient_boosting", {}),
]


def fit(name, features, label, options=None, patients=None, **told):
    identity = {"network": name, "options": options or {}, "seed": 3} | told
    return forest.fit(identity, features, label, patients)


@pytest.fixture(scope="module", autouse=True)
def one_setting():
    """One setting of boosting where none is to be chosen: a fit takes a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "BOOSTING", {"max_leaf_nodes": (15,), "max_features": (0.15,)})
        yield


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(7)
    features = pd.DataFrame(rng.normal(size=(700, 6)).round(1), columns=list("abcdef"))
    label = (features.a + 0.7 * features.b + rng.normal(size=700) > 1.6).astype(int).to_numpy()
    features.loc[features.index[::9], "c"] = np.nan
    return features, label


@pytest.fixture(scope="module", params=MODELS, ids=["forest_2023", "forest_2024", "boosting"])
def fitted(request, table):
    name, options = request.param
    features, label = table
    return name, options, fit(name, features[:500], label[:500], options)


def test_every_tree_model_is_tested():
    assert set(TREES) == {name for name, _ in MODELS}
    assert not set(TREES) & set(NETWORKS), "a key of a study names one model"


def test_settings_are_the_published_ones():
    first = TREES["random_forest"].build(setting="nature_medicine_2023")[-1]
    forest = first.estimator.get_params()
    assert (first.method, first.cv) == ("isotonic", 5)
    assert {
        k: forest[k]
        for k in ("n_estimators", "criterion", "max_features", "max_samples", "class_weight")
    } == {
        "n_estimators": 20,
        "criterion": "entropy",
        "max_features": "log2",
        "max_samples": 0.75,
        "class_weight": "balanced_subsample",
    }
    assert (forest["min_samples_split"], forest["min_samples_leaf"]) == (0.01, 0.005)
    assert (forest["min_impurity_decrease"], forest["ccp_alpha"], forest["random_state"]) == (
        0.01,
        0.01,
        42,
    )
    second = TREES["random_forest"].build(setting="ecg_smart_2024")[-1].get_params()
    assert (second["n_estimators"], second["min_samples_split"], second["min_samples_leaf"]) == (
        50,
        0.001,
        0.001,
    )
    assert (second["min_impurity_decrease"], second["ccp_alpha"]) == (0.0, 0.001)


def test_learns_and_gives_probabilities(fitted, table):
    features, label = table
    probability = forest.predict(fitted[2], features[500:])
    assert probability.shape == (200,) and probability.min() >= 0 and probability.max() <= 1
    assert roc_auc_score(label[500:], probability) > 0.8


def test_same_seed_same_bits_whatever_the_threads(fitted, table):
    name, options, model = fitted
    features, label = table
    expected = forest.predict(model, features[500:])
    threads = 2 if name == "random_forest" else 1
    again = fit(name, features[:500], label[:500], options, threads=threads)
    np.testing.assert_array_equal(forest.predict(again, features[500:]), expected)
    other = fit(name, features[:500], label[:500], options, seed=4)
    assert not np.array_equal(forest.predict(other, features[500:]), expected)


def test_imputation_and_scaling_know_only_training_rows(table):
    features, label = table
    train = features[:500].assign(c=np.r_[np.full(251, 5.0), np.zeros(200), np.full(49, np.nan)])
    model = fit("random_forest", train, label[:500])
    filled = model[:1].transform(features[500:].assign(c=np.nan))
    assert (filled[:, 2] == 5.0).all()  # the training mode, whatever the rows to predict hold
    np.testing.assert_allclose(model["scale"].mean_[0], train.a.mean())


def test_columns_are_taken_by_name(fitted, table):
    features, _ = table
    expected = forest.predict(fitted[2], features[500:])
    np.testing.assert_array_equal(
        forest.predict(fitted[2], features[500:][list("fdbeca")]), expected
    )
    with pytest.raises(KeyError, match="'b'"):
        forest.predict(fitted[2], features.drop(columns="b"))


def test_calibration_keeps_patients_together(table):
    features, label = table
    patients = np.repeat(np.arange(250), 2)
    model = fit("random_forest", features[:500], label[:500], patients=patients)
    alone = fit("random_forest", features[:500], label[:500])
    assert not np.array_equal(forest.predict(model, features), forest.predict(alone, features))
    assert model[-1].cv == forest.CALIBRATION_FOLDS


def test_boosting_takes_the_setting_that_its_training_rows_favour(monkeypatch):
    rng, searched = np.random.default_rng(1), []
    x = pd.DataFrame(rng.normal(size=(600, 2)), columns=["a", "b"])
    patients = rng.permutation(np.repeat(np.arange(300), 2))

    def search(*given, **told):
        searched.append(told)
        return GridSearchCV(*given, **told)

    monkeypatch.setattr(forest, "GridSearchCV", search)
    monkeypatch.setattr(forest, "BOOSTING", {"max_leaf_nodes": (2, 15), "max_features": (1.0,)})
    both = (x.a > 0) == (x.b > 0)  # trees of one split can't tell
    assert fit("gradient_boosting", x, both, patients=patients)[-1].max_leaf_nodes == 15
    alone = rng.random(600) < 1 / (1 + np.exp(-3 * x.a))  # larger trees only fit noise
    assert fit("gradient_boosting", x, alone, patients=patients)[-1].max_leaf_nodes == 2
    assert searched[0]["scoring"] == "average_precision" and len(searched[0]["cv"]) == 3
    for rest, tried in searched[0]["cv"]:
        assert not set(patients[rest]) & set(patients[tried])


def test_a_model_may_do_without_age_and_heart_rate(table):
    x = table[0].rename(columns={"a": "Age", "b": "HR", "c": "JTc"})
    for name, options in MODELS[1:]:
        told = {"network": name, "options": options, "seed": 3}
        blind = forest.fit(told | {"features": "without_age_hr"}, x, table[1])
        assert list(blind.feature_names_in_) == ["d", "e", "f"]
        assert len(forest.fit(told, x, table[1]).feature_names_in_) == 6
        changed = forest.predict(blind, x.assign(Age=0.0, HR=0.0, JTc=0.0))
        np.testing.assert_array_equal(forest.predict(blind, x), changed)


def test_saved_model_predicts_the_same(fitted, table, tmp_path):
    features, _ = table
    forest.save(fitted[2], tmp_path / "model.skops")
    loaded = forest.load(tmp_path / "model.skops")
    np.testing.assert_array_equal(
        forest.predict(loaded, features), forest.predict(fitted[2], features)
    )


def test_a_file_with_other_types_is_refused(tmp_path):
    skops.io.dump(FunctionTransformer(func=pytest.importorskip), tmp_path / "model.skops")
    with pytest.raises(TypeError, match="Untrusted types found in the file"):
        forest.load(tmp_path / "model.skops")
    # scikit-learn's own types need no trust
    skops.io.dump(LogisticRegression(), tmp_path / "plain.skops")
    assert isinstance(forest.load(tmp_path / "plain.skops"), LogisticRegression)


def test_importance_finds_what_the_label_depends_on(fitted, table):
    features, label = table
    model, seen = fitted[2], features[500:]
    found = forest.importance(model, seen[list("fdbeca")], label[500:], repeats=2)
    assert set(found.index[:2]) == {"a", "b"} and found.importance.is_monotonic_decreasing
    assert set(found.shap.nlargest(2).index) == {"a", "b"}
    values = forest.shap_values(model, seen)
    assert list(values.columns) == list(features) and len(values) == 200
    np.testing.assert_allclose(found.shap, values.abs().mean()[found.index])


def test_a_shuffled_column_costs_as_much_average_precision_as_its_importance(table):
    features, label = table
    model = fit("gradient_boosting", features[:500], label[:500])
    seen, truth, rng = features[500:], label[500:], np.random.default_rng(0)
    before = average_precision_score(truth, forest.predict(model, seen))
    tables = [seen.assign(a=rng.permutation(seen.a)) for _ in range(8)]
    falls = [before - average_precision_score(truth, forest.predict(model, t)) for t in tables]
    row = forest.importance(model, seen, truth, repeats=8).loc["a"]
    assert abs(row.importance - np.mean(falls)) < 2 * np.std(falls)
    assert 0.3 < row.sd / np.std(falls) < 3


def test_shap_values_add_up_to_the_prediction(table):
    features, label = table
    trees = fit("random_forest", features[:500], label[:500], {"setting": "ecg_smart_2024"})
    boosting = fit("gradient_boosting", features[:500], label[:500])
    for model, output in (
        (trees, forest.predict(trees, features)),
        (boosting, boosting[-1].decision_function(features)),
    ):
        rest = output - forest.shap_values(model, features).sum(axis=1)
        np.testing.assert_allclose(rest, rest.iloc[0], atol=1e-6)


def test_a_runs_identity_tells_what_decides_its_predictions(tmp_path):
    base = {
        "title": "t",
        "cohort": {"source": "synthetic", "records": 240},
        "selected_model": "random_forest",
    }
    models = {
        "random_forest": {},
        "without": {"network": "random_forest", "features": "without_age_hr"},
        "later": {"network": "random_forest", "options": {"setting": "ecg_smart_2024"}},
    }
    study = Study.model_validate({"name": "x", **base, "models": models})
    records = pd.DataFrame({"record_id": ["a"], "patient_id": ["p"], "label": [1]})
    records = records.assign(age=60.0, rr_ms=800.0, noise_uv=20.0)
    info = {"hashes": {"beats.npy": 64 * "0"}}

    def identity(model, **changes):
        cohort = Cohort(tmp_path, np.zeros((1, 12, 600)), records.assign(**changes), info)
        return run_identity(study, model, 1, cohort)

    one, later = identity("random_forest"), identity("later")
    assert later["network"] == "random_forest" and later["options"] == {"setting": "ecg_smart_2024"}
    assert one != later and json.loads(json.dumps(one)) == one
    assert identity("without") == one | {"model": "without", "features": "without_age_hr"}
    assert "features" not in one, "what is at its default is left out"
    assert identity("later", age=61.0) != later and identity("later", rr_ms=900.0) != later
    assert identity("later", noise_uv=30.0, new_quality_column=1) == later
