"""Figures of features and trees: what is drawn is what the tables say; nobody is singled out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ecglib.plots import features as draw


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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
