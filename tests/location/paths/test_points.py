"""Newton steps in R^d: subsamples, conjugate gradients, memory, other devices."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from skbgmd import geometric_median
from skbgmd.location.paths.points import solve_points
from skbgmd.location.solver import minimize
from skbgmd.location.spaces import EuclideanSpace
from skbgmd.rows import DenseRows


def test_many_rows_start_from_a_subsample(rng):
    X = rng.normal(size=(20_000, 3))
    X[:6000] += 50.0
    result = geometric_median(X, return_result=True)
    assert result.converged
    assert result.objective == pytest.approx(
        geometric_median(X[::-1], tol=1e-11, return_result=True).objective, rel=1e-9
    )


def test_conjugate_gradients_take_over_beyond_the_dense_limit(rng):
    for shape in ((700, 300), (300, 2000)):
        X = rng.normal(size=shape)
        X[: shape[0] // 3] += 4.0
        assert geometric_median(X, tol=1e-9, return_result=True).gap <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_points_take_little_memory(dtype):
    """Beyond the data: weights, distances at two points, and blocks; NumPy's allocations are what is traced."""
    X = np.random.default_rng(0).normal(size=(2_000_000, 3)).astype(dtype)
    tracemalloc.start()
    geometric_median(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 3 * 8 * len(X) + 16e6


@pytest.mark.parametrize("shape", [(40, 3), (40, 300)])
def test_points_on_another_device_run_the_same_code(shape, rng):
    """The torch namespace of the R^d path, which a GPU takes, checked on the CPU."""
    X = rng.normal(size=shape)
    tensor = torch.from_numpy(X)
    origin = np.median(X, axis=0)
    found = [
        minimize(EuclideanSpace(points, weights, center, xp), 0.0 * center, tol=1e-11, max_iter=50)
        for points, weights, center, xp in (
            (X, np.ones(40), origin, np),
            (tensor, torch.ones(40, dtype=torch.float64), torch.from_numpy(origin), torch),
        )
    ]
    np.testing.assert_allclose(found[0].position, found[1].position.numpy(), atol=1e-9)


@pytest.mark.parametrize("n", [40, 9000])
@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_steps_without_bounds_count(n, max_iter, rng):
    """Those of the start do, too: there are never more than are asked for, but one for the proof."""
    X = rng.normal(size=(n, 3))
    X[: n // 3] += 20.0
    rows = DenseRows(torch.from_numpy(X))
    solved = solve_points(rows, 1e-13, max_iter, torch.float64)
    assert solved.n_iter <= max_iter + (n > 8192)


@pytest.mark.parametrize("index", [0, 17, 8999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_number_that_is_not_finite_is_found_on_the_way(index, value, dtype, rng):
    for n in (index + 1, 9000):
        X = rng.normal(size=(n, 3)).astype(dtype)
        X[index, 1] = value
        with pytest.raises(ValueError, match=f"found {'NaN' if np.isnan(value) else 'inf'} at row {index}, column 1"):
            solve_points(DenseRows(torch.from_numpy(X)), 1e-6, 100, torch.float64)


def test_a_common_offset_beyond_the_range_of_squares(rng):
    """Differences have squares where the rows themselves have none."""
    X = rng.normal(size=(60, 3))
    moved = X * 1e140 + 1e153
    result = geometric_median(moved, return_result=True)
    assert result.converged
    np.testing.assert_allclose(result.median, geometric_median(moved / 1e140) * 1e140, rtol=1e-14)
