"""Draco's majority vote over redundant gradients: each is computed r times, and what most of the r agree on counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.checks import check_integer, check_number
from skbgmd._utils.typing import BoolArray
from skbgmd.aggregators.base import Aggregate, Aggregator, aggregated, check_rows, usable_rows, worker_ids
from skbgmd.aggregators.mean import Mean
from skbgmd.rows import Rows


class MajorityVote(Aggregator):
    r"""Majority vote over redundant gradients (Draco's repetition code): exact while most of each group are honest.

    Rows come in consecutive groups of r; each group is the same gradient, computed by r workers [1]_. In each group,
    the row that more than half of the r agree on wins, so :math:`(r - 1) / 2` of them may be anything. Another rule
    aggregates the groups' winners. With the mean, the result is bit by bit the gradient that r times fewer honest
    workers would have given.

    A group without a majority is left out and counted in the aggregate's ``record``, as ``groups_without_majority``.

    Parameters
    ----------
    r : int, default=3
        Number of rows in a group. Odd numbers make the most of them; with 1 there is nothing to vote on.
    aggregator : Aggregator, default=None
        Rule that aggregates the winners; None: :class:`Mean`. A robust rule withstands groups with a corrupt majority.
    rtol : float, default=0.0
        Rows a and b agree if :math:`\lVert a - b \rVert \leq rtol \cdot \max(\lVert a \rVert, \lVert b \rVert)`. With 0
        they agree if they are equal, as gradients of the same samples are on machines of the same kind. With more than
        0, a corrupt row as near as that to an honest one may win.

    Raises
    ------
    ValueError
        If the rows can't be cut into groups of r. Also if half of the groups or more have no majority: then the rows
        aren't redundant, or too many are corrupt.
    NonFiniteRowsError
        If half of the rows or more aren't finite.

    Notes
    -----
    Use it if the machines are yours, you hand out the samples yourself, and a few machines may fail or lie. It can't
    help against wrong samples, because all r workers of a group get them.

    It costs r times the computation, and next to nothing beside it: some comparisons of each row. In return it needs no
    assumption on how honest gradients are spread; all other rules lose some accuracy to that spread. The weight of a
    group is the weight of its winning row, the first of those that have a majority behind them.

    See Also
    --------
    skbgmd.distributed.redundant_sampler : Hands the same samples to r consecutive ranks.

    References
    ----------
    .. [1] Chen, Wang, Charles and Papailiopoulos (2018). DRACO: Byzantine-resilient distributed training via redundant
       gradients. ICML.

    Examples
    --------
    Two groups of three, with a liar in each:

    >>> import torch
    >>> from skbgmd.aggregators import MajorityVote
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[1.0], [1.0], [-50.0], [float("nan")], [3.0], [3.0]]))
    >>> aggregate, state = MajorityVote(3)(rows)
    >>> aggregate.vector, aggregate.weights
    (tensor([2.]), array([0.25, 0.25, 0.  , 0.  , 0.25, 0.25]))
    """

    def __init__(self, r: int = 3, aggregator: Aggregator | None = None, rtol: float = 0.0) -> None:
        self.r, self.aggregator, self.rtol = r, aggregator, rtol

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        self._validate()
        check_rows(rows)
        if rows.n_rows % self.r:
            raise ValueError(f"rows must come in whole groups of r={self.r}; found {rows.n_rows} of them.")
        usable = np.zeros(rows.n_rows, dtype=bool)
        usable[usable_rows(rows, rows.finite)] = True
        agreement, winners = majorities(rows, usable.reshape(-1, self.r), self.rtol)
        decided = winners >= 0
        # Groups without weight have nothing to say, rather than too many opinions.
        voting = rows.weights.reshape(-1, self.r).any(axis=1)
        n_groups, n_undecided = int(voting.sum()), int((voting & ~decided).sum())
        if 2 * n_undecided >= n_groups:
            raise ValueError(
                f"More than half of the groups of r={self.r} rows must have a majority of equal ones; found "
                f"{n_undecided} of {n_groups} without. Rows of a group must be gradients of the same samples; rtol is "
                f"for machines that round differently."
            )
        inner = Mean() if self.aggregator is None else self.aggregator
        voted = rows.subset(winners[decided])
        # Whichever row of a group wins, it is the group's.
        voted.ids = tuple(worker_ids(rows)[first] for first in self.r * np.flatnonzero(decided))
        aggregate, after = aggregated(inner, voted, state)
        weights = None
        if aggregate.weights is not None:
            shares = np.zeros(agreement.shape)
            shares[decided] = agreement[decided] / agreement[decided].sum(axis=1, keepdims=True)
            shares[decided] *= aggregate.weights[:, None]
            weights = shares.reshape(-1)
        record = {**aggregate.record, "groups_without_majority": n_undecided}
        return replace(aggregate, weights=weights, record=record), after

    def check_parameters(self) -> None:
        self._validate()
        if self.aggregator is not None:
            self.aggregator.check_parameters()

    def _validate(self) -> None:
        check_integer(self.r, "r")
        if not (self.aggregator is None or isinstance(self.aggregator, Aggregator)):
            raise TypeError(f"aggregator must be an Aggregator or None; found {self.aggregator!r}.")
        check_number(self.rtol, "rtol", at_least=0.0, at_most=1.0)


def majorities(rows: Rows, usable: BoolArray, rtol: float) -> tuple[BoolArray, NDArray[np.intp]]:
    """Find a row in each group that more than half of the group agree with.

    Parameters
    ----------
    rows : Rows
        n rows, in consecutive groups of r.
    usable : ndarray of shape (n / r, r), bool
        Rows that have a vote.
    rtol : float
        As in :class:`MajorityVote`.

    Returns
    -------
    agreement : ndarray of shape (n / r, r), bool
        The rows that agree with the winner, itself included; none where there is no majority.
    winners : ndarray of shape (n / r,), intp
        The first row of each group that has a majority; -1 where none has.
    """
    n_groups, r = usable.shape
    agreement, winners = np.zeros_like(usable), np.full(n_groups, -1)
    # One of the first rows is in any majority.
    for candidate in range((r + 1) // 2):
        voting = np.flatnonzero((winners < 0) & usable[:, candidate])
        others = np.delete(np.arange(r), candidate)
        agrees = np.zeros((len(voting), r), dtype=bool)
        agrees[:, candidate] = True
        if len(voting) and len(others):
            found = _agree(rows, voting * r + candidate, voting[:, None] * r + others, rtol)
            agrees[:, others] = found & usable[voting[:, None], others]
        wins = 2 * agrees.sum(axis=1) > r
        agreement[voting[wins]] = agrees[wins]
        winners[voting[wins]] = voting[wins] * r + candidate
    return agreement, winners


def _agree(rows: Rows, first: NDArray[np.intp], others: NDArray[np.intp], rtol: float) -> BoolArray:
    """Compare rows (m,) with others (m, k) each, by the columns of all processes."""
    # In units of the longer of two, so that no square over- or underflows.
    longer = np.maximum(rows.norms()[first][:, None], rows.norms()[others]) if rtol else np.zeros(others.shape)
    limit, exponents = np.frexp(longer)
    apart = []
    for i, group, powers in zip(first.tolist(), others.tolist(), exponents.tolist(), strict=True):
        row = rows.row(i)
        for j, power in zip(group, powers, strict=True):
            other = rows.row(j)
            if rtol:
                apart.append((_scaled(row, -power) - _scaled(other, -power)).norm().square())
            else:
                apart.append((row != other).sum().double())
    distances = rows.layout.add_up(torch.stack(apart)).cpu().numpy().reshape(others.shape)
    agree: BoolArray = np.sqrt(distances) <= rtol * limit
    return agree


def _scaled(row: torch.Tensor, power: int) -> torch.Tensor:
    """A row times a power of two, in float64, which may have no number for the power itself."""
    half = power // 2
    return row.double() * 2.0**half * 2.0 ** (power - half)
