"""The kept results of PTB-XL, computed once more by other means: what an audit found right stays
right.
"""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.special import logit
from sklearn.metrics import precision_recall_curve, roc_auc_score

from ecglib.study import places

KEPT = places.REFERENCE / "ptbxl"
A, B = "ecg_smart_net", "mayo_alvd"


def predictions(model, split):
    """A model's predictions of one split, by rotation."""
    files = [KEPT / f"runs/{model}/rotation_{k}/predictions.parquet" for k in range(10)]
    return [(t := pd.read_parquet(file))[t.split == split] for file in files]


@pytest.fixture(scope="module")
def tested():
    return {model: predictions(model, "test") for model in (A, B)}


def table(step, name, **options):
    return pd.read_csv(KEPT / step / "tables" / f"{name}.csv", **options)


def pair(frame, a, b):
    """The row of a pair of models, and the sign of their difference there."""
    first = frame[(frame.a == a) & (frame.b == b)]
    return (
        (first.iloc[0], 1) if len(first) else (frame[(frame.a == b) & (frame.b == a)].iloc[0], -1)
    )


def auc(run):
    return roc_auc_score(run.label, run.probability)


def wins(run):
    """Of each positive against each negative: 1, or ½ where they are level."""
    p, n = (run.probability.to_numpy()[run.label == y] for y in (1, 0))
    return (p[:, None] > n) + 0.5 * (p[:, None] == n)


def test_estimates_and_standard_errors_are_those_of_a_plain_bootstrap(tested):
    """Patients are drawn by name; each pair of ECGs counts as often as its patients were drawn."""
    kept = table("07_comparison", "intervals").query("metric == 'auc'").set_index("model")
    gap, sign = pair(table("07_comparison", "differences").query("metric == 'auc'"), A, B)
    pairs = {model: [wins(run) for run in runs] for model, runs in tested.items()}
    owners = [[run.patient_id[run.label == y] for y in (1, 0)] for run in tested[A]]
    patients = pd.concat(tested[A]).patient_id.unique()
    generator, draws = np.random.default_rng(5), []
    for _ in range(200):
        drawn = pd.Series(generator.multinomial(patients.size, [1 / patients.size] * patients.size))
        drawn.index = patients
        weights = [[drawn[own].to_numpy() for own in both] for both in owners]
        draws.append([
            np.mean([p @ m @ n / (p.sum() * n.sum()) for (p, n), m in zip(weights, pairs[model])])
            for model in (A, B)
        ])  # fmt: skip
    draws = np.array(draws)
    for model, drawn in zip((A, B), draws.T, strict=True):
        assert kept.estimate[model] == pytest.approx(np.mean([auc(r) for r in tested[model]]))
        assert kept.se[model] == pytest.approx(drawn.std(), rel=0.2)  # four of its own errors
    assert gap.se == pytest.approx((draws[:, 0] - draws[:, 1]).std(), rel=0.2)
    assert sign * gap.estimate == pytest.approx(kept.estimate[A] - kept.estimate[B])


def test_the_corrected_t_is_nadeau_and_bengios(tested):
    gap, sign = pair(table("07_comparison", "differences").query("metric == 'auc'"), A, B)
    values = np.array([auc(a) - auc(b) for a, b in zip(tested[A], tested[B], strict=True)])
    t = values.mean() / np.sqrt(
        (1 / 10 + 1 / 8) * values.var(ddof=1)
    )  # one fold tests, eight train
    assert sign * gap.t == pytest.approx(t) and gap.p_t == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_sites_left_out_in_turn_have_no_corrected_t():
    file = places.REFERENCE / "ptbxl_sites/07_comparison/tables/differences.csv"
    kept = pd.read_csv(file)
    assert len(kept) and kept["p_t"].isna().all() and kept["p"].notna().all()


def test_delongs_p_is_that_of_all_pairs_of_ecgs(tested):
    gaps, variances = [], []
    for runs in zip(tested[A], tested[B], strict=True):
        won = wins(runs[0]) - wins(runs[1])
        gaps.append(won.mean())
        variances.append(sum(won.mean(i).var(ddof=1) / won.shape[1 - i] for i in (0, 1)))
    p = 2 * stats.norm.sf(abs(np.mean(gaps)) / (np.sqrt(sum(variances)) / 10))
    kept = table("07_comparison", "paired_tests").query("Metric == 'AUC'")
    row, _ = pair(kept, "ECG-SMART-NET", "Mayo Clinic ALVD model")
    assert float(row["p, DeLong"]) == pytest.approx(p, rel=0.06)  # it is shown with two digits


def test_calibration_is_that_of_a_logistic_regression(tested):
    kept = table("07_comparison", "extended", index_col=0).loc["ECG-SMART-NET"]
    fits = []
    for run in tested[A]:
        x = logit(run.probability.clip(1e-6, 1 - 1e-6)).to_numpy()
        slope = sm.Logit(run.label.to_numpy(), sm.add_constant(x)).fit(disp=0).params[1]
        one = np.ones((len(x), 1))
        level = sm.GLM(run.label.to_numpy(), one, sm.families.Binomial(), offset=x).fit().params[0]
        fits.append((slope, level))
    for name, values in zip(("slope", "intercept"), np.array(fits).T, strict=True):
        shown = kept[f"Calibration {name}"].replace("−", "-").split("±")
        shown = [float(part) for part in shown]
        assert shown == pytest.approx([values.mean(), values.std(ddof=1)], abs=6e-4)


def test_the_threshold_has_the_highest_f1_of_the_validation_fold():
    told = json.loads((KEPT / "08_selected_model" / "run.json").read_text())
    run = predictions(told["model"], "validation")[told["rotation"]]
    precision, recall, thresholds = precision_recall_curve(run.label, run.probability)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    assert told["threshold"] == pytest.approx(thresholds[np.flatnonzero(f1 == f1.max())[-1]])
    test = predictions(told["model"], "test")[told["rotation"]]
    called = test.probability >= told["threshold"]
    counts = pd.crosstab(called, test.label).to_numpy().ravel()
    row = table("08_selected_model", "table_5", index_col=[0, 1]).loc[("This study", "Test")]
    assert row[["TN", "FN", "FP", "TP"]].tolist() == counts.tolist()
