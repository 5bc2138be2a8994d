"""Constant vote: corrupt rows that elect the block at every step, without being large."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, block_size, times_power, to_order_one


class ConstantVote(GradientCorruption):
    r"""Constant vote for a block: rows of the median honest norm, all of it on the same columns at every step.

    .. math:: g_j \to \frac{\operatorname{median}_i \lVert g_i \rVert}{\sqrt{k}} \quad \text{for } j \le k,
        \qquad 0 \text{ otherwise.}

    It targets selections by scores of clipped rows, which :class:`ConstantRows` doesn't get past. A row of the median
    norm isn't clipped. Its whole score falls on the first :math:`k = \max(1, \lceil s d \rceil)` columns and outweighs
    honest scores that are spread over all columns. The signs are constant, so a memory adds them up. The attack is
    omniscient: it knows the norms of the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    share : float, default=0.1
        Share s of the columns, in (0, 1].
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ConstantVote
    >>> ConstantVote(fraction=0.4, share=0.25, random_state=0)(torch.ones(3, 4))
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.],
            [2., 0., 0., 0.]])
    """

    omniscient = True

    def __init__(
        self, fraction: float = 0.2, share: float = 0.1, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.share, self.random_state, self.corrupt = fraction, share, random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        rows, exponent = to_order_one(gradients[honest])
        k = block_size(self.share, rows.shape[1])
        row = torch.zeros_like(rows[0])
        row[:k] = torch.linalg.vector_norm(rows, dim=1).median() / k**0.5
        return times_power(row, exponent).to(gradients.dtype)
