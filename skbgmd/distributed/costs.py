"""Cost of robust aggregation across ranks: bytes, messages, operations and memory, by formulas.

Bytes and collectives are those that :class:`skbgmd.distributed.exchange.Exchange` counts. ``docs/cost_model.rst``
derives the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import convolve2d
from scipy.stats import binom

from skbgmd._utils import limits
from skbgmd._utils.checks import check_integer, check_number

#: Bytes of an element of a Gram matrix.
GRAM_BYTES = 8


@dataclass(frozen=True)
class Cost:
    """Cost of one aggregation on each rank.

    Attributes
    ----------
    sent : int
        Bytes sent to other ranks.
    n_collectives : int
        Collectives taken part in.
    n_messages : int
        Messages sent one after another: a pairwise exchange of p ranks takes p - 1, a ring's all-reduce twice as many.
    operations : int
        Floating-point additions and multiplications.
    memory : int
        Bytes beyond the gradient and the aggregate.
    """

    sent: int = 0
    n_collectives: int = 0
    n_messages: int = 0
    operations: int = 0
    memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Cost of both, one after the other; memory is held until the end."""
        return Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def seconds(self, latency: float, bandwidth: float) -> float:
        """Time on the network, for messages that take ``latency`` seconds each and ``bandwidth`` bytes a second."""
        return self.n_messages * latency + self.sent / bandwidth


def _check(*, at_least: int = 1, **counts: int) -> None:
    """Check that counts, by their names, are integers of at least so much."""
    for name, count in counts.items():
        check_integer(count, name, at_least=at_least)


def all_reduce(n_ranks: int, n_columns: int, itemsize: int = 4) -> Cost:
    """Sum by a ring, as plain data-parallel training has it.

    Examples
    --------
    >>> all_reduce(4, 1000).sent
    6000
    """
    _check(n_ranks=n_ranks, n_columns=n_columns, itemsize=itemsize)
    if n_ranks == 1:
        return Cost()
    sent = 2 * itemsize * n_columns * (n_ranks - 1) // n_ranks
    return Cost(sent, 1, 2 * (n_ranks - 1), n_columns * (n_ranks - 1) // n_ranks)


def _one_way(n_ranks: int, n_columns: int, itemsize: int, memory: int) -> Cost:
    """Rows to shards of columns, or the shards of a vector back."""
    if n_ranks == 1:
        return Cost()
    width = -(-n_columns // n_ranks)
    return Cost(itemsize * width * (n_ranks - 1), 1, n_ranks - 1, 0, memory)


def to_shards(n_ranks: int, n_columns: int, itemsize: int = 4) -> Cost:
    """Each rank's columns of all rows: a copy of the row to send, and the shard."""
    _check(n_ranks=n_ranks, n_columns=n_columns, itemsize=itemsize)
    return _one_way(n_ranks, n_columns, itemsize, 2 * itemsize * n_ranks * -(-n_columns // n_ranks))


def from_shards(n_ranks: int, n_columns: int, itemsize: int = 4) -> Cost:
    """The vector of all columns, from what each rank has for its shard."""
    _check(n_ranks=n_ranks, n_columns=n_columns, itemsize=itemsize)
    return _one_way(n_ranks, n_columns, itemsize, itemsize * -(-n_columns // n_ranks))


def _sample(n_ranks: int) -> Cost:
    """Some columns of some rows, by which all ranks agree on a row to take products about."""
    if n_ranks == 1:
        return Cost()
    n_rows = -(-n_ranks // -(-n_ranks // limits.CENTER_SAMPLE_ROWS))
    n_columns = max(1, limits.CENTER_SAMPLE_RUNS // n_ranks) * limits.CENTER_SAMPLE_RUN
    return Cost(4 * n_rows * n_columns * (n_ranks - 1), 1, n_ranks - 1)


def geometric_median(n_ranks: int, n_columns: int) -> Cost:
    """A sample of the rows, products of their shards, the sum over the ranks, and the weighted sum; no solver steps.

    The rule needs one Gram matrix; where its digits don't suffice for the tolerance it takes a second.
    """
    _check(n_ranks=n_ranks, n_columns=n_columns)
    width = -(-n_columns // n_ranks)
    gram = _sample(n_ranks) + all_reduce(n_ranks, n_ranks**2, GRAM_BYTES)
    operations = gram.operations + n_ranks * (n_ranks + 1) * width + 2 * n_ranks * width
    return Cost(gram.sent, gram.n_collectives, gram.n_messages, operations, GRAM_BYTES * n_ranks**2)


def exact(n_ranks: int, n_columns: int, itemsize: int = 4) -> Cost:
    """Geometric median of all rows by shards of columns.

    Examples
    --------
    >>> round(exact(4, 1_000_000).sent / all_reduce(4, 1_000_000).sent, 3)
    1.001
    """
    shards = to_shards(n_ranks, n_columns, itemsize), from_shards(n_ranks, n_columns, itemsize)
    return shards[0] + geometric_median(n_ranks, n_columns) + shards[1]


def all_gather(n_ranks: int, n_columns: int, itemsize: int = 4) -> Cost:
    """Geometric median on each rank, of all rows that every rank is sent."""
    _check(n_ranks=n_ranks, n_columns=n_columns, itemsize=itemsize)
    sent = itemsize * n_columns * (n_ranks - 1)
    operations = n_ranks * (n_ranks + 1) * n_columns + 2 * n_ranks * n_columns
    memory = itemsize * n_ranks * n_columns + GRAM_BYTES * n_ranks**2
    return Cost(sent, min(1, n_ranks - 1), n_ranks - 1, operations, memory)


def block(n_ranks: int, n_columns: int, beta: float = 0.1, run_length: int = 64, itemsize: int = 4) -> Cost:
    """Geometric median of a block by :class:`skbgmd.distributed.BlockExchange`, in whole runs.

    Examples
    --------
    >>> round(block(4, 1_000_000, 0.1).sent / all_reduce(4, 1_000_000).sent, 3)
    0.116
    """
    _check(n_ranks=n_ranks, n_columns=n_columns, run_length=run_length, itemsize=itemsize)
    check_number(beta, "beta", at_most=1.0)
    n_runs, n_chosen = -(-n_columns // run_length), -(-max(1, math.ceil(beta * n_columns)) // run_length)
    on_block = exact(n_ranks, min(n_chosen * run_length, n_columns), itemsize)
    # The remainder, and the row with it.
    local = Cost(operations=4 * n_columns, memory=8 * n_columns)
    if n_chosen == n_runs:
        return on_block + local
    scores = to_shards(n_ranks, n_runs, itemsize) + from_shards(n_ranks, n_runs, itemsize)
    return scores + all_reduce(n_ranks, n_ranks, 8) + on_block + local


def hierarchy(n_groups: int, group_size: int, n_columns: int, itemsize: int = 4) -> Cost:
    """Geometric median of the geometric medians of groups: in a group by shards, and between groups for each shard.

    Examples
    --------
    >>> flat, nested = exact(1024, 10**9), hierarchy(32, 32, 10**9)
    >>> round(nested.sent / flat.sent, 2), round(nested.n_messages / flat.n_messages, 2)
    (1.0, 0.06)
    """
    _check(n_groups=n_groups, group_size=group_size, n_columns=n_columns, itemsize=itemsize)
    width = -(-n_columns // group_size)
    inside = to_shards(group_size, n_columns, itemsize) + geometric_median(group_size, n_columns)
    return inside + exact(n_groups, width, itemsize) + from_shards(group_size, n_columns, itemsize)


def n_to_break(n_rows: int) -> int:
    """Least number of rows that can send a geometric median anywhere: half of them, rounded up."""
    _check(n_rows=n_rows)
    return -(-n_rows // 2)


def n_to_break_groups(n_groups: int, group_size: int) -> int:
    """Least number of ranks that can send a median of the medians of groups anywhere, if they choose their groups.

    Half of the ranks in half of the groups, about a quarter of all.

    Examples
    --------
    >>> n_to_break_groups(32, 32), n_to_break(32 * 32)
    (256, 512)
    """
    _check(n_groups=n_groups, group_size=group_size)
    return n_to_break(n_groups) * n_to_break(group_size)


def probability_of_break(n_groups: int, group_size: int, n_hostile: int) -> float:
    """Probability that groups drawn at random have half of them broken, each by half of its ranks.

    Examples
    --------
    >>> round(probability_of_break(32, 32, 400), 4), round(probability_of_break(32, 32, 480), 2)
    (0.0, 0.14)
    """
    _check(n_groups=n_groups, group_size=group_size)
    _check(n_hostile=n_hostile, at_least=0)
    if n_hostile > n_groups * group_size:
        raise ValueError(f"n_hostile must be at most the number of ranks, {n_groups * group_size}; found {n_hostile}.")
    if n_hostile in (0, n_groups * group_size):
        return float(n_hostile > 0)
    # Were each rank hostile by itself, groups would be independent; what is wanted is given the total number.
    share = n_hostile / (n_groups * group_size)
    counts = np.arange(group_size + 1)
    one = binom.pmf(counts, group_size, share)
    is_broken = counts >= n_to_break(group_size)
    step = np.stack([one * ~is_broken, one * is_broken])
    # Probabilities by the number of broken groups and of hostile ranks.
    found = np.ones((1, 1))
    for _ in range(n_groups):
        found = convolve2d(found, step)
    given = found[:, n_hostile]
    return float(given[n_to_break(n_groups) :].sum() / given.sum())
