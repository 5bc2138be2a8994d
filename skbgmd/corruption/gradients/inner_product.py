"""Inner product manipulation: Byzantine workers that send the honest mean the wrong way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import (
    AlongLine,
    mean_of_rows,
    multiply_add,
)


class InnerProduct(AlongLine):
    r"""Inner product manipulation: :math:`g \to -\epsilon \mu`, against the mean of the honest rows.

    Xie, Koyejo & Gupta (2020), *Fall of Empires*. Their small :math:`\epsilon` keeps the corrupt rows near the others.
    With ``own=True``, :math:`g \to g - (1 + \epsilon) \mu`: each corrupt row keeps its own noise about
    :math:`-\epsilon \mu`. The attack is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    epsilon : float, default=1.1
        Length of the corrupt rows, in lengths of the honest mean; positive.
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
