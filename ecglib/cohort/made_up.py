"""A made-up ACS-ECG: simulated ECGs in the layout of the published files, with all their traps.

For a dry run before the real download, and for tests. Hearts and recordings are those of
`ecglib.cohort.synthetic`. Nothing found in it says anything about people.
"""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
from tqdm import tqdm

from ecglib.beat import LEADS
from ecglib.cohort import acs_ecg, synthetic
from ecglib.cohort.source import SourceError
from ecglib.settings import SyntheticCohort

SEED = 42
SHARES = {"UA": 0.35, "CTO": 0.05, "PCI": 0.25, "Prior_PCI": 0.07, "VF_VT": 0.05}
CULPRIT = {"LAD": "PLAD", "RCA": "PRCA", "LCx": "PLCX"}
SHORT, LOST, CONSTANT = 2, 3, 52 / 19955  # ECGs of 7 s, without a sample; share with a dead lead
FIRST = 100  # sample of a simulated beat with which a released one begins: its R lies at 200
TOLD = "Simulated by ecglib in the layout of ACS-ECG: no patients, all labels are synthetic.\n"


def write(folder: Path, records: int, positives: float) -> pd.DataFrame:
    """Write ``CSV.zip``, ``ECG_row_data.zip`` and ``ECG_median_data.zip`` into a new folder.

    A tenth of the ECGs, of other patients, comes without labels in ``test.csv``. Traps as in the
    published files: headers that lie, recordings of 7 s, missing samples, constant leads, a byte
    order mark, names with zeros, patients with several ECGs.

    Parameters
    ----------
    folder : Path
        `SourceError` if it exists.
    records : int
        ECGs, at least 60.
    positives : float
        Share of them with OMI.

    Returns
    -------
    pandas.DataFrame
        One row per ECG: the columns of ``train.csv``, ``part``, and ``trap``.
    """
    if folder.exists():
        raise SourceError(f"{folder} already exists; name a new folder")
    settings = SyntheticCohort(source="synthetic", records=records, prevalence=positives)
    rng = np.random.default_rng(SEED)
    hearts = synthetic.draw_cohort(settings, rng)
    hearts["disturbance"] = hearts.disturbance.replace("lead missing", "none")  # planted instead
    table = _table(hearts, rng)
    folder.mkdir(parents=True)
    (folder / acs_ecg.MADE_UP).write_text(TOLD)
    zips = [folder / f"{name}.zip" for name in acs_ecg.ZIPS]
    tables, raw, medians = (ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) for file in zips)
    with tables, raw, medians:
        more = [*acs_ecg.OUTCOMES, *acs_ecg.SEGMENTS]
        for part, rows in table.groupby("part"):
            columns = acs_ecg.COLUMNS + more * (part == "train")
            text = rows[columns].to_csv(index=False)
            tables.writestr(f"CSV/{part}.csv", text.encode("utf-8-sig"))
        for row, name, trap in zip(
            tqdm(hearts.itertuples(), total=records), table.ecg_row_record, table.trap, strict=True
        ):
            samples, name = _units(synthetic.read(row, SEED)[0]), name[:5]
            if trap == "lost":
                samples[1000, 7] = acs_ecg.MISSING
            elif trap == "constant":
                samples[:, rng.integers(12)] = 0
            lines = [f"{name} 12 500 5000"]
            for lead, x in zip(LEADS, samples.T, strict=True):  # untrue, as in the published files
                lines.append(f"{name}.dat 16 1000(0)/mV 16 0 {x.max()} {x.min()} 0 {lead}")
            raw.writestr(f"row_data/{name}.hea", "\n".join(lines))
            length = 3500 if trap == "short" else 5000
            raw.writestr(f"row_data/{name}.dat", samples[:length].tobytes())
            beat = _units(synthetic.true_beat(row, SEED)[:, FIRST:])
            medians.writestr(f"med_data/{name}.med", beat.tobytes())
    return table


def _units(signal: np.ndarray) -> np.ndarray:
    """µV ``(12, samples)`` as the recorder writes them: int16 ``(samples, 12)`` in steps of 2."""
    return (2 * np.rint(signal.T / 2)).clip(-32766, 32766).astype("<i2", order="C")


def _table(hearts: pd.DataFrame, rng) -> pd.DataFrame:
    """Return the table of all ECGs, with ``part`` and ``trap``."""
    n, ill = len(hearts), hearts.label == 1
    name = pd.Series(rng.permutation(n) + 1).astype(str).str.zfill(5)
    median = np.where(ill, 474, 1664)  # minutes, as published
    minutes = np.clip(median * np.exp(1.2 * rng.standard_normal(n)), 1, 10079)
    table = pd.DataFrame({
        "Patient_id": hearts.patient_id.str.replace("P0", "P"),
        "ecg_row_record": name + ".dat",
        "ecg_med_record": name + ".med",
        "gender": hearts.sex == "male",
        "age": hearts.age,
        "Time_Interval": minutes,
        "OMI": ill,
        "STEMI": ill & ~hearts.subtle,
        "NSTEMI": (ill & hearts.subtle) | (~ill & (rng.random(n) < 0.05)),
        "Paced": hearts.rhythm == "ventricular pacing",
    })  # fmt: skip
    table["AMI"] = table.STEMI | table.NSTEMI
    for outcome, share in SHARES.items():
        table[outcome] = rng.random(n) < share
    for segment in acs_ecg.SEGMENTS:
        table[segment] = hearts.culprit.map(CULPRIT) == segment
    table[table.columns[3:]] = table[table.columns[3:]].astype(int)
    hidden = table.Patient_id.isin(table.Patient_id[-(n // 10) :])
    table["part"] = np.where(hidden, "test", "train")
    traps = ["short"] * SHORT + ["lost"] * LOST + ["constant"] * max(2, round(CONSTANT * n))
    where = rng.choice(table.index[~hidden & ~ill], len(traps), replace=False)
    return table.assign(trap=pd.Series(traps, where)).fillna({"trap": ""})
