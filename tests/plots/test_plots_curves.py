"""What the curves and tables show: their numbers, their colours and what they say about the
label.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy.special import expit

from ecglib import metrics
from ecglib.analysis import calibration, comparison, inference, subgroups, tables
from ecglib.analysis import texts as page
from ecglib.plots import curves, save

NAMES = {
    "ecg_smart_net": "ECG-SMART-NET",
    "mayo_alvd": "Mayo Clinic ALVD model",
    "temporal_resnet18": "Temporal ResNet-18",
}
MODELS = tuple(NAMES)


@pytest.fixture(scope="module")
def predictions():
    generator = np.random.default_rng(3)
    rows = []
    for place, model in enumerate(MODELS):
        for rotation in range(3):
            for split in ("validation", "test"):
                fold = (rotation + (split == "test")) % 3
                label = (np.arange(300) % 8 == 0).astype(int)
                score = generator.normal((1.8 - 0.3 * place) * label, 1).round(1)
                ids = {
                    "record_id": np.arange(300) + 300 * fold,
                    "patient_id": np.arange(300) // 2 + 150 * fold,
                }
                part = pd.DataFrame(ids | {"label": label, "probability": expit(score - 1)})
                rows.append(part.assign(model=model, rotation=rotation, split=split))
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def tested(predictions):
    return predictions[predictions["split"] == "test"]


@pytest.fixture(scope="module")
def history():
    epoch = np.arange(1, 11)
    parts = []
    for model, last in (("ecg_smart_net", 10), ("mayo_alvd", 7)):
        for rotation in range(3):
            score = 0.8 - 0.01 * abs(epoch - 4 - rotation) + 0.02 * rotation
            part = pd.DataFrame(
                {"model": model, "rotation": rotation, "epoch": epoch, "val_score": score}
            )
            part = part.assign(val_auc=score + 0.1, val_ap=score - 0.2, val_loss=1 - score)
            parts.append(part[: last + rotation])
    return pd.concat(parts, ignore_index=True)


def texts(figure):
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    legends = [axis.get_legend() for axis in figure.axes] + figure.legends
    found += [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    return found + [text.get_text() for text in figure.texts]


def test_learning_curves_are_means_and_clouds_of_the_rotations(history):
    figure = curves.learning_curves(history, NAMES)
    axis = figure.axes[0]
    line, shorter = (line for line in axis.lines if line.get_label() in NAMES.values())
    table = history[history["model"] == "ecg_smart_net"].pivot_table("val_auc", "epoch", "rotation")
    np.testing.assert_allclose(line.get_ydata(), table.mean(axis=1))
    first, second = axis.collections  # clouds overlap: each has an edge in its model's style
    assert first.get_edgecolor()[0][3] > 3 * first.get_facecolor()[0][3]
    assert first.get_linestyle() != second.get_linestyle()
    cloud = first.get_paths()[0].vertices
    assert cloud[:, 1].max() == pytest.approx((table.mean(axis=1) + table.std(axis=1)).max())
    assert [axis.get_title(loc="left") for axis in figure.axes] == list("ABCD")
    assert {"ECG-SMART-NET", "Mayo Clinic ALVD model"} <= set(texts(figure))
    assert shorter.get_xdata().max() == 7  # the last epoch that all three rotations reached


def test_epochs_to_the_best_score(history):
    found = tables.epochs_to_best(history).loc["ecg_smart_net"]
    assert found["mean"] == 5 and found["min"] == 4 and found["max"] == 6 and found["std"] == 1


def test_roc_and_pr_enclose_the_mean_metrics_of_the_rotations(tested):
    figure = curves.roc_pr(tested, names=NAMES)
    performance = (
        inference.per_rotation(tested).groupby("model")[["auc", "average_precision"]].mean()
    )
    for axis, metric, tolerance in zip(figure.axes, performance, (0.003, 0.01), strict=True):
        for model in MODELS:
            line = next(x for x in axis.lines if x.get_label() == NAMES[model])
            x, y = line.get_data()
            # precision is a step function of recall
            area = np.trapezoid(y, x) if metric == "auc" else y[1:].mean()
            assert area == pytest.approx(performance.loc[model, metric], abs=tolerance)
            assert any(
                text.startswith(NAMES[model]) and f"{performance.loc[model, metric]:.3f}" in text
                for text in texts(figure)
            )
    assert "Prevalence: 0.127" in texts(figure)


def test_each_rotation_has_its_line_where_there_are_few_models(tested):
    one, three = curves.roc_pr(tested[tested["model"] == MODELS[0]]), curves.roc_pr(tested)
    assert len(one.axes[0].lines) == 1 + 3 + 1  # mean, three rotations, chance
    assert len(three.axes[0].lines) == 3 + 1


def test_validation_and_test_of_one_model_as_in_fig_6(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    figure = curves.roc_pr(run, by="split")
    for split in ("validation", "test"):
        part = run[run["split"] == split]
        area, precision = (
            f(part["label"], part["probability"]) for f in (metrics.auc, metrics.average_precision)
        )
        assert f"{split}: AUC {area:.3f}, AP {precision:.3f}" in texts(figure)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["A", "B"]
    marked = curves.roc_pr(run, by="split", threshold=0.3)
    part = run[run["split"] == "test"]
    at = metrics.at_threshold(part["label"], part["probability"], 0.3)
    points = [[line.get_xydata()[0] for line in axis.lines if line.get_marker() == "o"]
              for axis in marked.axes]  # fmt: skip
    for found, place in zip(points, [(1 - at["spec"], at["sens"]), (at["sens"], at["ppv"])]):
        assert len(found) == 2 and any(np.allclose(point, place) for point in found)
    assert "Operating point: probability ≥ 0.300" in texts(marked)


def test_a_model_keeps_its_colour_and_no_two_share_one():
    names = [
        "ecg_smart_net",
        "mayo_alvd",
        "temporal_resnet18",
        "resnet18",
        "random_forest",
        "gradient_boosting",
    ]
    names += ["other", "another"]
    found = curves.colours(names)
    assert len(set(found.values())) == len(names)
    assert curves.colours(["other", "resnet18"])["resnet18"] == found["resnet18"]
    # told apart without red-green vision: a dichromat's view (Viénot 1999, protan) in which no two
    # come close
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    seen = np.array(
        [
            np.linalg.inv(to_lms) @ blind @ to_lms @ np.array(to_rgb(c)) ** 2.2
            for c in found.values()
        ][:5]
    )
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(5, 1)]
    assert apart.min() > 0.1


def test_calibration_points_lie_on_the_diagonal_when_calibrated():
    generator = np.random.default_rng(0)
    probability = generator.beta(1, 4, 20_000)
    label = (generator.random(probability.size) < probability).astype(int)
    rows = pd.DataFrame({"label": label, "probability": probability, "model": "ecg_smart_net"})
    figure = curves.calibration(rows)
    x, y = next(line for line in figure.axes[0].lines if line.get_marker() == "o").get_data()
    np.testing.assert_allclose(x, y, atol=0.04)


def test_decision_curve_starts_at_prevalence_and_knows_both_simple_rules(tested):
    figure = curves.decision_curve(tested, names=NAMES)
    lines = {line.get_label(): line.get_data() for line in figure.axes[0].lines}
    threshold, benefit = lines["ECG-SMART-NET"]
    part = tested[tested["model"] == "ecg_smart_net"]
    np.testing.assert_allclose(
        benefit, metrics.net_benefit(part["label"], part["probability"], threshold)
    )
    everyone = lines["Call every ECG positive"][1]
    np.testing.assert_allclose(
        everyone, metrics.net_benefit(part["label"], np.ones(len(part)), threshold)
    )


def test_forest_plot_counts_and_says_too_few(tested):
    rows = tested[(tested["model"] == "ecg_smart_net") & (tested["rotation"] == 0)]
    groups = pd.DataFrame(
        {"Sex": np.where(np.arange(300) % 3, "male", "female"), "Site": "A"},
        index=rows["record_id"],
    )
    groups.iloc[:6, 1] = "B"
    table = subgroups.estimate(rows, groups.astype("category"), draws=50)
    table.loc[table.level == "female", "records"] = 1234
    figure = curves.forest(table, "AUC", 0.9)
    figure.draw_without_rendering()
    found = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(found) == 4 and any(text.startswith("Sex: male   ") for text in found)
    assert "Site: B   1 / 6   too few" in found
    assert any(re.match(r"Sex: female   \d+ / 1,234   ", text) for text in found)
    told = [re.search(r"   0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]$", text) for text in found]
    assert sum(map(bool, told)) == 3
    low, high = figure.axes[0].get_ylim()
    assert low > high  # the first group stands above


def test_difference_matrix_has_each_pair_with_its_p(tested):
    table = comparison.differences(inference.bootstrap(tested, 100), folds=3)
    table.loc[0, "p_holm"] = 0.01
    figure = curves.difference_matrix(table, "auc", "Test AUC", NAMES)
    found = [text.replace("−", "-") for text in texts(figure)]
    for row in table[table["metric"] == "auc"].itertuples():
        p = f"p {page.p_text(row.p_holm)}{' *' * (row.p_holm < 0.05)}"
        assert f"{row.estimate:+.3f}\n{p}" in found
    assert len(found) == 3 and any("*" in text for text in found)
    assert next(tick.get_text() for tick in figure.axes[0].get_yticklabels()) == "ECG-SMART-NET  1"


def test_two_settings_of_one_network_are_told_apart_everywhere(tested, history):
    """With the names of a study's runs, no figure or table prints a raw key, and a model keeps its
    colour.
    """
    twin = {"mayo_alvd": "smart_millivolt"}
    names = {
        "ecg_smart_net": "ECG-SMART-NET",
        "smart_millivolt": "ECG-SMART-NET (mV)",
        "temporal_resnet18": "Temporal",
    }
    rows, told = tested.replace({"model": twin}), history.replace({"model": twin})
    boot = inference.bootstrap(rows, 50)
    paired = comparison.differences(boot, 3)
    figures = [
        curves.learning_curves(told, names),
        curves.roc_pr(rows, names=names),
        curves.calibration(rows, names=names),
        curves.decision_curve(rows, names=names),
    ]
    for figure in figures:
        printed = " ".join(texts(figure))
        assert "ECG-SMART-NET (mV)" in printed and "smart_millivolt" not in printed
    matrix = curves.difference_matrix(paired, "auc", "Test AUC", names)
    assert "ECG-SMART-NET (mV)  2" in [tick.get_text() for tick in matrix.axes[0].get_yticklabels()]
    alone = curves.roc_pr(rows[rows["model"] == "smart_millivolt"], names=names)
    colour = [
        next(x for x in f.axes[0].lines if x.get_label() == "ECG-SMART-NET (mV)").get_color()
        for f in (figures[1], alone)
    ]
    assert colour[0] == colour[1]
    table_4 = tables.table_4(inference.per_rotation(rows), names)
    assert "ECG-SMART-NET (mV)" in table_4.index


def test_a_row_of_every_table_is_a_model_of_the_study(tested, history):
    boot = inference.bootstrap(tested, 50)
    pairs = comparison.differences(boot, 3)
    assert list(tables.estimates(inference.intervals(boot)).index) == list(MODELS)
    assert list(tables.calibrations(tested).index) == list(MODELS)
    assert set(tables.epochs_to_best(history).index) < set(MODELS)
    compared = tables.paired_tests(pairs, comparison.delong_differences(tested))
    assert set(compared["b"]) == set(MODELS[1:]) and len(compared) == 9


def test_every_figure_is_closed_and_saved_twice(history, tested, tmp_path):
    run = tested[tested["rotation"] == 0]
    figures = [
        curves.learning_curves(history),
        curves.roc_pr(tested),
        curves.calibration(run),
        curves.decision_curve(run),
    ]
    assert not plt.get_fignums()  # a notebook shows each once
    save(figures[-1], tmp_path, "decision")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "decision.png",
        "decision.svg",
    }


def test_a_saved_figure_is_whole_with_a_title_wider_than_its_axes(tmp_path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    axes[0].set_title("dashed: the random forest of another cohort" * 3, loc="left", fontsize=11)
    plt.close(figure)
    before = figure.dpi
    save(figure, tmp_path, "wide")
    ink = (plt.imread(tmp_path / "figures" / "wide.png")[..., :3] < 1).any(2)
    margins = [np.flatnonzero(found)[[0, -1]] for found in (ink.any(0), ink.any(1))]
    for (first, last), pixels in zip(margins, ink.shape[::-1], strict=True):
        # about a tenth of an inch on each side
        assert 10 <= first <= 30 and 10 <= pixels - 1 - last <= 30
    assert figure.dpi == before


def test_table_4_is_mean_and_sd_beside_the_paper(predictions):
    performance = inference.per_rotation(predictions)
    table = tables.table_4(performance, NAMES)
    values = performance[(performance["model"] == "mayo_alvd") & (performance["split"] == "test")][
        "auc"
    ]
    row = table.loc["Mayo Clinic ALVD model"]
    assert row[("This study", "Test AUC")] == f"{values.mean():.3f} ± {values.std():.3f}"
    assert row[("Paper (other data)", "Test AUC")] == "0.877 ± 0.032"
    assert row[("This study", "Rotations")] == "3"
    one = tables.table_4(performance[performance["rotation"] == 0], NAMES)
    assert "±" not in one.loc["ECG-SMART-NET", ("This study", "Val AP")]
    html = page.styled(table, "Table 4 [proxy label]").to_html()
    assert "Table 4 [proxy label]" in html and "0.889\n±\u00a00.027" in html


def test_table_4_has_the_papers_order_and_of_a_simulation_not_its_figures(predictions):
    keys = ("random_forest", "mayo_alvd", "ecg_smart_net")
    names = {"random_forest": "Random Forest (2024 setting)", "ecg_smart_net": "ECG-SMART-NET (mV)"}
    names["mayo_alvd"] = "Something new"
    rows = predictions.replace({"model": dict(zip(MODELS, keys, strict=True))})
    table = tables.table_4(inference.per_rotation(rows), names, paper=False)
    assert list(table.index) == [
        "ECG-SMART-NET (mV)", "Random Forest (2024 setting)", "Something new",
    ]  # fmt: skip
    assert set(table.columns.get_level_values(0)) == {"This study"}


def test_table_4_names_what_is_missing(predictions):
    performance = inference.per_rotation(predictions[predictions["model"] != MODELS[2]])
    performance = performance[~performance[["model", "rotation"]].eq(["mayo_alvd", 1]).all(axis=1)]
    table = tables.table_4(performance, NAMES, (MODELS, (0, 1, 2)))["This study"]
    assert table["Rotations"].tolist() == ["3", "2 (without 1)", "0 (without 0,1,2)"]
    assert table.loc["Temporal ResNet-18", "Test AUC"] == "–"


def test_a_published_row_stands_beside_the_same_model_only(predictions):
    keys = dict(zip(MODELS, ("resnet18", "random_forest", "smart_millivolt"), strict=True))
    names = {
        "resnet18": "ResNet-18 (random start)",
        "random_forest": "Random Forest (2024 setting)",
    }
    names["smart_millivolt"] = "ECG-SMART-NET (mV)"
    table = tables.table_4(inference.per_rotation(predictions.replace({"model": keys})), names)[
        "Paper (other data)"
    ]
    found = dict.fromkeys(names.values(), "–") | {"Random Forest (2024 setting)": "0.864 ± 0.026"}
    assert table["Test AUC"].to_dict() == found


def test_table_5_uses_the_threshold_and_keeps_counts_whole(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    validation = run[run["split"] == "validation"]
    threshold = metrics.operating_point(validation["label"], validation["probability"])
    test = run[run["split"] == "test"]
    bounds = inference.at_points(test, {"highest_f1": threshold}, draws=200)
    table = tables.table_5(run, threshold, bounds)
    expected = metrics.at_threshold(validation["label"], validation["probability"], threshold)
    assert table.loc[("This study", "Val"), "F1"] == pytest.approx(expected["f1"])
    assert table.loc[("This study", "Val"), "TP"] == expected["tp"]
    assert table.loc[("Paper (other data)", "Test"), "AUC"] == 0.930
    test = table.loc[("This study", "Test")]
    low, high = (table.loc[("This study", f"Test, {side} limit")] for side in ("lower", "upper"))
    assert ((low < test) & (test < high))[
        ["Acc", "Sens", "Spec", "PPV", "NPV", "F1", "AUC", "AP"]
    ].all()
    assert ".000</td>" not in page.styled(table[["TP", "FP", "FN", "TN"]], "counts").to_html()


def test_an_operating_point_out_of_reach_is_said_to_be(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    run = run[run["split"] == "test"]
    points = {"highest_f1": 0.4, "rule_in": None}
    table = tables.operating_points(inference.at_points(run, points, draws=100), points)
    table = table.rename(index={tables.POINTS[name]: name for name in points})
    expected = metrics.at_threshold(run["label"], run["probability"], 0.4)
    assert table.loc["highest_f1", "Threshold"] == "0.400" and table.loc[
        "highest_f1", "Sens"
    ].startswith(f"{expected['sens']:.3f} [")
    assert (
        table.loc["rule_in", "Threshold"] == "not attainable on validation"
        and table.loc["rule_in", "Sens"] == "–"
    )


def test_learning_rates_show_each_run_and_join_the_means():
    rates, folds = [1e-5, 1e-4, 1e-3], 3
    rows = [(m, r, k) for m in MODELS for r in rates for k in range(folds)]
    scores = pd.DataFrame(rows, columns=["model", "learning_rate", "rotation"])
    scores["val_score"] = np.random.default_rng(0).random(len(scores))
    names = dict(zip(MODELS, ("One", "Two", "Three"), strict=True))
    figure = curves.draw_learning_rates(scores, names)
    (axis,) = figure.axes
    dots = np.vstack([dots.get_offsets() for dots in axis.collections])
    expected = scores[["learning_rate", "val_score"]].to_numpy()
    np.testing.assert_allclose(sorted(map(tuple, dots)), sorted(map(tuple, expected)))
    lines = [line for line in axis.lines if len(line.get_xdata())]
    for model, line in zip(MODELS, lines, strict=True):
        means = scores[scores.model == model].groupby("learning_rate").val_score.mean()
        np.testing.assert_allclose(line.get_xydata(), means.reset_index().to_numpy())
        assert to_rgb(line.get_color()) == to_rgb(curves.COLOURS[model])
    assert axis.get_xscale() == "log" and texts(figure) == list(names.values())


def test_cases_are_the_surest_of_their_kind():
    table = pd.DataFrame({"record_id": list("abcdefg"), "label": [1, 1, 0, 0, 1, 1, 1]})
    table = table.assign(split="test", probability=[0.9, 0.6, 0.7, 0.8, 0.4, 0.1, 0.99])
    table.loc[6, "split"] = "validation"
    got = subgroups.cases(table, 0.5).set_index("case").record_id.to_dict()
    assert got == {"true positive": "a", "false positive": "d", "false negative": "f"}
    cases = subgroups.cases(table, 0.05)["case"].tolist()
    assert cases == ["true positive", "false positive"]
    two = subgroups.cases(table, 0.5, most=2).query("case == 'false negative'")
    assert two.record_id.tolist() == ["f", "e"] and two.number.tolist() == [1, 2]


def test_recalibrated_probabilities_keep_their_ranks_and_their_fold(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    validation, test = (run[run["split"] == split] for split in ("validation", "test"))
    both = calibration.by_scale(calibration.with_risk(pd.concat([validation, test])))
    fit = tables.calibration_by_scale(both)
    assert (fit["Share positive"] == test["label"].mean()).all()
    assert fit.loc["as trained", "Brier"] == metrics.brier(test["label"], test["probability"])
    raw, mended = (part["probability"] for _, part in both.groupby("scale", sort=False))
    assert raw.rank().equals(mended.rank())
    near = abs(fit["Mean probability"] - fit["Share positive"])
    assert near["recalibrated on validation"] < near["as trained"]


def test_one_way_from_table_to_text():
    table = pd.DataFrame({"x": [0.12345, np.nan], "n": [3, 4], "text": ["a|b", "<b>"]})
    lines = page.markdown(table).splitlines()
    assert lines[2] == "| 0 | 0.123 | 3 | a\\|b |" and lines[3] == "| 1 | – | 4 | <b> |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    html = page.styled(table, "A caption").to_html()
    assert "A caption" in html and ">0.123<" in html and ">–<" in html and "&lt;b&gt;" in html


def test_cells_have_names_units_and_sensible_digits():
    table = pd.DataFrame({
        "rr_ms": [812.34, 790.0], "n_used": [4233.0, 7.0], "positive patients (%)": [6.527, 6.4],
        "auc": [0.88888, -0.1], "learning_rate": [1e-5, 3e-4], "made_up": [True, pd.NA],
        "record_id": ["x_1", "x_2"], "link": ["[a_b](../a_b/n.ipynb)", "`a_b`"],
    }, index=["mayo_alvd", 1e-5])  # fmt: skip
    shown = page.texts(table)
    assert list(shown.index) == ["mayo alvd", "1e−5"]
    assert list(shown.iloc[0]) == [
        "812.3", "4,233", "6.5", "0.889", "1e−5", "yes", "x_1", "[a_b](../a_b/n.ipynb)",
    ]  # fmt: skip
    assert list(shown.iloc[1])[3:6] == ["−0.100", "0.0003", "–"]
    assert list(shown)[:5] == [
        "RR (ms)", "Beats used", "positive patients (%)", "AUC", "learning rate",
    ]  # fmt: skip


def test_what_is_the_same_in_every_row_is_told_once():
    table = pd.DataFrame(
        {"n": [10] * 3, "AUC": ["0.9 ± 0.1", "0.8 [0.7, 0.9]", "–"], "e": [np.nan] * 3}
    )
    html = page.styled(table, "A caption.").to_html()
    assert "A caption. In every row: n 10." in html and "col1" not in html
    assert "0.9\n±\u00a00.1<" in html and "0.8\n[0.7,\u00a00.9]<" in html  # two lines each
    assert "In every row" not in page.styled(table[:2], "A caption.").to_html()


def test_a_name_may_stand_in_several_rows():
    table = pd.DataFrame({"b": ["one more", "two"], "p": [0.1, 0.2]}, index=["AUC", "AUC"])
    assert page.styled(table, "A caption.").to_html().count("AUC") == 2


def test_a_table_without_rows_is_shown_by_its_head():
    empty = pd.DataFrame({"family": [], "a": [], "verdict": []}).set_index("family")
    assert "verdict" in page.styled(empty, "Nothing was planned.").to_html()
    records = pd.DataFrame({"record_id": ["r_1", "r_2"], "auc": [1, 2]}).set_index("record_id")
    assert "r_2" in page.styled(records, "Records keep their names.").to_html()


def test_sentences_have_true_minus_signs_and_spaced_per_cent():
    told = "ResNet-18, TIMI 0-1: -0.047 of [-.5, 1e-3], 46% of 2 %"
    assert page.typeset(told) == "ResNet-18, TIMI 0-1: −0.047 of [−.5, 1e-3], 46 % of 2 %"
