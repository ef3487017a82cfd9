"""Patient-stratified folds and the rotations over them (paper, section II.B)."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

SPLITS = ("train", "validation", "test")


def build_folds(records: pd.DataFrame, count: int, seed: int, by: str = "patient") -> pd.DataFrame:
    """Deal patients into folds with the same share of positive patients.

    A patient is positive if any of their ECGs is: the paper's 6.5 % is a share of patients.

    Parameters
    ----------
    records : pandas.DataFrame
        ``record_id, patient_id, label``, and ``site`` if sites are to be left out.
    count : int
        Number of folds, at least 3.
    seed : int
    by : {'patient', 'site'}
        With 'site' one site is left out at a time and tested on: the folds are to validate on, and
        a patient belongs to the site of their first ECG.

    Returns
    -------
    pandas.DataFrame
        ``record_id, fold``, in the order of `records`; with sites also ``site``, from 0 for the one
        with the most patients, −1 where it is unknown.

    Raises
    ------
    ValueError
        If there are fewer positive (or negative) patients than folds.
    """
    if by == "site":
        home = records.groupby("patient_id").site.first()
        known = home[home != "unknown"].value_counts(sort=False).sort_index()
        known = known.sort_values(ascending=False, kind="stable")
        site = records.patient_id.map(home).map(
            dict(zip(known.index, range(len(known)), strict=True))
        )
        folds = build_folds(records, count, seed)
        return folds.assign(site=site.fillna(-1).astype(int).array)
    patients = records.groupby("patient_id", sort=True).label.max()
    fewest = patients.value_counts().reindex([0, 1], fill_value=0)
    if fewest.min() < count:
        kind = "positive" if fewest.idxmin() == 1 else "negative"
        raise ValueError(
            f"{count} folds need {count} {kind} patients, but there are {fewest.min()}; use fewer "
            "folds"
        )
    fold = pd.Series(-1, index=patients.index)
    dealer = StratifiedKFold(count, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(dealer.split(np.zeros(len(patients)), patients)):
        fold.iloc[held] = number
    return pd.DataFrame(
        {"record_id": records.record_id.array, "fold": records.patient_id.map(fold).array}
    )


def rotate(folds: pd.DataFrame, rotation: int) -> dict[str, np.ndarray]:
    """Positions of the records in each split: validate on fold k, test on fold k+1 (or site k),
    train on the rest.
    """
    count = int(folds.fold.max()) + 1
    validation = (folds.fold == rotation).to_numpy()
    test = (folds.fold == (rotation + 1) % count).to_numpy()
    if "site" in folds:
        test = (folds.site == rotation).to_numpy()
        validation &= ~test
        if not test.any():
            raise ValueError(
                f"Rotation {rotation} has no site: only {folds.site.max() + 1} can be left out"
            )
    return dict(
        zip(SPLITS, map(np.flatnonzero, (~(validation | test), validation, test)), strict=True)
    )


def twins(records: pd.DataFrame, beats: Iterable) -> pd.Series:
    """Find ECGs that are stored under several patients, by a hash of their beats ``(n, 12, 600)``,
    or of these as bytes.

    Returns
    -------
    pandas.Series
        In the order of `records`: the same number (from 0) for ECGs of one beat, where these belong
        to more than one patient; −1 for all others.
    """
    digests = [hashlib.sha256(beat).digest() for beat in beats]
    group = pd.Series(pd.factorize(np.array(digests, dtype=object))[0], index=records.index)
    patients = records.patient_id.groupby(group).transform("nunique")
    return group.where(patients > 1, -1).astype(int)


def receipt(
    records: pd.DataFrame, folds: pd.DataFrame, rotations, beats: np.ndarray | None = None
) -> pd.DataFrame:
    """Count each split, and the patients that two splits of a rotation share: all must be 0.

    With `beats`, ``(n, 12, 600)``, the beats that two splits share under different patients are
    counted, too (see `twins`), and must be 0.

    Returns
    -------
    pandas.DataFrame
        One row per rotation and split: ECGs, patients, positives, and patients shared with each
        other split; with `beats` also the shared beats.

    Raises
    ------
    AssertionError
        If a patient, or a beat, is in two splits of a rotation, or if a record is tested in two
        rotations.
    """
    rows, tested = [], np.zeros(len(records), int)
    same = {"patients": records.patient_id}
    same |= (
        {} if beats is None else {"beats": twins(records, beats).where(lambda group: group >= 0)}
    )
    for rotation in rotations:
        splits = rotate(folds, rotation)
        tested[splits["test"]] += 1
        for name, at in splits.items():
            part = records.iloc[at]
            row = {"rotation": rotation, "split": name, "ECGs": len(part)}
            row |= {"patients": part.patient_id.nunique(), "positive ECGs": int(part.label.sum())}
            row["positive patients"] = part.patient_id[part.label == 1].nunique()
            for other in SPLITS:
                for what, of in same.items():
                    here, there = (set(of.iloc[held].dropna()) for held in (at, splits[other]))
                    shared = len(here & there) if other != name else 0
                    assert not shared, f"rotation {rotation}: {name} and {other} share {what}"
                    row[f"{'' if what == 'patients' else 'beats '}shared with {other}"] = shared
            rows.append(row)
    assert tested.max() <= 1, "a record is in the test fold of two rotations"
    return pd.DataFrame(rows)


def predictions_table(records: pd.DataFrame, splits: dict, identity: dict, probabilities: dict):
    """Predictions in the contract's form.

    Parameters
    ----------
    records : pandas.DataFrame
        The cohort's.
    splits, probabilities : dict
        Positions in `records` and probabilities of label 1, for ``validation`` and ``test``.
    identity : dict
        The run's, with ``model`` and ``rotation``.

    Returns
    -------
    pandas.DataFrame
        ``record_id, patient_id, label, split, model, rotation, probability``.
    """
    told = {"model": identity["model"], "rotation": identity["rotation"]}
    parts = []
    for split, probability in probabilities.items():
        part = records.iloc[splits[split]][["record_id", "patient_id", "label"]]
        parts.append(part.assign(split=split, **told, probability=probability))
    return pd.concat(parts, ignore_index=True)
