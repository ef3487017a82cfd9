"""Notebooks on cohorts other than the smoke study's."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from study_home import TINY, Home


@pytest.mark.slow
def test_ready_median_beats_are_explored_without_their_recordings(tmp_path):
    one, two, *chest = 2 * np.random.default_rng(0).integers(-200, 200, (8, 60, 600))
    limbs = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    rows = {"record_id": [f"r{i}" for i in range(60)], "patient_id": [f"p{i}" for i in range(60)]}
    files = {"folder": "beats.npy", "table": "table.csv", "beats_unit": "uV"}
    label = {"label_kind": "synthetic", "label_meaning": "made up for a test"}
    cohort = {"source": "files", "name": "made_up", **files, **label}
    home = Home(tmp_path / "home", TINY | {"cohort": cohort})
    np.save(home.folder / "beats.npy", np.stack([*limbs, *chest], axis=1).astype(np.int16))
    pd.DataFrame(rows | {"label": [0, 1] * 30}).to_csv(home.folder / "table.csv", index=False)
    for name in ("00_cohort", "01_data_exploration"):
        words = [sys.executable, "-m", "ecglib.study.notebook", name, "--study", "tiny"]
        done = subprocess.run(words, env=home.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    drawn = {file.stem for file in home.outputs.glob("01_data_exploration/figures/*.png")}
    assert drawn == {"fig_1_waves", "fig_2_leads", "fig_4b_median_beat", "mean_beats"}
