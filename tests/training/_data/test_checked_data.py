"""What nets refuse of data; masks and dates are beside the other tests of such."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier
from skorch.dataset import Dataset

from nets import dataset_of, linear_net
from skbgmd import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.training._estimator.wrapping import robust_class

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def data(rng):
    X = rng.normal(size=(150, 4)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] > 0).astype(np.int64)


@pytest.mark.parametrize(
    "kind", [RobustNeuralNetClassifier, RobustNeuralNetRegressor, robust_class(NeuralNetBinaryClassifier)]
)
def test_targets_must_be_given(data, kind):
    with pytest.raises(ValueError, match="No y-values are given"):
        linear_net(kind=kind, criterion=torch.nn.MSELoss).fit(data[0], None)


def test_targets_that_a_dataset_or_a_loader_has(data):
    X, y = data
    linear_net().fit(Dataset(X, y), None)
    # Of the general net none are asked for, as in skorch.
    linear_net(kind=RobustNeuralNet, criterion=ToZero).fit(X, None)


class ToZero(torch.nn.MSELoss):
    def forward(self, predicted, target):
        return super().forward(predicted, torch.zeros_like(predicted))


def test_weights_must_reach_the_steps(data):
    X, y = data
    weighted = dataset_of(X, y, np.ones(150))
    with pytest.raises(
        ValueError, match=r"iterator_train must be an ArrayLoader .* for samples to have weights; found"
    ):
        linear_net(iterator_train=torch.utils.data.DataLoader).fit(weighted, y)
    with pytest.raises(ValueError, match=r"train_split must give the training data or .* to have weights; found"):
        linear_net(train_split=lambda dataset, y: (Dataset(X, y), None)).fit(weighted, y)
    linear_net(train_split=lambda dataset, y: (Dataset(X, y), None)).fit(dataset_of(X, y), y)


@pytest.mark.parametrize("kind", [RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_no_samples_are_refused(kind, method):
    X, y = np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64)
    none = [X, [], {"X": X}, [X, X], torch.from_numpy(X), torch.utils.data.TensorDataset(torch.from_numpy(X))]
    for data in none:
        net = linear_net(kind=kind)
        with pytest.raises(ValueError, match="X must have at least one sample; found none"):
            getattr(net, method)(data, y)
        assert not net.initialized_


def test_predictions_of_no_samples_are_refused(data):
    net = linear_net(kind=RobustNeuralNetRegressor).initialize()
    with pytest.raises(ValueError, match="X must have at least one sample; found none"):
        net.predict(data[0][:0])
