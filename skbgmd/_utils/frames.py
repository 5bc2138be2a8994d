"""Columns of data frames, of whatever library, and the dtypes of columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frame:
    """Columns of a data frame.

    Attributes
    ----------
    names : list
        Labels of the columns, of which several may be the same.
    dtypes : list
        Their dtypes, NumPy's or those of the library.
    column : callable
        Makes of a place the column there, of the library's own kind.
    """

    names: list[Any]
    dtypes: list[Any]
    column: Callable[[int], Any]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield each label and its column."""
        return ((label, self.column(place)) for place, label in enumerate(self.names))


def as_frame(values: Any) -> Frame | None:
    """Columns of a data frame of pandas or what is like it, polars, pyarrow or narwhals; None of anything else.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = as_frame(pd.DataFrame({"size": [1.5], "count": [2]}))
    >>> frame.names, frame.dtypes, frame.column(1).tolist()
    (['size', 'count'], [dtype('float64'), dtype('int64')], [2])
    >>> print(as_frame(pd.Series([1.5])))
    None
    """
    if hasattr(values, "to_native"):  # of narwhals
        return as_frame(values.to_native())
    if hasattr(values, "iloc") and hasattr(values, "columns"):  # of pandas
        return Frame(list(values.columns), list(values.dtypes), lambda place: values.iloc[:, place])
    if hasattr(values, "get_columns"):  # of polars
        return Frame(values.columns, values.dtypes, values.to_series)
    if hasattr(values, "itercolumns"):  # of pyarrow
        return Frame(values.schema.names, values.schema.types, values.column)
    return None


def is_lazy(values: Any) -> bool:
    """True for a query of polars or narwhals, which has no data yet."""
    return hasattr(values, "collect_schema") and not hasattr(values, "shape")


def is_table(kind: type) -> bool:
    """True for the type of a data frame or of a column, of a library that :func:`as_frame` knows."""
    return hasattr(kind, "to_numpy") or hasattr(kind, "itercolumns")


def dtype_of(values: Any) -> Any:
    """The dtype of an array, a series or a column; None: it has none."""
    # pyarrow needn't be installed, and calls it type.
    pa = sys.modules.get("pyarrow")
    if pa is not None and isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.type
    return getattr(values, "dtype", None)


def without_mask(values: Any) -> Any:
    """Make of columns of pandas' nullable integers or booleans, or of categories of them, an array of their own dtype.

    scikit-learn makes floats of one column, among which large integers are no longer told apart, and objects of several
    in a data frame. A column with missing values stays what it is, and so does all else.

    Examples
    --------
    >>> import pandas as pd
    >>> without_mask(pd.Series([2**62, 2**62 + 1], dtype="Int64")).tolist()
    [4611686018427387904, 4611686018427387905]
    """
    frame = as_frame(values)
    if frame is not None:
        columns = [without_mask(column) for _, column in frame]
        return np.column_stack(columns) if any(isinstance(column, np.ndarray) for column in columns) else values
    dtype = getattr(values, "dtype", None)
    held = getattr(getattr(dtype, "categories", None), "dtype", dtype)
    own = getattr(held, "numpy_dtype", held)
    if own is dtype or not isinstance(own, np.dtype) or own.kind not in "iub" or values.isna().any():
        return values
    return np.asarray(values, dtype=own)


def is_temporal(dtype: Any, dates: tuple[type, ...]) -> bool:
    """True for a dtype of dates, times or durations, whose types are given, or of categories or lists of them."""
    if hasattr(dtype, "is_temporal"):  # of polars
        return bool(dtype.is_temporal())
    pa = sys.modules.get("pyarrow")
    if pa is not None and isinstance(dtype, pa.DataType):
        return bool(pa.types.is_temporal(getattr(dtype, "value_type", dtype)))
    kind = getattr(dtype, "type", None)
    return isinstance(kind, type) and issubclass(kind, dates)
