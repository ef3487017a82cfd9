"""Features of median beats: recovered where the truth is known, near cardiologists' marks, missing
when they should.
"""

import numpy as np
import pandas as pd
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecglib.beat import LEADS, R_SAMPLE
from ecglib.cohort import synthetic
from ecglib.settings import Signal, SyntheticCohort
from ecglib.signal import process
from ecglib.trees.features import (
    DEFINITIONS,
    EIGHT,
    KORS,
    NAMES,
    SELVESTER,
    features,
    vectorcardiogram,
)

ST80 = [name for name in NAMES if name.startswith("st80_")]
TIME = np.arange(600) - R_SAMPLE


def bump(centre, width, height):
    """A wave of a Gaussian's form; centre and width in samples after R."""
    return height * np.exp(-(((TIME - centre) / width) ** 2) / 2)


def beat_of(p=(-75, 9, 1.0), qrs=(0, 8, 10.0), t=(140, 22, 3.0), direction=(0.7, 0.6, 0.3)):
    """A beat (12, 600) of waves along one direction: limb leads by Einthoven, precordial ones by a
    fixed projection.
    """
    wave = 100 * (bump(*p) + bump(*qrs) + bump(*t))
    x, y, z = direction
    one, foot = x, y * np.sqrt(3) / 2
    two = foot + one / 2
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, foot]
    chest = [-0.5 * x - z, -0.2 * x - z, 0.3 * x - z, 0.8 * x - z / 2, x, x + z / 3]
    return np.outer([*limb, *chest], wave).astype(np.float32)


def one(beat, rr=800.0):
    return features(np.asarray(beat)[None], [rr]).iloc[0]


# ------------------------------------------------------------------ the table that describes them


def test_every_feature_is_described_once():
    assert len(NAMES) == 73 and "Age" in DEFINITIONS.index and DEFINITIONS.index.is_unique
    assert list(features(np.zeros((1, 12, 600)), [800.0])) == list(NAMES)
    for column in ("family", "unit", "definition", "source"):
        assert (DEFINITIONS[column].str.len() > 0).all()
    assert DEFINITIONS.source.str.contains(r"\d{4}, .+ \d+:e?\d+").all()


# ------------------------------------------------------------------ known truth


@pytest.fixture(scope="module")
def simulated():
    """Features of simulated recordings, the noise-free beats, and when their waves begin and end
    (ms after R).
    """
    source = synthetic.open_source(SyntheticCohort(source="synthetic", records=90), seed=11)
    records = source.records[
        (source.records.disturbance == "none") & (source.records.rhythm == "sinus")
    ]
    rows = list(records.itertuples(index=False))
    limits = []
    for row in rows:
        heart = synthetic.heart_of(row, seed=11)
        wave = {kind: heart.times[np.isin(heart.kinds, kinds)] for kind, kinds in
                {"P": ["P"], "QRS": ["QRS"], "T": ["T", "injury"]}.items()}  # fmt: skip
        limits.append({"p_on": wave["P"][:, 0].min(), "q": wave["QRS"][:, 0].min(),
                       "j": wave["QRS"][:, 3].max(), "t_end": wave["T"][:, 3].max()})  # fmt: skip
    found = [process(*source.read(row), Signal()) for row in rows]
    table = features(np.stack([f.beat for f in found]), [f.columns()["rr_ms"] for f in found])
    true = np.stack([synthetic.true_beat(row, seed=11) for row in rows])
    return table, records.reset_index(drop=True), true, pd.DataFrame(limits)


def test_st_at_j80_is_recovered(simulated):
    table, _, true, limits = simulated
    rows = np.arange(len(true))
    q, j80 = (np.rint(R_SAMPLE + t / 2).astype(int) for t in (limits.q, limits.j + 80))
    expected = pd.DataFrame(
        true[rows, :, j80] - true[rows, :, q - 2], columns=[f"st80_{lead}" for lead in LEADS]
    )
    assert np.median(np.abs(table[ST80] - expected[ST80])) <= 15


@pytest.mark.parametrize(("name", "truth"), [("mfpQRSaxis", "qrs_axis"), ("fpTaxis", "t_axis")])
def test_axes_are_recovered(simulated, name, truth):
    table, records, *_ = simulated
    away = (table[name] - records[truth] + 180) % 360 - 180
    assert away.abs().median() <= 5


@pytest.mark.parametrize("name", ["PR", "QRSd", "QT", "HR"])
def test_intervals_are_recovered(simulated, name):
    table, records, _, limits = simulated
    if name == "HR":
        assert (60_000 / table.HR - 60_000 / records.heart_rate).abs().median() <= 8
        return
    found = {
        "PR": table.PR,
        "QRSd": table.QRSd,
        "QT": table.QRSd + table.JTc * np.sqrt(60 / table.HR),
    }[name]
    first, last = {"PR": ("p_on", "q"), "QRSd": ("q", "j"), "QT": ("q", "t_end")}[name]
    assert (found - (limits[last] - limits[first])).abs().median() <= 8


@pytest.mark.parametrize("angle", [-60, 0, 45, 90, 150])
def test_frontal_axes_of_a_fixed_direction(angle):
    direction = (np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.2)
    f = one(beat_of(direction=direction))
    assert abs(f.mfpQRSaxis - angle) < 1 and abs(f.fpTaxis - angle) < 1
    assert f.QRSTangle < 1 and f.mQRSTangle < 1 and f.TCRT > 0.99 and f.TCRTangle < 8


def test_an_opposite_t_wave_turns_the_angles():
    f = one(beat_of(t=(140, 22, -3.0)))
    assert f.QRSTangle > 179 and f.mQRSTangle > 179 and f.TCRT < -0.99
    assert f.tamp_II < 0 and f.tamp_aVR > 0 and f.latConcaveAmp == 0


def test_a_dipole_of_one_direction_has_one_component():
    f = one(beat_of())
    assert f.T_PCAratio < 1e-3 and f.QRS_PCAratio < 1e-3 and f.TNDPV < 0.1 and f.PCA1 > 100
    noisy = beat_of() + np.random.default_rng(1).normal(0, 20, (12, 600)).astype(np.float32)
    g = one(noisy)
    # Five of eight components of white noise are left: sqrt(5) times its size.
    np.testing.assert_allclose(g.STNDPV, np.sqrt(5) * 20, rtol=0.2)
    assert g.TNDPV > 30 and g.pctTNDPV > f.pctTNDPV


def test_amplitudes_of_known_waves():
    f = one(beat_of(direction=(1, 0, 0)))  # I is 1, II 0.5, III -0.5, aVL 0.75 times the wave
    np.testing.assert_allclose([f.tamp_I, f.tamp_II, f.tamp_III], [300, 150, -150], rtol=0.03)
    np.testing.assert_allclose(f.ramp_aVL, 750, rtol=0.03)
    assert f.ramp_III == 0 and f.vat_III == 0 and 20 < f.vat_II < 60
    assert abs(f.vat_II - f.vat_V4) <= 2


def test_quantities_that_follow_from_others():
    f = features(np.stack([beat_of(), beat_of(t=(150, 30, 5.0))]), [600.0, 1000.0])
    np.testing.assert_allclose(f.HR, [100, 60])
    np.testing.assert_allclose(f.TCRTangle, np.degrees(np.arccos(f.TCRT)))
    jt = f.JTc * np.sqrt([0.6, 1.0])
    assert (f.TpTe < jt).all() and (f.pcaTamp >= f.Tamp).all() and (f.TampInfl1 < f.Tamp).all()


# ------------------------------------------------------------------ closed forms


def test_kors_matrix_is_the_published_one():
    """Kors et al. 1990 as given by two independent sources; X of lead I alone is 0.38."""
    assert KORS.shape == (3, 8) and [LEADS[k] for k in EIGHT] == [
        "I",
        "II",
        "V1",
        "V2",
        "V3",
        "V4",
        "V5",
        "V6",
    ]
    unit = np.zeros((1, 12, 2))
    unit[0, LEADS.index("V1")] = 1
    np.testing.assert_allclose(vectorcardiogram(unit)[0, :, 0], [-0.13, 0.06, -0.43], atol=1e-7)
    np.testing.assert_allclose(KORS.sum(axis=1), [0.96, 0.87, -0.75], atol=1e-6)


def test_selvester_score_has_29_points():
    assert SELVESTER.groupby(["lead", "measure"]).points.max().sum() == 29
    normal = one(beat_of())
    inferior = beat_of()
    for lead in ("II", "III", "aVF"):  # 50 ms of Q wave before R
        inferior[LEADS.index(lead)] += bump(-20, 6, -600)
    scored = one(inferior)
    assert scored.qdur_aVF >= 40 and normal.qdur_aVF == 0
    assert scored.MIsz >= normal.MIsz + 4 * 3 and scored.MIsz % 3 == 0


def test_st_concavity_against_its_closed_form():
    beat = np.tile(bump(0, 8, 1000), (12, 1))
    ramp = np.clip((TIME - 26) / 114, 0, 1)  # from the J point to the peak of T at 140
    fall = np.clip(1 - (TIME - 140) / 60, 0, 1)
    straight, sagging = (
        one(beat + 400 * np.where(TIME <= 140, ramp**power, fall)) for power in (1, 2)
    )
    assert straight.antConcaveAmp < 20
    # max of r - r²
    np.testing.assert_allclose(sagging.antConcaveAmp - straight.antConcaveAmp, 400 / 4, rtol=0.3)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.4, 2.5), seed=st.integers(0, 99))
def test_scaling_a_beat_scales_its_voltages_alone(scale, seed):
    beat = beat_of() + np.random.default_rng(seed).normal(0, 3, (12, 600)).astype(np.float32)
    f, g = features(np.stack([beat, scale * beat]), [800.0, 800.0]).to_numpy()
    voltage = (DEFINITIONS.unit[list(NAMES)] == "µV").to_numpy()
    linear = voltage & ~np.isin(NAMES, ["rmsMin"])
    intervals_agree = np.allclose(f[:3], g[:3]) and np.isclose(
        f[NAMES.index("TpTe")], g[NAMES.index("TpTe")], atol=0.1
    )
    if intervals_agree:  # the same windows: then all voltages scale
        np.testing.assert_allclose(g[linear], scale * f[linear], rtol=0.02, atol=0.5)
        same = np.isin(
            NAMES, ["mfpQRSaxis", "QRSTangle", "TCRT", "QRS_PCAratio", "pctRNDPV", "TMD"]
        )
        np.testing.assert_allclose(g[same], f[same], rtol=0.02, atol=0.05)


# ------------------------------------------------------------------ missing, not zero; records on
# their own


def test_what_cannot_be_computed_is_missing():
    whole = one(beat_of())
    assert whole.notna().all()
    no_p, no_t = one(beat_of(p=(-75, 9, 0.0))), one(beat_of(t=(140, 22, 0.0)))
    assert np.isnan(no_p.PR) and no_p.drop("PR").notna().all()
    assert no_t[["QRSd", "mfpQRSaxis", "st80_V2", "ramp_V4", "RNDPV"]].notna().all()
    assert (
        no_t[["fpTaxis", "QRSTangle", "TCRT", "tamp_II", "TpTe", "JTc", "T_PCAratio", "TMD"]]
        .isna()
        .all()
    )
    assert (
        features(np.zeros((1, 12, 600), np.int16), [800.0]).drop(columns="HR").isna().all(axis=None)
    )
    no_rr = one(beat_of(), rr=np.nan)
    assert set(no_rr.index[no_rr.isna()]) == {"HR", "JTc"}


def test_a_flat_lead_leaves_what_needs_it_missing():
    beat = beat_of()
    beat[LEADS.index("V3")] = 0
    f = one(beat)
    assert (
        np.isnan(f.st80_V3) and np.isnan(f.tamp_V3) and np.isnan(f.Tamp) and np.isnan(f.T_PCAratio)
    )
    assert (
        f[["st80_V2", "tamp_II", "QRSd", "PR", "JTc", "TpTe", "mfpQRSaxis", "fpTaxis"]]
        .notna()
        .all()
    )
    beat[LEADS.index("II")] = 0
    assert one(beat)[["mfpQRSaxis", "fpTaxis", "tamp_II"]].isna().all()


def test_a_beat_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(4)
    beats = (
        np.stack([beat_of(t=(140, 22, h)) for h in rng.uniform(1, 5, 9)]).round().astype(np.int16)
    )
    together = features(beats, np.full(9, 750.0))
    alone = pd.concat([features(beats[[k]], [750.0]) for k in range(9)], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-6)


# ------------------------------------------------------------------ cardiologists' marks


def test_intervals_agree_with_cardiologists(real_data):
    """LUDB: PR, QRS and QT by the earliest and latest marks of a lead set, median over beats; 30
    records.
    """
    rows = []
    for number in range(101, 131):
        path = str(real_data / "ludb" / "data" / str(number))
        record = wfdb.rdrecord(path, physical=False)
        order = [[name.lower() for name in record.sig_name].index(lead.lower()) for lead in LEADS]
        beat = process(record.d_signal.T[order].astype(np.float32), 500.0, Signal())
        f = features(beat.beat[None], [beat.columns()["rr_ms"]]).iloc[0]
        marks = {"PR": [], "QRSd": [], "QT": []}
        for lead in ("ii", "v2", "v5"):
            note = wfdb.rdann(path, lead)
            events = list(zip(note.symbol, note.sample, strict=True))
            triples = zip(events, events[1:], events[2:], strict=False)
            waves = [
                (b[0], a[1], c[1])
                for a, b, c in triples
                if (a[0], c[0]) == ("(", ")") and b[0] in "pNt"
            ]
            for k, (kind, on, off) in enumerate(waves):
                if kind == "N":
                    marks["QRSd"].append(2 * (off - on))
                    if k and waves[k - 1][0] == "p":
                        marks["PR"].append(2 * (on - waves[k - 1][1]))
                    if k + 1 < len(waves) and waves[k + 1][0] == "t":
                        marks["QT"].append(2 * (waves[k + 1][2] - on))
        found = {"PR": f.PR, "QRSd": f.QRSd, "QT": f.QRSd + f.JTc * np.sqrt(60 / f.HR)}
        rows.append(
            {
                name: found[name] - np.median(values) if values else np.nan
                for name, values in marks.items()
            }
        )
    away = pd.DataFrame(rows).abs().median()
    assert away.PR <= 15 and away.QRSd <= 15 and away.QT <= 20, away
