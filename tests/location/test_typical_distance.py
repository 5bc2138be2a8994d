"""Typical distances, also where many rows are tied."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skbgmd._utils import limits
from skbgmd.location.typical_distance import of_common_size, tied_with_median, typical_distance
from skbgmd.rows.gram import lower_weighted_median


@given(
    arrays(np.float64, 12, elements=st.floats(0.0, 1e3)),
    arrays(np.float64, 12, elements=st.floats(1e-3, 1e3)),
    arrays(np.float64, 12, elements=st.sampled_from([0.1, 1.0, 3.0])),
)
def test_a_typical_distance(distances: np.ndarray, norms: np.ndarray, weights: np.ndarray) -> None:
    tied = tied_with_median(distances, norms)
    found = typical_distance(distances, norms, weights, tied)
    middle = lower_weighted_median(distances, weights)
    if not found.tied:
        assert found.distance == middle
        assert tied.all() or weights[tied].sum() < max(
            limits.MANY_TIED * weights.sum(), 2.0 * np.median(weights) + 1e-9
        )
    else:
        assert found.distance in (*distances[~tied], limits.SAME_SIZE * lower_weighted_median(norms, weights))
    scaled = typical_distance(2.0**20 * distances, 2.0**20 * norms, weights, tied)
    assert scaled.tied == found.tied
    assert scaled.distance == 2.0**20 * found.distance


def test_a_single_row_of_a_few_is_no_tie() -> None:
    distances, norms = np.array([0.0, 1.0, 1.0, 1.0, 1.0]), np.ones(5)
    tied = tied_with_median(distances, norms)
    assert tied.tolist() == [True, False, False, False, False]
    assert not typical_distance(distances, norms, np.ones(5), tied).tied
    # One of more weight, as equal samples make when they are merged, is.
    assert typical_distance(distances, norms, np.array([4.0, 1.0, 1.0, 1.0, 1.0]), tied).tied


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=20), st.sampled_from([3, 7, 49]))
def test_a_common_size_by_integer_weights_is_that_of_repeated_rows(rows: list[tuple[int, int]], whole: int) -> None:
    powers, counts = np.array(rows).T
    norms = 10.0**powers
    repeated = of_common_size(np.repeat(norms, counts), np.ones(counts.sum()))
    np.testing.assert_array_equal(np.repeat(of_common_size(norms, counts / whole), counts), repeated)


def test_a_tenth_of_the_weight_is_a_tenth_whatever_the_unit():
    distances, norms = np.array([0.0, 0.0, 1.0, 2.0, 3.0]), np.ones(5)
    for unit in (1.0, 3.0, 7.0, 49.0):
        weights = np.array([1.0, 1.0, 1.0, 1.0, 16.0]) / unit
        found = typical_distance(distances, norms, weights, distances == 0.0)
        assert found.tied
