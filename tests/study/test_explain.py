"""One ECG explained: every format end to end, what a label allows to say, and bad input."""

import inspect
import json
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from recordings import recording, write_csv, write_philips, write_wfdb
from safetensors.torch import load_file, save_file

from ecglib import load_model, metrics
from ecglib.analysis import calibration
from ecglib.beat import LEADS
from ecglib.cohort import synthetic
from ecglib.cohort.build import build_cohort, open_source
from ecglib.dataset import BeatBank
from ecglib.errors import Refusal
from ecglib.folders import sha256
from ecglib.models import build_model
from ecglib.plots import explanation as pictures
from ecglib.settings import Signal, SyntheticCohort
from ecglib.study import explain, places
from ecglib.study.__main__ import main
from ecglib.study.notebook import run_notebook
from ecglib.study.params import StudyError
from ecglib.trainer import predict

MEANING = {
    "synthetic": "simulated occlusion",
    "proxy": "a statement on $100 of ECGs (proxy)",
    "angiographic": "OMI",
}


def make_run(folder, kind="synthetic", seed=0, model="mayo_alvd", half=False, **identity):
    """A trained network's folder as notebook 05 leaves it, with random weights that spread the
    scores.
    """
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = build_model(model)
    for name, tensor in network.state_dict().items():
        if name.endswith("fc3.weight"):
            tensor.mul_(8)
    state = {
        k: v.half() if half and v.is_floating_point() else v
        for k, v in network.state_dict().items()
    }
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
    rng = np.random.default_rng(seed)
    label = np.arange(200) % 5 == 0
    table = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(200)],
            "label": label.astype(int),
            "split": "validation",
        }
    )
    table["probability"] = 1 / (1 + np.exp(-rng.normal(2 * label, 1)))
    both = pd.concat([table, table.assign(split="test", probability=rng.random(200))])
    both.assign(patient_id=both.record_id, model=model, rotation=seed).to_parquet(
        folder / "predictions.parquet"
    )
    known = {"model": model, "network": model, "options": {}, "rotation": seed, "seed": 1}
    known |= {"training": {"normalisation": "lead_zscore", "precision": "fp32"}} | identity
    told = {"study": "elsewhere", "seed": 1, "identity": known, "label": "Mayo Clinic ALVD model"}
    told |= {"label_kind": kind, "label_meaning": MEANING.get(kind, "")}
    told["files"] = {
        name: sha256(folder / name) for name in ("weights.safetensors", "predictions.parquet")
    }
    (folder / "run.json").write_text(json.dumps(told))
    return folder


def edit(folder, **changes):
    """Change entries of run.json; None takes them out."""
    told = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rotation_0")


@pytest.fixture(scope="module")
def clinical_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rotation_0", "angiographic")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own: studies and outputs lie below it."""
    for name in ("params", "outputs", "outputs/reference"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(places, "ROOT", tmp_path)
    for name, place in (
        ("PARAMS", "params"),
        ("OUTPUTS", "outputs"),
        ("REFERENCE", "outputs/reference"),
    ):
        monkeypatch.setattr(places, name, tmp_path / place)
    return tmp_path


def write_study(home, name, cohort, rotations="[0, 1, 2]", model="mayo_alvd"):
    rate = {} if model == "random_forest" else {"learning_rate": 0.001}
    (home / "params" / f"{name}.yaml").write_text(
        f"name: {name}\ntitle: T\ncohort: {cohort}\nfolds: {{count: 4, rotations: {rotations}}}\n"
        f"models: {{{model}: {rate}}}\nselected_model: {model}\n"
    )


SYNTHETIC = "{source: synthetic, records: 100}"
OWN = (
    "{{source: files, name: x, folder: x, table: x, label_kind: {}, label_meaning: what it means}}"
)


def texts(figure):
    """Every text drawn on a figure and its parts."""
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def watermarks(figure):
    return [text for text in figure.findobj(plt.Text) if "NOT A CLINICAL RISK" in text.get_text()]


class TestFormats:
    @pytest.mark.parametrize("name", ["wfdb", "csv", "philips plain text"])
    def test_one_recording_gives_one_answer_in_every_format(self, name, run, tmp_path):
        units = recording(seconds=11 if name.startswith("philips") else 10)
        path = {
            "wfdb": lambda: write_wfdb(tmp_path / "ecg", units),
            "csv": lambda: write_csv(tmp_path / "ecg.csv", units, leads=LEADS[::-1], unit="mV"),
            "philips plain text": lambda: write_philips(tmp_path / "ecg.xml", units),
        }[name]()
        found = explain.explain(str(path), str(run))
        assert found.file == path.name and found.beat.n_used >= 10 and not found.warning
        same = explain.explain(str(write_csv(tmp_path / "same.csv", units)), str(run))
        np.testing.assert_allclose(found.scores.score, same.scores.score, atol=1e-4)
        np.testing.assert_allclose(found.leads, same.leads, atol=1e-3)

    def test_philips_with_compressed_waveforms(self, run, real_data):
        files = sorted((real_data / "philips-xml").glob("*.[xX][mM][lL]"))
        assert len(files) == 3
        scores = []
        for path in files:
            found = explain.explain(str(path), str(run))
            page = pictures.draw_page(found)
            assert (
                found.file in " ".join(texts(page))
                or "…" in " ".join(texts(page))
                or "[...]" in " ".join(texts(page))
            )
            scores.append(found.scores.score.iloc[0])
        assert len(set(scores)) == 3 and all(0 < score < 1 for score in scores)

    def test_real_wfdb(self, run, real_data):
        path = min((real_data / "ptb-xl" / "records500").rglob("*.hea"))
        found = explain.explain(str(path), str(run))
        assert 40 < 60_000 / found.beat.rr_ms < 180 and np.isfinite(found.saliency).all()

    def test_the_example_is_simulated_and_says_so(self, run):
        assert explain.EXAMPLE.read_text().startswith("# simulated ECG, not a person's")
        assert explain.EXAMPLE.stat().st_size < 100_000
        found = explain.explain("", str(run))
        assert found.file == "example_ecg.csv" and not found.warning and found.beat.n_used >= 8
        assert found.origin == "SIMULATED ECG (LAD occluded), like the training ECGs"
        st = found.beat.beat[[LEADS.index(lead) for lead in ("V2", "V3", "V4")], 300 + 60]
        assert (st > 100).all(), "its LAD is occluded"


class TestScore:
    def test_it_is_the_score_that_the_study_predicted(self, tmp_path, run):
        """A simulated recording, through the cohort's chain and from a file of its own."""
        source = open_source(SyntheticCohort(source="synthetic", records=60), 3)
        source.records = (
            source.records[source.records.disturbance == "none"].head(6).reset_index(drop=True)
        )
        cohort = build_cohort(source, Signal(), tmp_path / "cohort")
        bank = BeatBank(cohort.beats, cohort.records.label, torch.device("cpu"))
        expected = predict(load_model(run), bank, np.arange(len(cohort.records)))
        for row, score in zip(source.records.itertuples(), expected, strict=True):
            signal, rate = synthetic.read(row, 3)
            path = write_wfdb(tmp_path / row.record_id, (signal / 5).astype(int), rate=int(rate))
            got = explain.explain(str(path), str(run)).scores.score.iloc[0]
            assert got == pytest.approx(score, abs=1e-5)

    def test_it_stands_among_the_scores_of_the_runs_own_test_fold(self, tmp_path):
        folder = make_run(tmp_path / "run", "proxy")
        table = pd.read_parquet(folder / "predictions.parquet").reset_index(drop=True)
        score = explain.explain("", str(folder)).scores.score.iloc[0]
        tested, validation = (table.split == split for split in ("test", "validation"))
        table.loc[tested, "probability"] = 1.0
        at = table.index[tested & (table.label == 1)][:10], table.index[tested & (table.label == 0)]
        table.loc[at[0].append(at[1]), "probability"] = score / 2
        table.loc[validation, "probability"] = table.label * 0.9 * score
        table.to_parquet(folder / "predictions.parquet")
        told = json.loads((folder / "run.json").read_text())["files"]
        edit(folder, files=told | {"predictions.parquet": sha256(folder / "predictions.parquet")})
        found = explain.explain("", str(folder))
        first, second, third = found.verdict
        assert first == f"Score {score:.2f}, at or above the operating point of {0.9 * score:.2f}"
        assert (
            second
            == "Higher than 25 % of the positives and 100 % of the negatives of its test "
            + ("fold (study elsewhere)")
        )
        assert "not a clinical risk" in third and "these networks have never seen" in found.origin
        table.loc[validation & (table.label == 1), "probability"] = (1 + score) / 2
        table.to_parquet(folder / "predictions.parquet")
        edit(folder, files=told | {"predictions.parquet": sha256(folder / "predictions.parquet")})
        first = explain.explain("", str(folder)).verdict[0]
        assert first == f"Score {score:.2f}, below the operating point of {(1 + score) / 2:.2f}"

    def test_rotations_of_a_study_answer_together(self, home):
        write_study(home, "mine", SYNTHETIC)
        own = [make_run(places.run_folder("mine", "mayo_alvd", k), seed=k) for k in (0, 2)]
        together = explain.explain("", "mine")
        alone = [explain.explain("", str(folder)) for folder in own]
        scores = [one.scores.score.iloc[0] for one in alone]
        np.testing.assert_allclose(together.scores.score, scores)
        assert together.scores.index.tolist() == ["rotation 0", "rotation 2"]
        np.testing.assert_allclose(
            together.saliency, np.mean([one.saliency for one in alone], axis=0), rtol=1e-4
        )
        np.testing.assert_allclose(
            together.leads, np.mean([one.leads for one in alone], axis=0), atol=1e-5
        )
        low, high = sorted(scores)
        first = f"Score {np.mean(scores):.2f} ({low:.2f}–{high:.2f} of 2 networks), "
        assert together.verdict[0].startswith(first)

    def test_shipped_networks_are_found_and_own_ones_come_first(self, home):
        write_study(home, "ptbxl", "{source: ptbxl}")
        write_study(home, "smoke", SYNTHETIC)
        with pytest.raises(explain.ExplainError, match="No trained network is here yet"):
            explain.open_networks()
        smoke = make_run(places.run_folder("smoke", "mayo_alvd", 1))
        assert [told["folder"] for told in explain.open_networks().runs] == [smoke]
        shipped = [places.REFERENCE / f"ptbxl/runs/mayo_alvd/rotation_{k}" for k in (0, 1)]
        for folder in shipped:
            make_run(folder, "proxy", half=True)
        assert [told["folder"] for told in explain.open_networks().runs] == shipped
        own = make_run(places.run_folder("ptbxl", "mayo_alvd", 1), "proxy")
        assert [told["folder"] for told in explain.open_networks("ptbxl").runs] == [shipped[0], own]

    def test_half_precision_weights(self, run, tmp_path):
        half = make_run(tmp_path / "half", half=True)
        assert load_file(half / "weights.safetensors")["fc1.weight"].dtype == torch.float16
        assert next(load_model(half).parameters()).dtype == torch.float32
        got, want = (explain.explain("", str(folder)) for folder in (half, run))
        np.testing.assert_allclose(got.scores.score, want.scores.score, atol=5e-3)

    def test_calibrated_risk_and_decision_from_the_runs_own_validation(self, clinical_run):
        found = explain.explain("", str(clinical_run))
        table = pd.read_parquet(clinical_run / "predictions.parquet").query("split == 'validation'")
        row = found.scores.iloc[0]
        risk = calibration.recalibrate(table.label, table.probability, [row.score])[0]
        point = metrics.operating_point(table.label, table.probability)
        assert (
            row.risk == pytest.approx(risk)
            and row["operating point"] == point
            and row.positive == (row.score >= point)
        )
        assert found.verdict[0] == f"Calibrated risk {100 * risk:.0f} %"
        assert ("positive" if row.score >= point else "negative") in found.verdict[2]

    def test_half_of_the_networks_call_an_ecg_positive(self, clinical_run):
        found = explain.explain("", str(clinical_run))
        for called, word in (([True, False], "positive"), ([False, False, True], "negative")):
            table = pd.concat([found.scores] * len(called)).assign(positive=called)
            told = explain.Explanation(**(vars(found) | {"scores": table})).verdict
            assert (
                f": {word} (called positive by {sum(called)} of {len(called)} networks)" in told[2]
            )


class TestWatermark:
    """No label but an angiographic one allows a risk, and nothing takes the watermark away."""

    def refuses(self, found):
        assert not found.networks.clinical and "risk" not in found.scores
        assert "Uncalibrated" in found.verdict[2] and not any(
            "isk" in line for line in found.verdict[:2]
        )
        for draw in (
            pictures.draw_page,
            pictures.draw_beat,
            lambda found: pictures.draw_beat(found, coloured=False),
        ):
            (mark,) = watermarks(figure := draw(found))
            assert found.networks.kind.upper() in mark.get_text() and mark.get_fontsize() >= 20
            assert mark.get_alpha() >= 0.2 and mark.get_visible() and mark.get_zorder() > 50
            told = " ".join(mark.get_text().split())
            assert " ".join(found.networks.meaning.split())[:40] in told
            assert not any("Calibrated" in text for text in texts(figure))
        return mark

    @pytest.mark.parametrize("kind", ["synthetic", "proxy"])
    def test_proxy_and_synthetic(self, kind, tmp_path):
        found = explain.explain("", str(make_run(tmp_path / "run", kind)))
        assert found.networks.kind == kind
        self.refuses(found)

    @pytest.mark.parametrize(
        "kind", [None, "", "Angiographic", "clinical", "angiographic ", True, 1, ["angiographic"]]
    )
    def test_a_kind_that_is_missing_or_unknown_is_not_angiographic(self, kind, tmp_path):
        networks = explain.open_networks(
            str(edit(make_run(tmp_path / "run", "angiographic"), label_kind=kind))
        )
        assert networks.kind == "unknown" and not networks.clinical
        if kind is None:
            self.refuses(explain.explain("", str(tmp_path / "run")))

    def test_one_network_of_another_kind_is_enough(self, home, tmp_path):
        write_study(home, "mine", OWN.format("angiographic"))
        for k, kind in enumerate(["angiographic", "proxy", "angiographic"]):
            make_run(places.run_folder("mine", "mayo_alvd", k), kind, seed=k)
        assert explain.open_networks("mine").kind == "unknown"
        (home / "moved").mkdir()
        places.run_folder("mine", "mayo_alvd", 1).rename(home / "moved" / "rotation_1")
        assert explain.open_networks("mine").clinical

    @pytest.mark.parametrize("cohort", [SYNTHETIC, "{source: ptbxl}", OWN.format("proxy")])
    @pytest.mark.parametrize("by_folder", [True, False])
    def test_a_run_edited_to_angiographic_is_found_out_by_its_study(
        self, home, tmp_path, cohort, by_folder
    ):
        write_study(home, "mine", cohort, rotations="[0]")
        folder = edit(
            make_run(places.run_folder("mine", "mayo_alvd", 0), "angiographic"), study="mine"
        )
        assert explain.open_networks(str(folder) if by_folder else "mine").kind == "unknown"

    def test_no_option_of_a_study_turns_it_off(self, home):
        for cohort in (
            "{source: synthetic, records: 100, label_kind: angiographic}",
            "{source: ptbxl, label_kind: angiographic}",
            OWN.format("none"),
            SYNTHETIC + "\nwatermark: false",
            SYNTHETIC + "\nsaliency: {watermark: false}",
        ):
            write_study(home, "mine", cohort)
            make_run(places.run_folder("mine", "mayo_alvd", 0))
            with pytest.raises(
                explain.ExplainError, match="neither the folder of a run nor a study"
            ):
                explain.explain("", "mine")
            places.run_folder("mine", "mayo_alvd", 0).rename(
                home / f"moved{np.random.default_rng().integers(1 << 60)}"
            )

    def test_an_angiographic_label_without_a_validation_fold_has_one(self, tmp_path):
        folder = make_run(tmp_path / "run", "angiographic")
        edit(folder, files={name: sha256(folder / name) for name in ("weights.safetensors",)})
        found = explain.explain("", str(folder))
        assert not found.networks.clinical and set(found.scores) == {"score"}
        assert found.verdict[1] == (
            "Uncalibrated, since no validation fold came with the network: not a clinical risk"
        )
        (mark,) = watermarks(pictures.draw_page(found))
        assert mark.get_text().startswith("UNCALIBRATED, NOT A CLINICAL RISK")

    def test_no_parameter_turns_it_off(self, tmp_path):
        import papermill

        known = papermill.inspect_notebook(str(places.NOTEBOOKS / "10_explain_ecg.ipynb"))
        assert set(known) == {"ecg_path", "run", "output_dir"}
        with pytest.raises(StudyError, match="has no parameter 'watermark'"):
            run_notebook("10_explain_ecg", {"watermark": False}, tmp_path / "x")
        assert list(inspect.signature(explain.explain).parameters) == ["ecg_path", "run"]
        assert list(inspect.signature(pictures.draw_page).parameters) == ["explanation"]
        drawn = inspect.signature(pictures.draw_beat).parameters
        assert list(drawn) == ["explanation", "coloured", "figure"]
        assert list(inspect.signature(pictures.save_page).parameters) == ["explanation", "folder"]

    def test_no_environment_or_style_turns_it_off(self, run, tmp_path, monkeypatch):
        for name in ("ECGLIB_WATERMARK", "WATERMARK", "ECGLIB_LABEL_KIND"):
            monkeypatch.setenv(name, "off")
        with plt.rc_context({"text.color": "white", "font.size": 1, "figure.titlesize": 1}):
            mark = self.refuses(explain.explain("", str(run)))
        assert mark.get_color() == "0.3"

    def test_it_is_on_the_saved_page(self, run, tmp_path, monkeypatch):
        found = explain.explain("", str(run))
        pictures.save_page(found, tmp_path)
        assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"
        shown = np.asarray(Image.open(tmp_path / "page.png").convert("L"), int)
        page = pictures.draw_page(found)
        page.draw_without_rendering()
        (mark,) = watermarks(page)
        at, whole = mark.get_window_extent(), page.bbox
        assert at.width > 0.55 * whole.width, "across the page"
        assert not any(at.overlaps(axis.get_window_extent()) for axis in page.axes), "on no trace"
        left, right = (int(x / whole.width * shown.shape[1]) for x in (at.x0, at.x1))
        top, low = (int((1 - y / whole.height) * shown.shape[0]) for y in (at.y1, at.y0))
        assert (shown[top:low, left:right] < 210).mean() > 0.1

    def test_an_angiographic_label_has_none_but_names_its_limits(self, clinical_run):
        page = pictures.draw_page(found := explain.explain("", str(clinical_run)))
        assert found.networks.clinical and not watermarks(page)
        told = " ".join(" ".join(texts(page)).split())
        assert (
            "Calibrated risk" in told
            and "no medical device" in told
            and "OMI [angiographic label]" in told
        )


class TestBadInput:
    def refused(self, ecg, run, *words):
        with pytest.raises(Refusal) as error:
            explain.explain(str(ecg), str(run))
        told = str(error.value)
        assert "\n" not in told and all(word in told for word in words), told
        assert error.value._render_traceback_() == [told], "a notebook shows the sentence alone"

    def test_files(self, run, tmp_path):
        units = recording()
        (tmp_path / "noise.xml").write_bytes(np.random.default_rng(0).bytes(5000))
        (tmp_path / "empty.csv").write_text("")
        short = write_csv(tmp_path / "short.csv", recording(seconds=1.5))
        wrong = write_csv(tmp_path / "wrong.csv", units, leads=("I", "II", "III"))
        renamed = tmp_path / "renamed.csv"
        renamed.write_text(write_csv(tmp_path / "x.csv", units).read_text().replace("V", "X"))
        flat = write_csv(tmp_path / "flat.csv", units * 0)
        self.refused(tmp_path / "none.xml", run, "none.xml", "no such file")
        self.refused(tmp_path / "noise.xml", run, "noise.xml")
        self.refused(tmp_path / "empty.csv", run, "empty.csv", "the file is empty")
        self.refused(short, run, "short.csv", "lasts 1.50 s, but 2 s are needed")
        self.refused(wrong, run, "wrong.csv", "leads have no usable samples")
        self.refused(renamed, run, "renamed.csv")
        self.refused(flat, run, "flat.csv")
        self.refused(
            write_csv(tmp_path / "two.csv", recording(seconds=2.2)), run, "two.csv", "Usable beats"
        )

    def test_runs(self, run, tmp_path):
        self.refused("", tmp_path / "nowhere", "neither the folder of a run nor a study")
        self.refused("", tmp_path, "has no run.json")
        self.refused(
            "",
            make_run(tmp_path / "a", options={"leads": 8}),
            "8 leads of 400 samples",
            "12 of 400",
        )
        self.refused(
            "", make_run(tmp_path / "b", options={"samples": 500}), "12 leads of 500 samples"
        )
        self.refused(
            "", edit(make_run(tmp_path / "c"), identity=None), "doesn't describe a trained network"
        )
        self.refused(
            "",
            make_run(tmp_path / "d", network="temporal_resnet18"),
            "damaged or not temporal_resnet18's",
        )
        (make_run(tmp_path / "e") / "run.json").write_text("{")
        self.refused("", tmp_path / "e", "doesn't describe a trained network")
        (make_run(tmp_path / "f") / "weights.safetensors").write_bytes(b"x")
        self.refused("", tmp_path / "f", "SHA-256 differs")
        (make_run(tmp_path / "g") / "weights.safetensors").unlink()
        self.refused("", tmp_path / "g", "weights were left out")

    def test_studies(self, home):
        write_study(home, "mine", SYNTHETIC, model="random_forest")
        folder = make_run(places.run_folder("mine", "random_forest", 0))
        (folder / "weights.safetensors").unlink()
        self.refused("", "mine", "no trained network with weights")
        self.refused("", "min", "did you mean 'mine.yaml'?")

    def test_calibration_needs_both_classes(self, tmp_path):
        folder = make_run(tmp_path / "a", "angiographic")
        table = pd.read_parquet(folder / "predictions.parquet").assign(label=0)
        table.to_parquet(folder / "predictions.parquet")
        hashes = {
            name: sha256(folder / name) for name in ("weights.safetensors", "predictions.parquet")
        }
        self.refused("", edit(folder, files=hashes), "give no scale", "All 200 labels are 0")

    def test_a_lead_that_is_neither_there_nor_told_by_others_gives_no_score(self, run, tmp_path):
        units, path = recording(), tmp_path / "ecg.csv"

        def written(*without):
            return write_csv(path, units, leads=[lead for lead in LEADS if lead not in without])

        words = "there is no score, since", "can't be read or derived from other leads"
        self.refused(written("V1"), run, "ecg.csv: ", *words, " V1 ")
        self.refused(written("V3", "V4"), run, *words, " V3 V4 ")
        self.refused(written("I", *LEADS[2:6]), run, "leads have no usable samples: I III")
        path.write_text(write_csv(path, units).read_text().replace("V6", "X6"))
        self.refused(path, run, *words, " V6 ", "channels not used: X6 (uV)")
        whole = explain.explain(str(write_csv(path, units)), str(run))
        for without in (("I", "II", "aVF", "aVL"), ("III", "aVR", "aVL", "aVF")):
            found = explain.explain(str(written(*without)), str(run))
            np.testing.assert_allclose(found.scores.score, whole.scores.score, atol=1e-4)

    def test_channels_that_are_not_used_are_named(self, run, tmp_path):
        path = write_csv(tmp_path / "ecg.csv", recording())
        assert "channels not used" not in explain.explain(str(path), str(run)).quality
        table = pd.read_csv(path)
        table["V3R (uV)"] = table["MCL1 (uV)"] = table["V1 (uV)"]
        table.to_csv(path, index=False)
        found = explain.explain(str(path), str(run))
        assert found.quality["channels not used"] == "V3R (uV), MCL1 (uV)"
        assert any(
            "V3R (uV), MCL1" in " ".join(t.split()) for t in texts(pictures.draw_page(found))
        )

    def test_poor_quality_is_scored_with_a_warning(self, run, tmp_path):
        units = recording()
        short = write_csv(tmp_path / "short.csv", units[:, :1900])
        found = explain.explain(str(short), str(run))
        assert 0 < found.scores.score.iloc[0] < 1 and found.warning == "POOR QUALITY: few beats"
        page = pictures.draw_page(found)
        (warning,) = [
            t
            for t in page.findobj(plt.Text)
            if t.get_text() == found.warning and t.get_bbox_patch()
        ]
        assert warning.get_fontsize() >= 10 and found.quality["remarks"] == "few beats"
        assert any(found.warning in text for text in texts(pictures.draw_beat(found)))
        rebuilt = write_csv(
            tmp_path / "rebuilt.csv", units, leads=[lead for lead in LEADS if lead != "V4"]
        )
        found = explain.explain(str(rebuilt), str(run))
        assert not found.warning and found.quality["remarks"] == "rebuilt:V4"


class TestPage:
    def test_odd_names_do_no_harm(self, run, tmp_path):
        path = write_csv(
            tmp_path / "a $x_{1}$ 100 % <b> very long name of a file from an archive of ECGs.csv",
            recording(),
        )
        found = explain.explain(str(path), str(run))
        pictures.save_page(found, tmp_path)
        assert (tmp_path / "page.png").stat().st_size > 50_000

    def test_everything_stands_on_it_and_nothing_overlaps_the_margins(self, clinical_run):
        page = pictures.draw_page(explain.explain("", str(clinical_run)))
        page.draw_without_rendering()
        told = " ".join(texts(page))
        for word in (
            "example_ecg.csv",
            "heart rate",
            "beats in the median",
            "Mayo Clinic",
            *LEADS,
            "QRS",
            "ST",
        ):
            assert word in told
        written = [text for part in (page, *page.subfigs) for text in part.texts]
        labels = [
            text for axis in page.axes for text in (*axis.texts, axis.xaxis.label, axis.title)
        ]
        for text in written + labels:
            at = text.get_window_extent()
            assert at.x0 >= 0 and at.x1 <= page.bbox.x1 and at.y0 >= 0 and at.y1 <= page.bbox.y1, (
                text.get_text()
            )


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")
    return tmp_path / "outputs"


TABLES = ("scores.csv", "leads.csv", "segments.csv")


class TestCommand:
    def test_from_a_file_to_a_page(self, run, tmp_path, outputs, capsys):
        path = write_philips(tmp_path / "ecg.xml", recording(seconds=11))
        assert main(["explain", "--ecg", str(path), "--run", str(run)]) == 0
        (folder,) = (f for f in (outputs / "explain").iterdir() if f.is_dir())
        assert folder.name.startswith("ecg-") and folder.name == explain.folder_of(str(path)).name
        files = {file.name for file in folder.iterdir()}
        assert files == {"page.pdf", "page.png", "run.json", *TABLES}
        told = json.loads((folder / "run.json").read_text())
        assert (
            told["label_kind"] == "synthetic"
            and told["runs"] == [str(run)]
            and told["quality"]["n_used"] >= 10
        )
        shown = capsys.readouterr().out
        assert told["verdict"][0] in shown and "page.pdf" in shown

    def test_bad_input_is_one_sentence_and_leaves_nothing(self, run, tmp_path, outputs, capsys):
        write = {seconds: tmp_path / f"{seconds}.csv" for seconds in (1.5, 2.2)}
        short, few = (write_csv(path, recording(seconds=s)) for s, path in write.items())
        seven = write_csv(tmp_path / "seven.csv", recording(), leads=[*LEADS[:6], *LEADS[7:]])
        for file, network, words in (
            (short, run, "1.5.csv: the recording lasts 1.50 s"),
            (few, run, "2.2.csv: Usable beats"),
            (seven, run, "seven.csv: there is no score, since V1 can't be read"),
            (tmp_path / "none.xml", run, "none.xml: no such file"),
            (tmp_path, run, "is a folder; name one recording in it"),
            ("", tmp_path / "nowhere", "neither the folder of a run nor a study"),
        ):
            assert main(["explain", "--ecg", str(file), "--run", str(network)]) == 1
            shown = capsys.readouterr()
            assert words in shown.err and shown.err.count("\n") == 1
            assert shown.out.count("\n") == 1, "a step that was begun"
        assert not list(outputs.iterdir())

    def test_a_folder_that_cant_be_written_is_named(self, run, tmp_path, monkeypatch, capsys):
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(places, "OUTPUTS", tmp_path / "file" / "outputs")
        assert main(["explain", "--run", str(run)]) == 1
        assert f"{places.OUTPUTS} can't be written; name another" in capsys.readouterr().err


def test_what_is_no_beat_is_not_explained_and_others_have_the_band_of_the_run(monkeypatch):
    from dataclasses import replace

    import ecglib.signal

    asked, process = [], ecglib.signal.process

    def watched(signal, rate, settings):
        asked.append(settings.band_hz)
        reasons = "not_qrs" if settings.band_hz == 40 else ""
        return replace(process(signal, rate, settings), quality_reasons=reasons)

    monkeypatch.setattr(ecglib.signal, "process", watched)
    assert explain.read_beat("", Signal(band_hz=50.0))[0].is_beat and asked == [50.0]
    with pytest.raises(explain.ExplainError, match="aren't centred on QRS complexes"):
        explain.read_beat("", Signal(band_hz=40.0))


def test_a_run_remembers_the_band_of_its_beats(tmp_path):
    folder = make_run(tmp_path / "a", "synthetic")
    assert explain.open_networks(str(folder)).signal.band_hz is None, "before bands were told"
    assert explain.open_networks(str(edit(folder, band_hz=50.0))).signal.band_hz == 50


def test_what_is_planted_into_ecgs_is_told_of_the_network_that_notebook_09_asked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(places, "REFERENCE", tmp_path / "reference")
    told = {"run": "outputs/made_up/runs/net/rotation_8", "planted": ["It calls 10 % of 42 ECGs."]}
    file = tmp_path / "reference" / "made_up" / "09_saliency" / "run.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(told))

    def networks(study, folder):
        return SimpleNamespace(name=study, runs=[{"folder": tmp_path / folder}])

    shipped = networks("made_up", "reference/made_up/runs/net/rotation_8")
    assert explain.planted(shipped) == told["planted"]
    assert explain.planted(networks("made_up", "x/net/rotation_7")) == []
    assert explain.planted(networks("another", "x/net/rotation_8")) == []
