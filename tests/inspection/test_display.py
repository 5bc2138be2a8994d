"""The picture of robustness curves."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from skbgmd.corruption import LabelCorruption
from skbgmd.inspection import RobustnessCurveDisplay, robustness_curve

IRIS = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


CURVE = {
    "fractions": np.array([0.0, 0.2, 0.4]),
    "train_scores": np.array([[1.0, 0.9], [0.9, 0.7], [0.8, 0.4]]),
    "test_scores": np.array([[0.9, 0.8], [0.8, 0.6], [0.6, 0.2]]),
}


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("score_type", "names"), [("test", ["Test"]), ("train", ["Train"]), ("both", ["Train", "Test"])]
)
@pytest.mark.parametrize("style", ["fill_between", "errorbar", None])
def test_plot(score_type, names, style):
    display = RobustnessCurveDisplay(**CURVE, score_name="Accuracy")
    assert display.plot(score_type=score_type, std_display_style=style) is display
    assert labels(display.ax_) == names
    assert display.ax_.get_ylabel() == "Accuracy"
    assert display.figure_ is display.ax_.figure
    curves = [bar.lines[0] for bar in display.errorbar_] if style == "errorbar" else display.lines_
    for name, curve in zip(names, curves, strict=True):
        x, y = curve.get_data()
        np.testing.assert_array_equal(x, CURVE["fractions"])
        np.testing.assert_array_equal(y, CURVE[f"{name.lower()}_scores"].mean(axis=1))
    assert (display.lines_ is None) == (style == "errorbar")
    assert (display.errorbar_ is None) == (style != "errorbar")
    assert (display.fill_between_ is None) == (style != "fill_between")


def test_band_is_a_standard_deviation_wide():
    display = RobustnessCurveDisplay(**CURVE).plot(fill_between_kw={"alpha": 0.1})
    corners = display.fill_between_[0].get_paths()[0].vertices
    for fraction, scores in zip(CURVE["fractions"], CURVE["test_scores"], strict=True):
        heights = corners[corners[:, 0] == fraction][:, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [scores.min(), scores.max()])
    assert display.fill_between_[0].get_alpha() == 0.1
    assert display.ax_.get_ylabel() == "Score"


def test_several_estimators_on_one_axes():
    axes = plt.figure().add_subplot()
    for name in ("robust", "plain"):
        display = RobustnessCurveDisplay(**CURVE)
        display.plot(axes, line_kw={"label": name, "linestyle": "--"}, score_name="R2")
        assert display.ax_ is axes
    assert labels(axes) == ["robust", "plain"]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    assert axes.lines[0].get_linestyle() == "--"
    assert axes.get_ylabel() == "R2"
    RobustnessCurveDisplay(**CURVE).plot(axes, score_type="both", line_kw={"label": "third"})
    assert labels(axes)[2:] == ["third, train", "third, test"]


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "Score"),
        ({"scoring": "neg_log_loss"}, "Negative log loss"),
        ({"scoring": "accuracy", "score_name": "Right"}, "Right"),
    ],
)
def test_from_estimator(options, label):
    corruption = {"corruption": LabelCorruption(), "fractions": [0.0, 0.4], "cv": 3, "random_state": 0}
    display = RobustnessCurveDisplay.from_estimator(
        LogisticRegression(max_iter=500), *IRIS, **corruption, **options, score_type="both"
    )
    scoring = {"scoring": options["scoring"]} if "scoring" in options else {}
    expected = robustness_curve(LogisticRegression(max_iter=500), *IRIS, **corruption, **scoring)
    for got, want in zip((display.fractions, display.train_scores, display.test_scores), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert display.ax_.get_ylabel() == label
    assert labels(display.ax_) == ["Train", "Test"]


def test_plot_parameters():
    display = RobustnessCurveDisplay(**CURVE)
    with pytest.raises(ValueError, match="score_type must be one of 'test', 'train', 'both'; found 'all'"):
        display.plot(score_type="all")
    with pytest.raises(ValueError, match="std_display_style must be one of 'fill_between', 'errorbar'; found 'bars'"):
        display.plot(std_display_style="bars")
