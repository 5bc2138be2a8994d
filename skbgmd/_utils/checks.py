"""Checks of parameters and data: errors that name the parameter and quote what was found."""

from __future__ import annotations

import math
import numbers
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import column_or_1d

from skbgmd._utils import limits
from skbgmd._utils.frames import as_frame, dtype_of, is_lazy, is_table, is_temporal, without_mask

#: Dates, times and durations; a time stamp is a date.
DATES = (date, time, timedelta, np.datetime64, np.timedelta64)
#: Sequences that NumPy makes arrays of.
SEQUENCES = (list, tuple, deque)
#: Kinds of arrays, and types of objects, that can't be masked, dates or missing; NaN is found elsewhere.
PLAIN_KINDS = "fiubcUS"
PLAIN_TYPES = {bool, int, float, str, np.bool_, np.int32, np.int64, np.float32, np.float64, np.str_}

#: Floating dtypes that torch computes with. Those of 8 bits it only stores and multiplies, in units of a scale that a
#: tensor doesn't have with it.
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
#: Dtypes of real numbers.
REALS = FLOATS | {
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
}


def check_number(
    value: Any, name: str, *, above: float = 0.0, at_least: float | None = None, at_most: float = float("inf")
) -> float:
    """Check a real number: finite, above a bound (or at least one), and at most another."""
    # Of an abstract class Python takes longer to tell.
    if isinstance(value, bool) or not isinstance(value, (float, numbers.Real)):
        raise TypeError(f"{name} must be a number; found {value!r}.")
    number = float(value)
    enough = above < number if at_least is None else at_least <= number
    if not (enough and number <= at_most and number < float("inf")):
        least = f"greater than {above:g}" if at_least is None else f"at least {at_least:g}"
        most = f"at most {at_most:g}" if at_most < float("inf") else "finite"
        raise ValueError(f"{name} must be {least} and {most}; found {value!r}.")
    return number


def check_once(check: Callable[..., None], *values: Any) -> None:
    """Call a check of values, unless the same values have passed it before: in a training step its time counts."""
    try:
        _passed(check, *values)
    except TypeError:
        # Of the check; or the values have no hash.
        check(*values)


@lru_cache(maxsize=256, typed=True)
def _passed(check: Callable[..., None], *values: Any) -> None:
    check(*values)


def check_integer(value: Any, name: str, *, at_least: int = 1) -> int:
    """Check an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name} must be an integer; found {value!r}.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}; found {value!r}.")
    return int(value)


def check_flag(value: Any, name: str) -> bool:
    """Check True or False; a number or a string would count as one of them without a word."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; found {value!r}.")
    return bool(value)


def check_verbosity(value: Any, name: str = "verbose") -> int:
    """Check how much is to be printed: an integer, or True or False."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return check_integer(value, name, at_least=0)


def check_choice(value: Any, name: str, choices: tuple[str | None, ...]) -> Any:
    """Check one of a few names, or None where that is one of them."""
    if not (value is None or isinstance(value, str)) or value not in choices:
        called = f", a class; an instance is {value.__name__}()" if isinstance(value, type) else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}{called}.")
    return value


def check_row_weights(weights: Any, n: int) -> NDArray[np.float64]:
    """Check the weights of n rows: an array (n,) of numbers that are finite and not negative.

    They count by their ratios. So huge and tiny ones, whose sums, squares or products might over- or underflow, here or
    in the rows' dtype, are divided by a power of two, the largest coming to lie between a half and one. Weights of some
    of the rows may so be another multiple than those of all.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> check_row_weights(np.array([1.0, 3.0]), 2), check_row_weights(np.array([2.0**1000, 2.0**999]), 2)
    (array([1., 3.]), array([0.5 , 0.25]))
    """
    refuse_masks(weights, "weights")
    if not isinstance(weights, np.ndarray) or weights.dtype.kind not in "fiub":
        found = f"an array of {weights.dtype}" if isinstance(weights, np.ndarray) else type(weights).__name__
        raise TypeError(f"weights must be an array of numbers, one for each row; found {found}.")
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each row; found {weights.shape}.")
    checked = weights if weights.dtype == np.float64 else weights.astype(np.float64)
    if not n:
        return checked
    largest = checked[checked.argmax()]
    # NaN is neither.
    if not (checked[checked.argmin()] >= 0.0 and largest < np.inf):
        raise ValueError(f"weights must be finite and not negative; found {checked.tolist()[:9]}.")
    exponent = math.frexp(largest)[1]
    if abs(exponent) <= limits.ROW_WEIGHT_EXPONENT:
        return checked
    # What is nothing beside the largest may become zero.
    with np.errstate(under="ignore"):
        scaled: NDArray[np.float64] = np.ldexp(checked, -exponent)
    return scaled


def check_device(device: Any) -> None:
    """Check a device on which torch can compute here.

    Raises
    ------
    TypeError
        Neither a string, a number nor a ``torch.device``.
    ValueError
    """
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(f"device must be a string such as 'cpu' or 'cuda', or a torch.device; found {device!r}.")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = re.split(r"\.\s|\n", str(error))[0].rstrip(".")
        raise ValueError(f"device must be one that torch has here; found {device!r}: {reason}.") from error


def refuse_masks(values: Any, name: str) -> None:
    """Raise an error for masked entries, however deep: NumPy and torch would take the data behind a mask.

    Raises
    ------
    TypeError
        For a masked tensor of which no entry is masked: torch's functions don't take it.
    ValueError
    """
    if not is_plain(values):
        for _, part in _parts(values):
            _refuse_mask(part, name)


def refuse_masks_and_dates(values: Any, name: str) -> None:
    """Raise an error for masked entries, dates and NA, which NumPy takes for numbers or refuses without a name.

    Raises
    ------
    TypeError
        For dates, times and durations: in an array, in columns of a data frame, or among objects.
    ValueError
        For masked entries, and NA among objects.
    """
    if is_plain(values):
        return
    if is_lazy(values):
        raise TypeError(f"{name} must be data in memory; found a {type(values).__name__}. Give {name}.collect().")
    dates = _date_types()
    for column, part in _parts(values):
        where = "" if column is None else f" in column {column!r}"
        _refuse_mask(part, name)
        if _is_na(part):
            raise ValueError(f"{name} must have no missing values; found NA{where}, which is no NaN.")
        dtype = dtype_of(part)
        if is_temporal(dtype, dates):
            raise TypeError(f"{name} must hold no dates or durations; found dtype {dtype}{where}.")
        if isinstance(part, dates):
            raise TypeError(f"{name} must hold no dates or durations; found {part!r}{where}.")


def is_plain(values: Any) -> bool:
    """Check at a glance for nothing but numbers and text; False where it takes a closer look."""
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
    frame = as_frame(values)
    return frame is not None and all(map(_is_plain_dtype, frame.dtypes))


def _is_plain_dtype(dtype: Any) -> bool:
    # Nullable ones of pandas have a kind as well; a column of each would take long where there are many.
    return getattr(dtype, "kind", "O") in PLAIN_KINDS


def _is_na(value: Any) -> bool:
    # pandas needn't be installed.
    pd = sys.modules.get("pandas")
    return pd is not None and value is pd.NA


def _date_types() -> tuple[type, ...]:
    pd = sys.modules.get("pandas")
    return DATES if pd is None else (*DATES, pd.Period, pd.offsets.BaseOffset)


def _parts(values: Any, column: Any = None) -> Iterator[tuple[Any, Any]]:
    """Yield arrays and series in an array-like, and one of each type of other objects in it, by the column of a frame.

    Columns of plain numbers are left out; whatever isn't in a data frame is in the column None.
    """
    frame = as_frame(values)
    if frame is not None:
        for place, (label, dtype) in enumerate(zip(frame.names, frame.dtypes, strict=True)):
            if not _is_plain_dtype(dtype):
                yield from _parts(frame.column(place), label)
        return
    if isinstance(values, Mapping):
        objects: Any = tuple(values.values())
    elif isinstance(values, SEQUENCES):
        objects = values
    else:
        yield column, values
        objects, dtype = (), dtype_of(values)
        if getattr(dtype, "categories", None) is not None:
            yield from _parts(dtype.categories, column)
        if isinstance(dtype, np.dtype) and dtype.kind == "O" and hasattr(values, "__array__"):
            objects = np.asarray(values).ravel()
        elif dtype is None and hasattr(values, "__array__") and not isinstance(values, Sequence):
            # An array of another library, but not one that is loaded lazily.
            yield from _parts(np.asarray(values), column)
    # There may be many objects, but there are few types of them.
    for kind, one in dict(zip(map(type, objects), objects, strict=True)).items():
        is_held = issubclass(kind, (*SEQUENCES, Mapping, np.ndarray, torch.Tensor)) or is_table(kind)
        if is_held:
            for held in objects:
                if type(held) is kind:
                    yield from _parts(held, column)
        else:
            yield column, one


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


def check_tensor(
    values: torch.Tensor, name: str, dtypes: frozenset[torch.dtype] = REALS, *, accept_sparse: bool = False
) -> None:
    """Check that a tensor has data, and numbers of some dtypes.

    Raises
    ------
    TypeError
        For a nested tensor, for a sparse one unless that is accepted, and for other dtypes: complex, quantized, or
        floats of 8 bits, whose scale is kept elsewhere.
    ValueError
        For a tensor without data: on the meta device, or a parameter that isn't initialized.
    """
    if torch.nn.parameter.is_lazy(values):
        raise ValueError(f"{name} must have data; found a parameter that isn't initialized.")
    if values.is_nested:
        raise TypeError(f"{name} must be a dense tensor; found a nested one.")
    if values.layout != torch.strided and not accept_sparse:
        raise TypeError(f"{name} must be a dense tensor; found layout {values.layout}.")
    if values.dtype not in dtypes:
        if values.is_floating_point():
            raise TypeError(
                f"{name} must be of a dtype that torch computes with; found {values.dtype}. Convert it to float16 or "
                "float32, by the scale that its numbers have."
            )
        known = "real numbers" if torch.int64 in dtypes else "floating point numbers"
        raise TypeError(f"{name} must hold {known}; found dtype {values.dtype}.")
    # A subclass may hold its data elsewhere.
    if values.is_meta and type(values) in (torch.Tensor, torch.nn.Parameter):
        raise ValueError(f"{name} must have data; found a tensor on the meta device.")


def as_numpy(values: Any, name: str = "X") -> Any:
    """Convert a tensor to an array, without its gradient, a sparse one to a sparse array; all else stays as it is.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_tensor` does, for a parameter of this name.

    Examples
    --------
    >>> as_numpy(torch.ones(2, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    if not isinstance(values, torch.Tensor):
        return values
    check_tensor(values, name, accept_sparse=True)
    # NumPy has neither bfloat16 nor negative bits, as of the imaginary part of a conjugate.
    values = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu()
    if values.layout == torch.strided:
        return values.resolve_neg().numpy()
    values = values.to_sparse_coo().coalesce()
    return sparse.coo_array((values.values().numpy(), tuple(values.indices().numpy())), shape=tuple(values.shape))


def as_targets(values: Any, name: str) -> Any:
    """Convert targets, weights or ids of samples, as :func:`as_numpy` does, and those of nullable dtypes to their own.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_tensor` does.
    """
    return without_mask(as_numpy(values, name))


def refuse_missing(values: Any, name: str) -> None:
    """Raise an error for None, NA or NaN among labels, except NaN in arrays of numbers, which others find.

    Raises
    ------
    TypeError
        For an index of several levels.
    ValueError
    """
    if hasattr(values, "isna") and getattr(values, "nlevels", 1) > 1:
        raise TypeError(
            f"{name} must be one label a sample; found a {type(values).__name__} of {values.nlevels} levels."
        )
    if hasattr(values, "isna"):
        missing = np.asarray(values.isna())
    else:
        dtype = getattr(values, "dtype", None)
        if isinstance(dtype, (np.dtype, torch.dtype)) and dtype != np.dtype(object):
            return
        # Arrays of other libraries have dtypes of their own.
        flat = np.asarray(values, dtype=object if dtype is None else None)
        if flat.dtype != np.dtype(object):
            return
        missing = np.array([is_missing(value) for value in flat.ravel()], dtype=bool).reshape(flat.shape)
    _refuse_where(np.atleast_1d(missing), name)


def _refuse_where(missing: NDArray[np.bool_], name: str) -> None:
    if missing.any():
        first = int(missing.argmax()) // (missing.size // len(missing))
        raise ValueError(f"{name} must have no missing values; found None, NA or NaN at position {first}.")


def is_missing(value: Any) -> bool:
    """Check for a missing value: None, NA, and NaN or NaT of any type."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or _is_na(value) or (isinstance(value, (numbers.Real, *DATES)) and value != value)


def check_targets(y: Any, name: str = "y") -> None:
    """Raise an error for masked entries, missing values, dates or durations among labels or targets.

    Raises
    ------
    TypeError
        For dates and durations, dicts and sets.
    ValueError
        For masked entries and missing values, except NaN in arrays of numbers; for None.
    """
    if y is None:
        raise ValueError(f"{name} must be given, unless X is a Dataset that holds it; found None.")
    if isinstance(y, (Mapping, Set)):
        raise TypeError(f"{name} must be an array of targets, in the order of the samples; found a {type(y).__name__}.")
    refuse_masks(y, name)
    # Before dates, as this error tells the position.
    refuse_missing(y, name)
    refuse_masks_and_dates(y, name)


def refuse_unknown_objects(y: Any, name: str = "y") -> None:
    """Raise an error for an array of objects that aren't all texts, of which scikit-learn knows no order.

    Raises
    ------
    ValueError
    """
    if getattr(y, "dtype", None) != np.dtype(object):
        return
    kinds = list(dict.fromkeys(map(type, np.asarray(y).ravel())))
    if not all(issubclass(kind, str) for kind in kinds):
        found = ", ".join(kind.__name__ for kind in kinds[: limits.NAMED_PARAMETERS])
        # A matrix says of each sample which labels it has.
        dtype = "str" if np.ndim(y) < 2 else "int"
        raise ValueError(
            f"Unknown label type: {name} must hold labels of one kind, numbers of a numeric dtype or texts; found an "
            f"array of objects of the types {found}. Convert them, as by {name}.astype({dtype})."
        )


def as_labels(values: Any, name: str, *, warn: bool = False) -> NDArray[Any]:
    """Convert labels of classes to an array of shape (n,); ``warn`` of a column.

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
    """Convert ids of anything, dates included, to an array of shape (n,); ``warn`` of a column.

    Raises
    ------
    TypeError
        For objects that can't be sorted.
    ValueError
        For masked entries, missing values, or more than one column.
    """
    refuse_masks(values, name)
    refuse_missing(values, name)
    values = as_targets(values, name)
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
            what = f"{name} must hold sortable values, such as integers or strings"
            raise TypeError(f"{what}; found objects that can't: {error}.") from None
    return ids


def plain_ids(ids: Any) -> list[Any]:
    """Convert ids (n,) to numbers and strings, which can be saved and hashed."""
    return [id_ if isinstance(id_, (str, int, float)) else repr(id_) for id_ in np.asarray(ids).tolist()]


def not_finite(name: str, matrix: torch.Tensor) -> ValueError:
    """Make the error for a matrix that holds NaN or inf, naming the first such entry."""
    row = next(i for i in range(len(matrix)) if not bool(torch.isfinite(matrix[i]).all()))
    column = int(torch.isfinite(matrix[row]).int().argmin())
    found = "NaN" if bool(matrix[row, column].isnan()) else "inf"
    return ValueError(f"{name} must be finite; found {found} at row {row}, column {column}.")


def brief(value: Any) -> str:
    """Show a value in a line of a message: as it prints, or where that is long, as of a rule with data, by its class.

    Examples
    --------
    >>> brief("krum"), brief(0.1), brief(list(range(1000)))
    ("'krum'", '0.1', 'list(...)')
    """
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= limits.SHOWN_CHARACTERS else f"{type(value).__name__}(...)"


def listed(items: Sequence[str]) -> str:
    """List the first few of some texts.

    Examples
    --------
    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(items[: limits.NAMED_PARAMETERS])
    more = len(items) - limits.NAMED_PARAMETERS
    return shown if more <= 0 else f"{shown} and {more} more"
