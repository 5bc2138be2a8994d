"""Coordinate-wise median."""

from __future__ import annotations

import torch

from skbgmd._utils.cumulated_weights import bounds
from skbgmd.aggregators.coordinatewise import Coordinatewise


class CoordinatewiseMedian(Coordinatewise):
    """Coordinate-wise median; for an even number of rows, the mean of the two middle values. Yin et al. (2018).

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
        # Half of the smallest number underflows.
        return torch.where(low == high, low, 0.5 * low + 0.5 * high)

    def _shares(self, mass: torch.Tensor, total: int) -> torch.Tensor:
        # The first value that reaches half of the weight, and the first that passes it.
        least, most = bounds(total, mass.shape[1])
        low = (mass < least).sum(dim=1, keepdim=True)
        high = (mass <= most).sum(dim=1, keepdim=True)
        shares = torch.zeros_like(mass, dtype=torch.float64)
        half = torch.full_like(low, 0.5, dtype=torch.float64)
        return shares.scatter_add_(1, low, half).scatter_add_(1, high, half)
