"""Rows by a loop of backward passes and the rule on them, against one call; and what a call leaves alone."""

from __future__ import annotations

import copy
import importlib
import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from nets import Checkpointed, Reversible
from processes import on_ranks
from skbgmd import robust_backward
from skbgmd._utils import limits
from skbgmd.aggregators import (
    AGGREGATORS,
    AdaptiveClipping,
    BlockGeometricMedian,
    Bucketing,
    HuberMean,
    Mean,
    NonFiniteRowsError,
    WorkerMemory,
    WorkerMomentum,
    get_aggregator,
)
from skbgmd.distributed import AcrossRanks
from skbgmd.ghost import GhostError, GradientRecorder
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training import BackwardState
from skbgmd.training._step.one_pass import OnePassCheck
from skbgmd.training._strength.defaults import default_rule

pytestmark = pytest.mark.usefixtures("forked")

N = 9
#: Every rule by name; one that draws has a seed.
RULES = {name: name for name in AGGREGATORS} | {"bgmd_paper": BlockGeometricMedian.published(random_state=0)}


def perceptron(inputs: int = 5, hidden: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 3))


def batch(n: int = N, inputs: int = 5, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, inputs, dtype=dtype), torch.arange(n) % 3


def losses_of(net: nn.Module, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(net(X), y, reduction="none")


def real(values: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


def rows_of(losses, parameters, weights=None) -> DenseRows:
    """The oracle: a backward pass for each loss."""
    lines = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g.to_dense() for p, g in zip(parameters, found, strict=True)]
        lines.append(torch.cat([real(part).reshape(-1).to(torch.float64) for part in parts]))
    wide = any(p.dtype in (torch.float64, torch.complex128) for p in parameters)
    matrix = torch.stack(lines).to(torch.float64 if wide else torch.float32)
    return DenseRows(matrix, weights, units=ParameterBlock.of([real(p.detach()) for p in parameters]))


def flat_grad(parameters) -> torch.Tensor:
    """What is in ``grad``, zero where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([real(part.detach().to_dense()).reshape(-1).to(torch.float64) for part in parts])


def close(found, expected, rtol=1e-4):
    scale = max(float(np.abs(np.asarray(expected)).max()), 1e-12)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=rtol * scale)


def check(losses, parameters, rule="geometric_median", **params):
    """Compare a call with the rule on the rows of the oracle; returns what the call returned."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    expected, _ = get_aggregator(rule)(rows_of(losses, parameters))
    before = flat_grad(parameters)
    result = robust_backward(losses, parameters, rule, **params)
    close(flat_grad(parameters) - before, expected.vector.double())
    if expected.weights is not None:
        close(result[0].weights, expected.weights, 1e-3)
    return result


# ---- the aggregate


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("recorded", [False, True])
def test_every_rule_gives_what_it_gives_of_the_rows(rule, recorded):
    net, other = perceptron(), perceptron()
    recorder, state, states = GradientRecorder(net), None, None
    aggregator = get_aggregator(rule)
    for _ in range(3):
        X, y = batch()
        parameters = list(net.parameters())
        expected, states = aggregator(rows_of(losses_of(net, X, y), parameters), states)
        net.zero_grad()
        with recorder:
            losses = losses_of(net, X, y)
        aggregate, state = robust_backward(losses, recorder if recorded else net.parameters(), rule, state)
        close(flat_grad(parameters), expected.vector)
        close(aggregate.vector, expected.vector)
        if expected.weights is not None:
            close(aggregate.weights, expected.weights, 1e-3)
        close_states(state.inner, states)
    with pytest.raises(ValueError, match="same rule and parameters"):
        robust_backward(losses_of(other, *batch()), [*other.parameters()][:2], rule, state)


def close_states(found, expected):
    assert type(found) is type(expected)
    if expected is None or isinstance(expected, str):
        assert found == expected
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            close_states(one, other)
    elif isinstance(expected, (torch.Tensor, float, int)):
        close(found, expected, 1e-3)
    else:
        for name, value in vars(expected).items():
            close_states(vars(found)[name], value)


@given(
    rule=st.sampled_from([*RULES.values(), HuberMean(2.0, rejection=10.0), BlockGeometricMedian(0.5, block="unit")]),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n=st.integers(1, 12),
    bias=st.booleans(),
    frozen=st.integers(0, 3),
    recorded=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_net_and_rule(rule, widths, n, bias, frozen, recorded, weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [*widths, 3]
    layers = [nn.Linear(a, b, bias=bias) for a, b in zip([5, *sizes], sizes, strict=False)]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh()))).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    for layer in layers[: min(frozen, len(layers) - 1)]:
        layer.requires_grad_(False)
    X = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=generator)
    weights = torch.rand(n, generator=generator).add(0.5).numpy() if weighted else None
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    relative = None if weights is None else (weights / weights.max()).astype(np.float64)
    expected, _ = get_aggregator(rule)(rows_of(losses_of(net, X, y), parameters, relative))
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, X, y)
    aggregate, _ = robust_backward(losses, recorder if recorded else net.parameters(), rule, weights=weights)
    # The row nearest to the others may be one of two by rounding.
    if not (recorded and rule == "krum"):
        close(flat_grad(parameters), expected.vector, 1e-4)
    assert torch.equal(flat_grad(parameters), aggregate.vector.double())
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("recorded", [False, True])
def test_the_mean_is_the_gradient_of_the_mean(recorded):
    net = perceptron()
    plain, (X, y) = copy.deepcopy(net), batch()
    losses_of(plain, X, y).mean().backward()
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, X, y)
    aggregate, _ = robust_backward(losses, recorder if recorded else net.parameters(), "mean")
    for parameter, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)
    assert aggregate.weights.tolist() == pytest.approx([1 / N] * N)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("elements", [1, 40, 100, 1 << 18])
def test_rows_at_once_are_those_of_single_passes(monkeypatch, n, elements):
    monkeypatch.setattr(limits, "BATCHED_GRADIENT_ELEMENTS", elements)
    net = perceptron()
    check(losses_of(net, *batch(n)), net.parameters(), "mean")


class ByNumpy(torch.autograd.Function):
    """Something that torch.func can't run for many rows at once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.square(x.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(2.0 * gradient.numpy() * ctx.saved_tensors[0].detach().numpy())


def test_what_torch_func_cannot_do_takes_a_pass_for_each_row():
    net = perceptron()
    check(ByNumpy.apply(net(batch()[0])).sum(dim=1), net.parameters())


def test_a_compiled_module_has_the_same_rows():
    net = perceptron()
    check(losses_of(torch.compile(net, backend="aot_eager"), *batch()), net.parameters())


def test_default_rules_are_those_of_estimators():
    net = perceptron()
    X, y = batch()
    for losses, of_samples in ((losses_of(net, X, y), True), ([losses_of(net, X, y).mean()] * 3, False)):
        _, state = robust_backward(losses, net.parameters(), retain_graph=True)
        rule = default_rule(huber=16.0, of_samples=of_samples)
        other = robust_backward(losses, net.parameters(), rule, retain_graph=True)[1]
        assert state.rule == type(rule).__name__
        assert state == other
    assert robust_backward(losses_of(net, X, y), net.parameters(), AdaptiveClipping("auto"))[1].rule == (
        "AdaptiveClipping(HuberMean)"
    )


# ---- groups


def test_groups_with_passes_of_their_own_and_with_a_common_one():
    net = perceptron()
    own = [losses_of(net, *batch()).mean() for _ in range(5)]
    check(own, net.parameters(), retain_graph=True)
    net.zero_grad()
    robust_backward(own, net.parameters(), weights=[1, 2, 3, 4, 5])
    with pytest.raises(RuntimeError, match="second time"):
        own[0].backward()
    common = losses_of(net, *batch())
    pieces = [piece.mean() for piece in common.split(3)]
    check(pieces, net.parameters(), "mean")
    with pytest.raises(RuntimeError, match="second time"):
        common.sum().backward()


def test_a_hostile_group_is_overruled():
    net = perceptron()
    honest = [losses_of(net, *batch(30)).mean() for _ in range(6)]
    aggregate, _ = robust_backward([*honest, -1e6 * honest[0], honest[0] * torch.nan], net.parameters())
    assert aggregate.weights[-1] == 0.0
    assert aggregate.weights[-2] < 1e-3
    assert torch.isfinite(flat_grad(list(net.parameters()))).all()


# ---- parameters


class Odd(nn.Module):
    """Parameters of odd shapes and kinds, one of them shared, one frozen, and one without use."""

    def __init__(self):
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(0.7))
        self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.wide = nn.Parameter(torch.randn(2, 1, 3, dtype=torch.float64))
        self.narrow = nn.Parameter(torch.randn(3).half())
        self.brain = nn.Parameter(torch.randn(3).bfloat16())
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.point = nn.Parameter(torch.tensor(1.0 - 2.0j))
        self.table = nn.Embedding(4, 3, sparse=True)
        self.unused = nn.Parameter(torch.randn(2))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)

    def forward(self, x):
        turned = ((x * self.phase) * self.point).abs()
        wide = (x[:, None, None].double() * self.wide).sum(dim=(1, 2))
        looked_up = self.table(torch.arange(len(x)) % 4)
        return (
            turned * self.scalar + wide * self.narrow.double() + self.brain * x * self.frozen + looked_up * self.scalar
        )


@pytest.mark.parametrize("before", [False, True])
def test_odd_parameters(before):
    net = Odd()
    X = torch.randn(N, 3)
    if before:
        net(X).square().mean().backward()
        assert net.table.weight.grad.is_sparse
    parameters = [*net.parameters(), net.scalar]
    check(net(X).square().mean(dim=1), dict.fromkeys(parameters), "mean")
    robust_backward(net(X).square().mean(dim=1), parameters, "huber_mean")
    assert net.unused.grad is None
    assert net.frozen.grad is None
    for parameter in parameters:
        if parameter.grad is not None:
            assert (parameter.grad.dtype, parameter.grad.shape) == (parameter.dtype, parameter.shape)


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="gradients have the dtype of parameters")
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
def test_gradients_have_the_dtype_that_they_are_to_have(before, recorded):
    net = perceptron().bfloat16()
    net[2].weight = nn.Parameter(net[2].weight.detach().T.contiguous().T)
    for parameter in net.parameters():
        parameter.grad_dtype = torch.float32
    X, y = batch(dtype=torch.bfloat16)
    losses_of(net, X, y).mean().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    if not before:
        net.zero_grad()
    recorder = GradientRecorder(net)
    with recorder:
        losses = losses_of(net, X, y)
    robust_backward(losses, recorder if recorded else net.parameters(), "mean")
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert parameter.grad.dtype == torch.float32
        torch.testing.assert_close(parameter.grad, (2.0 if before else 1.0) * gradient, rtol=0.05, atol=0.01)


FUSED = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
    "Adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("kind", FUSED.values(), ids=FUSED)
@pytest.mark.parametrize("recorded", [False, True])
def test_fused_optimizers_step_as_after_a_plain_pass(kind, recorded):
    """They go through memory, in which parameters may lie in any order."""
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    plain = plain.to(memory_format=torch.channels_last)
    plain[3].weight = nn.Parameter(torch.randn(12, 3).T)
    net, X, y = copy.deepcopy(plain), torch.randn(N, 2, 4, 4), torch.arange(N) % 3
    assert [each.weight.is_contiguous() for each in (net[0], net[3])] == [False, False]
    optimizers = [kind(each.parameters(), lr=0.1, fused=True) for each in (plain, net)]
    recorder = GradientRecorder(net)
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses_of(plain, X, y).mean().backward()
        with recorder:
            losses = losses_of(net, X, y)
        robust_backward(losses, recorder if recorded else net.parameters(), "mean")
        for optimizer in optimizers:
            optimizer.step()
    for parameter, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4)


def test_complex_gradients_are_those_of_a_plain_pass():
    net = Odd()
    X = torch.randn(N, 3)
    net(X).square().mean().backward()
    expected = net.phase.grad.clone(), net.point.grad.clone()
    net.zero_grad()
    robust_backward(net(X).square().mean(dim=1), net.parameters(), "mean")
    torch.testing.assert_close((net.phase.grad, net.point.grad), expected)
    with pytest.raises(GhostError, match="real"):
        GradientRecorder(net)


def test_gradients_are_added_up():
    net = perceptron()
    first, second = losses_of(net, *batch()), losses_of(net, *batch())
    one, _ = robust_backward(first, net.parameters(), "geometric_median")
    check(second, net.parameters())
    assert not torch.allclose(flat_grad(list(net.parameters())), one.vector.double())


def test_clipping_changes_neither_aggregate_nor_state():
    net = perceptron()
    aggregate, state = robust_backward(losses_of(net, *batch()), net.parameters(), "centered_clipping")
    vector, center = aggregate.vector.clone(), state.inner.center.clone()
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    torch.testing.assert_close((aggregate.vector, state.inner.center), (vector, center), rtol=0, atol=0)


def test_one_tensor_is_an_iterable_of_one():
    theta = torch.ones(3, requires_grad=True)
    robust_backward(theta * torch.ones(3), theta, "mean")
    torch.testing.assert_close(theta.grad, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("retain_graph", [False, True])
def test_the_graph_is_kept_only_when_asked_for(recorded, retain_graph):
    net = perceptron()
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, *batch())
    robust_backward(losses, recorder if recorded else net.parameters(), retain_graph=retain_graph)
    if retain_graph:
        losses.sum().backward()
    else:
        with pytest.raises(RuntimeError, match="second time"):
            losses.sum().backward()


def test_batch_norm_has_rows_of_losses_through_batch_statistics():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    check(losses_of(net, *batch()), net.parameters())
    with pytest.raises(GhostError, match="BatchNorm1d"), GradientRecorder(net):
        pass
    recorder = GradientRecorder(net)
    net.eval()
    with recorder:
        losses = losses_of(net, *batch())
    robust_backward(losses, recorder)


def test_what_mixes_samples_unseen_is_found_out():
    class Centered(nn.Module):
        def forward(self, x):
            return x - x.mean(dim=0)

    net = nn.Sequential(nn.Linear(5, 4), Centered(), nn.Linear(4, 3))
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, *batch())
    with pytest.raises(GhostError, match="mixes samples"):
        robust_backward(losses, recorder)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_recorder_compares_now_and_then(monkeypatch):
    net, compared = perceptron(), []
    recorder, compare = GradientRecorder(net), OnePassCheck.compare

    def counted(self, *args, **kwargs):
        compared.append(self.n_steps)
        compare(self, *args, **kwargs)

    monkeypatch.setattr(OnePassCheck, "compare", counted)
    for _ in range(9):
        with recorder:
            losses = losses_of(net, *batch())
        robust_backward(losses, recorder)
    assert compared == [1, 2, 8]


@pytest.mark.parametrize("kind", ["parameter", "module"])
def test_hooks_see_each_row(kind):
    net, (X, y), seen = perceptron(), batch(), []
    expected = [torch.autograd.grad(losses_of(net, X[i : i + 1], y[i : i + 1]).sum(), net[2].bias)[0] for i in range(N)]
    if kind == "parameter":
        net[2].bias.register_hook(lambda gradient: seen.append(gradient.square()))
    else:
        net[2].register_full_backward_hook(lambda module, given, gradient: seen.append(gradient[0].square().sum(dim=0)))
    robust_backward(losses_of(net, X, y), net.parameters(), "mean")
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected).square())


class Adapted(nn.Module):
    """A frozen layer in half precision, and an adapter of it in single precision."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).to(dtype).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.base(x) + self.up(self.down(x.float())).to(x.dtype)


@pytest.mark.parametrize("of_loss", [torch.float32, None], ids=["float32_loss", "half_loss"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_of_networks_in_half_precision_pass_the_comparison(dtype, of_loss):
    net = nn.Sequential(Adapted(20, 32, dtype), nn.GELU(), Adapted(32, 32, dtype), nn.GELU(), Adapted(32, 3, dtype))
    recorder = GradientRecorder(net)
    for _ in range(20):
        X, y = batch(64, 20)
        with recorder:
            losses = cross_entropy(net(X.to(dtype)).to(of_loss or dtype), y, reduction="none")
        robust_backward(losses, recorder, "mean")
        recorder.check = None
    expected = torch.autograd.grad(cross_entropy(net(X.to(dtype)).to(of_loss or dtype), y), recorder.parameters)
    net.zero_grad()
    with recorder:
        losses = cross_entropy(net(X.to(dtype)).to(of_loss or dtype), y, reduction="none")
    robust_backward(losses, recorder, "mean")
    for parameter, gradient in zip(recorder.parameters, expected, strict=True):
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter.grad, gradient, rtol=5e-2, atol=5e-2 * float(gradient.abs().max()))


@pytest.mark.parametrize("by", ["parameters", "recorder"])
def test_a_call_without_gradients_of_what_it_computes(by):
    net, (X, y) = perceptron(), batch()
    recorder, found = GradientRecorder(net), []
    for enabled in (True, False):
        for _ in range(3):
            with recorder:
                losses = losses_of(net, X, y)
            net.zero_grad()
            with torch.set_grad_enabled(enabled):
                robust_backward(losses, recorder if by == "recorder" else net.parameters(), "mean")
        found.append(torch.cat([parameter.grad.reshape(-1) for parameter in net.parameters()]))
        recorder.check = None
    torch.testing.assert_close(found[0], found[1], rtol=0.0, atol=0.0)


class Listed(nn.Module):
    """A network whose only parameters are in a container."""

    def __init__(self, container: Any) -> None:
        super().__init__()
        self.weights = container

    def forward(self, x: torch.Tensor) -> Any:
        return x @ next(iter(self.parameters()))


@pytest.mark.parametrize(
    "make",
    [lambda weight: nn.ParameterList([weight]), lambda weight: nn.ParameterDict({"0": weight})],
    ids=["list", "dict"],
)
def test_parameters_in_containers_alone_are_refused_by_name(make):
    net = Listed(make(nn.Parameter(torch.randn(5, 3))))
    recorder = GradientRecorder(net)
    with recorder:
        losses = losses_of(net, *batch())
    with pytest.raises(GhostError, match=r"found 'weights\.0', which something else uses"):
        robust_backward(losses, recorder)


def test_a_recorder_takes_what_requires_gradients_when_it_is_entered():
    net = perceptron()
    recorder = GradientRecorder(net)
    net[0].requires_grad_(False)
    with recorder:
        losses = losses_of(net, *batch())
    _, state = robust_backward(losses, recorder)
    assert [parameter.grad is None for parameter in net.parameters()] == [True, True, False, False]
    net[0].requires_grad_(True)
    net[2].requires_grad_(False)
    net.zero_grad()
    with recorder:
        losses = losses_of(net, *batch())
    with pytest.raises(ValueError, match="15 numbers"):
        robust_backward(losses, recorder, state=state)
    with recorder:
        losses = losses_of(net, *batch())
    robust_backward(losses, recorder)
    assert [parameter.grad is None for parameter in net.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("later", [0, 2, 5])
@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_a_recorder_of_given_parameters_skips_those_that_are_frozen(frozen, later):
    """In all steps, those that are compared with autograd's and others."""
    net = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))
    every = list(net.parameters())
    recorder = GradientRecorder(net, [*every, every[0]])
    for step in range(9):
        if step == later:
            net[frozen].requires_grad_(False)
        net.zero_grad()
        with recorder:
            losses = losses_of(net, *batch())
        robust_backward(losses, recorder)
        assert [each.grad is None for each in every] == [not each.requires_grad for each in every]


# ---- several processes


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_what_ranks_share_is_refused_where_it_shows(process_group):
    ddp = nn.parallel.DistributedDataParallel(perceptron(), find_unused_parameters=True)
    with GradientRecorder(ddp) as recorder:
        losses = losses_of(ddp, *batch())
    for given_parameters in (recorder, ddp.parameters()):
        with pytest.raises(ValueError, match="RobustHook"):
            robust_backward(losses, given_parameters)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    # Where torch 2.4 has them, and later ones as well.
    tensors = importlib.import_module("torch.distributed._tensor")
    shards = nn.Parameter(tensors.DTensor.from_local(torch.ones(3), mesh))
    with pytest.raises(TypeError, match="robust_fully_sharded"):
        robust_backward(losses, [shards])


def steps_on_rank(rank: int, size: int, rule: Any) -> tuple[list[float], list[str]]:
    """Train on samples of the rank's own; give the parameters, and what was warned of."""
    torch.manual_seed(0)
    net, (X, y) = perceptron(), batch()
    optimizer, state = torch.optim.SGD(net.parameters(), lr=0.1), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            optimizer.zero_grad()
            losses = losses_of(net, X[rank::size], y[rank::size])
            _, state = robust_backward(losses, net.parameters(), rule, state)
            optimizer.step()
    vector = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    return vector.tolist(), [str(warning.message) for warning in caught]


def test_ranks_train_one_network_by_a_rule_across_them():
    first, second = on_ranks(steps_on_rank, 2, AcrossRanks("huber_mean", "mean"))
    assert first == second
    assert first[1] == []


def test_ranks_that_exchange_nothing_are_warned():
    first, second = on_ranks(steps_on_rank, 2, "geometric_median")
    assert first[0] != second[0]
    assert len(first[1]) == 3
    assert "AcrossRanks(), for 2 processes" in first[1][0]


# ---- NaN and inf


def spoiled(n: int, value: float) -> tuple[torch.Tensor, torch.Tensor]:
    X, y = batch()
    X[:n, 0] = value
    return X, y


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_recorder_keeps_samples_that_are_not_finite_apart(value):
    net = perceptron()
    X, y = spoiled(3, value)
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, X, y)
    aggregate, _ = robust_backward(losses, recorder, "geometric_median")
    assert aggregate.weights[:3].tolist() == [0.0, 0.0, 0.0]
    expected = copy.deepcopy(net)
    expected.zero_grad()
    robust_backward(losses_of(expected, X[3:], y[3:]), expected.parameters(), "geometric_median")
    close(flat_grad(list(net.parameters())), flat_grad(list(expected.parameters())))


def test_a_common_graph_says_why_all_rows_are_not_finite():
    net = perceptron()
    with pytest.raises(NonFiniteRowsError, match="GradientRecorder"):
        robust_backward(losses_of(net, *spoiled(1, np.nan)), net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("recorded", [False, True])
def test_nan_is_propagated_for_a_grad_scaler(recorded):
    net = perceptron()
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, *batch()) * torch.inf
    given = recorder if recorded else net.parameters()
    aggregate, state = robust_backward(losses, given, "centered_clipping", non_finite="propagate")
    assert aggregate.weights is None
    assert state == BackwardState("CenteredClipping", sum(p.numel() for p in net.parameters()))
    assert all(parameter.grad.isnan().all() for parameter in net.parameters())


@pytest.mark.parametrize("recorded", [False, True])
def test_a_grad_scaler_scales_and_unscales(recorded):
    nets = [perceptron(), perceptron()]
    nets[1].load_state_dict(nets[0].state_dict())
    X, y = batch()
    for net, scaler in zip(nets, (None, torch.amp.GradScaler("cpu", init_scale=1024.0)), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        with GradientRecorder(net) as recorder:
            losses = losses_of(net, X, y)
        losses = losses if scaler is None else scaler.scale(losses)
        robust_backward(losses, recorder if recorded else net.parameters(), "huber_mean")
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_autocast_does_not_reach_the_rule():
    net = perceptron()
    with torch.autocast("cpu", torch.bfloat16), GradientRecorder(net) as recorder:
        losses = cross_entropy(net(batch()[0]), batch()[1], reduction="none")
        aggregate = None
    with torch.autocast("cpu", torch.bfloat16):
        aggregate, _ = robust_backward(losses, recorder)
    assert aggregate.vector.dtype == torch.float32
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())


# ---- state


@pytest.mark.parametrize("rule", [*RULES.values(), HuberMean(remember=True), WorkerMomentum(), "auto"], ids=str)
def test_states_are_saved_and_loaded_beside_a_network(rule):
    net = perceptron()
    _, state = robust_backward(losses_of(net, *batch()), net.parameters(), rule)
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "rule": state}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    twin = copy.deepcopy(net)
    twin.load_state_dict(loaded["net"])
    X, y = batch()
    for model, before in ((net, state), (twin, loaded["rule"])):
        model.zero_grad()
        robust_backward(losses_of(model, X, y), model.parameters(), rule, before)
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)


@pytest.mark.parametrize(
    "rule", [*AGGREGATORS, "auto", Bucketing(), BlockGeometricMedian(0.5, selection="uniform")], ids=str
)
def test_global_generators_and_rules_stay_as_they_were(rule):
    net, before = perceptron(), repr(rule)
    losses = losses_of(net, *batch())
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    robust_backward(losses, net.parameters(), rule)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(rule) == before


# ---- errors


def entered(net):
    recorder = GradientRecorder(net)
    recorder.__enter__()
    net(batch()[0])
    return recorder


ERRORS = {
    "scalar": (ValueError, 'reduction="none"', lambda net, losses: (losses.mean(), net.parameters())),
    "matrix": (ValueError, r"shape \(9, 1\)", lambda net, losses: (losses[:, None], net.parameters())),
    "no losses": (ValueError, "at least one", lambda net, losses: (losses[:0], net.parameters())),
    "no groups": (ValueError, "at least one", lambda net, losses: ([], net.parameters())),
    "detached": (ValueError, "graph", lambda net, losses: (losses.detach(), net.parameters())),
    "a group detached": (ValueError, "graph", lambda net, losses: ([losses[0], losses[1].detach()], net.parameters())),
    "integers": (ValueError, "dtype torch.int64", lambda net, losses: (losses.long(), net.parameters())),
    "complex": (ValueError, "dtype torch.complex64", lambda net, losses: (losses + 0j, net.parameters())),
    "array": (TypeError, "ndarray", lambda net, losses: (losses.detach().numpy(), net.parameters())),
    "number": (TypeError, "float at position 0", lambda net, losses: ([0.5], net.parameters())),
    "group of two": (ValueError, "position 1", lambda net, losses: ([losses[0], losses[:2]], net.parameters())),
    "module": (TypeError, "Sequential", lambda net, losses: (losses, net)),
    "none": (TypeError, "NoneType", lambda net, losses: (losses, None)),
    "named": (TypeError, "tuple", lambda net, losses: (losses, net.named_parameters())),
    "no parameters": (ValueError, "used up", lambda net, losses: (losses, iter(()))),
    "frozen": (ValueError, "1 that require none", lambda net, losses: (losses, [torch.zeros(2)])),
    "computed": (ValueError, "leaves", lambda net, losses: (losses, [net[0].weight * 1.0])),
    "lazy": (ValueError, "Run one batch", lambda net, losses: (losses, nn.LazyLinear(2).parameters())),
    "recorder of lazy layers": (
        GhostError,
        "found 'weight' of a lazy layer",
        lambda net, losses: (losses, GradientRecorder(nn.LazyLinear(2))),
    ),
    "others": (ValueError, "depend on", lambda net, losses: (losses, perceptron().parameters())),
    "other groups": (ValueError, "depend on", lambda net, losses: ([losses[0]], perceptron().parameters())),
    "rule": (ValueError, "'krumm'", lambda net, losses: (losses, net.parameters(), "krumm")),
    "rule's class": (ValueError, "HuberMean", lambda net, losses: (losses, net.parameters(), HuberMean)),
    "rule's parameter": (ValueError, "c must be", lambda net, losses: (losses, net.parameters(), HuberMean(c=-1.0))),
    "both results": (
        TypeError,
        "second of what",
        lambda net, losses: (losses, net.parameters(), "mean", robust_backward(losses, [net[0].weight], "mean")),
    ),
    "state of another rule": (
        ValueError,
        "one of Krum",
        lambda net, losses: (losses, net.parameters(), "mean", BackwardState("Krum", 39)),
    ),
    "entered": (ValueError, "left", lambda net, losses: (losses, entered(net))),
    "not recorded": (ValueError, "while the recorder is entered", lambda net, losses: (losses, GradientRecorder(net))),
    "recorded groups": (ValueError, "sequence", lambda net, losses: ([losses[0]], GradientRecorder(net))),
    "recorder of nothing": (
        ValueError,
        "at least one parameter",
        lambda net, losses: (losses, GradientRecorder(nn.Tanh())),
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_come_before_anything_is_changed(what):
    error, message, arguments = ERRORS[what]
    net = perceptron()
    losses_of(net, *batch()).mean().backward()
    losses = losses_of(net, *batch())
    given_arguments = arguments(net, losses)
    before = [parameter.grad.clone() for parameter in net.parameters()]
    with pytest.raises(error, match=message):
        robust_backward(*given_arguments)
    for parameter, grad in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, grad)


@pytest.mark.parametrize("way", ["samples", "groups", "recorded"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("kind", "message"),
    [(Checkpointed, "use_reentrant=False"), (Reversible, "leave grad alone")],
    ids=["checkpointed", "reversible"],
)
def test_gradients_that_are_not_given_back_are_refused(kind, message, before, way):
    """Of a reentrant checkpoint there were none, and of a block with a backward pass of its own those of no rule."""
    net, (X, y) = kind(), batch(inputs=4)
    if before:
        losses_of(net, X, y).mean().backward()
    known = [None if each.grad is None else each.grad.clone() for each in net.parameters()]
    recorder = GradientRecorder(net)
    with recorder:
        losses = losses_of(net, X, y)
    given = {"samples": losses, "groups": [losses[:4].mean(), losses_of(net, X, y).mean()], "recorded": losses}
    with pytest.raises(ValueError, match=message):
        robust_backward(given[way], recorder if way == "recorded" else net.parameters())
    for parameter, gradient in zip(net.parameters(), known, strict=True):
        assert parameter.grad is gradient or torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("computed", [False, True])
def test_checkpoints_that_are_not_reentrant_are_right(computed, recorded):
    net, (X, y) = Checkpointed(reentrant=False, computed=computed), batch(inputs=4)
    losses_of(net, X, y).mean().backward()
    expected = [each.grad for each in net.parameters()]
    net.zero_grad()
    recorder = GradientRecorder(net)
    with recorder:
        losses = losses_of(net, X, y)
    robust_backward(losses, recorder if recorded else net.parameters(), "mean")
    torch.testing.assert_close([each.grad for each in net.parameters()], expected)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("way", ["samples", "groups", "recorded"])
def test_inference_mode_is_refused(way, before):
    """Gradients would be tensors that no optimizer may change; without a graph alone, all is as with one."""
    net, (X, y) = perceptron(), batch()
    if before:
        losses_of(net, X, y).mean().backward()
    known = [None if each.grad is None else each.grad.clone() for each in net.parameters()]
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, X, y)
    given = list(losses) if way == "groups" else losses
    parameters = recorder if way == "recorded" else list(net.parameters())
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside of torch\.inference_mode"):
        robust_backward(given, parameters, "mean")
    for parameter, gradient in zip(net.parameters(), known, strict=True):
        assert parameter.grad is gradient or torch.equal(parameter.grad, gradient)
    with torch.no_grad():
        robust_backward(given, parameters, "mean")
    torch.optim.SGD(net.parameters(), 0.1).zero_grad(set_to_none=False)
    with torch.inference_mode(), recorder:
        losses = losses_of(net, X, y)
    with pytest.raises(ValueError, match=r"losses must have a graph .* torch\.inference_mode"):
        robust_backward(losses, parameters, "mean")


@pytest.mark.parametrize("recorded", [False, True])
def test_gradients_that_nothing_may_change_are_refused(recorded):
    net = perceptron()
    with GradientRecorder(net) as recorder:
        losses = losses_of(net, *batch())
    last = net[2].bias
    with torch.inference_mode():
        last.grad = torch.zeros_like(last)
    with pytest.raises(ValueError, match="found an inference tensor"):
        robust_backward(losses, recorder if recorded else net.parameters(), "mean")
    assert [parameter.grad is None for parameter in net.parameters()] == [True, True, True, False]
    net.zero_grad()
    robust_backward(losses, recorder if recorded else net.parameters(), "mean")


def test_choices_and_weights_are_checked():
    net = perceptron()
    losses = losses_of(net, *batch())
    with pytest.raises(ValueError, match="non_finite must be one of"):
        robust_backward(losses, net.parameters(), non_finite="ignore")
    with pytest.raises(ValueError, match=r"weights must have shape \(9,\)"):
        robust_backward(losses, net.parameters(), weights=[1.0])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_rules_that_remember_workers_know_them_by_their_ids():
    """Clients that are drawn anew in each step have momenta of their own."""
    rng, rule = np.random.default_rng(0), WorkerMomentum(Mean(), momentum=0.5)
    targets = torch.arange(6.0)
    momenta, states = {}, [None, None]
    for step in range(12):
        clients = rng.choice(6, size=3, replace=False)
        weight = torch.tensor([float(step)], requires_grad=True)
        for client in clients.tolist():
            gradient = float(step - targets[client])
            momenta[client] = 0.5 * (momenta.get(client, gradient) + gradient)
        expected = np.mean([momenta[client] for client in clients.tolist()])
        kinds = clients, [f"client {client}" for client in clients]
        for place, ids in enumerate(kinds):
            weight.grad = None
            losses = [0.5 * (weight[0] - targets[client]).square() for client in clients]
            _, states[place] = robust_backward(losses, [weight], rule, states[place], ids=ids)
            assert weight.grad.item() == pytest.approx(expected)


def test_a_recorder_takes_ids():
    module, X = nn.Linear(3, 1), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    recorder = GradientRecorder(module)
    with recorder:
        losses = module(X).square().flatten()
    _, state = robust_backward(losses, recorder, WorkerMemory(), ids=torch.tensor([7, 3, 5, 1]))
    assert state.inner.memory.ids == (7, 3, 5, 1)


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        (
            [1, 2],
            ValueError,
            "ids must be one for each row, each of them once; found 2, 2 of them different, for 3 rows",
        ),
        ([1, 1, 2], ValueError, "ids must be one for each row, each of them once; found 3, 2 of them different"),
        ([None, 1, 2], TypeError, "ids must be numbers or strings; found None"),
        ("abc", TypeError, "ids must be a sequence of numbers or strings"),
    ],
)
def test_ids_are_checked_first(ids, kind, message):
    weight = torch.ones(1, requires_grad=True)
    losses = weight * torch.arange(3.0)
    with pytest.raises(kind, match=message):
        robust_backward(losses, [weight], ids=ids)
    assert weight.grad is None
    losses.sum().backward()
