"""Ranks that are killed, hang, or are stopped: the others end within seconds, and say which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from processes import on_ranks
from skbgmd.aggregators import GeometricMedian
from skbgmd.distributed import (
    AcrossRanks,
    BlockExchange,
    Checkpoints,
    Exchange,
    RankLostError,
    RobustHook,
    ShardedRows,
    robust_hook,
)
from skbgmd.distributed.faults import Watch, begin_collective
from skbgmd.rows import DenseRows

pytestmark = pytest.mark.slow  # many processes start

#: Seconds after which a collective times out, where ranks hang.
TIMEOUT = 2.0
#: Seconds in which the others must have stopped.
STOPPED = 5.0

CALLS = {
    "to_shards": lambda exchange: exchange.to_shards(torch.ones(1, 8)).wait(),
    "from_shards": lambda exchange: exchange.from_shards(torch.ones(2), 2 * exchange.size).wait(),
    "all_reduce": lambda exchange: exchange.add_up(torch.ones(3)),
    "gather": lambda exchange: exchange.gather(torch.ones(3)),
}


def fail(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(60.0)


def meet_without(rank: int, size: int, lost: int, how: str, name: str) -> Any:
    exchange = Exchange(dist.new_group(timeout=timedelta(seconds=TIMEOUT if how != "killed" else 60.0)))
    # What ranks compare before the first time is a collective as well.
    CALLS[name](exchange)
    n_begun = begin_collective("nothing", exchange.group).number
    if rank == lost:
        fail(how)
    begin = time.monotonic()
    with pytest.raises(RankLostError, match=r"Every rank must answer in a collective; .* Cause: ") as caught:
        CALLS[name](exchange)
    seconds = time.monotonic() - begin
    error = caught.value
    with pytest.raises(RankLostError):  # not a wait without an end
        CALLS["gather"](exchange)
    return seconds, error.missing, error.collective, error.number - n_begun, str(error), type(error.__cause__).__name__


@pytest.mark.parametrize(
    ("how", "lost", "name"),
    [
        ("killed", 1, "to_shards"),
        ("killed", 0, "from_shards"),
        ("killed", 2, "all_reduce"),
        ("killed", 1, "gather"),
        ("sleeping", 1, "to_shards"),
        ("sleeping", 0, "all_reduce"),
        ("stopped", 2, "from_shards"),
    ],
)
def test_others_stop_within_seconds_and_name_the_rank(how, lost, name):
    found = on_ranks(meet_without, 3, lost, how, name, timeout=30.0, lost={lost})
    for rank, result in enumerate(found):
        if rank == lost:
            assert result is None
            continue
        seconds, missing, collective, number, message, cause = result
        assert seconds < STOPPED
        assert missing == (lost,)
        assert (collective, number, cause) == (name, 1, "RuntimeError")
        assert f"ranks [{lost}] of 3 don't answer" in message
        assert f"Last collective that rank {lost} began: nothing (number" in message
        assert ("Timed out" in message or "timeout" in message) == (how != "killed")


def meet_in_a_ring(rank: int, size: int, lost: list[int], name: str) -> Any:
    exchange = Exchange()
    exchange.gather(torch.ones(1))
    if rank in lost:
        fail("killed")
    begin = time.monotonic()
    with pytest.raises(RankLostError) as caught:
        CALLS[name](exchange)
    return time.monotonic() - begin, caught.value.missing


@pytest.mark.parametrize(
    ("size", "lost", "name"),
    [
        (4, [0], "gather"),
        (8, [1], "all_reduce"),
        (8, [3, 6], "gather"),
        (12, [5], "from_shards"),
        (12, [11], "all_reduce"),
    ],
)
def test_all_others_stop_at_once_and_name_the_lost_alone(size, lost, name):
    # In a ring only two ranks are connected to the one that is lost, and the others wait for these.
    found = on_ranks(meet_in_a_ring, size, lost, name, timeout=60.0, lost=set(lost))
    for seconds, missing in [found[rank] for rank in range(size) if rank not in lost]:
        assert seconds < STOPPED
        assert missing == tuple(lost)


def end_early(rank: int, size: int) -> Any:
    """One rank fails by itself while the others wait for it in a ring."""
    exchange = Exchange()
    exchange.gather(torch.ones(1))
    begin = time.monotonic()

    def fail_or_wait() -> None:
        with begin_collective("own"):
            if rank == 2:
                raise RuntimeError("of its own")
            exchange.gather(torch.ones(1))

    with pytest.raises(RankLostError, match=f"all {size} ranks answer a roll call") as caught:
        fail_or_wait()
    return time.monotonic() - begin, caught.value.missing


def test_an_error_of_one_rank_in_a_collective_reaches_all():
    # The ranks can't meet afterwards, which "lost" says.
    for rank, found in enumerate(on_ranks(end_early, 6, lost={2})):
        if rank != 2:
            seconds, missing = found
            assert seconds < STOPPED
            assert missing == ()


@pytest.fixture
def watches():
    """Watches of five ranks that share a store, without a group."""
    store, each = dist.HashStore(), []
    for rank in range(5):
        each.append(watch := object.__new__(Watch))
        watch.rank, watch.size, watch.store, watch._group, watch._called = rank, 5, store, lambda: None, None
        watch._own = {}
    return each


def test_a_roll_call_waits_as_long_as_others_answer(watches):
    # One after the other, as the machine is slow; the last doesn't.
    timers = [Timer(0.7 * rank, watches[rank].roll_call, [RuntimeError("lost")]) for rank in (1, 2, 3)]
    for timer in timers:
        timer.start()
    begin = time.monotonic()
    call = watches[0].roll_call(RuntimeError("at first"))
    seconds = time.monotonic() - begin
    assert call.missing == (4,)
    assert 2.1 <= seconds < 4.0
    assert watches[0].roll_call(RuntimeError("again")) is call
    assert time.monotonic() - begin - seconds < 0.5  # not a second wait
    for timer in timers:
        timer.join()
    assert call.first == ""
    assert watches[3]._called.first == "Rank 0 was the first on which it failed: at first"


def test_a_roll_call_ends_though_nobody_answers(watches):
    begin = time.monotonic()
    assert watches[2].roll_call(RuntimeError("lost")).missing == (0, 1, 3, 4)
    assert time.monotonic() - begin < 2.0


def test_errors_of_all_at_one_place_end_nothing(watches):
    for watch in watches:
        watch.n_begun = 7
    timers = [Timer(0.1 * rank, watches[rank].fail, [ValueError("own")]) for rank in range(1, 5)]
    for timer in timers:
        timer.start()
    begin = time.monotonic()
    watches[0].fail(ValueError("all"))
    assert time.monotonic() - begin < 1.0
    for timer in timers:
        timer.join()
    assert all(watch._called is None for watch in watches)


def test_an_error_of_one_is_told_to_all(watches):
    for rank, watch in enumerate(watches):
        watch.n_begun = 7 + (rank == 4)
    watches[4].fail(ValueError("another place"))
    watches[2].fail(ValueError("own"))
    for watch in watches:
        watch.roll_call(RuntimeError("lost"))
    assert watches[4]._called.first == ""
    for watch in watches[:4]:
        assert watch._called.first == "Rank 4 failed by an error of its own: ValueError: another place"
        assert watch._called.is_failure


def test_what_a_failed_group_left_in_the_store_is_forgotten(watches):
    store = watches[0].store
    watches[1].n_begun = 7
    watches[1].fail(ValueError("own"))
    watches[0].roll_call(RuntimeError("lost"))
    assert store.check(["skbgmd/failed", "skbgmd/present/1", "skbgmd/error/1", "skbgmd/present/0"])
    watches[0]._forget_earlier()
    assert store.check(["skbgmd/failed"])
    assert not store.check(["skbgmd/present/0"])
    watches[1]._forget_earlier()
    assert not any(store.check([f"skbgmd/{key}"]) for key in ("failed", "present/1", "error/1"))


def train(rank: int, size: int, n_hostile: int) -> Any:
    """A linear model by the exact geometric median; the first ranks send NaN, inf and reversed gradients by turns."""
    exchange = Exchange()
    rng = np.random.default_rng(rank)
    truth, weight = torch.linspace(-1.0, 1.0, 30), torch.zeros(30)
    X = torch.from_numpy(rng.normal(size=(64, 30)).astype(np.float32))
    for step in range(40):
        gradient = X.T @ (X @ (weight - truth)) / len(X)
        if rank < n_hostile:
            hostile = (gradient * torch.nan, gradient * torch.inf, gradient * -100.0)
            gradient = hostile[(step + rank) % len(hostile)]
        rows = ShardedRows(exchange.to_shards(gradient[None]).wait(), 30, exchange)
        aggregate, _ = GeometricMedian()(rows)
        weight = weight - 0.3 * exchange.from_shards(aggregate.vector, 30).wait()
    return weight.numpy(), float((weight - truth).norm() / truth.norm())


def test_three_hostile_ranks_of_eight_do_not_keep_the_others_from_learning():
    (first, error), *others = on_ranks(train, 8, 3)
    assert error < 0.01
    for weight, _ in others:
        np.testing.assert_array_equal(weight, first)


def step_of_ddp(**settings: Any) -> Any:
    """A step of DDP, and what one rank does before a third one."""
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(40, 3))
    hook = RobustHook("geometric_median", **settings)
    net.register_comm_hook(hook, robust_hook)

    def step() -> None:
        net(torch.ones(5, 40)).square().sum().backward()

    return step, lambda: hook.load_state_dict(hook.state_dict())


def step_of_blocks(**settings: Any) -> Any:
    exchange = BlockExchange(beta=0.3, run_length=8, **settings)
    return lambda: exchange(torch.linspace(0.0, 1.0, 100)), lambda: exchange.load_state_dict(exchange.state_dict())


def step_by_checkpoints() -> Any:
    exchange = Exchange()
    return lambda: exchange.to_shards(torch.ones(1, 8)).wait(), Checkpoints("nowhere").load


def step_of_different_rules() -> Any:
    hook_step, _ = step_of_ddp()
    return hook_step, lambda: AcrossRanks("mean")(DenseRows(torch.ones(3, 4)))


#: A step, what one rank does before the third one, and what the others are told of it.
APART: dict[str, tuple[Any, str]] = {
    "hook": (step_of_ddp, "after load_state_dict"),
    "hook of blocks": (lambda: step_of_ddp(beta=0.5), "after load_state_dict"),
    "blocks": (step_of_blocks, "(BlockExchange)"),
    "blocks by turns": (lambda: step_of_blocks(round_robin=1.0), "(BlockExchange)"),
    "checkpoints": (step_by_checkpoints, "Checkpoints.load"),
    "rules": (step_of_different_rules, "a step across ranks"),
}


def go_apart(rank: int, size: int, name: str) -> Any:
    step, odd = APART[name][0]()
    step()
    step()
    begin = time.monotonic()

    def third() -> None:
        if rank == 1:
            odd()
        step()

    with pytest.raises(RankLostError) as caught:
        third()
    return time.monotonic() - begin, caught.value.missing, str(caught.value)


@pytest.mark.parametrize("name", APART)
def test_ranks_that_are_not_in_the_same_collective_are_told_of_it(name):
    # Long before the time limit of the group.
    # They can't meet afterwards, which "lost" says.
    for seconds, missing, message in on_ranks(go_apart, 3, name, timeout=30.0, lost={3}):
        assert seconds < STOPPED
        assert missing == ()
        assert message.startswith("All ranks must take part in the same collectives; found ")
        assert f"{APART[name][1]}" in message
        assert "on rank 1" in message


ENDED = """
import os, sys
import torch, torch.distributed as dist
import skbgmd.distributed
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
# An optimizer imports much of torch.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
running = len(os.listdir("/proc/self/task"))
dist.destroy_process_group()
print(running, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_a_group_ends_with_its_threads():
    # Threads that outlive it abort the interpreter when it ends, now and then.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", ENDED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=environment)
    running, left = map(int, done.stdout.split())
    assert left < running
    assert left == 1
