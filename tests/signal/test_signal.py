import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import resample_poly

from ecglib.beat import LEADS, R_SAMPLE
from ecglib.settings import Signal
from ecglib.signal import SignalError, average, beats, filters, process

RATE = 500
SETTINGS = Signal()
WAVES = {  # centre and width in s, amplitude in µV on three axes
    "P": (-0.16, 0.022, (60, 90, -30)),
    "Q": (-0.025, 0.008, (-90, -60, 60)),
    "R": (0.0, 0.011, (800, 600, -500)),
    "S": (0.028, 0.010, (-150, -250, 300)),
    "T": (0.28, 0.045, (200, 180, 120)),
}
ECTOPIC = {"R": (0.02, 0.035, (-700, 900, 500)), "T": (0.30, 0.060, (400, -350, -200))}


def directions():
    """Unit directions of the twelve leads on three axes; the limb leads obey Einthoven and
    Goldberger.
    """
    one, two = np.array([1.0, 0, 0]), np.array([0.5, 0.87, 0])
    chest = np.array(
        [
            [-0.4, 0.1, 0.9],
            [-0.1, 0.2, 1],
            [0.3, 0.3, 0.8],
            [0.6, 0.4, 0.4],
            [0.8, 0.4, 0],
            [0.9, 0.4, -0.2],
        ]
    )
    return np.vstack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, chest])


def one_beat(waves, t):
    vector = sum(np.outer(a, np.exp(-0.5 * ((t - c) / w) ** 2)) for c, w, a in waves.values())
    return directions() @ vector


def recording(seed, ectopic=(), noise=15.0, wander=200.0, mains=20.0, seconds=10, rr=0.8):
    """A recording of known beats; returns it, its R times and which of the beats are ectopic."""
    rng = np.random.default_rng(seed)
    t = np.arange(seconds * RATE) / RATE
    times, kinds, now = [], [], 0.4
    while now < seconds:
        early = len(times) in ectopic
        times.append(now - 0.25 * rr * early)
        kinds.append(early)
        now += rr * rng.normal(1, 0.02)
    signal = sum(
        one_beat(ECTOPIC if e else WAVES, t - r) for r, e in zip(times, kinds, strict=True)
    )
    signal += noise * rng.normal(size=signal.shape)
    drift = wander * np.sin(2 * np.pi * 0.25 * t + rng.uniform(0, 6, (3, 1)))
    signal += directions() @ drift / 2 + mains * np.sin(2 * np.pi * 50 * t + 1)
    return signal.astype(np.float32), np.array(times), np.array(kinds)


def true_beat():
    """The median beat without noise: R peak of the twelve leads at sample 300, each lead minus its
    PQ median.
    """
    t = np.arange(-500, 500) / RATE
    beat = one_beat(WAVES, t)
    r = int(np.argmax(np.mean(beat**2, axis=0)))
    return beat[:, r - 300 : r + 300] - np.median(beat[:, r - 100 : r - 25], axis=1, keepdims=True)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


def error(found):
    """RMS error in µV where the neighbouring beats don't reach; that is the part the networks
    see.
    """
    return rms((found.beat - true_beat())[:, 150:550])


@pytest.mark.parametrize("seed", range(5))
def test_median_beat_is_the_true_beat(seed):
    signal, _, _ = recording(seed)
    found = process(signal, RATE, SETTINGS)
    assert error(found) < 20
    assert np.argmax(np.mean(found.beat**2, axis=0)) == pytest.approx(R_SAMPLE, abs=1)
    assert not found.poor_quality, found.quality_reasons
    assert found.rr_ms == pytest.approx(800, rel=0.03)


def test_augmented_lead_keeps_its_sign():
    found = process(recording(1)[0], RATE, SETTINGS).beat
    assert found[LEADS.index("aVR"), R_SAMPLE] < -300
    assert rms(found[3] + (found[0] + found[1]) / 2) < 20


def test_ectopic_beats_are_rejected_and_others_kept():
    rejected = ectopics = kept = normal = 0
    for seed in range(30):
        places = np.random.default_rng(seed).choice(
            np.arange(1, 11), size=1 + seed % 3, replace=False
        )
        signal, times, kinds = recording(seed, ectopic=set(places), noise=25)
        found = process(signal, RATE, SETTINGS)
        at = np.abs(found.r_peaks[:, None] / RATE - times).argmin(axis=1)
        whole = beats.whole(found.r_peaks, signal.shape[1])
        ectopics += int(kinds[at][whole].sum())
        rejected += int((kinds[at] & ~found.used)[whole].sum())
        normal += int((~kinds[at])[whole].sum())
        kept += int((~kinds[at] & found.used)[whole].sum())
        assert error(found) < 25
    assert ectopics > 40
    assert rejected / ectopics >= 0.95
    assert kept / normal >= 0.95


def test_in_bigeminy_the_beat_after_the_pause_is_chosen():
    signal, times, kinds = recording(3, ectopic={1, 3, 5, 7, 9, 11})
    found = process(signal, RATE, SETTINGS)
    at = np.abs(found.r_peaks[found.used, None] / RATE - times).argmin(axis=1)
    assert not kinds[at].any()


@pytest.mark.parametrize("rate", [250, 257, 360, 1000])
def test_other_rates_give_the_same_beat(rate):
    signal, _, _ = recording(2, noise=5)
    other = resample_poly(signal, rate, RATE, axis=1, padtype="line")
    a, b = (process(x, r, SETTINGS).beat for x, r in ((signal, RATE), (other, rate)))
    assert rms(a - b) < 12


def test_filters_have_no_delay_and_the_stated_edges():
    f = filters.frequencies(5000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5000)).astype(np.float32)
    gain = filters.high_pass(0.7, f) * filters.low_pass(150, f)
    back = filters.apply(x[:, ::-1], gain)[:, ::-1]
    np.testing.assert_allclose(filters.apply(x, gain), back, atol=1e-4)
    t = np.arange(5000) / RATE
    for hz, gain, expected in (
        (0.7, filters.high_pass(0.7, f), 0.707),
        (100.0, filters.low_pass(100, f), 0.707),
        (10.0, filters.high_pass(0.7, f) * filters.low_pass(150, f), 1.0),
        (50.0, filters.notch(50, f), 0.0),
        (45.0, filters.notch(50, f), 1.0),
    ):
        tone = np.cos(2 * np.pi * hz * t)[None]
        assert rms(filters.apply(tone, gain)[:, 500:-500]) / rms(tone) == pytest.approx(
            expected, abs=0.03
        )


@pytest.mark.parametrize("hz", [50, 60, None])
def test_mains_is_found_and_taken_out(hz):
    signal, _, _ = recording(4, mains=0)
    t = np.arange(signal.shape[1]) / RATE
    dirty = signal + 100 * np.sin(2 * np.pi * (hz or 0) * t).astype(np.float32)
    assert filters.find_mains(dirty) == hz
    assert error(process(dirty, RATE, SETTINGS)) < 20


def test_pacing_spikes_are_blanked_and_narrow_complexes_are_not():
    signal, times, _ = recording(5, mains=0)
    paced = signal.copy()
    for r in times[1:-1]:
        paced[:, int((r - 0.2) * RATE) + np.arange(2)] += 2500 * directions()[:, [1]].astype(
            np.float32
        )
    assert np.abs(filters.blank_pacing(paced) - signal).max() < 250
    np.testing.assert_array_equal(filters.blank_pacing(signal), signal)
    blanked = process(paced, RATE, SETTINGS)
    assert error(blanked) < 20
    assert blanked.n_beats == process(signal, RATE, SETTINGS).n_beats


def test_a_pacing_spike_that_comes_later_in_one_lead_is_blanked_there_too():
    signal, times, _ = recording(5, mains=0)
    paced = signal.copy()
    for r in times[1:-1]:
        spike = int((r - 0.1) * RATE) + np.arange(2)
        paced[:, spike] += 2500 * directions()[:, [1]].astype(np.float32)
        paced[8, spike] -= 2500 * directions()[8, 1]
        paced[8, spike + 6] += 4000  # 12 ms later, as some recorders write V3
    found = process(paced, RATE, SETTINGS)
    plain = process(signal, RATE, SETTINGS).beat
    assert np.corrcoef(found.beat[8], plain[8])[0, 1] > 0.995
    assert np.abs(found.beat - plain).max() < 60


def test_an_artefact_in_one_lead_is_left_out_of_that_lead():
    signal, _, _ = recording(6)
    signal[8, 1500:2000] += 4000 * np.random.default_rng(0).normal(size=500).astype(np.float32)
    found = process(signal, RATE, SETTINGS)
    assert error(found) < 20
    assert found.n_used >= 9


@given(hnp.arrays(np.float64, (5, 3, 4), elements=st.one_of(st.floats(-1e3, 1e3), st.just(np.nan))))
def test_median_agrees_with_nanmedian(x):
    known = ~np.isnan(x).all(axis=0)
    found = beats.median(x)
    np.testing.assert_allclose(found[known], np.nanmedian(x[:, known], axis=0))
    assert np.isnan(found[~known]).all()


def test_alignment_finds_the_shift_that_brute_force_finds():
    signal, times, _ = recording(7, noise=30)
    r = np.round(times[1:-1] * RATE).astype(int)
    template = beats.cut(signal, r[:1])[0]
    moved = r + np.random.default_rng(1).integers(-10, 11, size=len(r))
    pattern = template[:, beats.SHAPE] - template[:, beats.SHAPE].mean(axis=1, keepdims=True)
    brute = [
        max(range(m - 15, m + 16), key=lambda k: np.sum(signal[:, k - 100 : k + 100] * pattern))
        for m in moved
    ]
    np.testing.assert_array_equal(beats.align(signal, moved, template), brute)


def test_a_beat_can_be_made_of_the_band_that_a_cohort_holds():
    signal, _, _ = recording(5, noise=10)
    low = process(resample_poly(signal, 100, RATE, axis=1, padtype="line"), 100, SETTINGS)
    wide, same = (
        process(signal, RATE, SETTINGS.model_copy(update={"band_hz": band})) for band in (None, 50)
    )
    assert rms(same.beat - low.beat) < 0.5 * rms(wide.beat - low.beat)
    assert same.quality_reasons == wide.quality_reasons == ""
    low, own, narrow = (
        process(signal[:, ::5], 100, SETTINGS.model_copy(update={"band_hz": band}))
        for band in (None, 50, 150)
    )
    np.testing.assert_array_equal(own.beat, low.beat, "it is of that band")
    assert narrow.quality_reasons == "narrow_band:50_Hz" and not narrow.poor_quality


def test_a_lead_with_nothing_left_is_zero():
    signal, times, _ = recording(8)
    artefact = np.zeros(signal.shape, dtype=bool)
    artefact[4] = True
    beat, spread, uncertainty = average(signal, artefact, np.round(times[1:-1] * RATE).astype(int))
    assert not beat[4].any()
    assert np.isinf([spread[4], uncertainty[4]]).all()
    assert np.isfinite(beat).all()


@pytest.mark.parametrize(
    ("signal", "rate", "says"),
    [
        (np.zeros((12, 5000)), 0, "rate"),
        (np.zeros((12, 5000)), np.nan, "rate"),
        (np.zeros((8, 5000)), 500, "shape"),
        (np.zeros((12, 500)), 500, "shape"),
        (np.zeros((12, 5000)), 500, "usable"),
        (np.full((12, 5000), np.nan), 500, "0 leads of the recording are usable"),
    ],
)
def test_a_hopeless_recording_is_refused_in_one_sentence(signal, rate, says):
    with pytest.raises(SignalError, match=says) as refusal:
        process(signal, rate, SETTINGS)
    assert "\n" not in str(refusal.value)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([100, 250, 500, 1000]),
    st.floats(0, 5),
    st.integers(0, 3),
)
def test_whatever_comes_in_nothing_undefined_comes_out(seed, rate, level, damage):
    rng = np.random.default_rng(seed)
    signal, _, _ = recording(seed, noise=10**level)
    signal = signal[:, :: max(RATE // rate, 1)]
    for lead in rng.choice(12, size=damage, replace=False):
        signal[lead] = rng.choice([np.nan, 0, 1e6, np.inf])
    try:
        found = process(signal, rate, SETTINGS)
    except SignalError:
        return
    assert np.isfinite(found.beat).all()
    assert all(np.isfinite(v) for v in found.columns().values() if not isinstance(v, str))


def test_100_hz_and_500_hz_recordings_give_the_same_median_beats(real_data):
    lags, differences = [], []
    for file in sorted((real_data / "ptb-xl" / "records500").rglob("*.dat")):
        high = np.fromfile(file, dtype="<i2").reshape(5000, 12).T.astype(np.float32)
        low = str(file).replace("records500", "records100").replace("_hr", "_lr")
        low = np.fromfile(low, dtype="<i2").reshape(1000, 12).T.astype(np.float32)
        low = resample_poly(low, 5, 1, axis=1, padtype="line")
        low = np.concatenate([low[:, 1:], low[:, -1:]], axis=1)  # the 100 Hz files come 2 ms late
        a, b = (process(x, RATE, SETTINGS).beat for x in (high, low))
        differences.append(rms(a - b))
        lags.append(
            min(range(-10, 11), key=lambda k: rms(a[:, 20:-20] - np.roll(b, k, axis=1)[:, 20:-20]))
        )
    print(
        f"Median difference {np.median(differences):.1f} µV RMS; "
        f"without lag: {np.mean(np.equal(lags, 0)):.0%}"
    )
    assert len(lags) == 71
    assert np.median(lags) == 0
    assert np.mean(np.equal(lags, 0)) > 0.7
    assert np.median(differences) <= 15
