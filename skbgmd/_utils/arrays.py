"""Conversion of a caller's arrays to torch tensors, and of the answer to the caller's kind of array."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from torch.utils._pytree import tree_map_only

from skbgmd._utils.checks import as_numpy, brief, check_tensor, refuse_masks, refuse_masks_and_dates
from skbgmd._utils.columns import find_odd
from skbgmd._utils.frames import as_frame, dtype_of, is_table
from skbgmd._utils.transfer import as_tensor


@dataclass(frozen=True)
class OutputFormat:
    """Kind of array and dtype that the caller gave, for the answer to be converted to.

    Attributes
    ----------
    dtype : numpy.dtype or torch.dtype
        Floating dtype of the answer: the input's own, float64 for integers and booleans.
    difference : ndarray of shape (n, d), or None
        Digits that the rows lost in float64; None: none.
    """

    dtype: Any
    difference: NDArray[np.float64] | None = None

    def lost(self, columns: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64] | None:
        """Norms (n,) of the digits that the rows lost on some columns; None: none."""
        return None if self.difference is None else np.linalg.norm(self.difference[:, columns], axis=1)

    @property
    def rounded_to(self) -> torch.dtype:
        """Torch's dtype of the answer."""
        if isinstance(self.dtype, torch.dtype):
            return self.dtype
        return {2: torch.float16, 4: torch.float32}.get(self.dtype.itemsize, torch.float64)

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """Round a tensor to the dtype of the answer."""
        return values.to(self.rounded_to)

    def convert(self, values: torch.Tensor | NDArray[Any]) -> Any:
        """Convert numbers to the caller's kind of array and dtype, on the device they are on."""
        if isinstance(self.dtype, torch.dtype):
            return as_tensor(values, self.dtype)
        values = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
        return values.astype(self.dtype)

    def convert_weights(self, weights: NDArray[np.float64], device: torch.device) -> Any:
        """Convert weights to the caller's kind of array, in single precision at least, or they don't add up to one."""
        if not isinstance(self.dtype, torch.dtype):
            return weights.astype(np.promote_types(self.dtype, np.float32))
        return torch.as_tensor(weights, dtype=torch.promote_types(self.dtype, torch.float32), device=device)


def as_matrix(X: ArrayLike | torch.Tensor, name: str = "X") -> tuple[torch.Tensor, OutputFormat]:
    """Convert a matrix to a tensor of a floating dtype, without a copy where that is possible.

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        Real numbers. They may be NaN or inf: that is found later, at no extra pass.
    name : str, default="X"
        Name of the parameter, for errors.

    Returns
    -------
    matrix : tensor of shape (n, d)
        On the caller's device; detached.
    caller : OutputFormat

    Raises
    ------
    TypeError
        For sparse, complex, object or text data, dates and durations.
    ValueError
        For other than two dimensions, no rows or no columns, masked entries.
    """
    if isinstance(X, torch.Tensor):
        refuse_masks(X, name)
        return _as_tensor_matrix(X, name)
    array = as_real_array(X, name)
    _check_shape(array.shape, name)
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.dtype(np.float64)
    work = dtype if dtype.itemsize <= 8 else np.dtype(np.float64)
    # Torch doesn't take foreign byte orders.
    given = array
    if array.dtype != work:
        array = _in_float64(array, name) if work == np.float64 else array.astype(work)
    caller = OutputFormat(dtype, None if given is array else _difference(given, array))
    # Nor does it take negative strides, or strides into the midst of a number. NumPy takes any stride of a single row
    # for contiguous, so only a copy has another.
    of_rows, of_columns = array.strides
    if min(of_rows, of_columns) < 0 or of_rows % array.itemsize or of_columns % array.itemsize:
        array = array.copy(order="C")
    if array.flags.writeable:
        return torch.from_numpy(array), caller
    with warnings.catch_warnings():
        # A read-only array is fine: nothing here writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array), caller


def as_real_array(X: Any, name: str) -> NDArray[Any]:
    """Convert real numbers of any shape and dtype to an array.

    Raises
    ------
    TypeError
        For sparse, complex, object or text data, dates and durations.
    ValueError
        For masked entries; for sequences of unequal lengths.
    """
    if type(X) is np.ndarray and X.dtype.kind in "fiub":
        return X
    if issparse(X):
        raise TypeError(f"{name} must be a dense array; found a sparse one of type {type(X).__name__}.")
    refuse_masks_and_dates(X, name)
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular table of numbers; {error}.") from error
    except (RuntimeError, TypeError):
        # Among them are tensors that NumPy doesn't take: with a gradient, on another device or of another dtype.
        array = np.asarray(tree_map_only(torch.Tensor, partial(_of_tensor, name=name), X))
    if array.dtype.kind not in "fiub" and is_table(type(X)):
        array = _of_columns(X)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; found {_odd(X, array.dtype)}.")
    return array


def _odd(X: Any, dtype: np.dtype[Any]) -> str:
    """Describe for an error an entry or a dtype that isn't of real numbers, with its column in a table."""
    column, entry = (find_odd(X) if dtype.kind in "OUS" else None) or (None, None)
    found = f"dtype {dtype}" if entry is None else brief(entry)
    frame = as_frame(X)
    if entry is None and frame is not None:
        column, found = next(
            (label, f"dtype {dtype_of(held)}") for label, held in frame if _of_nullable(held).dtype.kind not in "fiub"
        )
    return found if column is None else f"{found} in column {column!r}"


def _of_tensor(values: torch.Tensor, name: str) -> NDArray[Any]:
    check_tensor(values, name)
    array: NDArray[Any] = as_numpy(values, name)
    return array


def _of_columns(table: Any) -> NDArray[Any]:
    """Convert a data frame or a column, with NaN for missing values of nullable dtypes."""
    frame = as_frame(table)
    if frame is None:
        return _of_nullable(table)
    columns = [_of_nullable(held) for _, held in frame]
    # Of columns with several numbers a row, objects.
    return np.column_stack(columns) if all(column.ndim == 1 for column in columns) else np.asarray(table)


def _of_nullable(column: Any) -> NDArray[Any]:
    array, dtype = np.asarray(column), dtype_of(column)
    if array.dtype.kind != "O" or isinstance(dtype, np.dtype):
        return array
    if getattr(dtype, "kind", "O") in "fiub":  # of pandas
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    # Booleans among missing values, and decimals.
    return array.astype(np.float64) if set(map(type, array)) <= {bool, Decimal, type(None)} else array


def _in_float64(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        converted: NDArray[np.float64] = array.astype(np.float64, copy=False)
    if array.dtype.kind == "f" and array.itemsize > 8:
        beyond = np.isinf(converted) & np.isfinite(array)
        if beyond.any():
            raise ValueError(f"{name} must hold numbers that float64 has; found {array[beyond][0]!s}.")
    return converted


def _difference(given: NDArray[Any], converted: NDArray[Any]) -> NDArray[np.float64] | None:
    """Difference of numbers to their conversion to float64; None where there is none."""
    if given.dtype.itemsize < 8 or given.dtype == converted.dtype or not np.isfinite(converted).all():
        return None
    if given.dtype.kind in "iu":
        # An integer of 64 bits is a high part and a low one, both of them exact.
        high, low = given >> 32, given & 0xFFFFFFFF
        difference = np.asarray((high * 2.0**32 - converted) + low, dtype=np.float64)
    else:
        difference = np.asarray(given - converted, dtype=np.float64)
    return difference if difference.any() else None


def _as_tensor_matrix(X: torch.Tensor, name: str) -> tuple[torch.Tensor, OutputFormat]:
    check_tensor(X, name)
    _check_shape(tuple(X.shape), name)
    # NumPy has no negative bits, as of the imaginary part of a conjugate.
    X = X.detach().resolve_neg()
    if X.is_floating_point():
        return X, OutputFormat(X.dtype)
    converted = X.double()
    if X.dtype not in (torch.int64, torch.uint64):
        return converted, OutputFormat(torch.float64)
    return converted, OutputFormat(torch.float64, _difference(X.cpu().numpy(), converted.cpu().numpy()))


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2:
        raise ValueError(f"{name} must have two dimensions, rows and columns; found shape {shape}.")
    if 0 in shape:
        raise ValueError(f"{name} must have at least one row and one column; found shape {shape}.")


def as_weights(
    sample_weight: ArrayLike | torch.Tensor | None, n: int, name: str = "sample_weight"
) -> NDArray[np.float64]:
    """Convert row weights to a float64 array whose largest entry is one; all ones for None.

    Raises
    ------
    TypeError
        For other than real numbers.
    ValueError
        For a wrong shape, negative or non-finite entries, or no positive one.
    """
    if sample_weight is None:
        ones = np.empty(n)
        ones.fill(1.0)  # a third of the time of np.ones
        return ones
    if isinstance(sample_weight, torch.Tensor):
        refuse_masks(sample_weight, name)
        sample_weight = _of_tensor(sample_weight, name)
    given = as_real_array(sample_weight, name)
    if given.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one weight a row; found shape {given.shape}.")
    weights = given.astype(np.promote_types(given.dtype, np.float64))
    if not np.isfinite(weights).all():
        raise ValueError(f"{name} must be finite; found {weights[~np.isfinite(weights)][0]}.")
    if (weights < 0).any():
        raise ValueError(f"{name} must not be negative; found {weights.min()}.")
    if not weights.any():
        raise ValueError(f"{name} must have a positive entry; found only zeros.")
    # The least of them may be nothing beside the largest.
    with np.errstate(under="ignore"):
        result: NDArray[np.float64] = (weights / weights.max()).astype(np.float64)
    return result
