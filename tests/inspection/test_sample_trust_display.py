"""The picture of the samples' trust and losses."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from suspecting import fitted_to_wrong_labels

from skbgmd import BlockGMDClassifier
from skbgmd.inspection import (
    SampleTrustDisplay,
    SuspectGridDisplay,
    estimate_n_suspects,
    find_suspects,
    sample_losses,
)


@pytest.fixture(scope="module")
def wrong_labels() -> Any:
    return fitted_to_wrong_labels()


def test_suspects_are_drawn_apart(wrong_labels: Any) -> None:
    model, X, y, wrong = wrong_labels
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    display = SampleTrustDisplay.from_estimator(model, X, y, corrupted=wrong)
    left, right = display.axes_
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert set(labels) == {"clean (540)", "corrupted (60)", f"threshold {display.threshold:.2f}"}
    assert sum(patch.get_height() for patch in left.patches) == 600
    assert sum(len(line.get_xdata()) for line in right.lines) == 600
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.lines[0].get_xdata()[0] == display.threshold == estimate_n_suspects(model).threshold
    assert display.figure_ is left.figure
    suspects = SampleTrustDisplay.from_estimator(model, X, y)
    assert f"suspects ({len(find_suspects(model))})" in suspects.axes_[0].get_legend().get_texts()[1].get_text()
    without = SampleTrustDisplay(model.sample_trust_, display.loss).plot()
    assert without.axes_[0].get_xlabel() == "trust (mean weight)"
    with pytest.raises(ValueError, match="y must be of the 600 samples"):
        SampleTrustDisplay.from_estimator(model, X, y[:5])
    plt.close("all")


def test_axes_must_be_such() -> None:
    display = SampleTrustDisplay(np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="ax must be one matplotlib Axes, 2 of them, or None"):
        display.plot(object())


def test_losses_are_those_of_a_whole_pipeline(wrong_labels: Any) -> None:
    _, X, y, _ = wrong_labels
    pipe = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=3, random_state=0)).fit(X, y)
    display = SampleTrustDisplay.from_estimator(pipe, X, y)
    np.testing.assert_allclose(display.loss, sample_losses(pipe[-1], pipe[:-1].transform(X), y))


def test_displays_of_sparse_samples_and_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 16)).astype(np.float32)
    y = (X[:, :3] > 0.0).astype(int)
    model = BlockGMDClassifier(max_epochs=5, strength="mild", random_state=0).fit(sparse.csr_array(X), y)
    assert SampleTrustDisplay.from_estimator(model, sparse.csr_array(X), y).figure_ is not None
    grid = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(4, 4), n=4)
    assert len(grid.indices) == 4


@pytest.mark.parametrize(
    "corrupted",
    [np.linspace(0.0, 1.0, 60), ["False"] * 60, np.zeros((60, 1)), pd.Series([None] + [True] * 59, dtype="boolean")],
)
def test_only_a_mask_says_what_is_corrupt(corrupted: Any) -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, X[:, 0] > 0.0)
    with pytest.raises(ValueError, match=r"corrupted must be True or False for each sample, of shape \(60,\); found"):
        SampleTrustDisplay.from_estimator(model, X, X[:, 0] > 0.0, corrupted=corrupted)


@pytest.mark.parametrize("kind", [list, torch.from_numpy, pd.Series, lambda mask: pd.array(mask), np.int8])
def test_masks_of_any_kind(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, X[:, 0] > 0.0)
    wrong = np.arange(60) < 7
    display = SampleTrustDisplay.from_estimator(model, X, X[:, 0] > 0.0, corrupted=kind(wrong))
    assert display.known is not None
    np.testing.assert_array_equal(display.known, wrong)


def test_unknown_trust_has_no_picture() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = BlockGMDClassifier(aggregator="coordinate_median", group_size=8, max_epochs=1).fit(X, X[:, 0] > 0.0)
    with pytest.raises(ValueError, match="sample_trust_ must be known; found only NaN"):
        SampleTrustDisplay.from_estimator(model, X, X[:, 0] > 0.0)
