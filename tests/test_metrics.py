"""Metrics against the paper's counts, brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecglib import metrics

# Table 5 of the paper: accuracy, sensitivity, specificity, PPV, NPV, F1.
TABLE_5 = {
    "validation": ((57, 31, 44, 985), (0.933, 0.564, 0.969, 0.648, 0.957, 0.603)),
    "test": ((62, 37, 21, 965), (0.947, 0.747, 0.963, 0.626, 0.979, 0.681)),
}


@st.composite
def cases(draw):
    """Labels of both classes and coarse probabilities, so that ties are common."""
    n = draw(st.integers(2, 40))
    label = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < n)
    )
    tenths = draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    return np.array(label), np.array(tenths) / 10


def brute_auc(label, probability):
    positive, negative = probability[label == 1], probability[label == 0]
    return np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])


def brute_average_precision(label, probability):
    recall, total = 0.0, 0.0
    for threshold in sorted(set(probability), reverse=True):
        called = probability >= threshold
        gained = label[called].sum() / label.sum()
        total += (gained - recall) * label[called].mean()
        recall = gained
    return total


@pytest.mark.parametrize("split", TABLE_5)
def test_the_counts_give_every_figure_of_table_5(split):
    counts, printed = TABLE_5[split]
    found = metrics.from_counts(*counts)
    assert [round(found[k], 3) for k in ("acc", "sens", "spec", "ppv", "npv", "f1")] == list(
        printed
    )


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ranking_metrics_agree_with_brute_force(case):
    area, precision = brute_auc(*case), brute_average_precision(*case)
    assert metrics.auc(*case) == pytest.approx(area, abs=1e-12)
    assert metrics.average_precision(*case) == pytest.approx(precision, abs=1e-12)
    assert metrics.score(*case) == pytest.approx(2 / 3 * area + 1 / 3 * precision, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_operating_point_is_the_highest_threshold_of_the_highest_f1(case):
    every = {t: metrics.at_threshold(*case, t)["f1"] for t in np.unique(case[1])}
    best = max(every.values())
    assert metrics.operating_point(*case) == max(
        t for t, f1 in every.items() if f1 == pytest.approx(best, abs=1e-12)
    )


@settings(max_examples=60, deadline=None)
@given(cases())
def test_clinical_points_are_the_best_that_reach_their_goal(case):
    every = {t: metrics.at_threshold(*case, t) for t in np.unique(case[1])}
    out = [t for t, m in every.items() if m["sens"] >= 0.9 and m["fp"] < (case[0] == 0).sum()]
    inn = [t for t, m in every.items() if m["ppv"] >= 0.85]
    found = metrics.operating_points(*case)
    assert found["rule_out"] == max(out, default=None)
    assert found["rule_in"] == min(inn, default=None)


def test_a_probability_at_the_threshold_is_called_positive():
    found = metrics.at_threshold([1, 0, 1, 0], [0.57, 0.57, 0.56, 0.1], 0.57)
    assert [found[k] for k in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]


def test_ratios_without_a_denominator_are_nan():
    found = metrics.at_threshold([0, 0], [0.1, 0.2], 0.5)
    assert np.isnan([found[k] for k in ("sens", "ppv", "f1")]).all()
    assert found["spec"] == found["npv"] == found["acc"] == 1


def test_brier_of_a_known_case():
    assert metrics.brier([1, 0, 1], [0.8, 0.3, 1.0]) == pytest.approx((0.04 + 0.09 + 0) / 3)


@pytest.mark.parametrize(("slope", "shift"), [(1, 0), (0.5, 0), (2, 1)])
def test_calibration_finds_how_the_log_odds_were_distorted(slope, shift):
    generator = np.random.default_rng(5)
    truth = generator.normal(-1, 1.5, 60_000)
    label = (generator.random(truth.size) < 1 / (1 + np.exp(-truth))).astype(int)
    given_logit = (truth - shift) / slope
    found = metrics.calibration(label, 1 / (1 + np.exp(-given_logit)))
    assert found["slope"] == pytest.approx(slope, rel=0.05)
    if slope == 1:
        assert found["intercept"] == pytest.approx(shift, abs=0.05)
    # The intercept is the shift at which mean probability meets the share of positives.
    moved = 1 / (1 + np.exp(-(given_logit + found["intercept"])))
    assert moved.mean() == pytest.approx(label.mean(), abs=1e-8)


def test_calibration_at_its_edges():
    assert metrics.calibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["slope"] == np.inf
    assert metrics.calibration([1, 1, 0, 0], [0.1, 0.2, 0.2, 0.9])["slope"] == -np.inf
    assert np.isnan(metrics.calibration([0, 1, 0, 1], [0.3] * 4)["slope"])
    assert np.isfinite(metrics.calibration([0, 1, 0, 1], [0.0, 1.0, 1.0, 0.0])["intercept"])
    # most probabilities exactly 0, as a forest gives them
    label = [1] + [0] * 40 + [1] * 4
    found = metrics.calibration(label, [0.0] * 31 + [0.1] * 10 + [0.5] * 4)["intercept"]
    log_odds = np.repeat([np.log(1e-6), np.log(1 / 9), 0], [31, 10, 4]) + found
    assert np.sum(1 / (1 + np.exp(-log_odds))) == pytest.approx(5, abs=1e-4)


def test_net_benefit_of_treating_all_and_none():
    label, thresholds = np.array([1] * 10 + [0] * 90), np.array([0.05, 0.1, 0.4])
    everyone = metrics.net_benefit(label, np.ones(100), thresholds)
    assert everyone == pytest.approx(0.1 - 0.9 * thresholds / (1 - thresholds))
    assert metrics.net_benefit(label, np.zeros(100), thresholds) == pytest.approx(0)
    assert metrics.net_benefit(label, label.astype(float), thresholds) == pytest.approx(0.1)
    assert metrics.net_benefit([1, 0], [0.4, 0.2], 0.4) == pytest.approx(0.5)  # the rule is >=


@pytest.mark.parametrize(
    ("label", "probability", "told"),
    [
        ([1, 1], [0.2, 0.3], "All 2 labels are 1"),
        ([0, 0], [0.2, 0.3], "All 2 labels are 0"),
        ([0, 1], [0.2, np.nan], "1 of 2 probabilities are NaN"),
        ([0, 1], [0.2, 1.3], "run from 0.2 to 1.3"),
        ([0, 2], [0.2, 0.3], "2 is among them"),
        ([0, 1, 1], [0.2, 0.3], "of equal length"),
        ([], [], "non-empty"),
    ],
)
@pytest.mark.parametrize(
    "metric", [metrics.auc, metrics.average_precision, metrics.score, metrics.operating_point]
)
def test_bad_input_is_refused_in_one_sentence(metric, label, probability, told):
    with pytest.raises(ValueError, match=told) as error:
        metric(label, probability)
    assert "\n" not in str(error.value)


def test_net_benefit_refuses_a_threshold_of_one():
    with pytest.raises(ValueError, match="greater than 0 and less than 1"):
        metrics.net_benefit([0, 1], [0.1, 0.2], [0.5, 1.0])
