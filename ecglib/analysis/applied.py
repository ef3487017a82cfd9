"""How models do on other ECGs than those of their study, beside their cross-validation.

Functions take the predictions of `ecglib.study.apply.predict` whose labels are known.
"""

import numpy as np
import pandas as pd
from scipy.special import logit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from ecglib.analysis import inference
from ecglib.metrics import LOGIT_CLIP


def performance(known: pd.DataFrame, confidence: float = 0.95, **options) -> pd.DataFrame:
    """`ecglib.analysis.inference.intervals` of each model, on test folds and new ECGs (``where``),
    with the thresholds of the validation folds; `options` are those of `bootstrap`.
    """
    points, new = inference.thresholds_of(known), known[known["split"] == "new"]
    each, mean = new[new["rotation"] >= 0], new[new["rotation"] < 0]
    parts = {"cross-validation": known[known["split"] == "test"], "new ECGs": each}
    parts |= {"new ECGs, mean's answer": mean}
    parts |= {f"new ECGs, rotation {k}": run for k, run in each.groupby("rotation")}
    tables = [
        inference.intervals(
            inference.bootstrap(part, thresholds=points, **options), confidence
        ).assign(where=where)
        for where, part in parts.items()
    ]
    return pd.concat(tables, ignore_index=True)


def on_both_scales(known: pd.DataFrame) -> pd.DataFrame:
    """The means' answers for new ECGs twice, by ``scale``: as trained, and after
    `ecglib.analysis.inference.recalibrate` on the validation predictions.
    """
    parts = []
    for _, run in known[known["rotation"] < 0].groupby("model", sort=False):
        seen, new = (run[run["split"] == split] for split in ("validation", "new"))
        mended = inference.recalibrate(seen["label"], seen["probability"], new["probability"])
        parts.append(new.assign(scale="as trained"))
        parts.append(new.assign(scale="recalibrated on validation", probability=mended))
    return pd.concat(parts)


def calibration(predictions: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Calibration slope and intercept (`ecglib.metrics.calibration`) of each model and scale.

    Returns
    -------
    pandas.DataFrame
        ``model, scale, metric, estimate, low, high``. Limits are from the covariance that holds
        with several ECGs of a patient (Liang and Zeger, Biometrika 1986;73:13–22).
    """
    rows = []
    for key, run in predictions.groupby(["model", "scale"], sort=False):
        x, one = logit(run["probability"].clip(LOGIT_CLIP, 1 - LOGIT_CLIP)), np.ones(len(run))
        patients = {"groups": pd.factorize(run["patient_id"])[0]}
        fits = {"slope": (np.column_stack([x, one]), None), "intercept": (one, x)}
        for metric, (columns, offset) in fits.items():
            line = GLM(run["label"].to_numpy(), columns, Binomial(), offset=offset)
            fit = line.fit(cov_type="cluster", cov_kwds=patients)
            rows.append([*key, metric, fit.params[0], *fit.conf_int(1 - confidence)[0]])
    return pd.DataFrame(rows, columns=["model", "scale", "metric", "estimate", "low", "high"])
