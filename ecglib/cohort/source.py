"""Where ECGs come from: each module turns one kind of origin into a `Source`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ecglib.errors import Refusal


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
        used. With `beats`, signal is ``(12, 600)`` and is taken as a median beat; a third value may
        give columns of its quality.
    counts : dict
        What selection did: named counts of ECGs and patients, in order.
    rejected : pandas.DataFrame
        ``record_id, reason`` of what was listed but can't be used.
    beats : bool
        True if `read` returns median beats.
    attribution : str
        Citation and licence of the data.
    duplicates : {'keep', 'set_apart'}
        What becomes of ECGs whose beat is also another patient's.
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
    attribution: str = ""
    duplicates: str = "set_apart"

    def finest(self, rows: pd.DataFrame):
        """Return the first of some of its `records` that also lies at a higher rate than the
        cohort's, as ``(row, signal, rate)``; without one, the first of them as it is.
        """
        native = getattr(self.read, "native", lambda row: None)
        for row in rows.itertuples():
            if found := native(row):
                return row, *found
        row = next(rows.itertuples())
        return row, *self.read(row)


def count(records: pd.DataFrame) -> dict[str, int]:
    """Count ECGs and patients, and the positive ones; one positive ECG makes a patient positive."""
    counts = {}
    for which, part in (("", records), ("positive_", records[records.label == 1])):
        counts[f"{which}ecgs"] = len(part)
        counts[f"{which}patients"] = part.patient_id.nunique()
    return counts


class ReadError(Refusal, ValueError):
    """One recording that can't be used; the message names the file and the reason."""


class SourceError(Refusal, ValueError):
    """A source that can't be used at all; the message says what is wrong and what to do."""
