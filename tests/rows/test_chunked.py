"""Kernels over chunks of columns, against NumPy in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.aggregators import GeometricMedian, HuberMean
from skbgmd.rows import DenseRows

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(params=[(7, 5001), (300, 40), (600, 70)], ids=str)
def shape(request):
    return request.param


@pytest.fixture(autouse=True)
def _several_chunks_and_stripes(monkeypatch):
    monkeypatch.setattr(limits, "CHUNK_ELEMENTS", 1 << 10)
    monkeypatch.setattr(limits, "MIN_CHUNK_COLUMNS", 16)


def rows_of(shape, dtype, seed=0):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return DenseRows(matrix), matrix.double().numpy()


def tolerance(dtype):
    return 1e-11 if dtype == torch.float64 else 2e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels(shape, dtype, rng):
    rows, X = rows_of(shape, dtype)
    w, scale = rng.dirichlet(np.ones(shape[0])), rng.random(shape[0]) + 0.1
    tol = {"rtol": tolerance(dtype), "atol": tolerance(dtype)}
    np.testing.assert_allclose(rows.norms(), np.linalg.norm(X, axis=1), **tol)
    np.testing.assert_allclose(rows.weighted_sum(w).double(), w @ X, **tol)
    np.testing.assert_allclose(
        rows.weighted_sum(np.stack([w, scale])).double(), np.stack([w, scale]) @ X, rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(rows.column_scores(scale).double(), ((scale[:, None] * X) ** 2).sum(axis=0), **tol)
    shift = torch.linspace(-1, 1, shape[1], dtype=rows.work_dtype)
    shifted = ((scale[:, None] * X + shift.double().numpy()) ** 2).sum(axis=0)
    np.testing.assert_allclose(rows.column_scores(scale, shift).double(), shifted, **tol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("product", [torch.float32, torch.float64])
def test_gram(shape, dtype, product):
    rows, X = rows_of(shape, dtype)
    center = X[2]
    gram = rows.gram_about(torch.from_numpy(center).to(rows.work_dtype), product)
    expected = (X - center) @ (X - center).T
    norms = np.sqrt(np.diagonal(expected))
    error = np.abs(gram.products - expected) / np.maximum(np.outer(norms, norms), 1e-300)
    # A row of 5000 numbers in one float32 sum; the kernels split it.
    assert error[norms > 0][:, norms > 0].max() <= (1e-5 if product == torch.float32 else 1e-13)
    np.testing.assert_allclose(gram.products, gram.products.T, atol=1e-5)
    again = rows.gram(about=np.eye(shape[0])[2])
    np.testing.assert_allclose(again.products, expected, atol=1e-10 * norms.max() ** 2)


def test_weights_count_in_scores(shape, rng):
    rows, X = rows_of(shape, torch.float64)
    a = rng.random(shape[0])
    weighted = DenseRows(rows.matrix, a).column_scores(np.ones(shape[0]))
    np.testing.assert_allclose(weighted, a @ X**2)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e30), (torch.float64, 1e200), (torch.float32, 1e-30)])
def test_no_square_overflows_or_underflows(dtype, size):
    rows, X = rows_of((6, 300), torch.float64)
    factors = torch.tensor([size, 1, 1, 1, 1, size], dtype=torch.float64)[:, None]
    rows = DenseRows((rows.matrix * factors).to(dtype))
    expected = np.linalg.norm(X, axis=1) * np.array([size, 1, 1, 1, 1, size])
    np.testing.assert_allclose(rows.norms(), expected, rtol=1e-5)
    gram = rows.gram()
    assert np.isfinite(gram.products).all()
    distances = np.sqrt(gram.squared_distances()) * gram.unit
    np.testing.assert_allclose(distances[1, 2:5], np.linalg.norm(X[2:5] - X[1], axis=1), rtol=1e-4)
    scale = np.minimum(1.0, 1.0 / expected)
    scores = rows.column_scores(scale).double().numpy()
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(((scale * expected) ** 2).sum(), rel=1e-4)


def test_all_rows_tiny():
    rows, X = rows_of((4, 300), torch.float64)
    tiny = DenseRows((rows.matrix * 1e-25).float())
    distances = np.sqrt(tiny.gram().squared_distances()) * tiny.gram().unit
    np.testing.assert_allclose(distances[0, 1:], 1e-25 * np.linalg.norm(X[1:] - X[0], axis=1), rtol=1e-4)


def test_rows_that_are_not_finite_are_found_and_left_out():
    rows, X = rows_of((6, 500), torch.float32)
    rows.matrix[1, 499], rows.matrix[3, 0], rows.matrix[4, 7] = torch.nan, torch.inf, -torch.inf
    expected = [True, False, True, False, False, True]
    np.testing.assert_array_equal(rows.finite, expected)
    np.testing.assert_array_equal(np.isnan(rows.norms()), np.logical_not(expected))
    gram = rows.gram()
    np.testing.assert_array_equal(gram.finite, expected)
    assert np.isfinite(gram.products).all()
    w = np.array([0.5, 0, 0.25, 0, 0, 0.25])
    np.testing.assert_allclose(rows.weighted_sum(w).numpy(), w[[0, 2, 5]] @ X[[0, 2, 5]], atol=1e-5)
    scores = rows.column_scores((w > 0).astype(float))
    np.testing.assert_allclose(scores, (X[[0, 2, 5]] ** 2).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("rule", [GeometricMedian(), GeometricMedian(rejection=10.0), HuberMean()], ids=str)
def test_rows_whose_products_are_not_finite_are_left_out(dtype, size, rule):
    """As where the products are added up elsewhere, by whoever makes a row disappear."""

    class Elsewhere(DenseRows):
        def _products(self, *args):
            products = super()._products(*args)
            products[0, :] = np.nan
            return products

    matrix = torch.randn((7, 300), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * size
    found = rule(Elsewhere(matrix.to(dtype)))[0]
    expected = rule(DenseRows(matrix[1:].to(dtype)))[0]
    assert found.weights[0] == 0.0
    np.testing.assert_allclose(found.weights[1:], expected.weights, rtol=1e-3)
    torch.testing.assert_close(found.vector / size, expected.vector / size, rtol=1e-3, atol=1e-3)


def test_opposite_infinities_are_not_finite():
    rows = DenseRows(torch.tensor([[torch.inf, -torch.inf], [1.0, 1.0]]))
    np.testing.assert_array_equal(rows.finite, [False, True])


@pytest.mark.parametrize("columns", [700, 4096, 9001])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_products_about_zero(rng, columns, dtype):
    """Of a matrix as it is in pieces, of gathered columns and of other dtypes in chunks: all the same."""
    X = torch.from_numpy(rng.normal(size=(7, columns))).to(dtype)
    index = torch.arange(0, columns, 3)
    for rows, taken in ((DenseRows(X), X), (DenseRows(X, index=index), X[:, index]), (DenseRows(X.T.clone().T), X)):
        for product in (torch.float32, torch.float64):
            exact = (taken.double() @ taken.double().T).numpy()
            np.testing.assert_allclose(rows.gram_about(None, product).products, exact, atol=2e-6 * exact.max())


def test_lowered_product_precision_is_not_trusted(monkeypatch):
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    rows, _ = rows_of((4, 300), torch.float32)
    assert rows.product_dtype == torch.float32
    torch.set_float32_matmul_precision("medium")
    try:
        assert rows.product_dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")


def test_gram_is_computed_once():
    rows, _ = rows_of((4, 300), torch.float32)
    assert rows.gram() is rows.gram()


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-180, 1e180, 1.7e308])
def test_gram_matrices_of_every_size(size):
    X = size * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    gram = DenseRows(torch.from_numpy(X)).gram()
    assert np.isfinite(gram.products).all()
    expected = DenseRows(torch.from_numpy(X / size)).gram().squared_distances()
    found = gram.squared_distances() * (gram.unit / size) ** 2 if size > 1e-300 else gram.squared_distances()
    ratio = found[expected > 0] / expected[expected > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_float32_rows_beyond_the_range_of_its_squares_are_multiplied_in_float64(monkeypatch):
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    rows, _ = rows_of((6, 300), torch.float64)
    for size in (1e25, 1e-25):
        far = DenseRows((rows.matrix * size).float())
        gram = far.gram()
        assert (gram.unit, gram.shrinkage) == (1.0, None)
        exact = far.matrix.double().numpy()
        np.testing.assert_allclose(
            np.sqrt(gram.squared_distances()[0, 1:]), np.linalg.norm(exact[1:] - exact[0], axis=1)
        )


def test_distances_that_overflow():
    X = torch.tensor([[1.7e308, 1.7e308], [-1.7e308, 1.0], [0.0, 1.0]], dtype=torch.float64)
    rows = DenseRows(X)
    assert rows.finite.all()
    assert rows.norms()[0] == np.finfo(np.float64).max
    expected = [np.hypot(*row) for row in (X / 2.0**64 - X[0] / 2.0**64).numpy()]
    np.testing.assert_allclose(rows.huge_distances(X[0]), expected)


@pytest.mark.parametrize(
    ("dtype", "size", "factor"),
    [
        (torch.float32, 1e-42, 2.0**138),
        (torch.float32, 1.0, 1e42),
        (torch.float64, 1e-320, 2.0**1000),
        (torch.float64, 1.0, 1e200),
    ],
)
def test_scores_by_factors_whose_squares_overflow_or_underflow(dtype, size, factor):
    X = torch.full((6, 40), size, dtype=dtype)
    X[1:, 7] *= 2.0
    scale = np.full(6, factor)
    scale[0] = 0.0
    if size == 1.0:
        X[1:] *= 1e-42 if dtype == torch.float32 else 1e-190
        X[0] = 1.0
    scores = DenseRows(X).column_scores(scale)
    assert torch.isfinite(scores).all()
    assert int(scores.argmax()) == 7
    assert float(scores.min()) > 0.0
