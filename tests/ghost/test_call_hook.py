"""Hooks that copies of a layer don't keep."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from single import forked_initialisation as forked_initialisation
from single import made
from skbgmd.ghost import GradientRecorder


class Scale(nn.Module):
    """A layer that there is no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((4,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Net(nn.Module):
    """Layers with a rule and without one, and one that is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(3, 4), Scale()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.scale(self.first(x))
        result: torch.Tensor = self.attention(x, x, x)[0]
        return result


def n_hooks(module: nn.Module) -> int:
    kinds = ("forward_hooks", "forward_pre_hooks", "forward_hooks_with_kwargs", "forward_hooks_always_called")
    return sum(len(getattr(layer, f"_{kind}")) for layer in module.modules() for kind in kinds)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_of_a_hooked_module_record_nothing(copied: Callable[[Any], Any]) -> None:
    net, x = Net(), made((5, 2, 3), torch.float32, 0)
    with GradientRecorder(net) as recorder:
        twin = copied(net)
        n_before = n_hooks(net)
        expected = twin(x)
        assert not recorder.calls
        assert (n_hooks(twin), n_hooks(net)) == (0, n_before)
        torch.testing.assert_close(net(x), expected)
        assert recorder.calls
    assert n_hooks(net) == 0


def test_copies_of_a_hooked_module_that_fail_at_once() -> None:
    net = Net()
    with GradientRecorder(net):
        twin = copy.deepcopy(net)
    for _ in range(2):
        with pytest.raises(AssertionError, match="embedding dimension"):
            twin.attention(*[torch.zeros(5, 2, 3)] * 3)
    assert n_hooks(twin.attention) == 0
