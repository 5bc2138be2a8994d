"""Rows on a line: the middle of all medians, in any order, on every path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd import geometric_median
from skbgmd.aggregators import GeometricMedian
from skbgmd.location.collinear import seem_collinear
from skbgmd.rows import DenseRows


def line(n, d, seed, offset=1.0):
    """Rows on a line through no row of zeros, and where on it they are."""
    rng = np.random.default_rng(seed)
    direction, places = rng.normal(size=d), rng.normal(size=n)
    return offset * rng.normal(size=d) + places[:, None] * direction, places, direction


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("n", "d"), [(2, 2), (4, 2), (6, 3), (2, 50), (10, 50), (2, 3000), (8, 3000), (60, 200), (300, 20_000)]
)
def test_the_middle_of_all_medians_in_any_order(n, d, dtype):
    X, places, direction = line(n, d, n + d)
    low, high = np.sort(places)[[n // 2 - 1, n // 2]]
    at = int(np.argsort(places)[n // 2])
    wanted = X[at] + (0.5 * (low + high) - places[at]) * direction
    length = np.linalg.norm(direction)
    rng = np.random.default_rng(0)
    for _ in range(3):
        result = geometric_median(X[rng.permutation(n)].astype(dtype), return_result=True)
        assert np.linalg.norm(result.median - wanted) < (1e-9 if dtype == np.float64 else 1e-4) * length
        assert result.converged
        assert result.gap <= 1e-6


def test_weights_have_their_middle_too():
    X, _, direction = line(3, 4, 0)
    X = X[:1] + np.array([0.0, 1.0, 5.0])[:, None] * direction
    # Half of the weight is on either side of the gap between the second and the third, or of that before it.
    for weight, middle in (
        ([1.0, 1.0, 2.0], 3.0),
        ([0.3, 0.1, 0.2], 0.5),
        ([1.0, 1.0, 1.0], 1.0),
        ([1.0, 3.0, 1.0], 1.0),
    ):
        median = geometric_median(X, sample_weight=weight)
        np.testing.assert_allclose(median, X[0] + middle * direction, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_numbers_of_any_size(scale):
    X = scale * np.array([[0.0, 0.0], [3.0, 3.0], [1.0, 1.0], [4.0, 4.0]])
    np.testing.assert_allclose(geometric_median(X), [2.0 * scale] * 2, rtol=1e-9)
    # Far from zero.
    np.testing.assert_allclose(geometric_median(X / scale + 1e6), [2.0 + 1e6] * 2, rtol=1e-12)


def test_two_rows_have_their_mean_as_their_median():
    rows = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    aggregate, _ = GeometricMedian()(DenseRows(rows))
    torch.testing.assert_close(aggregate.vector, rows.mean(dim=0))
    np.testing.assert_allclose(aggregate.weights, 0.5, atol=1e-6)


def test_rows_beside_a_line_have_one_median():
    X = np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0], [2.0, 0.1]])
    result = geometric_median(X, tol=1e-12, return_result=True)
    assert result.gap <= 1e-12
    assert abs(result.median[1]) < 0.1
    # Three of four are equal: there is no gap.
    np.testing.assert_allclose(geometric_median(np.array([[1.0, 2.0]] * 3 + [[5.0, 5.0]])), [1.0, 2.0])
    np.testing.assert_allclose(geometric_median(np.array([[1.0, 2.0]] * 2 + [[5.0, 4.0]] * 2)), [3.0, 3.0])


@pytest.mark.parametrize("offset", [10.0, 1e3, 1e5])
@pytest.mark.parametrize(("n", "d"), [(2, 65), (2, 300), (2, 999), (6, 100), (400, 100), (2000, 600)])
def test_far_from_zero(n, d, offset):
    rng = np.random.default_rng(n + d)
    X, places, direction = line(n, d, n + d, offset)
    low, high = np.sort(places)[[n // 2 - 1, n // 2]]
    at = int(np.argsort(places)[n // 2])
    wanted = X[at] + (0.5 * (low + high) - places[at]) * direction
    for _ in range(2):
        median = geometric_median(X[rng.permutation(n)])
        np.testing.assert_allclose(median, wanted, rtol=0.0, atol=1e-12 * offset)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [8, 16, 64, 400])
def test_rows_of_two_kinds_in_any_pattern(n, dtype):
    for d in (2, 100, 2000):
        for X in (np.zeros((n, d), dtype), np.full((n, d), 3.0, dtype)):
            X[1::2, 0] += 1.0
            for rows in (X, X[::-1], X[np.argsort(X[:, 0], kind="stable")]):
                assert abs(geometric_median(rows)[0] - X[0, 0] - 0.5) < 1e-6


def test_a_few_rows_tell_lines():
    def tells(X):
        return seem_collinear(lambda index: X[index], np.linalg.norm(X, axis=1))

    X = line(100, 50, 3)[0]
    assert tells(X)
    assert tells(X.astype(np.float32).astype(np.float64))
    assert not tells(np.random.default_rng(0).normal(size=(100, 50)))
    assert not tells(np.ones((100, 50)))
    # Most rows are equal, but not all.
    assert tells(np.eye(100, 50)[:1].repeat(100, axis=0) * (np.arange(100) > 90)[:, None])
