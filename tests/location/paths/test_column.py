"""A single column: the weighted median."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import halves
from skbgmd import block_geometric_median, geometric_median
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


@pytest.mark.parametrize("n", [4, 20, 200, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_integer_weights_of_half_the_total_have_the_midpoint(n, seed):
    values, weights = halves(n, seed)
    X = values[:, None]
    for scale in (1, 1 / 7, 1e-300):
        assert geometric_median(X, sample_weight=scale * weights).tolist() == [500.0]
        assert block_geometric_median(X, sample_weight=scale * weights).tolist() == [500.0]
    weights[values.argmax()] += 1
    assert geometric_median(X, sample_weight=weights).tolist() == [1000.0]


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 30)), min_size=1, max_size=60))
def test_an_integer_weight_is_that_number_of_rows(rows: list[tuple[int, int]]) -> None:
    values, weights = np.array(rows, dtype=np.float64).T
    if not weights.any():
        return
    repeated = np.repeat(values, weights.astype(int))
    found = geometric_median(values[:, None], sample_weight=weights)
    assert found == geometric_median(repeated[:, None]) == np.median(repeated)
