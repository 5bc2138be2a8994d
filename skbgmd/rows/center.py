"""The center that products of rows are about: whether it lies among the majority, and which row does."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray


def lies_among(products: FloatArray, center: int) -> bool:
    """Tell whether the row that products are about lies among the others, rather than far from all of them.

    Seen from far away, the others are in one direction, and products tell little of how far apart they are. Where
    they aren't finite, they tell nothing.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        Inner products of the differences from the row.
    center : int
        Its number.

    Examples
    --------
    >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> lies_among(rows @ rows.T, 0), lies_among((rows - 1e6) @ (rows - 1e6).T, 0)
    (True, False)
    """
    n = len(products)
    some = np.arange(0, n, -(-n // limits.CENTER_SAMPLE_ROWS))
    some = some[some != center]
    if not len(some):
        return True
    with np.errstate(all="ignore"):
        distances = np.sqrt(products[some, some])
        cosines = products[np.ix_(some, some)] / distances[:, None] / distances
    if 2 * np.count_nonzero(np.isfinite(distances)) < len(some):
        return False
    # Copies of the center are nowhere else, and a row says nothing of its own direction.
    cosines[(distances == 0.0) | (distances[:, None] == 0.0)] = 0.0
    np.fill_diagonal(cosines, -np.inf)
    # Of a row that isn't finite nothing is known.
    cosines[np.isnan(cosines)] = np.inf
    half = len(some) // 2
    return bool(np.partition(np.partition(cosines, half, axis=1)[:, half], half)[half] < 1.0 - limits.FAR_CENTER)


def central_line(sample: FloatArray) -> int | None:
    """Find the line of a sample (n, k) that lies among the majority; None if zero does."""
    largest = np.abs(sample).max(axis=1, initial=0.0)
    finite = np.flatnonzero(largest < np.inf)  # NaN isn't
    if not len(finite):
        return None
    # Scaled, so that no square overflows.
    sample = sample[finite] / max(largest[finite].max(), 1e-300)
    chosen = np.arange(0, len(finite), -(-len(finite) // limits.CENTER_CANDIDATES))
    squares = np.einsum("ij,ij->i", sample, sample)
    # By torch, as all products: two libraries' idle threads would fight over the cores.
    products = (torch.from_numpy(sample[chosen]) @ torch.from_numpy(sample).T).numpy()
    distances = np.vstack([squares, squares[chosen, None] + squares - 2.0 * products])
    half = len(finite) // 2
    nearest = int(np.partition(distances, half, axis=1)[:, half].argmin())
    return None if nearest == 0 else int(finite[chosen[nearest - 1]])
