"""Memory filler: a small push that never tires, where no block looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import (
    GradientCorruption,
    block_size,
    clipped_scores,
    mean_of_rows,
    multiply_add,
    std_of_rows,
    to_order_one,
)


class MemoryFiller(GradientCorruption):
    r"""Slow memory filler: corrupt rows are their own plus a small push of one sign on the columns of least score.

    .. math:: g_{ij} \to g_{ij} + \kappa \sigma_j \quad \text{for } j \in L .

    It targets memories of the columns that a block left out (error feedback). L is the share of the columns with the
    lowest scores, which a block takes last. The scores are those of honest rows, clipped to their median norm.
    :math:`\sigma_j` is the standard deviation of a column over the honest rows. At no step is a row out of the
    ordinary. But pushes of the same sign add up in a memory, and the noise doesn't. The attack is omniscient: it knows
    the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    push : float, default=0.5
        Size κ of the push in standard deviations, finite. Its sign is the sign of the push.
    share : float, default=0.5
        Share of the columns in L, in (0, 1].
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MemoryFiller
    >>> gradients = torch.tensor([[9.0, 1.0], [9.0, 3.0], [9.0, 2.0], [9.0, 1.0], [9.0, 3.0]])
    >>> MemoryFiller(fraction=0.2, random_state=0)(gradients)[2]
    tensor([9.0000, 2.5000])
    """

    omniscient = True

    def __init__(
        self,
        fraction: float = 0.2,
        push: float = 0.5,
        share: float = 0.5,
        random_state: Any = None,
        corrupt: Any = None,
    ) -> None:
        self.fraction, self.push, self.share = fraction, push, share
        self.random_state, self.corrupt = random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.push, "push", above=-float("inf"))
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        d = gradients.shape[1]
        scores = clipped_scores(to_order_one(gradients[honest])[0])
        taken = scores.topk(d - block_size(self.share, d)).indices
        push = std_of_rows(gradients, honest, mean_of_rows(gradients, honest)).index_fill_(0, taken, 0.0)
        return multiply_add(push, self.push, gradients[corrupt].to(push.dtype)).to(gradients.dtype)
