"""Errors for tables that name the column in which something isn't a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skbgmd._utils.checks import brief


@contextmanager
def naming_text(X: Any, name: str = "X") -> Iterator[None]:
    """Name the column and the text where a conversion to numbers fails at text in a table.

    Raises
    ------
    ValueError
        For text that is no number, in place of the error that quotes it alone.
    """
    try:
        yield
    except ValueError as error:
        found = find_text(X)
        if found is None:
            raise
        column, text = found
        raise ValueError(
            f"{name} must hold numbers; found {brief(text)} in column {column!r}. Make numbers of text and categories "
            "first, by a OneHotEncoder in a ColumnTransformer for instance."
        ) from error


def find_text(X: Any) -> tuple[Any, str | bytes] | None:
    """Find the first text that is no number, with the name or the place of its column; None: there is none.

    Examples
    --------
    >>> find_text(np.array([["1.5", "2"], ["3", "red"]]))
    (1, 'red')
    >>> print(find_text([[1, "2.5"]]))
    None
    """
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        columns = [(label, X.iloc[:, place]) for place, label in enumerate(X.columns)]
    elif hasattr(X, "get_columns"):
        columns = [(column.name, column) for column in X.get_columns()]
    else:
        array = np.asarray(X)
        columns = list(enumerate(array.T)) if array.ndim == 2 and array.dtype.kind in "OUS" else []
    for label, column in columns:
        for entry in np.asarray(column):
            if isinstance(entry, (str, bytes)) and not _is_number(entry):
                return label, entry.item() if isinstance(entry, np.generic) else entry
    return None


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
