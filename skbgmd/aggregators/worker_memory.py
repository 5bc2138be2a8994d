"""Memory of workers: mix rows with those of the workers that have been most alike over the steps so far."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Aggregator, check_fraction, n_assumed_corrupt
from skbgmd.aggregators.clipped_products import clipped_products, row_norms, typical_norm
from skbgmd.aggregators.geometric_median import GeometricMedian
from skbgmd.aggregators.pre_aggregation import PreAggregationState, RowReplacement
from skbgmd.aggregators.remembered_products import RememberedProducts
from skbgmd.aggregators.worker_trust import (
    huber_trust,
    mean_of_nearest,
    merge_equal,
    most_trusted,
    norm_in_honest_range,
    worker_coordinates,
    worker_votes,
)
from skbgmd.rows import Rows
from skbgmd.rows.averaged import AveragedRows
from skbgmd.rows.gram import clip_factors, lower_weighted_median


@dataclass(frozen=True)
class WorkerProducts(RememberedProducts):
    """Remembered products of workers, and the norm that rows were clipped to.

    Attributes
    ----------
    ids, products, visits
        As of :class:`skbgmd.aggregators.remembered_products.RememberedProducts`.
    typical : float
        Norm that rows were clipped to in the last step in which most weren't zero; 0 before.
    """

    typical: float = 0.0


class WorkerMemory(RowReplacement):
    r"""Memory of workers: withstand colluding workers by what their rows have had in common over many steps.

    Use it if a row comes from the same worker in every step: a client, a rank, a machine. The rule remembers the inner
    products of each step's rows, clipped to their median norm: :math:`\bar K \gets` their mean with decay. Honest noise
    averages out of :math:`\bar K`; an attack that hides in the noise of one step does not. Then the rule takes four
    steps:

    1. **Coordinates.** Of the eigenvalues of :math:`\bar K` without its diagonal, it keeps those beyond the edge of
       noise, shrunk by as much as noise has added. They give each worker a few coordinates
       (:func:`worker_coordinates`).
    2. **Votes.** Workers share one vote if they have the same remembered products with all others, and with the
       :math:`n - f` most trusted ones (:func:`worker_votes`).
    3. **Mixing.** Each row is replaced by the mean of the nearest rows, in these coordinates, that have :math:`n - f`
       votes, with :math:`f = \lceil \psi n \rceil`. In this mean, a row longer than the median counts in inverse
       proportion to its norm. How far rows are apart now doesn't matter.
    4. **Aggregation.** Another rule aggregates these means. Each mean has its votes times the weight that it has in
       Huber's mean of the coordinates.

    A step leaves out rows that hold NaN, and at most f rows that are longer than ten median norms. The median is by
    votes, too, but stays within the range of honest norms, whatever is remembered (:func:`norm_in_honest_range`).

    The method is nearest-neighbor mixing [1]_ by a remembered Gram matrix. It takes 2 n² numbers; a memory of each
    worker's momentum [2]_ takes n × d.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the means. None: ``GeometricMedian(tol=1e-4)``; means of neighbors are so close together
        that more digits would take a pass of their own.
    fraction : float, default=0.4
        Assumed share ψ of corrupt workers, in [0, 0.5). 0: no worker is judged.
    decay : float, default=0.99
        Factor by which the memory decays in each step, in [0, 1]. 0: only this step counts. 1: all steps count alike.

    Notes
    -----
    **Identity.** The rule knows workers by ``rows.ids``, as the clients of a training are known, or by their places if
    rows have no ids. It takes a worker that is new, or that was away for long, for one of ordinary likeness. Random
    buckets aren't workers: put :class:`Bucketing` after this rule, not before it. The order of the workers makes no
    difference, except for the tolerance of Huber's mean and of the inner rule.

    **No judgement.** With f = 0 each mean is the mean of all rows, whatever is remembered, and the rule judges workers
    only by their norm. That is so with ``fraction=0``, for which the rule warns, and with one or two workers. Otherwise
    it judges workers from the first step on with any decay; with decay 0, it judges by a single step.

    **Bound.** Let f' of n workers with the same weight be corrupt, at most f. If the inner rule returns a mean of its
    rows, the answer is at most :math:`1 + f' / (n - f - f')` times as long as the longest honest row, whatever is
    remembered. If f' is more than f, but less than half, it is at most ten times that (:ref:`proof <workers-bound>`).
    If most rows are zero, the longest honest row of the last step in which they weren't counts as one.

    References
    ----------
    .. [1] Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan (2023). Fixing by mixing: a recipe for optimal
       Byzantine ML under heterogeneity. AISTATS.
    .. [2] Karimireddy, He and Jaggi (2021). Learning from history for Byzantine robust optimization. ICML.

    Examples
    --------
    Four of ten workers shift their rows by half of the honest noise, which no single step gives away:

    >>> import torch
    >>> from skbgmd.aggregators import WorkerMemory
    >>> from skbgmd.rows import DenseRows
    >>> generator, state = torch.Generator().manual_seed(0), None
    >>> for _ in range(100):
    ...     rows = torch.randn(10, 50, generator=generator)
    ...     rows[:4] -= 0.5
    ...     aggregate, state = WorkerMemory(fraction=0.4)(DenseRows(rows), state)
    >>> bool(aggregate.weights[:4].max() < 1e-6)
    True
    """

    keeps_workers = remembers_workers = True

    def __init__(self, aggregator: Aggregator | None = None, fraction: float = 0.4, decay: float = 0.99) -> None:
        self.aggregator, self.fraction, self.decay = aggregator, fraction, decay

    def _validate(self) -> None:
        super()._validate()
        check_fraction(self.fraction)
        check_number(self.decay, "decay", at_least=0.0, at_most=1.0)

    @staticmethod
    def _default_rule() -> Aggregator:
        return GeometricMedian(tol=1e-4)

    def _finite(self, rows: Rows) -> BoolArray:
        return row_norms(rows)[1]

    def _usable(self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState, finite: BoolArray) -> BoolArray:
        if state.step == 0 and self.fraction == 0.0:
            warnings.warn(
                "fraction must be more than 0 for WorkerMemory to judge workers; found 0, by which none is corrupt.",
                UserWarning,
                stacklevel=3,
            )
        norms, _ = row_norms(rows)
        finite = finite & (rows.weights > 0.0)
        some = tuple(worker for worker, is_finite in zip(ids, finite, strict=True) if is_finite)
        kept = len(ids) - n_assumed_corrupt(self.fraction, len(ids))
        limit = limits.FAR_WORKER * self._clip_norm(norms[finite], rows.weights[finite], some, _remembered(state))
        # Norms of workers that differ are spread widely once most of them fit their data.
        limit = max(limit, np.sort(norms[finite])[:kept].max(initial=0.0))
        usable: BoolArray = finite & (np.where(finite, norms, 0.0) <= limit)
        return usable

    @one_thread_of_products()
    def _replace(
        self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState
    ) -> tuple[Rows, FloatArray, WorkerProducts]:
        norms, _ = row_norms(rows)
        before = _remembered(state)
        kept = rows.n_rows - n_assumed_corrupt(self.fraction, rows.n_rows)
        typical = self._clip_norm(norms, rows.weights, ids, before)
        clip = clip_factors(typical, norms)
        memory = before.update(ids, clipped_products(rows, clip, norms, typical), float(self.decay))
        if lower_weighted_median(norms, rows.weights) > 0.0:
            memory = replace(memory, typical=typical)
        places = worker_coordinates(memory.means(ids), memory.met(ids))
        witnesses = most_trusted(places, kept)
        votes = worker_votes(memory.means(ids), kept, memory.met(ids), witnesses)
        mixing = mean_of_nearest(places, rows.weights * clip, votes, kept)
        trust = huber_trust(mixing @ places, rows.weights * votes)
        if self.aggregator is None:
            mixing, trust = merge_equal(mixing, trust)
        return AveragedRows(rows, mixing, trust), mixing, memory

    def _clip_norm(self, norms: FloatArray, weights: FloatArray, ids: tuple[Any, ...], memory: WorkerProducts) -> float:
        """Norm that rows are clipped to."""
        if not ids:
            return 0.0
        kept = len(ids) - n_assumed_corrupt(self.fraction, len(ids))
        votes = worker_votes(memory.means(ids), kept, memory.met(ids))
        typical = norm_in_honest_range(norms, weights, votes, kept)
        # Where most rows are zero all others may be corrupt: none is longer than rows were in other steps.
        return typical if typical > 0.0 else min(memory.typical, typical_norm(norms, weights))


def _remembered(state: PreAggregationState) -> WorkerProducts:
    memory = state.memory or WorkerProducts()
    if not isinstance(memory, RememberedProducts):
        raise TypeError(f"memory of a state must be WorkerProducts or None; found {type(memory).__name__}.")
    if isinstance(memory, WorkerProducts):
        return memory
    # States of earlier versions hold products alone.
    return WorkerProducts(memory.ids, memory.products, memory.visits)
