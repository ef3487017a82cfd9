"""Which differences between models, or between rotations of one, are more than chance."""

from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ecglib.analysis.inference import RANKING, Bootstrap, interval


def differences(boot: Bootstrap, folds: int | None, confidence: float = 0.95) -> pd.DataFrame:
    """Paired differences a − b of every two models, over the rotations they share.

    Returns ``metric, a, b, rotations``, then as in `ecglib.analysis.inference.interval`: the
    primary test. Beside it the corrected resampled t-test (Nadeau and Bengio, Mach Learn
    2003;52:239–281), which asks whether training both again would rank them alike: ``sd`` within
    rotations, ``t`` = mean / sqrt((1/R + test/train) sd²) with R − 1 degrees of freedom and
    test/train = 1/(folds − 2), ``p_t``; NaN without `folds`, where sites of unequal size are left
    out in turn. ``p_holm`` and ``p_t_holm`` are Holm's, over the pairs of a metric.
    """
    share, rows = 1 / (folds - 2) if folds else np.nan, []
    runs = boot.runs.reset_index().set_index("rotation")
    for name, (a, b) in product(RANKING, combinations(runs["model"].unique(), 2)):
        both = runs[runs["model"] == a].join(runs[runs["model"] == b], how="inner", rsuffix="_b")
        if both.empty:
            continue
        gap, drawn = (
            values[name][both["index"]] - values[name][both["index_b"]]
            for values in (boot.estimate, boot.draws)
        )
        row = {"metric": name, "a": a, "b": b, "rotations": gap.size}
        row |= interval(gap.mean(), drawn.mean(axis=0), both["patients"], confidence, unbias=False)
        row |= {"sd": np.nan, "t": np.nan}
        if gap.size > 1:
            row["sd"] = gap.std(ddof=1)
        if np.ptp(gap) > 0:
            row["t"] = gap.mean() / np.sqrt((1 / gap.size + share) * gap.var(ddof=1))
        rows.append(row | {"p_t": 2 * stats.t.sf(abs(row["t"]), gap.size - 1)})
    table = pd.DataFrame(rows)
    # a test that couldn't be done still counts as one of its family
    for p in ("p", "p_t") if rows else ():
        holm = table[p].fillna(1).groupby(table["metric"]).transform(_holm)
        table[f"{p}_holm"] = holm.where(table[p].notna())
    return table


def _holm(p: pd.Series) -> np.ndarray:
    return multipletests(p, method="holm")[1]


def delong(label, probability) -> tuple[np.ndarray, np.ndarray]:
    """AUCs ``(m,)`` and their covariance ``(m, m)`` of m models on the same n records, probability
    ``(m, n)``.

    Records count as independent: with several ECGs of a patient the covariance comes out too small.
    DeLong et al., Biometrics 1988;44:837–845, by midranks (Sun and Xu, IEEE Signal Process Lett
    2014;21:1389–1393).
    """
    label, probability = np.asarray(label) == 1, np.atleast_2d(probability)
    rank, parts = stats.rankdata(probability, axis=1), []
    for own in (label, ~label):  # of each record, the share of the other class that it outranks
        parts.append((rank[:, own] - stats.rankdata(probability[:, own], axis=1)) / (~own).sum())
    covariance = sum(np.atleast_2d(np.cov(part)) / part.shape[1] for part in parts)
    return parts[0].mean(axis=1), covariance


def delong_differences(predictions: pd.DataFrame) -> pd.DataFrame:
    """Paired AUC differences by `delong`, averaged over rotations, whose test folds share no
    record: ``a, b, rotations, estimate, se, p``.
    """
    wide = predictions.pivot_table(
        "probability", ["rotation", "label", "record_id"], "model", sort=False
    )
    rows = []
    for a, b in combinations(wide.columns, 2):
        gaps, variances = [], []
        for _, run in wide[[a, b]].dropna().groupby("rotation"):
            area, covariance = delong(run.index.get_level_values("label"), run.to_numpy().T)
            gaps.append(area[0] - area[1])
            variances.append(np.trace(covariance) - 2 * covariance[0, 1])
        if gaps:
            row = {"a": a, "b": b, "rotations": len(gaps), "estimate": np.mean(gaps)}
            row["se"] = se = np.sqrt(sum(variances)) / len(gaps)
            p = 2 * stats.norm.sf(abs(row["estimate"]) / se) if se > 0 else np.nan
            rows.append(row | {"p": p})
    return pd.DataFrame(rows)


def selection_optimism(boot: Bootstrap, model: str) -> dict:
    """What choosing the best of a model's rotations by this very score adds to it, by shrinking
    towards their mean.

    The part of the variance between rotations that sampling of patients (the draws) explains is
    taken out of the best one's lead (Efron and Morris, J Am Stat Assoc 1975;70:311–319):
    ``rotation, apparent, optimism, corrected``.
    """
    runs = boot.runs[boot.runs["model"] == model]
    values = boot.estimate["score"][runs.index]
    noise = np.nanvar(boot.draws["score"][runs.index], axis=1).mean()
    best = values.argmax()
    lead = values[best] - values.mean()
    optimism = lead * min(1, noise / values.var(ddof=1)) if lead > 0 else 0.0
    return {
        "rotation": runs["rotation"].iloc[best],
        "apparent": values[best],
        "optimism": optimism,
        "corrected": values[best] - optimism,
    }
