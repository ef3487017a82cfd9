"""The whole study on a made-up ACS-ECG, and the table for the hidden test."""

import json
import resource
import time
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import yaml
from study_home import Home

from ecglib import metrics, trainer
from ecglib.analysis import criteria, inference, subgroups, tables
from ecglib.cohort import acs_ecg, contract
from ecglib.cohort.build import build_cohort
from ecglib.cohort.made_up import write
from ecglib.folders import sha256, write_json
from ecglib.folds import build_folds, rotate
from ecglib.study import apply, data, learned, places, training
from ecglib.study.params import load_study
from ecglib.study.runs import display_names, load_runs
from ecglib.trees import forest


def shipped(name):
    return yaml.safe_load((places.CODE / "params" / f"{name}.yaml").read_text())


def hidden():
    """The shipped study of the ECGs without labels, of a made-up folder."""
    told = shipped("acs_ecg_hidden")
    return told | {"cohort": told["cohort"] | {"made_up": True}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """240 made-up records in a project of their own: cohort, folds, a run of each model, and what
    they say about the ECGs without labels, one of which holds nothing.
    """
    home = tmp_path_factory.mktemp("project")
    table = write(home / "made", 240, 0.25)
    told = table[table.part == "test"]
    lost = told.ecg_row_record.iloc[0]
    archive = ZipFile(home / "made" / "ECG_row_data.zip", "a")
    with archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"row_data/{lost}", bytes(120_000))
    (home / "params").mkdir()
    for name, content in (("own", shipped("acs_ecg_made_up")), ("hidden", hidden())):
        (home / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content | {"name": name}))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("params", "outputs", "data"):
            patch.setattr(places, name.upper(), home / name)
        patch.setattr(places, "ROOT", home)
        study = load_study("own")
        source = data.source_of(study, str(home / "made"))
        cohort = build_cohort(source, study.signal, home / "cohort")
        folds = build_folds(cohort.records, study.folds.count, study.seed)
        for model in study.models:
            write_run(study, model, cohort, folds)
        runs = apply.trained(study)
        new = apply.open_cohort("hidden", study, runs, str(home / "made"))
        answers, done = apply.predict(runs, new), load_runs(study)
    return SimpleNamespace(**locals())


def write_run(study, model, cohort, folds):
    """Train a model of the study, and keep it as notebooks 05 and 06 do."""
    folder = places.run_folder(study.name, model, 0)
    folder.mkdir(parents=True)
    train = trainer.train if model in study.networks else forest.train
    facts = train(training.run_identity(study, model, 0, cohort), cohort, folds, folder)
    learned.learned(cohort, facts["identity"], folder).tofile(folder / learned.FILE)
    files = {file.name: sha256(file) for file in folder.iterdir() if file.suffix != ".pt"}
    kind, meaning = study.cohort.means
    facts |= {"files": files, "label_kind": kind, "label_meaning": meaning}
    write_json(folder / "run.json", facts)


def on_the_test_fold(made):
    """Test predictions of all models, and the rows of the made-up table that they are about."""
    found = made.done.predictions.query("split == 'test'")
    rows = made.table.set_index("acs-" + made.table.ecg_row_record.str[:5])
    return found, rows.loc[found.record_id[found.model == "mayo_alvd"]]


OPTIONS = {"draws": 50, "seed": 1}


def test_what_each_trap_did_is_counted(made):
    train = made.table[made.table.part == "train"]
    planted = train.trap.value_counts()
    audit = contract.audit_table(made.cohort)
    assert audit.loc["listed", ["negative", "positive"]].tolist() == [
        (train.OMI == 0).sum(), (train.OMI == 1).sum(),
    ]  # fmt: skip
    assert made.source.counts["shorter than 10 s"]["ecgs"] == planted["short"] == 2
    assert audit.loc["bridged"].tolist() == [0, planted["lost"], 0] == [0, 3, 0]
    dead = audit.reindex(["rebuilt", "… missing"]).sum()
    assert dead.tolist() == [0, planted["constant"], 0] == [0, 2, 0]
    assert audit.filter(like="rejected", axis=0).to_numpy().sum() == 0
    assert made.cohort.info["counts"]["patients"] == train.Patient_id.nunique() < len(train)
    assert set(rotate(made.folds, 0)) == {"train", "validation", "test"}
    records = made.cohort.records.assign(fold=made.folds.fold)
    assert records.groupby("patient_id").fold.nunique().max() == 1


def test_every_model_stands_in_the_tables_with_its_own_figures(made):
    found, _ = on_the_test_fold(made)
    models = list(made.study.models)
    predictions, notes = inference.check_predictions(made.done.predictions, models, [0])
    assert not notes and len(models) == 6 and set(made.done.facts.label_kind) == {"synthetic"}
    names = display_names(made.study)
    table = tables.table_4(inference.per_rotation(predictions), names, (models, [0]), False)
    assert len(table) == 6
    for model, run in found.groupby("model"):
        auc = metrics.auc(run.label, run.probability)
        assert table.loc[names[model], ("This study", "Test AUC")] == f"{auc:.3f}"
    boosted = found[found.model == "gradient_boosting"]
    assert metrics.auc(boosted.label, boosted.probability) > 0.7, "simulated occlusions show"


def test_analyses_and_subgroups_keep_the_ecgs_that_the_table_names(made):
    found, rows = on_the_test_fold(made)
    records = made.cohort.records
    kept = subgroups.sensitivity(found, records, made.study.sensitivity, **OPTIONS)
    count = kept.drop_duplicates("analysis").set_index("analysis").records
    expected = {
        "main": len(rows),
        "within_12_h": (rows.Time_Interval <= 720).sum(),
        "within_24_h": (rows.Time_Interval <= 1440).sum(),
        "nstemi_only": ((rows.NSTEMI == 1) & (rows.STEMI == 0)).sum(),
        "without_pacing": (rows.Paced == 0).sum(),
        "without_earlier_pci": (rows.Prior_PCI == 0).sum(),
    }
    for name, number in expected.items():
        assert count[subgroups.ANALYSES[name]] == number > 0
    one = found[found.model == "mayo_alvd"]
    groups = subgroups.estimate(one, subgroups.groups_of(records), **OPTIONS)
    groups = groups.set_index(["group", "level"])
    for artery, segment in (("LAD", "PLAD"), ("RCA", "PRCA"), ("LCx", "PLCX")):
        ill = groups.positives.get(("Culprit, of positives", artery), 0)
        assert ill == ((rows.OMI == 1) & (rows[segment] == 1)).sum()
    late = groups.records["Hours to angiography", "72 and over"]
    assert late == (rows.Time_Interval >= 72 * 60).sum()
    ill = rows.Patient_id[rows.OMI == 1].nunique()
    assert ill < subgroups.FEWEST, "a fold of so few ECGs estimates nothing, and says so"
    assert kept.estimate.isna().all() and groups.estimate.isna().all()


def test_st_elevation_and_what_is_known_without_an_ecg_stand_beside(made):
    _, rows = on_the_test_fold(made)
    found = criteria.beside(made.cohort, made.folds, [0], 0.95, **OPTIONS)
    found = found.set_index(["model", "metric"]).estimate
    assert {*found.index.levels[0]} == {criteria.ST_ELEVATION, *criteria.PRIORS}
    rows = rows.assign(sex=rows.gender.map({0: "female", 1: "male"}))
    beats = made.cohort.beats[rotate(made.folds, 0)["test"]]
    met = criteria.meets_st_elevation(criteria.st_levels(beats), rows.age, rows.sex)
    assert found[criteria.ST_ELEVATION, "auc"] == pytest.approx(metrics.auc(rows.OMI, met))
    assert met[rows.STEMI == 1].mean() > met.mean()
    waited = metrics.auc(rows.OMI, np.exp(-rows.Time_Interval / 1000))
    assert found["hours to angiography alone", "auc"] == pytest.approx(waited, abs=0.15)


def test_the_table_for_the_hidden_test_holds_every_ecg(made, tmp_path):
    assert made.new.info["label_kind"] == "synthetic" and made.new.records.label.isna().all()
    known = made.answers[made.answers.label.notna()].astype({"label": int})
    points = inference.thresholds_of(known)
    new = made.answers.query("split == 'new' and rotation < 0").set_index("record_id")
    for model, part in new.groupby("model"):
        sent = acs_ecg.submission(made.new, part.probability, points[model, -1])
        sent.to_csv(tmp_path / "sent.csv")
        sent = pd.read_csv(tmp_path / "sent.csv", dtype={"OMI": int})
        assert sent.columns.tolist() == ["ecg_row_record", "ecg_med_record", "OMI"]
        assert sent.ecg_row_record.tolist() == sorted(made.told.ecg_row_record)
        assert len(sent) == len(part) + 1
        omi = sent.set_index("ecg_row_record").OMI
        validation = known[(known.model == model) & (known.split == "validation")]
        validation = validation[validation.rotation == 0]
        point = metrics.operating_point(validation.label, validation.probability)
        file = part.index.str.removeprefix("acs-") + ".dat"
        np.testing.assert_array_equal(omi[file], part.probability >= point)
        assert omi[made.lost] == 0


def captions(notebook):
    """Captions of the tables and figures that an executed notebook shows."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", ()):
            table = "".join(output.get("data", {}).get("text/html", ""))
            if "<caption" in table:
                yield table.partition("<caption")[2].partition("</caption>")[0]
            if caption := output.get("metadata", {}).get("caption"):
                yield caption


@pytest.mark.slow
def test_the_engine_runs_it_all_on_2000_records_and_each_page_says_synthetic(tmp_path):
    home = Home(tmp_path / "home", shipped("acs_ecg_made_up"))
    (home.folder / "params" / "acs_ecg_hidden.yaml").write_text(yaml.safe_dump(hidden()))
    table, data_dir = write(home.folder / "made", 2000, 0.0641), str(home.folder / "made")
    begun = time.perf_counter()
    done = home.run("run", options=["--data-dir", data_dir])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    ran = time.perf_counter() - begun
    given = ["--set", "cohort=params/acs_ecg_hidden.yaml", "--set", f"data_dir={data_dir}"]
    done = home.run("notebook", options=["12_apply", *given])
    assert done.returncode == 0, done.stderr[-6000:]
    applied = time.perf_counter() - begun - ran
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"study {ran:.0f} s, notebook 12 {applied:.0f} s, largest process {largest:.0f} MB")

    steps = load_study(home.name).steps
    told = {file.parent: json.loads(file.read_text()) for file in home.outputs.rglob("run.json")}
    assert {folder.name for folder in told} >= {*steps, "rotation_0", "12_apply"}
    del told[home.outputs / "03_models"]  # networks: no ECG is shown there
    assert {facts["label_kind"] for facts in told.values()} == {"synthetic"}
    for folder in told:
        said = list(captions(folder / "notebook.ipynb"))
        unsaid = [caption for caption in said if "synthetic" not in caption]
        # the one that shows no ECG
        assert said and all("Directions of the leads" in caption for caption in unsaid)
    for model in home.study["models"]:
        sent = pd.read_csv(home.outputs / "12_apply" / "tables" / f"hidden_test_{model}.csv")
        assert len(sent) == (table.part == "test").sum() and sent.OMI.isin([0, 1]).all()
