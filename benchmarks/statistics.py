"""Time from predictions to all performance tables, curves, tests and intervals, at the paper's
size.

Simulated predictions of 10,893 ECGs, six models and ten rotations, each with a validation and a
test fold. The baseline in the same run is the plain way to bootstrap: scikit-learn's metrics on
every draw, timed on a few draws of one run (a model in a rotation) and scaled up.

    python -m benchmarks.statistics
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from ecglib import folds, metrics
from ecglib.analysis import comparison, inference, subgroups, tables, texts
from ecglib.plots import curves

MODELS = (
    "ecg_smart_net",
    "mayo_alvd",
    "temporal_resnet18",
    "resnet18",
    "random_forest",
    "gradient_boosting",
)


def simulate(patients: int, count: int, seed: int = 0) -> pd.DataFrame:
    """Predictions of a whole study: 1.49 ECGs a patient, 8.8 % of ECGs positive, as in the
    paper.
    """
    generator = np.random.default_rng(seed)
    patient = np.sort(
        np.concatenate(
            [np.arange(patients), generator.integers(patients, size=int(0.4928 * patients))]
        )
    )
    label = (
        (generator.random(patients) < 0.1)[patient] & (generator.random(patient.size) < 0.88)
    ).astype(int)
    records = pd.DataFrame(
        {"record_id": np.arange(patient.size), "patient_id": patient, "label": label}
    )
    fold = folds.build_folds(records, count, seed)
    tables = []
    for number, model in enumerate(MODELS):
        for rotation in range(count):
            splits = folds.rotate(fold, rotation)
            for split in ("validation", "test"):
                part = records.iloc[splits[split]].assign(
                    split=split, model=model, rotation=rotation
                )
                score = generator.normal((1.9 - 0.05 * number) * part["label"], 1)
                tables.append(part.assign(probability=expit(score - 1)))
    return pd.concat(tables, ignore_index=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--patients", type=int, default=7297)
    given = parser.parse_args()
    predictions = simulate(given.patients, 10)
    test = predictions[predictions["split"] == "test"]
    print(
        f"{test['record_id'].nunique():,} ECGs of {given.patients:,} patients, "
        f"{test['label'].mean():.1%} positive"
    )
    clock, used = [time.perf_counter()], [time.process_time()]
    print("elapsed      CPU")

    def lap(what):
        clock.append(time.perf_counter())
        used.append(time.process_time())
        print(f"{clock[-1] - clock[-2]:5.2f} s {used[-1] - used[-2]:6.2f} s  {what}", flush=True)

    predictions, _ = inference.check_predictions(predictions, MODELS, range(10))
    test = predictions[predictions["split"] == "test"]
    lap("checks")
    thresholds = inference.thresholds_of(predictions)
    lap("operating points of 60 runs")
    table = tables.table_4(inference.per_rotation(predictions), {})
    texts.styled(table, "Table 4").to_html()
    lap("metrics of 120 folds, Table 4")
    boot = inference.bootstrap(test, given.draws, thresholds=thresholds)
    lap(f"bootstrap, {given.draws:,} draws, ten metrics")
    tables.estimates(inference.intervals(boot))
    lap("intervals, as a table")
    tables.calibrations(test)
    lap("calibration of 60 runs")
    difference = comparison.differences(boot, 10)
    lap("paired tests, corrected t-tests, Holm")
    tables.paired_tests(difference, comparison.delong_differences(test))
    lap("DeLong, table of tests")
    inference.intervals(inference.bootstrap(test.assign(rotation="pooled"), given.draws))
    lap("pooled probabilities (secondary)")
    one = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 0)]
    points = metrics.operating_points(
        *one[one["split"] == "validation"][["label", "probability"]].to_numpy().T
    )
    bounds = inference.at_points(one[one["split"] == "test"], points, draws=given.draws)
    tables.operating_points(bounds, points)
    best = bounds[bounds["point"] == "highest_f1"]
    tables.table_5(one, thresholds[MODELS[0], 0], best)
    comparison.leads(boot, MODELS[0])
    lap("selected model: Table 5 and operating points with intervals")
    groups = pd.DataFrame({"record_id": test["record_id"].unique()}).set_index(
        "record_id", drop=False
    )
    groups = (groups % 3).rename(columns={"record_id": "third"}).astype("category")
    subgroups.estimate(test[test["model"] == MODELS[0]], groups, draws=given.draws)
    lap("three subgroups with intervals")
    curves.roc_pr(test)
    for _, part in test.groupby("model"):
        curves.roc_pr(part)
    lap("ROC and PR of all models, and of each with its rotations")
    for metric in inference.RANKING:
        curves.difference_matrix(difference, metric, metric, {})
    lap("difference matrices")
    print(
        f"{clock[-1] - clock[0]:5.2f} s {used[-1] - used[0]:6.2f} s  in all (aim: under 60 s "
        "elapsed)"
    )
    run = test[(test["model"] == MODELS[0]) & (test["rotation"] == 0)]
    label, probability = run["label"].to_numpy(), run["probability"].to_numpy()
    generator, started = np.random.default_rng(0), time.process_time()
    for _ in range(50):
        at = generator.integers(label.size, size=label.size)
        (
            roc_auc_score(label[at], probability[at]),
            average_precision_score(label[at], probability[at]),
        )
    plain = (time.process_time() - started) / 50 * given.draws * 60
    print(
        f"{plain:16.0f} s  baseline: AUC and AP alone by scikit-learn on every draw (scaled up "
        "from 50 of one run)"
    )


if __name__ == "__main__":
    main()
