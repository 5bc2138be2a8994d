"""Everything on another device, which here is a pretended one: devices are not mixed, and little is fetched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils._pytree import tree_map_only

from elsewhere import DEVICE, Elsewhere, Pretending, fetched, moved
from skbgmd import RobustNeuralNetClassifier, block_geometric_median, geometric_median
from skbgmd.aggregators import (
    AGGREGATORS,
    BlockGeometricMedian,
    Bucketing,
    HuberMean,
    MajorityVote,
    NearestNeighborMixing,
    WorkerMomentum,
    Zeno,
    get_aggregator,
)
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.ghost import Chain, GhostRows, GradientRecorder
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training._losses import differentiated


def mean_of(displacement: torch.Tensor) -> torch.Tensor:
    return displacement.mean()


RULES: dict[str, Any] = {
    # No generator can draw on a pretended device.
    name: get_aggregator(name)
    for name in AGGREGATORS
    if name != "bgmd_paper"
} | {
    "a block of units": BlockGeometricMedian(0.2, HuberMean(2.0, rejection=10.0, remember=True), block="unit"),
    "a block of coordinates": BlockGeometricMedian(0.2, HuberMean(2.0, rejection=10.0, remember=True)),
    "a block of runs": BlockGeometricMedian(0.2, run_length=16),
    "a filtered block": BlockGeometricMedian(0.2, block="unit", complement="filtered"),
    "no block": HuberMean(2.0, rejection=10.0, remember=True),
    "a memory": BlockGeometricMedian(0.2, complement="memory"),
    "a memory of units": BlockGeometricMedian(0.2, block="unit", complement="memory"),
    "zero elsewhere": BlockGeometricMedian(0.2, complement="zero"),
    "mixing": NearestNeighborMixing(get_aggregator("geometric_median")),
    "bucketing": Bucketing(get_aggregator("geometric_median"), random_state=0),
    "trusted samples": Zeno(mean_of, lr=1.0),
    "worker momentum": WorkerMomentum(),
    "votes": MajorityVote(1, get_aggregator("geometric_median")),
}


@pytest.fixture(autouse=True)
def _another_device() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), Pretending():
        torch.manual_seed(0)
        yield


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, in shares of the largest number; what was found must be elsewhere."""
    assert isinstance(found, Elsewhere)
    return float((found.cpu().double() - expected.double()).abs().max() / expected.abs().max())


def test_the_pretended_device_refuses_what_a_device_refuses() -> None:
    there = torch.ones(3).to(DEVICE)
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises((TypeError, RuntimeError)):
        there.numpy()
    assert (there + 1.0).cpu().tolist() == [2.0] * 3
    assert fetched == [3]


@pytest.mark.parametrize("shape", [(20, 5000), (300, 3), (20, 1), (9000, 2), (40, 600)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (geometric_median, {}),
        (block_geometric_median, {}),
        (block_geometric_median, {"run_length": 32}),
        (block_geometric_median, {"complement": "memory"}),
        (block_geometric_median, {"complement": "filtered"}),
    ],
)
def test_medians(function: Any, settings: dict[str, Any], shape: tuple[int, int], dtype: torch.dtype) -> None:
    X = torch.randn(shape).to(dtype)
    assert difference(function(X.to(DEVICE), **settings), function(X, **settings)) < 1e-6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("finite", [True, False])
def test_rules_on_matrices(rule: str, finite: bool) -> None:
    units = ParameterBlock.of([torch.zeros(30, 40), torch.zeros(30), torch.zeros(10, 30), torch.zeros(10)])
    there = ParameterBlock(units.starts, units.total, units.chosen, DEVICE)
    X = torch.randn(24, units.total)
    X[:3] *= 50.0
    X[5, 7] = X[5, 7] if finite else torch.nan
    here, away = clone(RULES[rule]), clone(RULES[rule])
    state = state_away = None
    for _ in range(2):
        expected, state = here(DenseRows(X, units=units), state)
        found, state_away = away(DenseRows(X.to(DEVICE), units=there), state_away)
        assert difference(found.vector, expected.vector) < 1e-5


def loss(output: Any) -> torch.Tensor:
    flat = (output[0] if isinstance(output, tuple) else output).flatten(1)
    weights = torch.linspace(0.5, 1.5, flat.shape[1]).to(flat.device)
    return torch.mv((flat + 0.1).square(), weights) + torch.mv(flat, weights).sin()


def ghosts(module: nn.Module, x: torch.Tensor) -> GhostRows:
    parameters = list(module.parameters())
    with GradientRecorder(module, parameters) as tape:
        losses = loss(module(x))
    units = ParameterBlock.of(parameters)
    return GhostRows(tape.factors(losses), len(x), units.total, units=units, device=x.device)


MODULES: dict[str, tuple[Any, Any]] = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), lambda: torch.randn(12, 8)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 5)
        ),
        lambda: torch.randn(12, 2, 4, 4),
    ),
    "transposed convolutions": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(3, 4, 3, stride=2),
            nn.PReLU(4),
            nn.InstanceNorm1d(4, affine=True),
            nn.Flatten(),
            nn.LayerNorm(36),
        ),
        lambda: torch.randn(12, 3, 4),
    ),
    "recurrent": (
        lambda: nn.LSTM(3, 4, bidirectional=True, batch_first=True, bias=False),
        lambda: torch.randn(12, 5, 3),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(30, 3)),
        lambda: torch.randint(20, (12, 5)),
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODULES)
def test_rules_on_gradients_of_samples(name: str, rule: str) -> None:
    make, draw = MODULES[name]
    module, x = make(), draw()
    groups = [slice(0, 3), slice(3, 5), slice(5, 9), slice(9, 12)]
    for grouped in (False, True):
        here, away = ghosts(module, x), ghosts(moved(module), x.to(DEVICE))
        if grouped:
            here, away = here.grouped(groups, np.ones(4)), away.grouped(groups, np.ones(4))
        expected, found = clone(RULES[rule])(here)[0], clone(RULES[rule])(away)[0]
        assert difference(found.vector, expected.vector) < 1e-4


# Micro-batches of one sample take long, but only with them are there many rows: for a Gram matrix, a block, and norms.
STEPS = [
    *((rule, *how) for rule in RULES for how in ((1, "one_pass"), (8, "one_pass"), (8, "micro_batches"))),
    *((rule, 1, "micro_batches") for rule in ("geometric_median", "a block of coordinates", "no block")),
]


@pytest.mark.parametrize(("rule", "group_size", "gradients"), STEPS)
def test_steps_fetch_no_gradients(rule: str, group_size: int, gradients: str) -> None:
    module = nn.Sequential(nn.Linear(200, 64), nn.ReLU(), nn.Linear(64, 4))
    X, y = torch.randn(24, 200), torch.randint(4, (24,))

    def step(module: nn.Module, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        net = RobustNeuralNetClassifier(
            module,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__foreach=False,
            device=None,
            verbose=0,
            aggregator=clone(RULES[rule]),
            group_size=group_size,
            gradients=gradients,
        ).initialize()
        for _ in range(2):
            fetched.clear()
            net.train_step((X, y))
        return torch.cat([parameter.detach().flatten() for parameter in net.module_.parameters()])

    expected = step(copy.deepcopy(module), X, y)
    found = step(moved(module), X.to(DEVICE), y.to(DEVICE))
    # A Gram matrix, numbers of rows and units, and a sample of the columns: all have 24 times 13,124. A filter takes
    # Gram matrices of the block and of all columns.
    assert sum(fetched) < (14_000 if "filtered" in rule else 10_000)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("goes", ["there", "here"])
def test_states_go_on_where_they_are_loaded(rule: Any, goes: str) -> None:
    first, second = torch.randn(2, 9, 200)
    rows_at, state_at = (DEVICE, torch.device("cpu")) if goes == "there" else (torch.device("cpu"), DEVICE)
    _, state = rule(DenseRows(first))
    expected, after = rule(DenseRows(second), state)
    # As torch.load does with a map_location: all tensors go, of whatever device they were.
    loaded = unpack_state(tree_map_only(torch.Tensor, lambda part: part.to(state_at), pack_state(state)))
    found, again = rule(DenseRows(second.to(rows_at)), loaded)
    torch.testing.assert_close(found.vector.cpu(), expected.vector, rtol=1e-3, atol=1e-4)
    # And once more, from what came out of that.
    assert torch.isfinite(rule(DenseRows(first.to(rows_at)), again)[0].vector.cpu()).all()
    assert type(again) is type(after)


@pytest.mark.parametrize("name", ["perceptron", "images"])
def test_a_chain_goes_there_and_back_without_a_transfer(name: str) -> None:
    """Losses, factors, norms and sums: only what the rule asks for is fetched."""
    if name == "perceptron":
        module: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
        x = torch.randn(12, 8)
    else:
        module = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)
        )
        x = torch.randn(12, 1, 8, 8)
    y = torch.randint(4, (12,))
    found = []
    for device in (torch.device("cpu"), DEVICE):
        there = moved(module) if device is DEVICE else module
        links = Chain.of(module, list(module.parameters())).links
        # The kind of tensor that pretends isn't one that trainings take.
        links = [link._replace(layer=layer) for link, layer in zip(links, there, strict=True)]
        chain = Chain(there, links, None)
        fetched.clear()
        went = chain.forward(x.to(device))
        losses, gradient = differentiated(
            SimpleNamespace(device=None), nn.CrossEntropyLoss(), went.output, y.to(device), x
        )
        factors = chain.factors(went, gradient)
        assert not fetched
        total = sum(parameter.numel() for parameter in module.parameters())
        rows = GhostRows(factors, 12, total, device=losses.device)
        found.append(rows.weighted_sum(np.full(12, 1 / 12)))
    assert difference(found[1], found[0]) < 1e-5
