"""Figures of features and trees: what is drawn is what the tables say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ecglib.plots import features as draw


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_intervals_stand_beside_the_papers_value():
    names = ["Forest, all columns", "Forest, comparable columns"]
    metrics = ("auc", "average_precision")
    rows = [(n, m, 0.5 + k / 10, 0.4, 0.9) for k, n in enumerate(names) for m in metrics]
    bounds = pd.DataFrame(rows, columns=["model", "metric", "estimate", "low", "high"])
    figure = draw.draw_intervals(bounds, {"auc": 0.864, "average_precision": 0.514})
    figure.canvas.draw()
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == names
    assert left.yaxis_inverted()  # the first model on top
    for axis, paper in ((left, 0.864), (right, 0.514)):
        np.testing.assert_allclose(axis.collections[0].get_segments()[0][:, 0], [0.4, 0.9])
        assert any(
            line.get_xdata()[0] == paper for line in axis.lines if len(line.get_xdata()) == 2
        )


def test_importance_shows_the_twelve_leading_columns_the_first_on_top():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((20, 3)), columns=["importance", "sd", "shap"])
    table.index = [f"c{k}" for k in range(20)]
    figure = draw.draw_importance({"Forest": table})
    for axis, column in zip(figure.axes, ("importance", "shap"), strict=True):
        top = table.nlargest(12, column)
        assert [text.get_text() for text in axis.get_yticklabels()] == list(top.index)
        np.testing.assert_allclose([bar.get_width() for bar in axis.patches], top[column])
        assert axis.get_ylim()[0] > axis.get_ylim()[1]
    (reach, *_) = figure.axes[0].containers[-1].lines[2][0].get_segments()
    first = table.nlargest(1, "importance").iloc[0]
    np.testing.assert_allclose(np.diff(reach[:, 0]), 2 * first.sd)
