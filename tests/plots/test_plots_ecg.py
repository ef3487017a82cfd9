"""Drawings of ECGs: their geometry, read back from the artists in millimetres."""

from itertools import pairwise

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest

from ecglib.beat import LEADS
from ecglib.plots import ecg


def beat(seed=0, samples=600):
    """A beat with a QRS at the centre, other amplitudes in each lead."""
    t = np.arange(samples)
    size = np.random.default_rng(seed).uniform(-1500, 1500, (12, 1))
    return (size * np.exp(-(((t - samples // 2) / 12) ** 2)) + 40 * np.sin(t / 60)).astype(
        np.float32
    )


def traces(figure):
    """Every drawn lead as (x, y) in mm, in the order of the leads: lines of more than 50 points."""
    return [line.get_xydata().T for line in figure.axes[0].lines if len(line.get_xydata()) > 50]


def named(figure):
    return {text.get_text(): text.get_position() for text in figure.axes[0].texts}


def test_colours_are_the_papers():
    for position, colour in (
        (0, (1, 0.9, 0)),
        (0.275, (1, 0.45, 0)),
        (0.55, (1, 0, 0)),
        (1.0, (0.25, 0, 0)),
    ):
        np.testing.assert_allclose(ecg.SALIENCY_COLOURS(position)[:3], colour, atol=0.01)


def test_a_square_is_a_square_and_means_40_ms_by_a_tenth_of_a_millivolt():
    figure = ecg.draw_beat(beat())
    figure.draw_without_rendering()
    axis = figure.axes[0]
    box, (x0, x1), (y0, y1) = axis.get_window_extent(), axis.get_xlim(), axis.get_ylim()
    assert box.width / (x1 - x0) == pytest.approx(box.height / (y1 - y0), rel=1e-3)
    grids = [c for c in axis.collections if len(c.get_paths())]  # of points there are none
    for grid, step, way in zip(grids, (1, 1, 5, 5), (0, 1, 0, 1), strict=True):
        segments = np.array(grid.get_segments())  # vertical lines, then horizontal ones
        assert (segments[:, 0, way] == segments[:, 1, way]).all()
        np.testing.assert_allclose(np.diff(segments[:, 0, way]), step)


@pytest.mark.parametrize("samples", [400, 600])
def test_beats_run_at_25_mm_a_second_and_10_mm_a_millivolt(samples):
    signal = beat(samples=samples)
    figure = ecg.draw_beat(signal, title="A beat", note="a note")
    drawn = traces(figure)
    assert len(drawn) == 12
    for (x, y), trace in zip(drawn, signal, strict=True):
        np.testing.assert_allclose(x - x[0], np.arange(samples) / 500 * 25, atol=1e-6)
        np.testing.assert_allclose(y - y[0], (trace - trace[0]) / 100, atol=1e-4)
    pulses = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 6]
    assert len(pulses) == 3
    for pulse in pulses:
        assert np.ptp(pulse[:, 1]) == 10 and pulse[3, 0] - pulse[2, 0] == 5  # 1 mV for 200 ms
    assert (
        figure.axes[0].get_title(loc="left") == "A beat" and "a note" in figure.axes[0].get_xlabel()
    )


def test_leads_stand_in_the_standard_columns_and_rows_do_not_overlap():
    figure = ecg.draw_beat(beat())
    at, drawn = named(figure), dict(zip(LEADS, traces(figure), strict=True))
    columns = [LEADS[i : i + 3] for i in (0, 3, 6, 9)]
    for column in columns:
        assert len({at[lead][0] for lead in column}) == 1
        assert at[column[0]][1] > at[column[1]][1] > at[column[2]][1]
    assert at["I"][0] < at["aVR"][0] < at["V1"][0] < at["V4"][0]
    for upper, lower in ((0, 1), (1, 2)):
        above = min(drawn[column[upper]][1].min() for column in columns)
        below = max(drawn[column[lower]][1].max() for column in columns)
        assert above > below


@pytest.mark.parametrize("windows", [20, 400])
def test_saliency_lies_on_the_samples_that_the_network_saw(windows):
    signal, saliency, start = beat(), np.zeros((12, windows)), 150
    # 20 samples from 200 on
    saliency[LEADS.index("aVL"), windows // 2 : windows // 2 + windows // 20] = 1
    figure = ecg.draw_beat(signal, saliency=saliency)
    (lines,) = (c for c in figure.axes[0].collections if c.get_array() is not None)
    assert len(figure.axes) == 2 and lines.get_clim() == (0, 1)  # the other one: a colour bar
    runs, levels = np.split(np.arange(12 * windows), 12), lines.get_array()
    drawn = lines.get_segments()
    for lead, of_lead, (x, _) in zip(LEADS, runs, traces(figure), strict=True):
        values, segments = levels[of_lead], [drawn[run] for run in of_lead]
        assert segments[0][0, 0] == pytest.approx(x[start])
        assert segments[-1][-1, 0] == pytest.approx(x[start + 399])
        assert values.max() == (lead == "aVL")
        if lead == "aVL":
            hit = np.flatnonzero(values)
            assert segments[hit[0]][0, 0] == pytest.approx(x[start + 200])
            assert segments[hit[-1]][-1, 0] == pytest.approx(x[start + 220])


def test_coloured_windows_join_to_the_whole_trace():
    saliency = np.random.default_rng(3).random((12, 20))
    figure = ecg.draw_beat(signal := beat(), saliency=saliency)
    (lines,) = (c for c in figure.axes[0].collections if c.get_array() is not None)
    segments = lines.get_segments()[:20]
    for before, after in pairwise(segments):
        np.testing.assert_array_equal(before[-1], after[0])
    joined = np.vstack([segments[0][:1], *[segment[1:] for segment in segments]])
    np.testing.assert_allclose(np.diff(joined[:, 1]), np.diff(signal[0, 150:550]) / 100, atol=1e-4)


def test_points_are_drawn_in_every_lead_and_missing_ones_left_out():
    figure = ecg.draw_beat(beat(), points={"J": 330, "T peak": np.nan})
    marks = [c.get_segments() for c in figure.axes[0].collections[4:]]
    starts = [x[0] for x, _ in traces(figure)]
    assert [len(lines) for lines in marks] == [1] * 12
    np.testing.assert_allclose([lines[0][0, 0] for lines in marks], np.add(starts, 330 / 20))
    assert "J" in named(figure) and "T peak" not in named(figure)


def test_mean_beats_show_mean_and_spread():
    beats = np.stack([beat(seed) for seed in range(9)]).astype(np.int16)
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    figure = ecg.draw_mean_beats(beats, labels)
    drawn, mean = traces(figure), [beats[labels == k].mean(0) for k in (0, 1)]
    for lead in range(12):
        for label in (0, 1):
            y = drawn[2 * lead + label][1]
            np.testing.assert_allclose(
                y - y[0], (mean[label][lead] - mean[label][lead, 0]) / 100, atol=1e-3
            )
    # lead I, label 0, after the grid
    band = figure.axes[0].collections[4].get_paths()[0].vertices
    spread = beats[labels == 0, 0].std(0)[::3].max() / 100
    x = band[:, 0].round(3)
    height = max(np.ptp(band[x == at, 1]) for at in np.unique(x))
    assert height == pytest.approx(2 * spread, rel=0.01)
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["label 0, n = 5", "label 1, n = 4"]


@pytest.mark.parametrize("rate", [250, 500])
def test_recordings_run_on_from_column_to_column(rate):
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 100, (12, 11 * rate)).astype(np.float32)
    signal[LEADS.index("V5")] = np.nan
    figure = ecg.draw_recording(signal, rate)
    drawn = traces(figure)
    assert len(drawn) == 13
    # 10 s of the rhythm strip
    assert drawn[12][0][-1] - drawn[12][0][0] == pytest.approx(250, abs=0.2)
    for lead in range(12):
        x, y = drawn[lead]
        first = lead // 3 * 10 * rate // 4
        assert x[0] == pytest.approx(drawn[12][0][first], abs=1e-6)
        told = (signal[lead, first : first + len(y)] - signal[lead, first]) / 100
        np.testing.assert_allclose(y - y[0], told, atol=1e-3)
    assert "missing" in named(figure)


def textbook_beat():
    t = np.arange(600)
    waves = ((210, 15, 150), (300, 6, 1500), (420, 25, 400))  # P, QRS, T: centre, width, µV
    whole = sum(high * np.exp(-(((t - at) / width) ** 2)) for at, width, high in waves)
    return np.repeat(whole[None], 12, axis=0).astype(np.int16), waves


def test_waves_are_named_where_they_are():
    whole, waves = textbook_beat()
    figure = ecg.draw_waves(whole, "Record d")
    assert figure.axes[0].get_title(loc="left") == "Record d"
    spans = [(p.get_x() * 20, (p.get_x() + p.get_width()) * 20) for p in figure.axes[0].patches]
    p, qrs, st, wave = spans
    for (first, last), (at, width, _) in zip((p, qrs, wave), waves, strict=True):
        assert at - 4 * width < first < at < last < at + 4 * width
    # each ends one sample before the next
    assert qrs[1] + 1 == pytest.approx(st[0]) and st[1] + 1 == pytest.approx(wave[0])
    assert set(ecg.SPANS) <= set(named(figure))


def test_examples_have_the_waves_that_anyone_recognises():
    beats = textbook_beat()[0][None].repeat(8, axis=0)
    beats[0, :, :250] = 0  # no P wave
    beats[1] *= -1  # QRS points down
    beats[2, :, 360:] *= -1  # T wave points down
    told = {"label": [0] * 8, "poor_quality": [False] * 8, "rr_ms": [850.0] * 8}
    records = pd.DataFrame(told)
    records.loc[3, "label"], records.loc[4, "poor_quality"], records.loc[5, "rr_ms"] = 1, True, 600
    assert list(ecg.examples(beats, records)) == [6, 7]
    records["rr_ms"] = 600.0  # none qualifies: whoever has no label
    assert list(ecg.examples(beats, records)) == [0, 1, 2, 4, 5, 6, 7]


def test_lead_directions_keep_einthovens_triangle():
    """II = I + III and aVL = (I − III) / 2: the drawn directions must agree with the leads'
    definitions.
    """
    texts = {}
    figure = ecg.draw_lead_directions()
    for axis in figure.axes:
        assert axis.get_theta_direction() == -1
        for text in axis.texts:
            name, _, degrees = text.get_text().partition("\n")
            if degrees:
                angle, _ = text.get_position()
                texts[name] = np.array([np.cos(angle), -np.sin(angle)])  # clockwise
    assert set(texts) == set(LEADS)
    np.testing.assert_allclose(texts["I"] + texts["III"], texts["II"], atol=1e-9)
    augmented = {
        "aVL": texts["I"] - texts["III"],
        "aVR": -texts["I"] - texts["II"],
        "aVF": texts["II"] + texts["III"],
    }
    for lead, sum_of in augmented.items():
        np.testing.assert_allclose(texts[lead], sum_of / np.linalg.norm(sum_of), atol=1e-9)


def test_svgs_stay_under_a_megabyte(tmp_path):
    noise = np.random.default_rng(0)
    walk = np.cumsum(noise.standard_normal((12, 400)), axis=1)
    figures = {
        "saliency": ecg.draw_beat(beat(), saliency=walk),
        "recording": ecg.draw_recording(noise.normal(0, 30, (12, 5000)), 500),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").stat().st_size < 1e6, name
