"""The picture of robustness curves."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import BitFlip, GaussianNoise, LabelCorruption
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


NOTE = "± 1 std. dev. over 2 folds"


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("score_type", "names"), [("test", ["Test"]), ("train", ["Train"]), ("both", ["Train", "Test"])]
)
@pytest.mark.parametrize("style", ["fill_between", "errorbar", None])
def test_plot(score_type, names, style):
    display = RobustnessCurveDisplay(**CURVE, score_name="Accuracy")
    assert display.plot(score_type=score_type, std_display_style=style) is display
    assert labels(display.ax_) == names + [NOTE] * (style is not None)
    assert display.ax_.get_ylabel() == "Accuracy"
    assert display.ax_.get_xlabel() == "Corrupt training samples, %"
    assert display.diverged_ is None
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
    assert labels(axes) == ["robust", "plain", NOTE]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    assert axes.lines[0].get_linestyle() == "--"
    assert axes.get_ylabel() == "R2"
    RobustnessCurveDisplay(**CURVE).plot(axes, score_type="both", line_kw={"label": "third"})
    assert labels(axes)[2:] == ["third, train", "third, test", NOTE]


def test_each_estimator_has_a_name_color_marker_and_line_of_its_own():
    ax = None
    for model in (LogisticRegression(max_iter=500), GaussianNB()):
        options = {"corruption": LabelCorruption(), "fractions": [0.0, 0.2], "cv": 3, "random_state": 0}
        ax = RobustnessCurveDisplay.from_estimator(model, *IRIS, **options, ax=ax).ax_
    assert labels(ax) == ["LogisticRegression", "GaussianNB", "± 1 std. dev. over 3 folds"]
    first, second = ax.lines
    for looks in ("color", "marker", "linestyle"):
        assert getattr(first, f"get_{looks}")() != getattr(second, f"get_{looks}")()
    named = RobustnessCurveDisplay.from_estimator(
        GaussianNB(), *IRIS, **options, ax=ax, name="Bayes", line_kw={"c": "r"}
    )
    assert labels(ax)[2] == "Bayes"
    assert named.lines_[0].get_color() == "r"


@pytest.mark.parametrize("style", ["fill_between", "errorbar", None])
def test_runs_that_diverged_are_marked_and_not_in_the_mean(style):
    scores = np.array([[0.9, 0.8], [0.7, np.nan], [-np.inf, np.nan]])
    display = RobustnessCurveDisplay(**CURVE | {"test_scores": scores}).plot(std_display_style=style)
    (mark,) = display.diverged_
    np.testing.assert_array_equal(mark.get_xdata(), [0.2, 0.4])
    assert [text.get_text() for text in display.ax_.texts] == ["1 of 2", "2 of 2"]
    assert labels(display.ax_)[-1] == "diverged or failed, not in the mean"
    line = display.errorbar_[0].lines[0] if style == "errorbar" else display.lines_[0]
    np.testing.assert_allclose(line.get_ydata(), [0.85, 0.7, np.nan])
    # Each curve has a row of marks of its own, and the legend names them once.
    again = RobustnessCurveDisplay(**CURVE | {"test_scores": scores}).plot(display.ax_)
    assert again.diverged_[0].get_ydata()[0] != mark.get_ydata()[0]
    assert labels(display.ax_).count("diverged or failed, not in the mean") == 1
    nothing = RobustnessCurveDisplay(**CURVE | {"test_scores": np.full((3, 2), np.nan)}).plot()
    assert [text.get_text() for text in nothing.ax_.texts] == ["2 of 2"] * 3


def test_failed_fits_are_marked():
    class Failing(GaussianNB):
        def fit(self, X, y):
            if (X > 100.0).any():
                raise ValueError("diverged")
            return super().fit(X, y)

    options = {"corruption": GaussianNoise(std=1e4), "fractions": [0.0, 0.3], "cv": 3, "random_state": 0}
    with pytest.warns(FitFailedWarning):
        display = RobustnessCurveDisplay.from_estimator(Failing(), *IRIS, **options)
    assert [text.get_text() for text in display.ax_.texts] == ["3 of 3"]


@pytest.mark.parametrize(
    ("corruption", "label"),
    [
        (LabelCorruption(), "Corrupt training labels, %"),
        (GaussianNoise(), "Training samples with corrupt features, %"),
        (BitFlip(), "Corrupt gradients, %"),
        ("sign_flip", "Corrupt gradients, %"),
    ],
    ids=str,
)
def test_the_axis_says_what_is_corrupt(corruption, label):
    model = BlockGMDClassifier(max_epochs=1, random_state=0)
    display = RobustnessCurveDisplay.from_estimator(
        model, *IRIS, corruption=corruption, fractions=[0.0, 0.25], cv=2, random_state=0
    )
    assert display.ax_.get_xlabel() == label
    display.figure_.canvas.draw()
    ticks = {text.get_position()[0]: text.get_text() for text in display.ax_.get_xticklabels()}
    assert all(float(text) == pytest.approx(100.0 * share) for share, text in ticks.items())


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
    name = "LogisticRegression"
    assert labels(display.ax_) == [f"{name}, train", f"{name}, test", "± 1 std. dev. over 3 folds"]


def test_plot_parameters():
    display = RobustnessCurveDisplay(**CURVE)
    with pytest.raises(ValueError, match="score_type must be one of 'test', 'train', 'both'; found 'all'"):
        display.plot(score_type="all")
    with pytest.raises(ValueError, match="std_display_style must be one of 'fill_between', 'errorbar'; found 'bars'"):
        display.plot(std_display_style="bars")
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes or None; found"):
        display.plot(ax=plt.subplots(1, 2)[1])
