"""Leverage: weights of samples by how long their inputs are, as in estimates of Mallows' type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.cumulated_weights import halves, in_units
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.gram import lower_weighted_median
from skbgmd.training._data.inputs import arrays_of, is_sparse, n_samples

#: Standard deviation of a normal feature in its unit, the median absolute deviation.
DEVIATION = 1.4826
#: Median lengths of inputs from which on samples weigh less.
LEVERAGE = 3.0


def leverage_weights(
    X: Any, limit: float, weight: FloatArray | None = None, strata: NDArray[np.intp] | None = None
) -> FloatArray | None:
    r"""Weights of samples by the lengths of their inputs, :math:`\min(1, (c\, m / \ell_i)^2)`.

    A gradient is as long as a residual times an input. Limits of residuals, and of rows, see a sample whose features
    are wrong too late: it pulls as hard as it is long. In estimates of Mallows' type samples weigh less by their inputs
    alone, whatever their residuals; see Hampel, Ronchetti, Rousseeuw and Stahel (1986), section 6.3, "Robust
    Statistics". :math:`\ell_i` is the length of an input whose features are centred at their medians and have as unit
    the median size of what isn't zero of that: the median absolute deviation, and of a category, that is one of few
    columns with a one, the one. :math:`m` is the median of the lengths, that of a sample's class where it is larger, as
    a class may lie far from the others, and at least the standard deviation of a feature.

    Parameters
    ----------
    X : ndarray of shape (n, ...), sparse matrix, or several of them
        Inputs. Only floating point numbers have a length: integers that come by here are those that a module takes,
        such as tokens. Without a module they became floats before.
    limit : float
        c, in median lengths.
    weight : ndarray of shape (n,), default=None
        Non-negative weights, by which medians are taken; None: all are one.
    strata : ndarray of shape (n,), default=None
        Class of each sample; None: there are none.

    Returns
    -------
    ndarray of shape (n,), or None
        None: all are one.

    Examples
    --------
    >>> X = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [60.0, 0.0]])
    >>> leverage_weights(X, 3.0).round(4)
    array([1.    , 1.    , 1.    , 1.    , 0.0227])
    >>> leverage_weights(X[:4], 3.0) is None
    True
    """
    parts = _with_lengths(X)
    if not parts:
        return None
    weight = np.ones(n_samples(X)) if weight is None else weight
    squares = np.zeros(len(weight))
    for part in parts:
        squares += _squared_lengths(part, weight)
    lengths = np.sqrt(squares)
    counted = (weight > 0.0) & (lengths > 0.0)
    if not counted.any():
        return None
    typical = np.full(len(lengths), max(DEVIATION, lower_weighted_median(lengths[counted], weight[counted])))
    if strata is not None:
        known, medians = _medians_of_groups(lengths[counted], weight[counted], strata[counted])
        places = np.minimum(np.searchsorted(known, strata), len(known) - 1)
        typical = np.where(known[places] == strata, np.maximum(typical, medians[places]), typical)
    with np.errstate(invalid="ignore"):
        # NaN, of inputs that aren't finite, are for the rule.
        long = lengths > limit * typical
    if not long.any():
        return None
    found = np.ones(len(lengths))
    found[long] = (limit * typical[long] / lengths[long]) ** 2
    return found


def have_lengths(X: Any) -> bool:
    """True if inputs have lengths: some are floating point numbers."""
    return bool(_with_lengths(X))


def _with_lengths(X: Any) -> list[Any]:
    """Those of inputs that have lengths."""
    return [part for part in arrays_of(X) if part.dtype.kind == "f" and part.size]


def _squared_lengths(part: Any, weight: FloatArray) -> FloatArray:
    """Squared lengths (n,) of inputs (n, ...), each feature in its own unit."""
    if is_sparse(part):
        return _squared_lengths_of_sparse(part, weight)
    columns = part.reshape(len(weight), -1)
    known = np.flatnonzero(weight)
    some = _sample(known)
    center, unit = _center_and_unit(np.ascontiguousarray(columns[some].T, dtype=np.float64), weight[some])
    # Half as much to read, and more than exact enough; shares of subnormal units have no number in it.
    is_single = columns.dtype != np.float64 and unit.min(initial=np.inf) > np.finfo(np.float32).tiny
    kind = np.float32 if is_single else np.float64
    squares, center, shares = np.empty(len(weight)), center.astype(kind), (1.0 / unit).astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in _pieces(columns.shape):
            scaled = (columns[rows] - center) * shares
            squares[rows] = np.einsum("ij,ij->i", scaled, scaled)
    return squares


def _sample(known: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places of the samples that medians and units are taken of, in their order.

    They are drawn, always alike: every k-th sample would be of one machine, where the samples of k take turns.
    """
    if len(known) <= limits.LENGTH_SAMPLES:
        return known
    drawn = np.random.default_rng(0).choice(known, limits.LENGTH_SAMPLES, replace=False, shuffle=False)
    result: NDArray[np.intp] = np.sort(drawn)
    return result


def _squared_lengths_of_sparse(matrix: Any, weight: FloatArray) -> FloatArray:
    """Squared lengths (n,) of a sparse matrix's rows, which is never dense: there the medians of features are zero."""
    entries = matrix.tocoo()
    rows, features, sizes = entries.row, entries.col, np.abs(entries.data.astype(np.float64))
    counted = (sizes > 0.0) & (weight[rows] > 0.0)
    unit = np.full(matrix.shape[1], np.inf)
    if counted.any():
        known, medians = _medians_of_groups(sizes[counted], weight[rows[counted]], features[counted])
        unit[known] = medians
    squares: FloatArray = np.zeros(len(weight))
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(squares, rows, (sizes / unit[features]) ** 2)
    return squares


def _center_and_unit(features: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower medians of features (d, n), (d,), and those of the sizes that aren't zero of what deviates from them.

    The unit of one that is constant is infinity: whatever else is in it says nothing.
    """
    center = _medians(features, weight)
    sizes = np.abs(features - center[:, None])
    unit = _medians(sizes, weight, are_counted=sizes > 0.0)
    return center, np.where(unit > 0.0, unit, np.inf)


def _medians(values: FloatArray, weight: FloatArray, are_counted: NDArray[np.bool_] | None = None) -> FloatArray:
    """Lower weighted medians of lines (d, n), of what is counted in them, which is what is largest."""
    n = values.shape[1]
    if weight.min() == weight.max():
        counts = n if are_counted is None else are_counted.sum(axis=1)
        at = np.minimum(n - counts + (counts - 1) // 2, n - 1)
        ordered = np.sort(values, axis=1)
    else:
        order = np.argsort(values, axis=1, kind="stable")
        units = in_units(weight)
        counted = np.broadcast_to(units, values.shape) if are_counted is None else np.where(are_counted, units, 0)
        mass = np.cumsum(np.take_along_axis(counted, order, axis=1), axis=1)
        at = (mass >= halves(mass[:, -1:], n)).argmax(axis=1)
        ordered = np.take_along_axis(values, order, axis=1)
    found: FloatArray = ordered[np.arange(len(values)), at]
    return found


def _medians_of_groups(
    values: FloatArray, weight: FloatArray, groups: NDArray[np.integer[Any]]
) -> tuple[NDArray[Any], FloatArray]:
    """Numbers of the groups of values (n,), (k,), and their lower weighted medians; all weights are positive."""
    order = np.lexsort((values, groups))
    known, starts = np.unique(groups[order], return_index=True)
    mass = np.cumsum(in_units(weight)[order])
    ends = np.append(mass[starts[1:] - 1], mass[-1])
    before = np.append(0, ends[:-1])
    at = np.searchsorted(mass, before + halves(ends - before, np.diff(starts, append=len(order))))
    return known, values[order[np.maximum(at, starts)]]


def _pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows, so that a piece of a matrix is small beside what a training takes."""
    rows = max(1, limits.LENGTHS_AT_ONCE // max(1, shape[1]))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
