"""Shadowing: corrupt rows that each follow an honest one of their own, with a small shift in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, scaled, times_power, to_order_one


class Shadowing(GradientCorruption):
    r"""Shadowing: each corrupt worker copies an honest one of its own, always the same, and adds a small lasting shift.

    If honest workers differ for good, corrupt rows then differ from one another as honest ones do, and a memory of
    workers has no camp to see. The j-th of c corrupt rows follows the j-th of the h honest rows; if there are fewer of
    these, it follows the :math:`(j - h)`-th:

    .. math:: g_j \to g_{h(j)} - z \sigma ,

    where :math:`\sigma` is the standard deviation of each column over the honest rows. The attack is omniscient: it
    knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    z : float, default=None
        Number of standard deviations of the shift, positive; None: :math:`1 / \sqrt{c}`.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Shadowing
    >>> gradients = torch.tensor([[0.0, 9.0], [4.0, 0.0], [8.0, 0.0]])
    >>> Shadowing(z=0.5, corrupt=[2])(gradients)
    tensor([[ 0.0000,  9.0000],
            [ 4.0000,  0.0000],
            [-1.0000,  6.7500]])
    """

    omniscient = True

    def __init__(
        self, fraction: float = 0.2, z: float | None = None, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.z, self.random_state, self.corrupt = fraction, z, random_state, corrupt

    def _check_parameters(self) -> None:
        if self.z is not None:
            check_number(self.z, "z")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        rows, exponent = to_order_one(gradients[honest])
        c = len(corrupt)
        shift = scaled(rows.std(dim=0, correction=0), -(c**-0.5 if self.z is None else float(self.z)))
        followed = torch.arange(c, device=rows.device) % len(rows)
        return times_power(rows[followed] + shift, exponent).to(gradients.dtype)
