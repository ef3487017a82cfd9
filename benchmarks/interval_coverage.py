"""Do the intervals cover, and do the tests hold their level? Simulated studies whose truth is
known.

Each study draws patients of the paper's numbers, with several ECGs each and correlated within a
patient, deals them into ten folds stratified by patient, and scores them with two models whose
trained networks (one a rotation) differ in skill. Scores of positives and negatives are normal, so
the population's AUC and average precision of each network have a closed form (an integral for the
latter). The truth that an interval must cover is the mean over rotations of these values:
performance of the trained networks on all patients there could be. The two models hold the same
skills in another order of rotations, so they are equally good, and a paired test at 5 % should
reject in 5 % of studies.

    python -m benchmarks.interval_coverage --studies 1000 --draws 400
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit
from tqdm import tqdm

from ecglib import folds, metrics
from ecglib.analysis import comparison, inference

SIZES = np.arange(1, 6)  # ECGs of a patient
# by whether the patient is ill
SHARES = {0: (0.70, 0.21, 0.06, 0.02, 0.01), 1: (0.45, 0.28, 0.15, 0.08, 0.04)}
ILL, SHOWN = 0.065, 0.85  # share of ill patients; share of their ECGs that are positive
CLUSTER, SHARED = 0.4, 0.5  # correlation of a patient's ECGs; of the two models on one ECG


def prevalence() -> float:
    ecgs = {ill: SIZES @ np.array(share) for ill, share in SHARES.items()}
    return ILL * ecgs[1] * SHOWN / (ILL * ecgs[1] + (1 - ILL) * ecgs[0])


def truth(skill: float) -> tuple[float, float]:
    """AUC and average precision of scores N(skill, 1) of positives and N(0, 1) of negatives."""
    score, rate = np.linspace(-8, 12, 20_001), prevalence()
    called = rate * stats.norm.sf(score - skill), (1 - rate) * stats.norm.sf(score)
    precision = called[0] / (called[0] + called[1])
    return stats.norm.cdf(skill / np.sqrt(2)), np.trapezoid(
        stats.norm.pdf(score - skill) * precision, score
    )


def study(generator, patients: int, count: int, rotations: int, skills: dict) -> pd.DataFrame:
    """Predictions on the test folds of one simulated study."""
    ill = generator.random(patients) < ILL
    size = np.where(ill, *(generator.choice(SIZES, patients, p=SHARES[kind]) for kind in (1, 0)))
    patient = np.repeat(np.arange(patients), size)
    label = (ill[patient] & (generator.random(patient.size) < SHOWN)).astype(int)
    records = pd.DataFrame(
        {"record_id": np.arange(patient.size), "patient_id": patient, "label": label}
    )
    fold = folds.build_folds(records, count, int(generator.integers(2**31)))["fold"].to_numpy()
    rotation = (fold - 1) % count  # a rotation tests on the fold after its own

    def noise():
        own = np.sqrt(1 - CLUSTER) * generator.normal(size=patient.size)
        return own + np.sqrt(CLUSTER) * generator.normal(size=patients)[patient]

    common, tested = noise(), rotation < rotations
    records = records.assign(split="test", rotation=rotation)
    tables = []
    for model, skill in skills.items():
        score = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * noise()
        score += label * skill[rotation % rotations]
        scale = 0.5 + rotation % 3  # each trained network has its own scale of probability
        tables.append(records.assign(model=model, probability=expit(scale * (score - 2)))[tested])
    return pd.concat(tables, ignore_index=True)


def simulate(studies: int, draws: int, patients: int, count: int, rotations: int, seed: int = 1):
    """Yield truth and bootstrap of each study, and its predictions."""
    generator = np.random.default_rng(seed)
    skill = np.linspace(1.4, 2.0, rotations)
    skills = {"A": skill, "B": np.roll(skill, rotations // 2)}
    area, precision = np.mean([truth(value) for value in skill], axis=0)
    true = {"auc": area, "average_precision": precision, "score": metrics.combine(area, precision)}
    for number in tqdm(range(studies), desc="studies", mininterval=10):
        predictions = study(generator, patients, count, rotations, skills)
        yield true, inference.bootstrap(predictions, draws, seed=number), predictions


def judge(
    studies: int, draws: int, patients: int, count: int, rotations: int, seed: int
) -> tuple[pd.DataFrame, ...]:
    """Coverage of the 95 % intervals, and how often tests reject at 5 % where both models are
    equally good.
    """
    covered, rejected = [], []
    for true, boot, predictions in simulate(studies, draws, patients, count, rotations, seed):
        for row in inference.intervals(boot).query("metric in @true").itertuples():
            value = true[row.metric]
            found = {
                "metric": row.metric,
                "truth": value,
                "estimate": row.estimate,
                "width": row.high - row.low,
            }
            covered.append(
                found
                | {"below": value < row.low, "above": value > row.high, "undefined": row.undefined}
            )
        for row in comparison.differences(boot, count).itertuples():
            rejected.append(
                {
                    "metric": row.metric,
                    "test": "paired bootstrap over patients (primary)",
                    "p": row.p,
                }
            )
            rejected.append(
                {"metric": row.metric, "test": "corrected resampled t-test", "p": row.p_t}
            )
        p = comparison.delong_differences(predictions)["p"].iloc[0]
        rejected.append({"metric": "auc", "test": "DeLong, records as independent", "p": p})
    covered, rejected = pd.DataFrame(covered), pd.DataFrame(rejected).dropna()
    covered["covered"] = ~(covered["below"] | covered["above"])
    intervals = covered.groupby("metric", sort=False).mean()
    intervals["error"] = np.sqrt(intervals["covered"] * (1 - intervals["covered"]) / studies)
    tests = (
        rejected.assign(rejected=rejected["p"] < 0.05)
        .groupby(["test", "metric"], sort=False)["rejected"]
        .mean()
    )
    return intervals, tests.unstack()  # noqa: PD010


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--patients", type=int, default=7297, help="the paper's number")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument(
        "--rotations", type=int, default=10, help="3 shows a study that ran only a part"
    )
    parser.add_argument("--seed", type=int, default=2024)
    given = parser.parse_args()
    started = time.process_time()
    found = judge(
        given.studies, given.draws, given.patients, given.folds, given.rotations, given.seed
    )
    print(
        f"{given.studies} studies of {given.patients} patients, {given.rotations} rotations, "
        f"{given.draws} draws"
    )
    print(
        "\n95 % intervals (aim: 0.93–0.97; two models a study; error: of `covered`, for studies as "
        "independent)"
    )
    print(found[0].to_string(float_format="{:.4f}".format))
    print(
        "\nShare of studies in which p < 0.05, with two models equally good (aim of the primary "
        "test: 0.03–0.07)"
    )
    print(found[1].to_string(float_format="{:.3f}".format))
    print(f"\n{time.process_time() - started:.0f} s of CPU")


if __name__ == "__main__":
    main()
