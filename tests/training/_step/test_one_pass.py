"""One pass for all groups gives the same training as a pass for each group."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

import skbgmd.training._step.one_pass as onepass_module
from conftest import seeded_rule
from nets import Checkpointed, Reversible
from skbgmd import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd._utils import limits
from skbgmd._utils.slices import Slices, even_slices
from skbgmd.aggregators import AGGREGATORS, BlockGeometricMedian, GeometricMedian, HuberMean, NearestNeighborMixing
from skbgmd.aggregators.base import Aggregator
from skbgmd.corruption import BitFlip
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder, register_derivative
from skbgmd.ghost.derivatives import DERIVATIVES
from skbgmd.ghost.factors import DenseFactor
from skbgmd.rows import DenseRows
from skbgmd.training._data.loader import Batch
from skbgmd.training._estimator.wrapping import robust_class
from skbgmd.training._step.one_pass import Exact, OnePassCheck, group_rows, infers_as_skorch, largest_group
from skbgmd.training._step.robust_step import RobustStep

RULES: dict[str, Aggregator] = {
    **{name: seeded_rule(name) for name in AGGREGATORS},
    "units": BlockGeometricMedian(0.3, GeometricMedian(rejection=10.0), block="unit"),
    "unit memory": BlockGeometricMedian(0.3, block="unit", complement="memory"),
    "sampled units": BlockGeometricMedian(0.3, block="unit", selection="sample", random_state=0),
    "coordinates": BlockGeometricMedian(0.3),
    "mixing": NearestNeighborMixing(),
    "mixed units": NearestNeighborMixing(BlockGeometricMedian(0.3, block="unit")),
}


class Convolutional(nn.Module):
    """A small network of several kinds of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
        )
        self.last = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.layers(x))
        return result


def data(n: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((n, 1, 8, 8), generator=generator), torch.randint(5, (n,), generator=generator)


def gradient(gradients: str, batch: Any, aggregator: Any = None, **params: Any) -> tuple[np.ndarray, float, Any]:
    """The gradient of one training step, its loss, and the net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        params = {"criterion": nn.CrossEntropyLoss, "group_size": 1, **params}
        net = RobustNeuralNetClassifier(
            Convolutional,
            aggregator=aggregator or GeometricMedian(),
            gradients=gradients,
            random_state=0,
            verbose=0,
            **params,
        ).initialize()
    step = net.train_step_single(batch)
    found = torch.cat([parameter.grad.flatten() for parameter in net.module_.parameters()])
    return found.numpy(), float(step["loss"].detach()), net


@pytest.mark.parametrize("group_size", [1, 3, 8])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_aggregator_gives_the_same(rule: str, group_size: int) -> None:
    batch = data()
    one, loss, _ = gradient("one_pass", batch, RULES[rule], group_size=group_size)
    many, expected, _ = gradient("micro_batches", batch, RULES[rule], group_size=group_size)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(one, many, atol=2e-5 * np.abs(many).max())


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("rule", ["units", "coordinates", "geometric_median", "unit memory"])
def test_written_out_or_not(rule: str, written_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skbgmd.training._step.one_pass.is_better_written_out", lambda rows, **_: written_out)
    seen: list[Any] = []
    monkeypatch.setattr(
        "skbgmd.training._step.stateful.StatefulAggregator.__call__",
        lambda self, rows: (seen.append(rows), self.aggregator(rows, self.state)[0])[1],
    )
    one, _, _ = gradient("one_pass", data(), RULES[rule], group_size=2)
    many, _, _ = gradient("micro_batches", data(), RULES[rule], group_size=2)
    assert isinstance(seen[0], DenseRows if written_out else GhostRows)
    np.testing.assert_allclose(one, many, atol=2e-5 * np.abs(many).max())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_groups_and_sums_of_losses(reduction: str) -> None:
    X, y = data(30)
    weight = torch.linspace(0.0, 2.0, 30, dtype=torch.float64)
    for slices in (even_slices(30, 7), Slices([slice(0, 3), slice(3, 4), slice(4, 30)])):
        batch = Batch(X, y, np.arange(30), weight, slices)
        one, loss, net = gradient("one_pass", batch, criterion__reduction=reduction)
        many, expected, other = gradient("micro_batches", batch, criterion__reduction=reduction)
        assert loss == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(one, many, atol=2e-5 * np.abs(many).max())
        np.testing.assert_allclose(net.sample_trust(30), other.sample_trust(30), atol=1e-4)


def test_gradient_corruption_is_the_same() -> None:
    corruption = BitFlip(0.3)
    one, _, _ = gradient("one_pass", data(), gradient_corruption=corruption)
    many, _, _ = gradient("micro_batches", data(), gradient_corruption=corruption)
    np.testing.assert_allclose(one, many, atol=2e-5 * np.abs(many).max())


def test_one_sample_that_is_not_finite_gets_no_weight() -> None:
    X, y = data()
    X[3] = torch.nan
    for rule in ("units", "geometric_median", "coordinates", "huber_mean"):
        one, _, _ = gradient("one_pass", (X, y), RULES[rule])
        assert np.isfinite(one).all()
        many, _, _ = gradient("micro_batches", (X, y), RULES[rule])
        np.testing.assert_allclose(one, many, atol=2e-5 * np.abs(many).max())


def test_a_sample_of_huge_length_is_no_overflow() -> None:
    X, y = data()
    X[3] *= 1e25
    one, _, _ = gradient("one_pass", (X, y), GeometricMedian())
    many, _, _ = gradient("micro_batches", (X, y), GeometricMedian())
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, many, atol=1e-4 * np.abs(many).max())


def regression(net_class: Any, criterion: Any, targets: torch.Tensor) -> None:
    X = data()[0].flatten(1)
    found = []
    for gradients in ("one_pass", "micro_batches"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = net_class(
                nn.Linear(64, 3), criterion=criterion, gradients=gradients, group_size=4, verbose=0, random_state=0
            ).initialize()
        net.train_step_single((X, targets))
        found.append(net.module_.weight.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], atol=2e-5 * np.abs(found[1]).max())


def test_losses_of_several_outputs() -> None:
    targets = torch.randn((32, 3), generator=torch.Generator().manual_seed(1))
    for criterion in (nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss, nn.L1Loss):
        regression(RobustNeuralNetRegressor, criterion, targets)
    regression(RobustNeuralNet, nn.BCEWithLogitsLoss, (targets > 0).float())


class OwnLoss(RobustNeuralNetClassifier):
    """A net whose loss holds the parameters themselves."""

    def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get_loss(y_pred, y_true, *args, **kwargs) + self.module_.last.weight.square().sum()


class Centred(nn.Module):
    """A layer without a rule that mixes samples."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * (x - x.mean(dim=0))


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"criterion": nn.MultiMarginLoss, "criterion__weight": torch.ones(5)}, "may not be one for each sample"),
        ({"criterion": nn.MultiLabelMarginLoss}, "MultiLabelMarginLoss may not be a mean"),
        ({"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5))}, "BatchNorm1d, which mixes"),
        ({"module": nn.Sequential(nn.Flatten(), Centred(), nn.Linear(64, 5))}, "depends on the others"),
    ],
)
def test_what_cannot_be_had_of_one_pass(params: dict[str, Any], reason: str) -> None:
    params = {"module": Convolutional, "criterion": nn.CrossEntropyLoss, **params}
    with torch.random.fork_rng(devices=[]):
        net = RobustNeuralNetClassifier(**params, gradients="one_pass", group_size=2, verbose=0).initialize()
    with pytest.raises(GhostError, match=reason):
        net.train_step_single(data())


@pytest.mark.parametrize("gradients", ["auto", "one_pass", "micro_batches"])
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Checkpointed, "use_reentrant=False"),
        (partial(Checkpointed, computed=True), "use_reentrant=False"),
        (Reversible, "leave grad alone"),
    ],
    ids=["checkpointed", "checkpointed later", "reversible"],
)
def test_gradients_that_are_not_given_back_are_refused(module: Any, reason: str, gradients: str) -> None:
    """A rule would not see them."""
    net = a_net(module, gradients)
    with pytest.raises(ValueError, match=reason):
        net.train_step_single((torch.ones(8, 4), torch.arange(8) % 3))
    assert all(parameter.grad is None for parameter in net.module_.parameters())


def test_auto_takes_micro_batches_where_one_pass_cannot_be() -> None:
    class Stray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            self.last = nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.layer(x.flatten(1)) @ self.layer.weight)
            return result

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kind, module in ((RobustNeuralNetClassifier, Stray()), (OwnLoss, Convolutional())):
            nets = [
                kind(module, criterion=nn.CrossEntropyLoss, gradients=how, group_size=2, random_state=0, verbose=0)
                for how in ("auto", "micro_batches")
            ]
            found = []
            for net in nets:
                net.initialize().train_step_single(data())
                found.append(net.module_.last.weight.grad.clone().numpy())
                net.module_.zero_grad()
            np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


class OwnGRU(nn.GRU):
    """A layer without a rule: a forward of its own may do anything."""

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        return super().forward(x, hx)


class Recurrent(nn.Module):
    def __init__(self, kind: Any = OwnGRU) -> None:
        super().__init__()
        self.recurrent = kind(8, 6, batch_first=True)
        self.last = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.recurrent(x.flatten(1, 2))[0][:, -1])
        return result


class CentredOutput(Convolutional):
    """A module that mixes samples outside of its layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = super().forward(x)
        return result - result.mean(dim=0)


def test_samples_that_are_mixed_outside_of_layers_are_found_out() -> None:
    for batch in (data(), tuple(part[:3] for part in data())):
        with pytest.raises(GhostError, match="don't add up"):
            stepped(CentredOutput, "one_pass", batch)
        expected = stepped(CentredOutput, "micro_batches", batch)
        np.testing.assert_array_equal(stepped(CentredOutput, "auto", batch), expected)


def test_gradients_are_compared_until_there_was_something_to_see() -> None:
    X, y = data()
    net = a_net(Convolutional, "one_pass", group_size=1)
    broken = X.clone()
    broken[:4] = torch.nan
    net.train_step_single((broken, y))
    assert not net._check_.seen.any()
    net.train_step_single((X, y))
    assert net._check_.seen.all()


class Gated(nn.Module):
    """A part that takes the samples in another order, behind a gate."""

    def __init__(self, gate: str = "scalar", size: float = 0.0, turned: bool = True) -> None:
        super().__init__()
        self.kind, self.turned = gate, turned
        self.first, self.inner, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        gates = {
            "scalar": lambda: Gate(1.0),
            "adapter": lambda: nn.Linear(8, 8, bias=False),
            "norm": lambda: nn.LayerNorm(8),
            "attention": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
            "convolution": lambda: nn.Conv1d(1, 1, 3, padding=1),
            "group norm": lambda: nn.GroupNorm(1, 8),
        }
        self.gate = self.last if gate == "last layer" else gates[gate]()
        with torch.no_grad():
            (self.gate.out_proj if gate == "attention" else self.gate).weight.mul_(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x.flatten(1)).tanh()
        inner = self.inner(h.flip(0)).flip(0) if self.turned else self.inner(h)
        if self.kind == "last layer":
            return self.last(inner)
        if self.kind == "attention":
            inner = self.gate(*(inner[:, None],) * 3)[0][:, 0]
        elif self.kind == "convolution":
            inner = self.gate(inner[:, None])[:, 0]
        else:
            inner = self.gate(inner)
        result: torch.Tensor = self.last(h + inner)
        return result


class Gate(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


GATES = ["last layer", "adapter", "scalar", "norm", "group norm", "attention", "convolution"]


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("gate", GATES)
def test_what_is_before_a_closed_gate_is_compared_once_it_opens(gate: str, size: float) -> None:
    """In every step gradients are those of micro-batches, but for less than a thousandth of them."""
    settings = {"group_size": 1, "optimizer": torch.optim.SGD, "lr": 0.5, "aggregator": GeometricMedian()}
    nets = [a_net(partial(Gated, gate, size), kind, **settings) for kind in ("auto", "micro_batches")]
    for _ in range(12):
        found = []
        for net in nets:
            net.optimizer_.zero_grad()
            net.train_step_single(data(24))
            found.append(torch.cat([part.grad.flatten() for part in net.module_.parameters()]))
        assert (found[0] - found[1]).norm() < 1e-3 * found[1].norm()
        # The same step of both, so that nothing adds up.
        for part, other in zip(nets[0].module_.parameters(), nets[1].module_.parameters(), strict=True):
            part.grad.copy_(other.grad)
        for net in nets:
            net.optimizer_.step()
    assert nets[0]._no_one_pass_


@pytest.mark.parametrize("gate", GATES)
def test_gates_before_which_nothing_is_turned_are_no_reason(gate: str) -> None:
    net = a_net(partial(Gated, gate, 0.0, False), "one_pass", group_size=1, optimizer=torch.optim.SGD, lr=0.5)
    for _ in range(12):
        net.optimizer_.zero_grad()
        net.train_step_single(data(24))
        net.optimizer_.step()
    assert net._check_.seen.all()


def test_it_is_compared_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins to mix samples after some steps is found out, and told of."""

    class Later(Convolutional):
        mixes = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = super().forward(x)
            return result - result.mean(dim=0) if self.mixes else result

    monkeypatch.setattr(limits, "CHECK_INTERVAL", 5)
    net = a_net(Later, "auto", group_size=1)
    for _ in range(10):
        net.train_step_single(data())
    # Compared in steps 1, 2, 7 and 12.
    net.module_.mixes = True
    net.train_step_single(data())
    with pytest.warns(UserWarning, match=r"a pass for each group from now on; up to 4 steps before .* don't add up"):
        net.train_step_single(data())
    net.train_step_single(data())
    assert net._no_one_pass_


@pytest.mark.parametrize("way", ["half a batch", "a parameter by itself"])
def test_only_a_comparison_says_that_gradients_were_wrong(way: str) -> None:
    class Later(Convolutional):
        changes = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.changes and way == "half a batch":
                return torch.cat([super(Later, self).forward(half) for half in x.split(len(x) // 2 or 1)])
            result = super().forward(x)
            return result + self.last.bias if self.changes else result

    net = a_net(Later, "auto", group_size=1)
    for _ in range(5):
        net.train_step_single(data())
    assert net._check_.n_unseen > 0
    net.module_.changes = True
    with pytest.warns(UserWarning, match="each group from now on, which may be slower") as told:
        net.train_step_single(data())
    assert not any("wrong" in str(warning.message) for warning in told)
    assert net._no_one_pass_


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_branch_that_opens_slowly_is_found_out(optimizer: Any) -> None:
    """What is before it has a gradient from the first step on, by another way."""

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 5)
            nn.init.zeros_(self.branch.weight)
            nn.init.zeros_(self.branch.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x.flatten(1)).tanh()
            result: torch.Tensor = self.last(h + self.branch(h.flip(0)))
            return result

    net = a_net(Branch, "auto", group_size=1, optimizer=optimizer, lr=0.01)
    told = pytest.warns(UserWarning, match="a pass for each group from now on")
    with told if optimizer is torch.optim.SGD else nullcontext():
        for _ in range(40):
            net.optimizer_.zero_grad()
            net.train_step_single(data(24))
            net.optimizer_.step()
    assert net._no_one_pass_


def test_comparisons_are_few() -> None:
    every, closed = OnePassCheck(2), OnePassCheck(2)
    rows = GhostRows([(0, DenseFactor(torch.ones(3, 1, 1)))], 3, 2)
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    weights = onepass_module._weights_to_check(3)
    known = Exact(torch.tensor([float(weights.sum()), 0.0]), np.array([True, False]))
    never = Exact(torch.zeros(2), np.array([True, True]))
    counts = []
    for check, exact, these in ((every, known, rows), (closed, never, GhostRows([], 3, 2))):
        due = []
        for step in range(4000):
            if check.is_due():
                due.append(step)
                check.compare(these, exact, parameters)
        counts.append(len(due))
    # A parameter that the loss doesn't depend on is not waited for; where there is no gradient at all, ever fewer.
    assert counts[0] == 5 + 3999 // limits.CHECK_INTERVAL
    assert every.seen.tolist() == [True, False]
    assert 16 < counts[1] < 35
    assert not closed.seen.any()


class UnderFrozen(nn.Module):
    """A trained layer under a frozen network in half precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(20, 32)
        self.frozen = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 5)).bfloat16().requires_grad_(False)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.frozen(self.first(x).bfloat16()).to(self.dtype)
        return result


@pytest.mark.parametrize("gradients", ["one_pass", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_frozen_parts_in_half_precision_pass_the_comparison(dtype: torch.dtype, gradients: str) -> None:
    net = a_net(UnderFrozen, gradients, module__dtype=dtype, group_size=1)
    generator = np.random.default_rng(0)
    for _ in range(20):
        X = torch.as_tensor(generator.normal(size=(64, 20)), dtype=torch.float32)
        net.optimizer_.zero_grad()
        net.train_step_single((X, torch.arange(64) % 5))
        net.optimizer_.step()
        net._check_ = None
    assert not net._no_one_pass_


class Flattened(nn.Module):
    """Samples as lines of eight numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.inside(self.first(x.flatten(1)).tanh()))
        return result

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class TwoParents(Flattened):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.again = nn.Sequential(self.shared, nn.Tanh())

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.again(self.shared(h))
        return result


class InsideAndOutside(Flattened):
    class Head(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.scale = layer, nn.Parameter(torch.randn(8))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(h) * self.scale
            return result

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.head = self.Head(self.layer)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.layer(h).tanh())
        return result


class TiedInAList(Flattened):
    class Transposed(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.tied, self.bias = [layer], nn.Parameter(torch.randn(8))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(h, self.tied[0].weight.t()) + self.bias

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.transposed = self.Transposed(self.layer)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.transposed(self.layer(h).tanh())
        return result


class Sorted(Flattened):
    """Samples in another order, and back, as for packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        order = h.sum(dim=1).argsort()
        result: torch.Tensor = self.layer(h[order]).tanh()[order.argsort()]
        return result


class MixedInTraining(Flattened):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return 0.7 * h + 0.3 * h.roll(1, 0) if self.training else h


class PassedOn(Flattened):
    """A layer that gives what it is given: nothing is computed by which it would be seen."""

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(8, 8))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return h

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.nothing = nn.Linear(8, 8), self.Nothing()

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return self.nothing(nn.functional.linear(self.layer(h).tanh(), self.layer.weight))


class ArgumentsByName(Flattened):
    """A recurrent cell that is given the state before the input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 8)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.cell(hx=h, input=h[:, :5])
        return result


class SelfAndCrossAttention(Flattened):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        x = h.view(len(h), 2, 4)
        y = self.attention(x, x, x, need_weights=False)[0]
        result: torch.Tensor = self.attention(y, x.tanh(), x.tanh(), need_weights=False)[0].flatten(1)
        return result


class Plain(Flattened):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(h).tanh()
        return result


def changed(change: Any) -> Any:
    def make() -> nn.Module:
        module = Plain()
        change(module.layer)
        return module

    return make


def patched(layer: nn.Linear) -> None:
    layer.forward = lambda h: nn.functional.linear(h, 2.0 * layer.weight, layer.bias)  # type: ignore[method-assign]


UNUSUAL: dict[str, Any] = {
    "two parents": TwoParents,
    "inside and outside": InsideAndOutside,
    "tied in a list": TiedInAList,
    "sorted": Sorted,
    "mixed in training": MixedInTraining,
    "passed on": PassedOn,
    "arguments by name": ArgumentsByName,
    "self and cross attention": SelfAndCrossAttention,
    "weight norm": changed(nn.utils.parametrizations.weight_norm),
    "spectral norm": changed(nn.utils.parametrizations.spectral_norm),
    "pruned": changed(partial(nn.utils.prune.random_unstructured, name="weight", amount=0.5)),
    "a hook on the output": changed(lambda layer: layer.register_forward_hook(lambda *args: 3.0 * args[2])),
    "a hook on a gradient": changed(lambda layer: layer.weight.register_hook(lambda gradient: 3.0 * gradient)),
    "a patched forward": changed(patched),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_modules_are_done_right_or_refused(name: str) -> None:
    expected = stepped(UNUSUAL[name], "micro_batches", data())
    np.testing.assert_allclose(stepped(UNUSUAL[name], "auto", data()), expected, atol=1e-4 * np.abs(expected).max())
    try:
        found = stepped(UNUSUAL[name], "one_pass", data())
    except GhostError:
        return
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name", ["two parents", "arguments by name", "self and cross attention", "weight norm", "a hook on the output"]
)
def test_unusual_modules_that_one_pass_is_right_for(name: str) -> None:
    expected = stepped(UNUSUAL[name], "micro_batches", data())
    np.testing.assert_allclose(stepped(UNUSUAL[name], "one_pass", data()), expected, atol=1e-4 * np.abs(expected).max())


def test_a_module_that_merges_its_weights_for_evaluation_is_left_in_training() -> None:
    class Merging(Plain):
        merged = False

        def train(self, mode: bool = True) -> Any:
            self.merged = not mode
            return super().train(mode)

    net = a_net(Merging, "one_pass")
    net.train_step_single(data())
    assert not net.module_.merged
    assert net.module_.training


def test_layers_without_a_rule_keep_nothing_of_torch_func() -> None:
    class Keeping(Flattened):
        class Layer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.matrix, self.calls = nn.Parameter(torch.randn(8, 8)), 0

            def forward(self, h: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                self.kept = h.detach() @ self.matrix.detach()
                return h @ self.matrix

        def __init__(self) -> None:
            super().__init__()
            self.layer = self.Layer()

        def inside(self, h: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(h)
            return result

    net = a_net(Keeping, "one_pass")
    net.train_step_single(data())
    assert net.module_.layer.calls == 1
    assert net.module_.layer.kept.shape == (len(data()[0]), 8)
    copy.deepcopy(net.module_)


def linear(n_features: int, n_outputs: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        return nn.Linear(n_features, n_outputs)


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("weighted", [True, False])
def test_summed_losses_are_summed_over_the_parts_of_a_sample_too(gradients: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(12, 8, generator=generator), torch.randn(12, 3, generator=generator)
    batch = Batch(X, y, np.arange(12), torch.ones(12) if weighted else None)
    module = linear(8, 3)
    expected = torch.autograd.grad((module(X) - y).square().sum(), module.weight)[0]
    net = RobustNeuralNetRegressor(
        module, criterion__reduction="sum", aggregator="mean", group_size=3, gradients=gradients, verbose=0
    ).initialize()
    step = net.train_step_single(batch)
    np.testing.assert_allclose(net.module_.weight.grad, expected, atol=1e-5 * float(expected.abs().max()))
    assert step["loss"].item() == pytest.approx((net.module_(X) - y).square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("group_size", [1, 5])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 5.0, 0.2])])
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("segments", [True, False])
def test_the_mean_of_groups_is_that_of_a_loss_with_weights_of_classes_and_ignored_ones(
    gradients: str, group_size: int, weight: torch.Tensor | None, ignored: int | None, segments: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn((12, 8, 4) if segments else (12, 8), generator=generator)
    y = torch.randint(3, (12, 4) if segments else (12,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        module = nn.Conv1d(8, 3, 1) if segments else nn.Linear(8, 3)
    settings = {"weight": weight} | ({} if ignored is None else {"ignore_index": ignored})
    loss = nn.CrossEntropyLoss(**settings)(module(X), y)
    expected = torch.autograd.grad(loss, module.weight)[0]
    net = RobustNeuralNet(
        module,
        criterion=nn.CrossEntropyLoss,
        **{f"criterion__{name}": value for name, value in settings.items()},
        aggregator="mean",
        group_size=group_size,
        gradients=gradients,
        verbose=0,
    ).initialize()
    step = net.train_step_single((X, y))
    np.testing.assert_allclose(net.module_.weight.grad, expected, atol=1e-6)
    assert step["loss"].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_losses_of_broadcast_predictions_are_refused() -> None:
    X, y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(8)
    net = RobustNeuralNet(linear(4, 1), criterion=nn.MSELoss, gradients="one_pass", group_size=1, verbose=0)
    with pytest.raises(GhostError, match=r"shape \(8, 8\), of predictions and targets of shapes \(8, 1\) and \(8,\)"):
        net.initialize().train_step_single((X, y))


def test_another_module_is_looked_at_anew() -> None:
    class Either(Convolutional):
        def __init__(self, centred: bool = False) -> None:
            super().__init__()
            self.centred = centred

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = super().forward(x)
            return result - result.mean(dim=0) if self.centred else result

    net = a_net(Either, "one_pass")
    net.train_step_single(data())
    with torch.random.fork_rng(devices=[]):
        net.set_params(module__centred=True)
    with pytest.raises(GhostError, match="don't add up"):
        net.train_step_single(data())


@pytest.mark.parametrize("n", [6, 8])
def test_what_samples_share_is_found_out(n: int) -> None:
    """A table of positions, of as many positions as there are samples or not."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table[: x.shape[1]]

    class With(nn.Module):
        def __init__(self, ruled: bool) -> None:
            super().__init__()
            self.ruled, self.last = ruled, nn.Linear(64, 5)
            self.positions = nn.Embedding(8, 8) if ruled else Positions()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1, 2)
            positions = self.positions(torch.arange(8) if self.ruled else x)
            result: torch.Tensor = self.last((x + positions).tanh().flatten(1))
            return result

    batch = data(n)
    for ruled in (True, False):
        module = partial(With, ruled)
        with pytest.raises(GhostError, match=r"don't add up|first axis|depends on|shared by all samples"):
            stepped(module, "one_pass", batch)
        np.testing.assert_array_equal(stepped(module, "auto", batch), stepped(module, "micro_batches", batch))


def test_auto_takes_micro_batches_where_the_module_fails_otherwise() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.last = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x.flatten(1, 2), [8] * len(x), batch_first=True)
            result: torch.Tensor = self.last(self.recurrent(packed)[1][-1])
            return result

    np.testing.assert_array_equal(stepped(Packed, "auto", data(8)), stepped(Packed, "micro_batches", data(8)))
    with pytest.raises(GhostError, match="samples must be along the first axis"):
        stepped(Packed, "one_pass", data(8))


def test_a_net_that_leaves_its_module_on_its_device() -> None:
    np.testing.assert_allclose(
        stepped(Convolutional, "auto", data(), device=None), stepped(Convolutional, "auto", data()), rtol=1e-6
    )


def a_net(module: Any, gradients: str, **params: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        params = {"group_size": 2, **params}
        return RobustNeuralNetClassifier(
            module, criterion=nn.CrossEntropyLoss, gradients=gradients, verbose=0, **params
        ).initialize()


def stepped(module: Any, gradients: str, batch: Any, **params: Any) -> np.ndarray:
    net = a_net(module, gradients, **params)
    net.train_step_single(batch)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.module_.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients]).numpy()


@pytest.mark.parametrize("group_size", [1, 3])
def test_layers_without_a_rule_take_one_pass_where_that_is_cheaper(
    monkeypatch: pytest.MonkeyPatch, group_size: int
) -> None:
    passes = []
    monkeypatch.setattr(onepass_module, "group_rows", lambda *args: passes.append(1) or group_rows(*args))
    found = [
        stepped(Recurrent, gradients, data(), group_size=group_size)
        for gradients in ("auto", "micro_batches", "one_pass")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4 * np.abs(found[1]).max())
    np.testing.assert_allclose(found[2], found[1], atol=1e-4 * np.abs(found[1]).max())
    assert len(passes) == (2 if group_size == 1 else 1)


class StepsFirst(nn.Module):
    """A recurrent layer to which samples are the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.LSTM(8, 6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.recurrent(x.flatten(1, 2).transpose(0, 1))[0][-1])
        return result


def test_recurrent_layers_take_one_pass_whatever_axis_samples_are_along() -> None:
    expected = stepped(StepsFirst, "micro_batches", data())
    np.testing.assert_allclose(stepped(StepsFirst, "one_pass", data()), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("module", "size", "cheaper"),
    [
        (partial(nn.Linear, 4, 2), 32, True),
        (partial(nn.Linear, 4, 2), 33, False),
        (Convolutional, 8, True),
        (Convolutional, 9, False),
        (Recurrent, 2, True),
        (Recurrent, 3, False),
        (partial(Recurrent, nn.GRU), 32, True),
    ],
)
def test_one_pass_is_for_groups_that_are_small_for_the_layers(module: Any, size: int, cheaper: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        made = module()
    tape = GradientRecorder(made, list(made.parameters()))
    assert (size <= largest_group(tape, 1)) == (size <= largest_group(tape, 100)) == cheaper


@pytest.mark.parametrize(("n_groups", "cheaper"), [(3, False), (4, True), (100, True)])
@pytest.mark.parametrize("module", [partial(nn.Linear, 4, 2), Convolutional])
def test_on_another_device_it_is_their_number_that_counts(module: Any, n_groups: int, cheaper: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        made = module().to("meta")
    tape = GradientRecorder(made, list(made.parameters()))
    assert (largest_group(tape, n_groups) >= 1000) == cheaper


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 3),
        ({"aggregator": "geometric_median", "group_size": 1}, 3),
        ({"aggregator": HuberMean(2.0, rejection=10.0, remember=True), "group_size": 1}, 2),
        ({"aggregator": BlockGeometricMedian(0.2, block="unit"), "group_size": 1}, 6),
        ({"aggregator": "geometric_median", "group_size": 16}, 3),
    ],
    ids=str,
)
def test_few_fetches_wait_for_a_cuda_device(settings: Any, most: int, cuda: torch.device, forked: None) -> None:
    """Norms or products and what tells whether a mean is finite; what is sent doesn't wait, nor does a plain step."""
    module = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 4)).to(cuda)
    batch = torch.randn(64, 20, device=cuda), torch.randint(4, (64,), device=cuda)
    waits = []
    for params in ({"aggregator": "mean", "group_size": None}, settings):
        net = RobustNeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, device=str(cuda), **params).initialize()
        # Rows are compared in the first of them, and a scale may rise.
        for _ in range(100):
            net.train_step(batch)
            net.aggregator_.commit()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                net.train_step(batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(warning.message) for warning in caught))
    assert waits[1] - waits[0] <= most, waits


def test_gradients_are_checked() -> None:
    with pytest.raises(ValueError, match="gradients must be one of"):
        RobustNeuralNetClassifier(Convolutional, gradients="some").initialize()
    with pytest.raises(ValueError, match=r'gradients="one_pass" must have local_steps=1; found 2'):
        RobustNeuralNetClassifier(Convolutional, gradients="one_pass", local_steps=2).initialize()


def perceptron(n_outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.3), nn.Sequential(nn.Linear(8, n_outputs))
    )


def trained(kind: Any, X: Any, y: Any, chained: bool, monkeypatch: pytest.MonkeyPatch, **params: Any) -> Any:
    """A net after some epochs, whose module is taken for a chain or for none."""
    with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
        if not chained:
            patch.setattr(onepass_module, "chained_factors", lambda *_, **__: None)
        torch.manual_seed(0)
        params = {"group_size": 1, "lr": 0.1, "max_epochs": 3, "batch_size": 20, "verbose": 0, **params}
        net = kind(perceptron, random_state=0, train_split=None, gradients="one_pass", **params).fit(X, y)
    chain = net._gradients_.chain(net.module_)
    assert chain is not None
    assert chain.is_tried == chained
    return net


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"group_size": 4},
        {"group_size": 3, "aggregator": "geometric_median"},
        {"tilt": 0.7},
        {"aggregator": BlockGeometricMedian(0.3, block="unit")},
        {"optimizer": torch.optim.LBFGS, "max_epochs": 1, "optimizer__max_iter": 5},
        {"criterion__weight": torch.tensor([1.0, 2.0, 0.5])},
        {"criterion__reduction": "sum", "lr": 0.005},
        {"criterion__label_smoothing": 0.1},
    ],
    ids=str,
)
def test_a_training_is_the_same_by_a_chain_and_by_hooks(params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(70, 4, generator=generator), torch.randint(3, (70,), generator=generator)
    params = {"criterion": nn.CrossEntropyLoss, **params}
    nets = [
        trained(RobustNeuralNetClassifier, X, y, chained, monkeypatch, **copy.deepcopy(params))
        for chained in (True, False)
    ]
    for ours, others in zip(*(net.module_.parameters() for net in nets), strict=True):
        torch.testing.assert_close(ours, others, rtol=1e-4, atol=1e-5)
    for name in ("train_loss", "lower_half_weight"):
        first, second = (net.history[:, name] for net in nets)
        np.testing.assert_allclose(first, second, rtol=1e-4)
    np.testing.assert_allclose(*(net.sample_trust(70) for net in nets), rtol=1e-3, atol=1e-5)


def test_so_is_one_on_cuda(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout there draws from the device's own generator."""
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(70, 4, generator=generator), torch.randint(3, (70,), generator=generator)
    params = {"criterion": nn.CrossEntropyLoss, "device": str(cuda)}
    nets = [trained(RobustNeuralNetClassifier, X, y, chained, monkeypatch, **params) for chained in (True, False)]
    for ours, others in zip(*(net.module_.parameters() for net in nets), strict=True):
        assert ours.is_cuda
        torch.testing.assert_close(ours, others, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.HuberLoss, nn.L1Loss, nn.SmoothL1Loss])
def test_so_is_a_regression(criterion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(70, 4, generator=generator)
    y = torch.randn(70, 3, generator=generator)
    nets = [
        trained(RobustNeuralNetRegressor, X, y, chained, monkeypatch, criterion=criterion) for chained in (True, False)
    ]
    for ours, others in zip(*(net.module_.parameters() for net in nets), strict=True):
        torch.testing.assert_close(ours, others, rtol=1e-4, atol=1e-5)


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * x


def doubling(factor: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), Doubling(), nn.Linear(5, 3))


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_a_derivative_of_a_user_is_compared(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skbgmd.ghost.derivatives.DERIVATIVES", dict(DERIVATIVES))
    monkeypatch.setattr("skbgmd.ghost.chain.DERIVATIVES", dict(DERIVATIVES))
    register_derivative(Doubling)(lambda layer, x: (2.0 * x, lambda gradient: factor * gradient))
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(40, 4, generator=generator), torch.randint(3, (40,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        net = RobustNeuralNetClassifier(
            doubling, module__factor=factor, criterion=nn.CrossEntropyLoss, group_size=1, max_epochs=1, verbose=0
        )
        net.set_params(train_split=None, batch_size=10)
        told = pytest.warns(UserWarning, match="A derivative was registered, and yet there is a pass for each group")
        with told if factor == 3.0 else nullcontext():
            net.fit(X, y)
    assert net._no_one_pass_ == (factor == 3.0)


def test_what_a_chain_does_not_know_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is drawn in vain, and then once more, the same."""
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(40, 4, generator=generator), torch.randint(3, (40,), generator=generator)

    def refused() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(4, 6), nn.Dropout(0.5), nn.Unflatten(1, (1, 6)), nn.AdaptiveAvgPool2d((1, 6)), nn.Linear(6, 3),
            nn.Flatten(),
        )  # fmt: skip

    found = []
    for chained in (True, False):
        with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
            if not chained:
                patch.setattr(onepass_module, "chained_factors", lambda *_, **__: None)
            torch.manual_seed(0)
            net = RobustNeuralNetClassifier(refused, criterion=nn.CrossEntropyLoss, group_size=1, max_epochs=2)
            net.set_params(verbose=0, train_split=None, batch_size=10, random_state=0)
            net.fit(X, y)
            found.append([*net.module_.parameters(), torch.rand(3)])
            assert net._gradients_._chain is None or not chained
    for ours, others in zip(*found, strict=True):
        torch.testing.assert_close(ours, others, rtol=0.0, atol=0.0)


def test_an_inference_of_a_user_is_not_passed_over() -> None:
    class Own(RobustNeuralNetClassifier):
        def infer(self, x: Any, **fit_params: Any) -> Any:
            return super().infer(x, **fit_params) * 0.5

    assert infers_as_skorch(RobustNeuralNetClassifier)
    assert infers_as_skorch(RobustNeuralNetRegressor)
    assert not infers_as_skorch(Own)
    assert not infers_as_skorch(robust_class(NeuralNetBinaryClassifier))


@pytest.mark.parametrize("kind", [NeuralNet, RobustStep, RobustNeuralNetClassifier])
def test_nor_is_one_that_replaces_that_of_a_class(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert infers_as_skorch(RobustNeuralNetClassifier)
    before = kind.infer
    monkeypatch.setattr(kind, "infer", lambda self, x, **fit_params: 0.5 * before(self, x, **fit_params))
    assert not infers_as_skorch(RobustNeuralNetClassifier)


@pytest.mark.filterwarnings("ignore:There is a pass for each group from now on")
@pytest.mark.parametrize("name", ["infer", "get_loss"])
def test_neither_is_one_that_is_set_on_a_net(name: str) -> None:
    found = []
    for gradients in ("auto", "micro_batches"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = RobustNeuralNetClassifier(
                nn.Linear(64, 5), criterion=nn.CrossEntropyLoss, gradients=gradients, group_size=1, verbose=0
            ).initialize()
        X, y = data()
        for _ in range(4):
            net.train_step_single((X.flatten(1), y))  # the first ones are compared, the next one isn't
        before = getattr(net, name)
        setattr(net, name, lambda *args, before=before, **kwargs: 3.0 * before(*args, **kwargs))
        net.optimizer_.zero_grad()
        net.train_step_single((X.flatten(1), y))
        found.append(net.module_.weight.grad)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("part", [0, 2, None])
def test_compiled_layers_are_trained_with_micro_batches(group_size: int, part: int | None) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5))
        X, y = data()
        found = []
        for compiled in (False, True):
            copied: Any = copy.deepcopy(module)
            if compiled and part is None:
                copied = torch.jit.script(copied)
            elif compiled and part is not None:
                copied[part] = torch.jit.script(copied[part])
            net = RobustNeuralNetClassifier(copied, criterion=nn.CrossEntropyLoss, group_size=group_size, verbose=0)
            net.set_params(gradients="auto" if compiled else "micro_batches", random_state=0)
            net.initialize().train_step_single((X.flatten(1), y))
            found.append([parameter.grad for parameter in net.module_.parameters()])
        for ours, others in zip(*found, strict=True):
            torch.testing.assert_close(ours, others)
        net = net.set_params(gradients="one_pass").initialize()
        with pytest.raises(GhostError, match="must take hooks for gradients of single samples; found the layer"):
            net.train_step_single((X.flatten(1), y))


@pytest.mark.parametrize(("group_size", "kind"), [(1, GhostRows), (2, DenseRows)])
@pytest.mark.parametrize("n", [8, 32, 64])
@pytest.mark.usefixtures("forked")
def test_single_samples_of_small_networks_are_not_written_out(group_size: int, kind: type, n: int) -> None:
    seen: list[Any] = []

    class Sees(GeometricMedian):
        def __call__(self, rows: Any, state: Any = None) -> Any:
            seen.append(rows)
            return super().__call__(rows, state)

    X, y = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32), np.arange(n) % 3
    net = RobustNeuralNetClassifier(nn.Linear(5, 3), criterion=nn.CrossEntropyLoss, aggregator=Sees(), verbose=0)
    net.set_params(group_size=group_size, gradients="one_pass").initialize()
    net.train_step_single((torch.from_numpy(X), torch.from_numpy(y)))
    assert [type(rows) for rows in seen] == [kind]
