"""Losses of samples; those of several labels are beside the other tests of such."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_regression

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.inspection import sample_losses


def test_losses_are_of_targets_that_can_be() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:60] / 16.0, y[:60]
    model = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"labels among the classes.*found \[-1\]"):
        sample_losses(model, X, np.where(np.arange(60) == 3, -1, y))
    X, y = make_regression(50, 3, random_state=0)
    regressor = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y)
    assert sample_losses(regressor, X, y[:, None]).tolist() == sample_losses(regressor, X, y).tolist()
    with pytest.raises(ValueError, match=r"shape of the predictions, \(50,\); found \(50, 2\)"):
        sample_losses(regressor, X, np.stack([y, y], axis=1))
    both = BlockGMDRegressor(max_epochs=1).fit(X[:5], np.stack([y[:5]] * 2, axis=1))
    with pytest.raises(ValueError, match=r"found \(2, 5\)"):
        sample_losses(both, X[:5], np.stack([y[:5]] * 2))
