"""Adaptive robust clipping (ARC): clip the longest rows to the norm of the next, then aggregate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import Aggregate, Aggregator, check_fraction, n_assumed_corrupt
from skbgmd.aggregators.noise_to_signal import noise_to_signal
from skbgmd.aggregators.pre_aggregation import PreAggregationState, RowReplacement
from skbgmd.aggregators.spectral_filter import SpectralFilter
from skbgmd.rows import Rows
from skbgmd.rows.gram import clip_factors
from skbgmd.rows.scaled import ScaledRows


class AdaptiveClipping(RowReplacement):
    r"""Adaptive robust clipping (ARC): clip the longest rows to the norm of the next. Allouah et al. (2025).

    With :math:`f = \lceil \psi n \rceil` rows assumed corrupt (less than half), it shortens the
    :math:`k = \lfloor 2 (f / n) (n - f) \rfloor` rows of largest norm to the norm of the row that comes next. A corrupt
    row is then no longer than an honest one, and there is no limit to tune. Clipped rows keep the guarantee that a
    robust rule gives for rows of ordinary length.

    The weights of the aggregate are those of the clipped rows, of which it is a weighted mean. The history of a
    training records ``noise_to_signal``; see :func:`group_size_needed`.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the clipped rows; None: :class:`GeometricMedian`.
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).

    References
    ----------
    Y. Allouah, R. Guerraoui, N. Gupta, A. Jellouli, G. Rizk, J. Stephan (2025). Adaptive gradient clipping for robust
    federated learning. ICLR.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import AdaptiveClipping, Mean
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 900.0]]))
    >>> AdaptiveClipping(Mean(), fraction=0.25)(rows)[0].vector
    tensor([0.7500, 1.5000])
    """

    keeps_workers = True

    def __init__(self, aggregator: Aggregator | None = None, fraction: float = 0.4) -> None:
        self.aggregator, self.fraction = aggregator, fraction

    def _validate(self) -> None:
        super()._validate()
        check_fraction(self.fraction)

    def _replace(self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState) -> tuple[Rows, FloatArray, None]:
        norms = rows.norms()
        clipped = ScaledRows(rows, clip_factors(adaptive_limit(norms, self.fraction), norms))
        return clipped, np.eye(rows.n_rows), None

    def _record(self, rows: Rows, aggregate: Aggregate) -> Mapping[str, Any]:
        ratio = noise_to_signal(rows, aggregate)
        return {} if ratio is None else {"noise_to_signal": ratio}


def adaptive_limit(norms: FloatArray, fraction: float) -> float:
    """Norm to which adaptive clipping shortens longer rows.

    Parameters
    ----------
    norms : ndarray of shape (n,)
    fraction : float
        Assumed share of corrupt rows, in [0, 0.5).

    Examples
    --------
    >>> adaptive_limit(np.array([5.0, 1.0, 3.0, 2.0, 4.0]), 0.4)
    3.0
    """
    n = len(norms)
    f = n_assumed_corrupt(fraction, n)
    clipped = 2 * f * (n - f) // n
    return float(np.sort(norms)[n - clipped - 1])


def clipped_spectral_filter() -> AdaptiveClipping:
    """Make the rule against collusion of rows without identity, up to 40 % of them: clip, then filter by the spectrum.

    Examples
    --------
    >>> clipped_spectral_filter()
    AdaptiveClipping(aggregator=SpectralFilter(fraction=0.4, threshold=1.0))
    """
    share = limits.FILTERED_SHARE
    return AdaptiveClipping(SpectralFilter(share, threshold=limits.STANDING_OUT), share)
