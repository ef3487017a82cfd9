"""What a run learned from, as salted hashes beside it: no model is tested on ECGs that it knows.

Hashed are the patient and, each for itself, the leads II and V2 of a beat: on another CPU some of
its samples may differ by 1 µV, but hardly in both. It is the same beat only if it was made of the
same file by the same chain; another file of a recording is known by its patient alone.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.beat import LEADS
from ecglib.cohort.build import PROTOCOL
from ecglib.cohort.contract import Cohort, CohortError
from ecglib.study.data import cohort_of
from ecglib.study.networks import ExplainError

FILE = f"learned_from_{PROTOCOL}.bin"
"""Of beats of this protocol; no part of a run's identity, nor of the files that it vouches for."""
HASHED = [LEADS.index("II"), LEADS.index("V2")]


def digests(cohort: Cohort, identity: dict) -> np.ndarray:
    """Hashes of both leads and the patient of each ECG, uint64 ``(n, 3)``; the run's identity is
    the salt.

    Patients are those of one source. Two seeds of the simulator share ids, but no patients: there
    the beat stands in for the patient, and the patient for a lead that is flat.
    """
    salt, source, found = json.dumps(identity, sort_keys=True), cohort.info["source"], []
    for beat, patient in zip(cohort.beats, cohort.records.patient_id, strict=True):
        person = beat.tobytes() if source == "synthetic" else f"{source}/{patient}".encode()
        for told in (*(lead.tobytes() if lead.any() else person for lead in beat[HASHED]), person):
            found.append(hashlib.sha256(salt.encode() + told).digest()[:8])
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 3)


def learned(cohort: Cohort, identity: dict, folder: Path) -> np.ndarray:
    """Hashes of all that the run in `folder` learned from, in order of size.

    That is all of its cohort but the test fold: epoch and operating point were chosen on the
    validation fold.
    """
    tested = pd.read_parquet(folder / "predictions.parquet").query("split == 'test'").record_id
    return np.unique(digests(cohort, identity)[~cohort.records.record_id.isin(tested)])


def refuse_known(cohort: Cohort, run: dict, study) -> str:
    """Refuse ECGs that a run learned from, and others of the same patients.

    Parameters
    ----------
    cohort : ecglib.cohort.contract.Cohort
        To which the run is to be applied.
    run : dict
        Its ``run.json``, with its ``folder``.
    study : ecglib.study.params.Study
        The run's: where the run has no hashes, they are made from its cohort, if that is here.

    Returns
    -------
    str
        Sentence that says why it couldn't be checked; empty if it could.

    Raises
    ------
    ExplainError
        If the run knows one of them.
    """
    folder, identity = run["folder"], run["identity"]
    name = f"{identity['model']}, rotation {identity['rotation']}"
    try:
        if (folder / FILE).is_file():
            known = np.fromfile(folder / FILE, np.uint64)
        elif (own := cohort_of(study)).key[:16] == identity["cohort"][:16]:  # the same beats
            known = learned(own, identity, folder)
        else:
            raise CohortError
    except CohortError:
        return (
            f"{name}: it has no {FILE}, nor is its cohort here to tell whether it knows these ECGs."
        )
    same = np.isin(digests(cohort, identity), known)
    for how, which in (("ECGs", same[:, :2].any(axis=1)), ("patients", same[:, 2])):
        if which.any():
            raise ExplainError(
                f"{name} learned from {how} of this cohort ({which.sum()} of {len(which)} records, "
                f"{cohort.records.record_id[which].iloc[0]} first); leave them out"
            )
    return ""
