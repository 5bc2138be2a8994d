"""Framing: corrupt rows so near the honest mean that a memory of workers trusts them more than honest ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd._utils.random import torch_generator
from skbgmd.corruption.gradients.base import GradientCorruption, mean_of_rows, multiply_add, std_of_rows


class Framing(GradientCorruption):
    r"""Framing: copies of the honest mean with little noise, which make honest rows look bad by comparison.

    .. math:: g \to \mu + \eta \, \sigma \odot z, \qquad z \sim N(0, I) ,

    where :math:`\mu` and :math:`\sigma` are the mean and the standard deviation of each column over the honest rows.

    It targets rules that remember how far each worker was off. The attack hardly harms the aggregate. But corrupt
    workers earn trust, which another attack can spend (:class:`Sleeper`), and if honest workers are heterogeneous, it
    frames the rare ones. The attack is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    noise : float, default=0.1
        Size η of the noise in standard deviations of the honest rows, at least 0. With 0, the corrupt rows are equal.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows and the noise, unless a call passes its own. None: a fresh one each time; the
        global state is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Framing
    >>> Framing(fraction=0.4, noise=0.0, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [1.]])
    """

    omniscient = True

    def __init__(
        self, fraction: float = 0.2, noise: float = 0.1, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.noise, self.random_state, self.corrupt = fraction, noise, random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.noise, "noise", at_least=0.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        mean = mean_of_rows(gradients, honest)
        if self.noise == 0.0:
            return mean.to(gradients.dtype)
        noise = torch.randn(
            (len(corrupt), len(mean)),
            generator=torch_generator(rng, mean.device),
            dtype=mean.dtype,
            device=mean.device,
        )
        noise.mul_(std_of_rows(gradients, honest, mean))
        return multiply_add(noise, self.noise, mean.expand_as(noise).clone()).to(gradients.dtype)
