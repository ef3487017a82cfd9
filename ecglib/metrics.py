"""Metrics of a binary classifier and its operating points.

``label`` is 0 or 1 and ``probability`` the predicted probability of 1, both of shape
``(records,)``; a record is called positive where ``probability >= threshold``; a ratio with nothing
in its denominator is NaN. Every function refuses, in one sentence, unequal lengths, labels other
than 0 and 1, and probabilities that are NaN or outside 0–1; those that compare the two classes also
refuse labels of one class.
"""

import numpy as np
from scipy.special import logit
from sklearn.metrics import average_precision_score, roc_auc_score

ALPHA = 2 / 3
"""Weight of the AUC in the score (paper, Equation 1 and section II.B)."""

LOGIT_CLIP = 1e-6
"""Probabilities are moved this far away from 0 and 1 before a logit is taken."""


def check(label, probability, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return label (int64) and probability (float64) as arrays, or refuse them with one sentence
    (ValueError).
    """
    label, probability = np.asarray(label), np.asarray(probability, dtype=np.float64)
    if label.shape != probability.shape or label.ndim != 1 or not label.size:
        shapes = f"Labels {label.shape} and probabilities {probability.shape}"
        raise ValueError(
            f"{shapes} must be lists of one length that isn't 0; give one of each per ECG"
        )
    if not (known := np.isin(label, (0, 1))).all():
        raise ValueError(f"Labels must be 0 or 1, but {label[~known][0]!s} is among them")
    if np.isnan(probability).any():
        raise ValueError(
            f"{np.isnan(probability).sum()} of {label.size} probabilities are NaN; predict them again"
        )
    if probability.min() < 0 or probability.max() > 1:
        lowest, highest = probability.min(), probability.max()
        raise ValueError(
            f"Probabilities run from {lowest:.4g} to {highest:.4g}; they must lie within 0–1"
        )
    if classes == 2 and label.min() == label.max():
        raise ValueError(
            f"All {label.size} labels are {label[0]}; this metric needs records with label 0 and with 1"
        )
    return label.astype(np.int64), probability


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
    """Score of Equation 1: ``ALPHA * AUC + (1 - ALPHA) * AP``; it schedules training and chooses
    the epoch.
    """
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
    tp, fp, fn, tn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, fn, tn))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "acc": (tp + tn) / (tp + fp + fn + tn),
            "sens": tp / (tp + fn),
            "spec": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
        }
    values |= {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    return (
        values
        if tp.ndim
        else {k: int(v) if k in ("tp", "fp", "fn", "tn") else float(v) for k, v in values.items()}
    )


def at_threshold(label, probability, threshold: float) -> dict:
    """Metrics of `from_counts` for the rule ``probability >= threshold``; one class is allowed (its
    ratios are NaN).
    """
    label, probability = check(label, probability, classes=1)
    called = probability >= threshold
    tp, fp = (called & (label == 1)).sum(), (called & (label == 0)).sum()
    return from_counts(tp, fp, label.sum() - tp, (label == 0).sum() - fp)


def _every_threshold(label, probability) -> tuple[np.ndarray, dict]:
    """Return each distinct probability as a threshold, from the highest down, and `from_counts` at
    each.
    """
    label, probability = check(label, probability)
    threshold, group = np.unique(-probability, return_inverse=True)
    tp = np.cumsum(np.bincount(group, weights=label))
    fp = np.cumsum(np.bincount(group, weights=1 - label))
    return -threshold, from_counts(tp, fp, tp[-1] - tp, fp[-1] - fp)


def operating_point(label, probability) -> float:
    """Threshold of the highest F1 (paper, section III.B: chosen on the validation fold).

    Every distinct probability is tried; of several with the same F1 the highest is taken, which
    calls fewest records.
    """
    threshold, values = _every_threshold(label, probability)
    return float(threshold[np.argmax(values["f1"])])


def rule_out_point(label, probability, sensitivity: float = 0.90) -> float | None:
    """Highest threshold with at least that sensitivity; None if only calling every record reaches
    it.
    """
    threshold, values = _every_threshold(label, probability)
    enough = np.flatnonzero((values["sens"] >= sensitivity) & (values["spec"] > 0))
    return float(threshold[enough[0]]) if enough.size else None


def rule_in_point(label, probability, ppv: float = 0.85) -> float | None:
    """Lowest threshold with at least that PPV, so the most sensitive one; None if no threshold
    reaches it.
    """
    threshold, values = _every_threshold(label, probability)
    enough = np.flatnonzero(values["ppv"] >= ppv)
    return float(threshold[enough[-1]]) if enough.size else None


def operating_points(label, probability) -> dict[str, float | None]:
    """The three operating points by name, with the sensitivity and PPV that are the defaults of
    theirs, to be chosen on the validation fold; None for one that can't be reached.
    """
    return {
        "highest_f1": operating_point(label, probability),
        "rule_out": rule_out_point(label, probability),
        "rule_in": rule_in_point(label, probability),
    }


def brier(label, probability) -> float:
    """Brier score: mean squared distance between probability and label (0 is perfect); one class is
    allowed.
    """
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
    intercept = GLM(label, one, family=families.Binomial(), offset=x).fit().params[0]
    if x.min() == x.max():
        slope = np.nan
    elif x[label == 1].min() >= x[label == 0].max() or x[label == 1].max() <= x[label == 0].min():
        slope = np.inf if x[label == 1].mean() > x[label == 0].mean() else -np.inf
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
            "Thresholds of net benefit must lie between 0 and 1, both left out; change them"
        )
    tp, fp = (np.sum(probability[label == y, None] >= threshold, axis=0) for y in (1, 0))
    return (tp - fp * threshold / (1 - threshold)) / label.size
