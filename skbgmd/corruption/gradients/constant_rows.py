"""Constant rows: corrupt workers that hold the same block of columns at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, block_size


class ConstantRows(GradientCorruption):
    r"""Fixed huge block: corrupt rows hold :math:`\pm v` on the same columns at every step, and are honest elsewhere.

    It targets block methods: these columns have by far the largest norms, so a selection by plain norms takes them and
    no others. They are the first :math:`k = \max(1, \lceil s d \rceil)` columns, with alternating signs.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    value : float, default=1e6
        Size v of the entries, positive.
    share : float, default=0.1
        Share s of the columns, in (0, 1]. With 1, the rows are constant except for signs.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ConstantRows
    >>> ConstantRows(fraction=0.4, value=1e3, share=0.5, random_state=0)(torch.zeros(3, 4))
    tensor([[    0.,     0.,     0.,     0.],
            [    0.,     0.,     0.,     0.],
            [ 1000., -1000.,     0.,     0.]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        value: float = 1e6,
        share: float = 0.1,
        random_state: Any = None,
        corrupt: Any = None,
    ) -> None:
        self.fraction, self.value, self.share, self.random_state, self.corrupt = (
            fraction,
            value,
            share,
            random_state,
            corrupt,
        )

    def _check_parameters(self) -> None:
        check_number(self.value, "value")
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return hold_block(gradients[corrupt], block_size(self.share, gradients.shape[1]), self.value)


def hold_block(rows: torch.Tensor, k: int, value: float) -> torch.Tensor:
    """Overwrite the first k columns by ± value, or the largest number of the dtype."""
    value = min(value, torch.finfo(rows.dtype).max)
    rows[:, 0:k:2] = value
    rows[:, 1:k:2] = -value
    return rows
