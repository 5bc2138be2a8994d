"""The door: a caller's array becomes a torch tensor, and the answer becomes the caller's kind of array again."""

from __future__ import annotations

import numbers
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from functools import wraps
from itertools import chain
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils import column_or_1d

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

#: Types of dates, times and durations; a time stamp is a date.
DATES = (date, time, timedelta, np.datetime64, np.timedelta64)
#: Sequences that NumPy makes arrays of.
SEQUENCES = (list, tuple, deque)
#: Kinds of arrays, and types of objects, of which none is masked, a date or missing; NaN is for others to tell.
PLAIN_KINDS = "fiubcUS"
PLAIN_TYPES = {bool, int, float, str, np.bool_, np.int32, np.int64, np.float32, np.float64, np.str_}


@dataclass(frozen=True)
class OutputFormat:
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

    def convert(self, values: torch.Tensor | NDArray[Any]) -> Any:
        """Numbers in the caller's kind of array and dtype, on the device they are on."""
        if isinstance(self.dtype, torch.dtype):
            return torch.as_tensor(values).to(self.dtype)
        values = values.numpy(force=True) if isinstance(values, torch.Tensor) else values
        return values.astype(self.dtype)

    def convert_weights(self, weights: NDArray[np.float64], device: torch.device) -> Any:
        """Weights in the caller's kind of array; in single precision at least, or they don't add up to one."""
        if not isinstance(self.dtype, torch.dtype):
            return weights.astype(np.promote_types(self.dtype, np.float32))
        return torch.as_tensor(weights, dtype=torch.promote_types(self.dtype, torch.float32), device=device)


def as_matrix(X: ArrayLike | torch.Tensor, name: str = "X") -> tuple[torch.Tensor, OutputFormat]:
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
    # Torch knows no foreign byte order.
    given = array
    if array.dtype != work:
        array = _in_float64(array, name) if work == np.float64 else array.astype(work)
    caller = OutputFormat(dtype, None if given is array else _difference(given, array))
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


def refuse_masks(values: Any, name: str) -> None:
    """Raise an error for masked entries, wherever they are: NumPy and torch take what is behind a mask for data.

    Raises
    ------
    TypeError
        For a masked tensor of which no entry is masked: torch's functions don't take it.
    ValueError
    """
    if not is_plain(values):
        for part in _parts(values):
            _refuse_mask(part, name)


def refuse_masks_and_dates(values: Any, name: str) -> None:
    """Raise an error for what NumPy would take for numbers without a word, or refuse without saying where it was.

    Raises
    ------
    TypeError
        For dates, times and durations: in an array, in columns of a data frame, or among objects.
    ValueError
        For masked entries, and NA among objects.
    """
    if is_plain(values):
        return
    dates = _date_types()
    for part in _parts(values):
        _refuse_mask(part, name)
        if _is_na(part):
            raise ValueError(f"{name} must have no missing values; found NA, which is no NaN.")
        for dtype in _dtypes(part):
            kind = getattr(dtype, "type", None)
            if isinstance(kind, type) and issubclass(kind, dates):
                raise TypeError(f"{name} must hold no dates or durations; found dtype {dtype}.")
        if isinstance(part, dates):
            raise TypeError(f"{name} must hold no dates or durations; found {part!r}.")


def is_plain(values: Any) -> bool:
    """See at a glance that there are but numbers and text, as there mostly are; False where it takes a closer look."""
    kind = type(values)
    if kind is torch.Tensor or values is None:
        return True
    if kind is np.ndarray:
        return values.dtype.kind in PLAIN_KINDS
    if kind in (list, tuple):
        kinds = set(map(type, values))
        if kinds == {np.ndarray}:
            return all(held.dtype.kind in PLAIN_KINDS for held in values)
        if kinds <= {list, tuple}:
            kinds = set(map(type, chain.from_iterable(values)))
        return kinds <= PLAIN_TYPES
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        return all(isinstance(dtype, np.dtype) and dtype.kind in PLAIN_KINDS for dtype in values.dtypes.to_numpy())
    return False


def _is_na(value: Any) -> bool:
    # It needn't be installed.
    pd = sys.modules.get("pandas")
    return pd is not None and value is pd.NA


def _date_types() -> tuple[type, ...]:
    pd = sys.modules.get("pandas")
    return DATES if pd is None else (*DATES, pd.Period, pd.offsets.BaseOffset)


def _parts(values: Any) -> Iterator[Any]:
    """Arrays, series and data frames in an array-like, and of other objects in it one of each type."""
    if isinstance(values, Mapping):
        objects: Any = tuple(values.values())
    elif isinstance(values, SEQUENCES):
        objects = values
    else:
        yield values
        objects = ()
        for dtype in _dtypes(values):
            if getattr(dtype, "categories", None) is not None:
                yield from _parts(dtype.categories)
        if hasattr(values, "iloc") and hasattr(values, "columns"):
            values = values.loc[:, [_is_of_objects(dtype) for dtype in values.dtypes]]
            objects = np.asarray(values).ravel() if values.shape[1] else ()
        elif hasattr(values, "__array__") and _is_of_objects(getattr(values, "dtype", None)):
            objects = np.asarray(values).ravel()
        elif hasattr(values, "__array__") and not hasattr(values, "dtype") and not isinstance(values, Sequence):
            # An array of another library's, but none that is loaded as it is asked for.
            yield from _parts(np.asarray(values))
    # There may be many objects, but hardly many types of them.
    for kind, one in dict(zip(map(type, objects), objects, strict=True)).items():
        if issubclass(kind, (*SEQUENCES, Mapping, np.ndarray, torch.Tensor)) or hasattr(kind, "iloc"):
            for held in objects:
                if type(held) is kind:
                    yield from _parts(held)
        else:
            yield one


def _is_of_objects(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _refuse_mask(part: Any, name: str) -> None:
    if isinstance(part, np.ma.MaskedArray):
        n_masked = 0 if part.mask is np.ma.nomask else int(np.ma.flatten_mask(part.mask).sum())
    elif isinstance(part, torch.masked.MaskedTensor):
        n_masked = int((~part.get_mask()).sum())  # type: ignore[no-untyped-call]
        if not n_masked:
            raise TypeError(f"{name} must be a plain tensor; found a MaskedTensor. Nothing is masked: give get_data().")
    else:
        return
    if n_masked:
        raise ValueError(f"{name} must have no masked entries; found {n_masked} of them.")


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
        missing = np.array([is_missing(value) for value in flat.ravel()], dtype=bool).reshape(flat.shape)
    _refuse_where(np.atleast_1d(missing), name)


def _refuse_where(missing: NDArray[np.bool_], name: str) -> None:
    if missing.any():
        first = int(missing.argmax()) // (missing.size // len(missing))
        raise ValueError(f"{name} must have no missing values; found None, NA or NaN at position {first}.")


def is_missing(value: Any) -> bool:
    """None, NA, and NaN or NaT of any type are missing."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or _is_na(value) or (isinstance(value, (numbers.Real, *DATES)) and value != value)


def check_targets(y: Any, name: str = "y") -> None:
    """Raise an error for masked entries, missing values, dates or durations among labels or targets.

    Raises
    ------
    TypeError
        For dates and durations.
    ValueError
        For masked entries and missing values, but for NaN in arrays of numbers.
    """
    refuse_masks(y, name)
    # Before dates, for it tells the position.
    refuse_missing(y, name)
    refuse_masks_and_dates(y, name)


def as_labels(values: Any, name: str, *, warn: bool = False) -> NDArray[Any]:
    """Take labels of classes as an array of shape (n,); ``warn`` of a column.

    Raises
    ------
    TypeError
        For dates and durations, and objects that can't be sorted.
    ValueError
        For masked entries, missing values, or more than one column.
    """
    check_targets(values, name)
    return as_ids(values, name, warn=warn)


def as_ids(values: Any, name: str, *, warn: bool = False) -> NDArray[Any]:
    """Take ids of anything, which may be dates, as an array of shape (n,); ``warn`` of a column.

    Raises
    ------
    TypeError
        For objects that can't be sorted.
    ValueError
        For masked entries, missing values, or more than one column.
    """
    refuse_masks(values, name)
    refuse_missing(values, name)
    shape = np.asarray(values).shape
    if len(shape) != 1 and shape[1:] != (1,):
        raise ValueError(f"{name} must have shape (n,); found shape {shape}.")
    ids: NDArray[Any] = column_or_1d(values, warn=warn)
    if ids.dtype.kind in "fcmM":
        _refuse_where(ids != ids, name)
    if ids.dtype.kind == "O":
        try:
            np.unique(ids)
        except TypeError as error:
            what = f"{name} must hold what can be sorted, such as integers or strings"
            raise TypeError(f"{what}; found objects that can't: {error}.") from None
    return ids


def _dtypes(values: Any) -> list[Any]:
    """Different dtypes of an array, a series, or the columns of a data frame."""
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        return list(dict.fromkeys(values.dtypes))
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


def _as_tensor_matrix(X: torch.Tensor, name: str) -> tuple[torch.Tensor, OutputFormat]:
    if X.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor; found layout {X.layout}.")
    if X.is_complex() or X.is_quantized:
        raise TypeError(f"{name} must hold real numbers; found dtype {X.dtype}.")
    _check_shape(tuple(X.shape), name)
    X = X.detach()
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
        refuse_masks(sample_weight, name)
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
