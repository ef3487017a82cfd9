"""Intervals and tests against brute force, closed forms and cases with a known answer."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from ecglib import metrics
from ecglib.analysis import calibration, comparison, inference
from ecglib.settings import Label


def study(models=("a", "b"), rotations=3, patients=90, seed=0, decimals=1):
    """Test and validation predictions of a small study: several ECGs a patient, many ties."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, 4, patients))
    label = ((patient % 4 == 0) & (generator.random(patient.size) < 0.9)).astype(int)
    fold = (patient // 4) % rotations
    rows = []
    for model in models:
        for rotation in range(rotations):
            for split, tested in (("validation", rotation), ("test", (rotation + 1) % rotations)):
                at = np.flatnonzero(fold == tested)
                probability = generator.random(at.size) * 0.7 + 0.3 * label[at] * generator.random(
                    at.size
                )
                part = {
                    "record_id": [f"r{i}" for i in at],
                    "patient_id": patient[at],
                    "label": label[at],
                }
                rows.append(pd.DataFrame(part).assign(split=split, model=model, rotation=rotation))
                rows[-1]["probability"] = probability.round(decimals)
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def tested():
    predictions = study()
    return predictions[predictions["split"] == "test"]


@pytest.mark.parametrize("decimals", [1, 6])
def test_every_draw_agrees_with_drawing_the_records_themselves(decimals):
    predictions = study(decimals=decimals)
    predictions = predictions[predictions["split"] == "test"]
    thresholds = {key: 0.3 + 0.1 * key[1] for key, _ in predictions.groupby(["model", "rotation"])}
    draws = 12
    boot = inference.bootstrap(predictions, draws, seed=7, thresholds=thresholds)
    patients = predictions["patient_id"].unique()
    drawn = np.random.default_rng(7).integers(patients.size, size=(draws, patients.size))
    for place, run in boot.runs.iterrows():
        rows = predictions[
            (predictions["model"] == run["model"]) & (predictions["rotation"] == run["rotation"])
        ]
        of_patient = dict(list(rows.groupby("patient_id")))
        for draw in range(draws):
            again = [of_patient[p] for p in patients[drawn[draw]] if p in of_patient]
            label, probability = (
                pd.concat(again)[column].to_numpy() for column in ("label", "probability")
            )
            area, precision = (
                roc_auc_score(label, probability),
                average_precision_score(label, probability),
            )
            expected = metrics.at_threshold(
                label, probability, thresholds[run["model"], run["rotation"]]
            )
            expected |= {
                "auc": area,
                "average_precision": precision,
                "score": 2 / 3 * area + precision / 3,
            }
            expected["brier"] = np.mean((label - probability) ** 2)
            expected["pairs"] = (label == 1).sum() * (label == 0).sum()
            for name, values in boot.draws.items():
                assert values[place, draw] == pytest.approx(
                    expected[name], abs=1e-9, nan_ok=True
                ), name


def test_estimates_are_the_metrics_themselves(tested):
    boot, table = inference.bootstrap(tested, 2), inference.per_rotation(tested)
    for place, run in boot.runs.iterrows():
        rows = tested[(tested["model"] == run["model"]) & (tested["rotation"] == run["rotation"])]
        for name in ("auc", "average_precision", "score", "brier"):
            assert boot.estimate[name][place] == pytest.approx(
                getattr(metrics, name)(rows["label"], rows["probability"])
            )
            assert table[name][place] == pytest.approx(boot.estimate[name][place])
    found = inference.intervals(inference.bootstrap(tested, 100)).set_index(["model", "metric"])
    assert found.loc[("a", "auc"), "estimate"] == pytest.approx(
        table[table["model"] == "a"]["auc"].mean()
    )


def test_draws_depend_on_the_seed_alone(tested):
    few, many = inference.bootstrap(tested, 100, seed=3), inference.bootstrap(tested, 600, seed=3)
    assert many.draws["auc"].shape == (6, 600)
    np.testing.assert_array_equal(few.draws["score"], many.draws["score"][:, :100])
    assert not np.array_equal(
        few.draws["auc"], inference.bootstrap(tested, 100, seed=4).draws["auc"]
    )


def test_standard_error_agrees_with_its_closed_form():
    """One ECG a patient, one rotation: the Brier score is a plain mean, whose standard error is sd
    / sqrt(n).
    """
    generator = np.random.default_rng(1)
    n = 400
    rows = pd.DataFrame(
        {"record_id": range(n), "patient_id": range(n), "label": generator.integers(0, 2, n)}
    )
    rows = rows.assign(split="test", model="a", rotation=0, probability=generator.random(n))
    boot = inference.bootstrap(rows, 4000)
    loss = (rows["probability"] - rows["label"]) ** 2
    assert boot.draws["brier"].std() == pytest.approx(loss.std(ddof=0) / np.sqrt(n), rel=0.04)
    assert boot.draws["brier"].mean() == pytest.approx(
        loss.mean(), abs=3 * loss.std() / np.sqrt(n * 4000)
    )
    # and DeLong's standard error of the AUC fits the bootstrap's, records being independent here
    _, variance = comparison.delong(rows["label"], rows["probability"])
    assert boot.draws["auc"].std() == pytest.approx(np.sqrt(variance[0, 0]), rel=0.05)


def test_patients_are_drawn_jointly_in_all_models():
    predictions = study(models=("a",))
    twin = pd.concat([predictions, predictions.assign(model="twin")])
    found = comparison.differences(inference.bootstrap(twin[twin["split"] == "test"], 200), folds=5)
    assert (found[["estimate", "low", "high", "se"]] == 0).all(axis=None)
    assert (found["p"] == 1).all() and (found["p_holm"] == 1).all()
    assert found["t"].isna().all()


def test_patients_with_many_ecgs_widen_the_interval():
    predictions = study(models=("a",), patients=200, decimals=6)
    rows = predictions[predictions["split"] == "test"]
    copies = pd.concat([rows.assign(record_id=rows["record_id"] + f"-{i}") for i in range(4)])
    alone = copies.assign(patient_id=copies["record_id"])  # each copy as if it were somebody else
    together, apart = (
        inference.bootstrap(part, 500).draws["auc"].mean(axis=0).std() for part in (copies, alone)
    )
    assert together > 1.6 * apart  # four copies, wrongly taken for four patients, halve the error


@settings(max_examples=60, deadline=None)
@given(st.floats(-2.3, 2.3), st.floats(-0.5, 0.5), st.booleans(), st.integers(5, 80))
def test_p_value_is_the_level_whose_interval_reaches_zero(centre, bias, unbias, patients):
    draws = stats.norm.ppf(np.arange(1, 5000) / 5000) + centre + bias
    found = inference.interval(centre, draws, np.array([patients]), unbias=unbias)
    if 0.02 < found["p"] < 0.9:  # farther out, 4,999 draws are too coarse
        for factor, inside in ((0.9, True), (1.1, False)):
            if (level := 1 - factor * found["p"]) > 0:
                limits = inference.interval(centre, draws, np.array([patients]), level, unbias)
                assert (limits["low"] < 0 < limits["high"]) == inside


def test_interval_of_normal_draws_has_its_closed_form():
    # biased by 0.01 against the estimate
    draws = 0.7 + 0.03 * stats.norm.ppf(np.arange(1, 20_000) / 20_000) + 0.01
    found = inference.interval(0.7, draws, np.array([40, 40]))
    reach = 0.03 * np.sqrt(40 / 39) * stats.t.ppf(0.975, 78)
    assert found["low"] == pytest.approx(
        0.7 - 0.01 - reach, abs=1e-3
    )  # draws overshoot by 0.01, so the estimate did too
    assert found["high"] == pytest.approx(0.7 - 0.01 + reach, abs=1e-3)
    found = inference.interval(0.7, draws, np.array([40, 40]), unbias=False)
    assert (found["low"] + found["high"]) / 2 == pytest.approx(0.71, abs=1e-3)
    assert 2 / 20_000 <= found["p"] < 0.001


def test_effective_patients_count_the_scarcer_class_with_its_clusters(tested):
    boot = inference.bootstrap(tested, 2)
    rows = tested[(tested["model"] == "a") & (tested["rotation"] == 0) & (tested["label"] == 1)]
    ecgs = rows["patient_id"].value_counts()
    assert boot.runs["patients"][0] == pytest.approx(ecgs.sum() ** 2 / (ecgs**2).sum())
    assert boot.runs["patients"][0] < ecgs.size


def test_draws_without_a_positive_patient_are_left_out_and_counted():
    predictions = study(models=("a",), rotations=3, patients=60)
    rows = predictions[predictions["split"] == "test"]
    keep = (
        rows[rows["label"] == 1]
        .drop_duplicates(["rotation", "patient_id"])
        .groupby("rotation")
        .head(2)
        .index
    )
    rows = rows.assign(label=rows.index.isin(keep).astype(int))
    boot = inference.bootstrap(rows, 500)
    found = inference.intervals(boot).set_index("metric")
    undefined = np.isnan(boot.draws["auc"]).any(axis=0)
    assert 0 < undefined.sum() == found.loc["auc", "undefined"] < 500
    assert found.loc["brier", "undefined"] == 0
    assert 0 <= found.loc["auc", "low"] <= found.loc["auc", "high"] <= 1


def test_paired_table_against_its_parts():
    predictions = study(models=("a", "b", "c"), rotations=4, patients=160)
    rows = predictions[
        (predictions["split"] == "test")
        & ~predictions[["model", "rotation"]].eq(["c", 2]).all(axis=1)
    ]
    boot = inference.bootstrap(rows, 300)
    found = comparison.differences(boot, folds=4).set_index(["metric", "a", "b"])
    wide = inference.per_rotation(rows).pivot_table("auc", "rotation", "model")
    gap = (wide["a"] - wide["c"]).dropna()
    row = found.loc[("auc", "a", "c")]
    assert row["rotations"] == 3 and row["estimate"] == pytest.approx(gap.mean())
    # a test fold is half of two training folds
    t = gap.mean() / (gap.std() * np.sqrt(1 / 3 + 1 / 2))
    assert row["t"] == pytest.approx(t) and row["p_t"] == pytest.approx(2 * stats.t.sf(abs(t), 2))
    drawn = boot.draws["auc"][[0, 1, 3]].mean(axis=0) - boot.draws["auc"][[8, 9, 10]].mean(axis=0)
    assert row["se"] == pytest.approx(drawn.std(ddof=1))
    for p in ("p", "p_t"):
        expected = multipletests(found.loc["auc", p], method="holm")[1]
        np.testing.assert_allclose(found.loc["auc", f"{p}_holm"], expected)


def brute_delong(label, probability):
    positive, negative = probability[:, label == 1], probability[:, label == 0]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (
        positive[:, :, None] == negative[:, None, :]
    )
    by_positive, by_negative = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(by_positive) / positive.shape[1] + np.cov(by_negative) / negative.shape[1]
    return wins.mean(axis=(1, 2)), covariance


@pytest.mark.parametrize("decimals", [1, 8])
def test_delong_agrees_with_all_pairs(decimals):
    generator = np.random.default_rng(4)
    label = (generator.random(300) < 0.2).astype(int)
    probability = (generator.random((3, 300)) + 0.4 * label).round(decimals)
    found, expected = comparison.delong(label, probability), brute_delong(label, probability)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-12)
    assert found[0][1] == pytest.approx(roc_auc_score(label, probability[1]))


def test_delong_differences_average_independent_rotations(tested):
    found = comparison.delong_differences(tested).iloc[0]
    gaps = []
    for _, run in tested.groupby("rotation"):
        wide = run.pivot_table("probability", ["record_id", "label"], "model")
        area, covariance = brute_delong(wide.index.get_level_values("label"), wide.to_numpy().T)
        gaps.append((area[0] - area[1], np.array([1, -1]) @ covariance @ [1, -1]))
    gap, variance = np.array(gaps).T
    assert found["estimate"] == pytest.approx(gap.mean()) and found["se"] == pytest.approx(
        np.sqrt(variance.sum()) / 3
    )
    assert found["p"] == pytest.approx(2 * stats.norm.sf(abs(gap.mean()) / found["se"]))


def test_what_is_missing_is_told_and_the_rest_goes_on():
    predictions = study(models=("a", "b"))
    lost = predictions[(predictions["model"] == "b") & (predictions["rotation"] == 1)].index
    one_class = (
        (predictions["model"] == "a")
        & (predictions["rotation"] == 2)
        & (predictions["split"] == "test")
    )
    half = (
        (predictions["model"] == "b")
        & (predictions["rotation"] == 2)
        & (predictions["split"] == "validation")
    )
    kept = predictions.drop(
        predictions.index[(one_class & (predictions["label"] == 1)) | half]
    ).drop(lost)
    found, problems = inference.check_predictions(kept, models=["a", "b", "c"], rotations=[0, 1, 2])
    negatives = (one_class & (predictions["label"] == 0)).sum()
    assert problems == [
        f"a, rotation 2: all {negatives} labels of the test fold are 0; left out.",
        "b, rotation 2: no predictions of the validation fold; left out.",
        "b: no predictions for rotation 1.",
        "c: no predictions for rotation 0, 1, 2.",
    ]
    runs = found.groupby(["model", "rotation"])["split"].nunique()
    # a run counts with both folds or not at all
    assert runs.to_dict() == {("a", 0): 2, ("a", 1): 2, ("b", 0): 2}
    compared = comparison.differences(inference.bootstrap(found[found["split"] == "test"], 50), 3)
    assert (compared["rotations"] == 1).all() and len(compared) == 3


def test_a_study_of_one_class_leaves_nothing_but_says_why():
    predictions = study(models=("a",)).assign(label=0)
    found, problems = inference.check_predictions(predictions, ["a"], [0, 1, 2])
    assert (
        found.empty
        and len(problems) == 3
        and all("labels of the validation fold are 0" in p for p in problems)
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda p: p.assign(probability=p["probability"].where(p.index != 3)),
            "probability that is NaN or outside 0–1",
        ),
        (lambda p: p.assign(probability=p["probability"] + (p.index == 3)), "outside 0–1"),
        (lambda p: pd.concat([p, p.iloc[:1]]), "r0 occurs twice in one run"),
        (
            lambda p: pd.concat([p, p[p["record_id"] == "r0"].assign(rotation=9)]),
            "r0 is in the same split of two",
        ),
        (
            lambda p: p.assign(label=p["label"].where(p.index != 0, 1 - p["label"])),
            "r0 has two labels",
        ),
        (lambda p: p.assign(split="train"), "train at least one model"),
    ],
)
def test_bad_predictions_are_refused_in_one_sentence(change, told):
    with pytest.raises(ValueError, match=told) as error:
        inference.check_predictions(change(study()), ["a", "b"], [0, 1, 2])
    assert "\n" not in str(error.value)


def test_a_bootstrap_of_two_splits_is_refused():
    with pytest.raises(ValueError, match="one split"):
        inference.bootstrap(study(), 10)


def made_up_scores(generator, own, fold, models=("a",)):
    """Scores of ten rotations: a model's own truth, the fold's ease and noise that all models
    share, noise of its own; with draws that know both kinds of noise.
    """
    truth = 0.8 + own * generator.normal(size=(len(models), 10))
    shared = fold * generator.normal(size=10)
    seen = truth + shared + 0.02 * generator.normal(size=truth.shape)
    drawn = fold * generator.normal(size=(1, 10, 200)) * (len(models) > 1)
    drawn = seen[..., None] + drawn + 0.02 * generator.normal(size=(*truth.shape, 200))
    runs = pd.DataFrame([(m, k, 40.0) for m in models for k in range(10)])
    runs.columns = ["model", "rotation", "patients"]
    draws = {"score": drawn.reshape(-1, 200)}
    return truth[0], inference.Bootstrap(runs, {"score": seen.ravel()}, draws)


@pytest.mark.parametrize("own", [0.0, 0.02])
@pytest.mark.parametrize("models", ["a", "abcdef"])
def test_optimism_of_choosing_by_test_score_is_what_choosing_gains(own, models):
    """The best rotation's lead over its own truth, averaged over many studies; with other models,
    most of it is an easy fold.
    """
    generator, gained, told, folds = np.random.default_rng(11), [], [], []
    for _ in range(200):
        truth, boot = made_up_scores(generator, own, 0.03 * (len(models) > 1), models)
        found = comparison.leads(boot, "a")
        best = found["score"].idxmax()
        gained.append(found["score"][best] - truth[best])
        told.append(found["fold"][best] + found["luck"][best])
        folds.append(found["fold"][best])
    assert np.mean(told) == pytest.approx(np.mean(gained), rel=0.15)
    assert (np.mean(folds) > 0.4 * np.mean(told)) == (len(models) > 1)


def test_a_lead_that_all_models_share_is_the_folds():
    runs = pd.DataFrame({"model": np.repeat(["a", "b", "c"], 4), "rotation": [*range(4)] * 3})
    score = 0.8 + np.tile([0.0, 0.03, 0.06, -0.09], 3) + np.repeat([0, 0.05, 0.1], 4)
    boot = inference.Bootstrap(runs, {"score": score}, {"score": score[:, None].repeat(9, 1)})
    found = comparison.leads(boot, "b")
    np.testing.assert_allclose(found["fold"], found["lead"], atol=1e-12)
    np.testing.assert_allclose(found[["luck"]], 0, atol=1e-12)


def paired(**gaps):
    """A table of `differences`: AUC and AP of pairs a_b with estimate, low, high, p."""
    rows = [
        {"metric": metric, "a": key.split("__")[0], "b": key.split("__")[1], "rotations": 10}
        | dict(zip(("estimate", "low", "high", "p"), values, strict=True))
        for metric in ("auc", "average_precision", "score")
        for key, values in gaps.items()
    ]
    return pd.DataFrame(rows)


def test_planned_comparisons_are_families_of_their_own():
    """The paper's four, and those of one thing: Holm counts no other pair; the margin is said."""
    found = comparison.planned(
        paired(
            ecg_smart_net__mayo_alvd=(0.01, -0.005, 0.015, 0.2),
            temporal_resnet18__ecg_smart_net=(-0.05, -0.08, -0.02, 0.01),
            ecg_smart_net__random_forest=(0.01, -0.03, 0.05, 0.6),
            mayo_alvd__random_forest=(0.3, 0.2, 0.4, 0.001),
            random_forest__random_forest_without_age_hr=(0.01, 0.0, 0.03, 0.03),
        )
    )
    auc = found[found["metric"] == "auc"].set_index(["family", "b"])
    paper = auc.loc["the paper's"]
    assert list(paper.index) == ["mayo_alvd", "temporal_resnet18", "random_forest"]
    np.testing.assert_allclose(paper["p_holm"], [0.4, 0.03, 0.6])
    row = paper.loc["temporal_resnet18"]  # turned round
    assert (row["estimate"], row["low"], row["high"]) == (0.05, 0.02, 0.08)
    assert list(paper["verdict"]) == ["equivalent", "significantly higher", "undecided"]
    changed = auc.loc["one thing changed"]
    assert list(changed["a"]) == ["ecg_smart_net", "random_forest"]
    np.testing.assert_allclose(changed["p_holm"], [0.02, 0.03])
    assert set(found["metric"]) == {"auc", "average_precision"}
    assert comparison.planned(paired(x__y=(0, 0, 0, 1))).empty


NAMES = {"ecg_smart_net": "Net", "mayo_alvd": "Mayo", "resnet18": "ResNet-18"}


def told(kind, mayo=0.8):
    """What `answers` says of three models and one pair."""
    auc = {"ecg_smart_net": 0.9, "mayo_alvd": mayo, "resnet18": 0.7}
    bounds = pd.DataFrame({"model": auc.keys(), "estimate": auc.values(), "metric": "auc"})
    bounds = bounds.assign(low=0.6, high=0.95, rotations=4)
    gaps = paired(ecg_smart_net__mayo_alvd=(0.1, 0.05, 0.15, 0.01)).assign(p_holm=0.01)
    noise = pd.DataFrame([{"network": "mayo_alvd", "seeds": 3, "rotations": 2}])
    noise = noise.assign(AUC=0.02, AP=0.03)
    families = comparison.planned(gaps)
    return comparison.answers(bounds, gaps, families, noise, NAMES, Label(kind, "x"))


def test_a_comparison_answers_what_is_asked_of_it():
    said = told("proxy")
    assert said[0] == "The highest mean test AUC is that of Net: 0.900 [0.600, 0.950]."
    assert said[1] == "AUC differs significantly in 1 of 1 pairs (Holm over all)."
    order = "The paper's ranking by mean test AUC (Net > Mayo > ResNet-18)"
    assert said[2] == f"{order} holds on this label."
    assert "within ±0.02 in AUC, ±0.05 in AP" in said[3]
    assert said[4].startswith("Net − Mayo: AUC 0.100 [0.050, 0.150], p 0.010, significantly higher")
    assert "a rotation's test AUC by an SD of 0.020" in said[5]
    assert "over rotations by 0.010 and the difference of two such means by 0.014" in said[5]
    assert "can't be separated" in said[6] and len(said) == 7
    other = told("proxy", mayo=0.6)[2]
    assert other == f"{order} doesn't hold on this label: Net > ResNet-18 > Mayo."


def test_of_a_synthetic_label_nothing_is_said_of_the_paper():
    said = told("synthetic")
    assert "synthetic label" in said[0] and not any("paper" in sentence for sentence in said)


def test_draws_that_are_all_alike_give_exact_limits_of_proportions_alone():
    """Sensitivity and specificity of 1: with n patients the limit is (alpha/2)^(1/n)."""
    rows = study(models=("a",), rotations=3)
    rows = rows[rows["split"] == "test"].assign(probability=lambda part: part["label"] * 0.8 + 0.1)
    thresholds = {("a", rotation): 0.5 for rotation in range(3)}
    boot = inference.bootstrap(rows, 100, thresholds=thresholds)
    found = inference.intervals(boot, 0.9).set_index("metric")
    for name, label in (("sens", 1), ("spec", 0)):
        n = rows["patient_id"][rows["label"] == label].nunique()
        assert found.loc[name, "estimate"] == found.loc[name, "high"] == 1
        assert found.loc[name, "low"] == pytest.approx(0.05 ** (1 / n))
    assert found.loc["f1", "estimate"] == 1 and found.loc["f1", ["low", "high"]].isna().all()
    wrong = rows.assign(probability=0.9 - 0.8 * rows["label"])
    boot = inference.bootstrap(wrong, 100, thresholds=thresholds)
    none = inference.intervals(boot, 0.9).set_index("metric").loc["sens"]
    n = rows["patient_id"][rows["label"] == 1].nunique()
    assert none["estimate"] == none["low"] == 0
    assert none["high"] == pytest.approx(1 - 0.05 ** (1 / n))
    assert "pairs" not in found.index


def test_sites_of_unequal_size_have_no_corrected_t_test(tested):
    found = comparison.differences(inference.bootstrap(tested, 50), folds=None)
    assert (
        found["p_t"].isna().all()
        and found["p_t_holm"].isna().all()
        and found["p_holm"].notna().all()
    )


def test_one_model_alone_has_no_differences(tested):
    boot = inference.bootstrap(tested[tested["model"] == "a"], 50)
    paired = comparison.differences(boot, 3)
    families = comparison.planned(paired)
    assert paired.empty and families.empty
    assert {"family", "metric", "a", "b", "estimate", "low", "p_holm", "verdict"} <= {*families}
    told = inference.intervals(boot), paired, families, paired.iloc[:0], {"a": "A"}
    assert len(comparison.answers(*told, Label("proxy", "something else"))) == 1


def test_one_rotation_leaves_nothing_to_choose(tested):
    boot = inference.bootstrap(tested[tested["rotation"] == 0], 50)
    assert (comparison.leads(boot, "a")[["lead", "fold", "luck"]] == 0).all(axis=None)
    assert np.isnan(comparison.differences(boot, 3)["p_t"]).all()


def test_recalibration_mends_slope_and_intercept_and_keeps_ranks():
    generator = np.random.default_rng(2)
    truth = generator.normal(-3, 1.5, 40_000)
    label = (generator.random(truth.size) < 1 / (1 + np.exp(-truth))).astype(int)
    shown = 1 / (1 + np.exp(-(1.5 * truth + 3)))  # as after undersampling: too high, too extreme
    half = truth.size // 2
    mended = calibration.recalibrate(label[:half], shown[:half], shown[half:])
    found = metrics.calibration(label[half:], mended)
    assert found["slope"] == pytest.approx(1, abs=0.06) and found["intercept"] == pytest.approx(
        0, abs=0.12
    )
    assert metrics.auc(label[half:], mended) == pytest.approx(
        metrics.auc(label[half:], shown[half:]), abs=1e-9
    )
    assert metrics.brier(label[half:], mended) < metrics.brier(label[half:], shown[half:])


def test_each_rotation_is_recalibrated_on_its_own_validation_fold():
    generator = np.random.default_rng(3)
    parts = []
    for rotation, shift in ((0, 1.0), (1, 3.0)):
        for split in ("validation", "test"):
            truth = generator.normal(-2, 1, 4000)
            part = pd.DataFrame({"label": generator.random(4000) < 1 / (1 + np.exp(-truth))})
            part["probability"] = 1 / (1 + np.exp(-truth - shift))
            parts.append(part.astype(float).assign(split=split, rotation=rotation, model="a"))
    rows = pd.concat(parts, ignore_index=True).assign(patient_id=range(16_000))
    found = calibration.with_risk(rows)
    assert len(found) == 8000 and (found["split"] == "test").all()
    for _, run in found.groupby("rotation"):
        assert run["risk"].mean() == pytest.approx(run["label"].mean(), rel=0.1)
    both = calibration.by_scale(found)
    assert both.groupby("scale")["probability"].mean()["as trained"] > 0.3 > found["risk"].mean()


def test_observed_to_expected_has_the_limits_of_its_patients():
    """One ECG a patient, risks all alike: the ratio is a proportion over a constant."""
    rows = pd.DataFrame({"label": (np.arange(900) % 10 < 3).astype(int), "risk": 0.2})
    args = rows[["label"]], np.arange(900), rows["risk"]
    found = inference.patient_intervals(*args).loc["label"]
    assert found["mean"] == pytest.approx(1.5)
    error = np.sqrt(0.3 * 0.7 / 900) / 0.2
    assert found["low"] == pytest.approx(1.5 - 1.96 * error, abs=0.03)
    assert found["high"] == pytest.approx(1.5 + 1.96 * error, abs=0.03)


def test_a_study_of_one_model_has_no_pairs_and_says_so():
    rows = study(models=("a",))
    found = comparison.differences(inference.bootstrap(rows[rows["split"] == "test"], 30), 3)
    assert found.empty and comparison.planned(found).empty
    bounds = inference.intervals(inference.bootstrap(rows[rows["split"] == "test"], 30))
    args = bounds, found, comparison.planned(found), pd.DataFrame(), {"a": "A"}
    assert len(comparison.answers(*args, Label("proxy", "x"))) == 1
