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
from ecglib.analysis import inference, subgroups, tables
from ecglib.plots import curves, save

NOTE = "acute MI statement [proxy label]"
MODELS = ("ecg_smart_net", "mayo_alvd", "temporal_resnet18")


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
    figure = curves.learning_curves(history, NOTE)
    axis = figure.axes[0]
    line = next(line for line in axis.lines if line.get_label() == "ECG-SMART-NET")
    table = history[history["model"] == "ecg_smart_net"].pivot_table("val_auc", "epoch", "rotation")
    np.testing.assert_allclose(line.get_ydata(), table.mean(axis=1))
    cloud = axis.collections[0].get_paths()[0].vertices
    assert cloud[:, 1].max() == pytest.approx((table.mean(axis=1) + table.std(axis=1)).max())
    assert [axis.get_title(loc="left") for axis in figure.axes] == list("ABCD")
    shorter = next(line for line in axis.lines if line.get_label() == "Mayo Clinic ALVD model")
    assert shorter.get_xdata().max() == 7  # the last epoch that all three rotations reached


def test_epochs_to_the_best_score(history):
    found = tables.epochs_to_best(history).loc["ECG-SMART-NET"]
    assert found["mean"] == 5 and found["min"] == 4 and found["max"] == 6 and found["std"] == 1


def test_roc_and_pr_enclose_the_mean_metrics_of_the_rotations(tested):
    figure = curves.roc_pr(tested, note=NOTE)
    performance = (
        inference.per_rotation(tested).groupby("model")[["auc", "average_precision"]].mean()
    )
    for axis, metric, tolerance in zip(figure.axes, performance, (0.003, 0.01), strict=True):
        for model in MODELS:
            line = next(x for x in axis.lines if x.get_label() == tables.label_of(model))
            x, y = line.get_data()
            # precision is a step function of recall
            area = np.trapezoid(y, x) if metric == "auc" else y[1:].mean()
            assert area == pytest.approx(performance.loc[model, metric], abs=tolerance)
            assert any(
                text.startswith(tables.label_of(model))
                and f"{performance.loc[model, metric]:.3f}" in text
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
    assert curves.colours(["ECG-SMART-NET"])["ECG-SMART-NET"] == found["ecg_smart_net"]
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
    assert any("slope 1.0" in text or "slope 0.9" in text for text in texts(figure))


def test_decision_curve_starts_at_prevalence_and_knows_both_simple_rules(tested):
    figure = curves.decision_curve(tested)
    lines = {line.get_label(): line.get_data() for line in figure.axes[0].lines}
    threshold, benefit = lines["ECG-SMART-NET"]
    part = tested[tested["model"] == "ecg_smart_net"]
    np.testing.assert_allclose(
        benefit, metrics.net_benefit(part["label"], part["probability"], threshold)
    )
    everyone = lines["Call every ECG"][1]
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
    found = texts(curves.forest(table, "AUC", note=NOTE))
    assert found.count("too few") == 1
    assert {"Sex", "Site", "   male", "   B"} <= set(found)
    assert "1 / 6" in found
    assert (
        sum(bool(re.fullmatch(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", text)) for text in found) == 3
    )


def test_difference_matrix_mirrors_sign(tested):
    table = inference.differences(inference.bootstrap(tested, 100), folds=3)
    figure = curves.difference_matrix(table, "auc", "Test AUC", NOTE)
    found = [text.replace("−", "-") for text in texts(figure)]
    for row in table[table["metric"] == "auc"].itertuples():
        p = f"p = {tables.p_text(row.p_holm)}".replace("= <", "<")
        assert {f"{row.estimate:+.3f}\n{p}", f"{-row.estimate:+.3f}\n{p}"} <= set(found)
    assert len(found) == 6 + 1
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
    paired = inference.differences(boot, 3)
    figures = [
        curves.learning_curves(told, NOTE, names),
        curves.roc_pr(rows, note=NOTE, names=names),
        curves.calibration(rows, note=NOTE, names=names),
        curves.decision_curve(rows, note=NOTE, names=names),
    ]
    for figure in figures:
        printed = " ".join(texts(figure))
        assert "ECG-SMART-NET (mV)" in printed and "smart_millivolt" not in printed
    matrix = curves.difference_matrix(paired, "auc", "Test AUC", NOTE, names)
    assert "ECG-SMART-NET (mV)  2" in [tick.get_text() for tick in matrix.axes[0].get_yticklabels()]
    alone = curves.roc_pr(rows[rows["model"] == "smart_millivolt"], names=names)
    colour = [
        next(x for x in f.axes[0].lines if x.get_label() == "ECG-SMART-NET (mV)").get_color()
        for f in (figures[1], alone)
    ]
    assert colour[0] == colour[1]
    performance = inference.per_rotation(rows)
    printed = [
        tables.table_4(performance, names),
        tables.estimates(inference.intervals(boot), names),
        tables.calibrations(rows, names),
        tables.epochs_to_best(told, names),
    ]
    assert all("ECG-SMART-NET (mV)" in table.index for table in printed)
    pairs = tables.paired_tests(paired, inference.delong_differences(rows), names)
    assert "ECG-SMART-NET (mV)" in set(pairs["b"]) and len(pairs) == 9


def test_confusion_matrices_show_table_5():
    found = texts(curves.confusion_matrices({"Test": metrics.from_counts(62, 37, 21, 965)}, NOTE))
    assert {"62\n74.7%", "21\n25.3%", "37\n3.7%", "965\n96.3%"} <= set(found)


def test_every_figure_names_the_label_and_is_saved_twice(history, tested, tmp_path):
    run = tested[tested["rotation"] == 0]
    counts = metrics.at_threshold(run["label"], run["probability"], 0.5)
    figures = [
        curves.learning_curves(history, NOTE),
        curves.roc_pr(tested, note=NOTE),
        curves.calibration(run, note=NOTE),
        curves.decision_curve(run, note=NOTE),
        curves.confusion_matrices({"Test": counts}, NOTE),
    ]
    assert not plt.get_fignums()  # a notebook shows each once
    assert all(NOTE in texts(figure) for figure in figures)
    save(figures[-1], tmp_path, "confusion")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "confusion.png",
        "confusion.svg",
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
    table = tables.table_4(performance)
    values = performance[(performance["model"] == "mayo_alvd") & (performance["split"] == "test")][
        "auc"
    ]
    row = table.loc["Mayo Clinic ALVD model"]
    assert row[("This study", "Test AUC")] == f"{values.mean():.3f} ± {values.std():.3f}"
    assert row[("Paper (other data)", "Test AUC")] == "0.877 ± 0.032"
    assert row[("This study", "Rotations")] == "3"
    one = tables.table_4(performance[performance["rotation"] == 0])
    assert "±" not in one.loc["ECG-SMART-NET", ("This study", "Val AP")]
    html = tables.styled(table, f"Table 4. {NOTE}").to_html()
    assert NOTE in html and "0.889 ± 0.027" in html


def test_table_4_names_what_is_missing(predictions):
    performance = inference.per_rotation(predictions[predictions["model"] != MODELS[2]])
    performance = performance[~performance[["model", "rotation"]].eq(["mayo_alvd", 1]).all(axis=1)]
    table = tables.table_4(performance, asked=(MODELS, (0, 1, 2)))["This study"]
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
    assert table["Test AUC"].tolist() == ["–", "0.864 ± 0.026", "–"]


def test_table_5_uses_the_threshold_and_keeps_counts_whole(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    validation = run[run["split"] == "validation"]
    threshold = metrics.operating_point(validation["label"], validation["probability"])
    table = tables.table_5(run, threshold, draws=200)
    expected = metrics.at_threshold(validation["label"], validation["probability"], threshold)
    assert table.loc[("This study", "Val"), "F1"] == pytest.approx(expected["f1"])
    assert table.loc[("This study", "Val"), "TP"] == expected["tp"]
    assert table.loc[("Paper (other data)", "Test"), "AUC"] == 0.930
    test = table.loc[("This study", "Test")]
    low, high = (table.loc[("This study", f"Test, {side} limit")] for side in ("lower", "upper"))
    assert ((low < test) & (test < high))[
        ["Acc", "Sens", "Spec", "PPV", "NPV", "F1", "AUC", "AP"]
    ].all()
    assert ".000</td>" not in tables.styled(table[["TP", "FP", "FN", "TN"]], "counts").to_html()


def test_an_operating_point_out_of_reach_is_said_to_be(predictions):
    run = predictions[(predictions["model"] == MODELS[0]) & (predictions["rotation"] == 1)]
    run = run[run["split"] == "test"]
    table = tables.operating_points(run, {"F1": 0.4, "Rule-in": None}, draws=100)
    expected = metrics.at_threshold(run["label"], run["probability"], 0.4)
    assert table.loc["F1", "Threshold"] == "0.400" and table.loc["F1", "Sens"].startswith(
        f"{expected['sens']:.3f} ["
    )
    assert (
        table.loc["Rule-in", "Threshold"] == "not attainable on validation"
        and table.loc["Rule-in", "Sens"] == "–"
    )


def test_selection_shows_both_rules_and_the_optimism_of_one():
    by_test, by_validation = pd.Series({2: 0.8, 0: 0.7}), pd.Series({0: 0.75, 2: 0.6})
    mean = pd.Series({"estimate": 0.75, "low": 0.7, "high": 0.8})
    table = tables.selection(by_test, by_validation, {"optimism": 0.03, "corrected": 0.77}, mean)
    assert table["Test score"].tolist() == ["0.800", "0.700", "0.750 [0.700, 0.800]"]
    assert table["Optimism"].tolist() == ["0.030", "–", "–"]


def test_risk_groups_share_out_every_ecg():
    table = tables.risk_groups([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.5, 0.6, 0.9], 0.2, 0.6)
    assert table["ECGs"].tolist() == [1, 3, 2] and table["Positives"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="isn't below"):
        tables.risk_groups([0, 1], [0.2, 0.3], 0.6, 0.2)


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
