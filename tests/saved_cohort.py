"""Ready beats and records as a cohort's folder, without a source that they are built from."""

from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.cohort.contract import Cohort, check, describe_build, load_cohort
from ecglib.cohort.source import Source
from ecglib.folders import write_json


def save_cohort(folder: Path, beats: np.ndarray, records: pd.DataFrame, info: dict) -> Cohort:
    """Write them; `info` gives name, version, label_kind and label_meaning. What breaks the
    contract is refused.
    """
    beats = np.rint(beats).astype(np.int16)
    check(records, beats, folder)
    folder.mkdir(parents=True)
    np.save(folder / "beats.npy", beats)
    records.to_parquet(folder / "records.parquet", index=False)
    source = Source(records=records, read=None, **info)
    write_json(folder / "cohort.json", describe_build(source, folder, records, source.rejected, {}))
    return load_cohort(folder)
