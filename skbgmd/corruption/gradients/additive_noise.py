"""Additive noise on gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd._utils.random import torch_generator
from skbgmd.corruption.gradients.base import GradientCorruption, multiply_add


class AdditiveNoise(GradientCorruption):
    r"""Gaussian noise, :math:`g \to g + \sigma z` with :math:`z \sim N(0, I)`.

    This is the gradient corruption of Acharya et al. (2022), after Fu (1998) and Xie et al. (2019), with
    :math:`\sigma^2 = 100`. The same seed gives different noise on different kinds of device.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    std : float, default=10.0
        Standard deviation σ, in units of the gradient's entries.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows and the noise, unless a call passes its own. None: a fresh one each time; the
        global state is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

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
