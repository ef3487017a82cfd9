"""From predictions to conclusions: estimates, intervals and tests, conditional on the trained
models.

The primary estimand is the mean over rotations of a metric within a rotation: probabilities of
differently trained networks aren't on one scale, so pooling them
(``predictions.assign(rotation="pooled")``) is secondary. Its interval comes from drawing patients
again, jointly in all rotations and models: it tells what other patients would have shown of these
trained models, not what training them again would have given.
"""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ecglib import metrics

RANKING = ("auc", "average_precision", "score")


def check_predictions(
    predictions: pd.DataFrame, models=None, rotations=None
) -> tuple[pd.DataFrame, list[str]]:
    """Refuse predictions that can't be analysed; report runs that are missing, and go on with the
    rest.

    Returns the validation and test rows of every run (a model in a rotation) that has both classes
    in both, and one sentence for each that hasn't, and for each model that lacks rotations;
    `models` and `rotations` are what the study asked for, by default what is found.

    Raises
    ------
    ValueError
        For a probability that is NaN or outside 0–1; a record that is twice in a run, in the test
        (or validation) folds of two rotations, or with two labels or patients.
    """
    found = predictions[predictions["split"].isin(["validation", "test"])]
    if found.empty:
        raise ValueError(
            "There are no predictions of a validation or test fold; train at least one model first"
        )
    for what, key, other in (
        ("is twice in one run", ["record_id", "split", "model", "rotation"], None),
        ("is in the same split of two rotations", ["record_id", "split"], ["rotation"]),
        ("has two labels or two patients", ["record_id"], ["patient_id", "label"]),
    ):
        rows = found[key + other].drop_duplicates() if other else found[key]
        if (twice := rows.duplicated(key)).any():
            raise ValueError(
                f"Record {rows['record_id'][twice].iloc[0]} {what}; make folds and predictions "
                "again"
            )
    runs = dict(list(found.groupby(["model", "rotation"], sort=False, observed=True)))
    models = found["model"].unique() if models is None else models
    rotations = sorted(found["rotation"].unique()) if rotations is None else rotations
    missing, problems = {}, []
    for key in dict.fromkeys([*product(models, rotations), *runs]):
        if key not in runs:
            missing.setdefault(key[0], []).append(str(key[1]))
        elif reason := _unusable(*key, runs[key]):
            problems.append(f"{key[0]}, rotation {key[1]}: {reason}; left out.")
            del runs[key]
    problems += [
        f"{model}: no predictions for rotation {', '.join(which)}."
        for model, which in missing.items()
    ]
    return pd.concat(runs.values()) if runs else found.iloc[:0], problems


def _unusable(model: str, rotation: int, run: pd.DataFrame) -> str:
    """Why the two folds of a run can't be compared with others: one is missing, or has one class;
    empty if they can.
    """
    reasons = []
    for split in ("validation", "test"):
        fold = run[run["split"] == split]
        if fold.empty:
            reasons.append(f"no predictions of the {split} fold")
            continue
        try:
            label, _ = metrics.check(fold["label"], fold["probability"], classes=1)
        except ValueError as error:
            raise ValueError(f"{model}, rotation {rotation}, {split} fold: {error}") from None
        if label.min() == label.max():
            reasons.append(f"all {label.size} labels of the {split} fold are {label[0]}")
    return " and ".join(reasons)


def per_rotation(predictions: pd.DataFrame, thresholds: dict | None = None) -> pd.DataFrame:
    """Metrics of every run: ``model, rotation, split``, its counts, and the metrics of
    `bootstrap`.
    """
    rows = []
    for key, run in predictions.groupby(["model", "rotation", "split"], sort=False, observed=True):
        table = _sums(run.assign(patient=0), thresholds[key[:2]] if thresholds else None, 1)
        row = dict(zip(("model", "rotation", "split"), key, strict=True))
        row |= {
            "records": len(run),
            "patients": run["patient_id"].nunique(),
            "positives": run["label"].sum(),
        }
        rows.append(
            row | {name: value[0] for name, value in _evaluate(*table, np.ones((1, 1))).items()}
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Bootstrap:
    """Metrics of every run, as they are and in every draw of patients.

    ``runs`` has a row for each of r runs (model, rotation, effective patients of the scarcer
    class); ``estimate`` and ``draws`` map a metric to float64 ``(r,)`` and ``(r, draws)``, NaN
    where a draw leaves it undefined.
    """

    runs: pd.DataFrame
    estimate: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]


def bootstrap(
    predictions, draws: int = 2000, seed: int = 42, thresholds: dict | None = None
) -> Bootstrap:
    """Draw patients with replacement, the same in all models and rotations, and compute every
    metric again.

    Takes the predictions of one split, from `check_predictions`, and returns a `Bootstrap` with
    ``auc, average_precision, score, brier``; `thresholds`, from (model, rotation) to an operating
    point, adds ``acc, sens, spec, ppv, npv, f1``.

    Exact: a draw gives each patient a weight (how often they were drawn), and every metric is a
    function of sums of weights over records, which a sparse matrix per run collects for all draws
    at once. A draw without a positive (or negative) patient in a rotation leaves a metric undefined
    there, and so its mean: it is left out and counted.
    """
    if len(predictions["split"].unique()) != 1:
        raise ValueError(
            "A bootstrap needs the predictions of one split; choose validation or test"
        )
    code, names = pd.factorize(predictions["patient_id"])
    groups = dict(
        list(
            predictions.assign(patient=code).groupby(
                ["model", "rotation"], sort=False, observed=True
            )
        )
    )
    tables = [
        _sums(run, thresholds[key] if thresholds else None, names.size)
        for key, run in groups.items()
    ]
    generator, weights = np.random.default_rng(seed), np.ones((names.size, 1))
    parts, left = [[_evaluate(*table, weights) for table in tables]], draws
    while left > 0:  # in portions that bound the memory; the draws don't depend on their size
        size = min(left, 250, max(1, 20_000_000 // names.size))
        drawn = (
            generator.integers(names.size, size=(size, names.size))
            + names.size * np.arange(size)[:, None]
        )
        weights = (
            np.bincount(drawn.ravel(), minlength=size * names.size)
            .reshape(size, -1)
            .T.astype(float, "C")
        )
        parts.append([_evaluate(*table, weights) for table in tables])
        left -= size
    estimate, *drawn = (
        {name: np.stack([run[name] for run in part]) for name in part[0]} for part in parts
    )
    runs = pd.DataFrame(list(groups), columns=["model", "rotation"])
    runs["patients"] = [_effective_patients(run) for run in groups.values()]
    drawn = {name: np.concatenate([part[name] for part in drawn], axis=1) for name in estimate}
    return Bootstrap(runs, {name: value[:, 0] for name, value in estimate.items()}, drawn)


def _effective_patients(run: pd.DataFrame) -> float:
    """Patients of the scarcer class that say as much as these with their unequal numbers of ECGs
    (Kish).
    """
    ecgs = run.groupby(["label", "patient_id"]).size().groupby("label")
    return float(ecgs.agg(lambda n: n.sum() ** 2 / (n**2).sum()).min())


def _sums(
    run: pd.DataFrame, threshold: float | None, patients: int
) -> tuple[sparse.csr_array, int]:
    """Return the matrix (sums x patients) whose product with weights holds all that `_evaluate`
    needs.

    Rows: positives at each of the q distinct probabilities of positives, from the highest;
    negatives at each; negatives between the last and this one, and below all (q + 1); squared
    errors; with a threshold, TP and FP.
    """
    label, probability = run["label"].to_numpy(), run["probability"].to_numpy(dtype=np.float64)
    steps = np.unique(probability[label == 1])
    q, above = steps.size, steps.size - np.searchsorted(steps, probability, side="right")
    kind = np.where(label == 1, 0, np.where(np.isin(probability, steps), 1, 2))
    row = [kind * q + above, np.full(label.size, 3 * q + 1)]
    value = [np.ones(label.size), (probability - label) ** 2]
    if threshold is not None:
        row, value = [*row, 3 * q + 3 - label], [*value, probability >= threshold]
    at = np.concatenate(row), np.tile(run["patient"].to_numpy(), len(row))
    return sparse.csr_array(
        (np.concatenate(value), at), shape=(3 * q + 2 * len(row) - 2, patients)
    ), q


def _evaluate(table: sparse.csr_array, q: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of one run, each ``(draws,)``, for weights ``(patients, draws)``."""
    sums = table @ weights
    gained, tied, between = sums[:q], sums[q : 2 * q], sums[2 * q : 3 * q + 1]
    tp, fp = np.cumsum(gained, axis=0), np.cumsum(tied + between[:-1], axis=0)
    positives, negatives = tp[-1], fp[-1] + between[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        area = 1 - np.sum(gained * (fp - tied / 2), axis=0) / np.where(
            negatives > 0, positives * negatives, np.nan
        )
        precision = np.sum(gained * tp / np.maximum(tp + fp, 1), axis=0) / positives
        squares = sums[3 * q + 1] / (positives + negatives)
    values = {
        "auc": area,
        "average_precision": precision,
        "score": metrics.combine(area, precision),
        "brier": squares,
    }
    if len(sums) > 3 * q + 2:
        ratios = metrics.from_counts(sums[-2], sums[-1], positives - sums[-2], negatives - sums[-1])
        values |= {name: ratios[name] for name in ("acc", "sens", "spec", "ppv", "npv", "f1")}
    return values


def interval(
    estimate: float, draws: np.ndarray, patients, confidence: float = 0.95, unbias: bool = True
) -> dict:
    """Confidence limits and p-value (of a true value of 0) of one estimate: expanded,
    bias-corrected percentiles.

    Expanded (Hesterberg, Am Stat 2015;69:371–386) since drawing from n patients understates a
    variance by (n − 1)/n; `patients` is the effective number of the scarcer class in each rotation.
    Bias-corrected (Efron, J Am Stat Assoc 1987;82:171–185) since average precision is biased
    upwards in small folds, and again in draws from them; not (`unbias`) for a difference of two
    models, where the bias cancels and correcting only adds noise. Chosen by
    ``benchmarks/interval_coverage.py``.

    Returns ``estimate, low, high, se, p``, where p is the level whose interval just reaches 0 but
    at least 2/(draws + 1), and ``undefined``, the number of draws left out (NaN).
    """
    known, patients = draws[~np.isnan(draws)], np.maximum(patients, 2)
    values = dict.fromkeys(("low", "high", "se", "p"), np.nan)
    if known.size >= 20 and not np.isnan(estimate):
        finest = 1 / (known.size + 1)

        # normal score of the share of draws below a value, a tie counting one half
        def z_below(value):
            share = (np.mean(known < value) + np.mean(known <= value)) / 2
            return stats.norm.ppf(np.clip(share, finest, 1 - finest))

        shift, spread = 2 * z_below(estimate) * unbias, np.sqrt(np.mean(patients / (patients - 1)))
        reach = spread * stats.t.ppf(
            [(1 - confidence) / 2, (1 + confidence) / 2], df := np.sum(patients - 1)
        )
        low, high = np.quantile(known, stats.norm.cdf(shift + reach), method="weibull")
        p = 2 * stats.t.sf(abs(z_below(0) - shift) / spread, df)
        values = {"low": low, "high": high, "se": known.std(ddof=1), "p": max(p, 2 * finest)}
    return {"estimate": estimate} | values | {"undefined": draws.size - known.size}


def intervals(boot: Bootstrap, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over rotations of every metric of every model: ``model, metric, rotations``, then as in
    `interval`.

    Limits are NaN where all draws are alike, as for a sensitivity of 1: they can't tell how far it
    may be off.
    """
    rows = []
    for (model, runs), name in product(boot.runs.groupby("model", sort=False), boot.estimate):
        values = boot.estimate[name][runs.index].mean(), boot.draws[name][runs.index].mean(axis=0)
        rows.append({"model": model, "metric": name, "rotations": len(runs)})
        rows[-1] |= interval(*values, runs["patients"], confidence)
    table = pd.DataFrame(rows).drop(columns="p")
    return table.assign(**table[["low", "high"]].mask(table["se"] == 0))


def differences(
    boot: Bootstrap, folds: int | None, confidence: float = 0.95, names=RANKING
) -> pd.DataFrame:
    """Paired differences a − b of every two models, over the rotations they share.

    Returns ``metric, a, b, rotations``, then as in `interval`: the primary test. Beside it the
    corrected resampled t-test (Nadeau and Bengio, Mach Learn 2003;52:239–281), which asks whether
    training both again would rank them alike: ``sd`` within rotations, ``t`` = mean / sqrt((1/R +
    test/train) sd²) with R − 1 degrees of freedom and test/train = 1/(folds − 2), ``p_t``; NaN
    without `folds`, where sites of unequal size are left out in turn. ``p_holm`` and ``p_t_holm``
    are Holm's, over the pairs of a metric.
    """
    share = 1 / (folds - 2) if folds else np.nan
    rows, runs = (
        [],
        {
            model: part.reset_index().set_index("rotation")
            for model, part in boot.runs.groupby("model")
        },
    )
    for name, (a, b) in product(names, combinations(boot.runs["model"].unique(), 2)):
        both = runs[a].join(runs[b], how="inner", rsuffix="_b")
        if both.empty:
            continue
        gap, drawn = (
            v[name][both["index"]] - v[name][both["index_b"]] for v in (boot.estimate, boot.draws)
        )
        t = (
            gap.mean() / np.sqrt((1 / gap.size + share) * gap.var(ddof=1))
            if np.ptp(gap) > 0
            else np.nan
        )
        row = {"metric": name, "a": a, "b": b, "rotations": gap.size}
        row |= interval(gap.mean(), drawn.mean(axis=0), both["patients"], confidence, unbias=False)
        row |= {"sd": gap.std(ddof=1) if gap.size > 1 else np.nan, "t": t}
        rows.append(row | {"p_t": 2 * stats.t.sf(abs(t), gap.size - 1)})
    table = pd.DataFrame(rows)
    # a test that couldn't be done still counts as one of its family
    for p in ("p", "p_t") if rows else ():
        each = table.fillna({p: 1}).sort_values(p).groupby("metric")[p]
        holm = each.transform(lambda p: (p * np.arange(p.size, 0, -1)).cummax().clip(upper=1))
        table[f"{p}_holm"] = holm.where(table[p].notna())
    return table


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


def delong_differences(predictions: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Paired AUC differences by `delong`, averaged over rotations, whose test folds share no
    record.
    """
    wide = predictions.pivot_table(
        "probability", ["rotation", "label", "record_id"], "model", sort=False
    )
    rows = []
    for a, b in combinations(wide.columns, 2):
        parts = []
        for _, run in wide[[a, b]].dropna().groupby("rotation"):
            area, covariance = delong(run.index.get_level_values("label"), run.to_numpy().T)
            parts.append((area[0] - area[1], np.trace(covariance) - 2 * covariance[0, 1]))
        if parts:
            gap, se = np.mean([g for g, _ in parts]), np.sqrt(sum(v for _, v in parts)) / len(parts)
            reach, p = (
                stats.norm.ppf((1 + confidence) / 2) * se,
                2 * stats.norm.sf(abs(gap) / se) if se > 0 else np.nan,
            )
            row = {
                "a": a,
                "b": b,
                "rotations": len(parts),
                "estimate": gap,
                "low": gap - reach,
                "high": gap + reach,
            }
            rows.append(row | {"se": se, "p": p})
    return pd.DataFrame(rows)


def selection_optimism(boot: Bootstrap, model: str, metric: str = "score") -> dict:
    """What choosing the best of a model's rotations by this very metric adds to it, by shrinking
    towards their mean.

    The part of the variance between rotations that sampling of patients (the draws) explains is
    taken out of the best one's lead (Efron and Morris, J Am Stat Assoc 1975;70:311–319):
    ``rotation, apparent, optimism, corrected``.
    """
    runs = boot.runs[boot.runs["model"] == model]
    values, noise = (
        boot.estimate[metric][runs.index],
        np.nanvar(boot.draws[metric][runs.index], axis=1).mean(),
    )
    best, mean = values.argmax(), values.mean()
    lead = values[best] - mean
    optimism = lead * min(1, noise / values.var(ddof=1)) if lead > 0 else 0.0
    found = {
        "rotation": runs["rotation"].iloc[best],
        "apparent": values[best],
        "optimism": optimism,
    }
    return found | {"corrected": values[best] - optimism}


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
