"""Metrics of a binary classifier and its operating points.

``label`` is 0 or 1 and ``probability`` the predicted probability of 1, both of shape
``(records,)``; a record is called positive where ``probability >= threshold``; a ratio with nothing
in its denominator is NaN. Every function refuses, in one sentence, unequal lengths, labels other
than 0 and 1, and probabilities that are NaN or outside 0–1; those that compare the two classes also
refuse labels of one class.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

ALPHA = 2 / 3
"""Weight of the AUC in the score (paper, Equation 1 and section II.B)."""

LOGIT_CLIP = 1e-6
"""Probabilities are moved this far away from 0 and 1 before a logit is taken."""


def check(label, probability, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return label (int64) and probability (float64) as arrays; `ValueError` says what is wrong."""
    label, probability = np.asarray(label), np.asarray(probability, dtype=np.float64)
    if label.shape != probability.shape or label.ndim != 1 or not label.size:
        wrong = f"Labels {label.shape} and probabilities {probability.shape} must be non-empty "
        wrong += "lists of equal length; give one of each per ECG"
    elif not (known := np.isin(label, (0, 1))).all():
        wrong = f"Labels must be 0 or 1, but {label[~known][0]!s} is among them"
    elif (missing := np.isnan(probability).sum()) > 0:
        wrong = f"{missing} of {label.size} probabilities are NaN; predict them again"
    elif np.any((probability < 0) | (probability > 1)):
        wrong = f"Probabilities run from {probability.min():.4g} to {probability.max():.4g}; "
        wrong += "they must lie between 0 and 1"
    elif classes == 2 and np.ptp(label) == 0:
        wrong = f"All {label.size} labels are {label[0]}; "
        wrong += "this metric needs records of both labels, 0 and 1"
    else:
        return label.astype(np.int64), probability
    raise ValueError(wrong)


def auc(label, probability) -> float:
    """Area under the ROC curve: the chance that a positive ranks above a negative, ties counting
    one half.
    """
    return float(roc_auc_score(*check(label, probability)))


def average_precision(label, probability) -> float:
    """Average precision (AP): precision averaged over the gains in recall, without interpolation.

    Records of one probability enter together, so the order of ties doesn't matter. AP depends on
    prevalence: that of a random ranking is the share of positives.
    """
    return float(average_precision_score(*check(label, probability)))


def score(label, probability) -> float:
    """Score of Equation 1, which schedules training and chooses the epoch."""
    return combine(auc(label, probability), average_precision(label, probability))


def combine(auc, average_precision):
    """Equation 1 for an AUC and an AP that are known already (numbers or arrays)."""
    return ALPHA * auc + (1 - ALPHA) * average_precision


def from_counts(tp, fp, fn, tn) -> dict:
    """Metrics of a confusion matrix (numbers, or arrays of one shape).

    Returns
    -------
    dict
        ``acc, sens, spec, ppv, npv, f1``: the columns of the paper's Table 5, then the counts ``tp,
        fp, fn, tn``.
    """
    tp, fp, fn, tn = counts = np.array([tp, fp, fn, tn], dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = {
            "acc": (tp + tn) / counts.sum(axis=0),
            "sens": tp / (tp + fn),
            "spec": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
        }
    counts = dict(zip(("tp", "fp", "fn", "tn"), counts, strict=True))
    if tp.ndim:
        return ratios | counts
    return {k: float(v) for k, v in ratios.items()} | {k: int(v) for k, v in counts.items()}


def at_threshold(label, probability, threshold: float) -> dict:
    """Metrics of `from_counts` for the rule ``probability >= threshold``.

    One class is allowed; its ratios are NaN.
    """
    label, probability = check(label, probability, classes=1)
    fp, tp = np.bincount(label[probability >= threshold], minlength=2)
    negatives, positives = np.bincount(label, minlength=2)
    return from_counts(tp, fp, positives - tp, negatives - fp)


def _every_threshold(label, probability) -> tuple[np.ndarray, dict]:
    """Each distinct probability as a threshold, highest first, and `from_counts` at each."""
    label, probability = check(label, probability)
    threshold, group = np.unique(-probability, return_inverse=True)
    tp = np.cumsum(np.bincount(group, weights=label))
    fp = np.cumsum(np.bincount(group, weights=1 - label))
    return -threshold, from_counts(tp, fp, tp[-1] - tp, fp[-1] - fp)


def operating_points(label, probability) -> dict[str, float | None]:
    """The three operating points by name, to be chosen on the validation fold.

    Returns
    -------
    dict
        ``highest_f1`` (paper, section III.B): the threshold with the highest F1; of several the
        highest, which calls fewest records. ``rule_out``, sensitivity at least 0.90: the highest
        threshold that reaches it, None if only calling every record does. ``rule_in``, PPV at least
        0.85: the lowest threshold that reaches it, so the most sensitive one, or None.
    """
    threshold, values = _every_threshold(label, probability)
    rule_out = threshold[(values["sens"] >= 0.90) & (values["spec"] > 0)]
    rule_in = threshold[values["ppv"] >= 0.85]
    return {
        "highest_f1": float(threshold[np.argmax(values["f1"])]),
        "rule_out": max(rule_out.tolist(), default=None),
        "rule_in": min(rule_in.tolist(), default=None),
    }


def operating_point(label, probability) -> float:
    """Threshold of the highest F1, the first of `operating_points`."""
    return operating_points(label, probability)["highest_f1"]


def brier(label, probability) -> float:
    """Brier score: mean squared distance between probability and label; one class is allowed."""
    label, probability = check(label, probability, classes=1)
    return float(np.mean((probability - label) ** 2))


def calibration(label, probability) -> dict:
    """Calibration slope and intercept by logistic regression on the log odds.

    Returns
    -------
    dict
        ``slope``: coefficient of the log odds, 1 when calibrated, below 1 when probabilities are
        too extreme; infinite where the classes are perfectly separated, NaN where all probabilities
        are equal. ``intercept``: calibration in the large, with the slope held at 1; 0 when
        calibrated, below 0 when probabilities are too high on average.

    References
    ----------
    Van Calster B et al. Calibration: the Achilles heel of predictive analytics. BMC Med
    2019;17:230.
    """
    from statsmodels.genmod import families  # slow to import, and not needed while training
    from statsmodels.genmod.generalized_linear_model import GLM

    label, probability = check(label, probability)
    x, one = logit(np.clip(probability, LOGIT_CLIP, 1 - LOGIT_CLIP)), np.ones((label.size, 1))
    # the likelihood's only root; Newton's steps overshoot it where a forest gives many zeros
    intercept = brentq(lambda shift: np.mean(expit(x + shift) - label), -60, 60, xtol=1e-12)
    without, having = x[label == 0], x[label == 1]
    if np.ptp(x) == 0:
        slope = np.nan
    elif having.min() >= without.max():
        slope = np.inf
    elif having.max() <= without.min():
        slope = -np.inf
    else:
        slope = GLM(label, np.column_stack([one, x]), family=families.Binomial()).fit().params[1]
    return {"slope": float(slope), "intercept": float(intercept)}


def net_benefit(label, probability, threshold) -> np.ndarray:
    """Net benefit ``TP/n - FP/n * t/(1-t)`` of calling records at each threshold t in (0, 1).

    References
    ----------
    Vickers AJ, Elkin EB. Decision curve analysis. Med Decis Making 2006;26:565–574.
    """
    label, probability = check(label, probability, classes=1)
    threshold = np.atleast_1d(np.asarray(threshold, dtype=np.float64))
    if not ((threshold > 0) & (threshold < 1)).all():
        raise ValueError(
            "Thresholds of net benefit must be greater than 0 and less than 1; change them"
        )
    tp, fp = (np.sum(probability[label == y, None] >= threshold, axis=0) for y in (1, 0))
    return (tp - fp * threshold / (1 - threshold)) / label.size
