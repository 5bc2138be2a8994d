"""Simplex: an attack in common whose corrupt rows look unrelated to one another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd._utils.random import torch_generator
from skbgmd.corruption.gradients.base import GradientCorruption, scaled, times_power, to_order_one


class Simplex(GradientCorruption):
    r"""Simplex: ALIE's common shift, hidden by corners of a simplex that make corrupt rows orthogonal to one another.

    It targets rules that look for rows in agreement, by inner products about the mean; such rules find equal corrupt
    rows. Here the c corrupt rows share the shift :math:`s = -z \sigma` of :class:`ALittleIsEnough`. Each adds a corner
    :math:`v_i` of a regular simplex about zero, orthogonal to s and otherwise random. The size of the simplex makes the
    products vanish:

    .. math:: g_i \to \mu + s + v_i, \qquad \sum_i v_i = 0, \qquad
        \langle s + v_i, s + v_j \rangle = \lVert s \rVert^2 - \frac{\lVert v \rVert^2}{c - 1} = 0 .

    The mean of the corrupt rows keeps the full shift, and each row is :math:`\sqrt{c} \, \lVert s \rVert` from
    :math:`\mu`. In fewer than c + 1 columns there is no such simplex, and the products vanish only roughly. The attack
    is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    z : float, default=None
        Number of standard deviations from the mean, positive. None: :math:`1 / \sqrt{c}`, at which the corrupt rows are
        as far from the mean as honest rows are in the root mean square.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows and the directions, unless a call passes its own. None: a fresh one each time;
        the global state is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Simplex
    >>> gradients = torch.randn(20, 500, generator=torch.Generator().manual_seed(0))
    >>> attacked = gradients.clone()
    >>> corrupt = Simplex(fraction=0.2).apply_(attacked, random_state=0)
    >>> honest = [i for i in range(20) if i not in corrupt.tolist()]
    >>> centered = attacked[corrupt] - attacked[honest].mean(dim=0)
    >>> products = centered @ centered.T
    >>> bool((products - products.diag().diag()).abs().max() < 1e-3 * products.diag().min())
    True
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
        mean, c = rows.mean(dim=0), len(corrupt)
        shift = scaled(rows.std(dim=0, correction=0), -(c**-0.5 if self.z is None else float(self.z)))
        noise = torch.randn(
            (c, len(mean)), generator=torch_generator(rng, mean.device), dtype=mean.dtype, device=mean.device
        )
        length = torch.linalg.vector_norm(shift) * math.sqrt(c - 1.0)
        made = mean + shift + length * simplex(noise, shift)
        return times_power(made, exponent).to(gradients.dtype)


def simplex(directions: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Corners (c, d) of a regular simplex about zero, of length one, orthogonal to a vector (d,).

    Parameters
    ----------
    directions : tensor of shape (c, d)
        Random directions, which the corners come near. If d is not greater than c, the corners add up to zero and are
        of length one or, by the centering, about that.
    normal : tensor of shape (d,)
        Of any length, zero included.
    """
    c, d = directions.shape
    if c == 1:
        return torch.zeros_like(directions)
    if d > c:
        spanned = torch.linalg.qr(torch.cat([normal[None], directions]).T).Q.T
        directions = spanned[1:]
    else:
        directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    return (directions - directions.mean(dim=0)) * math.sqrt(c / (c - 1.0))
