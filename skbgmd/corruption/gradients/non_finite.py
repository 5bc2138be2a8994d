"""Gradients that are NaN or infinite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_choice
from skbgmd.corruption.gradients.base import GradientCorruption

NON_FINITE = {"nan": math.nan, "inf": math.inf}


class NonFinite(GradientCorruption):
    r"""Non-finite rows: NaN or inf, as after an overflow or a broken transfer.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    value : {"nan", "inf"}, default="nan"
        Number that the rows hold.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

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
