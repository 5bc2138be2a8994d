"""Parts of graphs that give no gradients back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nets import Checkpointed, Reversible
from skbgmd._utils.backward_passes import is_in_half_precision, refuse_reentrant, unwritten

pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize("computed", [False, True])
def test_reentrant_checkpoints_are_refused(computed):
    x = torch.randn(6, 4)
    refuse_reentrant(Checkpointed(reentrant=False, computed=computed)(x).sum())
    refuse_reentrant(torch.ones(()))
    with pytest.raises(ValueError, match="Give it use_reentrant=False"):
        refuse_reentrant(Checkpointed(computed=computed)(x).sum())


def differentiated(net):
    parameters = list(net.parameters())
    with unwritten(parameters):
        torch.autograd.grad(net(torch.randn(6, 4)).sum(), parameters, allow_unused=True)


@pytest.mark.parametrize("before", [False, True])
def test_what_is_written_to_grad_is_refused_and_taken_back(before):
    net = Reversible()
    if before:
        net(torch.randn(6, 4)).sum().backward()
    held = [each.grad for each in net.parameters()]
    known = [None if gradient is None else gradient.clone() for gradient in held]
    with pytest.raises(ValueError, match=r"shape \(5, 5\)"):
        differentiated(net)
    for parameter, gradient, values in zip(net.parameters(), held, known, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, values)


def fail(parameter):
    with unwritten([parameter]):
        assert parameter.grad is None
        raise KeyError


def test_gradients_are_there_again_after_an_error():
    parameter = torch.ones(2, requires_grad=True)
    gradient = parameter.grad = torch.ones(2)
    with pytest.raises(KeyError):
        fail(parameter)
    with unwritten([parameter]):
        torch.autograd.grad(parameter.sum(), parameter)
    assert parameter.grad is gradient


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_anywhere_in_a_graph_is_found(dtype):
    x, net, frozen = torch.randn(6, 4), nn.Linear(4, 4), nn.Linear(4, 3).to(dtype).requires_grad_(False)
    assert not is_in_half_precision(torch.ones(()))
    assert not is_in_half_precision(net(x).sum())
    assert not is_in_half_precision(net(x).double().sum())
    assert is_in_half_precision(frozen(net(x).to(dtype)).float().sum())
    assert is_in_half_precision(net(x).to(dtype).sum())
    with torch.autocast("cpu", dtype=dtype):
        predicted = net(x)
    assert is_in_half_precision(predicted.float().sum())
