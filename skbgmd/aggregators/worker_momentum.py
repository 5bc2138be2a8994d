"""Worker momentum: aggregate running means of each worker's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import BoolArray
from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    aggregated,
    check_rows,
    state_of,
    worker_ids,
)
from skbgmd.aggregators.nearest_neighbor_mixing import NearestNeighborMixing
from skbgmd.rows import DenseRows, Rows
from skbgmd.rows.layout import IN_ONE_PROCESS


@dataclass(frozen=True)
class WorkerMomentumState(AggregatorState):
    """State of :class:`WorkerMomentum`.

    Attributes
    ----------
    ids : tuple of n ints or strings
        Ids of the workers.
    momentum : tensor of shape (n, d), or None
        Their running means.
    inner : object
        State of the inner aggregator.
    away : tuple of m ints or strings
        Ids of workers that weren't there in the last step, those that left last first.
    means_away : tuple of m tensors of shape (d,)
        Their running means.
    steps_away : tuple of m ints
        For how many steps they have been away.
    """

    ids: tuple[Any, ...] = ()
    momentum: torch.Tensor | None = None
    inner: Any = None
    away: tuple[Any, ...] = ()
    means_away: tuple[torch.Tensor, ...] = ()
    steps_away: tuple[int, ...] = ()


class WorkerMomentum(Aggregator):
    r"""Worker momentum: aggregate each worker's running mean in place of its row, against colluding workers.

    The running mean of worker i,

    .. math:: m_i \gets \mu m_i + (1 - \mu) x_i

    begins at the worker's first row [1]_. It removes the noise of honest rows, in which an attack of ordinary length
    hides. It also is the step's momentum, so the optimizer needs none.

    - **Rows that hold NaN or inf:** the step leaves the worker out, and its running mean stays as it is.
    - **Workers that are away,** as sampled clients are: the running mean stays as it is too. It is a mean of the
      worker's own rows, however long ago.
    - **Workers that are away for long:** after s steps in a row with :math:`\mu^s` no more than 0.001, the rule forgets
      the worker: 66 steps with the default.

    The rule remembers d numbers for each worker of a step, and d for each that is away. If each step draws k of many
    clients, at most 65 k of them are away with the default. :class:`WorkerMemory` remembers 2 n² numbers for n workers.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the running means; None: :class:`NearestNeighborMixing`.
    momentum : float, default=0.9
        Factor μ of the running mean, in [0, 1).

    References
    ----------
    .. [1] Karimireddy, He and Jaggi (2021). Learning from history for Byzantine robust optimization. ICML.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import Mean, WorkerMomentum
    >>> from skbgmd.rows import DenseRows
    >>> rule = WorkerMomentum(Mean(), momentum=0.5)
    >>> _, state = rule(DenseRows(torch.tensor([[1.0], [3.0]])))
    >>> aggregate, state = rule(DenseRows(torch.tensor([[3.0], [5.0]])), state)
    >>> aggregate.vector, state.momentum
    (tensor([3.]), tensor([[2.],
            [4.]]))
    """

    remembers_workers = True

    def __init__(self, aggregator: Aggregator | None = None, momentum: float = 0.9) -> None:
        self.aggregator, self.momentum = aggregator, momentum

    def __call__(self, rows: Rows, state: WorkerMomentumState | None = None) -> tuple[Aggregate, WorkerMomentumState]:
        self._validate()
        check_rows(rows)
        inner = NearestNeighborMixing() if self.aggregator is None else self.aggregator
        state = state_of(self, state, WorkerMomentumState) or WorkerMomentumState()
        if state.momentum is not None and len(state.momentum) != len(state.ids):
            raise ValueError(f"momentum of {len(state.ids)} ids must have as many rows; found {len(state.momentum)}.")
        if not len(state.away) == len(state.means_away) == len(state.steps_away):
            raise ValueError(
                f"means_away and steps_away of {len(state.away)} workers must be as many; found "
                f"{len(state.means_away)} and {len(state.steps_away)}."
            )
        ids = worker_ids(rows)
        sample = rows.columns(torch.zeros(0, dtype=torch.int64, device=rows.device))
        dtype = torch.promote_types(sample.dtype, torch.float32)
        # The one copy of the rows: it is what is remembered.
        kept = torch.empty((rows.n_rows, rows.n_held), dtype=dtype, device=rows.device)
        for part, chunk in rows.column_chunks():
            kept[:, part] = chunk
        found, usable = self._means_before(state, ids, kept), rows.finite
        known = np.zeros(rows.n_rows, dtype=bool)
        if found is not None:
            # Of rows that aren't finite the running mean stays as it is.
            means, known = found
            new = np.where(usable, 1.0 - self.momentum, 0.0)
            of_row = torch.as_tensor(np.where(known, new, 1.0), dtype=dtype, device=rows.device)[:, None]
            kept[torch.as_tensor(np.flatnonzero(known & ~usable), device=rows.device)] = 0.0
            kept.mul_(of_row).addcmul_(means, 1.0 - of_row)
        shown = kept
        if not usable.all():
            shown = kept.index_fill(0, torch.as_tensor(np.flatnonzero(~usable), device=rows.device), torch.nan)
        aggregate, after = aggregated(inner, _hold(rows, shown), state.inner)
        lasting = known | usable
        remembered = kept if lasting.all() else kept[torch.as_tensor(lasting, device=rows.device)]
        names = tuple(worker for worker, lasts in zip(ids, lasting, strict=True) if lasts)
        return aggregate, WorkerMomentumState(names, remembered, after, *self._away(state, ids, rows.n_held))

    def _validate(self) -> None:
        if not (self.aggregator is None or isinstance(self.aggregator, Aggregator)):
            raise TypeError(f"aggregator must be an Aggregator or None; found {self.aggregator!r}.")
        if check_number(self.momentum, "momentum", at_least=0.0, at_most=1.0) == 1.0:
            raise ValueError("momentum must be less than 1: with 1 nothing new is ever seen.")

    @staticmethod
    def _means_before(
        state: WorkerMomentumState, ids: tuple[Any, ...], kept: torch.Tensor
    ) -> tuple[torch.Tensor, BoolArray] | None:
        """Running means (n, d) of the workers before this step, and who has one (n,); None where nobody has."""
        n_held = kept.shape[1]
        # Of other columns: parameters were frozen or thawed.
        if state.momentum is None or state.momentum.shape[1] != n_held:
            return None
        if ids == state.ids:
            return state.momentum.to(kept), np.ones(len(ids), dtype=bool)
        place = {worker: at for at, worker in enumerate((*state.ids, *state.away))}
        before = np.array([place.get(worker, -1) for worker in ids])
        means, here = torch.zeros_like(kept), np.flatnonzero((before >= 0) & (before < len(state.ids)))
        of_state = torch.as_tensor(before[here], device=state.momentum.device)
        means[torch.as_tensor(here, device=kept.device)] = state.momentum[of_state].to(kept)
        for at in np.flatnonzero(before >= len(state.ids)).tolist():
            means[at] = state.means_away[before[at] - len(state.ids)].to(kept)
        return means, before >= 0

    def _away(
        self, state: WorkerMomentumState, ids: tuple[Any, ...], n_held: int
    ) -> tuple[tuple[Any, ...], tuple[torch.Tensor, ...], tuple[int, ...]]:
        """Ids, running means and steps of absence of the workers that aren't here, but those away for too long."""
        if state.momentum is None or state.momentum.shape[1] != n_held:
            return (), (), ()
        present, left = set(ids), []
        if ids != state.ids and self.momentum > limits.FORGOTTEN_VISITS:
            # A view would hold the means of all.
            gone = [at for at, worker in enumerate(state.ids) if worker not in present]
            left = [(state.ids[at], state.momentum[at].clone(), 1) for at in gone]
        for worker, mean, steps in zip(state.away, state.means_away, state.steps_away, strict=True):
            if worker not in present and self.momentum ** (steps + 1) > limits.FORGOTTEN_VISITS:
                left.append((worker, mean, steps + 1))
        away, means, steps_away = zip(*left, strict=True) if left else ((), (), ())
        return tuple(away), tuple(means), tuple(steps_away)


def _hold(rows: Rows, matrix: torch.Tensor) -> Rows:
    """Rows of a matrix in place of others."""
    if isinstance(rows, DenseRows):
        return rows.hold(matrix)
    if rows.layout is not IN_ONE_PROCESS:
        raise TypeError(f"WorkerMomentum must be given the rows of the ranks themselves; found {type(rows).__name__}.")
    return DenseRows(matrix, rows.weights, units=rows.units, ids=rows.ids)
