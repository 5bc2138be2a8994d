"""The loss at displaced parameters, and a net that is as it was before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd import RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.aggregators import NormFilter, Zeno
from skbgmd.training._step.displaced_loss import DisplacedLoss, displaced


class Awkward(torch.nn.Module):
    """Dropout, batch norm, a frozen part, a draw in evaluation mode, and a buffer that is replaced in each pass."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6)
        self.dropout, self.last = torch.nn.Dropout(0.5), torch.nn.Linear(6, 2)
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x):
        self.passes = self.passes + 1
        h = self.dropout(self.norm(self.first(x)))
        return torch.softmax(self.last(h) + 0.01 * torch.randn(len(x), 2), dim=-1)


def flat(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@pytest.fixture
def net(forked):
    net = RobustNeuralNetClassifier(Awkward, lr=0.25, verbose=0).initialize()
    net.module_.train()
    net.module_.norm.eval()
    return net


def test_a_net_is_as_it_was(net, rng):
    X, y = torch.from_numpy(rng.normal(size=(9, 4))).float(), torch.tensor([0, 1] * 4 + [0])
    parameters = list(net.module_.parameters())
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    modes, state = [module.training for module in net.module_.modules()], torch.get_rng_state()
    loss = DisplacedLoss(net, parameters, X, y)
    index, displacement = np.arange(6), torch.randn(len(flat(parameters)), generator=torch.Generator().manual_seed(0))
    first, again = loss.on((X, y), index)(displacement), loss.on((X, y), index)(displacement)
    assert torch.equal(first, again)
    assert not first.requires_grad
    assert loss.lr == 0.25
    assert not torch.equal(first, loss.on((X, y), index)(0.0 * displacement))
    after = net.module_.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in net.module_.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in parameters)


def test_a_net_is_as_it_was_after_an_error(net):
    before, modes = flat(net.module_.parameters()), [module.training for module in net.module_.modules()]
    loss = DisplacedLoss(net, list(net.module_.parameters()), torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(IndexError):
        loss.on((torch.ones(3, 4), torch.full((3,), 7)), np.arange(3))(torch.ones_like(before))
    with pytest.raises(ValueError, match="must have the length of all parameters"):
        loss.on((torch.ones(3, 4), torch.zeros(3)), np.arange(3))(torch.ones(3))
    assert torch.equal(flat(net.module_.parameters()), before)
    assert [module.training for module in net.module_.modules()] == modes


def test_displacements_are_added_in_the_order_of_the_columns():
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))]
    with displaced(parameters, torch.arange(8.0)):
        assert parameters[0].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert parameters[1].tolist() == [6.0, 7.0]
    assert not flat([parameters[0]]).any()
    assert not parameters[1].any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_means_in_the_form_of_the_batch(reduction, forked, rng):
    net = RobustNeuralNetRegressor(torch.nn.Linear(3, 1), criterion__reduction=reduction, verbose=0).initialize()
    X, y = rng.normal(size=(8, 3)), rng.integers(0, 9, size=8)
    batch = torch.from_numpy(X).float(), torch.zeros(8, 1)
    parameters, index = list(net.module_.parameters()), np.array([5, 1, 2])
    found = DisplacedLoss(net, parameters, *batch).on((X, y), index)(torch.zeros(4))
    with torch.no_grad():
        expected = (net.module_(batch[0][index])[:, 0] - torch.from_numpy(y[index])).square().mean()
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_trusted_samples_change_no_draws_of_a_training(gradients, data, forked):
    """With all rows kept Zeno is the mean: the training is that of another such rule, dropout included."""
    X, y = data[0].astype(np.float32), (data[1] == "yes").astype(np.int64)
    found = []
    for rule in (NormFilter(fraction=0.0), Zeno(trusted=(X[:20], y[:20]), fraction=0.0)):
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2), torch.nn.Softmax(dim=-1)
        )
        net = RobustNeuralNetClassifier(
            module, aggregator=rule, gradients=gradients, group_size=8, max_epochs=3, verbose=0
        ).fit(X, y)
        found.append(flat(net.module_.parameters()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
