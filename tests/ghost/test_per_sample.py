"""Layers without a rule, by torch.func."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from single import check, ghost, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import DenseFactor, GhostError, register_rule


class Scale(nn.Module):
    """A layer that there is no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((3,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_unknown_layers_by_torch_func_and_by_a_rule_of_ones_own() -> None:
    x = made((5, 3), torch.float32, 0)
    module = nn.Sequential(nn.Linear(3, 3), Scale(), nn.ReLU(inplace=True))
    check(module, x)
    used = []

    class Ruled(Scale):
        pass

    @register_rule(Ruled)
    def rule(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Any:
        used.append(layer)
        return {"factor": DenseFactor(inputs[0] * gradient)}

    check(nn.Sequential(nn.Linear(3, 3), Ruled()), x)
    assert used


def test_an_output_without_gradient_before_the_one_with() -> None:
    class Two(Scale):
        def forward(self, x: torch.Tensor) -> Any:
            return x.detach().argmax(dim=1), self.factor * x

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.two(x)[1]
            return result

    check(Second(), made((5, 3), torch.float32, 0))


def test_unknown_layers_that_torch_func_cannot_do_are_refused_by_name() -> None:
    class PreAggregation(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * (x - x.mean(dim=0))

    class Drawing(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * torch.nn.functional.dropout(x, 0.5)

    class Deciding(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x if x.detach().sum() > 0.0 else self.factor * -x

    x = made((5, 3), torch.float32, 0)
    with torch.random.fork_rng(devices=[]):
        for kind, reason in (
            (PreAggregation, "depends on the others"),
            (Drawing, "torch.func can't"),
            (Deciding, "torch.func"),
        ):
            with pytest.raises(GhostError, match=f"'1' gives no gradients of single samples: .*{reason}"):
                ghost(nn.Sequential(nn.Linear(3, 3), kind()), x, loss)


class Overridden(nn.GRU):
    """A recurrent layer for which there is no rule: it may do anything."""

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        return super().forward(x, hx)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_of_ones_own_by_torch_func(batch_first: bool) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = Overridden(3, 4, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.recurrent(x if batch_first else x.transpose(0, 1))[1][-1]
            return result

    torch.manual_seed(0)
    check(Last(), made((5, 4, 3), torch.float32, 0))
    layer = Overridden(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    check(nn.Sequential(nn.Linear(3, 3), layer), made((5, 4, 3), torch.float32, 0))


def test_what_would_draw_other_numbers_is_refused() -> None:
    with pytest.raises(GhostError, match="draws other numbers"):
        ghost(nn.GRU(3, 3, num_layers=2, dropout=0.5, batch_first=True), made((5, 4, 3), torch.float32, 0), loss)
    with pytest.raises(GhostError, match="draws other numbers"):
        ghost(Overridden(3, 3, num_layers=2, dropout=0.5, batch_first=True), made((5, 4, 3), torch.float32, 0), loss)
