"""Weights of clients by the numbers of examples that they claim to have."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.gram import low_median


def read_claim(value: Any, name: str = "num-examples") -> float:
    """Read the number of examples that a client claims to have.

    Parameters
    ----------
    value : object
        What the client sent.
    name : str, default="num-examples"
        Its name, for the error.

    Returns
    -------
    claim : float
        Finite and at least zero.

    Raises
    ------
    ValueError
        For anything but a number, and for a number that is negative, NaN or infinite.

    Examples
    --------
    >>> read_claim(120)
    120.0
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            claim = float(value)
        except OverflowError:
            claim = math.inf
        if 0.0 <= claim < math.inf:
            return claim
    # A text or list of any length may come from a client.
    raise ValueError(f"{name!r} must be a finite number of at least zero; found {repr(value)[:40]}")


def cap_claims(claims: FloatArray, max_claim: float | None = 1.0) -> FloatArray:
    r"""Cap clients' claimed numbers of examples at a multiple of the median claim.

    With the median m of the claims :math:`n_i > 0` (the lower median of an even number) and the multiple c, a client
    weighs

    .. math:: w_i = \min(n_i, \max(c m, \min_{n_j > 0} n_j)).

    As long as more than half of the claims are true, :math:`c m` is at most c times a true claim: no lie is worth more
    than the claim of a client of ordinary size. This doesn't limit the weight of *several* clients together: fewer than
    half of the clients may outweigh the others, if most of the others have few examples.

    Parameters
    ----------
    claims : ndarray of shape (k,)
        Claimed numbers of examples, finite and at least zero.
    max_claim : float or None, default=1.0
        The multiple c. 0: the same weight for each client that has examples. None: no cap.

    Returns
    -------
    capped : ndarray of shape (k,)
        Capped numbers of examples.

    Examples
    --------
    >>> cap_claims(np.array([100.0, 50.0, 200.0, 1e18, 0.0]))
    array([100.,  50., 100., 100.,   0.])
    """
    positive = claims[claims > 0.0]
    if max_claim is None or len(positive) == 0:
        return claims
    # A product beyond the range of numbers is no cap.
    with np.errstate(over="ignore"):
        cap = max(max_claim * low_median(positive), float(positive.min()))
    capped: FloatArray = np.minimum(claims, cap)
    return capped


def n_distrusted(weights: FloatArray, claimed: FloatArray) -> int:
    """Count the clients whose weight is less than half of what a plain mean would give them.

    Parameters
    ----------
    weights : ndarray of shape (k,)
        Weights in the aggregate, adding up to one.
    claimed : ndarray of shape (k,)
        Weights by their claims, one of them positive.

    Examples
    --------
    >>> n_distrusted(np.array([0.45, 0.45, 0.1, 0.0]), np.array([5.0, 5.0, 5.0, 5.0]))
    2
    """
    return int((weights < limits.DISTRUSTED * claimed / claimed.sum()).sum())
