"""The estimators' perceptron and the paper's network."""

from __future__ import annotations

import pytest
import torch

from skbgmd.training.networks import MLP, LeNet

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize(("hidden", "n"), [((), 4 * 3 + 3), ((5,), 4 * 5 + 5 + 5 * 3 + 3), ((5, 2), 25 + 12 + 9)])
def test_sizes(hidden, n):
    module = MLP(4, 3, hidden, dtype=torch.float64)
    assert sum(p.numel() for p in module.parameters()) == n
    assert module(torch.zeros(7, 4, dtype=torch.float64)).shape == (7, 3)
    assert isinstance(module[-1], torch.nn.Linear)


def test_has_the_papers_number_of_parameters():
    model = LeNet()
    sizes = [parameter.numel() for parameter in model.parameters()]
    assert sizes == [64 * 25, 64, 64 * 64 * 25, 64, 1024 * 1024, 1024, 10 * 1024, 10]
    assert sum(sizes) == 1_163_978


def test_gives_logits_for_as_many_classes_as_asked():
    logits = LeNet(n_classes=3)(torch.rand(6, 1, 28, 28))
    assert logits.shape == (6, 3)
    assert (logits < 0).any()
    assert not torch.allclose(logits.sum(dim=1), torch.ones(6))


def test_leaves_units_out_in_training_only():
    model, images = LeNet(), torch.rand(2, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(("n_classes", "error"), [(0, ValueError), (2.5, TypeError)])
def test_refuses_other_numbers_of_classes(n_classes, error):
    with pytest.raises(error, match="n_classes"):
        LeNet(n_classes=n_classes)
