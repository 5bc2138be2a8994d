"""A single column: the weighted median."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.location.paths.column import solve_column
from skbgmd.rows import DenseRows


def solved(values, weights=None, dtype=torch.float64):
    rows = DenseRows(torch.tensor(values, dtype=torch.float64)[:, None], None if weights is None else np.array(weights))
    return solve_column(rows, dtype)


@pytest.mark.parametrize(
    ("values", "weights", "median", "of_rows"),
    [
        ([3.0, 1.0, 2.0], None, 2.0, [0.0, 0.0, 1.0]),
        # Between two rows any point will do; the middle is taken.
        ([4.0, 1.0, 2.0, 9.0], None, 3.0, [0.5, 0.0, 0.5, 0.0]),
        ([4.0, 1.0, 2.0], [1.0, 0.25, 0.25], 4.0, [1.0, 0.0, 0.0]),
        ([7.0], None, 7.0, [1.0]),
    ],
)
def test_is_the_weighted_median(values, weights, median, of_rows):
    found = solved(values, weights)
    assert float(found.median[0]) == median
    np.testing.assert_array_equal(found.weights, of_rows)
    distances = np.abs(np.array(values) - median) @ (np.ones(len(values)) if weights is None else weights)
    assert np.ldexp(found.objective, found.exponent) == pytest.approx(distances)
    assert found.gap <= 1e-15


def test_rounding_is_in_the_gap():
    """1.0005 has no number in half precision: the answer is off by the half of a step, 2e-4 of the distances."""
    found = solved([1.0005, 0.0, 2.0], dtype=torch.float16)
    moved = abs(float(found.median[0]) - 1.0005)
    assert moved > 0.0
    assert found.gap == pytest.approx(moved / 2.0, rel=1e-3)


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e308])
def test_numbers_of_any_size(size):
    found = solved([-size, size, size])
    assert float(found.median[0]) == size
    assert found.gap == 0.0


def test_a_number_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="found NaN at row 1, column 0"):
        solved([1.0, np.nan, 2.0])
