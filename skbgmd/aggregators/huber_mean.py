"""Huber's M-estimate of location, with a scale of this step alone or one that is remembered from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.checks import check_flag, check_integer, check_number, check_once
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Aggregate, Judgement, LocationRule, check_rows, state_of, usable_rows
from skbgmd.aggregators.huber_active_set import HuberActiveSet, huber_active_set
from skbgmd.aggregators.huber_by_products import huber_by_products
from skbgmd.aggregators.memory import Scale
from skbgmd.location.huber import huber_weights
from skbgmd.location.rejection import check_rejection, kept_weights, without_far
from skbgmd.location.row_weights import median_distances
from skbgmd.location.spaces import GramSpace
from skbgmd.location.typical_distance import Typical, typical_distance_of_step
from skbgmd.rows import ChunkedRows, Rows
from skbgmd.rows.gram import lower_weighted_median
from skbgmd.rows.means import means
from skbgmd.rows.unformed_gram import UnformedGram


class HuberMean(LocationRule):
    r"""Huber's M-estimate of location: near rows count in full, far rows only by their direction.

    It minimizes :math:`\sum_i a_i \rho(\lVert x_i - y \rVert)`, where :math:`\rho(t) = t^2 / 2` up to :math:`c M` and
    linear beyond. The scale :math:`M` is the median distance of the rows to their geometric median. The weights are
    :math:`\propto a_i \min(1, c M / d_i)`, iterated in the Gram matrix. A large ``c`` gives the mean, a small one the
    geometric median. Huber (1964); in several dimensions Maronna (1976).

    Parameters
    ----------
    c : float, default=1.0
        Distance, in scales, beyond which a row's weight falls.
    rejection : float or None, default=None
        Distance, in scales, beyond which a row has no weight, unless it is among the nearer half; more than 1. None: no
        row is rejected.
    remember : bool, default=False
        Remember the scale from step to step; see the Notes. Use it for gradients of single samples. It withstands
        corrupt samples, not machines that attack in step.
    tol : float, default=1e-6
        Stop when no weight changes by more than this, in shares of 1/n.
    max_iter : int, default=100
        Maximum number of iterations.

    Notes
    -----
    With ``remember=True`` the state is the scale. Gradients shrink as samples are learned; without a memory, samples
    still to be learned would look like outliers.

    - **Typical distance of a step:** the median distance. If many rows are tied, as those of empty, constant or
      repeated samples are, it is the median distance of the others; see
      :func:`skbgmd.location.typical_distance.typical_distance`.
    - **Scale:** the median of the last five steps' typical distances or, if that is larger, an earlier scale, which
      decays by 0.1 % a step.
    - **Scale for rejection:** the largest scale that five steps in a row have had. It doesn't decay: by this
      scale, a rare class that is learned last is as far as in the first step.

    Corrupt rows that keep within ``c`` scales count in full, like samples still to be learned, and may outweigh a mean
    that has become short.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import HuberMean
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [1e6]]))
    >>> aggregate, state = HuberMean(c=2.0, rejection=10.0)(rows)
    >>> aggregate.vector, aggregate.weights
    (tensor([2.]), array([0.2, 0.2, 0.2, 0.2, 0.2, 0. ]))
    """

    def __init__(
        self,
        c: float = 1.0,
        rejection: float | None = None,
        remember: bool = False,
        tol: float = 1e-6,
        max_iter: int = 100,
    ) -> None:
        self.c, self.rejection, self.remember = c, rejection, remember
        self.tol, self.max_iter = tol, max_iter

    def __call__(self, rows: Rows, state: Scale | None = None) -> tuple[Aggregate, Any]:
        check_rows(rows)
        self._validate()
        usable = usable_rows(rows, self._finite(rows))
        every = len(usable) == rows.n_rows
        some = rows if every else rows.subset(usable)
        found = self._by_products(some, state)
        judged = self._judge_by_gram(some, state) if found is None else self._judged(found)
        weights = judged.weights
        if not every:
            weights = np.zeros(rows.n_rows)
            weights[usable] = judged.weights
        return Aggregate(means(rows, weights) if found is None else found.vector(), weights), judged.state

    def _judged(self, found: HuberActiveSet) -> Judgement:
        # Where most of the weight counts in full, no row counts for more than a typical one.
        return Judgement(found.weights, found.scale, self.c, off_block=found.weights if found.most_in_full else None)

    def _finite(self, rows: Rows) -> BoolArray:
        # The Gram matrix tells as well, but not all of it may be wanted.
        return rows.finite if self.remember and rows.gram_is_expensive else super()._finite(rows)

    def _by_products(self, rows: Rows, state: Scale | None) -> HuberActiveSet | None:
        """Huber's mean without the Gram matrix of all rows; None where no scale is remembered, or nothing is gained."""
        is_expensive = rows.gram_is_expensive or rows.n_rows > limits.GRAM_ROWS
        if not (self.remember and state is not None and isinstance(rows, ChunkedRows) and is_expensive):
            return None
        before = state_of(self, state, Scale) or Scale()
        for solve in (huber_active_set, huber_by_products):
            found = solve(rows, self.c, self.rejection, before, tol=self.tol, max_iter=self.max_iter)
            if found is not None:
                return found
        return None

    def _validate(self) -> None:
        check_once(_check_parameters, self.c, self.rejection, self.remember, self.tol, self.max_iter)

    def judge(self, rows: Rows, state: Scale | None = None) -> Judgement:
        found = self._by_products(rows, state)
        return self._judge_by_gram(rows, state) if found is None else self._judged(found)

    def _judge_by_gram(self, rows: Rows, state: Scale | None) -> Judgement:
        before = state_of(self, state, Scale) or Scale()
        if self.remember:
            found = huber_weights_about_median(
                rows, self.c, self.rejection, before, tol=self.tol, max_iter=self.max_iter
            )
            return found.judgement(self.c)
        _, gram, distances = median_distances(rows, tol=max(self.tol, 1e-4), max_iter=self.max_iter)
        scale = lower_weighted_median(distances, rows.weights)
        kept = rows.weights
        if self.rejection is not None:
            kept = np.where(distances <= self.rejection * scale, kept, 0.0)
        weights = huber_weights(gram, kept, distances, self.c * scale, tol=self.tol, max_iter=self.max_iter)
        return Judgement(weights, None, self.c)


def _check_parameters(c: Any, rejection: Any, remember: Any, tol: Any, max_iter: Any) -> None:
    check_number(c, "c")
    check_rejection(rejection)
    check_flag(remember, "remember")
    check_number(tol, "tol")
    check_integer(max_iter, "max_iter")


class HuberAboutMedian(NamedTuple):
    """Huber's mean about the geometric median.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows; they add up to one.
    scale : Scale
        For the next step.
    tied : bool
        True where many rows are tied, see :func:`skbgmd.location.typical_distance.typical_distance`.
    off_block : ndarray of shape (n,), or None
        Weights of the rows off a block; None: ``weights``.
    """

    weights: FloatArray
    scale: Scale
    tied: bool
    off_block: FloatArray | None = None

    def judgement(self, c: float | None) -> Judgement:
        """Weights for a block, with a limit for off-block parts: those of tied rows may be next to nothing."""
        if c is None and not self.tied:
            return Judgement(self.weights, self.scale, off_block=self.off_block)
        return Judgement(self.weights, self.scale, c or 1.0, self.scale.value if self.tied else 0.0)


def huber_weights_about_median(
    rows: Rows, huber: float | None, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> HuberAboutMedian:
    """Weights of Huber's mean about the geometric median, far rows left out, and the scale for the next step.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber : float or None
        Distance, in typical distances, from which a row's weight falls. None: the geometric median, unless many rows
        are tied, and then one typical distance.
    rejection : float or None
        Distance, in the largest scale so far, from which a row has no weight, unless it is among the nearer half.
    before : Scale
        The scale of the step before.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    # The solver starts at a mean of clipped rows and never raises the objective: stopped early, its iterate is still
    # bounded by honest rows, and Huber's mean goes on from there.
    rough = tol if huber is None else max(tol, limits.HUBER_START_TOL)
    weights, gram, distances = median_distances(rows, tol=rough, max_iter=max_iter, about_zero=True)
    if before.is_new and isinstance(gram, UnformedGram):
        now = _closely(rows, tol=rough, max_iter=max_iter)
    else:
        now = typical_distance_of_step(gram, distances, rows.norms(), rows.weights, is_first=before.is_new)
    scale = before.update(now.distance)
    if huber is None and not now.tied:
        median = without_far(rows.weights, weights, gram, distances, rejection, tol=tol, max_iter=max_iter)
        return HuberAboutMedian(median.weights, scale, tied=False, off_block=median.carried)
    whole = gram.original
    if whole is not None and scale.value > gram.unit * gram.norms.max():
        # Rows that were drawn in, as they are far from the median, aren't far for this scale.
        gram, distances = whole, GramSpace(whole, rows.weights).distances_to_mean(weights)
    # A smaller limit would only let weights underflow.
    limit = max(scale.value / gram.unit, limits.LEAST_SCALE * (now.distance / gram.unit))
    if limit == 0.0:
        # In the distances' own unit it doesn't underflow.
        limit = limits.LEAST_SCALE * lower_weighted_median(distances, rows.weights)
    # The nearer half is kept, however small the remembered scale.
    kept = rows.weights
    if rejection is not None:
        kept = kept_weights(rows.weights, distances, rejection * max(limit, scale.largest / gram.unit))
    limit *= 1.0 if huber is None else huber
    return HuberAboutMedian(huber_weights(gram, kept, distances, limit, tol=tol, max_iter=max_iter), scale, now.tied)


def _closely(rows: Rows, *, tol: float, max_iter: int) -> Typical:
    """Typical distance of many rows in a first step, by all distances between some of them.

    They are drawn, always alike: every k-th row would be of one kind, where those of k kinds take turns.
    """
    drawn = np.random.default_rng(0).choice(rows.n_rows, limits.GRAM_ROWS, replace=False, shuffle=False)
    some = rows.subset(np.sort(drawn))
    _, gram, distances = median_distances(some, tol=tol, max_iter=max_iter, about_zero=True)
    return typical_distance_of_step(gram, distances, some.norms(), some.weights, is_first=True)
