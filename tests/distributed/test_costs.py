"""Formulas of costs against what is counted, and breakdown points against brute force."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from processes import on_ranks
from skbgmd import geometric_median
from skbgmd.aggregators import GeometricMedian
from skbgmd.distributed import BlockExchange, Exchange, ShardedRows
from skbgmd.distributed.costs import (
    Cost,
    all_gather,
    all_reduce,
    block,
    exact,
    from_shards,
    hierarchy,
    n_to_break,
    n_to_break_groups,
    probability_of_break,
    to_shards,
)
from skbgmd.distributed.costs import (
    geometric_median as cost_of_median,
)

BETAS = (0.05, 0.1, 0.3, 1.0)
TRANSPORTS = {4: None, 2: torch.bfloat16}


def counted(exchange: Exchange) -> tuple[int, int]:
    found = exchange.traffic.sent, exchange.traffic.n_collectives
    exchange.traffic.sent = exchange.traffic.n_collectives = 0
    return found


def median_of(exchange: Exchange, row: torch.Tensor) -> torch.Tensor:
    shard = exchange.to_shards(row[None]).wait()
    found, _ = GeometricMedian()(ShardedRows(shard, len(row), exchange))
    return found.vector


def spend(rank: int, size: int, d: int) -> dict[Any, tuple[int, int]]:
    row = torch.randn(d, generator=torch.Generator().manual_seed(rank))
    found: dict[Any, tuple[int, int]] = {}
    for itemsize, transport in TRANSPORTS.items():
        exchange = Exchange(transport_dtype=transport)
        exchange.from_shards(median_of(exchange, row), d).wait()
        found["exact", itemsize] = counted(exchange)
        for beta in BETAS:
            BlockExchange(beta=beta, exchange=exchange)(row)
            found["block", itemsize, beta] = counted(exchange)
    exchange = Exchange()
    exchange.add_up(row.clone())
    found["all-reduce"] = counted(exchange)
    exchange.gather(row)
    found["all-gather"] = counted(exchange)
    if size >= 4:
        # Groups of two adjacent ranks, and those that hold the same columns in each group.
        inside = [torch.distributed.new_group([i, i + 1]) for i in range(0, size, 2)][rank // 2]
        between = [torch.distributed.new_group(list(range(i, size, 2))) for i in range(2)][rank % 2]
        within, across = Exchange(inside), Exchange(between)
        of_group = median_of(within, row)
        whole = across.from_shards(median_of(across, of_group), len(of_group)).wait()
        within.from_shards(whole, d).wait()
        found["hierarchy"] = tuple(a + b for a, b in zip(counted(within), counted(across), strict=True))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("d", [40_000, 60_007])
def test_formulas_are_what_is_counted(size, d):
    for found in on_ranks(spend, size, d):
        costs = {
            "all-reduce": all_reduce(size, d),
            "all-gather": all_gather(size, d),
            **{("exact", bytes_): exact(size, d, bytes_) for bytes_ in TRANSPORTS},
            **{("block", bytes_, beta): block(size, d, beta, 64, bytes_) for bytes_ in TRANSPORTS for beta in BETAS},
        }
        if size >= 4:
            costs["hierarchy"] = hierarchy(size // 2, 2, d)
        assert costs.keys() == found.keys()
        for name, cost in costs.items():
            sent, n_collectives = found[name]
            # The last run is shorter, and in the block or not.
            assert sent == pytest.approx(cost.sent, abs=0 if name[0] != "block" or d % 64 == 0 else 2 * 64 * 4), name
            assert n_collectives == cost.n_collectives, name


def test_a_large_cluster():
    """A thousand ranks and a thousand million parameters: bytes as an all-reduce, a tenth of them for a block."""
    p, d = 1000, 10**9
    ring, whole = all_reduce(p, d), exact(p, d)
    assert whole.sent == pytest.approx(ring.sent, rel=0.01)
    assert exact(p, d, 2).sent == pytest.approx(ring.sent / 2, rel=0.01)
    assert block(p, d, 0.1).sent == pytest.approx((0.1 + 1 / 64) * ring.sent, rel=0.03)
    assert all_gather(p, d).sent == pytest.approx(p / 2 * ring.sent, rel=0.01)
    nested = hierarchy(25, 40, d)
    assert nested.sent == pytest.approx(ring.sent, rel=0.01)
    assert nested.n_messages < 0.1 * whole.n_messages
    assert nested.operations < 0.1 * whole.operations


def test_costs_add_up():
    total = Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 40, 50)
    assert total == Cost(11, 22, 33, 44, 55)
    assert Cost(sent=2000, n_messages=3).seconds(0.5, 1000.0) == 3.5


def is_broken(values: np.ndarray) -> bool:
    """Half of the numbers far away: a median of these may be as well."""
    return bool(2 * np.count_nonzero(values) >= len(values))


@pytest.mark.parametrize(("n_groups", "group_size"), [(3, 3), (2, 4), (4, 2), (3, 4), (5, 2), (1, 5), (5, 1)])
def test_fewest_ranks_that_break_groups_by_brute_force(n_groups, group_size):
    n = n_groups * group_size

    def breaks(hostile: tuple[int, ...]) -> bool:
        mask = np.zeros(n, dtype=bool)
        mask[list(hostile)] = True
        return is_broken(np.array([is_broken(group) for group in mask.reshape(n_groups, group_size)]))

    least = n_to_break_groups(n_groups, group_size)
    assert any(map(breaks, combinations(range(n), least)))
    assert not any(map(breaks, combinations(range(n), least - 1)))


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_a_geometric_median_breaks_at_half_of_the_rows(n):
    rows = np.random.default_rng(0).normal(size=(n, 3))
    # Rows together at one far point win a tie at half, or draw the median along.
    for count, is_lost in ((n_to_break(n) - 1, False), (n // 2 + 1, True)):
        moved = rows.copy()
        moved[:count] = 1e6
        assert (np.linalg.norm(geometric_median(moved)) > 1e3) == is_lost


@pytest.mark.parametrize("share", [0.3, 0.4, 0.45, 0.5])
def test_random_groups_by_drawing_them(share):
    n_groups, group_size = 16, 8
    n = n_groups * group_size
    n_hostile = int(share * n)
    rng = np.random.default_rng(0)
    mask = np.arange(n) < n_hostile
    drawn = rng.permuted(np.tile(mask, (20_000, 1)), axis=1).reshape(-1, n_groups, group_size)
    broken = (2 * drawn.sum(axis=2) >= group_size).sum(axis=1)
    expected = probability_of_break(n_groups, group_size, n_hostile)
    assert np.mean(2 * broken >= n_groups) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (probability_of_break, (4, 4, -1), ValueError, "n_hostile must be .* found -1"),
        (
            probability_of_break,
            (4, 4, 17),
            ValueError,
            "n_hostile must be at most the number of ranks, 16; found 17",
        ),
        (probability_of_break, (0, 4, 0), ValueError, "n_groups must be"),
        (probability_of_break, (4, 4, 1.5), TypeError, "n_hostile must be"),
        (all_reduce, (0, 10), ValueError, "n_ranks must be"),
        (all_gather, (0, 10), ValueError, "n_ranks must be"),
        (to_shards, (0, 10), ValueError, "n_ranks must be"),
        (from_shards, (3, 0), ValueError, "n_columns must be"),
        (cost_of_median, (0, 10), ValueError, "n_ranks must be"),
        (exact, (0, 10), ValueError, "n_ranks must be"),
        (block, (3, 10, 2.0), ValueError, "beta must be"),
        (block, (3, 10, 0.1, 0), ValueError, "run_length must be"),
        (hierarchy, (3, 0, 10), ValueError, "group_size must be"),
        (n_to_break, (0,), ValueError, "n_rows must be"),
        (n_to_break_groups, (3, 0), ValueError, "group_size must be"),
    ],
)
def test_numbers_are_checked(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(*arguments)


def test_none_or_all_ranks_are_hostile():
    assert (probability_of_break(4, 4, 0), probability_of_break(4, 4, 16)) == (0.0, 1.0)
