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
from ecglib.dataset import CROP, BeatBank
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


class TestKnownPlace:
    def test_simulated_injury(self, cohort):
        place = known_place.known_place(cohort, cohort.records, MILLIVOLT, SEED, 12)
        assert len(place.inputs) == 12 and place.truth.any((1, 2)).all()
        np.testing.assert_allclose(1000 * (place.inputs - place.without), place.change, atol=0.1)
        assert (
            np.abs(place.change[~place.truth.any(1).repeat(12, 0).reshape(place.truth.shape)]).max()
            < 1e-3
        )
        inside = saliency_checks.localisation(place.change, place.truth)
        assert (inside.share > 2 * inside.chance).all() and inside.hit.mean() > 0.9

    def test_without_it_the_ecg_is_that_of_the_unharmed_heart(self, cohort):
        place = known_place.known_place(cohort, cohort.records, MILLIVOLT, SEED, 60)
        rows = cohort.records[
            cohort.records.record_id.isin(cohort.records.record_id[cohort.records.label == 1])
        ]
        st = (
            1000 * np.abs(place.without[:, :, 190:200]).max((1, 2)),
            1000 * np.abs(place.inputs[:, :, 190:200]).max((1, 2)),
        )
        assert np.median(st[0]) < 0.6 * np.median(st[1]) and len(place.inputs) <= len(rows)

    def test_added_to_negatives(self, bare):
        place = known_place.known_place(bare, bare.records, MILLIVOLT, SEED, 10)
        assert len(place.inputs) == 10 and "added to negatives" in place.meaning
        assert np.abs(place.change[~place.truth]).max() < 1e-3
        one, two, three, avr, avl, avf = place.change[:, :6].transpose(1, 0, 2)
        np.testing.assert_allclose(two, one + three, atol=1e-3)  # Einthoven, and Goldberger's three
        for lead, sum_of in ((avr, -(one + two)), (avl, one - three), (avf, two + three)):
            np.testing.assert_allclose(lead, sum_of / 2, atol=1e-3)
        np.testing.assert_allclose(place.change[:5, LEADS.index("V3")].max(1), 200, atol=1e-2)
        np.testing.assert_allclose(place.change[5:, LEADS.index("III")].max(1), 200, atol=1e-2)
        fine = bare.records[(bare.records.label == 0) & ~bare.records.poor_quality].record_id
        beats, _ = known_place.inputs_of(bare, pd.DataFrame({"record_id": fine}), MILLIVOLT)
        known = {row.tobytes() for row in beats[:, 0]}
        assert all(
            np.rint(beat[0]).astype(np.int16).tobytes() in known for beat in place.beats[:5]
        ), "V leads changed only"

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
    parts = (
        getattr(place, name)[half] for name in ("beats", "inputs", "without", "truth", "change")
    )
    return known_place.Place(*parts, place.meaning)


class TestCheck:
    @pytest.mark.parametrize("identity", [MILLIVOLT, RESAMPLED], ids=["400", "200"])
    def test_the_right_network_passes_and_its_table_has_a_row_per_method(
        self, bare, st_detector, identity
    ):
        detector = st_detector
        if identity is RESAMPLED:
            detector = Linear(st_detector.fc.weight[1].detach().reshape(12, 400)[:, ::2].numpy())
        place = anterior(known_place.known_place(bare, bare.records, identity, SEED, 16))
        found = saliency_checks.check(detector, place.beats, place.inputs, place, thorough=False)
        assert found.table.index.tolist() == list(saliency.METHODS.values())
        row = found.table.loc["Gradient saliency"]
        assert row.randomisation == row.deletion == row.localisation == "yes"
        assert (
            row["share / chance, trained"] > 3 > 1.2 > row["share / chance, randomised"]
            and row.hits > 0.5
        )
        assert row["logit against random"] < 0 and row["logit against QRS energy"] < 0
        assert (
            "Gradient saliency: passes all three." in found.verdict
            and "deserve trust." in found.verdict
        )
        assert set(found.layers.method) == set(found.maps) == set(saliency.METHODS.values())

    def test_other_ecgs_for_the_place_give_the_same_localisation(self, bare, st_detector):
        place = anterior(known_place.known_place(bare, bare.records, MILLIVOLT, SEED, 8))
        same = saliency_checks.check(
            st_detector, place.beats, place.inputs, place, thorough=False
        ).table
        other = saliency_checks.check(
            st_detector, place.beats[:2], place.inputs[:2].copy(), place, thorough=False
        ).table
        columns = [name for name in same if name.startswith("share")]
        pd.testing.assert_frame_equal(same[columns], other[columns], rtol=1e-4)

    def test_a_network_that_looks_elsewhere_fails(self, bare):
        weights = np.zeros((12, 400))
        weights[LEADS.index("aVR"), :60] = 1
        place = anterior(known_place.known_place(bare, bare.records, MILLIVOLT, SEED, 8))
        found = saliency_checks.check(
            Linear(weights), place.beats, place.inputs, place, thorough=False
        )
        assert (found.table.localisation == "no").all()
        assert found.verdict.endswith(
            "no map deserves trust: none may be read as the place of a disease."
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
        table = saliency_checks.compare(maps)
        np.testing.assert_allclose(table, table.T)
        assert table.loc["a", "c"] == pytest.approx(saliency.agreement(maps["a"], maps["c"]).mean())
        np.testing.assert_allclose(np.diag(table), 1)


class TestLimits:
    def test_z_scores_spread_what_millivolts_keep_in_place(self, cohort, st_detector):
        """The mean and spread of a lead move with its ST, and so do all of its samples."""
        rows = {}
        for identity in (MILLIVOLT, ZSCORE):
            place = known_place.known_place(cohort, cohort.records, identity, SEED, 12)
            rows[identity["training"]["normalisation"]], told = saliency_checks.limits(
                st_detector, place
            )
            assert "the simulated injury" in told and "× chance" in told
        volts, z = ("the change in µV", "the change in the network's input")
        table = rows["millivolt"].region
        assert table[volts] == pytest.approx(table[z], rel=1e-3)
        assert rows["lead_zscore"].region[z] < 0.6 * rows["lead_zscore"].region[volts]

    def test_fewer_samples_keep_it_in_place_too(self, cohort, st_detector):
        detector = Linear(st_detector.fc.weight[1].detach().reshape(12, 400)[:, ::2].numpy())
        place = known_place.known_place(cohort, cohort.records, RESAMPLED, SEED, 6)
        assert place.inputs.shape[2] == 200 and place.truth.shape[2] == 400
        table, _ = saliency_checks.limits(detector, place)
        volts, seen = table.loc["the change in µV"], table.loc["the change in the network's input"]
        assert seen.region == pytest.approx(volts.region, rel=0.02)

    def test_shares_are_those_of_localisation(self, cohort, st_detector):
        place = known_place.known_place(cohort, cohort.records, ZSCORE, SEED, 6)
        table, _ = saliency_checks.limits(st_detector, place)
        told = saliency_checks.localisation(
            saliency.attribute(st_detector, place.inputs), place.truth
        ).mean()
        row = table.loc["gradient (the paper's map)"]
        assert row.share == pytest.approx(told["share"]) and row.region == pytest.approx(
            told["share"] / told["chance"]
        )
        assert table.loc["gradient of the randomised network", "region"] == pytest.approx(
            1, abs=0.1
        )
        assert place.inputs.shape[2] == len(range(*CROP.indices(600)))
