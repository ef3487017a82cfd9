"""How well probabilities fit, before and after they are put on the scale of the validation fold."""

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ecglib import metrics
from ecglib.analysis.inference import effective_patients, interval


def recalibrate(label, probability, new) -> np.ndarray:
    """Probabilities `new` on the scale that fits (label, probability): logistic regression on their
    log odds.

    Fit on validation, for test: training on as many positives as negatives makes probabilities too
    high. Ranks stay.
    """
    label, probability = metrics.check(label, probability)
    x, new = (
        logit(np.clip(p, metrics.LOGIT_CLIP, 1 - metrics.LOGIT_CLIP)) for p in (probability, new)
    )
    line = LogisticRegression(C=np.inf).fit(x[:, None], label)
    return line.predict_proba(np.asarray(new)[:, None])[:, 1]


def with_risk(predictions: pd.DataFrame) -> pd.DataFrame:
    """Test predictions with the column ``risk``: their probabilities after `recalibrate` on the
    validation fold of the same run.
    """
    parts = []
    for _, run in predictions.groupby(["model", "rotation"], sort=False):
        known, test = (run[run["split"] == split] for split in ("validation", "test"))
        risk = recalibrate(known["label"], known["probability"], test["probability"])
        parts.append(test.assign(risk=risk))
    return pd.concat(parts)


def by_scale(tested: pd.DataFrame) -> pd.DataFrame:
    """Predictions of `with_risk` twice, by the column ``scale``: as trained, and recalibrated."""
    after = tested.assign(probability=tested["risk"], scale="recalibrated on validation")
    return pd.concat([tested.assign(scale="as trained"), after])


def observed_to_expected(
    part: pd.DataFrame, draws: int = 2000, seed: int = 42, confidence: float = 0.95
) -> dict:
    """Positives over the sum of their ``risk``, with the limits of drawing patients again: 1 where
    risks fit on average, above where they are too low; as `inference.interval`.
    """
    sums = part.groupby("patient_id")[["label", "risk"]].sum().to_numpy()
    weights = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=draws
    )
    observed, expected = (weights @ sums).T
    ratio = part["label"].sum() / part["risk"].sum()
    return interval(ratio, observed / expected, effective_patients(part), confidence)
