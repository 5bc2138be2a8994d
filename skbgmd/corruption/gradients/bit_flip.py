"""Bit flips: gradients that point the wrong way and are long."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, scaled


class BitFlip(GradientCorruption):
    r"""Scaled bit flip, :math:`g \to s g`: the corrupt gradients point the wrong way and are long.

    This is the gradient corruption of Acharya et al. (2022), after Bernstein et al. (2018), with :math:`s = -100`.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    scale : float, default=-100.0
        Factor s, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

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
