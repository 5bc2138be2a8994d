"""Models as named arrays: the updates that clients send, as vectors, and the model that an update leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils.checks import listed
from skbgmd._utils.cumulated_weights import bounds, in_units
from skbgmd._utils.typing import FloatArray

Arrays = Mapping[str, NDArray[Any]]
#: Kinds of dtypes that are taken for one of each kind.
_TAKEN = {"f": "fiub", "c": "cfiub", "i": "i", "u": "u", "b": "b"}
#: Names that torch gives the running statistics of its normalization layers.
RUNNING_STATISTICS = ("*running_mean", "*running_var", "*num_batches_tracked")


@dataclass(frozen=True)
class GlobalModel:
    """Convert the arrays that clients send to update vectors, and an update vector to arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The arrays that were sent to the clients.
    buffers : iterable of str, default=RUNNING_STATISTICS
        Patterns, as of :mod:`fnmatch`, of the names of floating-point and complex arrays that are no part of the update
        vectors. Arrays of other dtypes never are.

    Notes
    -----
    Of complex arrays the update vectors have the real and the imaginary part of each number, one after the other.

    Examples
    --------
    >>> model = GlobalModel({"weight": np.ones((1, 2), dtype=np.float32), "steps": np.array(3)})
    >>> model.update({"weight": np.array([[1.5, 0.0]], dtype=np.float32), "steps": np.array(4)})
    array([ 0.5, -1. ], dtype=float32)
    >>> model.moved(np.array([1.0, 2.0], dtype=np.float32))
    {'weight': array([[2., 3.]], dtype=float32)}
    """

    arrays: Arrays
    buffers: Iterable[str] = RUNNING_STATISTICS

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names of the arrays that the update vectors consist of."""
        patterns = tuple(self.buffers)
        return tuple(
            name
            for name, array in self.arrays.items()
            if array.dtype.kind in "fc" and not any(fnmatchcase(name, pattern) for pattern in patterns)
        )

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Names of the other arrays."""
        return tuple(name for name in self.arrays if name not in self.trained)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the update vectors: float64 if one of the arrays, or of their parts, is, float32 otherwise."""
        double = any(self.arrays[name].real.dtype.itemsize > 4 for name in self.trained)
        return np.dtype(np.float64 if double else np.float32)

    @cached_property
    def n_columns(self) -> int:
        """Length of the update vectors."""
        return sum(self._width(name) for name in self.trained)

    @cached_property
    def layout(self) -> list[list[Any]]:
        """Name, shape and number of columns of each array that the update vectors consist of, in their order."""
        return [[name, list(self.arrays[name].shape), self._width(name)] for name in self.trained]

    def check(self, arrays: Arrays) -> None:
        """Check what a client sent: the same names and shapes, finite numbers, real ones unless complex ones are meant.

        Raises
        ------
        ValueError
            It says what is wrong, but not of whom.
        """
        if missing := [name for name in self.arrays if name not in arrays]:
            raise ValueError(f"its arrays must have the names of the global ones; {_listed(missing)} missing")
        if unknown := [name for name in arrays if name not in self.arrays]:
            raise ValueError(f"its arrays must have the names of the global ones; found {_listed(unknown)} as well")
        for name, array in arrays.items():
            expected = self.arrays[name]
            if array.shape != expected.shape:
                raise ValueError(f"array {name!r} must have shape {expected.shape}; found {array.shape}")
            if expected.dtype.kind not in _TAKEN:
                raise ValueError(f"array {name!r} must hold numbers or truth values; found {expected.dtype}")
            if array.dtype.kind not in _TAKEN[expected.dtype.kind]:
                raise ValueError(f"array {name!r} must have a dtype like {expected.dtype}; found {array.dtype}")
            if name in self.trained and not np.isfinite(array).all():
                raise ValueError(f"array {name!r} must be finite; found NaN or inf")

    def update(self, arrays: Arrays) -> FloatArray:
        """Flatten the differences of a client's arrays to the global ones.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What the client sent.

        Returns
        -------
        update : ndarray of shape (n_columns,), float32 or float64

        Raises
        ------
        ValueError
            For arrays that :meth:`check` refuses, and for updates beyond the range of the dtype.
        """
        self.check(arrays)
        update = np.empty(self.n_columns, dtype=self.dtype)
        for name, part in self._parts(update):
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(arrays[name], self.arrays[name], out=part, dtype=part.dtype, casting="unsafe")
            if not np.isfinite(part).all():
                raise ValueError(f"the update of array {name!r} must be finite in {self.dtype}; found inf")
        return update

    def buffers_of(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Convert a client's arrays that aren't trained to the global dtypes.

        Numbers beyond the range of an integer dtype become its first or last one, those beyond that of a floating-point
        dtype infinite. As that keeps their order, the medians of the arrays are converted as well.
        """
        return {name: _converted(arrays[name], self.arrays[name].dtype) for name in self.rest}

    def moved(self, update: FloatArray) -> dict[str, NDArray[Any]]:
        """Add an update vector (n_columns,) to the global arrays that are trained."""
        with np.errstate(over="ignore"):
            return {
                name: (self.arrays[name] + part).astype(self.arrays[name].dtype, copy=False)
                for name, part in self._parts(update)
            }

    def _width(self, name: str) -> int:
        array = self.arrays[name]
        return array.size * (2 if array.dtype.kind == "c" else 1)

    def _parts(self, update: FloatArray) -> Iterable[tuple[str, NDArray[Any]]]:
        start = 0
        for name in self.trained:
            array, stop = self.arrays[name], start + self._width(name)
            part: NDArray[Any] = update[start:stop]
            if array.dtype.kind == "c":
                part = part.view(np.result_type(update.dtype, np.complex64))
            yield name, part.reshape(array.shape)
            start = stop


def median_array(arrays: list[NDArray[Any]], weights: FloatArray) -> NDArray[Any]:
    """Compute the coordinate-wise lower weighted median of arrays, which is among the numbers of each coordinate.

    Of complex numbers it is that of the real parts and that of the imaginary parts.

    Parameters
    ----------
    arrays : list of k ndarrays of one shape
    weights : ndarray of shape (k,)
        Non-negative, one of them positive.

    Returns
    -------
    median : ndarray of that shape and dtype

    Examples
    --------
    >>> median_array([np.array([1, 9]), np.array([2, 5]), np.array([3, 7])], np.ones(3))
    array([2, 7])
    """
    values = np.stack(arrays)
    if values.dtype.kind == "c":
        # Complex numbers are sorted by their real parts first, and so may have any imaginary part.
        median = np.empty(values.shape[1:], dtype=values.dtype)
        median.real, median.imag = (median_array(list(part), weights) for part in (values.real, values.imag))
        return median
    order = np.argsort(values, axis=0, kind="stable")
    units = in_units(weights)
    least, _ = bounds(int(units.sum()), len(units))
    at = np.argmax(np.cumsum(units[order], axis=0) >= least, axis=0)[None]
    lower: NDArray[Any] = np.take_along_axis(values, np.take_along_axis(order, at, axis=0), axis=0)[0]
    return lower


def _converted(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers without a change of their order."""
    if dtype.kind in "iu" and array.dtype.kind in "iu":
        # Numbers beyond the range of the array's own dtype are no limits that NumPy takes.
        own, wanted = np.iinfo(array.dtype), np.iinfo(dtype)
        array = array.clip(max(own.min, wanted.min), min(own.max, wanted.max))
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _listed(names: list[str]) -> str:
    return listed([repr(name[:40]) for name in names])
