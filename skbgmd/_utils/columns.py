"""Errors for data that name what isn't a number, and the column of a table that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skbgmd._utils.checks import brief
from skbgmd._utils.frames import as_frame

#: How errors begin of a conversion to numbers by NumPy, or of a look for NaN among what are none.
OF_CONVERSION = (
    *("could not convert string to", "float() argument must be", "setting an array element with a sequence"),
    "The truth value of an array with more than one element is ambiguous",
)


@contextmanager
def naming_columns(X: Any, name: str = "X") -> Iterator[None]:
    """Name the entry, and the column of a table, where a conversion to numbers fails.

    Raises
    ------
    TypeError, ValueError
        The same kind of error as that of the conversion.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        found = find_odd(X) if str(error).startswith(OF_CONVERSION) else None
        if found is None:
            raise
        column, entry = found
        message = f"{name} must hold numbers; found {brief(entry)}"
        if column is not None:
            message += f" in column {column!r}"
        if not isinstance(entry, (str, bytes)):
            message += f": {str(error).rstrip('.')}"
        elif column is not None:
            message += (
                ". Make numbers of text and categories first, by a OneHotEncoder in a ColumnTransformer for instance"
            )
        raise type(error)(f"{message}.") from error


def numbers_of(checked: Any, name: str = "X") -> Any:
    """Make numbers of an array of objects, in which scikit-learn's checks leave some tables; all else stays as it is.

    So they do with categories, with texts of polars and pyarrow, and with booleans among missing values.

    Raises
    ------
    TypeError, ValueError
        For objects that no numbers are made of, missing and infinite ones.

    Examples
    --------
    >>> numbers_of(np.array([[True, "1.5"]], dtype=object))
    array([[1. , 1.5]])
    """
    if checked.dtype.kind != "O":
        return checked
    return check_array(checked, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name)


def find_odd(X: Any) -> tuple[Any, Any] | None:
    """Find an entry that no number is made of, with the name or place of its column in a table; text before others.

    Examples
    --------
    >>> find_odd(np.array([["1.5", "2"], ["3", "red"]]))
    (1, 'red')
    >>> print(find_odd([[1, "2.5"]]))
    None
    """
    odd = [(label, entry) for label, column in _columns(X) for entry in _odd_entries(column)]
    return next((found for found in odd if isinstance(found[1], (str, bytes))), odd[0] if odd else None)


def _columns(X: Any) -> list[tuple[Any, Any]]:
    frame = as_frame(X)
    if frame is not None:
        return list(frame)
    array = np.asarray(X)
    if array.dtype.kind not in "OUS" or array.ndim not in (1, 2):
        return []
    return list(enumerate(array.T)) if array.ndim == 2 else [(None, array)]


def _odd_entries(column: Any) -> list[Any]:
    """First text and first other entry of a column that no number is made of."""
    # Missing values of nullable numbers are NaN; of text they are none.
    if getattr(getattr(column, "dtype", None), "kind", "O") in "fiub":
        return []
    array = np.asarray(column)
    with suppress(TypeError, ValueError):
        array.astype(np.float64)
        if array.ndim == 1:
            return []
    found = {isinstance(entry, (str, bytes)): entry for entry in reversed(list(array)) if not _is_number(entry)}
    return [entry.item() if isinstance(entry, np.generic) else entry for entry in found.values()]


def _is_number(entry: Any) -> bool:
    try:
        # NumPy makes a number of an array of one.
        if np.ndim(entry):
            return False
        float(entry)
    except (TypeError, ValueError):
        return False
    return True
