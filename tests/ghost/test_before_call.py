"""Layers without a rule are called anew as if for the first time, and keep what the batch's call left."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from single import forked_initialisation as forked_initialisation
from single import ghost, loss, made
from skbgmd.ghost import GhostError
from skbgmd.ghost.before_call import BeforeCall


class Keeps(nn.Module):
    """A layer without a rule that keeps something of each call."""

    def __init__(self, keep: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((3,), 1.5))
        self.fixed = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.inner = nn.Module()
        self.inner.register_buffer("last", torch.zeros(0))
        self.register_buffer("last", torch.zeros(0), persistent=False)
        self.register_buffer("steps", torch.zeros(()))
        self.plain: Any = None
        self.log: list[Any] = []
        self.nested: dict[str, Any] = {"log": ([], deque([[]]))}
        self.by_name: Any = defaultdict(list)
        self.sizes: set[int] = set()
        self.keep = [keep]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.factor * x
        self.keep[0](self, h.detach())
        return h


def _assign(layer: Any, h: torch.Tensor) -> None:
    layer.last, layer.inner.last, layer.plain = h, h.mean(dim=0), h.norm()


def _count(layer: Any, h: torch.Tensor) -> None:
    layer.steps += 1.0
    with torch.no_grad():
        layer.fixed.add_(1.0)


def _count_anew(layer: Any, h: torch.Tensor) -> None:
    layer.steps = layer.steps + 1.0


def _append(layer: Any, h: torch.Tensor) -> None:
    layer.log.append(h)
    layer.nested["log"][0].append(h)
    layer.nested["log"][1][0].append(h)
    layer.by_name["h"].append(h)
    layer.sizes.add(len(h))


@pytest.mark.parametrize(
    ("keep", "read"),
    [
        (_assign, lambda layer: [layer.last, layer.inner.last, layer.plain]),
        (_count, lambda layer: [layer.steps, layer.fixed]),
        (_count_anew, lambda layer: [layer.steps]),
        (_append, lambda layer: [*layer.log, *layer.nested["log"][0], *layer.nested["log"][1][0], *layer.by_name["h"]]),
    ],
    ids=["assign", "count", "count_anew", "append"],
)
def test_what_a_layer_keeps_is_that_of_its_calls(keep: Any, read: Callable[[Any], list[torch.Tensor]]) -> None:
    x, found = made((5, 3), torch.float32, 0), []
    for recorded in (False, True):
        layer = Keeps(keep)
        module = nn.Sequential(layer, nn.Linear(3, 3))
        for _ in range(2):
            if recorded:
                ghost(module, x, loss)
            else:
                module(x)
        pickle.dumps(read(layer))
        found.append(([value.clone() for value in read(layer)], layer.sizes, sorted(vars(layer))))
    plain, by_recorder = found
    assert plain[1:] == by_recorder[1:]
    assert len(plain[0]) == len(by_recorder[0]) > 0
    for expected, value in zip(plain[0], by_recorder[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=0.0, atol=0.0)


def test_hooks_of_a_user_see_the_calls_of_batches_alone_and_what_they_change_counts() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((3,), 1.5))
            self.inner = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.factor * self.inner(x)
            return result

    x, layer, seen = made((5, 3), torch.float32, 0), Deep(), []
    layer.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    layer.inner.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    layer.register_full_backward_hook(lambda module, given, gradient: seen.append(gradient[0].detach()))
    layer.register_forward_pre_hook(lambda module, args: (2.0 * args[0],))
    layer.register_forward_hook(lambda module, args, output: output.square())
    module = nn.Sequential(nn.Linear(3, 3), layer)
    rows = ghost(module, x, loss)
    assert [value.shape for value in seen] == [(5, 3)] * 3
    assert float(torch.cat(seen).sum()) != 0.0
    total = torch.autograd.grad(loss(module(x)).sum(), list(module.parameters()))
    expected = torch.cat([gradient.reshape(-1) for gradient in total])
    torch.testing.assert_close(rows.weighted_sum(torch.ones(5).numpy()).float(), expected, rtol=1e-4, atol=1e-4)


class Outer(nn.Module):
    """A layer without a rule with another one in it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((3,), 1.5))
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.factor * self.inner(x)
        return result


def _by_hook(norm: Any) -> nn.Module:
    with warnings.catch_warnings():
        # That there is a parametrization in its place.
        warnings.simplefilter("ignore", FutureWarning)
        normalised: nn.Module = norm(nn.Linear(3, 3))
    return normalised


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
        lambda: Outer(parametrizations.spectral_norm(nn.Linear(3, 3))),
        lambda: Outer(_by_hook(nn.utils.spectral_norm)),
        lambda: Outer(_by_hook(nn.utils.weight_norm)),
    ],
    ids=["spectral_norm", "spectral_norm_inside", "spectral_norm_by_hook", "weight_norm_by_hook"],
)
def test_normalised_weights_are_those_of_the_batchs_call(make: Callable[[], nn.Module]) -> None:
    x, module = made((5, 3), torch.float32, 0), nn.Sequential(make(), nn.Tanh(), nn.Linear(3, 3))
    for _ in range(3):
        before = {name: value.clone() for name, value in module.named_buffers()}
        losses = loss(module(x))
        after = {name: value.clone() for name, value in module.named_buffers()}
        total = torch.autograd.grad(losses.sum(), list(module.parameters()))
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(before[name])
        rows = ghost(module, x, loss)
        for name, value in module.named_buffers():
            torch.testing.assert_close(value, after[name], rtol=0.0, atol=0.0)
        expected = torch.cat([gradient.reshape(-1) for gradient in total])
        found = rows.weighted_sum(torch.ones(5).numpy()).float()
        assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


def test_parameters_are_changed_by_the_batchs_call_alone() -> None:
    class Shrinking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((3,), 1.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.factor.mul_(0.999)
            return self.factor * x

    layer = Shrinking()
    ghost(nn.Sequential(layer, nn.Linear(3, 3)), made((5, 3), torch.float32, 0), loss)
    torch.testing.assert_close(layer.factor.detach(), torch.full((3,), 1.5 * 0.999))


def test_changes_in_place_of_large_buffers_are_refused_and_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skbgmd._utils.limits.COPIED_BUFFER_ELEMENTS", 0)
    layer = Keeps(_count)
    with pytest.raises(GhostError, match=r"'0' gives no gradients of single samples: torch.func can't"):
        ghost(nn.Sequential(layer, nn.Linear(3, 3)), made((5, 3), torch.float32, 0), loss)
    assert (float(layer.steps), float(layer.fixed)) == (1.0, 1.0)


def test_a_call_that_fails_leaves_no_state_behind() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((3,), 1.5))
            self.n_calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.n_calls += 1
            if self.n_calls == 1:
                raise ValueError("not yet")
            return self.factor * self.n_calls * x

    layer, x = Failing(), made((5, 3), torch.float32, 0)
    with pytest.raises(ValueError, match="not yet"):
        ghost(layer, x, loss)
    assert ghost(layer, x, loss).n_rows == 5
    assert layer.n_calls == 2


def test_what_was_taken_is_put_back_whatever_happens() -> None:
    layer = Keeps(_assign)
    layer.keep = layer.keep * 2
    taken = BeforeCall(layer)
    log, keep = layer.log, layer.keep
    layer.log.append(1)

    def fail() -> None:
        with taken.restored():
            assert layer.log == []
            assert layer.keep == keep
            layer.log.append(2)
            layer.new = 3
            raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        fail()
    assert layer.log is log == [1]
    assert layer.keep is keep
    assert not hasattr(layer, "new")
    assert isinstance(layer._forward_hooks, OrderedDict)
