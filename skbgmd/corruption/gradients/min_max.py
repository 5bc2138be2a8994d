"""Min-max: Byzantine workers no farther from any honest one than two of these are."""

from __future__ import annotations

import torch

from skbgmd.corruption.gradients.optimized import Optimized, larger_root


class MinMax(Optimized):
    r"""Min-max: as far from the honest mean as possible, and no farther from honest rows than two of these are apart.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \max_i \lVert \mu + \gamma p - g_i \rVert \le \max_{i, j} \lVert g_i - g_j \rVert ,

    where i and j are honest. Each row bounds :math:`\gamma` by a root of a quadratic; the attack takes the smallest
    root, without bisection. All corrupt rows are equal. The attack is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    direction : {"std", "sign", "unit"}, default="std"
        The perturbation p: minus the columns' standard deviations, minus the signs of the mean, or minus the mean
        divided by its length.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MinMax
    >>> MinMax(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_max_length(products, along, square)


def min_max_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-max attack.

    With :math:`\delta_i = g_i - \mu` and D the largest distance among the rows, row i asks for
    :math:`\gamma^2 \lVert p \rVert^2 - 2 \gamma \langle p, \delta_i \rangle + \lVert \delta_i \rVert^2 \le D^2`.
    The mean is within D of every row, so that zero is a solution of each, and the least of the larger roots is one of
    all.

    Parameters
    ----------
    products : tensor of shape (h, h), float64
        Inner products of the :math:`\delta_i`.
    along : tensor of shape (h,), float64
        Their inner products with p.
    square : float
        :math:`\lVert p \rVert^2`. If it is zero there is nowhere to go, and the answer is zero.
    """
    squares = products.diagonal()
    slack = (squares[:, None] + squares - 2.0 * products).max() - squares
    return float(larger_root(square, along, slack).min()) if square > 0.0 else 0.0
