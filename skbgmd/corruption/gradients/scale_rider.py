"""Scale rider: corrupt rows as far off as a remembered scale tolerates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd.corruption.gradients.base import GradientCorruption, times_power, to_order_one


class ScaleRider(GradientCorruption):
    r"""Scale rider: corrupt rows a fixed number of typical distances from the honest mean, against its direction.

    .. math:: g \to \mu - s D \frac{\mu}{\lVert \mu \rVert}, \qquad
        D = \operatorname{median}_i \lVert g_i - \mu \rVert .

    It targets rules that reject rows by their distance in units of a remembered scale, on matrices with a row for each
    sample. Rows that stay just within the cutoff keep full weight, and the scale grows with them. :math:`\mu` and D are
    computed from the honest rows: the attack is omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    scale : float, default=1.8
        Number s of typical distances, positive.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ScaleRider
    >>> ScaleRider(fraction=0.2, scale=2.0, random_state=0)(torch.tensor([[1.0], [3.0], [9.0], [1.0], [3.0]]))
    tensor([[1.],
            [3.],
            [0.],
            [1.],
            [3.]])
    """

    omniscient = True

    def __init__(
        self, fraction: float = 0.2, scale: float = 1.8, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.scale, self.random_state, self.corrupt = fraction, scale, random_state, corrupt

    def _check_parameters(self) -> None:
        check_number(self.scale, "scale")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        rows, exponent = to_order_one(gradients[honest])
        mean = rows.mean(dim=0)
        typical = torch.linalg.vector_norm(rows.sub_(mean), dim=1).median()
        length = torch.linalg.vector_norm(mean)
        factor = torch.where(length > 0.0, typical / length, 0.0) * float(self.scale)
        return times_power(mean - factor * mean, exponent).to(gradients.dtype)
