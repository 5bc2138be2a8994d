"""Non-omniscient attacks and faults: Byzantine workers that know only their own gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_choice, check_number
from skbgmd._utils.random import torch_generator
from skbgmd.corruption.gradients.base import GradientCorruption, multiply_add, scaled

NON_FINITE = {"nan": math.nan, "inf": math.inf}


class BitFlip(GradientCorruption):
    r"""Scaled bit flip, :math:`g \to s g`: the corrupt gradients point the wrong way and are long.

    Gradient corruption of Acharya et al. (2022), after Bernstein et al. (2018), with :math:`s = -100`.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    scale : float, default=-100.0
        Factor s, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import BitFlip
    >>> gradients = torch.arange(8.0).reshape(4, 2)
    >>> BitFlip(fraction=0.25, random_state=0)(gradients)
    tensor([[   0.,    1.],
            [   2.,    3.],
            [-400., -500.],
            [   6.,    7.]])
    >>> BitFlip(fraction=0.25).apply_(gradients, random_state=0)
    tensor([2])
    """

    def __init__(
        self, fraction: float = 0.2, scale: float = -100.0, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.scale, self.random_state, self.corrupt = fraction, scale, random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.scale, "scale", above=-math.inf)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return scaled(gradients[corrupt], self.scale)


class AdditiveNoise(GradientCorruption):
    r"""Gaussian noise, :math:`g \to g + \sigma z` with :math:`z \sim N(0, I)`.

    Gradient corruption of Acharya et al. (2022), after Fu (1998) and Xie et al. (2019), with :math:`\sigma^2 = 100`.
    The same seed gives other noise on another kind of device.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    std : float, default=10.0
        Standard deviation σ, in units of the gradient's entries.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows and the noise, if a call isn't given another. None: another one each time, never the
        global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import AdditiveNoise
    >>> noisy = AdditiveNoise(fraction=0.4, random_state=0)(torch.zeros(10, 1000))
    >>> int((noisy.std(dim=1) > 9).sum()), int((noisy.std(dim=1) == 0).sum())
    (4, 6)
    """

    def __init__(self, fraction: float = 0.2, std: float = 10.0, random_state: Any = None, corrupt: Any = None) -> None:
        self.fraction, self.std, self.random_state, self.corrupt = fraction, std, random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.std, "std")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        noise = torch.randn(
            (len(corrupt), gradients.shape[1]),
            generator=torch_generator(rng, gradients.device),
            dtype=gradients.dtype,
            device=gradients.device,
        )
        return multiply_add(noise, self.std, gradients[corrupt])


class SignFlip(GradientCorruption):
    r"""Sign flip, :math:`g \to -g`: the corrupt gradients have an ordinary length. Li et al. (2019), RSA.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import SignFlip
    >>> SignFlip(fraction=0.4, random_state=0)(torch.ones(3, 2))
    tensor([[ 1.,  1.],
            [ 1.,  1.],
            [-1., -1.]])
    """

    def __init__(self, fraction: float = 0.2, random_state: Any = None, corrupt: Any = None) -> None:
        self.fraction, self.random_state, self.corrupt = fraction, random_state, corrupt

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients[corrupt].neg_()


class NonFinite(GradientCorruption):
    r"""Non-finite rows: NaN or inf, as after an overflow or a broken transfer.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    value : {"nan", "inf"}, default="nan"
        Number that the rows hold.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import NonFinite
    >>> NonFinite(fraction=0.4, random_state=0)(torch.zeros(3, 2))
    tensor([[0., 0.],
            [0., 0.],
            [nan, nan]])
    """

    stays_finite = False

    def __init__(
        self, fraction: float = 0.2, value: str = "nan", random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.value, self.random_state, self.corrupt = fraction, value, random_state, corrupt

    def _check_parameters(self) -> None:
        check_choice(self.value, "value", tuple(NON_FINITE))

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients.new_full((gradients.shape[1],), NON_FINITE[self.value])
