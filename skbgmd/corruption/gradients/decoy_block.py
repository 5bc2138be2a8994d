"""Decoy block: some corrupt workers hold the block of columns, for others to turn around elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, block_size, scaled
from skbgmd.corruption.gradients.constant_rows import hold_block


class DecoyBlock(GradientCorruption):
    r"""Split adversary: decoys own the block; the others are honest on it and turn around everywhere else.

    It targets block methods that carry weights from the block over to the other columns. Of c corrupt rows,
    :math:`\lceil c / 2 \rceil` are decoys: they hold :math:`\pm v` on the first :math:`k = \max(1, \lceil s d \rceil)`
    columns, with alternating signs. The others hold :math:`\lambda g` on all other columns. The rest of each row is
    honest.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    value : float, default=1e9
        Size v of the decoys' entries, positive.
    scale : float, default=-1000.0
        Factor λ, finite.
    share : float, default=0.1
        Share s of the columns that decoys hold, in (0, 1].
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import DecoyBlock
    >>> DecoyBlock(fraction=0.4, value=1e3, share=0.5, random_state=0)(torch.ones(5, 4))
    tensor([[ 1000., -1000.,     1.,     1.],
            [    1.,     1.,     1.,     1.],
            [    1.,     1., -1000., -1000.],
            [    1.,     1.,     1.,     1.],
            [    1.,     1.,     1.,     1.]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        value: float = 1e9,
        scale: float = -1000.0,
        share: float = 0.1,
        random_state: Any = None,
        corrupt: Any = None,
    ) -> None:
        self.fraction, self.value, self.scale, self.share = fraction, value, scale, share
        self.random_state, self.corrupt = random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.value, "value")
        check_number(self.scale, "scale", above=-math.inf)
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        rows, k = gradients[corrupt], block_size(self.share, gradients.shape[1])
        n_decoys = -(-len(rows) // 2)
        hold_block(rows[:n_decoys], k, self.value)
        rows[n_decoys:, k:] = scaled(rows[n_decoys:, k:], self.scale)
        return rows
