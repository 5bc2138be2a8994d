"""The picture of a training by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.inspection import TrainingHistoryDisplay

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
OPTIONS: dict[str, Any] = {"strength": "firm", "max_epochs": 5, "random_state": 0}
NET: dict[str, Any] = {"criterion": torch.nn.CrossEntropyLoss, "max_epochs": 3, "verbose": 0}

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    plt.close("all")


def labels(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


def silent(ax: Any) -> bool:
    return [text.get_text() for text in ax.texts] == ["not recorded"]


def test_an_estimators_history_is_drawn() -> None:
    model = BlockGMDClassifier(**OPTIONS).fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(model)
    loss, weight, share = display.axes_
    np.testing.assert_allclose(loss.lines[0].get_ydata(), model.loss_curve_)
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(weight.lines[0].get_ydata(), [epoch["lower_half_weight"] for epoch in model.history_])
    expected = [100.0 * epoch["aggregation_time"] / epoch["dur"] for epoch in model.history_]
    np.testing.assert_allclose(share.lines[0].get_ydata(), expected)
    assert 0.0 < min(expected) <= max(expected) < 100.0
    assert labels(loss) == ["train"]
    assert {ax.get_xlabel() for ax in display.axes_} == {"epoch"}
    assert display.figure_ is loss.figure
    assert not any(map(silent, display.axes_))
    assert len(display.lines_) == 3


def test_losses_of_held_out_samples_are_drawn_as_well() -> None:
    net = RobustNeuralNetClassifier(torch.nn.Linear(4, 2), **NET).fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(net)
    loss = display.axes_[0]
    assert labels(loss) == ["train", "validation"]
    for line, entry in zip(loss.lines, ("train_loss", "valid_loss"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), net.history[:, entry])
    assert loss.lines[0].get_linestyle() != loss.lines[1].get_linestyle()


def test_without_callbacks_losses_are_of_batches_and_durations_unknown() -> None:
    display = TrainingHistoryDisplay.from_estimator(BlockGMDClassifier(**OPTIONS, callbacks="disable").fit(X, Y))
    told = TrainingHistoryDisplay.from_estimator(BlockGMDClassifier(**OPTIONS).fit(X, Y))
    np.testing.assert_allclose(display.train_loss, told.train_loss, rtol=1e-5)
    assert [silent(ax) for ax in display.axes_] == [False, False, True]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"aggregator": "coordinate_median"}, [False, True, False]),
        ({"group_size": None}, [False, True, True]),
    ],
    ids=str,
)
def test_what_was_not_recorded_is_said(settings: Any, expected: list[bool]) -> None:
    model = BlockGMDClassifier(max_epochs=2, random_state=0, **settings).fit(X, Y)
    assert [silent(ax) for ax in TrainingHistoryDisplay.from_estimator(model).axes_] == expected


def test_several_trainings_share_axes() -> None:
    plain = BlockGMDClassifier(max_epochs=2, group_size=None, random_state=0).fit(X, Y)
    robust = BlockGMDClassifier(**OPTIONS).fit(X, Y)
    axes = plt.figure().subplots(3, 1)
    first = TrainingHistoryDisplay.from_estimator(plain, ax=axes, name="plain")
    assert first.axes_ is not None
    assert silent(axes[1])
    second = TrainingHistoryDisplay.from_estimator(robust, ax=first.axes_, name="robust", line_kw={"lw": 3.0})
    np.testing.assert_array_equal(second.axes_, axes)
    assert labels(axes[0]) == ["plain, train", "robust, train"]
    assert not any(map(silent, axes))
    # One training has one color in all panels.
    assert {line.get_color() for line in second.lines_} == {second.lines_[0].get_color()}
    assert second.lines_[0].get_color() != first.lines_[0].get_color()
    assert {line.get_linewidth() for line in second.lines_} == {3.0}
    assert sum(line.get_linestyle() == ":" for line in axes[1].lines) == 1


def test_one_axes_is_the_bounds_of_three() -> None:
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    display = TrainingHistoryDisplay.from_estimator(BlockGMDClassifier(**OPTIONS).fit(X, Y), ax=left)
    figure.canvas.draw()
    assert not left.axison
    assert all(ax.get_position().x1 < right.get_position().x0 for ax in display.axes_)
    with pytest.raises(ValueError, match="give the display's axes_"):
        display.plot(left)
    with pytest.raises(ValueError, match="ax must be one matplotlib Axes, 3 of them, or None"):
        display.plot([left, right])


def test_pipelines_searches_regressors_and_plain_nets() -> None:
    pipe = make_pipeline(StandardScaler(), BlockGMDClassifier(**OPTIONS)).fit(X, Y)
    search = GridSearchCV(pipe, {"blockgmdclassifier__lr": [0.01]}, cv=2).fit(X, Y)
    for fitted, inner in ((pipe, pipe[-1]), (search, search.best_estimator_[-1])):
        np.testing.assert_allclose(TrainingHistoryDisplay.from_estimator(fitted).train_loss, inner.loss_curve_)
    regressor = BlockGMDRegressor(max_epochs=2, random_state=0).fit(*make_regression(50, 3, random_state=0))
    assert np.isfinite(TrainingHistoryDisplay.from_estimator(regressor).train_loss).all()
    plain = TrainingHistoryDisplay.from_estimator(NeuralNetClassifier(torch.nn.Linear(4, 2), **NET).fit(X, Y))
    assert [silent(ax) for ax in plain.axes_] == [False, True, True]


@pytest.mark.parametrize(
    "model",
    [
        BlockGMDClassifier(),
        make_pipeline(StandardScaler(), BlockGMDRegressor()),
        RobustNeuralNetClassifier(torch.nn.Linear(4, 2)),
        RobustNeuralNetClassifier(torch.nn.Linear(4, 2)).initialize(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_it_must_be_fitted(model: Any) -> None:
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(model)


@pytest.mark.parametrize(
    "model", [np.zeros(3), "net", None, LogisticRegression().fit(X, Y), BlockGMDClassifier], ids=str
)
def test_it_must_have_a_history(model: Any) -> None:
    with pytest.raises(TypeError, match="estimator must be"):
        TrainingHistoryDisplay.from_estimator(model)
