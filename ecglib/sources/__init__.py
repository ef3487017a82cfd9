"""Where ECGs come from: each module turns one kind of origin into a `Source`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass
class Source:
    """Recordings to be turned into a cohort, and what is known about them.

    Attributes
    ----------
    name, version : str
        Origin of the recordings, for example ``ptbxl`` and ``1.0.1``.
    label_kind : {'angiographic', 'proxy', 'synthetic'}
        What may be said about a label; every table and figure names it.
    label_meaning : str
        What a label of 1 means, in words.
    records : pandas.DataFrame
        One row per ECG: ``record_id`` (str), ``patient_id`` (str), ``site`` (str), ``age`` (float,
        years, NaN where unknown), ``sex`` ('female', 'male' or NA), ``label`` (0 or 1), then
        columns of the source's own.
    read : callable
        ``read(row) -> (signal, rate)`` with a row of `records` as a namedtuple; signal is float32
        ``(12, samples)`` in µV in the order of `ecglib.LEADS`, a missing lead all NaN, and rate in
        Hz. It can be pickled, and raises `ReadError` with one sentence when that recording can't be
        used. An attribute `rate` of it, if any, is that of the files where `read` brings them to
        another. With `beats`, signal is ``(12, 600)`` and is taken as a median beat.
    counts : dict
        What selection did: named counts of ECGs and patients, in order.
    rejected : pandas.DataFrame
        ``record_id, reason`` of what was listed but can't be used.
    beats : bool
        True if `read` returns median beats.
    duplicates : {'set_apart', 'keep'}
        What becomes of ECGs whose beat is also another patient's.
    attribution : str
        Citation and licence of the data.
    """

    name: str
    version: str
    label_kind: str
    label_meaning: str
    records: pd.DataFrame
    read: Callable[[tuple], tuple[np.ndarray, float]]
    counts: dict = field(default_factory=dict)
    rejected: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"record_id": [], "reason": []}, dtype=str)
    )
    beats: bool = False
    duplicates: str = "set_apart"
    attribution: str = ""


def count(records: pd.DataFrame) -> dict[str, int]:
    """Count ECGs and patients, and the positive ones of each; a patient is positive if any of their
    ECGs is.
    """
    positive = records[records.label == 1]
    counts = {
        "ecgs": len(records),
        "patients": records.patient_id.nunique(),
        "positive_ecgs": len(positive),
    }
    return counts | {"positive_patients": positive.patient_id.nunique()}


class ReadError(ValueError):
    """One recording that can't be used; the message is one sentence naming the file and the
    reason.
    """


class SourceError(ValueError):
    """A source that can't be used at all; the message is one sentence saying what is wrong and what
    to do.
    """


def open_source(settings, seed: int, data_dir: str | Path | None = None) -> Source:
    """Open the source that a study's ``cohort`` section names.

    Parameters
    ----------
    settings : ecglib.params.SyntheticCohort, PtbxlCohort or FilesCohort
    seed : int
        The study's seed; fixes simulated records and drawn negatives.
    data_dir : path, optional
        Where the data lie already, in the layout of their public source.
    """
    if settings.source == "synthetic":
        from ecglib.sources import synthetic as module
    elif settings.source == "ptbxl":
        from ecglib.sources import ptbxl as module
    else:
        from ecglib.sources import files as module
    source = module.open_source(settings, seed, data_dir)
    source.duplicates = getattr(settings, "duplicates", source.duplicates)
    return source
