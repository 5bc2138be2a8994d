"""The perceptron that an estimator builds."""

from __future__ import annotations

import pytest
import torch

from skbgmd.mlp import MLP

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize(("hidden", "n"), [((), 4 * 3 + 3), ((5,), 4 * 5 + 5 + 5 * 3 + 3), ((5, 2), 25 + 12 + 9)])
def test_sizes(hidden, n):
    module = MLP(4, 3, hidden, dtype=torch.float64)
    assert sum(p.numel() for p in module.parameters()) == n
    assert module(torch.zeros(7, 4, dtype=torch.float64)).shape == (7, 3)
    assert isinstance(module[-1], torch.nn.Linear)
