"""The recorder: calls of layers in any module, and modules that it refuses."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from nets import Checkpointed
from single import check, ghost, loss, made, reference
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder, recorded_layers
from skbgmd.ghost.registry import RULES, rule_of


class Scaled(nn.Module):
    """A layer without a rule."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].weight.requires_grad_(False)
    module[2].bias.requires_grad_(False)
    check(module, made((5, 3), torch.float32, 0))


def columns_of(recorder: GradientRecorder, module: nn.Module) -> list[tuple[int, int]]:
    with recorder:
        losses = module(made((5, 3), torch.float32, 0)).square().sum(dim=1)
    return [(start, factor.n_columns) for start, factor in recorder.factors(losses)]


def test_given_parameters_are_skipped_while_they_are_frozen() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[0].bias.requires_grad_(False)
    given = list(module.parameters())
    recorder = GradientRecorder(module, given)
    assert [id(each) for each in recorder.parameters] == [id(given[0]), *map(id, given[2:])]
    assert columns_of(recorder, module) == [(0, 12), (12, 4), (16, 4), (20, 8), (28, 2)]
    module[1].requires_grad_(False)
    module[0].bias.requires_grad_(True)
    assert columns_of(recorder, module) == [(0, 12), (12, 4), (16, 8), (24, 2)]
    module[1].requires_grad_(True)
    assert columns_of(recorder, module) == [(0, 12), (12, 4), (16, 4), (20, 4), (24, 8), (32, 2)]
    module.requires_grad_(False)
    with recorder:
        assert recorder.parameters == []


def test_given_parameters_count_once() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    given = list(module.parameters())
    recorder = GradientRecorder(module, iter([*given, given[0], given[3]]))
    assert list(map(id, recorder.parameters)) == list(map(id, given))
    assert columns_of(recorder, module) == [(0, 12), (12, 4), (16, 8), (24, 2)]


def test_stray_parameters_are_refused_by_name() -> None:
    class Stray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x) @ self.layer.weight
            return result

    with pytest.raises(GhostError, match=r"found 'layer.weight', which something else uses"):
        ghost(Stray(), made((5, 3), torch.float32, 0), loss)


class Empty(nn.Module):
    """A layer, and another one of which nothing depends."""

    def __init__(self, other: nn.Module, take: Any) -> None:
        super().__init__()
        self.other, self.take = other, [take]
        self.nothing = nn.ParameterList([torch.empty(0)])
        self.last = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(x) + self.take[0](self.other, x) + self.nothing[0].sum()
        return result


@pytest.mark.parametrize(
    ("make", "take"),
    [
        (lambda: nn.Linear(0, 4), lambda layer, x: layer(x[:, :0])),
        (lambda: nn.Linear(0, 4), lambda layer, x: layer(x[:, None, :0].expand(-1, 3, -1)).sum(dim=1)),
        (lambda: nn.Linear(0, 4, bias=False), lambda layer, x: layer(x[:, :0])),
        (lambda: nn.Linear(3, 0), lambda layer, x: layer(x).sum(dim=1, keepdim=True)),
        (lambda: nn.Embedding(5, 0), lambda layer, x: layer(x[:, 0].long() * 0).sum(dim=1, keepdim=True)),
        (lambda: nn.Linear(3, 4), lambda layer, x: layer(x[:, None][:, :0]).sum(dim=1)),
    ],
    ids=["no_inputs", "no_inputs_of_sequences", "nothing", "no_outputs", "no_dimensions", "empty_sequences"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_parameters_without_elements_and_sequences_without_positions(make: Any, take: Any) -> None:
    module, x = Empty(make(), take), made((5, 3), torch.float32, 0)
    check(module, x)
    recorder = GradientRecorder(module)
    for _ in range(2):
        with recorder:
            losses = loss(module(x))
        recorder.factors(losses)
    assert len(recorder.parameters) == len(list(module.parameters()))


def test_inputs_changed_in_place_are_refused() -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            out: torch.Tensor = self.layer(x)
            x.zero_()
            return out

    with pytest.raises(GhostError, match=r"into the layer 'layer' must not be changed in place"):
        ghost(Changed(), made((5, 3), torch.float32, 0), lambda out: out.sin().sum(dim=1))


class Summed(nn.Module):
    """Two layers whose outputs are added have one gradient in memory, and are no weights and bias of one layer."""

    def __init__(self, second: nn.Module, *, apart: bool) -> None:
        super().__init__()
        self.first = nn.Linear(16, 6, bias=False)
        if apart:
            self.unused = nn.Linear(5, 6)
        self.second, self.last = second, nn.Linear(6, 3)
        second.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = x[:, :6].view(-1, 2, 3) if isinstance(self.second, nn.LayerNorm) else x.flip(1)
        result: torch.Tensor = self.last((self.first(x) + self.second(other).flatten(1)).tanh())
        return result


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("second", [lambda: nn.Linear(16, 6), lambda: nn.LayerNorm((2, 3))])
def test_gradients_of_two_layers_in_one_place_in_memory(second: Any, apart: bool) -> None:
    torch.manual_seed(0)
    check(Summed(second(), apart=apart), made((5, 16), torch.float32, 0))


@pytest.mark.parametrize("computed", [False, True])
def test_reentrant_checkpoints_are_refused(computed: bool) -> None:
    """What they run has no graph, and no gradients but by a backward pass of its own."""
    module = Checkpointed(computed=computed)
    with GradientRecorder(module) as recorder:
        losses = module(made((5, 4), torch.float32, 0)).square().sum(dim=1)
    with pytest.raises(GhostError, match="use_reentrant=False"):
        recorder.factors(losses)
    check(Checkpointed(reentrant=False, computed=computed), made((5, 4), torch.float32, 0))


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    module = nn.TransformerEncoderLayer(4, 2, batch_first=True)
    with (
        pytest.raises(AssertionError, match="embedding dimension"),
        GradientRecorder(module, list(module.parameters())),
    ):
        module(torch.zeros(2, 3, 5))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
    with torch.overrides.TorchFunctionMode():  # one that was left entered would be left below this one
        pass
    assert torch.overrides._get_current_function_mode() is None


def test_no_gradient_of_a_parameter_is_computed() -> None:
    module = nn.Linear(3, 3)
    ghost(module, made((5, 3), torch.float32, 0), loss)
    assert module.weight.grad is None


def test_hooks_of_parameters_are_refused() -> None:
    module = nn.Linear(3, 3)
    module.weight.register_hook(lambda gradient: 0.5 * gradient)
    with pytest.raises(GhostError, match=r"Parameters must have no hooks .* found one of 'weight'"):
        ghost(module, made((5, 3), torch.float32, 0), loss)
    # Of another parameter it doesn't matter.
    with GradientRecorder(module, [module.bias]):
        module(torch.zeros(2, 3))


def test_autocast() -> None:
    # Of drawn networks some have gradients that all but cancel, with few of the digits that half precision has.
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = made((6, 8), torch.float32, 0)
    exact = reference(module, x, loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = ghost(module, x, lambda out: loss(out.float()))
    assert rows.dtype == torch.float32
    weights = np.full(6, 1 / 6)
    assert float((rows.weighted_sum(weights) - exact.mean(dim=0)).norm()) < 0.02 * float(exact.mean(dim=0).norm())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).cuda()
    x = made((6, 8), torch.float32, 0).cuda()
    rows = ghost(module, x, lambda out: out.square().sum(dim=1))
    exact = reference(module, x, lambda out: out.square().sum(dim=1)).double()
    assert rows.weighted_sum(np.full(6, 1 / 6)).device.type == "cuda"
    assert np.abs(rows.gram().products - (exact @ exact.T).cpu().numpy()).max() < 1e-5 * float(exact.square().sum())


def test_a_recorder_is_entered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []
    monkeypatch.setattr(recorded_layers, "rule_of", lambda layer: looked_up.append(layer) or rule_of(layer))
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    parameters = list(module.parameters())
    kept, weights = GradientRecorder(module, parameters), np.full(5, 0.2)
    for seed in range(3):
        x = made((5, 3), torch.float32, seed)
        with kept:
            module(x)  # begun anew by the next
        with kept:
            losses = loss(module(x))
        found = GhostRows(kept.factors(losses), 5, sum(p.numel() for p in parameters)).weighted_sum(weights)
        torch.testing.assert_close(found, reference(module, x, loss).mean(dim=0))
    assert looked_up == [layer.module for layer in kept.layers]
    assert not any(layer._forward_hooks for layer in module.modules())


def test_changes_are_seen_when_a_recorder_is_entered_again() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False).eval(), nn.Linear(4, 2))
    kept = GradientRecorder(module, list(module.parameters()))
    with kept:
        pass
    assert all(layer.rule is not None and not layer.is_own for layer in kept.layers)
    with patch.dict(RULES, {nn.Linear: lambda *_: {}}), kept:
        assert all(layer.is_own for layer in kept.layers)
    assert not any(layer.is_own for layer in kept.layers)
    module[2].forward = module[2].forward
    assert sorted(layer.rule is None for layer in kept.layers) == [False, True]
    module.train()
    with pytest.raises(GhostError, match="mixes those of a batch"), kept:
        pass
    module[1] = nn.Identity()
    with kept:
        assert len(kept.layers) == 2


def test_what_was_recorded_is_not_kept() -> None:
    """It holds a batch's graph: neither an error nor one pass that is given up may leave it there."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    x = made((5, 3), torch.float32, 0)
    recorder = GradientRecorder(module, list(module.parameters()))
    with recorder:
        losses = (module(x).sum(dim=1) + module[0].weight.sum()).square()
    assert len(recorder.calls) == 2
    with pytest.raises(GhostError, match=r"found '0\.weight', which something else uses"):
        recorder.factors(losses)
    assert not recorder.calls

    def interrupted() -> None:
        with recorder:
            module(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not recorder.calls
    assert not any(layer._forward_hooks for layer in module)


def test_a_recorder_is_left_before_it_is_entered_again() -> None:
    module = nn.Linear(3, 2)
    recorder = GradientRecorder(module, list(module.parameters()))
    with recorder, pytest.raises(RuntimeError, match="must be left before it is entered again"):
        recorder.__enter__()
    assert not module._forward_hooks


@pytest.mark.parametrize("entered", [False, True], ids=["left", "entered"])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh()),
        lambda: Scaled(6),
        lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True),
    ],
    ids=["rule", "no rule", "attention"],
)
def test_copies_record_the_copy(make: Any, copied: Any, entered: bool) -> None:
    module = make()
    recorder = GradientRecorder(module, list(module.parameters()))
    holder = nn.ModuleDict({"module": module})
    holder.recorder = recorder
    with recorder if entered else nullcontext():
        twin = copied(holder)
    of_twin = twin["module"]
    assert twin.recorder.module is of_twin
    assert not twin.recorder.is_entered
    x = made((5, 3, 6), torch.float32, 1)
    with recorder:
        # What a copy of an entered recorder's module is called with is not of the module.
        of_twin(x)
        assert not recorder.calls
    with twin.recorder as of_copy:
        losses = loss(of_twin(x))
    assert len(of_copy.factors(losses)) == len(list(module.parameters()))


class Holding(nn.Module):
    """A module that holds a recorder of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.recorder = GradientRecorder(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def saved(kept: Any) -> Any:
    file = io.BytesIO()
    torch.save(kept, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copied": copy.deepcopy,
    "pickled": lambda kept: pickle.loads(pickle.dumps(kept)),
    "saved": saved,
}


@pytest.mark.parametrize("used", ["never", "before", "half"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_record_the_module_that_is_copied_with_them(copied: Callable[[Any], Any], used: str) -> None:
    net, x = Holding(), made((5, 3), torch.float32, 0)
    if used != "never":
        with net.recorder:
            losses = loss(net(x))
        if used == "before":
            net.recorder.factors(losses)
    expected = columns_of(GradientRecorder(net), net)
    net.recorder.check = ["seen"]
    twin = copied(net)
    assert twin.recorder.module is twin
    assert twin.recorder.check == net.recorder.check
    assert twin.recorder.check is not net.recorder.check
    assert list(map(id, twin.recorder.parameters)) == list(map(id, twin.parameters()))
    assert columns_of(twin.recorder, twin) == expected
    alone = copied(GradientRecorder(net, list(net.parameters())[2:]))
    assert alone.parameters[0] is alone.module.layers[2].weight
    assert alone.parameters[0] is not net.layers[2].weight
    assert columns_of(alone, alone.module) == [(0, 8), (8, 2)]


def test_copies_of_an_entered_recorder_are_not_entered() -> None:
    net, x = nn.Linear(3, 2), made((5, 3), torch.float32, 0)
    with GradientRecorder(net) as recorder:
        losses = loss(net(x))
        for twin in (copy.deepcopy(recorder), copy.copy(recorder)):
            assert not twin.is_entered
            assert not twin.calls
        assert twin.module is net
    recorder.factors(losses)
    assert columns_of(twin, net) == [(0, 6), (6, 2)]


def lazy() -> nn.Sequential:
    norm = nn.LazyInstanceNorm1d(affine=True, track_running_stats=False)
    layers = [nn.LazyConv1d(4, 2, bias=False), norm, nn.Flatten(), nn.LazyLinear(3), nn.Tanh(), nn.Linear(3, 2)]
    return nn.Sequential(nn.Unflatten(1, (2, 3)), *layers)


def test_lazy_layers_are_recorded_from_the_first_batch_on() -> None:
    module, x = lazy().double(), made((5, 6), torch.float64, 0)
    for kept in (GradientRecorder(module), copy.deepcopy(GradientRecorder(module))):
        for _ in range(2):
            with kept:
                losses = loss(kept.module(x))
            assert all(layer.rule is not None for layer in kept.layers)
            exact = reference(kept.module, x, loss)
            found = GhostRows(kept.factors(losses), 5, exact.shape[1]).weighted_sum(np.full(5, 0.2))
            torch.testing.assert_close(found, exact.mean(dim=0))


def test_lazy_layers_without_a_batch_are_refused_by_name() -> None:
    module = nn.ModuleDict({"used": nn.Linear(6, 2), "other": nn.LazyLinear(2)})
    recorder = GradientRecorder(module)
    with recorder:
        losses = loss(module["used"](made((5, 6), torch.float32, 0)))
    with pytest.raises(GhostError, match=r"found 'other\.weight' of a lazy layer .* Run one batch"):
        recorder.factors(losses)


def test_lazy_layers_in_a_layer_without_a_rule_take_a_batch_first() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.inner = nn.Parameter(torch.zeros(3)), lazy()[:4]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x)[:, :3] + self.shift
            return result

    module, x = nn.Sequential(Outer()).double(), made((5, 6), torch.float64, 0)
    with pytest.raises(GhostError, match="run one batch through it first"):
        ghost(module, x, loss)
    check(module, x)


def test_a_recorder_keeps_no_module_alive_by_a_cycle() -> None:
    module = nn.Linear(3, 2)
    recorder = GradientRecorder(module, list(module.parameters()))
    with recorder:
        losses = module(made((5, 3), torch.float32, 0)).sum(dim=1)
    recorder.factors(losses)
    gone = weakref.ref(module)
    gc.disable()
    try:
        del module, recorder, losses
        assert gone() is None
    finally:
        gc.enable()
