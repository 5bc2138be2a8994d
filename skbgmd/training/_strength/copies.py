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
    learnt by heart is predicted, and a neighbor at no distance tells it. Equal inputs with different targets are
    samples of their own, for no input tells these apart. So are those of the few categories that there may be, of which
    a part would have to do without all samples: equal inputs of more than ``limits.LARGEST_COPIES`` of their stratum.

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
    >>> X = np.r_[np.arange(40.0), [7.0, 8.0]][:, None]
    >>> first_copies(X, np.r_[np.zeros(41), 1.0], np.zeros(42, dtype=int))[-2:]
    array([ 7, 41])
    """
    own = np.arange(len(y))
    rows = _numbered_inputs(X)
    if rows is None or len(y) < 2:
        return own
    _, first, row, sizes = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(y):
        return own
    targets = [strata] if y.dtype.kind not in "fiub" else [strata, _numbered(y)]
    differs = np.any([target != target[first][row] for target in targets], axis=0)
    most = limits.LARGEST_COPIES * np.bincount(strata)[strata[first]]
    are_copies = (np.bincount(row, differs) == 0) & (sizes <= most)
    return np.where(are_copies[row], first[row], own)


def _numbered_inputs(X: Any) -> NDArray[np.int64] | None:
    """A number of each sample (n,), of equal inputs the same; None: nothing says whether they are equal."""
    parts, n = arrays_of(X), n_samples(X)
    n_parts = len(X) if isinstance(X, (Mapping, SeveralInputs)) else 1
    if len(parts) < n_parts or any(part.dtype.kind not in "fiubUS" or part.shape[0] != n for part in parts):
        return None
    numbers = [_numbered(part) for part in parts if part.size]
    return (_numbered(np.column_stack(numbers)) if len(numbers) > 1 else numbers[0]) if numbers else None


def _numbered(part: Any) -> NDArray[np.int64]:
    """A number of each row (n,): 64 bits of its bytes, of a million that differ hardly ever twice the same."""
    written = _sparse_rows(part) if is_sparse(part) else _rows(part)
    return np.fromiter(map(hash, written), np.int64, part.shape[0])


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
