"""Labels in one dtype: of signed and unsigned integers of 64 bits NumPy makes floats, which rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def comparable(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Convert two arrays of labels, where needed, so that NumPy compares them as they are.

    Examples
    --------
    >>> signed, unsigned = np.array([2**62, 2**62 + 1]), np.array([2**62 + 1], dtype=np.uint64)
    >>> np.searchsorted(signed, unsigned), np.searchsorted(*comparable(signed, unsigned))
    (array([0]), array([1]))
    """
    return (one.astype(object), other.astype(object)) if _would_be_rounded((one, other)) else (one, other)


def common_dtype(*labels: NDArray[Any]) -> np.dtype[Any]:
    """Find a dtype that holds arrays of labels as they are.

    Raises
    ------
    ValueError
        They are integers, and no dtype of integers holds all of them.
    """
    if not _would_be_rounded(labels):
        return np.result_type(*labels)
    found = integers_of([int(label) for array in labels if array.size for label in (array.min(), array.max())])
    if found is None:
        raise ValueError("A dtype of integers must hold all labels; found some below zero and some beyond int64.")
    return found


def integers_of(every: Sequence[int]) -> np.dtype[Any] | None:
    """Find a dtype of 64 bits that holds integers; None: neither does."""
    for kind in (np.int64, np.uint64):
        if not every or (np.iinfo(kind).min <= min(every) and max(every) <= np.iinfo(kind).max):
            return np.dtype(kind)
    return None


def _would_be_rounded(labels: Sequence[NDArray[Any]]) -> bool:
    return all(array.dtype.kind in "iu" for array in labels) and np.result_type(*labels).kind == "f"
