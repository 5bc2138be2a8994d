"""The picture of the choice of a strength."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.inspection import StrengthDisplay
from skbgmd.training._strength.evidence import Evidence

EVIDENCE = {"mild": Evidence(0.7, 0.0, 0.0), "strict": Evidence(0.8, 0.1, 0.02), "firm": Evidence(0.72, 0.02, 0.03)}


@pytest.fixture(autouse=True)
def closed() -> Any:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def chosen(estimator: Any, name: str) -> Any:
    estimator.strength_scores_, estimator.strength_ = EVIDENCE, name
    return estimator


def test_gains_are_drawn_with_their_errors() -> None:
    estimator = chosen(BlockGMDClassifier(), "strict")
    estimator.classes_ = np.array([0, 1])
    display = StrengthDisplay.from_estimator(make_pipeline(estimator))
    ax = display.ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mild", "firm", "strict (chosen)"]
    assert "percentage points" in ax.get_xlabel()
    # Those whose bars end to the right of zero are clear.
    ends = [container.lines[1][0].get_xdata()[0] for container in ax.containers]
    np.testing.assert_allclose(ends, [0.0, -1.0, 8.0])
    assert display.figure_ is ax.figure
    again = StrengthDisplay(EVIDENCE, "strict").plot(ax=ax)
    assert again.ax_ is ax


def test_of_numbers_the_score_is_another() -> None:
    display = StrengthDisplay.from_estimator(chosen(BlockGMDRegressor(), "firm"))
    assert "minus absolute or clipped squared error" in display.ax_.get_xlabel()
    assert display.scale == 1.0


def test_there_must_have_been_a_choice() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    with pytest.raises(ValueError, match="found strength='firm' without a choice"):
        StrengthDisplay.from_estimator(BlockGMDClassifier(strength="firm", max_epochs=1).fit(X, y))
    with pytest.raises(ValueError, match="fewer than 100 samples or 20 epochs"):
        StrengthDisplay.from_estimator(BlockGMDClassifier(max_epochs=1).fit(X, y))
    with pytest.raises(NotFittedError):
        StrengthDisplay.from_estimator(BlockGMDClassifier())
