"""How well probabilities fit, before and after they are put on the scale of the validation fold."""

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

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


def limits(both: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Calibration slope and intercept (`ecglib.metrics.calibration`) of each model and ``scale``.

    Returns
    -------
    pandas.DataFrame
        ``model, scale, metric, estimate, low, high``. Limits are from the covariance that holds
        with several ECGs of a patient (Liang and Zeger, Biometrika 1986;73:13–22).
    """
    rows, clip = [], metrics.LOGIT_CLIP
    for key, run in both.groupby(["model", "scale"], sort=False):
        x, one = logit(run["probability"].clip(clip, 1 - clip)), np.ones(len(run))
        for metric, seen, offset in (("slope", np.stack([x, one], 1), None), ("intercept", one, x)):
            line = GLM(run["label"].to_numpy(), seen, Binomial(), offset=offset)
            patients = {"groups": pd.factorize(run["patient_id"])[0]}
            # Newton's steps may overshoot the intercept, so they begin at it
            at = metrics.calibration(run["label"], run["probability"])["intercept"]
            start = None if offset is None else [at]
            fit = line.fit(start, cov_type="cluster", cov_kwds=patients)
            rows.append([*key, metric, fit.params[0], *fit.conf_int(1 - confidence)[0]])
    return pd.DataFrame(rows, columns=["model", "scale", "metric", "estimate", "low", "high"])
