"""How well probabilities fit, before and after they are put on the scale of the validation fold."""

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ecglib import metrics


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
