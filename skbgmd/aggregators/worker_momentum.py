"""Worker momentum: aggregate running means of each worker's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.checks import check_number
from skbgmd.aggregators.base import Aggregate, Aggregator, AggregatorState, check_rows, state_of, worker_ids
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
    """

    ids: tuple[Any, ...] = ()
    momentum: torch.Tensor | None = None
    inner: Any = None


class WorkerMomentum(Aggregator):
    r"""Worker momentum: aggregate each worker's running mean in place of its row, against colluding workers.

    .. math:: m_i \gets \mu m_i + (1 - \mu) x_i

    begins at a worker's first row [1]_. It takes the noise out of honest rows, in which an attack of ordinary length
    hides, and is the step's momentum at once: the optimizer needs none. It remembers n × d numbers;
    :class:`WorkerMemory` remembers 2 n². A worker whose row holds NaN or inf is left out of the step, and its running
    mean stays as it is.

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

    def __init__(self, aggregator: Aggregator | None = None, momentum: float = 0.9) -> None:
        self.aggregator, self.momentum = aggregator, momentum

    def __call__(self, rows: Rows, state: WorkerMomentumState | None = None) -> tuple[Aggregate, WorkerMomentumState]:
        self._validate()
        check_rows(rows)
        inner = NearestNeighborMixing() if self.aggregator is None else self.aggregator
        state = state_of(self, state, WorkerMomentumState) or WorkerMomentumState()
        if state.momentum is not None and len(state.momentum) != len(state.ids):
            raise ValueError(f"momentum of {len(state.ids)} ids must have as many rows; found {len(state.momentum)}.")
        ids = worker_ids(rows)
        sample = rows.columns(torch.zeros(0, dtype=torch.int64, device=rows.device))
        dtype = torch.promote_types(sample.dtype, torch.float32)
        # The one copy of the rows: it is what is remembered.
        kept = torch.empty((rows.n_rows, rows.n_held), dtype=dtype, device=rows.device)
        for part, chunk in rows.column_chunks():
            kept[:, part] = chunk
        before, usable = self._of_workers(state, ids, rows.n_held), rows.finite
        known = before >= 0
        if state.momentum is not None and known.any():
            # Of rows that aren't finite the running mean stays as it is.
            new = np.where(usable, 1.0 - self.momentum, 0.0)
            of_row = torch.as_tensor(np.where(known, new, 1.0), dtype=dtype, device=rows.device)[:, None]
            kept[torch.as_tensor(np.flatnonzero(known & ~usable), device=rows.device)] = 0.0
            means = state.momentum.to(kept)
            if ids != state.ids:
                means = means[torch.as_tensor(np.maximum(before, 0), device=rows.device)]
            kept.mul_(of_row).addcmul_(means, 1.0 - of_row)
        shown = kept
        if not usable.all():
            shown = kept.index_fill(0, torch.as_tensor(np.flatnonzero(~usable), device=rows.device), torch.nan)
        aggregate, after = inner(_hold(rows, shown), state.inner)
        lasting = known | usable
        remembered = kept if lasting.all() else kept[torch.as_tensor(lasting, device=rows.device)]
        names = tuple(worker for worker, lasts in zip(ids, lasting, strict=True) if lasts)
        return aggregate, WorkerMomentumState(names, remembered, after)

    def _validate(self) -> None:
        if not (self.aggregator is None or isinstance(self.aggregator, Aggregator)):
            raise TypeError(f"aggregator must be an Aggregator or None; found {self.aggregator!r}.")
        if check_number(self.momentum, "momentum", at_least=0.0, at_most=1.0) == 1.0:
            raise ValueError("momentum must be less than 1: with 1 nothing new is ever seen.")

    @staticmethod
    def _of_workers(state: WorkerMomentumState, ids: tuple[Any, ...], n_held: int) -> NDArray[np.intp]:
        """Places (n,) of the workers in the state, -1 for those that aren't there."""
        # Of other columns: parameters were frozen or thawed.
        if state.momentum is None or state.momentum.shape[1] != n_held:
            return np.full(len(ids), -1)
        place = {worker: at for at, worker in enumerate(state.ids)}
        return np.array([place.get(worker, -1) for worker in ids])


def _hold(rows: Rows, matrix: torch.Tensor) -> Rows:
    """Rows of a matrix in place of others."""
    if isinstance(rows, DenseRows):
        return rows.hold(matrix)
    if rows.layout is not IN_ONE_PROCESS:
        raise TypeError(f"WorkerMomentum must be given the rows of the ranks themselves; found {type(rows).__name__}.")
    return DenseRows(matrix, rows.weights, units=rows.units, ids=rows.ids)
