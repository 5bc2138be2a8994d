"""Min-sum: Byzantine workers whose squared distances to the honest ones add up to no more than one of theirs."""

from __future__ import annotations

import torch

from skbgmd.corruption.gradients.optimized import Optimized, larger_root


class MinSum(Optimized):
    r"""Min-sum: as far from the honest mean as an honest row's sum of squared distances allows.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \sum_i \lVert \mu + \gamma p - g_i \rVert^2 \le \max_j \sum_i \lVert g_i - g_j \rVert^2 ,

    where i and j are honest. This :math:`\gamma` is a root of one quadratic. All corrupt rows are equal. The attack is
    omniscient: it knows the honest rows.

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
    >>> from skbgmd.corruption import MinSum
    >>> MinSum(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_sum_length(products, along, square)


def min_sum_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-sum attack.

    The sum of the h quadratics of a min-max attack,
    :math:`h \gamma^2 \lVert p \rVert^2 - 2 \gamma \sum_i \langle p, \delta_i \rangle + \sum_i \lVert \delta_i
    \rVert^2 \le \max_j \sum_i \lVert \delta_i - \delta_j \rVert^2`.

    Parameters
    ----------
    products, along, square
        As for :func:`skbgmd.corruption.gradients.min_max.min_max_length`.
    """
    squares, h = products.diagonal(), len(along)
    largest = (squares.sum() + h * squares - 2.0 * products.sum(dim=1)).max()
    return float(larger_root(h * square, along.sum(), largest - squares.sum())) if square > 0.0 else 0.0
