"""Errors for data that name what isn't a number, and the column of a table that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skbgmd._utils.checks import brief

#: How errors begin of a conversion to numbers by NumPy.
OF_CONVERSION = ("could not convert string to", "float() argument must be", "setting an array element with a sequence")


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
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        return [(label, X.iloc[:, place]) for place, label in enumerate(X.columns)]
    if hasattr(X, "get_columns"):  # of polars
        return [(column.name, column) for column in X.get_columns()]
    array = np.asarray(X)
    if array.dtype.kind not in "OUS" or array.ndim not in (1, 2):
        return []
    return list(enumerate(array.T)) if array.ndim == 2 else [(None, array)]


def _odd_entries(column: Any) -> list[Any]:
    """First text and first other entry of a column that no number is made of."""
    # Missing values of nullable numbers are NaN; of text they are none.
    if getattr(getattr(column, "dtype", None), "kind", "O") in "fiub":
        return []
    try:
        np.asarray(column).astype(np.float64)
    except (TypeError, ValueError):
        found = {isinstance(entry, (str, bytes)): entry for entry in reversed(list(column)) if not _is_number(entry)}
        return [entry.item() if isinstance(entry, np.generic) else entry for entry in found.values()]
    return []


def _is_number(entry: Any) -> bool:
    try:
        float(entry)
    except (TypeError, ValueError):
        return False
    return True
