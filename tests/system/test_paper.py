"""The paper's protocol, end to end, on a small cohort in a user's own files; only the number of
epochs differs.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
import yaml
from recordings import write_csv, write_wfdb
from study_home import Home

from ecglib.cohort.build import open_source
from ecglib.settings import SyntheticCohort
from ecglib.study import places

pytestmark = pytest.mark.slow


def write_cohort(folder):
    """Write simulated recordings as WFDB, and some as CSV, with the table that the README
    describes.
    """
    source = open_source(
        SyntheticCohort(source="synthetic", records=140, subtle=0.1, prevalence=0.3), seed=5
    )
    recordings = folder / "recordings"
    recordings.mkdir(parents=True)
    for number, row in enumerate(source.records.itertuples()):
        signal, rate = source.read(row)
        units = np.rint(np.nan_to_num(signal) / 5).astype(int)
        if number % 10:
            write_wfdb(recordings / row.record_id, units, int(rate))
        else:
            write_csv(recordings / f"{row.record_id}.csv", units, int(rate), unit="mV")
    columns = ["record_id", "patient_id", "site", "age", "sex", "label"]
    source.records[columns].to_csv(folder / "records.csv", index=False)
    return source.records


def test_the_papers_protocol_on_ones_own_files(tmp_path):
    study = yaml.safe_load((places.PARAMS / "paper.yaml").read_text())
    study["training"]["epochs"] = 1
    home = Home(tmp_path / "home", study)
    records = write_cohort(home.folder / "data" / "my_cohort")
    # Random weights, where torch keeps ImageNet's.
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    home.environment["TORCH_HOME"] = str(tmp_path / "torch")

    done = home.run(cores=2)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (
        "occlusion myocardial infarction by angiographically defined culprit lesion "
        "[angiographic label]" in done.stdout
    )

    cohort = json.loads((home.outputs / "00_cohort" / "run.json").read_text())
    assert cohort["label_kind"] == "angiographic"
    table = pd.read_csv(
        home.outputs / "07_comparison" / "tables" / "table_4.csv", header=[0, 1], index_col=0
    )
    wanted = [
        "ECG-SMART-NET",
        "Mayo Clinic ALVD model",
        "Temporal ResNet-18",
        "ResNet-18 (pretrained on ImageNet)",
    ]
    assert [*table.index.dropna()] == [*wanted, "Random Forest"]
    assert (table["This study"]["Rotations"].dropna().astype(int) == 10).all()
    tested = []
    for file in home.outputs.glob("runs/ecg_smart_net/rotation_*/predictions.parquet"):
        predictions = pd.read_parquet(file)
        tested += predictions[predictions.split == "test"].record_id.tolist()
    assert len(tested) == len(set(tested)) > 0.9 * len(records), "each ECG is tested once"
    card = next((home.outputs / "08_selected_model").glob("model_card.md")).read_text()
    assert "not a medical device" in card
