"""Base of min-max and min-sum: as far from the honest mean as distances to the honest rows permit."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_choice
from skbgmd.corruption.gradients.base import (
    GradientCorruption,
    exponent_of,
    mean_of_rows,
    std_of_rows,
    times_power,
)

DIRECTIONS = ("std", "sign", "unit")


class Optimized(GradientCorruption):
    """Attack that goes from the honest mean as far along a direction as its bound permits."""

    omniscient = True

    def __init__(
        self, fraction: float = 0.2, direction: str = "std", random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.direction, self.random_state, self.corrupt = fraction, direction, random_state, corrupt

    def _check_parameters(self) -> None:
        check_choice(self.direction, "direction", DIRECTIONS)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        mean = mean_of_rows(gradients, honest)
        direction = perturbation(gradients, honest, mean, self.direction)
        # Scaled by powers of two to order one, rows and direction have products that don't overflow.
        apart = [(gradients[row] * 0.5 - mean * 0.5).abs().max() for row in honest.tolist()]
        rows = exponent_of(float(torch.stack(apart).max())) + 1
        along = exponent_of(float(direction.abs().max()))
        direction = times_power(direction.double(), -along)
        length = self._length(*_geometry(gradients, honest, mean, direction, rows))
        step = times_power(direction.mul_(length), rows)
        return step.add_(mean).to(gradients.dtype)

    @abstractmethod
    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        """Length of the step from the mean."""


def perturbation(gradients: torch.Tensor, honest: torch.Tensor, mean: torch.Tensor, direction: str) -> torch.Tensor:
    """Direction of a min-max or min-sum attack, (d,): one of ``DIRECTIONS``, each with its sign turned around."""
    if direction == "std":
        return std_of_rows(gradients, honest, mean).neg_()
    if direction == "sign":
        return mean.sign().neg_()
    # Normalized twice, as the square of a length may overflow.
    largest = float(mean.abs().max())
    if largest == 0.0:
        return torch.zeros_like(mean)
    unit = mean.double() / largest
    return (unit / -float(torch.linalg.vector_norm(unit))).to(mean.dtype)


def _geometry(
    gradients: torch.Tensor, honest: torch.Tensor, mean: torch.Tensor, direction: torch.Tensor, exponent: int = 0
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Inner products of the honest rows about their mean, (h, h), those with the direction, (h,), and its square.

    Rows count in units of ``2**exponent``.

    In double precision, a chunk of columns at a time: a distance of rows that are close together is the difference
    of large numbers.
    """
    h = len(honest)
    products = torch.zeros((h, h), dtype=torch.float64, device=gradients.device)
    along = torch.zeros(h, dtype=torch.float64, device=gradients.device)
    square = 0.0
    for start in range(0, gradients.shape[1], limits.CORRUPTED_COLUMNS):
        part = slice(start, start + limits.CORRUPTED_COLUMNS)
        some = gradients[:, part].index_select(0, honest).double()
        # Halves, as the difference of huge numbers may overflow.
        centered = times_power(some.mul_(0.5).sub_(mean[part] * 0.5), 1 - exponent)
        p = direction[part].double()
        products.addmm_(centered, centered.T)
        along.addmv_(centered, p)
        square += float(p @ p)
    return products, along, square


def larger_root(a: float, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Larger root of a x² - 2 b x - c with a > 0 and, but for rounding, c >= 0."""
    c = c.clamp(min=0.0)
    root = (b * b + a * c).sqrt()
    # Of two forms, the one in which nothing cancels.
    return torch.where(b > 0.0, (b + root) / a, c / (root - b).where((root - b) > 0.0, torch.ones_like(root)))
