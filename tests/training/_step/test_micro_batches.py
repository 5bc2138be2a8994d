"""Rows of a pass for each group, and of steps that groups take by themselves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from skbgmd import RobustNeuralNetClassifier

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def data(rng):
    X = rng.normal(size=(150, 4))
    return X, (X[:, 0] - X[:, 1] > 0).astype(np.int64)


def test_batch_normalization_in_groups_of_one(data):
    X, y = data
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).double()
    settings = {"criterion": torch.nn.CrossEntropyLoss, "verbose": 0, "max_epochs": 2}
    RobustNeuralNetClassifier(module, group_size=2, **settings).fit(X, y)
    net = RobustNeuralNetClassifier(module, group_size=1, **settings).initialize()
    before = copy.deepcopy(net.module_.state_dict())
    with pytest.raises(ValueError, match=r"at least two samples .* layer '0'.*Raise group_size, or use torch.nn.Group"):
        net.partial_fit(X, y)
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())


@pytest.mark.parametrize("steps", [2, 3])
def test_local_steps(data, steps):
    X, y = (torch.from_numpy(part[:24]) for part in data)
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).double()
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "max_epochs": 1, "lr": 0.1}
    net = RobustNeuralNetClassifier(
        module, aggregator="mean", group_size=12, local_steps=steps, batch_size=24, **settings
    ).initialize()
    start = copy.deepcopy(net.module_)
    ends = []
    for part in (slice(0, 12), slice(12, 24)):
        local = copy.deepcopy(start)
        optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        for piece in range(steps):
            few = slice(part.start + piece * 12 // steps, part.start + (piece + 1) * 12 // steps)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(local(X[few]), y[few]).backward()
            optimizer.step()
        ends.append([p.detach() for p in local.parameters()])
    net.partial_fit(X, y)
    for found, *moved in zip(net.module_.parameters(), *ends, strict=True):
        torch.testing.assert_close(found.detach(), sum(moved) / 2, rtol=1e-9, atol=1e-12)
