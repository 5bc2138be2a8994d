"""Robust steps for nets that exist."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor

from skbgmd import RobustNeuralNetClassifier
from skbgmd.batches import ArrayLoader
from skbgmd.wrapping import robust_class, wrapped

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


class Penalized(NeuralNetClassifier):
    """A user's net, with a loss and a parameter of its own."""

    def __init__(self, *args, penalty=0.1, **kwargs):
        super().__init__(*args, **kwargs)
        self.penalty = penalty

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + self.penalty * sum(p.square().sum() for p in self.module_.parameters())


class Layer(torch.nn.Linear):
    def __init__(self, n=2):
        super().__init__(4, n)


@pytest.fixture
def net():
    return Penalized(Layer, criterion=torch.nn.CrossEntropyLoss, lr=0.3, batch_size=17, penalty=0.2, verbose=0)


def test_settings_stay_and_the_step_changes(net, rng):
    robust = wrapped(net, aggregator="krum", group_size=4)
    assert isinstance(robust, Penalized)
    assert (robust.lr, robust.batch_size, robust.penalty, robust.aggregator) == (0.3, 17, 0.2, "krum")
    assert robust.iterator_train is ArrayLoader
    assert net.iterator_train is not ArrayLoader
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    robust.fit(X, y)
    assert "distrusted_weight" in robust.history[-1]
    assert not net.initialized_
    again = pickle.loads(pickle.dumps(robust))
    np.testing.assert_array_equal(again.predict_proba(X), robust.predict_proba(X))
    again.partial_fit(X, y)
    # The user's own loss is still the loss.
    assert robust.history[-1, "train_loss"] > 0.0
    heavy = wrapped(net.set_params(penalty=100.0, lr=1e-3), aggregator="krum").fit(X, y)
    assert sum(p.detach().square().sum().item() for p in heavy.module_.parameters()) < 0.5


def test_classes_are_made_once():
    assert robust_class(NeuralNetRegressor) is robust_class(NeuralNetRegressor)
    assert robust_class(RobustNeuralNetClassifier) is RobustNeuralNetClassifier
    assert robust_class(Penalized).__name__ == "RobustPenalized"
