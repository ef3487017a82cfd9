"""Attribution and its checks, on networks whose answer is known in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ecglib.analysis import inference, known_place, saliency, saliency_checks
from ecglib.beat import LEADS
from ecglib.dataset import CROP, normalise
from ecglib.models import build_model
from ecglib.signal.fiducials import POINTS

AVL = LEADS.index("aVL")


class Linear(torch.nn.Module):
    """Logit 1 is a weighted sum of all samples; logit 0 is another."""

    def __init__(self, weights):
        super().__init__()
        self.flatten = torch.nn.Flatten()
        self.fc = torch.nn.Linear(weights.size, 2)
        with torch.no_grad():
            self.fc.weight[1] = torch.from_numpy(weights.ravel())
        self.eval()

    def forward(self, x):
        return self.fc(self.flatten(x))


class Squares(torch.nn.Module):
    """Looks at the energy of samples 200 to 260 of aVL only; a nuisance input is mixed in by batch
    statistics.
    """

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.0))
        self.bn = torch.nn.BatchNorm1d(2)

    def forward(self, x):
        energy = self.gain * x[:, 0, AVL, 200:260].square().sum(1)
        return self.bn(torch.stack([-energy, energy], dim=1))


def ecgs(n=5, seed=0):
    """Smooth random ECG-like inputs."""
    steps = np.random.default_rng(seed).standard_normal((n, 12, 400)).cumsum(-1)
    return normalise(torch.from_numpy(steps)).numpy()


def weights(seed=1):
    return np.random.default_rng(seed).standard_normal((12, 400)).astype(np.float32)


def region(n=5):
    truth = np.zeros((n, 12, 400), bool)
    truth[:, AVL, 200:260] = True
    return truth


def points(n=5, **missing):
    """Fiducial points of a plain beat: P 210–260, QRS 275–325, T peak 430 and end 480."""
    told = dict(zip(POINTS, (210, 235, 260, 275, 300, 325, 430, 480), strict=True)) | missing
    return np.tile(list(told.values()), (n, 1)).astype(np.float32)


class TestAttribution:
    def test_gradient_of_a_linear_network_is_its_weights(self):
        w = weights()
        maps = saliency.attribute(Linear(w), ecgs(), batch=2)
        assert maps.shape == (5, 12, 400) and maps.dtype == np.float32
        np.testing.assert_allclose(maps, np.broadcast_to(np.abs(w), maps.shape), rtol=1e-6)

    def test_gradient_is_of_the_positive_logit_by_finite_differences(self):
        torch.manual_seed(0)
        model = build_model("mayo_alvd").double().eval()
        x = ecgs(2).astype(np.float32)
        maps = saliency.attribute(model.float(), x)
        for lead, sample in ((0, 37), (6, 200), (11, 399)):
            step = np.zeros_like(x)
            step[:, lead, sample] = 1e-2
            slope = (saliency.logits(model, x + step) - saliency.logits(model, x - step)) / 2e-2
            np.testing.assert_allclose(maps[:, lead, sample], np.abs(slope), rtol=0.05, atol=2e-5)

    def test_integrated_gradients(self):
        w, x = weights(), ecgs()
        np.testing.assert_allclose(
            saliency.attribute(Linear(w), x, "integrated_gradients", steps=3),
            w * x,
            rtol=1e-4,
            atol=1e-5,
        )
        torch.manual_seed(0)
        # completeness: what is attributed is what the logit gained
        model = build_model("mayo_alvd").eval()
        maps = saliency.attribute(model, x, "integrated_gradients", steps=100, batch=50)
        gained = saliency.logits(model, x) - saliency.logits(model, np.zeros_like(x))
        np.testing.assert_allclose(maps.sum((1, 2)), gained, rtol=0.02, atol=1e-3)

    def test_occlusion_of_leads(self):
        w, x = weights(), ecgs()
        maps = saliency.attribute(Linear(w), x, "occlude_leads")
        np.testing.assert_allclose(maps.sum(2), (w * x).sum(2), rtol=1e-3, atol=1e-3)
        assert np.ptp(maps, axis=2).max() < 1e-6, "spread evenly"

    def test_occlusion_of_waves(self):
        w, x, found = weights(), ecgs(), saliency.segments_of(points())
        maps = saliency.attribute(Linear(w), x, "occlude_waves", segments=found)
        for name, inside in found.items():
            for ecg, lead in ((0, 0), (3, AVL)):
                gone = inside[ecg]
                fall = (w[lead] * (x[ecg, lead] - np.median(x[ecg, lead])))[gone].sum()
                assert maps[ecg, lead][gone].sum() == pytest.approx(fall, rel=1e-2, abs=1e-2), name

    @pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_batches_change_nothing(self, method, batch):
        torch.manual_seed(0)
        model, x = build_model("mayo_alvd").eval(), ecgs(3)
        whole = saliency.attribute(model, x, method, batch=100, steps=4)
        parts = saliency.attribute(model, x, method, batch=batch, steps=4)
        np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-6)
        assert not any(p.grad is not None for p in model.parameters())

    @pytest.mark.parametrize("method", saliency.METHODS)
    def test_a_network_that_sees_one_place_is_localised_there(self, method):
        model = Squares().eval()
        maps = saliency.attribute(model, ecgs(), method, segments={"ST": region()[:, AVL]})
        assert np.abs(maps[:, np.arange(12) != AVL]).max() == 0
        table = saliency_checks.localisation(maps, region())
        assert (table.hit == 1).all() or method == "occlude_leads"
        assert table.share.min() > (0.99 if method != "occlude_leads" else 60 / 400 - 1e-6)

    @pytest.mark.parametrize("method", saliency.METHODS)
    def test_maps_of_a_network_that_sees_fewer_samples_lie_at_the_same_time(self, method):
        w = np.zeros((12, 200), np.float32)
        w[AVL, 100:130] = weights()[0, :30]
        x = normalise(torch.from_numpy(1000 * ecgs()), "millivolt", 200).numpy()
        maps = saliency.attribute(Linear(w), x, method, segments={"ST": region()[:, AVL]})
        assert maps.shape == (5, 12, 400) and maps.dtype == np.float32
        share = 1 if method != "occlude_leads" else 60 / 400
        assert saliency_checks.localisation(maps, region()).share.tolist() == pytest.approx(
            [share] * 5
        )
        isoelectric = np.median(x, axis=-1, keepdims=True) if method == "occlude_waves" else 0
        whole = np.abs(w) if method == "gradient" else w * (x - isoelectric)
        expected = np.broadcast_to(whole, x.shape).sum((1, 2))
        np.testing.assert_allclose(maps.sum((1, 2)), expected, rtol=1e-3, atol=1e-3)

    def test_refusals(self):
        with pytest.raises(KeyError, match="gradients"):
            saliency.attribute(Linear(weights()), ecgs(), "gradients")
        with pytest.raises(ValueError, match="training mode"):
            saliency.attribute(Squares().train(), ecgs())


class TestErase:
    @given(st.lists(st.booleans(), min_size=30, max_size=30))
    def test_masked_samples_become_isoelectric_and_others_stay(self, hidden):
        mask, x = np.array(hidden)[None, None], np.random.default_rng(3).standard_normal((1, 1, 30))
        level = 0 if all(hidden) else sorted(x.ravel())[14:16]
        got = saliency.erase(x, mask)
        np.testing.assert_allclose(got[~mask], x[~mask], rtol=1e-6)
        np.testing.assert_allclose(got[mask], np.mean(level), rtol=1e-5)

    def test_a_raised_st_segment_is_gone(self):
        beats, truth = known_place.inject_st(np.zeros((1, 12, 600)), {"II": 300}, 330, 480)
        assert np.abs(saliency.erase(beats, truth)).max() == 0

    def test_input_stays(self):
        x = ecgs()
        before = x.copy()
        saliency.erase(x, np.ones(x.shape, bool))
        np.testing.assert_array_equal(x, before)


class TestSegments:
    def test_they_follow_the_points(self):
        found = saliency.segments_of(points())
        edges = {
            name: (inside[0].argmax() + 150, inside[0].sum()) for name, inside in found.items()
        }
        assert edges["P"] == (210, 50) and edges["PQ"] == (260, 15) and edges["QRS"] == (275, 50)
        assert edges["ST"] == (325, 430 - 65 - 325) and edges["T"] == (
            365,
            115,
        )  # T rises 1.3 times as long as it falls
        np.testing.assert_array_equal(np.sum(list(found.values()), axis=0), 1)

    def test_missing_waves_are_empty(self):
        found = saliency.segments_of(points(p_on=np.nan, p_off=np.nan, t_peak=np.nan))
        assert (
            not found["P"].any()
            and not found["PQ"].any()
            and not found["T"].any()
            and found["QRS"].any()
        )
        np.testing.assert_array_equal(np.sum(list(found.values()), axis=0), 1)
        assert saliency.segments_of(points(t_off=700))["T"][0, -1], (
            "what lies outside the crop is cut"
        )

    def test_contributions_add_up_and_an_even_map_gives_the_lengths(self):
        found, maps = saliency.segments_of(points()), np.abs(ecgs())
        share = saliency.segment_contributions(maps, found)
        np.testing.assert_allclose(share.sum(1), 1)
        assert share.loc[2, "QRS"] == pytest.approx(maps[2][:, 125:175].sum() / maps[2].sum())
        even = saliency.segment_contributions(np.ones_like(maps), found)
        np.testing.assert_allclose(even.loc[0, "QRS"], 50 / 400)

    def test_waves_marked_by_cardiologists(self, real_data):
        """T's onset from its peak and end, against LUDB's marks in lead II."""
        wfdb = pytest.importorskip("wfdb")
        errors = []
        for record in range(1, 201, 5):
            marks = wfdb.rdann(str(real_data / "ludb" / "data" / str(record)), "ii")
            symbols, samples = "".join(marks.symbol), marks.sample
            at = symbols.find("(t)")
            if at >= 0:
                told = {
                    "t_peak": samples[at + 1] - samples[at] + 350,
                    "t_off": samples[at + 2] - samples[at] + 350,
                }
                inside = saliency.segments_of(
                    points(1, qrs_off=260, qrs_on=240, p_off=220, **told)
                )["T"][0]
                errors.append(inside.argmax() + 150 - 350)
        # 30 ms and 20 ms
        assert len(errors) > 30 and np.median(np.abs(errors)) < 15 and abs(np.mean(errors)) < 10


class TestPaperMap:
    def test_against_the_papers_steps_written_out(self):
        maps = np.abs(ecgs(4)) * np.random.default_rng(0).uniform(0.1, 9, (4, 12, 1))
        want = {"lead": np.zeros((12, 20)), "map": np.zeros((12, 20))}
        for one in maps:
            means = np.array(
                [[lead[20 * w : 20 * w + 20].mean() for w in range(20)] for lead in one]
            )
            want["map"] += (means - means.min()) / (means.max() - means.min()) / 4
            want["lead"] += (
                np.array([(lead - lead.min()) / (lead.max() - lead.min()) for lead in means]) / 4
            )
        for per, told in want.items():
            np.testing.assert_allclose(saliency.paper_map(maps, per), told, rtol=1e-5)

    def test_lead_normalisation_hides_which_lead_matters_and_contributions_show_it(self):
        maps = np.random.default_rng(0).random((6, 12, 400))
        louder = maps * np.where(np.arange(12) == AVL, 50, 1)[:, None]
        np.testing.assert_allclose(saliency.paper_map(maps), saliency.paper_map(louder))
        assert saliency.paper_map(louder, "map").mean(1).argmax() == AVL
        share = saliency.lead_contributions(louder)
        np.testing.assert_allclose(share.sum(1), 1)
        assert (share.idxmax(axis=1) == "aVL").all() and share["aVL"].mean() == pytest.approx(
            50 / 61, abs=0.01
        )

    def test_flat_maps_give_no_division_by_zero(self):
        assert np.isfinite(saliency.paper_map(np.zeros((2, 12, 400)))).all()
        assert (saliency.lead_contributions(np.zeros((2, 12, 400))) == 0).all(axis=None)

    def test_signs_do_not_matter(self):
        maps = ecgs()
        np.testing.assert_allclose(saliency.paper_map(-maps), saliency.paper_map(np.abs(maps)))


class TestIntervals:
    def test_patients_are_drawn_not_ecgs(self):
        """Each patient's ECGs repeated ten times leave the interval as it is; taken as patients
        they shrink it.
        """
        rng = np.random.default_rng(0)
        values = pd.DataFrame({"I": rng.normal(0.1, 0.02, 40), "II": rng.normal(0.2, 0.04, 40)})
        once = inference.patient_intervals(values, np.arange(40))
        repeated = values.loc[np.repeat(np.arange(40), 10)].reset_index(drop=True)
        clustered = inference.patient_intervals(repeated, np.repeat(np.arange(40), 10))
        pd.testing.assert_frame_equal(once, clustered, rtol=0.02)
        single = inference.patient_intervals(repeated, np.arange(400))
        assert ((single.high - single.low) < 0.5 * (once.high - once.low)).all()

    def test_close_to_the_normal_interval(self):
        values = pd.DataFrame({"I": np.random.default_rng(1).normal(5, 2, 300)})
        row = inference.patient_intervals(values, np.arange(300), draws=4000).loc["I"]
        error = values["I"].std() / np.sqrt(300)
        assert row["mean"] == pytest.approx(values["I"].mean())
        assert row.low == pytest.approx(row["mean"] - 1.96 * error, abs=0.25 * error)
        assert row.high == pytest.approx(row["mean"] + 1.96 * error, abs=0.25 * error)

    def test_seed(self):
        values, patients = pd.DataFrame({"I": np.arange(30.0)}), np.arange(30) // 2
        first, again, other = (
            inference.patient_intervals(values, patients, seed=s) for s in (1, 1, 2)
        )
        assert first.equals(again) and not first.equals(other)


class TestChecks:
    def test_agreement_is_spearmans(self):
        a, b = np.abs(ecgs(4)), np.abs(ecgs(4, seed=9))
        want = [
            spearmanr(x.ravel(), y.ravel())[0]
            for x, y in zip(saliency.windows(a), saliency.windows(b), strict=True)
        ]
        np.testing.assert_allclose(saliency.agreement(a, b), want, atol=1e-6)
        np.testing.assert_allclose(saliency.agreement(a, 3 * a), 1, rtol=1e-6)

    def test_cascade_goes_from_the_top_down_and_destroys_the_map(self):
        torch.manual_seed(3)
        model = build_model("mayo_alvd").eval()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        maps = saliency.attribute(model, ecgs(6))
        table = saliency_checks.cascade(model, ecgs(6), maps)
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items()), (
            "model stays"
        )
        blocks = [f"convblock{i}" for i in range(6, 0, -1)]
        order = table.layer.unique().tolist()
        assert order == ["fc3", "bn3", "fc2", "bn2", "fc1", "bn1", "conv1", *blocks]
        mean = table.groupby("layer", sort=False).rank_correlation.mean()
        assert len(table) == 6 * len(order) and mean.iloc[-1] < 0.5
        pd.testing.assert_frame_equal(table, saliency_checks.cascade(model, ecgs(6), maps))

    def test_what_forgets_all_has_nothing_of_the_training_left(self):
        model = build_model("mayo_alvd").eval()
        for value in model.state_dict().values():
            value.fill_(7)
        (*_, (_, forgotten)) = saliency_checks.forget(model, ecgs(3))
        assert not any((value == 7).all() for value in forgotten.state_dict().values())
        starts = saliency_checks.random_networks(build_model("mayo_alvd").eval(), ecgs(3))
        assert len({float(one.fc1.weight.detach().sum()) for one in starts}) == 3

    def test_a_random_network_is_not_flat(self):
        """Its batch norms fit what they see: ECGs get different logits, and gradients arrive."""
        torch.manual_seed(0)
        model, x = build_model("ecg_smart_net").eval(), ecgs(4)
        (*_, (_, forgotten)) = saliency_checks.forget(model, x)
        assert not forgotten.training
        flat = np.ptp(saliency.logits(model, x))  # a fresh network's own statistics
        assert np.ptp(saliency.logits(forgotten, x)) > 10 * flat
        norm = forgotten.layer4[1].bn2
        seen = []
        norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        saliency.logits(forgotten, x)
        mean = seen[0].mean((0, 2, 3))
        torch.testing.assert_close(mean, norm.running_mean, rtol=0.05, atol=0.01)

    def test_layers_that_have_not_forgotten_keep_their_statistics(self):
        model = build_model("mayo_alvd").eval()
        model.convblock1.bn.running_mean.fill_(3)
        _, first = next(saliency_checks.forget(model, ecgs(3)))
        assert (first.convblock1.bn.running_mean == 3).all()

    def test_a_map_that_ignores_the_network_stays_as_it_was(self, monkeypatch):
        def slope(model, x):
            return np.gradient(x, axis=2) ** 2

        monkeypatch.setattr(saliency_checks, "attribute", slope)
        table = saliency_checks.cascade(Linear(weights()), ecgs(), slope(None, ecgs()))
        np.testing.assert_allclose(table.rank_correlation, 1)

    def test_chance_respects_what_a_method_can_reach(self):
        """Occlusion by wave is 0 between the waves: maps without anything in common correlate by
        size, and the shuffled one says by how much; with signs they don't.
        """
        mask = np.zeros((5, 12, 400))
        mask[..., 100:180] = 1
        one, other = (ecgs(seed=seed) * mask for seed in (1, 2))
        found = saliency_checks._randomised(one, [other], 0)
        size, chance = (
            found[f"correlation with randomised, absolute{name}"] for name in ("", ", by chance")
        )
        assert size > 0.5 and chance == pytest.approx(size, abs=0.1)
        assert abs(found["correlation with randomised, signed"]) < 0.3
        got = saliency_checks.shuffled(one)
        assert (got[mask == 0] == 0).all() and not np.array_equal(got, one)
        np.testing.assert_allclose(np.sort(got[0].ravel()), np.sort(one[0].ravel()))

    def test_signs_count_where_they_are_asked_for(self):
        maps = ecgs(3)
        np.testing.assert_allclose(saliency.agreement(maps, -maps), 1)
        np.testing.assert_allclose(saliency.agreement(maps, -maps, signed=True), -1)

    def test_cascade_on_a_linear_network_falls_to_chance(self):
        maps = saliency.attribute(Linear(weights()), ecgs())
        table = saliency_checks.cascade(Linear(weights()), ecgs(), maps)
        assert table.layer.unique().tolist() == ["fc"] and table.rank_correlation.abs().max() < 0.3

    @pytest.mark.parametrize(("name", "options", "top"), [
        ("ecg_smart_net", {}, ["fc", "bn2", "conv2"]), ("resnet18", {"pretrained": False}, ["fc"])
    ])  # fmt: skip
    def test_cascade_reaches_every_layer(self, name, options, top, monkeypatch):
        # the layers alone are of interest
        monkeypatch.setattr(saliency_checks, "attribute", lambda model, x: x)
        model = build_model(name, **options).eval()
        layers = saliency_checks.cascade(model, ecgs(2), ecgs(2)).layer.unique().tolist()
        assert layers == [*top, "layer4", "layer3", "layer2", "layer1", "bn1", "conv1"]

    def test_deletion_prefers_the_map_that_is_right(self):
        x, model = (
            np.random.default_rng(5).standard_normal((8, 12, 400)).astype(np.float32),
            Squares().eval(),
        )
        right = saliency.attribute(model, x)
        wrong = np.ones_like(right)
        wrong[:, AVL] = 0
        table = saliency_checks.deletion(
            model, x, {"right": right, "wrong": wrong}, fractions=(0, 0.02, 0.5, 1)
        )
        assert set(table["map"]) == {"right", "wrong", "random", "QRS energy"}
        fall = table.pivot_table(index="fraction", columns="map", values="logit")
        np.testing.assert_allclose(fall.loc[0], saliency.logits(model, x).mean(), rtol=1e-5)
        np.testing.assert_allclose(
            fall.loc[1], saliency.logits(model, np.zeros_like(x)).mean(), atol=1e-5
        )
        assert fall.loc[0.02, "right"] < fall.loc[0.02, ["wrong", "random", "QRS energy"]].min()
        assert fall.loc[0.5, "wrong"] == pytest.approx(fall.loc[0, "wrong"])

    def test_deletion_takes_what_raises_the_logit_first(self):
        """A linear network, whose signed map is exact: deletion by it lowers the logit as fast as
        can be.
        """
        w, x = weights(), np.random.default_rng(5).standard_normal((8, 12, 400)).astype(np.float32)
        signed = saliency.attribute(Linear(w), x, "integrated_gradients", steps=2)
        table = saliency_checks.deletion(
            Linear(w), x, {"signed": signed, "size": np.abs(signed)}, fractions=(0, 0.2)
        )
        fall = table[table.fraction == 0.2].groupby("map").logit.mean()
        assert fall.idxmin() == "signed" and fall["signed"] < fall["size"] - 10

    def test_localisation_counts(self):
        truth = region(3)
        truth[2] = False
        even, spot = np.ones((3, 12, 400)), np.where(truth, 1.0, 0.0)
        table = saliency_checks.localisation(even, truth)
        np.testing.assert_allclose(table.share[:2], 60 / 4800)
        np.testing.assert_allclose(table.share[:2], table.chance[:2])
        np.testing.assert_allclose(table.hit_chance[:2], 3 / 240)
        table = saliency_checks.localisation(-spot, truth)
        assert (
            (table.share[:2] == 1).all()
            and (table.hit[:2] == 1).all()
            and table.loc[2].isna().all()
        )
        spot[0, 0, 0:20] = 5
        assert saliency_checks.localisation(spot, truth).hit[0] == 0

    def test_random_maps_stay_at_chance(self):
        maps, truth = (
            np.random.default_rng(0).random((400, 12, 400)),
            np.zeros((400, 12, 400), bool),
        )
        truth[:, :4, 180:300] = True
        mean = saliency_checks.localisation(maps, truth).mean()
        assert (
            mean.share == pytest.approx(mean.chance, rel=0.01)
            and abs(mean.hit - mean.hit_chance) < 0.05
        )


class TestKnownPlaces:
    def test_true_region(self):
        records = pd.DataFrame(
            {"affected_leads": ["I;aVL", ""], "window_start": [320, 0], "window_end": [700, 0]},
            index=[7, 9],
        )
        truth = known_place.true_region(records)
        assert truth[0, [0, AVL], 170:].all() and truth[0].sum() == 2 * 230 and not truth[1].any()

    def test_true_region_of_simulated_ecgs(self):
        from ecglib.cohort.build import open_source
        from ecglib.settings import SyntheticCohort

        source = open_source(SyntheticCohort(source="synthetic", records=60), 42)
        truth = known_place.true_region(source.records)
        ill = source.records.affected_leads.str.len().to_numpy() > 0
        assert truth.any((1, 2))[ill].all() and not truth[~ill].any()

    def test_injection_is_where_and_as_large_as_told(self):
        beats = np.random.default_rng(0).normal(0, 100, (3, 12, 600)).astype(np.int16)
        changed, truth = known_place.inject_st(
            beats, {"V2": 200, "V3": 200, "III": -80}, [320, 330, 325], 480
        )
        assert changed.dtype == np.float32 and truth.shape == changed.shape and truth.dtype == bool
        change = changed - beats
        assert (np.abs(change[~truth]) < 1e-4).all()
        assert (
            truth[0, LEADS.index("V2"), 320:480].all() and truth[1, LEADS.index("III")].sum() == 150
        )
        assert not truth[:, LEADS.index("I")].any()
        np.testing.assert_allclose(change[:, LEADS.index("V3"), 400], 200, atol=1e-3)
        np.testing.assert_allclose(change[:, LEADS.index("III"), 400], -80, atol=1e-3)
        assert np.abs(np.diff(change, axis=2)).max() < 200 * np.pi / 2 / 20 + 1e-3, "no step"

    def test_a_network_that_measures_st_is_localised_on_injected_change(self):
        """From µV to the map: mean of aVL's ST minus mean of aVL's PQ, with the cohort's own
        normalisation.
        """
        w = np.zeros((12, 400), np.float32)
        w[AVL, 190:230], w[AVL, 110:120] = 1 / 40, -1 / 10
        beats = (100 * ecgs(6)).repeat(2, axis=2)[:, :, :600]
        changed, truth = known_place.inject_st(beats, {"aVL": 300}, 330, 400)
        x = normalise(torch.from_numpy(changed[..., CROP])).numpy()
        maps = saliency.attribute(Linear(w), x)
        table = saliency_checks.localisation(maps, truth[..., CROP])
        # the other half is on PQ, where nothing was injected
        np.testing.assert_allclose(table.share, 0.5, atol=1e-5)
        assert (table.chance < 0.02).all()
