import itertools

import numpy as np
import pytest
from scipy.signal import resample_poly

from ecglib.beat import LEADS
from ecglib.settings import Signal
from ecglib.signal import REMARKS, process, repair

SETTINGS = Signal()
NUMBER = {lead: i for i, lead in enumerate(LEADS)}


@pytest.fixture(scope="module")
def ecgs(real_data):
    """Every 40th of the PTB-XL recordings at 100 Hz, in µV."""
    files = sorted((real_data / "ptb-xl" / "records100").rglob("*.dat"))[::40]
    return [np.fromfile(file, dtype="<i2").reshape(1000, 12).T.astype(np.float32) for file in files]


@pytest.fixture(scope="module")
def good(ecgs):
    """A real recording without a flaw."""
    found = ((x, process(x, 100, SETTINGS)) for x in ecgs)
    return next(x for x, beat in found if not beat.poor_quality and beat.noise_uv < 20)


def reasons(signal, rate=100):
    found = process(signal, rate, SETTINGS)
    words = found.quality_reasons.split(";") if found.quality_reasons else []
    assert found.poor_quality == any(w.split(":")[0] not in REMARKS for w in words)
    assert not np.isnan(found.beat).any()
    return words


def changed(signal, **leads):
    signal = signal.copy()
    for lead, values in leads.items():
        signal[NUMBER[lead]] = values
    return signal


def swapped(signal, first, second):
    """Exchange the electrodes RA, LA, LL: the chest leads keep their places."""
    potential = {"RA": 0 * signal[0], "LA": signal[0], "LL": signal[1]}
    potential[first], potential[second] = potential[second], potential[first]
    one, two = potential["LA"] - potential["RA"], potential["LL"] - potential["RA"]
    return np.vstack([repair.limb_leads(np.stack([one, two])), signal[6:]])


def test_few_real_recordings_are_doubted(ecgs):
    doubted = [bool(reasons(x)) for x in ecgs]
    print(f"{np.mean(doubted):.1%} of {len(doubted)} recordings")
    assert np.mean(doubted) < 0.05


def test_a_missing_limb_lead_is_rebuilt_and_a_present_one_is_not(good):
    beat = process(good, 100, SETTINGS).beat
    missing = changed(good, III=np.nan, aVR=np.nan)
    assert reasons(missing) == ["rebuilt:III", "rebuilt:aVR"]
    np.testing.assert_allclose(process(missing, 100, SETTINGS).beat, beat, atol=3)
    assert reasons(changed(good, aVR=-good[NUMBER["aVR"]])) == ["goldberger:aVR"]


def test_one_chest_lead_is_rebuilt_and_two_are_not(good):
    assert reasons(changed(good, V3=np.nan)) == ["rebuilt:V3"]
    found = process(changed(good, V3=np.nan), 100, SETTINGS).beat
    np.testing.assert_allclose(found[8], (found[7] + found[9]) / 2, atol=60)
    assert reasons(changed(good, V3=np.nan, V4=np.nan)) == ["missing:V3", "missing:V4"]
    assert not process(changed(good, V3=np.nan, V4=np.nan), 100, SETTINGS).beat[8:10].any()


@pytest.mark.parametrize("lead", ["V1", "V6"])
def test_leads_that_others_cannot_tell_are_missing(good, lead):
    assert f"missing:{lead}" in reasons(changed(good, **{lead: np.nan}))


@pytest.mark.parametrize("pair", itertools.combinations(LEADS[:6], 2))
def test_any_two_limb_leads_give_the_other_four(good, pair):
    beat = process(good, 100, SETTINGS).beat
    others = [lead for lead in LEADS[:6] if lead not in pair]
    signal = changed(good, **dict.fromkeys(others, np.nan))
    assert reasons(signal) == [f"rebuilt:{lead}" for lead in others]
    # µV are whole numbers: their rounding doubles on the way from the augmented leads
    np.testing.assert_allclose(process(signal, 100, SETTINGS).beat, beat, atol=12)


def test_one_limb_lead_does_not_give_the_others(good):
    signal = changed(good, **dict.fromkeys(["I", "III", "aVR", "aVL", "aVF"], np.nan))
    assert reasons(signal)[:2] == ["missing:I", "missing:III"]


@pytest.mark.parametrize("where", [slice(480, 490), slice(-10, None), slice(0, 10)])
def test_a_gap_of_100_ms_is_bridged_and_counted(good, where):
    signal = good.copy()
    signal[NUMBER["V5"], where] = np.nan
    assert reasons(signal) == ["bridged:100_ms"]
    beat = process(good, 100, SETTINGS).beat
    np.testing.assert_allclose(process(signal, 100, SETTINGS).beat, beat, atol=60)


def test_a_longer_gap_costs_the_lead(good):
    signal = good.copy()
    signal[[NUMBER["V5"], NUMBER["aVF"]], 480:492] = np.nan
    assert reasons(signal) == ["rebuilt:aVF", "rebuilt:V5"]
    signal = good.copy()
    signal[NUMBER["V1"], 480:492] = np.nan
    assert reasons(signal) == ["missing:V1"]


def test_a_flat_chest_lead_is_rebuilt_and_a_flat_limb_lead_is_not(good):
    for level in (12.0, 12.0 + np.random.default_rng(0).normal(0, 2, good.shape[1])):
        assert reasons(changed(good, V3=level)) == ["rebuilt:V3"]
        found = process(changed(good, V3=level), 100, SETTINGS).beat
        np.testing.assert_allclose(found[8], (found[7] + found[9]) / 2, atol=60)
    assert reasons(changed(good, V3=12.0, V4=12.0)) == ["flat:V3", "flat:V4"]
    assert "flat:II" in reasons(changed(good, II=12.0))


def test_flat_clipped_and_noisy_leads_are_named(good):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 400, good.shape[1]).astype(np.float32)
    assert reasons(changed(good, V1=12.0)) == ["flat:V1"]
    assert reasons(changed(good, V3=good[8] + noise)) == ["noisy:V3"]
    fine = resample_poly(good, 5, 1, axis=1, padtype="line").round()
    level = 0.4 * np.percentile(fine[7], 0.1)
    assert reasons(changed(fine, V2=np.maximum(fine[7], level)), 500) == ["clipped:V2"]


@pytest.mark.parametrize("scale", [0.5, 2.0, -1.0])
@pytest.mark.parametrize("lead", ["I", "II", "III", "aVR", "aVL", "aVF"])
def test_a_mis_scaled_limb_lead_is_noticed(good, lead, scale):
    limb = good[NUMBER[lead]]
    if limb.std() < 60:
        pytest.skip(f"{lead} is too small in this recording")
    found = reasons(changed(good, **{lead: scale * limb}))
    assert found in (["einthoven"], [f"goldberger:{lead}"])
    assert found == (["einthoven"] if lead in ("I", "II", "III") else [f"goldberger:{lead}"])


def test_exchanged_labels_are_noticed(good):
    assert "einthoven" in reasons(changed(good, II=good[2], III=good[1]))


def test_exchanged_electrodes_are_told_without_doubting_the_others(ecgs):
    def told(signals):
        return np.mean(["limb_swap" in reasons(x) for x in signals])

    normal = told(ecgs)
    arms, leg = (told([swapped(x, "RA", other) for x in ecgs[::2]]) for other in ("LA", "LL"))
    print(
        f"limb_swap: as recorded {normal:.1%}, arms exchanged {arms:.1%}, "
        f"right arm and left leg {leg:.1%}"
    )
    assert normal < 0.02
    assert arms > 0.8
    assert leg > 0.4


def test_few_beats_are_flagged(good):
    beats = process(good, 100, SETTINGS).r_peaks / 5
    start = int(beats[2]) - 65
    assert "few_beats" in reasons(good[:, start : int(beats[5]) + 65])
