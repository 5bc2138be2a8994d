"""The grid of suspicious images."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits

from skbgmd import BlockGMDClassifier
from skbgmd.inspection import SuspectGridDisplay, find_suspects
from skbgmd.inspection.suspect_grid_display import _images


@pytest.fixture(autouse=True)
def closed() -> Any:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted() -> Any:
    X, y = load_digits(return_X_y=True)
    X, y = X[:200] / 16.0, y[:200].copy()
    y[::10] = (y[::10] + 1) % 10
    return BlockGMDClassifier(strength="firm", max_epochs=20, random_state=0).fit(X, y), X, y


def test_the_most_suspicious_are_drawn_with_their_labels(fitted: Any) -> None:
    model, X, y = fitted
    display = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(8, 8), n=7, n_columns=4)
    np.testing.assert_array_equal(display.indices, find_suspects(model, 7))
    assert display.axes_.shape == (2, 4)
    first = display.axes_[0, 0]
    given, predicted = y[display.indices[0]], model.predict(X[display.indices[:1]])[0]
    assert first.get_title() == f"#{display.indices[0]}\ngiven {given}\npred. {predicted}"
    np.testing.assert_array_equal(first.images[0].get_array(), X[display.indices[0]].reshape(8, 8))
    assert not display.axes_[1, 3].images
    assert display.figure_ is first.figure
    with pytest.raises(ValueError, match="ax must be one matplotlib Axes, at least 7 of them, or None; found"):
        display.plot(display.axes_[0, :2])


def test_given_axes_are_drawn_on(fitted: Any) -> None:
    import matplotlib.pyplot as plt

    model, X, y = fitted
    figure, axes = plt.subplots(3, 3)
    display = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(8, 8), n=7, ax=axes)
    assert display.axes_ is axes
    assert [len(ax.images) for ax in axes.flat] == [1] * 7 + [0] * 2
    assert display.figure_ is figure
    bounds = plt.figure().add_subplot()
    within = display.plot(bounds, n_columns=3)
    assert within.axes_.shape == (3, 3)
    assert not bounds.axison
    assert all(bounds.get_position().padded(1e-9).fully_containsx(ax.get_position().x0) for ax in within.axes_.flat)


def test_long_labels_are_cut() -> None:
    images, label = np.zeros((1, 2, 2)), np.array(["a very long label"])
    display = SuspectGridDisplay(images, np.array([3]), label, label, np.ones(1)).plot()
    assert display.axes_[0, 0].get_title() == "#3\ngiven a very…\npred. a very…"


def test_dollar_signs_are_no_mathematics() -> None:
    images, label = np.zeros((1, 2, 2)), np.array(["$\\x_$"])
    display = SuspectGridDisplay(images, np.array([3]), label, label, np.ones(1)).plot()
    display.figure_.canvas.draw()
    assert display.axes_[0, 0].get_title() == "#3\ngiven $\\x_$\npred. $\\x_$"


def test_arguments_are_checked(fitted: Any) -> None:
    model, X, y = fitted
    with pytest.raises(ValueError, match="y must be of the 200 samples"):
        SuspectGridDisplay.from_estimator(model, X, y[:3], image_shape=(8, 8))
    with pytest.raises(ValueError, match=r"image_shape must be given .*of shape \(64,\)\. .*table are no images"):
        SuspectGridDisplay.from_estimator(model, X, y)
    for missing in ({"X": None, "y": y}, {"X": X, "y": None}):
        with pytest.raises(ValueError, match=r"must be of the 200 samples .* found None"):
            SuspectGridDisplay.from_estimator(model, **missing, image_shape=(8, 8))
    for wrong in (8, "ab", (8.0, 8.0), ((8, 8),), {8}, (True, 64), (8, (8,))):
        with pytest.raises(TypeError, match="image_shape must be"):
            SuspectGridDisplay.from_estimator(model, X, y, image_shape=wrong)
    for wrong in ((-8, -8), (0, 64), (8,), ()):
        with pytest.raises(ValueError, match="image_shape must be"):
            SuspectGridDisplay.from_estimator(model, X, y, image_shape=wrong)
    with pytest.raises(TypeError, match="X must hold the numbers of images; found dtype"):
        SuspectGridDisplay.from_estimator(model, X.astype(str), y, image_shape=(8, 8))
    with pytest.raises(ValueError, match=r"found \(8, 9\)"):
        SuspectGridDisplay.from_estimator(model, X, y, image_shape=(8, 9))


def test_images_are_put_in_the_order_and_range_of_pictures() -> None:
    flat = np.random.default_rng(0).normal(size=(2, 48))
    assert _images(flat, (4, 4, 3)).shape == (2, 4, 4, 3)
    turned = _images(flat, (3, 2, 8))
    assert turned.shape == (2, 2, 8, 3)
    assert (turned.min(), turned.max()) == (0.0, 1.0)
    assert _images(flat, (1, 6, 8)).shape == _images(flat, (6, 8, 1)).shape == (2, 6, 8)
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, the last; found \(4, 6, 2\)"):
        _images(flat, (4, 6, 2))


def test_data_of_any_kind_are_drawn_alike(fitted: Any) -> None:
    model, X, y = fitted
    expected = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(8, 8), n=3)
    of_grad = torch.tensor(X, requires_grad=True), torch.tensor(y, dtype=torch.float64, requires_grad=True)
    sparse_ones = [kind(X) for kind in (sparse.csr_matrix, sparse.coo_array, sparse.csc_array)]
    for given, labels in (of_grad, (torch.tensor(X).to_sparse(), y), *((each, y) for each in sparse_ones)):
        found = SuspectGridDisplay.from_estimator(model, given, labels, image_shape=np.array([8, 8]), n=3)
        for name in ("images", "indices", "given", "predicted", "trust"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_sparse_labels(fitted: Any) -> None:
    _, X, y = fitted
    labels = sparse.csr_matrix(np.stack([y > 3, y > 5], axis=1).astype(int))
    model = BlockGMDClassifier(max_epochs=2, random_state=0).fit(sparse.csr_matrix(X), labels)
    found = SuspectGridDisplay.from_estimator(model, sparse.csr_matrix(X), labels, image_shape=(8, 8), n=2)
    np.testing.assert_array_equal(found.given, labels.toarray()[found.indices])
    assert found.predicted.shape == (2, 2)
