"""From predictions to conclusions: estimates, intervals and tests, conditional on the trained
models.

The primary estimand is the mean over rotations of a metric within a rotation: probabilities of
differently trained networks aren't on one scale, so pooling them
(``predictions.assign(rotation="pooled")``) is secondary. Its interval comes from drawing patients
again, jointly in all rotations and models: it tells what other patients would have shown of these
trained models, not what training them again would have given.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import sparse, stats
from statsmodels.stats.proportion import proportion_confint

from ecglib import metrics

RANKING = ("auc", "average_precision", "score")
FOLDS, BY_RUN = ["validation", "test"], ["model", "rotation"]
PORTION = 250  # draws at once: bounds the memory, and changes none of them


def check_predictions(predictions, models, rotations) -> tuple[pd.DataFrame, list[str]]:
    """Refuse predictions that can't be analysed; report runs that are missing, and go on with the
    rest.

    Returns the validation and test rows of every run (a model in a rotation) that has both classes
    in both, and one sentence for each that hasn't, and for each of the `models` that lacks some of
    the `rotations` that the study asked for.

    Raises
    ------
    ValueError
        For a probability that is NaN or outside 0–1; a record that is twice in a run, in the test
        (or validation) folds of two rotations, or with two labels or patients.
    """
    found = predictions[predictions["split"].isin(FOLDS)].reset_index(drop=True)
    if found.empty:
        raise ValueError(
            "There are no predictions of a validation or test fold; train at least one model first"
        )
    record = ["record_id", "split"]
    folds, known = [*record, "rotation"], ["record_id", "patient_id", "label"]
    for what, wrong in {
        "has a probability that is NaN or outside 0–1": ~found["probability"].between(0, 1),
        "occurs twice in one run": found.duplicated([*folds, "model"]),
        "is in the same split of two rotations": found[folds].drop_duplicates().duplicated(record),
        "has two labels or two patients": found[known].drop_duplicates().duplicated("record_id"),
    }.items():
        if wrong.any():
            first = found["record_id"][wrong.idxmax()]
            raise ValueError(f"Record {first} {what}; make folds and predictions again")
    usable, problems = [found.iloc[:0]], []
    for (model, rotation), run in found.groupby(BY_RUN, sort=False, observed=True):
        if reasons := _unusable(run):
            problems.append(f"{model}, rotation {rotation}: {reasons}; left out.")
        else:
            usable.append(run)
    there = set(zip(found["model"], found["rotation"], strict=True))
    for model in models:
        if lacking := [str(k) for k in rotations if (model, k) not in there]:
            problems.append(f"{model}: no predictions for rotation {', '.join(lacking)}.")
    return pd.concat(usable), problems


def _unusable(run: pd.DataFrame) -> str:
    """Why the two folds of a run can't be compared with others: one is missing, or has one class;
    empty if they can.
    """
    reasons = []
    for split in FOLDS:
        label = run["label"][run["split"] == split]
        if label.empty:
            reasons.append(f"no predictions of the {split} fold")
        elif label.min() == label.max():
            reasons.append(f"all {label.size} labels of the {split} fold are {label.iloc[0]}")
    return " and ".join(reasons)


def per_rotation(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics of every run: ``model, rotation, split``, its counts, and ``auc, average_precision,
    score, brier``.
    """
    runs = predictions.groupby([*BY_RUN, "split"], sort=False, observed=True)
    counts = runs.agg(
        records=("label", "size"), patients=("patient_id", "nunique"), positives=("label", "sum")
    )
    sums = (_sums(run.assign(patient=0), None, 1) for _, run in runs)
    values = [_evaluate(*each, np.ones((1, 1))) for each in sums]
    table = pd.DataFrame({name: [each[name][0] for each in values] for name in values[0]})
    return counts.reset_index().join(table)


def thresholds_of(predictions: pd.DataFrame) -> dict[tuple, float]:
    """Operating point of each run, (model, rotation): the highest F1 of its validation fold."""
    validation = predictions[predictions["split"] == "validation"]
    return {
        key: metrics.operating_point(run["label"], run["probability"])
        for key, run in validation.groupby(BY_RUN, observed=True)
    }


@dataclass(frozen=True)
class Bootstrap:
    """Metrics of every run, as they are and in every draw of patients.

    ``runs`` has a row for each of r runs (model, rotation, effective patients of the scarcer
    class; with a threshold, for each proportion the patients whom it counts); ``estimate`` and
    ``draws`` map a metric, and ``pairs`` of a positive and a negative, to float64 ``(r,)`` and
    ``(r, draws)``, NaN where a draw leaves it undefined.
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
    groups = predictions.assign(patient=code).groupby(BY_RUN, sort=False, observed=True)
    told = {key: (run, (thresholds or {}).get(key)) for key, run in groups}
    tables = [_sums(*run, names.size) for run in told.values()]

    def evaluate(weights):
        each = [_evaluate(*table, weights) for table in tables]
        return {name: np.stack([values[name] for values in each]) for name in each[0]}

    estimate, parts = evaluate(np.ones((names.size, 1))), []
    generator = np.random.default_rng(seed)
    for start in range(0, draws, PORTION):
        size = min(PORTION, draws - start), names.size
        drawn = [
            np.bincount(one, minlength=names.size)
            for one in generator.integers(names.size, size=size)
        ]
        parts.append(evaluate(np.stack(drawn, axis=1).astype(float)))
    runs = pd.DataFrame(list(told), columns=BY_RUN)
    runs = runs.join(pd.DataFrame([_patients(*run) for run in told.values()]))
    drawn = {name: np.concatenate([part[name] for part in parts], axis=1) for name in estimate}
    return Bootstrap(runs, {name: value[:, 0] for name, value in estimate.items()}, drawn)


def _patients(run: pd.DataFrame, threshold: float | None) -> dict:
    """Effective patients of a run, and with a threshold those whom each proportion counts."""
    counted, ill = {}, run["label"] == 1
    if threshold is not None:
        called = run["probability"] >= threshold
        counted = {"acc": ill | ~ill, "sens": ill, "spec": ~ill, "ppv": called, "npv": ~called}
    counted = {name: run["patient_id"][rows].nunique() for name, rows in counted.items()}
    return {"patients": effective_patients(run)} | counted


def effective_patients(run: pd.DataFrame) -> float:
    """Patients of the scarcer class that say as much as these with their unequal numbers of ECGs
    (Kish).
    """
    ecgs = run.groupby(["label", "patient_id"]).size().groupby("label")
    return float(ecgs.agg(lambda n: n.sum() ** 2 / (n**2).sum()).min())


def _sums(run: pd.DataFrame, threshold: float | None, patients: int) -> tuple:
    """Return the matrix (sums x patients) whose product with weights holds all that `_evaluate`
    needs, and which of the q distinct probabilities are those of positives.

    Rows: positives at each distinct probability, from the highest; negatives at each; squared
    errors; with a threshold, TP and FP.
    """
    label, probability = run["label"].to_numpy(), run["probability"].to_numpy(dtype=np.float64)
    steps, at = np.unique(-probability, return_inverse=True)
    row = [at + steps.size * (1 - label), np.full(label.size, 2 * steps.size)]
    value = [np.ones(label.size), (probability - label) ** 2]
    if threshold is not None:
        row, value = [*row, 2 * steps.size + 2 - label], [*value, probability >= threshold]
    place = np.concatenate(row), np.tile(run["patient"].to_numpy(), len(row))
    table = sparse.csr_array(
        (np.concatenate(value), place), shape=(2 * steps.size + 2 * len(row) - 3, patients)
    )
    return table, np.bincount(at, weights=label) > 0


def _evaluate(table: sparse.csr_array, gains: np.ndarray, weights: np.ndarray) -> dict:
    """Metrics of one run, each float64 ``(draws,)``, for weights ``(patients, draws)``."""
    positive, negative, (squares, *counts) = np.split(table @ weights, [gains.size, 2 * gains.size])
    tp, fp = np.cumsum(positive, axis=0), np.cumsum(negative, axis=0)
    positives, negatives = tp[-1], fp[-1]
    positive, tp, fp, tied = (part[gains] for part in (positive, tp, fp, negative))
    with np.errstate(invalid="ignore", divide="ignore"):
        area = 1 - np.sum(positive * (fp - tied / 2), axis=0) / np.where(
            negatives > 0, positives * negatives, np.nan
        )
        precision = np.sum(positive * tp / np.maximum(tp + fp, 1), axis=0) / positives
        squares = squares / (positives + negatives)
    values = {
        "auc": area,
        "average_precision": precision,
        "score": metrics.combine(area, precision),
        "brier": squares,
        "pairs": positives * negatives,
    }
    if counts:
        tp, fp = counts
        ratios = metrics.from_counts(tp, fp, positives - tp, negatives - fp)
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
    found = {"estimate": estimate} | dict.fromkeys(("low", "high", "se", "p"), np.nan)
    found["undefined"] = draws.size - known.size
    if known.size < 20 or np.isnan(estimate):
        return found
    finest = 1 / (known.size + 1)

    # normal score of the share of draws below a value, a tie counting one half
    def z_below(value):
        share = (np.mean(known < value) + np.mean(known <= value)) / 2
        return stats.norm.ppf(np.clip(share, finest, 1 - finest))

    shift, spread = 2 * z_below(estimate) * unbias, np.sqrt(np.mean(patients / (patients - 1)))
    t = stats.t(np.sum(patients - 1))
    reach = spread * t.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(known, stats.norm.cdf(shift + reach), method="weibull")
    p = max(2 * t.sf(abs(z_below(0) - shift) / spread), 2 * finest)
    return found | {"low": low, "high": high, "se": known.std(ddof=1), "p": p}


def by_part(predictions, part: str, confidence: float = 0.95, **options) -> pd.DataFrame:
    """AUC and AP with their intervals, of each model in each part of the predictions.

    `part` is a column; each of its values gets a `bootstrap` of its own, with its `options`; with
    `thresholds` the metrics at these are told, too.
    Returns `intervals`, followed by that column and the part's ``prevalence``.
    """
    tables = []
    for value, rows in predictions.groupby(part, sort=False):
        table = intervals(bootstrap(rows, **options), confidence)
        table = table[~table["metric"].isin(("score", "brier"))]
        tables.append(table.assign(**{part: value, "prevalence": rows["label"].mean()}))
    return pd.concat(tables, ignore_index=True)


def intervals(boot: Bootstrap, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over rotations of every metric of every model: ``model, metric, rotations``, then as in
    `interval`.

    Where all draws are alike they can't tell how far a value may be off. A proportion of 0 or 1
    then has the exact limits of its patients (Clopper and Pearson, Biometrika 1934;26:404–413),
    all of whom are on one side; what is no proportion has none (NaN).
    """
    rows, names = [], [name for name in boot.estimate if name != "pairs"]
    for (model, runs), name in product(boot.runs.groupby("model", sort=False), names):
        values = boot.estimate[name][runs.index].mean(), boot.draws[name][runs.index].mean(axis=0)
        row = {"model": model, "metric": name, "rotations": len(runs)}
        row |= interval(*values, runs["patients"], confidence)
        if row["se"] == 0:
            row |= {"low": np.nan, "high": np.nan}
            if name in runs and row["estimate"] in (0, 1):
                n = runs[name].sum()
                limits = proportion_confint(row["estimate"] * n, n, 1 - confidence, "beta")
                row |= dict(zip(("low", "high"), limits, strict=True))
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="p")


def patient_intervals(values, patients, per=1.0, draws=2000, confidence=0.95, seed=42):
    """Sum of each column of `values` over that of `per`, by default the mean over ECGs: a data
    frame with ``mean, low, high``, percentile intervals from drawing patients with replacement.
    """
    sums = values.assign(ecgs=per).groupby(np.asarray(patients)).sum().to_numpy()
    weights = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=draws
    )
    drawn = weights @ sums
    edges = [0.5 - confidence / 2, 0.5 + confidence / 2]
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], edges, axis=0)
    mean = sums[:, :-1].sum(axis=0) / sums[:, -1].sum()
    return pd.DataFrame({"mean": mean, "low": low, "high": high}, index=values.columns)


def at_points(run: pd.DataFrame, points: dict, confidence: float = 0.95, **options) -> pd.DataFrame:
    """Intervals of one run's metrics at each of `points`, name → threshold: ``point``, then as
    `intervals`; a point that is None is left out.

    They are conditional on the trained model and the threshold; `options` are those of `bootstrap`.
    """
    keys = run.groupby(BY_RUN).groups
    found = {
        name: intervals(
            bootstrap(run, thresholds=dict.fromkeys(keys, point), **options), confidence
        )
        for name, point in points.items()
        if point is not None
    }
    return pd.concat(found, names=["point"]).reset_index("point")
