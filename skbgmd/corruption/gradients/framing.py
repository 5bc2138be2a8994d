"""Framing: corrupt rows so near the honest mean that a memory of workers trusts them more than honest ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd._utils.random import torch_generator
from skbgmd.corruption.gradients.base import GradientCorruption, mean_of_rows, multiply_add, std_of_rows


class Framing(GradientCorruption):
    r"""Framing: copies of the honest mean with little noise, which makes honest rows look bad by comparison.

    .. math:: g \to \mu + \eta \, \sigma \odot z, \qquad z \sim N(0, I) ,

    with mean and standard deviation of each column over the honest rows. Written against rules that remember how far
    each worker was off: the aggregate is hardly harmed, but corrupt workers earn trust, which another attack spends
    (:class:`Sleeper`), and of heterogeneous honest ones the rare are framed. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    noise : float, default=0.1
        Size η of the noise in standard deviations of the honest rows, at least 0; with 0 the rows are equal.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows and the noise, if a call isn't given another. None: another one each time, never the
        global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.

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
