"""Which differences between models, or between rotations of one, are more than chance."""

from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ecglib.analysis.inference import RANKING, Bootstrap, interval
from ecglib.analysis.tables import METRICS, interval_texts, p_text

PAPER_ORDER = ("ecg_smart_net", "mayo_alvd", "temporal_resnet18", "random_forest", "resnet18")
"""The paper's models by their mean test AUC, the highest first (Table 4)."""

MARGINS = {"auc": 0.02, "average_precision": 0.05}
"""Equivalence margins: smaller differences of means count as none. The paper's SD between rotations
is 0.027 and 0.087.
"""

EFFECTS = {
    ("ecg_smart_net", "temporal_resnet18"): "Spatial convolution",
    ("ecg_smart_net_millivolt", "ecg_smart_net"): "Amplitude (leads in mV, not z-scored)",
    ("random_forest", "random_forest_without_age_hr"): "Age and heart rate, forest",
    ("gradient_boosting", "gradient_boosting_without_age_hr"): "Age and heart rate, boosting",
}
"""Models, by key, of which the first has what is named and the second hasn't."""

DIFFERENCE = "metric a b rotations estimate low high se p undefined sd t p_t"
FAMILIES = {
    "the paper's": [(PAPER_ORDER[0], other) for other in PAPER_ORDER[1:]],
    "one thing changed": [*EFFECTS],
}
"""Comparisons that were planned, each family with a Holm correction of its own."""


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
    places = _places(boot)
    for name, (a, b) in product(RANKING, combinations(places, 2)):
        both = places[[a, b]].dropna().astype(int)
        if both.empty:
            continue
        gap, drawn = (
            values[name][both[a]] - values[name][both[b]] for values in (boot.estimate, boot.draws)
        )
        row = {"metric": name, "a": a, "b": b, "rotations": gap.size}
        row |= interval(
            gap.mean(), drawn.mean(axis=0), boot.runs["patients"][both[a]], confidence, unbias=False
        )
        variance = gap.var(ddof=1) if np.ptp(gap) > 0 else np.nan
        t = gap.mean() / np.sqrt((1 / gap.size + share) * variance)
        row |= {"sd": np.sqrt(variance), "t": t, "p_t": 2 * stats.t.sf(abs(t), gap.size - 1)}
        rows.append(row)
    table = pd.DataFrame(rows, columns=DIFFERENCE.split())
    for p in ("p", "p_t"):
        table[f"{p}_holm"] = _holm(table[p], table["metric"]).where(table[p].notna())
    return table


def _places(boot: Bootstrap) -> pd.DataFrame:
    """Place of each run in the arrays of a bootstrap, rotations by models."""
    runs = boot.runs.reset_index()
    return runs.pivot_table("index", "rotation", "model", sort=False).sort_index()


def _holm(p: pd.Series, *family) -> pd.Series:
    """Holm's p within each family; a test that couldn't be done still counts as one of it."""
    groups = p.fillna(1).groupby([*family])
    return groups.transform(lambda each: multipletests(each, method="holm")[1])


def planned(paired: pd.DataFrame) -> pd.DataFrame:
    """Those of `differences` that are in one of `FAMILIES`, AUC and AP, b subtracted from a.

    Returns its columns behind ``family``, ``p_holm`` within the family and metric, and ``verdict``.
    """
    turned = paired.rename(columns={"a": "b", "b": "a", "low": "high", "high": "low"})
    turned[["estimate", "low", "high"]] *= -1
    asked = [
        (family, metric, *pair)
        for family, metric in product(FAMILIES, MARGINS)
        for pair in FAMILIES[family]
    ]
    table = pd.DataFrame(asked, columns=["family", "metric", "a", "b"])
    table = table.merge(pd.concat([paired, turned]))
    table["p_holm"] = _holm(table["p"], table["family"], table["metric"])
    return table.assign(verdict=[_verdict(row) for row in table.itertuples()])


def _verdict(row) -> str:
    """Say what a difference is; one that isn't significant is equivalent where its interval lies
    within `MARGINS`.
    """
    if row.p_holm < 0.05:
        return "significantly higher" if row.estimate > 0 else "significantly lower"
    margin = MARGINS[row.metric]
    return "equivalent" if -margin < row.low and row.high < margin else "undecided"


def answers(bounds, paired, families, noise, names: dict, label) -> list[str]:
    """Say what a comparison found, in sentences: the highest AUC; how many pairs differ; whether
    the paper's order holds on this label, what each of `EFFECTS` changes, how large training noise
    is beside it, and what can't be separated. Of a synthetic label only the first two.

    `bounds` is from `ecglib.analysis.inference.intervals`, `paired` from `differences`, `families`
    from `planned`, `noise` from
    `ecglib.study.runs.training_noise`; `names` maps a model to its display name; `label`
    is an `ecglib.settings.Label`.
    """
    of_auc = bounds[bounds["metric"] == "auc"].set_index("model")
    simulated, auc = label.kind == "synthetic", of_auc["estimate"]
    best, start = auc.idxmax(), "Simulated ECGs, synthetic label: t" if simulated else "T"
    said = [
        f"{start}he highest mean test AUC is that of {names[best]}: "
        f"{interval_texts(of_auc.loc[[best]])[0]}."
    ]
    if len(paired):
        pairs = paired[paired["metric"] == "auc"]
        count = (pairs["p_holm"] < 0.05).sum()
        said.append(f"AUC differs significantly in {count} of {len(pairs)} pairs (Holm over all).")
    if simulated:
        return said
    paper = [model for model in PAPER_ORDER if model in auc]
    here = sorted(paper, key=auc.get, reverse=True)
    if len(paper) > 1:
        rule, told = (" > ".join(names[model] for model in order) for order in (paper, here))
        holds = "holds on this label" if here == paper else f"doesn't hold on this label: {told}"
        said.append(f"The paper's ranking by mean test AUC ({rule}) {holds}.")
    if len(families):
        said.append(
            "Planned differences; p is Holm-corrected within each family; equivalent: the interval "
            f"lies within ±{MARGINS['auc']} in AUC, ±{MARGINS['average_precision']} in AP."
        )
    for (family, a, b), rows in families.groupby(["family", "a", "b"], sort=False):
        what = f"{EFFECTS[a, b]}: " if family == "one thing changed" else ""
        told = zip(rows.itertuples(), interval_texts(rows), strict=True)
        parts = [
            f"{METRICS[row.metric]} {text}, p {p_text(row.p_holm)}, {row.verdict}"
            for row, text in told
        ]
        said.append(f"{what}{names[a]} − {names[b]}: {'; '.join(parts)}.")
    for row in noise.itertuples():
        of_mean = row.AUC / np.sqrt(bounds["rotations"].max())
        said.append(
            f"{names[row.network]}, between trainings: a new seed changes a rotation's test AUC "
            f"by an SD of {row.AUC:.3f} and its AP by {row.AP:.3f} ({row.seeds} "
            f"seeds, {row.rotations} rotations), so the mean AUC over rotations by {of_mean:.3f} "
            f"and the difference of two such means by {np.sqrt(2) * of_mean:.3f}."
        )
    if "resnet18" in names:
        said.append(
            "The effects of depth and ImageNet weights can't be separated here: no two models "
            f"differ in only one of them, and {names['resnet18']} was trained from one start."
        )
    return said


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
    for _, run in wide.groupby("rotation"):
        run = run.dropna(axis=1)
        area, covariance = delong(run.index.get_level_values("label"), run.to_numpy().T)
        for (i, a), (j, b) in combinations(enumerate(run), 2):
            variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
            rows.append((a, b, area[i] - area[j], variance))
    table = pd.DataFrame(rows, columns=["a", "b", "estimate", "se"]).groupby(["a", "b"], sort=False)
    table = table.agg(
        rotations=("se", "size"),
        estimate=("estimate", "mean"),
        se=("se", lambda variances: np.sqrt(variances.sum()) / len(variances)),
    )
    p = 2 * stats.norm.sf(abs(table["estimate"]) / table["se"])
    return table.assign(p=p).reset_index()


def leads(boot: Bootstrap, model: str) -> pd.DataFrame:
    """Why some rotations of a model have a higher score than others, by rotation.

    Returns ``score``, its ``lead`` over the mean, and two parts of the lead: ``fold``, what the
    fold's ease gives (the other models' mean lead there, times the slope between both over
    rotations), and ``luck``, what choosing the rotation by this very score adds to the rest: its
    share that sampling of patients (the draws) explains (Efron and Morris, J Am Stat Assoc
    1975;70:311–319). ``others`` is that mean lead, NaN without other models.
    """
    places = _places(boot).dropna(subset=model)
    others = places.drop(columns=model).dropna(axis=1).to_numpy(int)
    own = places[model].astype(int)
    values, draws = boot.estimate["score"], boot.draws["score"]
    table = pd.DataFrame({"score": values[own], "others": np.nan}, index=places.index)
    table["lead"], slope, drawn = table["score"] - table["score"].mean(), 0.0, draws[own]
    if others.size:
        mean = values[others].mean(axis=1)
        table["others"] = shared = mean - mean.mean()
        slope = np.clip(table["lead"] @ shared / (shared @ shared or 1), 0, 1)
        drawn = drawn - slope * draws[others].mean(axis=1)
    table["fold"] = slope * table["others"].fillna(0) + 0.0  # no −0
    rest = table["lead"] - table["fold"]
    spread = rest.var() if len(rest) > 1 else 0
    noise = np.nanvar(drawn, axis=1).mean()
    return table.assign(luck=rest * min(1, noise / spread) if spread > 0 else 0.0)
