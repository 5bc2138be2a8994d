"""Sign flips: gradients of ordinary length that point the wrong way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd.corruption.gradients.base import GradientCorruption


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
