"""Parameters that change between two calls."""

import warnings

import numpy as np
import pytest
import torch

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._estimator.changes import warn_of_changes

X, Y = np.random.default_rng(0).normal(size=(40, 2)), np.tile([0, 1], 20)


@pytest.mark.parametrize("make", [BlockGMDClassifier, BlockGMDRegressor])
@pytest.mark.parametrize(
    "changed", [{"lr": 0.5}, {"batch_size": 5}, {"hidden_layer_sizes": (3, 4)}, {"huber": 1.0}], ids=str
)
def test_changes_without_effect_are_told(make, changed):
    (name,) = changed
    model = make(max_epochs=1, warm_start=True, random_state=0).fit(X, Y)
    model.set_params(**changed)
    with pytest.warns(UserWarning, match=rf"keeps the parameters that it began with; found {name}=.* before\)"):
        model.fit(X, Y)
    with pytest.warns(UserWarning, match="keeps the parameters") as told:
        model.partial_fit(X, Y)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(warm_start=False).fit(X, Y)
        model.partial_fit(X, Y)


def test_changes_in_effect_are_not_told():
    model = BlockGMDClassifier(max_epochs=1, warm_start=True, random_state=0).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(max_epochs=3, class_weight="balanced").fit(X, Y)
    assert model.n_iter_ == 4


def test_only_what_can_be_compared_is():
    before = {
        "optimizer": torch.optim.SGD,
        "sizes": [3, 4],
        "array": np.ones(2),
        "module": torch.nn.Identity(),
        "lr": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        now = {**before, "sizes": (3, 4), "array": np.zeros(2), "module": torch.nn.Identity(), "other": 1}
        warn_of_changes(before, now)
    with pytest.warns(UserWarning, match="optimizer=.*Adam.* before"):
        warn_of_changes(before, {"optimizer": torch.optim.Adam})
