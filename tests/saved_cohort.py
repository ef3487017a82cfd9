"""A cohort's folder of ready beats and records, and a run's as a notebook leaves it."""

from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.cohort.contract import Cohort, check, describe_build, load_cohort
from ecglib.cohort.source import Source
from ecglib.folders import sha256, write_json


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


def made_up_cohort(folder: Path, n: int = 160) -> Cohort:
    """Noise with a QRS-like spike; label 1 adds a raised ST segment in three leads."""
    rng = np.random.default_rng(0)
    label = (np.arange(n) % 4 == 0).astype(int)
    beats = rng.normal(0, 60, (n, 12, 600))
    beats[:, :, 295:306] += 900
    beats[label == 1, 6:9, 330:400] += 350
    table = {"record_id": [f"r{i}" for i in range(n)], "patient_id": [f"p{i}" for i in range(n)]}
    records = pd.DataFrame(table).assign(site="here", age=60.0, sex="female", label=label)
    records = records.assign(poor_quality=False, quality_reasons="")
    info = {"name": "made up", "version": "1", "label_kind": "synthetic"}
    info["label_meaning"] = "a wave made up for a test"
    return save_cohort(folder, np.rint(beats), records, info)


def finished(folder, told, facts):
    """Leave a run's folder as notebook 05 does."""
    (folder / "checkpoint.pt").unlink()
    (folder / "tables").mkdir()
    (folder / "tables" / "performance.csv").write_text("split,auc\ntest,0.9\n")
    files = {str(f.relative_to(folder)): sha256(f) for f in folder.rglob("*") if f.is_file()}
    write_json(folder / "run.json", facts | {"identity": told, "files": files})
