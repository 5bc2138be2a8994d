"""Omniscient attacks: Byzantine workers that know the honest gradients and hide in their spread."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_choice, check_integer, check_number
from skbgmd.corruption.base import Indices
from skbgmd.corruption.gradients.base import (
    GradientCorruption,
    exponent_of,
    mean_of_rows,
    multiply_add,
    std_of_rows,
    times_power,
)

DIRECTIONS = ("std", "sign", "unit")


class AlongLine(GradientCorruption):
    """Attack whose rows lie on a line that the honest rows give, each through a start of its own or all through one."""

    omniscient = True

    own: bool

    @abstractmethod
    def _line(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Honest mean; start (d,) or (c, d), and direction (d,); none of them a view of another."""


class ALittleIsEnough(AlongLine):
    r"""A little is enough (ALIE): :math:`g \to \mu - z \sigma`, hidden in the spread of the honest rows.

    Baruch et al. (2019). :math:`\mu` and :math:`\sigma` are mean and standard deviation of each column over the
    honest rows (divided by their number), and all corrupt rows are equal. With ``own=True``,
    :math:`g \to g - z \sigma`: each keeps its own noise, so that none stands out by having twins. Omniscient; Baruch
    et al. estimate both from the corrupt workers' own gradients.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    z : float, default=1.5
        Number of standard deviations from the mean, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.
    own : bool, default=False
        Whether to shift each corrupt row's own gradient, rather than the honest mean, which all send.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ALittleIsEnough
    >>> ALittleIsEnough(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[ 0.0000],
            [ 2.0000],
            [-0.5000]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        z: float = 1.5,
        random_state: Any = None,
        corrupt: Any = None,
        own: bool = False,
    ) -> None:
        self.fraction, self.z, self.random_state, self.corrupt, self.own = fraction, z, random_state, corrupt, own

    def _check_parameters(self) -> None:
        check_number(self.z, "z", above=-math.inf)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        _, start, direction = self._line(gradients, corrupt, honest)
        return multiply_add(direction, self.z, start).to(gradients.dtype)

    def _line(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = mean_of_rows(gradients, honest)
        direction = std_of_rows(gradients, honest, mean).neg_()
        return mean, gradients[corrupt].to(mean.dtype) if self.own else mean.clone(), direction


class InnerProduct(AlongLine):
    r"""Inner product manipulation: :math:`g \to -\epsilon \mu`, against the mean of the honest rows.

    Xie, Koyejo & Gupta (2020), *Fall of Empires*. Their small :math:`\epsilon` keeps the corrupt rows near the
    others. With ``own=True``, :math:`g \to g - (1 + \epsilon) \mu`: about :math:`-\epsilon \mu` each keeps its own
    noise. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    epsilon : float, default=1.1
        Length of the corrupt rows in lengths of the honest mean, positive.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.
    own : bool, default=False
        Whether to shift each corrupt row's own gradient, rather than the honest mean, which all send.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import InnerProduct
    >>> InnerProduct(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[ 0.0000],
            [ 2.0000],
            [-1.1000]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        epsilon: float = 1.1,
        random_state: Any = None,
        corrupt: Any = None,
        own: bool = False,
    ) -> None:
        self.fraction, self.epsilon, self.own = fraction, epsilon, own
        self.random_state, self.corrupt = random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.epsilon, "epsilon")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        _, start, direction = self._line(gradients, corrupt, honest)
        return multiply_add(direction, self.epsilon, start).to(gradients.dtype)

    def _line(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = mean_of_rows(gradients, honest)
        start = gradients[corrupt].to(mean.dtype).sub_(mean) if self.own else torch.zeros_like(mean)
        return mean, start, mean.neg()


class Mimic(GradientCorruption):
    r"""Mimic: all corrupt rows copy one honest row, :math:`g \to g_t`, the same at every step.

    Karimireddy et al. (2022). No row is far from the others; but where the rows come from different distributions,
    the copied one counts for many. Omniscient: the corrupt rows see another's gradient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    target : int, default=0
        The row t to copy, less than b; it is never drawn itself, so at most b - 1 rows are.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Mimic
    >>> Mimic(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    omniscient = True

    def __init__(self, fraction: float = 0.2, target: int = 0, random_state: Any = None, corrupt: Any = None) -> None:
        self.fraction, self.target, self.random_state, self.corrupt = fraction, target, random_state, corrupt

    def _check_parameters(self) -> None:
        check_integer(self.target, "target", at_least=0)

    def _eligible(self, n: int) -> Indices:
        if self.target >= n:
            raise ValueError(f"target must be less than the number of rows, {n}; found {self.target}.")
        return np.delete(np.arange(n), self.target)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients[self.target].clone()


class _Optimized(GradientCorruption):
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


class MinMax(_Optimized):
    r"""Min-max: as far from the honest mean as distances to honest rows stay within the largest among these.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \max_i \lVert \mu + \gamma p - g_i \rVert \le \max_{i, j} \lVert g_i - g_j \rVert ,

    i and j honest. Each row bounds :math:`\gamma` by a root of a quadratic; the least root is taken, with no
    bisection. The rows that the attack replaces are all equal. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    direction : {"std", "sign", "unit"}, default="std"
        The perturbation p: minus the columns' standard deviations, minus the signs of the mean, or minus the mean
        divided by its length.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MinMax
    >>> MinMax(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_max_length(products, along, square)


class MinSum(_Optimized):
    r"""Min-sum: as far from the honest mean as the sum of squared distances stays within an honest row's.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \sum_i \lVert \mu + \gamma p - g_i \rVert^2 \le \max_j \sum_i \lVert g_i - g_j \rVert^2 ,

    i and j honest; a root of one quadratic. The rows that the attack replaces are all equal. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    direction : {"std", "sign", "unit"}, default="std"
        The perturbation p: minus the columns' standard deviations, minus the signs of the mean, or minus the mean
        divided by its length.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MinSum
    >>> MinSum(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_sum_length(products, along, square)


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


def min_max_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-max attack.

    With :math:`\delta_i = g_i - \mu` and D the largest distance among the rows, row i asks for
    :math:`\gamma^2 \lVert p \rVert^2 - 2 \gamma \langle p, \delta_i \rangle + \lVert \delta_i \rVert^2 \le D^2`.
    The mean is within D of every row, so that zero is a solution of each, and the least of the larger roots is one of
    all.

    Parameters
    ----------
    products : tensor of shape (h, h), float64
        Inner products of the :math:`\delta_i`.
    along : tensor of shape (h,), float64
        Their inner products with p.
    square : float
        :math:`\lVert p \rVert^2`. If it is zero there is nowhere to go, and the answer is zero.
    """
    squares = products.diagonal()
    slack = (squares[:, None] + squares - 2.0 * products).max() - squares
    return float(_larger_root(square, along, slack).min()) if square > 0.0 else 0.0


def min_sum_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-sum attack.

    The sum of the h quadratics of a min-max attack,
    :math:`h \gamma^2 \lVert p \rVert^2 - 2 \gamma \sum_i \langle p, \delta_i \rangle + \sum_i \lVert \delta_i
    \rVert^2 \le \max_j \sum_i \lVert \delta_i - \delta_j \rVert^2`.

    Parameters
    ----------
    products, along, square
        As for :func:`min_max_length`.
    """
    squares, h = products.diagonal(), len(along)
    largest = (squares.sum() + h * squares - 2.0 * products.sum(dim=1)).max()
    return float(_larger_root(h * square, along.sum(), largest - squares.sum())) if square > 0.0 else 0.0


def _larger_root(a: float, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Larger root of a x² - 2 b x - c with a > 0 and, but for rounding, c >= 0."""
    c = c.clamp(min=0.0)
    root = (b * b + a * c).sqrt()
    # Of two forms, the one in which nothing cancels.
    return torch.where(b > 0.0, (b + root) / a, c / (root - b).where((root - b) > 0.0, torch.ones_like(root)))
