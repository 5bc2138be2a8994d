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
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

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
