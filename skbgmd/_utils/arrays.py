"""The door: a caller's array becomes a torch tensor, and the answer becomes the caller's kind of array again."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils._missing import is_pandas_na

P = ParamSpec("P")
R = TypeVar("R")


def _autocasts(kind: str) -> bool:
    """Whether this version of torch knows of autocast on a type of devices."""
    try:
        torch.is_autocast_enabled(kind)
    except RuntimeError:
        return False
    return True


#: Types of devices on which torch may multiply in other dtypes than it is given.
AUTOCAST = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if _autocasts(kind))


@dataclass(frozen=True)
class Caller:
    """What the caller handed in, so that the answer comes back in kind.

    Attributes
    ----------
    dtype : numpy.dtype or torch.dtype
        Floating dtype of the answer: the input's own, float64 for integers and booleans.
    difference : ndarray of shape (n, d), or None
        What the rows lost where they have more digits than float64; None: nothing.
    """

    dtype: Any
    difference: NDArray[np.float64] | None = None

    def lost(self, columns: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64] | None:
        """Lengths (n,) of what the rows lost on some columns; None: nothing."""
        return None if self.difference is None else np.linalg.norm(self.difference[:, columns], axis=1)

    @property
    def rounded_to(self) -> torch.dtype:
        """The dtype that float64 numbers are rounded to when they are given."""
        if isinstance(self.dtype, torch.dtype):
            return self.dtype
        return {2: torch.float16, 4: torch.float32}.get(self.dtype.itemsize, torch.float64)

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """Numbers in the dtype of the answer, still a tensor."""
        return values.to(self.rounded_to)

    def give(self, values: torch.Tensor | NDArray[Any]) -> Any:
        """Numbers in the caller's kind of array and dtype, on the device they are on."""
        if isinstance(self.dtype, torch.dtype):
            return torch.as_tensor(values).to(self.dtype)
        values = values.numpy(force=True) if isinstance(values, torch.Tensor) else values
        return values.astype(self.dtype)

    def give_weights(self, weights: NDArray[np.float64], device: torch.device) -> Any:
        """Weights in the caller's kind of array; in single precision at least, or they don't add up to one."""
        if not isinstance(self.dtype, torch.dtype):
            return weights.astype(np.promote_types(self.dtype, np.float32))
        return torch.as_tensor(weights, dtype=torch.promote_types(self.dtype, torch.float32), device=device)


def as_matrix(X: ArrayLike | torch.Tensor, name: str = "X") -> tuple[torch.Tensor, Caller]:
    """Take a matrix as a tensor of a floating dtype, without a copy where that is possible.

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        Real numbers. Values are not looked at: whether they are finite is found out on the way.
    name : str, default="X"
        Name of the parameter, for errors.

    Returns
    -------
    matrix : tensor of shape (n, d)
        On the caller's device; detached.
    caller : Caller

    Raises
    ------
    TypeError
        For sparse, complex, object or text data.
    ValueError
        For other than two dimensions, no rows or no columns.
    """
    if isinstance(X, torch.Tensor):
        return _as_tensor_matrix(X, name)
    array = as_real_array(X, name)
    _check_shape(array.shape, name)
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.dtype(np.float64)
    work = dtype if dtype.itemsize <= 8 else np.dtype(np.float64)
    # Torch knows no foreign byte order.
    given = array
    if array.dtype != work:
        array = _in_float64(array, name) if work == np.float64 else array.astype(work)
    caller = Caller(dtype, None if given is array else _difference(given, array))
    # Nor strides that lead backwards or to the midst of a number. Where there is but one row NumPy takes any stride for
    # contiguous, and only a copy has another.
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy(order="C")
    if array.flags.writeable:
        return torch.from_numpy(array), caller
    with warnings.catch_warnings():
        # A read-only array is fine: nothing here writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array), caller


def as_real_array(X: Any, name: str) -> NDArray[Any]:
    """Take real numbers of any shape and dtype as an array.

    Raises
    ------
    TypeError
        For sparse, complex, object or text data, dates and durations.
    ValueError
        For masked entries; for sequences of unequal lengths.
    """
    if issparse(X):
        raise TypeError(f"{name} must be a dense array; found a sparse one of type {type(X).__name__}.")
    refuse_masks_and_dates(X, name)
    try:
        array = _of_nullable(X) if hasattr(X, "iloc") else np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular table of numbers; {error}.") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; found dtype {array.dtype}.")
    return array


def refuse_masks_and_dates(values: Any, name: str) -> None:
    """Raise an error for what NumPy would take for numbers without a word.

    Raises
    ------
    TypeError
        For dates and durations, in an array or in a column of a data frame.
    ValueError
        For masked entries.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} must have no masked entries; found {int(values.mask.sum())} of them.")
    for dtype in _dtypes(values):
        if getattr(dtype, "kind", "O") in "mM":
            raise TypeError(f"{name} must hold no dates or durations; found dtype {dtype}.")


def refuse_missing(values: Any, name: str) -> None:
    """Raise an error for None, NA or NaN among labels; of NaN in arrays of numbers others tell.

    Raises
    ------
    ValueError
    """
    if hasattr(values, "isna"):
        missing = np.asarray(values.isna())
    elif getattr(values, "dtype", None) is not None and values.dtype != np.dtype(object):
        return
    else:
        flat = np.asarray(values, dtype=object)
        missing = np.array([_is_missing(value) for value in flat.ravel()], dtype=bool).reshape(flat.shape)
    if missing.any():
        first = int(missing.argmax()) // (missing.size // len(missing))
        raise ValueError(f"{name} must have no missing values; found None, NA or NaN at position {first}.")


def _is_missing(value: Any) -> bool:
    return value is None or is_pandas_na(value) or (isinstance(value, float) and value != value)


def _dtypes(values: Any) -> list[Any]:
    """Dtypes of an array, a series, or the columns of a data frame."""
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        return list(values.dtypes)
    return [values.dtype] if hasattr(values, "dtype") else []


def _of_nullable(frame: Any) -> NDArray[Any]:
    """The array of a data frame or series; of dtypes that know missing values, one of numbers with NaN for these."""
    array = np.asarray(frame)
    if array.dtype.kind == "O" and all(getattr(dtype, "kind", "O") in "fiub" for dtype in _dtypes(frame)):
        return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))
    return array


def _in_float64(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        converted: NDArray[np.float64] = array.astype(np.float64, copy=False)
    if array.dtype.kind == "f" and array.itemsize > 8:
        beyond = np.isinf(converted) & np.isfinite(array)
        if beyond.any():
            raise ValueError(f"{name} must hold numbers that float64 has; found {array[beyond][0]!s}.")
    return converted


def _difference(given: NDArray[Any], converted: NDArray[Any]) -> NDArray[np.float64] | None:
    """Digits that numbers with more of them than float64 has lost in it; None where none are."""
    if given.dtype.itemsize < 8 or given.dtype == converted.dtype or not np.isfinite(converted).all():
        return None
    if given.dtype.kind in "iu":
        # An integer of 64 bits is a high part and a low one, both of them exact.
        high, low = given >> 32, given & 0xFFFFFFFF
        difference = np.asarray((high * 2.0**32 - converted) + low, dtype=np.float64)
    else:
        difference = np.asarray(given - converted, dtype=np.float64)
    return difference if difference.any() else None


def _as_tensor_matrix(X: torch.Tensor, name: str) -> tuple[torch.Tensor, Caller]:
    if X.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor; found layout {X.layout}.")
    if X.is_complex() or X.is_quantized:
        raise TypeError(f"{name} must hold real numbers; found dtype {X.dtype}.")
    _check_shape(tuple(X.shape), name)
    X = X.detach()
    if X.is_floating_point():
        return X, Caller(X.dtype)
    converted = X.double()
    if X.dtype not in (torch.int64, torch.uint64):
        return converted, Caller(torch.float64)
    return converted, Caller(torch.float64, _difference(X.cpu().numpy(), converted.cpu().numpy()))


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2:
        raise ValueError(f"{name} must have two dimensions, rows and columns; found shape {shape}.")
    if 0 in shape:
        raise ValueError(f"{name} must have at least one row and one column; found shape {shape}.")


def as_weights(
    sample_weight: ArrayLike | torch.Tensor | None, n: int, name: str = "sample_weight"
) -> NDArray[np.float64]:
    """Take row weights as a float64 array whose largest entry is one; all ones for None.

    Raises
    ------
    TypeError
        For other than real numbers.
    ValueError
        For a wrong shape, negative or non-finite entries, or no positive one.
    """
    if sample_weight is None:
        return np.ones(n)
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu()
        # NumPy has no bfloat16.
        sample_weight = (sample_weight.float() if sample_weight.dtype == torch.bfloat16 else sample_weight).numpy()
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
    result: NDArray[np.float64] = (weights / weights.max()).astype(np.float64)
    return result


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to multiply in the dtypes it is given, even where it is called under autocast.

    What is proved of a median, or computed of factors, rests on products in single precision or better.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = [kind for kind in AUTOCAST if torch.is_autocast_enabled(kind)]
        if not enabled:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in enabled:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return wrapper


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Uninitialised memory for numbers that are about to be written.

    On a CPU it is NumPy's, which asks for huge pages: first touching it then costs less.
    """
    if device.type == "cpu" and dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.empty(shape, dtype=np.float32 if dtype == torch.float32 else np.float64))
    return torch.empty(shape, dtype=dtype, device=device)


def not_finite(name: str, matrix: torch.Tensor) -> ValueError:
    """The error for a matrix that holds NaN or inf, naming the first such entry."""
    row = next(i for i in range(len(matrix)) if not bool(torch.isfinite(matrix[i]).all()))
    column = int(torch.isfinite(matrix[row]).int().argmin())
    found = "NaN" if bool(matrix[row, column].isnan()) else "inf"
    return ValueError(f"{name} must be finite; found {found} at row {row}, column {column}.")


def check_number(value: Any, name: str, *, above: float = 0.0, at_most: float = float("inf")) -> float:
    """A real number in (above, at_most]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; found {value!r}.")
    number = float(value)
    if not (above < number <= at_most and number < float("inf")):
        limit = f" and at most {at_most:g}" if at_most < float("inf") else " and finite"
        raise ValueError(f"{name} must be greater than {above:g}{limit}; found {value!r}.")
    return number


def check_integer(value: Any, name: str, *, at_least: int = 1) -> int:
    """An integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; found {value!r}.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}; found {value!r}.")
    return int(value)


def check_choice(value: Any, name: str, choices: tuple[str | None, ...]) -> Any:
    """One of a few names, or None where that is one of them."""
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}.")
    return value
