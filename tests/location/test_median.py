"""The geometric median: right everywhere, proved, in the caller's terms."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from conftest import PATHS, ZOO, on_path
from oracle import ORACLE, conic, excess, many_digits, objective
from skbgmd import block_geometric_median, geometric_median

# ---------------------------------------------------------------------------------------------------------------------
# Against exact solutions


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_optimal_and_proved_on_every_hard_matrix(hard_matrix, dtype, path):
    X = hard_matrix.astype(dtype)
    result = geometric_median(X, return_result=True)
    true = excess(X, result.median)
    assert true <= 1e-9
    assert true <= result.gap + ORACLE
    assert result.converged
    assert result.gap <= 1e-6
    assert result.objective == pytest.approx(float(objective(X, result.median)), rel=1e-12)


@pytest.mark.parametrize("tol", [1e-3, 1e-9, 1e-12])
def test_tolerance_is_kept(hard_matrix, tol, path):
    result = geometric_median(hard_matrix, tol=tol, return_result=True)
    assert excess(hard_matrix, result.median) <= result.gap + ORACLE <= tol + ORACLE


@pytest.mark.parametrize(
    "name", ["few columns", "clusters", "vertex", "duplicates", "collinear", "symmetric", "square"]
)
def test_agrees_with_a_conic_solver(name):
    X = ZOO[name]
    assert geometric_median(X, tol=1e-10, return_result=True).objective == pytest.approx(conic(X), rel=1e-9)


@cache
def among_far_rows(shape, size):
    X = np.random.default_rng(20211).normal(size=shape)
    X[: int(0.4 * len(X))] *= size
    return X, many_digits(X)


@pytest.mark.parametrize("shape", [(15, 4), (7, 20)])
@pytest.mark.parametrize("size", [1e6, 1e20, 1e160])
def test_inliers_are_exact_among_far_rows(shape, size, path):
    X, expected = among_far_rows(shape, size)
    np.testing.assert_allclose(geometric_median(X), expected, atol=2e-6)
    np.testing.assert_allclose(geometric_median(X, tol=1e-10), expected, atol=2e-10)


def cases():
    """Matrices with ties, duplicates, collinear rows, outliers, offsets, weights and either dtype."""
    return st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32 - 1),
            "n": st.integers(1, 14),
            "d": st.integers(1, 16),
            "kind": st.sampled_from(
                [
                    "normal",
                    "grid",
                    "collinear",
                    "clusters",
                    "duplicates",
                    "outliers",
                    "offset",
                    "near a vertex",
                    "scales",
                ]
            ),
            "weighted": st.booleans(),
            "dtype": st.sampled_from([np.float64, np.float32]),
            "path": st.sampled_from(PATHS),
        }
    )


def make(seed, n, d, kind, weighted, dtype, path):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    if kind == "grid":
        X = rng.integers(-2, 3, size=(n, d)).astype(float)
    elif kind == "collinear":
        # Small integers: collinear in float32 too, to the last digit.
        X = (rng.integers(-50, 50, size=(n, 1)) * rng.integers(-3, 4, size=d)).astype(float)
    elif kind == "clusters":
        X = 10.0 ** rng.uniform(-6, 0) * X + (rng.random((n, 1)) < 0.49) * rng.normal(size=d) * 10
    elif kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 2), size=n)]
    elif kind == "outliers":
        X[rng.random(n) < 0.4] *= 10.0 ** rng.uniform(1, 15)
    elif kind == "offset":
        X += 10.0 ** rng.uniform(0, 6 if dtype == np.float64 else 2)
    elif kind == "near a vertex":
        X[: n // 3] = X[0] + 10.0 ** rng.uniform(-8, -1) * rng.normal(size=(n // 3, d)) if n >= 3 else X[: n // 3]
    elif kind == "scales":
        X *= 10.0 ** rng.uniform(-12, 12)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0, 7.3], size=n) if weighted else None
    if weighted and not weights.any():
        weights[0] = 1.0
    return X.astype(dtype), weights


@settings(max_examples=1000)
@given(cases())
def test_gap_is_never_below_the_true_excess(case):
    with on_path(case["path"]):
        check_gap(case)


def check_gap(case):
    X, weights = make(**case)
    with warnings.catch_warnings():
        # Points near one another and far from zero have medians between the numbers of float32.
        warnings.simplefilter("ignore" if case["dtype"] == np.float32 else "error", ConvergenceWarning)
        result = geometric_median(X, sample_weight=weights, return_result=True)
    assert excess(X, result.median, weights) <= result.gap + ORACLE
    rounded = geometric_median(X.astype(np.float64), sample_weight=weights, tol=1e-9).astype(X.dtype)
    assert result.gap <= max(1e-6, 4.0 * excess(X, rounded, weights)) + ORACLE
    if case["dtype"] == np.float64:
        result = geometric_median(X, sample_weight=weights, tol=1e-9, return_result=True)
        assert excess(X, result.median, weights) <= result.gap + ORACLE <= 1e-9 + ORACLE


@settings(max_examples=300)
@given(cases(), st.sampled_from([1, 2, 3]))
def test_gap_is_true_when_stopped_early(case, max_iter):
    X, weights = make(**case)
    with warnings.catch_warnings(), on_path(case["path"]):
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = geometric_median(X, sample_weight=weights, tol=1e-15, max_iter=max_iter, return_result=True)
    assert excess(X, result.median, weights) <= result.gap + ORACLE


# ---------------------------------------------------------------------------------------------------------------------
# Equivariance


@settings(max_examples=100)
@given(cases())
def test_equivariance(case):
    with on_path(case["path"]):
        check_equivariance(case)


def check_equivariance(case):
    case["dtype"] = np.float64
    X, weights = make(**case)
    rng = np.random.default_rng(case["seed"])
    rotation = np.linalg.qr(rng.normal(size=(X.shape[1], X.shape[1])))[0]
    shift = rng.normal(size=X.shape[1]) * np.abs(X).max()
    order = rng.permutation(len(X))
    for scale in (1e-12, 1.0, 1e12):
        for moved, back in (
            (X * scale, lambda y, s=scale: y / s),
            ((X @ rotation) * scale, lambda y, s=scale: (y / s) @ rotation.T),
            (X + shift, lambda y: y - shift),
        ):
            y = back(geometric_median(moved, sample_weight=weights, tol=1e-10))
            # Where the optimum isn't unique the points may differ; their objective may not.
            # What is moved is rounded, at a cost by the size of the rows, not of their distances.
            whole = float(len(X) if weights is None else weights.sum())
            rounding = 2.0**-50 * np.abs(X).max() * whole / max(float(objective(X, y, weights)), 1e-300)
            assert excess(X, y, weights) <= 1e-9 + rounding
    permuted = geometric_median(X[order], sample_weight=None if weights is None else weights[order], tol=1e-10)
    assert excess(X, permuted, weights) <= 1e-9


@pytest.mark.parametrize("shape", [(30, 4), (9, 50)])
def test_shift_and_scale_move_the_median_along(shape, rng, path):
    X = rng.normal(size=shape)
    y = geometric_median(X, tol=1e-12)
    np.testing.assert_allclose(geometric_median(X + 5.0, tol=1e-12), y + 5.0, rtol=1e-8)
    np.testing.assert_allclose(geometric_median(-3.0 * X, tol=1e-12), -3.0 * y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(12, 3), (6, 30)])
def test_integer_weights_are_repeated_rows(shape, rng, path):
    X, counts = rng.normal(size=shape), rng.integers(0, 4, size=shape[0])
    weighted = geometric_median(X, sample_weight=counts, tol=1e-12, return_result=True)
    repeated = geometric_median(np.repeat(X, counts, axis=0), tol=1e-12, return_result=True)
    np.testing.assert_allclose(weighted.median, repeated.median, atol=1e-7)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-11)
    assert weighted.weights[counts == 0].sum() == 0.0


def test_breakdown_point_is_a_half(rng):
    X = rng.normal(size=(21, 5))
    bound = 2 * np.linalg.norm(X, axis=1).max() * 11 / (11 - 10)
    X[:10] = 1e12
    assert np.linalg.norm(geometric_median(X)) <= bound
    X[10] = 1e12
    assert np.linalg.norm(geometric_median(X)) > 1e11


# ---------------------------------------------------------------------------------------------------------------------
# The result


def test_weights_make_the_median(hard_matrix, path):
    result = geometric_median(hard_matrix, return_result=True)
    assert (result.weights >= 0).all()
    assert result.weights.sum() == pytest.approx(1.0)
    scale = np.abs(hard_matrix[result.weights > 0]).max()
    np.testing.assert_allclose(result.weights @ hard_matrix, result.median, atol=1e-7 * scale)


def test_not_converged_warns_and_returns_the_best_point(rng):
    X = rng.normal(size=(40, 3))
    with pytest.warns(ConvergenceWarning, match="proved to a relative accuracy"):
        result = geometric_median(X, tol=1e-14, max_iter=1, return_result=True)
    assert not result.converged
    assert result.n_iter <= 2
    assert excess(X, result.median) <= result.gap < 1.0


def test_warning_points_at_the_caller(rng):
    with pytest.warns(ConvergenceWarning) as record:
        geometric_median(rng.normal(size=(40, 3)), tol=1e-16, max_iter=1)
    assert record[0].filename == __file__


# ---------------------------------------------------------------------------------------------------------------------
# The caller's terms


def test_kinds_of_input(rng):
    X = rng.normal(size=(9, 3))
    y = geometric_median(X)
    assert isinstance(y, np.ndarray)
    assert y.dtype == np.float64
    assert y.shape == (3,)
    np.testing.assert_array_equal(geometric_median(X.tolist()), y)
    np.testing.assert_array_equal(geometric_median(pd.DataFrame(X)), y)
    np.testing.assert_allclose(geometric_median(torch.from_numpy(X)).numpy(), y)
    np.testing.assert_array_equal(geometric_median(np.asfortranarray(X)), y)
    np.testing.assert_allclose(geometric_median(X[::-1]), y, atol=1e-6)
    np.testing.assert_array_equal(geometric_median(X.astype(">f8")), y)


@pytest.mark.parametrize("shape", [(9, 3), (3, 9)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_dtype(shape, dtype):
    X = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = geometric_median(X)
    assert y.dtype == dtype
    expected = geometric_median(X.double())
    assert torch.allclose(y.double(), expected, atol=10 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
def test_arrays_keep_dtype(dtype, rng):
    assert geometric_median(rng.normal(size=(7, 2)).astype(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, bool])
def test_integers_are_promoted(dtype):
    X = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [1, 1]]).astype(dtype)
    assert geometric_median(X).dtype == np.float64
    assert geometric_median(torch.tensor([[0, 0], [2, 0], [1, 5]])).dtype == torch.float64


def test_gradients_are_not_followed():
    X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert not geometric_median(X).requires_grad


def test_the_input_is_left_alone(hard_matrix):
    before = hard_matrix.copy()
    hard_matrix.flags.writeable = False
    try:
        geometric_median(hard_matrix)
    finally:
        hard_matrix.flags.writeable = True
    np.testing.assert_array_equal(hard_matrix, before)


@pytest.mark.parametrize("d", [1, 3, 40])
def test_the_median_is_a_copy_of_the_row_that_it_is(d, path):
    """What is written to it isn't written to the data."""
    X = torch.zeros(9, d, dtype=torch.float64)
    X[5:] = torch.randn(4, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for data in (X, X.numpy()):
        median = geometric_median(data)
        assert not median.any()
        median += 1.0
        assert not X[:5].any()


def test_result_is_deterministic(hard_matrix):
    np.testing.assert_array_equal(geometric_median(hard_matrix), geometric_median(hard_matrix))


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        ([[1.0, np.nan]], ValueError, "X must be finite; found NaN at row 0, column 1"),
        ([[1.0, 2.0], [3.0, np.inf], [1.0, 1.0]], ValueError, "found inf at row 1, column 1"),
        ([[1.0], [np.nan]], ValueError, "found NaN at row 1, column 0"),
        ([1.0, 2.0], ValueError, r"two dimensions.*shape \(2,\)"),
        (np.zeros((2, 2, 2)), ValueError, r"two dimensions.*shape \(2, 2, 2\)"),
        (np.zeros((0, 3)), ValueError, r"at least one row.*shape \(0, 3\)"),
        (np.zeros((3, 0)), ValueError, "at least one row and one column"),
        ([[1.0, 2.0], [3.0]], ValueError, "rectangular"),
        (np.zeros((2, 2), dtype=complex), TypeError, "real numbers; found dtype complex128"),
        (np.array([["a", "b"]], dtype=object), TypeError, "found 'a' in column 0"),
        ([["a", "b"]], TypeError, "real numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(2), ValueError, "two dimensions"),
        (torch.eye(2).to_sparse(), TypeError, "dense tensor"),
    ],
)
def test_bad_data(X, kind, message):
    with pytest.raises(kind, match=message):
        geometric_median(X)


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"sample_weight": [1.0, -1.0, 1.0]}, ValueError, "sample_weight must not be negative; found -1"),
        ({"sample_weight": [0.0, 0.0, 0.0]}, ValueError, "positive entry"),
        ({"sample_weight": [1.0, 1.0]}, ValueError, r"shape \(3,\).*found shape \(2,\)"),
        ({"sample_weight": [1.0, np.nan, 1.0]}, ValueError, "finite; found nan"),
        ({"sample_weight": ["a", "b", "c"]}, TypeError, "real numbers"),
        ({"tol": 0.0}, ValueError, "tol must be greater than 0 and finite; found 0.0"),
        ({"tol": float("nan")}, ValueError, "tol must be greater"),
        ({"tol": "small"}, TypeError, "tol must be a number; found 'small'"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1; found 0"),
        ({"max_iter": 1.5}, TypeError, "max_iter must be an integer"),
    ],
)
def test_bad_parameters(parameters, kind, message):
    with pytest.raises(kind, match=message):
        geometric_median(np.eye(3), **parameters)


@pytest.mark.parametrize("shape", [(12, 3), (3, 12), (24, 60_000)])
def test_cuda(shape, cuda):
    X = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = geometric_median(X.to(cuda))
    assert y.device.type == "cuda"
    assert torch.allclose(y.cpu(), geometric_median(X), atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 5000), (400, 3)])
def test_medians_are_as_accurate_under_autocast(shape, rng):
    X = torch.as_tensor(rng.normal(size=shape) + 3.0, dtype=torch.float32)
    expected, block = geometric_median(X), block_geometric_median(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(geometric_median(X), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(block_geometric_median(X), block, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_half_precision_add_up_to_one(dtype, path, rng):
    X = torch.from_numpy(rng.normal(size=(300, 4))).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = geometric_median(X, return_result=True).weights
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert float(weights.double().sum()) == pytest.approx(1.0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes that are far apart


@pytest.mark.parametrize("shape", [(6, 3), (5, 1), (3, 40)])
def test_the_largest_and_the_smallest_numbers(shape, path, rng):
    smallest, largest = 5e-324, np.finfo(np.float64).max
    signs = rng.choice([-1.0, 1.0], size=shape)
    for X in (np.full(shape, largest), np.full(shape, smallest), np.zeros(shape)):
        np.testing.assert_array_equal(geometric_median(X), X[0])
    for X in (signs * largest, signs * smallest * rng.integers(1, 9, size=shape)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            median = geometric_median(X)
        assert ((X.min(axis=0) <= median) & (median <= X.max(axis=0))).all()


def test_an_objective_that_has_no_number():
    X = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]) * 1.5e308
    assert np.isfinite(geometric_median(X)).all()
    with pytest.raises(ValueError, match="must have a number in float64; found one beyond"):
        geometric_median(X, return_result=True)
    result = geometric_median(X, sample_weight=[1e-10, 1e-10, 1e-10], return_result=True)
    assert 1e298 < result.objective < 1e300
    # A distance that has no number, times a weight by which it has.
    far = np.array([[1.7e308, 1.7e308], [-1.7e308, -1.7e308], [-1.7e308, -1.7e308]])
    result = geometric_median(far, sample_weight=[1e-300, 1.0, 1.0], return_result=True)
    assert result.objective == pytest.approx(np.sqrt(2.0) * 3.4e8)


def test_weights_far_apart(path, rng):
    X = rng.normal(size=(6, 4))
    result = geometric_median(X, sample_weight=[1.0, 1e-300, 1e-200, 1e-30, 1e-9, 1e-160], return_result=True)
    assert result.converged
    np.testing.assert_array_equal(result.median, X[0])
    assert result.objective == pytest.approx(1e-9 * np.linalg.norm(X[4] - X[0]))


@pytest.mark.parametrize("largest", [65504.0, 3.4028234663852886e38])
def test_largest_of_narrow_dtypes(largest, path):
    dtype = np.float16 if largest < 1e5 else np.float32
    X = np.full((7, 5), largest, dtype=dtype)
    X[:2] = -largest
    np.testing.assert_array_equal(geometric_median(X), X[-1])
    result = block_geometric_median(X, return_result=True)
    assert np.isfinite(result.median).all()
    assert result.converged


@settings(max_examples=50)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=12))
def test_a_single_columns_is_numpys_median(values):
    column = np.array(values, dtype=np.float64)[:, None]
    assert geometric_median(column)[0] == np.median(values)
    assert geometric_median(torch.from_numpy(column))[0] == np.median(values)
    assert geometric_median(column[::-1].astype(np.float32))[0] == np.median(values)


@pytest.mark.parametrize("d", [2, 3, 50])
@pytest.mark.parametrize("places", [(0, 1), (0, 1, 2, 10), (1, 2, 3, 4, 5, 6), (-9, -9, 4, 4), (0, 0, 0, 7, 8, 1000)])
def test_even_collinear_rows_have_a_median_between_the_two_in_the_middle(d, places, path, rng):
    direction, start = rng.normal(size=(2, d))
    ordered = np.sort(np.array(places, dtype=np.float64))
    low, high = ordered[len(places) // 2 - 1], ordered[len(places) // 2]
    for order in (ordered, ordered[::-1], rng.permutation(ordered)):
        X = start + order[:, None] * direction
        median = geometric_median(X)
        place = (median - start) @ direction / (direction @ direction)
        assert low - 1e-9 <= place <= high + 1e-9
        np.testing.assert_allclose(median, start + place * direction, atol=1e-9)
        np.testing.assert_array_equal(geometric_median(X), median)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [1e12, 1e25, 1e30])
def test_a_line_of_many_columns_with_a_third_far_out(far, dtype):
    """The products of near rows have no digit beside those of far ones, and no curvature says where the median is."""
    rng = np.random.default_rng(0)
    direction = np.zeros(2000)
    direction[[3, 500, 900, 1999]] = 0.5
    for _ in range(9):
        places = np.concatenate([np.full(100, far), rng.normal(size=200)]).astype(dtype)
        X = (places[:, None] * direction).astype(dtype)
        result = geometric_median(X, return_result=True)
        place = np.longdouble(result.median @ direction)
        best = np.sort(places)[149:151].mean(dtype=np.longdouble)
        true = (np.abs(places - place) - np.abs(places - best)).sum() / np.abs(places - best).sum()
        assert abs(place) < 3.0
        assert result.gap >= true - ORACLE


@pytest.mark.parametrize("given", ["x", 1, None], ids=str)
def test_return_result_is_a_flag(given):
    with pytest.raises(TypeError, match="return_result must be True or False; found"):
        geometric_median(np.eye(3), return_result=given)
