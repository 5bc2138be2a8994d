"""Aggregators that reduce each column by itself: median and trimmed mean."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from skbgmd.aggregators.base import Aggregate, Aggregator, check_fraction, check_rows, corrupt_count, usable_rows
from skbgmd.arrays import empty
from skbgmd.gram import FloatArray
from skbgmd.rows import Rows


class Coordinatewise(Aggregator):
    """Reduces sorted columns, a chunk at a time; without state."""

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        self._validate()
        check_rows(rows)
        usable = usable_rows(rows, rows.finite)
        rows = rows if len(usable) == rows.n_rows else rows.subset(usable)
        equal = bool(np.all(rows.weights == rows.weights[0]))
        vector: torch.Tensor | None = None
        for part, chunk in rows.column_chunks():
            if vector is None:
                dtype = torch.float64 if chunk.dtype == torch.float64 else torch.float32
                vector = empty((rows.n_columns,), dtype, chunk.device)
            # A copy even where the transpose is contiguous: it is sorted in place.
            lines = chunk.to(vector.dtype).T.clone(memory_format=torch.contiguous_format)
            vector[part] = self._reduce(_sorted(lines)) if equal else self._reduce_weighted(lines, rows.weights)
        assert vector is not None, "rows have at least one column"
        return Aggregate(vector), None

    def _reduce_weighted(self, lines: torch.Tensor, weights: FloatArray) -> torch.Tensor:
        values, order = lines.sort(dim=1)
        mass = torch.as_tensor(weights, device=lines.device)[order].cumsum(dim=1)
        return (values * self._shares(mass).to(values.dtype)).sum(dim=1).clamp(values[:, 0], values[:, -1])

    def _validate(self) -> None:
        """Check the hyperparameters."""

    @abstractmethod
    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        """One number from each line of sorted values (m, n) of equal weight."""

    @abstractmethod
    def _shares(self, mass: torch.Tensor) -> torch.Tensor:
        """Weights (m, n) of sorted values from their cumulated weights; each line adds up to one."""


class CoordinatewiseMedian(Coordinatewise):
    """Median of each column; of an even number of rows the mean of the middle two. Yin et al. (2018).

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import CoordinatewiseMedian
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0, 5.0], [1.0, 6.0], [1e9, -1e9]]))
    >>> CoordinatewiseMedian()(rows)[0].vector
    tensor([1., 5.])
    """

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        n = values.shape[1]
        low, high = values[:, (n - 1) // 2], values[:, n // 2]
        # Half of the smallest number is none.
        return torch.where(low == high, low, 0.5 * low + 0.5 * high)

    def _shares(self, mass: torch.Tensor) -> torch.Tensor:
        half = 0.5 * mass[:, -1:]
        # The first value that reaches half of the weight, and the first that passes it.
        low = (mass >= half * (1.0 - 1e-14)).int().argmax(dim=1, keepdim=True)
        high = (mass > half * (1.0 + 1e-14)).int().argmax(dim=1, keepdim=True)
        shares = torch.zeros_like(mass)
        shares.scatter_add_(1, low, torch.full_like(half, 0.5))
        return shares.scatter_add_(1, high, torch.full_like(half, 0.5))


class TrimmedMean(Coordinatewise):
    r"""Mean of each column without its largest and smallest values. Yin et al. (2018).

    Trims :math:`f = \lceil \psi n \rceil` rows (less than half) at either end, or that share of the weight.

    Parameters
    ----------
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).
    """

    def __init__(self, fraction: float = 0.4) -> None:
        self.fraction = fraction

    def _validate(self) -> None:
        check_fraction(self.fraction)

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        n = values.shape[1]
        f = corrupt_count(self.fraction, n)
        kept = values[:, f : n - f]
        mean = kept.mean(dim=1)
        if bool(torch.isfinite(mean.sum())):
            return mean
        # Sums of the largest numbers have none, and their mean may be rounded to none.
        return (kept / kept.shape[1]).sum(dim=1).clamp(kept[:, 0], kept[:, -1])

    def _shares(self, mass: torch.Tensor) -> torch.Tensor:
        total = mass[:, -1:]
        cut = total * (corrupt_count(self.fraction, mass.shape[1]) / mass.shape[1])
        before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
        kept = (torch.minimum(mass, total - cut) - torch.maximum(before, cut)).clamp_min(0.0)
        return kept / kept.sum(dim=1, keepdim=True)


def _sorted(lines: torch.Tensor) -> torch.Tensor:
    if lines.device.type == "cpu":
        # NumPy sorts short lines with vector instructions, several times faster than torch.
        values = lines.numpy()
        values.sort(axis=1)
        return lines
    return lines.sort(dim=1).values
