"""Copies of samples, which tell nothing that the first one doesn't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd.training._data.inputs import SeveralInputs, arrays_of, is_sparse, n_samples


def first_copies(X: Any, y: NDArray[Any], strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """Place of the first copy of each sample (n,): of most, their own.

    Copies have equal inputs and equal targets. What is trained on one of them has seen all: a wrong target that was
    learnt by heart is predicted, and a neighbor at no distance tells it. Others that are alike are samples of their
    own:

    - Equal inputs with different targets, which no input tells apart.
    - Inputs that may be equal by chance, as of categories and counts: no half of the columns is as no other's.
    - All, where fewer than ``limits.CHOICE_SAMPLES`` inputs are different, or there is a single column; and equal ones
      that are more than ``limits.LARGEST_COPIES`` of their stratum. They are levels of a category: of those that are
      held out together a training can't know.

    Parameters
    ----------
    X : ndarray of shape (n, ...), sparse matrix, or several of them
        Inputs, equal by their bytes, zeros of either sign alike. Samples that are had one by one have no copies.
    y : ndarray of shape (n,) or (n, k)
        Targets; those that are no numbers are told apart by their strata.
    strata : ndarray of shape (n,)
        Stratum of each target.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> X, y = np.r_[X, X[7:9]], np.r_[np.zeros(101), 1.0]
    >>> first_copies(X, y, np.zeros(102, dtype=int))[-2:]
    array([  7, 101])
    """
    own = np.arange(len(y))
    if not _have_columns(X):
        return own
    numbers = [_numbered_half(X, half) for half in (0, 1)]
    _, first, row, sizes = np.unique(
        _numbered(np.column_stack(numbers)), return_index=True, return_inverse=True, return_counts=True
    )
    if not limits.CHOICE_SAMPLES <= len(first) < len(y):
        return own
    targets = [strata] if y.dtype.kind not in "fiub" else [strata, _numbered(y)]
    differs = np.any([target != target[first][row] for target in targets], axis=0)
    few = sizes <= limits.LARGEST_COPIES * np.bincount(strata)[strata[first]]
    are_copies = few & (np.bincount(row, differs) == 0) & np.any([_are_single(half[first]) for half in numbers], axis=0)
    return np.where(are_copies[row], first[row], own)


def _have_columns(X: Any) -> bool:
    """True if samples are rows of two and more columns."""
    parts, n = arrays_of(X), n_samples(X)
    n_parts = len(X) if isinstance(X, (Mapping, SeveralInputs)) else 1
    are_known = all(part.dtype.kind in "fiubUS" and part.shape[0] == n for part in parts)
    return n > 0 and len(parts) == n_parts and are_known and sum(np.prod(part.shape[1:]) for part in parts) > 1


def _are_single(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Those that occur once."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray(counts[places] == 1)


def _numbered_half(X: Any, half: int) -> NDArray[np.int64]:
    """A number of each sample (n,), of those with the same in one half of the columns the same."""
    numbers: list[NDArray[np.int64]] = []
    for part in arrays_of(X):
        rows = part.tocsr() if is_sparse(part) else part.reshape(len(part), -1)
        # Of two single columns one is in each half.
        middle = (rows.shape[1] + len(numbers) % 2) // 2
        numbers.append(_numbered(rows[:, middle:] if half else rows[:, :middle]))
    return numbers[0] if len(numbers) == 1 else _numbered(np.column_stack(numbers))


def _numbered(rows: Any) -> NDArray[np.int64]:
    """A number of each row (n,): 64 bits of its bytes, of a million that differ hardly ever twice the same."""
    if not rows.shape[-1]:
        return np.zeros(rows.shape[0], dtype=np.int64)
    return np.fromiter(map(hash, _sparse_rows(rows) if is_sparse(rows) else _rows(rows)), np.int64, rows.shape[0])


def _rows(array: NDArray[Any]) -> Iterator[bytes]:
    """Bytes of the rows, without zeros at their end."""
    rows = array.reshape(len(array), -1)
    step = -(-limits.LENGTHS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        # Zeros have two signs.
        some = np.ascontiguousarray(some + some.dtype.type(0) if some.dtype.kind == "f" else some)
        yield from some.view(f"S{some.dtype.itemsize * some.shape[1]}")[:, 0].tolist()


def _sparse_rows(matrix: Any) -> Iterator[bytes]:
    """Bytes of the rows' numbers other than zero, and of their places."""
    table = matrix.tocsr(copy=True)
    table.sum_duplicates()
    table.eliminate_zeros()
    ends = table.indptr.tolist()
    for start, end in pairwise(ends):
        yield table.indices[start:end].tobytes() + table.data[start:end].tobytes()
