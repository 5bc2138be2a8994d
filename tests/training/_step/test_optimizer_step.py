"""Steps of optimizers for gradients that stay in place: the same as by the optimizer, and where they aren't taken."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from skbgmd.training._step.optimizer_step import in_place_step


def trained(make: Any, *, in_place: bool) -> tuple[list[torch.Tensor], Any]:
    """Parameters after some steps by a generator's gradients, and what took the steps."""
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    optimizer = make(module.parameters())
    generator = torch.Generator().manual_seed(1)
    parameters = list(module.parameters())
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    step = None
    for number in range(6):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            gradient.copy_(torch.randn(gradient.shape, generator=generator))
            parameter.grad = gradient
        if in_place and number:
            step = step or in_place_step(optimizer, parameters, gradients)
            with torch.no_grad():
                step()
        else:
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.9
    return [parameter.detach().clone() for parameter in parameters], step


pytestmark = pytest.mark.usefixtures("forked")

OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "Adam, decayed": lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=0.3, fused=True),
    "Adam, up": lambda parameters: torch.optim.Adam(parameters, lr=0.1, maximize=True, betas=(0.5, 0.7), fused=True),
    "Adam, not fused": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "AMSGrad": lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True, fused=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_the_optimizers(name: str) -> None:
    expected, _ = trained(OPTIMIZERS[name], in_place=False)
    found, step = trained(OPTIMIZERS[name], in_place=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
    assert hasattr(step, "__self__") == (name not in ("Adam", "Adam, decayed", "Adam, up"))


def one_step() -> tuple[torch.optim.Adam, list[torch.Tensor], list[torch.Tensor]]:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1, fused=True)
    parameter.grad = torch.ones(3)
    optimizer.step()
    return optimizer, [parameter], [parameter.grad]


def is_direct(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> bool:
    return not hasattr(in_place_step(optimizer, parameters, gradients), "__self__")


def test_hooks_keep_the_optimizers_own_step() -> None:
    optimizer, parameters, gradients = one_step()
    assert is_direct(optimizer, parameters, gradients)
    handle = optimizer.register_step_pre_hook(lambda *_: None)
    assert not is_direct(optimizer, parameters, gradients)
    handle.remove()
    handle = register_optimizer_step_post_hook(lambda *_: None)
    try:
        assert not is_direct(optimizer, parameters, gradients)
    finally:
        handle.remove()


def test_a_scheduler_keeps_the_step_that_it_counts() -> None:
    optimizer, parameters, gradients = one_step()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert in_place_step(optimizer, parameters, gradients) is optimizer.step


def test_a_learning_rate_that_is_a_tensor_and_states_that_are_missing_keep_it() -> None:
    optimizer, parameters, gradients = one_step()
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    assert not is_direct(optimizer, parameters, gradients)
    optimizer, parameters, gradients = one_step()
    fresh = copy.deepcopy(optimizer)
    fresh.state.clear()
    assert not is_direct(fresh, fresh.param_groups[0]["params"], gradients)
