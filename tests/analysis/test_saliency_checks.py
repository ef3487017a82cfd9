"""The checks on networks and ECGs whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from saved_cohort import save_cohort
from test_saliency import Linear

from ecglib.analysis import known_place, saliency, saliency_checks
from ecglib.beat import LEADS
from ecglib.cohort import synthetic
from ecglib.cohort.build import open_source
from ecglib.dataset import BeatBank
from ecglib.settings import SyntheticCohort

SEED = 5
ZSCORE, MILLIVOLT = ({"training": {"normalisation": how}} for how in ("lead_zscore", "millivolt"))
RESAMPLED = {"training": {"normalisation": "millivolt", "samples": 200}}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Simulated beats without noise, all with the truth of their injury."""
    source = open_source(
        SyntheticCohort(source="synthetic", records=80, subtle=0.0, prevalence=0.4), SEED
    )
    records = source.records.assign(poor_quality=False, quality_reasons="")
    beats = np.stack([synthetic.true_beat(row, SEED) for row in records.itertuples(index=False)])
    info = {
        "name": "synthetic",
        "version": "1",
        "label_kind": "synthetic",
        "label_meaning": "simulated occlusion",
    }
    return save_cohort(tmp_path_factory.mktemp("cohort") / "x", beats, records, info)


@pytest.fixture(scope="module")
def bare(cohort, tmp_path_factory):
    """The same as any cohort comes: without truth."""
    records = cohort.records[
        ["record_id", "patient_id", "site", "age", "sex", "label", "poor_quality"]
    ]
    records = records.assign(poor_quality=np.arange(len(records)) % 5 == 0)
    info = {
        "name": "files",
        "version": "1",
        "label_kind": "proxy",
        "label_meaning": "something else",
    }
    return save_cohort(
        tmp_path_factory.mktemp("cohort") / "y", np.asarray(cohort.beats), records, info
    )


def injury(cohort, identity, most):
    """The known place of a simulated cohort."""
    found = known_place.known_places(cohort, cohort.records, identity, SEED, most)
    assert list(found) == ["simulated injury"]
    return found["simulated injury"]


def change(place):
    """What `MILLIVOLT` inputs show of a change, in µV."""
    return 1000 * (place.inputs - place.without)


def planted(bare, most, kind="ST elevation", identity=MILLIVOLT):
    """A change added to negatives."""
    return known_place.known_places(bare, bare.records, identity, SEED, most)[kind]


class TestKnownPlace:
    def test_simulated_injury(self, cohort):
        place = injury(cohort, MILLIVOLT, 12)
        assert len(place.inputs) == 12 and place.truth.any((1, 2)).all()
        other_times = ~place.truth.any(1).repeat(12, 0).reshape(place.truth.shape)
        assert np.abs(change(place)[other_times]).max() < 0.1
        inside = saliency_checks.localisation(change(place), place.truth)
        assert (inside.share > 2 * inside.chance).all() and inside.hit.mean() > 0.9

    def test_without_it_the_ecg_is_that_of_the_unharmed_heart(self, cohort):
        place = injury(cohort, MILLIVOLT, 60)
        rows = cohort.records[
            cohort.records.record_id.isin(cohort.records.record_id[cohort.records.label == 1])
        ]
        st = (
            1000 * np.abs(place.without[:, :, 190:200]).max((1, 2)),
            1000 * np.abs(place.inputs[:, :, 190:200]).max((1, 2)),
        )
        assert np.median(st[0]) < 0.6 * np.median(st[1]) and len(place.inputs) <= len(rows)

    def test_added_to_negatives(self, bare):
        place = planted(bare, 10)
        assert len(place.inputs) == 10 and "added to negatives" in place.meaning
        assert np.abs(change(place)[~place.truth]).max() < 0.1
        one, two, three, avr, avl, avf = change(place)[:, :6].transpose(1, 0, 2)
        np.testing.assert_allclose(two, one + three, atol=0.1)  # Einthoven, and Goldberger's three
        for lead, sum_of in ((avr, -(one + two)), (avl, one - three), (avf, two + three)):
            np.testing.assert_allclose(lead, sum_of / 2, atol=0.1)
        np.testing.assert_allclose(change(place)[:5, LEADS.index("V3")].max(1), 200, atol=0.1)
        np.testing.assert_allclose(change(place)[5:, LEADS.index("III")].max(1), 200, atol=0.1)
        fine = bare.records[(bare.records.label == 0) & ~bare.records.poor_quality].record_id
        beats, _ = known_place.inputs_of(bare, pd.DataFrame({"record_id": fine}), MILLIVOLT)
        known = {row.tobytes() for row in beats[:, 0]}
        assert all(
            np.rint(beat[0]).astype(np.int16).tobytes() in known for beat in place.beats[:5]
        ), "V leads changed only"

    def test_depression_is_of_the_subendocardial_kind(self, bare):
        place = planted(bare, 6, "ST depression")
        assert np.abs(change(place)[~place.truth]).max() < 0.1
        one, two, three, avr, avl, avf = change(place)[:, :6].transpose(1, 0, 2)
        np.testing.assert_allclose(two, one + three, atol=0.1)
        for lead, sum_of in ((avr, -(one + two)), (avl, one - three), (avf, two + three)):
            np.testing.assert_allclose(lead, sum_of / 2, atol=0.1)
        np.testing.assert_allclose(change(place)[:, LEADS.index("V5")].min(1), -200, atol=0.1)
        assert (avr.max(1) > 90).all() and "depression" in place.meaning
        assert not place.truth[:, LEADS.index("V1")].any()

    def test_inputs_are_those_of_training(self, cohort):
        chosen = cohort.records.iloc[[7, 3, 20]]
        beats, inputs = known_place.inputs_of(cohort, chosen, ZSCORE)
        bank = BeatBank(cohort.beats, cohort.records.label, torch.device("cpu"))
        np.testing.assert_array_equal(inputs, bank.batch(torch.tensor([7, 3, 20]))[:, 0].numpy())
        np.testing.assert_array_equal(beats, cohort.beats[[7, 3, 20]])
        with pytest.raises(ValueError, match="trained on another cohort"):
            known_place.inputs_of(cohort, chosen, ZSCORE | {"cohort": "another"})


@pytest.fixture(scope="module")
def st_detector():
    """Sum of V2 to V4 from 60 to 200 ms after R: right on ST elevation added there."""
    weights = np.zeros((12, 400))
    weights[[LEADS.index(lead) for lead in ("V2", "V3", "V4")], 180:250] = 1
    return Linear(weights)


def anterior(place):
    """The half of the ECGs whose change is anterior."""
    half = slice(0, (len(place.inputs) + 1) // 2)
    parts = (getattr(place, name)[half] for name in ("beats", "inputs", "without", "truth"))
    return known_place.Place(*parts, place.meaning)


class TestCheck:
    @pytest.mark.parametrize("identity", [MILLIVOLT, RESAMPLED], ids=["400", "200"])
    def test_the_right_network_passes_and_its_table_has_a_row_per_method(
        self, bare, st_detector, identity
    ):
        detector = st_detector
        if identity is RESAMPLED:
            detector = Linear(st_detector.fc.weight[1].detach().reshape(12, 400)[:, ::2].numpy())
        place = anterior(planted(bare, 16, identity=identity))
        others = {"ST elevation": place}
        others["ST depression"] = planted(bare, 8, "ST depression", identity)
        found = saliency_checks.check(detector, place.beats, place.inputs, others)
        assert found.table.index.tolist() == list(saliency.METHODS.values())
        # elevation moves the logit up, depression down
        assert found.judged == "ST elevation"
        row = found.table.loc["Gradient saliency"]
        assert row.randomisation == row.deletion == row.localisation == "yes"
        assert row["ST elevation: trained"] > 3 > 1.2 > row["ST elevation: randomised"]
        assert row["ST elevation: hits"] > 0.5
        assert row["logit against random"] < 0 and row["logit against QRS energy"] < 0
        assert "Gradient saliency: passes all three." in found.verdict
        assert "can be trusted." in found.verdict
        assert set(found.maps) == set(saliency.METHODS.values())

    def test_no_method_is_asked_for_more_than_an_exact_map_would_give(self, bare, st_detector):
        """A map of whole leads can't say when: its best is the right leads' share."""
        place = anterior(planted(bare, 8))
        args = st_detector, place.beats, place.inputs, {"ST elevation": place}
        table = saliency_checks.check(*args).table
        exact = table["ST elevation: exact"]
        inside = saliency_checks.localisation(np.abs(change(place)), place.truth).mean()
        assert exact["Gradient saliency"] == pytest.approx(inside["share"] / inside["chance"])
        leads = place.truth.any(2, keepdims=True) * np.ones_like(place.inputs)
        best = saliency_checks.localisation(leads, place.truth).mean()
        best = best["share"] / best["chance"]
        assert exact["Occlusion by lead"] == pytest.approx(best, rel=0.05)
        assert exact["Occlusion by wave"] < exact["Gradient saliency"]
        assert table.loc["Occlusion by lead", "ST elevation: trained"] == pytest.approx(
            best, rel=0.2
        )
        assert table.loc["Occlusion by lead", "localisation"] == "yes"

    def test_a_network_that_looks_elsewhere_fails(self, bare):
        weights = np.zeros((12, 400))
        weights[LEADS.index("aVR"), :60] = 1
        place = anterior(planted(bare, 8))
        args = Linear(weights), place.beats, place.inputs, {"x": place}
        found = saliency_checks.check(*args)
        assert (found.table.localisation == "no").all()
        assert found.verdict.endswith(
            "no map can be trusted: none may be read as showing where a disease is."
        )

    def test_what_is_erased_of_fewer_samples_is_40_ms_too(self):
        x = np.zeros((1, 12, 200), np.float32)
        x[0, 3, 105], x[0, 3, 112:118] = 100, 1  # a spike, and the next 40 ms
        model = Linear(np.ones((12, 200)))
        logit = (
            saliency_checks.deletion(model, x, {}, fractions=(1, 1 / 240)).set_index("map").logit
        )
        gone, left = logit["QRS energy"]
        assert left - gone == pytest.approx(6, abs=1e-3)

    def test_compare(self):
        maps = {name: np.random.default_rng(k).random((3, 12, 400)) for k, name in enumerate("abc")}
        table = saliency.compare(maps)
        np.testing.assert_allclose(table, table.T)
        assert table.loc["a", "c"] == pytest.approx(saliency.agreement(maps["a"], maps["c"]).mean())
        np.testing.assert_allclose(np.diag(table), 1)

    def test_rotations_are_compared_in_pairs_and_as_mean_maps(self):
        """Networks that share a mean map and nothing in a single ECG, and none to compare with."""
        rng = np.random.default_rng(0)
        shared = np.repeat(rng.random((1, 12, 20)), 20, axis=2)
        maps = {k: shared + 2 * rng.random((60, 12, 20)).repeat(20, axis=2) for k in range(3)}
        told = saliency.rotations_alike(maps)
        each, whole = (float(part.split()[0]) for part in told.split(" by ")[1:])
        assert "3 rotations" in told and "over 3 pairs" in told and each < 0.4 < 0.8 < whole
        assert "can't be compared" in saliency.rotations_alike({0: maps[0]})

    def test_what_is_called_is_counted(self, bare, st_detector):
        place = anterior(planted(bare, 16))
        weak = Linear(0.02 * st_detector.fc.weight[1].detach().numpy())
        before, after = (score(weak, x) for x in (place.without, place.inputs))
        threshold = float(np.sort(after)[1:3].mean())
        table, told = known_place.called(weak, {"ST elevation": place}, threshold)
        row = table.loc["ST elevation"]
        n = len(after)
        assert row["called"] == pytest.approx((n - 2) / n)
        assert row["called without"] == np.mean(before >= threshold) < row["called"]
        assert f"calls {(n - 2) / n:.0%} of {n} ECGs positive" in told[0]


def score(model, inputs):
    """Probability of the positive class by torch's softmax."""
    return model(torch.from_numpy(inputs)[:, None]).softmax(1)[:, 1].detach().numpy()
