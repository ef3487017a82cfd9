import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from ecglib.dataset import CROP, BeatBank, inputs, normalise, seen_as, undersampled_batches

BEATS = np.random.default_rng(1).integers(-3000, 3000, (20, 12, 600)).astype(np.int16)
LABELS = np.arange(20) % 3 == 0


def test_zscore_is_per_record_and_lead_with_population_sd():
    cropped = BEATS[:, :, CROP].astype(np.float64)
    expected = (cropped - cropped.mean(-1, keepdims=True)) / cropped.std(-1, keepdims=True)
    got = normalise(torch.from_numpy(BEATS[:, :, CROP].copy()))
    assert got.dtype == torch.float32 and got.shape == (20, 12, 400)
    assert np.abs(got.numpy() - expected).max() < 1e-4


def test_flat_lead_becomes_zero_and_millivolts_stay():
    flat = torch.full((1, 12, 400), 700, dtype=torch.int16)
    assert (normalise(flat).abs() < 1e-6).all()
    assert normalise(flat, "millivolt").unique().item() == pytest.approx(0.7)


def test_streaming_gives_the_same_batches(tmp_path):
    np.save(tmp_path / "beats.npy", BEATS)
    mapped = np.load(tmp_path / "beats.npy", mmap_mode="r")
    cpu = torch.device("cpu")
    held, streamed = BeatBank(mapped, LABELS, cpu), BeatBank(mapped, LABELS, cpu, stream=True)
    at = torch.tensor([3, 17, 3, 0])
    assert torch.equal(held.batch(at), streamed.batch(at)) and held.batch(at).shape == (
        4,
        1,
        12,
        400,
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(30, 600), st.floats(0.02, 0.9), st.sampled_from([16, 64, 128]), st.integers(0, 50)
)
def test_batches_hold_every_positive_and_as_many_negatives(n, share, size, seed):
    labels = (np.random.default_rng(seed).random(n) < share).astype(int)
    batches = undersampled_batches(labels, size, torch.Generator().manual_seed(seed))
    seen = torch.cat(batches).numpy() if batches else np.array([], int)
    assert len(seen) == len(set(seen)), "no record twice in an epoch"
    left_out = set(np.flatnonzero(labels)) - set(seen)
    assert len(left_out) <= (n % size == 1), (
        "every positive in every epoch, but for one alone in the last batch"
    )
    assert len(batches) <= -(-n // size) and all(len(batch) > 1 for batch in batches)
    for batch in batches:
        positive = labels[batch.numpy()].sum()
        assert positive >= 1 and len(batch) - positive <= positive, "at most 1:1"
        if positive <= size // 2 and len(batch) < size:
            assert len(batch) <= 2 * positive


def test_new_negatives_each_epoch_and_repeatable():
    labels = (np.arange(500) % 11 == 0).astype(int)
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.cat(undersampled_batches(labels, 128, generator)) for _ in range(2))
    again = torch.cat(undersampled_batches(labels, 128, torch.Generator().manual_seed(5)))
    assert torch.equal(first, again) and set(first.tolist()) != set(second.tolist())


def test_effective_batch_of_the_paper():
    labels = np.zeros(8691, int)
    labels[:772] = 1  # the paper's selected training split
    batches = undersampled_batches(labels, 128, torch.Generator().manual_seed(0))
    assert len(batches) == 68 and 20 < np.mean([len(b) for b in batches]) < 26


@pytest.mark.parametrize("samples", [400, 200])
@pytest.mark.parametrize("how", ["lead_zscore", "millivolt", "lead_max"])
def test_inputs_are_what_training_shows_a_network(how, samples):
    identity = {"training": {"normalisation": how, "samples": samples}}
    bank = BeatBank(BEATS, LABELS, torch.device("cpu"), **seen_as(identity))
    seen = inputs(BEATS, identity)
    assert seen.dtype == torch.float32 and seen.shape == (20, 1, 12, samples)
    assert torch.equal(seen, bank.batch(torch.arange(20)))


def test_the_authors_later_input_is_resampled_and_then_divided_by_each_leads_largest_value():
    beats = BEATS.copy()
    beats[3, 5] = 0
    expected = signal.resample(beats[:, :, CROP].astype(float), 200, axis=2)
    largest = np.abs(expected).max(2, keepdims=True)
    expected /= np.where(largest == 0, 1, largest)
    seen = inputs(beats, {"training": {"normalisation": "lead_max", "samples": 200}})[:, 0].numpy()
    np.testing.assert_allclose(seen, expected, atol=2e-6)
    assert (seen[3, 5] == 0).all() and np.abs(seen).max() == 1


def test_a_run_that_does_not_say_how_was_z_scored():
    expected = inputs(BEATS, {"training": {"normalisation": "lead_zscore"}})
    assert torch.equal(inputs(BEATS, {}), expected)
    assert torch.equal(inputs(BEATS, {"training": {}}), expected)
