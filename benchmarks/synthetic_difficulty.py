"""How hard the simulated cohort is: ST elevation by the Fourth Universal Definition, and simple
models on its beats.

    python -m benchmarks.synthetic_difficulty --records 10893
    python -m benchmarks.synthetic_difficulty --records 1500 --subtle 0.2 --prevalence 0.2

J and T are taken where the simulation put them. The models are cross-validated with patients kept
together.
"""

import argparse
from contextlib import suppress
from functools import partial
from multiprocessing import get_context

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecglib.analysis.criteria import meets_st_elevation
from ecglib.beat import BEAT_SAMPLES, LEADS, R_SAMPLE
from ecglib.cohort.build import open_source
from ecglib.cohort.synthetic import read, true_beat
from ecglib.settings import Signal, SyntheticCohort
from ecglib.signal import SignalError, process


def beats_of(records, seed, processed):
    """Return the median beat of each record, or its beat without noise; NaN if it can't be used."""
    beats = np.full((len(records), len(LEADS), BEAT_SAMPLES), np.nan, np.float32)
    for i, row in enumerate(records.itertuples(index=False)):
        with suppress(SignalError):
            beats[i] = (
                process(*read(row, seed), Signal()).beat if processed else true_beat(row, seed)
            )
    return beats


def level(beats, ms):
    """Potential at a time in ms after R of each beat, shape (n, 12)."""
    at = np.clip(R_SAMPLE + np.round(np.asarray(ms) / 2).astype(int), 0, beats.shape[2] - 1)
    return beats[np.arange(len(beats)), :, at]


def report(name, model, x, records):
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    p = cross_val_predict(
        model, x, records.label, groups=records.patient_id, cv=folds, method="predict_proba"
    )[:, 1]
    print(
        f"{name:58s} AUC {roc_auc_score(records.label, p):.3f}  AP "
        f"{average_precision_score(records.label, p):.3f}"
    )
    return p


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10893)
    parser.add_argument(
        "--subtle", type=float, default=SyntheticCohort.model_fields["subtle"].default
    )
    parser.add_argument("--prevalence", type=float)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--true", action="store_true", help="beats without noise instead of processed recordings"
    )
    parser.add_argument("--workers", type=int, default=2)
    a = parser.parse_args()
    settings = SyntheticCohort(
        source="synthetic", records=a.records, subtle=a.subtle, prevalence=a.prevalence
    )
    records = open_source(settings, a.seed).records
    with get_context("fork").Pool(a.workers) as pool:
        parts = [records[i : i + 200] for i in range(0, len(records), 200)]
        beats = np.concatenate(
            pool.map(partial(beats_of, seed=a.seed, processed=not a.true), parts, chunksize=1)
        )
    usable = ~np.isnan(beats[:, 0, 0])
    beats, records = beats[usable], records[usable].reset_index(drop=True)
    ill = records.label == 1
    print(
        f"{'beats without noise' if a.true else 'processed recordings'}, {(~usable).sum()} not "
        "usable"
    )
    for name, part in (("all", records), ("OMI", records[ill])):
        print(f"{name}: {len(part)} ECGs of {part.patient_id.nunique()} patients")

    st = level(beats, records.qrs_off) - level(beats, records.qrs_on)
    meets = meets_st_elevation(st, records.age, records.sex)
    told = ~(
        records.mimic.isin(["LVH with strain", "LBBB", "RBBB"])
        | (records.rhythm == "ventricular pacing")
    )
    for name, positive in (
        ("all ECGs", meets),
        ("never with LVH, bundle-branch block or pacing", meets & told),
    ):
        print(
            f"ST elevation, {name}: sensitivity {positive[ill].mean():.1%}, specificity "
            f"{1 - positive[~ill].mean():.1%}"
        )
    if len(records) >= 1000:
        share = records[["culprit", "subtle", "mimic"]].assign(meets=meets)
        print(share.groupby(["culprit", "subtle"]).meets.mean().round(2).to_dict())
        print(share[~ill].groupby("mimic").meets.mean().round(2).to_dict())

    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    j = records.qrs_off
    amplitudes = np.hstack([level(beats, t) for t in (j, j + 40, j + 80, records.t_peak)])
    report("logistic regression, ST (J, J+40, J+80 ms) and T in µV", linear, amplitudes, records)
    z = beats[:, :, 150:550]
    z = (z - z.mean(2, keepdims=True)) / np.maximum(z.std(2, keepdims=True), 1e-6)
    z = z[:, :, ::8].reshape(len(z), -1)
    report(
        "logistic regression, every 8th sample of the z-scored beat",
        linear.set_params(logisticregression__C=0.003),
        z,
        records,
    )
    p = report(
        "gradient boosting, the same",
        HistGradientBoostingClassifier(max_iter=80, max_bins=63, random_state=0),
        z,
        records,
    )
    for name, part in (("subtle", records.subtle), ("plain", ill & ~records.subtle)):
        if part.any():
            print(
                f"  of it, {name} OMI against all negatives: AUC "
                f"{roc_auc_score(part[part | ~ill], p[part | ~ill]):.3f}"
            )


if __name__ == "__main__":
    main()
