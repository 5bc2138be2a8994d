"""A classifier that was fitted to wrong labels, which are to be found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from skbgmd import BlockGMDClassifier


def fitted_to_wrong_labels() -> tuple[BlockGMDClassifier, NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """A model of 600 digits, the digits, their labels, and which tenth of these is wrong."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16.0, y[:600].copy()
    wrong = np.arange(600) % 10 == 3
    y[wrong] = (y[wrong] + 1) % 10
    return BlockGMDClassifier(huber=1.0, max_epochs=40, random_state=0).fit(X, y), X, y, wrong
