"""R peaks where they are hard to find: quiet ends, slow hearts, small complexes, high T waves."""

import numpy as np
import pytest
from test_signal import RATE, SETTINGS, WAVES, one_beat, recording

from ecglib.signal import SignalError, beats, process, quality, repair


def train(times, waves=WAVES, seconds=10, noise=5.0, sizes=None):
    """Beats at `times` in s, of these relative `sizes`."""
    t = np.arange(seconds * RATE) / RATE
    sizes = np.ones(len(times)) if sizes is None else sizes
    signal = sum(s * one_beat(waves, t - at) for at, s in zip(times, sizes, strict=True))
    signal += noise * np.random.default_rng(0).normal(size=signal.shape)
    return signal.astype(np.float32)


def quiet(kind, signal, keep):
    rng = np.random.default_rng(1)
    level = {"zeros": 0, "constant": 400, "noise": rng.normal(0, 2, signal.shape), "NaN": np.nan}
    padded = np.zeros_like(signal) + np.float32(level[kind])
    padded[:, keep] = signal[:, keep]
    return padded


@pytest.mark.parametrize("kind", ["zeros", "constant", "noise", "NaN"])
@pytest.mark.parametrize(("start", "stop"), [(0.5, 10), (4, 10), (1.6, 8.4), (0, 5)])
def test_quiet_ends_change_nothing(kind, start, stop):
    signal, _, _ = recording(4, wander=300)
    keep = slice(int(start * RATE), int(stop * RATE))
    found = process(quiet(kind, signal, keep), RATE, SETTINGS)
    alone = process(signal[:, keep], RATE, SETTINGS)
    assert found.rr_ms == pytest.approx(alone.rr_ms, rel=0.01)
    assert found.start == pytest.approx(keep.start, abs=10)
    np.testing.assert_allclose(found.r_peaks + found.start, alone.r_peaks + keep.start, atol=1)
    assert np.abs(found.beat - alone.beat)[:, 150:550].max() < 15
    assert found.poor_quality == alone.poor_quality


def test_a_pause_between_beats_is_no_quiet_end():
    signal = train(np.arange(0.35, 10, 0.8), noise=0)
    assert repair.live(signal, RATE) == slice(0, 5000)


def test_a_recording_that_is_all_quiet_is_refused():
    with pytest.raises(SignalError, match=r"Only 0\.0 s"):
        process(np.zeros((12, 5000)), RATE, SETTINGS)


@pytest.mark.parametrize("rr", [0.35, 0.6, 1.4, 1.9])
def test_slow_and_fast_hearts(rr):
    found = process(train(np.arange(0.5, 9.8, rr)), RATE, SETTINGS)
    assert found.rr_ms == pytest.approx(1000 * rr, rel=0.02)
    assert "unsure_rate" not in found.quality_reasons and "not_qrs" not in found.quality_reasons


def test_high_t_and_p_waves_are_no_beats():
    waves = WAVES | {"T": (0.3, 0.06, (700, 700, 400)), "P": (-0.18, 0.03, (250, 300, -90))}
    found = process(train(np.arange(0.5, 9.8, 1.3), waves), RATE, SETTINGS)
    assert found.rr_ms == pytest.approx(1300, rel=0.02)
    assert "not_qrs" not in found.quality_reasons


def test_small_complexes_between_large_ones_are_beats():
    times = np.arange(0.5, 9.8, 0.8)
    sizes = np.where(np.arange(len(times)) % 3 == 1, 0.4, 1.0)
    found = process(train(times, sizes=sizes), RATE, SETTINGS)
    assert found.n_beats == len(times)


def test_of_two_close_peaks_the_larger_is_the_beat():
    signal = train([1, 2, 3, 4, 5, 6, 7, 8, 9], noise=0)
    early = train([2.85], {"R": (0, 0.012, (400, 300, -300))}, noise=0)
    peaks = beats.r_peaks(signal + early, beats.activity(signal + early))
    assert len(peaks) == 9 and abs(peaks[2] - 3 * RATE) <= 2


def test_a_period_is_told_of_a_regular_rhythm_only():
    regular = beats.activity(train(np.arange(0.5, 9.8, 0.9)))
    assert beats.period(regular) == pytest.approx(450, abs=3)
    rng = np.random.default_rng(0)
    assert np.isnan(beats.period(beats.activity(train(np.cumsum(rng.uniform(0.4, 1.4, 10))))))


def test_a_beat_that_is_not_centred_on_a_qrs_says_so():
    found = process(train(np.arange(0.5, 9.8, 1.2)), RATE, SETTINGS)
    moved = np.roll(found.beat, 75, axis=1)
    used, rr = np.ones(8, dtype=bool), np.full(7, 600)
    assert quality.doubts(found.beat, rr, 600.0, 2, used) == []
    assert quality.doubts(moved, rr, np.nan, 2, used) == ["not_qrs"]
    assert quality.doubts(found.beat, rr, 600.0, 20, used) == ["noise"]
    assert quality.doubts(found.beat, rr, 600.0, 2, np.arange(16) < 6) == ["few_used"]
    assert quality.doubts(found.beat, rr, 600.0, 2, used[:4]) == ["few_beats"]


def test_a_rate_that_the_recording_does_not_repeat_with_is_unsure():
    beat = process(train(np.arange(0.5, 9.8, 1.2)), RATE, SETTINGS).beat
    used, waves = np.ones(8, dtype=bool), np.array([170, 430] * 4)  # samples: T waves as beats
    assert quality.doubts(beat, waves, 600.0, 2, used) == ["unsure_rate"]
    bigeminy = np.array([250, 550] * 4)
    assert quality.doubts(beat, bigeminy, 800.0, 2, used) == []
    assert quality.doubts(beat, np.full(4, 1200), 600.0, 2, used) == ["unsure_rate"]


@pytest.mark.parametrize("rate", [100, 500])
def test_broadband_noise_on_the_electrodes_is_flagged(rate):
    signal, _, _ = recording(1)
    signal = signal[:, :: RATE // rate]
    rng = np.random.default_rng(0)
    right, left, leg, *chest = rng.normal(0, 50, (9, signal.shape[1]))
    limb = repair.limb_leads(np.stack([left - right, leg - right]))
    noisy = signal + np.vstack([limb, np.array(chest) - (right + left + leg) / 3])
    assert "noise" in process(noisy, rate, SETTINGS).quality_reasons.split(";")
    assert "noise" not in process(signal, rate, SETTINGS).quality_reasons.split(";")


def test_few_used_beats_are_flagged():
    times = np.arange(0.5, 9.8, 0.6)
    rng = np.random.default_rng(2)
    signal = train(times)
    for at in times[3:13]:  # every beat another shape
        waves = {"R": (0.0, 0.02, tuple(rng.normal(0, 900, 3)))}
        signal += train([at], waves, noise=0)
    found = process(signal, RATE, SETTINGS)
    assert found.n_used < 0.5 * found.n_beats
    assert "few_used" in found.quality_reasons
