"""A little is enough: Byzantine workers that hide in the spread of the honest gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import (
    AlongLine,
    mean_of_rows,
    multiply_add,
    std_of_rows,
)


class ALittleIsEnough(AlongLine):
    r"""A little is enough (ALIE): :math:`g \to \mu - z \sigma`, hidden in the spread of the honest rows.

    Baruch et al. (2019). :math:`\mu` and :math:`\sigma` are the mean and the standard deviation of each column over the
    honest rows (divided by their number). All corrupt rows are equal. With ``own=True``, :math:`g \to g - z \sigma`:
    each corrupt row keeps its own noise, so no row stands out by having twins.

    The attack is omniscient: it knows the honest rows. Baruch et al. estimate both moments from the corrupt workers'
    own gradients instead.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    z : float, default=1.5
        Number of standard deviations from the mean, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.
    own : bool, default=False
        True: shift each corrupt row's own gradient. False: shift the honest mean, which all corrupt rows send.

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
