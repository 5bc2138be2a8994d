"""Coordinate-wise trimmed mean."""

from __future__ import annotations

import torch

from skbgmd.aggregators.base import check_fraction, n_assumed_corrupt
from skbgmd.aggregators.coordinatewise import Coordinatewise


class TrimmedMean(Coordinatewise):
    r"""Coordinate-wise trimmed mean: each column without its extreme values. Yin et al. (2018).

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
        f = n_assumed_corrupt(self.fraction, n)
        kept = values[:, f : n - f]
        mean = kept.mean(dim=1)
        if bool(torch.isfinite(mean.sum())):
            return mean
        # Sums of the largest numbers overflow, and so may the rounding of their mean.
        return (kept / kept.shape[1]).sum(dim=1).clamp(kept[:, 0], kept[:, -1])

    def _shares(self, mass: torch.Tensor) -> torch.Tensor:
        total = mass[:, -1:]
        cut = total * (n_assumed_corrupt(self.fraction, mass.shape[1]) / mass.shape[1])
        before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
        kept = (torch.minimum(mass, total - cut) - torch.maximum(before, cut)).clamp_min(0.0)
        return kept / kept.sum(dim=1, keepdim=True)
