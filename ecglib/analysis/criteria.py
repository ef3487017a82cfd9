"""What a model has to beat: ST elevation by its definition, and what is known without an ECG."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from ecglib.analysis import inference
from ecglib.beat import LEADS
from ecglib.folds import rotate
from ecglib.signal import fiducials

CONTIGUOUS = "aVL-I II-aVF aVF-III II-III V1-V2 V2-V3 V3-V4 V4-V5 V5-V6"
CONTIGUOUS = [[LEADS.index(lead) for lead in pair.split("-")] for pair in CONTIGUOUS.split()]
RESULTS_OF_OTHERS = pd.read_csv(
    Path(__file__).with_name("acs_ecg_results.csv"), index_col=0, dtype=str
).fillna("–")
"""What others reported on ACS-ECG, and how far it compares with a study of its labelled ECGs."""
ST_ELEVATION = "ST elevation (4th Universal Definition)"
PRIORS = {
    "age and sex alone": ["age", "male"],
    "hours to angiography alone": ["hours"],
    "hours, age and sex alone": ["hours", "age", "male"],
}


def st_levels(beats: np.ndarray) -> np.ndarray:
    """Level at J against the onset of QRS in µV: ``(n, 12, 600)`` to ``(n, 12)``; 0 without QRS."""
    points, rows = fiducials.find(beats), np.arange(len(beats))
    on, j = (np.nan_to_num(points[name]).round().astype(int) for name in ("qrs_on", "qrs_off"))
    known = ((on > 0) & (j > 0))[:, None]
    return known * (beats[rows, :, j].astype(float) - beats[rows, :, on])


def meets_st_elevation(st: np.ndarray, age, sex) -> np.ndarray:
    """Whether levels ``(n, 12)`` at J in µV are elevated in two contiguous leads, bool ``(n,)``.

    Elevated is 100 µV, in V2 and V3 150 for women, 200 for men and 250 for those under 40
    (Thygesen et al., Fourth Universal Definition of Myocardial Infarction, 2018). It excepts left
    ventricular hypertrophy and left bundle-branch block, which aren't looked for here.
    """
    limit = np.full(st.shape, 100.0)
    of_men = np.where(age >= 40, 200, 250)
    limit[:, 7:9] = np.where(sex == "male", of_men, 150)[:, None]
    high = st >= limit
    return np.any([high[:, pair].all(axis=1) for pair in CONTIGUOUS], axis=0)


def beside(cohort, folds: pd.DataFrame, rotations, confidence: float, **options) -> pd.DataFrame:
    """Test AUC, AP and metrics at the operating point of `ST_ELEVATION`, and of boosting on
    `PRIORS`, fit on the training folds of each rotation.

    `options` are those of `ecglib.analysis.inference.bootstrap`; returns its `intervals`.
    """
    known, parts = cohort.records.assign(male=cohort.records["sex"] == "male"), []
    met = meets_st_elevation(st_levels(cohort.beats), known["age"], known["sex"])
    for rotation in rotations:
        where = rotate(folds, rotation)
        train, found = known.iloc[where["train"]], {ST_ELEVATION: met.astype(float)}
        for name, columns in PRIORS.items():
            if set(columns) <= set(known):
                model = HistGradientBoostingClassifier(max_depth=2, max_iter=50, random_state=0)
                model.fit(train[columns], train["label"])
                found[name] = model.predict_proba(known[columns])[:, 1]
        for (model, p), split in product(found.items(), ("validation", "test")):
            rows = known.assign(model=model, rotation=rotation, split=split, probability=p)
            parts.append(rows.iloc[where[split]])
    every = pd.concat(parts)
    points = inference.thresholds_of(every)
    points |= {key: 0.5 for key in points if key[0] == ST_ELEVATION}
    boot = inference.bootstrap(every[every["split"] == "test"], thresholds=points, **options)
    return inference.intervals(boot, confidence)
