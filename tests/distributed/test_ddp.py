"""DistributedDataParallel with a robust hook: steps of one process, in every way that DDP can be set up."""

from __future__ import annotations

import copy
import io
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from processes import on_ranks
from skbgmd._utils.random import seeded
from skbgmd.aggregators import (
    AGGREGATORS,
    BlockGeometricMedian,
    Bucketing,
    GeometricMedian,
    HuberMean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    TrimmedMean,
    WorkerMomentum,
    get_aggregator,
)
from skbgmd.distributed import RankLostError, RobustHook, robust_hook
from skbgmd.rows import DenseRows, ParameterBlock

#: So small that each parameter has a bucket of its own, or all but.
TINY = 1e-5


class Net(torch.nn.Module):
    """A layer in front, two branches of which one may not be used, and a layer that may have another dtype."""

    def __init__(self, last: torch.dtype = torch.float32) -> None:
        super().__init__()
        with seeded(0, "cpu"):
            self._make(last)

    def _make(self, last: torch.dtype) -> None:
        self.front = torch.nn.Linear(5, 7)
        self.left, self.right = torch.nn.Linear(7, 3), torch.nn.Linear(7, 3)
        self.scale = torch.nn.Parameter(torch.tensor(0.7))
        self.last = torch.nn.Linear(3, 2).to(last)

    def forward(self, x: torch.Tensor, with_right: bool = True) -> torch.Tensor:
        h = torch.tanh(self.front(x))
        h = self.left(h) * self.scale + (self.right(h) if with_right else 0.0)
        return self.last(h.to(self.last.weight.dtype) if not torch.is_autocast_enabled("cpu") else h)


#: Ways to set up DDP and to train with it.
SETUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bucket views": {"gradient_as_bucket_view": True},
    "tiny buckets": {"bucket_cap_mb": TINY},
    "tiny bucket views": {"bucket_cap_mb": TINY, "gradient_as_bucket_view": True},
    "static graph": {"static_graph": True, "bucket_cap_mb": TINY},
    "unused on one rank": {"find_unused_parameters": True, "bucket_cap_mb": TINY, "unused": {1}},
    "unused on all ranks": {"find_unused_parameters": True, "unused": {0, 1, 2}},
    "accumulated": {"accumulate": 2, "bucket_cap_mb": TINY},
    "autocast": {"autocast": True},
    "two dtypes": {"last": torch.float64, "bucket_cap_mb": TINY},
    "half": {"last": torch.bfloat16},
    "static graph of two dtypes": {"static_graph": True, "last": torch.float64},
    "static graph of two dtypes, tiny buckets": {"static_graph": True, "last": torch.float64, "bucket_cap_mb": TINY},
    "frozen": {"frozen": True, "bucket_cap_mb": TINY},
}
OWN = ("unused", "accumulate", "autocast", "last", "frozen")


def batch(rank: int, step: int, part: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + 10 * rank + part)
    return torch.randn(4, 5, generator=generator) + 0.3 * rank


def net_of(setup: dict[str, Any]) -> Net:
    net = Net(setup.get("last", torch.float32))
    if setup.get("frozen"):
        net.left.weight.requires_grad_(False)
    return net


def backward(model: Any, setup: dict[str, Any], rank: int, step: int, hostile: int | None = None) -> None:
    n_parts = setup.get("accumulate", 1)
    for part in range(n_parts):
        waits = part < n_parts - 1 and hasattr(model, "no_sync")
        with model.no_sync() if waits else nullcontext():
            with torch.autocast("cpu", torch.bfloat16) if setup.get("autocast") else nullcontext():
                output = model(batch(rank, step, part), rank not in setup.get("unused", ()))
            (output.float().square().sum() * (-30.0 if rank == hostile else 1.0)).backward()


def descend(net: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 0.02 * parameter.grad
    net.zero_grad()


def flat(net: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten().double() for p in net.parameters()]).numpy()


def train(rank: int, setup: dict[str, Any], hook: RobustHook, n_steps: int, hostile: int | None = None, **more: Any):
    net = net_of(setup)
    ddp = DistributedDataParallel(net, **{k: v for k, v in setup.items() if k not in OWN}, **more)
    ddp.register_comm_hook(hook, robust_hook)
    for step in range(n_steps):
        backward(ddp, setup, rank, step, hostile)
        descend(net)
    return flat(net)


def train_alone(setup: dict[str, Any], rule: Any, size: int, n_steps: int, hostile: int | None = None) -> Any:
    """Training in one process, with the gradients of so many ranks as rows."""
    net, state, all_weights = net_of(setup), None, []
    parameters = [p for p in net.parameters() if p.requires_grad]
    for step in range(n_steps):
        rows = []
        for rank in range(size):
            copied = copy.deepcopy(net)
            backward(copied, setup, rank, step, hostile)
            grads = [
                p.grad if p.grad is not None else torch.zeros_like(p) for p in copied.parameters() if p.requires_grad
            ]
            rows.append(torch.cat([grad.flatten().double() for grad in grads]))
        matrix = torch.stack(rows).to(torch.float64 if setup.get("last") == torch.float64 else torch.float32)
        aggregate, state = rule(DenseRows(matrix, units=ParameterBlock.of(parameters)), state)
        start = 0
        for parameter in parameters:
            part = aggregate.vector[start : start + parameter.numel()].view_as(parameter)
            parameter.grad, start = part.to(parameter.dtype), start + parameter.numel()
        all_weights.append(aggregate.weights)
        descend(net)
    return flat(net), all_weights


def all_setups(rank: int, size: int) -> dict[str, Any]:
    found = {}
    for name, setup in SETUPS.items():
        hook = RobustHook(HuberMean())
        found[name] = train(rank, setup, hook, 4), hook.weights_, len(hook.history)
    return found


def on_two(what: Callable[[int, int], Any]) -> list[Any]:
    return [found[what.__name__] for found in all_on_two()]


@pytest.mark.parametrize("name", SETUPS)
def test_ddp_trains_as_one_process_does(name):
    expected, weights = train_alone(SETUPS[name], HuberMean(), 2, 4)
    first, second = (found[name] for found in on_two(all_setups))
    np.testing.assert_array_equal(first[0], second[0])
    is_rough = name in ("half", "autocast")
    np.testing.assert_allclose(first[0], expected, atol=2e-2 if is_rough else 1e-5)
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_allclose(first[1], weights[-1], atol=1e-2 if is_rough else 1e-5)
    assert first[2] == 4


RULES: dict[str, Any] = {
    **{name: get_aggregator(name) for name in AGGREGATORS if name != "bgmd_paper"},
    "block of runs": BlockGeometricMedian(0.3, run_length=5),
    "block of units": BlockGeometricMedian(0.3, block="unit"),
    "filtered block": BlockGeometricMedian(0.3, complement="filtered"),
    "filtered units": BlockGeometricMedian(0.3, GeometricMedian(rejection=10.0), block="unit", complement="filtered"),
    "block with memory": BlockGeometricMedian(0.3, complement="memory"),
    "sampled block": BlockGeometricMedian(0.3, selection="sample", run_length=4, random_state=3),
    "uniform units": BlockGeometricMedian(0.3, selection="uniform", block="unit", random_state=3),
    "published": BlockGeometricMedian.published(0.3, random_state=3),
    "mixing": NearestNeighborMixing(),
    "buckets": Bucketing(GeometricMedian(), random_state=3),
}


def all_rules(rank: int, size: int) -> dict[str, Any]:
    found = {}
    for name, rule in RULES.items():
        hook = RobustHook(rule)
        # DDP rebuilds the tiny buckets after the first step, in another order.
        found[name] = train(rank, SETUPS["tiny buckets"], hook, 3, hostile=1), hook.weights_
    return found


def on_three(what: Callable[[int, int], Any]) -> list[Any]:
    return [found[what.__name__] for found in all_on_three()]


@pytest.mark.parametrize("name", RULES)
def test_rules_and_their_blocks_are_those_of_one_process_though_buckets_are_rebuilt(name):
    expected, weights = train_alone(SETUPS["tiny buckets"], RULES[name], 3, 3, hostile=1)
    for found in on_three(all_rules):
        np.testing.assert_array_equal(found[name][0], on_three(all_rules)[0][name][0])
        np.testing.assert_allclose(found[name][0], expected, atol=1e-5 * np.abs(expected).max())
        if weights[-1] is None:
            assert found[name][1] is None
        else:
            np.testing.assert_allclose(found[name][1], weights[-1], atol=1e-5)


def test_a_hostile_rank_is_outvoted():
    for name in ("geometric_median", "huber_mean", "krum"):
        assert on_three(all_rules)[0][name][1][1] < 0.2


def seeds(rank: int, size: int) -> Any:
    rule = BlockGeometricMedian(0.3, selection="uniform")
    hooks = [RobustHook(rule), RobustHook(rule, random_state=rank + 5), RobustHook(NearestNeighborMixing(rule))]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    trained = [train(rank, SETUPS["plain"], hook, 3) for hook in hooks]
    # Net() seeds torch's generator; NumPy's is nobody's business.
    assert (np.random.get_state()[1] == before[1]).all()
    return trained, [hook.random_state for hook in hooks]


def test_ranks_agree_on_a_seed():
    (first, own), (second, other) = on_two(seeds)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert own == other
    assert own[1] == 5
    given = BlockGeometricMedian(0.3, selection="uniform", random_state=5)
    np.testing.assert_allclose(first[1], train_alone(SETUPS["plain"], given, 2, 3)[0], atol=1e-5)


def errors(rank: int, size: int) -> Any:
    found: dict[str, Any] = {}

    def attempt(name: str, call: Any) -> None:
        try:
            found[name] = call()
        except (RuntimeError, ValueError, TypeError) as error:
            found[name] = type(error).__name__, str(error)

    net = Net()

    def step(hook: Any, x: torch.Tensor, net: Any = None, **options: Any) -> list[float]:
        net = net or Net()
        ddp = DistributedDataParallel(net, bucket_cap_mb=TINY, **options)
        ddp.register_comm_hook(hook, robust_hook)
        for _ in range(2):
            net.zero_grad()
            ddp(x).square().sum().backward()
        return [] if hook.weights_ is None else hook.weights_.tolist()

    nan = torch.full((2, 5), torch.nan)
    attempt("nan on two of three", lambda: step(RobustHook(), nan if rank else batch(0, 0, 0)))
    attempt("nan on one of three", lambda: step(RobustHook(), batch(0, 0, 0) if rank else nan))
    passing = RobustHook(HuberMean(), non_finite="propagate")
    ddp = DistributedDataParallel(Net())
    ddp.register_comm_hook(passing, robust_hook)
    seen = []
    for x in (batch(0, 0, 0), nan, batch(0, 0, 0)):
        ddp.zero_grad()
        ddp(x).square().sum().backward()
        seen.append(bool(ddp.module.front.weight.grad.isfinite().all()))
    found["propagated"] = seen, passing.n_steps_
    attempt("another rule", lambda: step(RobustHook("krum" if rank == 2 else "mean"), batch(0, 0, 0)))
    embedding = torch.nn.Sequential(torch.nn.Embedding(9, 4, sparse=True), torch.nn.Linear(4, 2))
    attempt("sparse", lambda: step(RobustHook(), torch.tensor([1, 2]), embedding))
    delayed = {"delay_all_reduce_named_params": [("left.bias", net.left.bias)], "param_to_hook_all_reduce": net.scale}
    attempt("delayed", lambda: step(RobustHook(), batch(0, 0, 0), net, **delayed))
    attempt("no hook", lambda: DistributedDataParallel(Net()).register_comm_hook(None, robust_hook))
    return found


def test_all_ranks_raise_and_none_hangs():
    ranks = on_three(errors)
    for found in ranks:
        assert found["nan on two of three"][0] == NonFiniteRowsError.__name__
        assert "found 2 of 3 rows" in found["nan on two of three"][1]
        np.testing.assert_allclose(found["nan on one of three"], [0.0, 0.5, 0.5])
        assert found["propagated"] == ([True, False, True], 3)
        assert found["another rule"] == (
            "ValueError",
            "What is set (rule) must be the same on all ranks; found 'Mean' on ranks 0, 1; 'Krum' on rank 2.",
        )
        assert found["sparse"][0] == "TypeError"
        assert "sparse" in found["sparse"][1]
        assert found["delayed"][0] == "TypeError"
        assert "found left.bias in delay_all_reduce_named_params, which Dist" in found["delayed"][1]


class Embedded(torch.nn.Module):
    """An embedding in front of a layer, which has a bucket of its own if buckets are small."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        with seeded(0, "cpu"):
            self.table, self.last = torch.nn.Embedding(9, 4, sparse=sparse), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.table(x))


class Failing(GeometricMedian):
    """A rule that raises on one rank after the first step."""

    def __call__(self, rows: Any, state: Any = None) -> Any:
        calls = vars(self).setdefault("calls", [])
        calls.append(1)
        if len(calls) == 2 and dist.get_rank() == 1:
            raise MemoryError("no memory")
        return super().__call__(rows, state)


def complain(weights: Any) -> None:
    if dist.get_rank() == 1:
        raise ValueError("no space left")


def interrupt(weights: Any) -> None:
    if dist.get_rank() == 1:
        raise KeyboardInterrupt


#: Hooks that raise on rank 1, whether an embedding is sparse there, and what the others are told.
ALONE: dict[str, tuple[Callable[[], RobustHook], bool, type[BaseException], str]] = {
    "on_step": (
        lambda: RobustHook(on_step=complain),
        False,
        ValueError,
        "Rank 1 failed by an error of its own: ValueError: no space left. So gather",
    ),
    "interrupt": (
        lambda: RobustHook(on_step=interrupt),
        False,
        KeyboardInterrupt,
        "Rank 1 failed by an error of its own: KeyboardInterrupt. So gather",
    ),
    "rule": (lambda: RobustHook(Failing()), False, MemoryError, "Rank 1 failed by an error of its own: MemoryError: "),
    "sparse": (RobustHook, True, TypeError, "found sparse ones of layers table (an embedding's sparse=True) on rank 1"),
    "sparse in blocks": (lambda: RobustHook(beta=0.5), True, TypeError, "found sparse ones of layers table"),
}


def raise_alone(rank: int, size: int, name: str) -> Any:
    make, sparse, own, _ = ALONE[name]
    net = Embedded(sparse=sparse and rank == 1)
    ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
    ddp.register_comm_hook(make(), robust_hook)
    begin = time.monotonic()
    try:
        for _ in range(4):
            net.zero_grad()
            ddp(torch.tensor([1, 2])).square().sum().backward()
    except (RankLostError, own) as error:
        # A process that ends slowly keeps its connections: the others must not wait for that.
        seconds = time.monotonic() - begin
        time.sleep(3.0 * (rank == 1 and not sparse))
        return type(error).__name__, str(error), seconds
    return None


@pytest.mark.parametrize("name", ALONE)
def test_an_error_of_one_rank_reaches_all_by_name_and_cause(name):
    _, sparse, own, told = ALONE[name]
    # They can't meet afterwards, which "lost" says.
    first, second, third = on_ranks(raise_alone, 3, name, lost={3})
    assert second[0] == own.__name__
    for kind, message, seconds in (first, third):
        assert kind == ("TypeError" if sparse else "RankLostError")
        assert told in message
        assert seconds < 3.5


def raise_together(rank: int, size: int) -> Any:
    """An error of all ranks, late on one, after which they go on."""
    steps: list[int] = []

    def late(weights: Any) -> None:
        steps.append(1)
        if len(steps) == 2:
            time.sleep(0.3 * rank)
            raise ValueError("all")

    net = Net()
    for _ in range(2):
        ddp = DistributedDataParallel(net)
        hook = RobustHook(on_step=late)
        ddp.register_comm_hook(hook, robust_hook)
        try:
            for _ in range(3):
                net.zero_grad()
                ddp(batch(rank, 0, 0)).square().sum().backward()
        except ValueError as error:
            steps.append(str(error))
    return steps, hook.n_steps_


def test_ranks_that_raise_together_may_go_on_together():
    assert on_ranks(raise_together, 3) == [([1, 1, "all", 1, 1, 1], 3)] * 3


def by_groups(rank: int, size: int, kind: str) -> Any:
    """Two trainings of two ranks each."""
    pairs = [[0, 1], [2, 3]]
    groups = [dist.new_group(ranks) for ranks in pairs]
    own = rank // 2
    given = {
        "none": None,
        "own": groups[own],
        "another of its ranks": [dist.new_group(ranks) for ranks in pairs][own],
        "all": dist.group.WORLD,
    }[kind]
    net = Net()
    ddp = DistributedDataParallel(net, process_group=groups[own])
    hook = RobustHook("mean", group=given)
    ddp.register_comm_hook(hook, robust_hook)
    try:
        ddp(batch(rank, 0, 0)).square().sum().backward()
    except ValueError as error:
        return str(error)
    return len(hook.weights_), flat_gradient(net)


def flat_gradient(net: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.grad.flatten() for p in net.parameters()]).numpy()


@pytest.mark.parametrize("kind", ["none", "own", "another of its ranks"])
def test_a_hook_aggregates_the_ranks_that_train_its_model(kind):
    found = on_ranks(by_groups, 4, kind)
    for own in (0, 1):
        gradients = []
        for rank in (2 * own, 2 * own + 1):
            net = Net()
            net(batch(rank, 0, 0)).square().sum().backward()
            gradients.append(flat_gradient(net))
            assert found[rank][0] == 2
        for rank in (2 * own, 2 * own + 1):
            np.testing.assert_allclose(found[rank][1], np.mean(gradients, axis=0), atol=1e-5)


def test_a_group_of_other_ranks_than_the_models_is_refused_on_all():
    for rank, message in enumerate(on_ranks(by_groups, 4, "all")):
        assert message == (
            f"group must be of the ranks that train the model, {[0, 1] if rank < 2 else [2, 3]} by its process_group; "
            "found one of [0, 1, 2, 3]."
        )


def resumed(rank: int, size: int) -> Any:
    rule = BlockGeometricMedian(0.3, HuberMean(), complement="memory", selection="sample", run_length=4)
    setup = SETUPS["tiny buckets"]

    def go_on(net: Net, hook: RobustHook, steps: range) -> np.ndarray:
        ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
        ddp.register_comm_hook(hook, robust_hook)
        for step in steps:
            backward(ddp, setup, rank, step)
            descend(net)
        return flat(net)

    whole = RobustHook(rule)
    net = Net()
    go_on(net, whole, range(3))
    file = io.BytesIO()
    torch.save({"hook": whole.state_dict(), "net": net.state_dict()}, file)
    pickled = pickle.dumps(whole)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    there = []
    for hook in (RobustHook(rule), pickle.loads(pickled)):
        other = Net()
        other.load_state_dict(saved["net"])
        if hook.n_steps_ == 0:
            hook.load_state_dict(saved["hook"])
            # Before the next step it is what it was given.
            assert hook.state_dict()["n_steps"] == 3
        # DDP begins with buckets in the first order again.
        there.append((go_on(other, hook, range(3, 5)), hook.n_steps_))
    same = copy.deepcopy(net)
    straight = go_on(same, whole, range(3, 5)), whole.n_steps_
    swapped = RobustHook(rule)
    swapped.load_state_dict({**saved["hook"], "rank": 1 - rank if rank == 0 else rank})
    try:
        go_on(Net(), swapped, range(1))
        message = ""
    except ValueError as error:
        message = str(error)
    return straight, there, message


def test_a_resumed_training_goes_on_identically():
    for straight, there, message in on_two(resumed):
        for other in there:
            np.testing.assert_array_equal(other[0], straight[0])
            assert other[1] == straight[1] == 5
        assert "state must be of the same rank" in message


def some_ranks(rank: int, size: int) -> Any:
    group = dist.new_group([0, 2])
    alone = dist.new_group([rank], use_local_synchronization=True)
    hook, own = RobustHook(group=group), RobustHook(group=alone)
    by_itself = train(rank, SETUPS["tiny buckets"], own, 2, process_group=alone), own.weights_
    if rank == 1:
        return None, by_itself
    return (train(rank, SETUPS["plain"], hook, 2, process_group=group), hook.weights_, hook.exchange_.size), by_itself


def test_a_group_of_ranks_and_one_rank():
    ranks = on_three(some_ranks)
    np.testing.assert_array_equal(ranks[0][0][0], ranks[2][0][0])
    np.testing.assert_allclose(ranks[0][0][1], [0.5, 0.5], atol=1e-6)
    assert ranks[0][0][2] == 2
    for rank, (_, (trained, weights)) in enumerate(ranks):
        net, setup = Net(), SETUPS["plain"]
        for step in range(2):
            backward(net, setup, rank, step)
            descend(net)
        np.testing.assert_allclose(trained, flat(net), atol=1e-6)
        assert weights == [1.0]


def fewer_bytes(rank: int, size: int) -> Any:
    sent, trained = [], []
    for transport in (None, torch.bfloat16):
        hook = RobustHook(transport_dtype=transport)
        trained.append(train(rank, {}, hook, 2))
        sent.append(hook.exchange_.traffic.sent)
    return sent, trained


def test_gradients_may_travel_in_half_precision():
    for (whole, half), (exact, rough) in on_two(fewer_bytes):
        # In two steps, there and back, two bytes less for each number that goes to the other rank, padding included.
        assert whole - half == 2 * 2 * 2 * sum(-(-p.numel() // 2) for p in Net().parameters())
        np.testing.assert_allclose(rough, exact, atol=1e-2)
        assert not np.array_equal(rough, exact)


def uneven(rank: int, size: int) -> Any:
    net = Net()
    hook = RobustHook("mean")
    ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
    ddp.register_comm_hook(hook, robust_hook)
    with torch.distributed.algorithms.join.Join([ddp]):
        for step in range(2 + rank):
            backward(ddp, {}, rank, step)
            descend(net)
    return hook.n_steps_


def test_ranks_with_fewer_batches_join_with_zeros():
    assert on_two(uneven) == [3, 3]


def blocks(rank: int, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("plain", "tiny buckets", "bucket views", "two dtypes"):
        hook = RobustHook("geometric_median", beta=0.5)
        found[name] = train(rank, SETUPS[name], hook, 4, hostile=1), hook.weights_
    hook = RobustHook(beta=0.5)
    net = Net()
    ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
    ddp.register_comm_hook(hook, robust_hook)
    for step in range(3):
        backward(ddp, {}, rank, step)
        descend(net)
    file = io.BytesIO()
    torch.save({"hook": hook.state_dict(), "net": net.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    loaded = RobustHook(beta=0.5)
    loaded.load_state_dict(saved["hook"])
    ends = []
    for other in (hook, loaded, pickle.loads(pickle.dumps(hook))):
        copied = Net()
        copied.load_state_dict(saved["net"])
        ddp = DistributedDataParallel(copied)
        ddp.register_comm_hook(other, robust_hook)
        if other is hook:  # it goes on with another copy of the model
            hook.load_state_dict(saved["hook"])
        for step in range(3, 5):
            backward(ddp, {}, rank, step)
            descend(copied)
        ends.append(flat(copied))
    found["ends"] = ends
    # What a plain mean left out is all in the remainders, whatever the block.
    mean = RobustHook("mean", beta=0.5)
    net = Net()
    ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
    ddp.register_comm_hook(mean, robust_hook)
    sent = 0.0
    for _ in range(3):
        backward(ddp, {}, rank, 0)
        sent = sent + np.concatenate([p.grad.flatten().numpy() for p in net.parameters()])
        net.zero_grad()
    alone = Net()
    backward(alone, {}, rank, 0)
    own = np.concatenate([p.grad.flatten().numpy() for p in alone.parameters()])
    kept = mean.state_dict()["buckets"]["parts"][0]["remainder"].numpy()
    found["accounts"] = sent, own, kept, mean.exchange_.traffic.sent
    return found


def test_a_block_travels_and_the_rest_stays_with_its_rank():
    ranks = on_three(blocks)
    for found in ranks:
        for name in ("plain", "tiny buckets", "bucket views", "two dtypes"):
            np.testing.assert_array_equal(found[name][0], ranks[0][name][0])
            assert found[name][1][1] < 0.2
        # Buckets make no difference, nor does it whether they are views.
        np.testing.assert_array_equal(found["tiny buckets"][0], found["plain"][0])
        np.testing.assert_array_equal(found["bucket views"][0], found["plain"][0])
        for other in found["ends"][1:]:
            np.testing.assert_array_equal(other, found["ends"][0])
    sent, own, kept = (sum(found["accounts"][at] for found in ranks) / 3 for at in range(3))
    np.testing.assert_allclose(sent + kept, 3 * own, rtol=1e-5, atol=1e-6)
    assert kept.any()


class Backwards(torch.nn.Module):
    """Layers of like shapes that are defined in another order than they are used: DDP rebuilds its buckets."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0, "cpu"):
            self.last, self.third, self.second, self.first = (torch.nn.Linear(5, 5) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second, self.third):
            x = torch.tanh(layer(x))
        return self.last(x)


#: Rules and shares of coordinates, some of which remember columns.
ROLLED_BACK: dict[str, tuple[Any, float]] = {
    "centered_clipping": ("centered_clipping", 1.0),
    "worker_memory": ("worker_memory", 1.0),
    "worker_momentum": (WorkerMomentum(), 1.0),
    "bgmd_paper": ("bgmd_paper", 1.0),
    "block with memory": (BlockGeometricMedian(0.3, complement="memory"), 1.0),
    "units with memory": (BlockGeometricMedian(0.3, complement="memory", block="unit"), 1.0),
    "half": ("geometric_median", 0.5),
    "a tenth": ("huber_mean", 0.1),
    "half of a memory": ("worker_memory", 0.5),
    "the whole": ("geometric_median", 1.0),
}


def rollbacks(rank: int, size: int) -> dict[str, list[np.ndarray]]:
    """Trainings that go on, and that are rolled back and go on: to two steps, to one, and to none."""
    found = {}
    for name, (rule, beta) in ROLLED_BACK.items():
        net, hook = Backwards(), RobustHook(rule, beta=beta, random_state=3)
        ddp = DistributedDataParallel(net, bucket_cap_mb=TINY)
        ddp.register_comm_hook(hook, robust_hook)

        def go_on(steps: range, net: Any = net, ddp: Any = ddp) -> np.ndarray:
            for step in steps:
                ddp(batch(rank, step, 0)).square().sum().backward()
                descend(net)
            return flat(net)

        saved = []
        for step in range(3):
            saved.append(copy.deepcopy((net.state_dict(), hook.state_dict())))
            go_on(range(step, step + 1))
        found[name] = [go_on(range(3, 5))]
        for step in (2, 1, 2, 0):
            net.load_state_dict(saved[step][0])
            hook.load_state_dict(saved[step][1])
            assert hook.state_dict()["buckets"] == saved[step][1]["buckets"] or beta < 1.0 or step == 0
            found[name].append(go_on(range(step, 5)))
    return found


@pytest.mark.parametrize("name", ROLLED_BACK)
def test_a_rollback_goes_on_identically_though_buckets_were_rebuilt(name):
    ranks = on_three(rollbacks)
    for found in ranks:
        for other in found[name]:
            np.testing.assert_array_equal(other, ranks[0][name][0])


def unfrozen(rank: int, size: int) -> dict[str, str]:
    """Layers that are unfrozen, frozen or both midway, with the same hook, and with its state in another."""
    found = {}
    for beta in (1.0, 0.5):
        for how, before, after in (
            ("unfrozen", ("second",), ()),
            ("frozen", (), ("second",)),
            ("both", ("second",), ("third",)),
        ):
            for with_state in (False, True):
                net, hook = Backwards(), RobustHook("worker_memory", beta=beta)
                message = ""
                try:
                    for names in (before, before, after):
                        for name in ("second", "third"):
                            getattr(net, name).requires_grad_(name not in names)
                        if with_state and names is after:
                            state, hook = hook.state_dict(), RobustHook("worker_memory", beta=beta)
                            hook.load_state_dict(state)
                        ddp = DistributedDataParallel(net)
                        ddp.register_comm_hook(hook, robust_hook)
                        ddp(batch(rank, 0, 0)).square().sum().backward()
                except ValueError as error:
                    message = str(error)
                found[f"{how}, {beta}, {with_state}"] = message
                # The way out.
                ddp = DistributedDataParallel(net)
                ddp.register_comm_hook(RobustHook("worker_memory", beta=beta), robust_hook)
                ddp(batch(rank, 0, 0)).square().sum().backward()
    return found


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("with_state", [False, True])
def test_parameters_that_are_new_or_missing_are_named(beta, with_state):
    which = "that the state is of" if with_state else "that it had in the first step"
    for found in on_three(unfrozen):
        for how, changes in (
            ("unfrozen", "new: (5, 5) float32, (5,) float32"),
            ("frozen", "missing: (5, 5) float32, (5,) float32"),
            ("both", "new: (5, 5) float32, (5,) float32; missing: (5, 5) float32, (5,) float32"),
        ):
            if with_state and how == "both":  # shapes don't tell
                continue
            assert found[f"{how}, {beta}, {with_state}"].startswith(
                f"A model must have the parameters {which}; found {changes}. After layers were frozen or unfrozen"
            )


class Complex(torch.nn.Module):
    """Complex parameters among real ones, of several dtypes."""

    def __init__(self, wide: bool = False) -> None:
        super().__init__()
        dtype = torch.complex128 if wide else torch.complex64
        with seeded(0, "cpu"):
            self.front = torch.nn.Linear(5, 7)
            self.matrix = torch.nn.Parameter(torch.randn(3, 7, dtype=dtype))
            self.shift = torch.nn.Parameter(torch.randn(3, dtype=dtype))
            self.scale = torch.nn.Parameter(torch.randn((), dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.front(x)).to(self.matrix.dtype) @ self.matrix.T + self.shift
        return torch.view_as_real(z * self.scale)


#: Rules, shares of coordinates, whether some numbers are wide, and further settings of DDP.
COMPLEX: list[tuple[Any, float, bool, dict[str, Any]]] = [
    (GeometricMedian(), 1.0, False, {}),
    (GeometricMedian(), 1.0, False, {"bucket_cap_mb": TINY, "gradient_as_bucket_view": True}),
    (HuberMean(), 1.0, True, {"bucket_cap_mb": TINY}),
    (get_aggregator("coordinate_median"), 1.0, False, {}),
    (BlockGeometricMedian(0.3, block="unit"), 1.0, False, {"bucket_cap_mb": TINY}),
    (get_aggregator("centered_clipping"), 1.0, True, {}),
    (get_aggregator("mean"), 0.999, False, {"bucket_cap_mb": TINY}),
]


def reals(net: torch.nn.Module, of: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    parts = [of(parameter).detach() for parameter in net.parameters()]
    return torch.cat([(torch.view_as_real(p) if p.is_complex() else p).flatten().double() for p in parts])


def complex_parameters(rank: int, size: int) -> list[np.ndarray]:
    found = []
    for rule, beta, wide, settings in COMPLEX:
        net, hook = Complex(wide), RobustHook(rule, beta=beta)
        ddp = DistributedDataParallel(net, **settings)
        ddp.register_comm_hook(hook, robust_hook)
        for step in range(3):
            (ddp(batch(rank, step, 0)).square().sum() * (-30.0 if rank == 1 else 1.0)).backward()
            descend(net)
        found.append(reals(net, lambda p: p).numpy())
    return found


@pytest.mark.parametrize("case", range(len(COMPLEX)))
def test_of_complex_parameters_the_real_and_imaginary_parts_are_columns(case):
    rule, _, wide, _ = COMPLEX[case]
    net, state = Complex(wide), None
    for step in range(3):
        rows = []
        for rank in range(3):
            copied = copy.deepcopy(net)
            (copied(batch(rank, step, 0)).square().sum() * (-30.0 if rank == 1 else 1.0)).backward()
            rows.append(reals(copied, lambda p: p.grad))
        units = ParameterBlock.of(torch.view_as_real(p.detach()) if p.is_complex() else p for p in net.parameters())
        aggregate, state = rule(DenseRows(torch.stack(rows).float(), units=units), state)
        start = 0
        for parameter in net.parameters():
            width = parameter.numel() * (1 + parameter.is_complex())
            part = aggregate.vector[start : start + width]
            part = torch.view_as_complex(part.reshape(-1, 2)) if parameter.is_complex() else part
            parameter.grad, start = part.to(parameter.dtype).reshape(parameter.shape), start + width
        descend(net)
    expected = reals(net, lambda p: p).numpy()
    for found in on_three(complex_parameters):
        np.testing.assert_array_equal(found[case], on_three(complex_parameters)[0][case])
        np.testing.assert_allclose(found[case], expected, atol=1e-4 * np.abs(expected).max())


def disagreements(rank: int, size: int) -> dict[str, str]:
    """Ranks that were set up otherwise, or that resume from something else: errors on all, and nobody waits."""
    setup = SETUPS["tiny buckets"]

    def tried(hook: RobustHook) -> str:
        try:
            train(rank, setup, hook, 1)
        except ValueError as error:
            return str(error)
        return ""

    def saved(**settings: Any) -> dict[str, Any]:
        hook = RobustHook(**settings)
        train(rank, setup, hook, 2)
        return hook.state_dict()

    last = rank == size - 1
    found = {
        "beta": tried(RobustHook(beta=0.1 if last else 0.5)),
        "exact or not": tried(RobustHook(beta=0.1 if last else 1.0)),
        "transport": tried(RobustHook(transport_dtype=torch.bfloat16 if last else None)),
        "non_finite": tried(RobustHook(non_finite="propagate" if last else "raise")),
        "rule": tried(RobustHook("mean" if last else "krum")),
        "number of NumPy": tried(RobustHook(TrimmedMean(np.float32(0.1 if last else 0.3)))),
        "the same number": tried(RobustHook(TrimmedMean(np.float64(0.25) if last else 0.25))),
        "seed": tried(RobustHook(Bucketing(random_state=2 if last else 1))),
    }
    for beta in (1.0, 0.5):
        state, hook = saved(beta=beta), RobustHook(beta=beta)
        if not last:
            hook.load_state_dict(state)
        found[f"state of some, {beta}"] = tried(hook)
        hook = RobustHook(beta=beta)
        hook.load_state_dict({**state, "n_columns": 7} if last else state)
        found[f"another model, {beta}"] = tried(hook)
        hook = RobustHook(beta=beta)
        other = {**state["buckets"], "parameters": ["(7,) float32"]}
        hook.load_state_dict({**state, "buckets": other} if last else state)
        found[f"other parameters, {beta}"] = tried(hook)
        # Before the first step there is no model to be of.
        hook = RobustHook(beta=beta)
        if last:
            hook.load_state_dict(RobustHook(beta=beta).state_dict())
        found[f"nothing on one, {beta}"] = tried(hook)
        # States of earlier versions don't tell the parameters.
        hook = RobustHook(beta=beta)
        earlier = {name: value for name, value in state["buckets"].items() if name != "parameters"}
        hook.load_state_dict({**state, "buckets": earlier})
        found[f"earlier, {beta}"] = tried(hook)
    return found


def test_ranks_that_disagree_raise_together():
    for found in on_three(disagreements):
        for name, values in {
            "beta": ("beta", "0.5", "0.1"),
            "exact or not": ("beta", "1.0", "0.1"),
            "transport": ("transport_dtype", "'None'", "'torch.bfloat16'"),
            "non_finite": ("non_finite", "'raise'", "'propagate'"),
            "rule": ("rule", "'Krum'", "'Mean'"),
            "number of NumPy": ("rule__fraction of TrimmedMean", r"0\.3\d*", r"0\.1\d*"),
            "seed": ("rule__random_state of Bucketing", "1", "2"),
        }.items():
            which, others, odd = values
            expected = rf"\({which}\) must be the same on all ranks; found {others} on ranks 0, 1; {odd} on rank 2\."
            assert re.search(expected, found[name]), found[name]
        assert found["the same number"] == ""
        for beta in (1.0, 0.5):
            assert "state must be loaded on all ranks" in found[f"state of some, {beta}"]
            assert "state's model must be the same on all ranks" in found[f"another model, {beta}"]
            assert "state's model must be the same on all ranks" in found[f"other parameters, {beta}"]
            assert found[f"nothing on one, {beta}"] == found[f"earlier, {beta}"] == ""


def test_what_does_not_go_with_a_block_is_refused():
    for rule in ("bgmd_paper", BlockGeometricMedian(0.3, complement="memory"), BlockGeometricMedian(block="unit")):
        RobustHook(rule)
        with pytest.raises(ValueError, match="must neither remember columns"):
            RobustHook(NearestNeighborMixing(get_aggregator(rule)), beta=0.1)
    with pytest.raises(ValueError, match="non_finite must be 'raise' with beta less than 1"):
        RobustHook(beta=0.5, non_finite="propagate")
    hook = RobustHook(beta=0.5)
    own = hook.state_dict()
    for state in (
        None,
        {},
        {"beta": 0.5},
        RobustHook().state_dict(),
        {**own, "buckets": 3},
        {**own, "buckets": {"a": 1}},
    ):
        with pytest.raises(ValueError, match="state must be"):
            hook.load_state_dict(state)
    assert hook.n_steps_ == 0


def every(rank: int, size: int) -> dict[str, Any]:
    """Run what is to be run on as many ranks, in one go: to start processes takes longer."""
    functions = {
        2: (all_setups, seeds, resumed, fewer_bytes, uneven),
        3: (all_rules, errors, some_ranks, blocks, rollbacks, unfrozen, complex_parameters, disagreements),
    }[size]
    return {function.__name__: function(rank, size) for function in functions}


@lru_cache
def all_on_two() -> list[dict[str, Any]]:
    return on_ranks(every, 2)


@lru_cache
def all_on_three() -> list[dict[str, Any]]:
    return on_ranks(every, 3)


def test_hook_wants_its_own_state():
    with pytest.raises(TypeError, match="The state of robust_hook must be a RobustHook; found None"):
        robust_hook(None, None)
    # As torch.compile's python_reducer and the older FSDP call hooks.
    with pytest.raises(TypeError, match=r"must be given the buckets of DistributedDataParallel.* found Tensor"):
        robust_hook(RobustHook(), torch.ones(3))


@pytest.mark.slow
def test_the_example_outvotes_a_hostile_rank():
    root = Path(__file__).parents[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "4", "--master-addr", "127.0.0.1", "--master-port"]
    command = [sys.executable, "-W", "error", *launch, str(port), str(root / "docs/examples/ddp.py")]
    around = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=around)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test accuracy ([\d.]+)%", done.stdout)[1]) > 85.0
    weights = [float(found) for found in re.findall(r"rank \d: mean weight ([\d.]+)", done.stdout)]
    assert len(weights) == 4
    assert weights[3] < 0.1 < min(weights[:3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device(tmp_path):
    dist.init_process_group("nccl", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        net, plain = Net().cuda(), Net().cuda()
        ddp, hook = DistributedDataParallel(net, bucket_cap_mb=TINY), RobustHook("huber_mean")
        ddp.register_comm_hook(hook, robust_hook)
        for step in range(3):
            for model in (ddp, plain):
                model(batch(0, step, 0).cuda()).square().sum().backward()
            descend(net), descend(plain)
        np.testing.assert_allclose(flat(net.cpu()), flat(plain.cpu()), atol=1e-5)
        assert hook.weights_ == [1.0]
    finally:
        dist.destroy_process_group()


def ended(rank: int, size: int, folder: str) -> int:
    """Default groups one after the other, each of which DDP is the last to hold."""
    # No thread gets the interpreter's lock unless this one sleeps or lends it.
    sys.setswitchinterval(1000.0)
    rules = [("geometric_median", 1.0), ("worker_memory", 1.0), ("geometric_median", 0.5)] * 8
    for number, (rule, beta) in enumerate(rules):
        ddp = DistributedDataParallel(torch.nn.Linear(4, 2))
        ddp.register_comm_hook(RobustHook(rule, beta=beta), robust_hook)
        (ddp(torch.ones(3, 4)).sum() * (-100.0 if rank == 2 else 1.0)).backward()
        dist.destroy_process_group()
        del ddp
        dist.init_process_group("gloo", f"file://{folder}/{number}", timedelta(seconds=60), size, rank)
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0


def test_groups_end_with_their_models(tmp_path):
    # Seven seconds where nothing else runs.
    threads = on_ranks(ended, 3, str(tmp_path), timeout=150.0)
    # Each group has three; a few groups wait for the garbage collector.
    assert max(threads) < 24


SCRIPT = """
import sys
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

def work(rank, path, how):
    if how != "import late":
        from skbgmd.distributed import RobustHook, robust_hook
    dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
    from skbgmd.distributed import RobustHook, robust_hook
    torch.set_num_threads(1)
    sys.setswitchinterval(1000.0)
    ddp = DistributedDataParallel(torch.nn.Linear(4, 2))
    ddp.register_comm_hook(RobustHook("worker_memory"), robust_hook)
    ddp(torch.ones(3, 4)).sum().backward()
    if how == "raise":
        raise KeyError("one's own")
    if how != "leave":
        dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, args=tuple(sys.argv[1:]), nprocs=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["import first", "import late", "leave", "raise"])
def test_processes_end(how, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "store"), how]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120.0)
    assert (run.returncode != 0) == ("one's own" in run.stderr) == (how == "raise"), run.stderr
