"""Dense rows, their blocks, and averages of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.rows import DenseRows, Rows
from skbgmd.rows.averaged import AveragedRows
from skbgmd.rows.blocks import CoordinateBlock
from skbgmd.rows.scaled import ScaledRows


@pytest.fixture
def matrix():
    return torch.randn(6, 103, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("runs", "length", "expected"),
    [
        ([0, 7], 1, [0, 7]),
        ([0, 2], 4, [0, 1, 2, 3, 8, 9, 10, 11]),
        ([1, 25], 4, [4, 5, 6, 7, 100, 101, 102]),
        ([0], 200, list(range(103))),
    ],
)
def test_columns(runs, length, expected, matrix):
    columns = CoordinateBlock(torch.tensor(runs), length, 103)
    assert columns.indices.tolist() == expected
    assert len(columns) == len(expected)


def kinds(matrix):
    """Every kind of rows, with the matrix that it stands for."""
    dense = DenseRows(matrix)
    index = torch.arange(0, 103, 2)
    picked = np.array([5, 0, 3])
    averaging = np.random.default_rng(0).dirichlet(np.ones(6), size=4)
    every = CoordinateBlock(torch.tensor([0, 3, 9]), 10, 103)
    factors = np.array([1.0, 0.5, 0.25, 1.0, 0.0, 0.125])
    long, runs = every.indices, dense.block(every)
    return {
        "dense": (dense, matrix),
        "some rows": (dense.subset(picked), matrix[picked]),
        "some columns": (DenseRows(matrix, None, index), matrix[:, index]),
        "some of both": (
            DenseRows(matrix, None, index).subset(picked).subset(np.array([2, 0])),
            matrix[[3, 5]][:, index],
        ),
        "small block": (
            dense.block(CoordinateBlock(torch.tensor([0, 9]), 4, 103)),
            matrix[:, [0, 1, 2, 3, 36, 37, 38, 39]],
        ),
        "large block": (dense.block(CoordinateBlock(torch.arange(60), 1, 103)), matrix[:, :60]),
        "runs": (runs, matrix[:, long]),
        "runs of some rows": (runs.subset(picked), matrix[picked][:, long]),
        "runs with the short last one": (
            dense.block(CoordinateBlock(torch.tensor([1, 10]), 10, 103)),
            matrix[:, [*range(10, 20), 100, 101, 102]],
        ),
        "runs of a part": (
            DenseRows(matrix[1:, 3:]).block(CoordinateBlock(torch.tensor([0, 9]), 10, 100)),
            matrix[1:, 3:][:, [*range(10), *range(90, 100)]],
        ),
        "runs of columns apart": (DenseRows(matrix.T.contiguous().T).block(every), matrix[:, long]),
        "scaled": (ScaledRows(dense, factors), torch.from_numpy(factors)[:, None] * matrix),
        "scaled, some": (
            ScaledRows(dense, factors).subset(picked),
            (torch.from_numpy(factors)[:, None] * matrix)[picked],
        ),
        "scaled block": (
            ScaledRows(dense, factors).block(CoordinateBlock(torch.tensor([4, 50]), 1, 103)),
            (torch.from_numpy(factors)[:, None] * matrix)[:, [4, 50]],
        ),
        "scaled and averaged": (
            AveragedRows(ScaledRows(dense, factors), averaging, np.ones(4)),
            torch.from_numpy(averaging * factors) @ matrix,
        ),
        "averaged and scaled": (
            ScaledRows(AveragedRows(dense, averaging, np.ones(4)), factors[:4]),
            torch.from_numpy(factors[:4, None] * averaging) @ matrix,
        ),
        "averaged": (AveragedRows(dense, averaging, np.ones(4)), torch.from_numpy(averaging) @ matrix),
        "averaged, some": (
            AveragedRows(dense, averaging, np.ones(4)).subset(np.array([1, 3])),
            (torch.from_numpy(averaging) @ matrix)[[1, 3]],
        ),
        "averaged block": (
            AveragedRows(dense, averaging, np.ones(4)).block(CoordinateBlock(torch.tensor([4, 50]), 1, 103)),
            (torch.from_numpy(averaging) @ matrix)[:, [4, 50]],
        ),
    }


@pytest.mark.parametrize("kind", list(kinds(torch.zeros(6, 103, dtype=torch.float64))))
def test_every_kind_gives_the_same_answers(kind, matrix):
    rows, X = kinds(matrix)[kind]
    assert isinstance(rows, Rows)
    n, d = X.shape
    assert (rows.n_rows, rows.n_columns) == (n, d)
    w = np.random.default_rng(1).dirichlet(np.ones(n))
    close = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(rows.weighted_sum(w), w @ X.numpy(), **close)
    np.testing.assert_allclose(rows.norms(), np.linalg.norm(X, axis=1), **close)
    np.testing.assert_allclose(rows.column_scores(w), ((w[:, None] * X.numpy()) ** 2).sum(axis=0), **close)
    index = torch.tensor([d - 1, 0])
    np.testing.assert_allclose(rows.columns(index), X[:, index], **close)
    np.testing.assert_allclose(rows.row(1), X[1], **close)
    np.testing.assert_allclose(torch.cat([chunk.clone() for _, chunk in rows.column_chunks()], dim=1), X, **close)
    distances = ((X[:, None] - X) ** 2).sum(dim=2)
    np.testing.assert_allclose(rows.gram().squared_distances(), distances, atol=1e-9)
    np.testing.assert_allclose(rows.gram(about=w).squared_distances(), distances, atol=1e-9)
    assert rows.finite.all()


@pytest.mark.parametrize("length", [8, 16, 24, 64, 5000])
def test_runs_are_gathered_as_their_columns_are(length, monkeypatch):
    """Chunks end where runs do, and a run that is longer than a chunk is gathered in pieces."""
    monkeypatch.setattr(limits, "CHUNK_ELEMENTS", 1 << 10)
    monkeypatch.setattr(limits, "MIN_CHUNK_COLUMNS", 50)
    X = torch.randn(20, 20_001, generator=torch.Generator().manual_seed(0))
    columns = CoordinateBlock(torch.arange(0, -(-20_001 // length), 2), length, 20_001)
    rows = DenseRows(X).block(columns)
    widths = [chunk.shape[1] for _, chunk in rows.column_chunks()]
    assert len(widths) > 1
    assert max(widths) <= limits.GOOD_CHUNK_COLUMNS + 64
    assert torch.equal(torch.cat([chunk.clone() for _, chunk in rows.column_chunks()], dim=1), X[:, columns.indices])


def test_nothing_is_copied(matrix):
    rows = DenseRows(matrix)
    assert rows.whole().data_ptr() == matrix.data_ptr()
    assert next(rows.column_chunks())[1].data_ptr() == matrix.data_ptr()


def test_zero_weight_rows_are_never_read(matrix):
    matrix[2] = torch.nan
    rows = DenseRows(matrix)
    w = np.array([0.5, 0.5, 0, 0, 0, 0])
    assert torch.isfinite(rows.weighted_sum(w)).all()
    assert torch.isfinite(rows.weighted_sum(np.stack([w, w]))).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_a_matrix_has_two_dimensions(shape):
    with pytest.raises(ValueError, match=rf"^matrix must have two dimensions, .*; found shape {re.escape(str(shape))}"):
        DenseRows(torch.zeros(shape))


def test_a_subset_keeps_what_is_known(matrix):
    rows = DenseRows(matrix)
    gram, norms = rows.gram(), rows.norms()
    some = rows.subset(np.array([4, 1]))
    np.testing.assert_array_equal(some.gram().products, gram.products[[4, 1]][:, [4, 1]])
    np.testing.assert_array_equal(some.norms(), norms[[4, 1]])


def test_norms_of_long_rows_keep_their_digits():
    """Equal numbers are the worst for sums in single precision."""
    X = torch.full((3, 200_000), 0.7)
    np.testing.assert_allclose(DenseRows(X).norms(), 0.7 * 200_000**0.5, rtol=1e-5)
    for d in (8191, 8192, 8193, 16_384):
        np.testing.assert_allclose(DenseRows(X[:, :d]).norms(), 0.7 * d**0.5, rtol=1e-5)


@pytest.mark.parametrize("n", [63, 64, 65, 100])
@pytest.mark.parametrize("d", [3, 2 * limits.PRODUCT_COLUMNS, 3 * limits.PRODUCT_COLUMNS - 7])
def test_products_in_halves_and_pieces_are_all_of_them(n, d):
    X = torch.randn(n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    products = DenseRows(X).gram_about(None, torch.float64).products
    np.testing.assert_allclose(products, (X @ X.T).numpy(), atol=1e-9)


def test_inner_products(rng):
    x, vector = rng.normal(size=(5, 300)), rng.normal(size=300)
    for rows in (DenseRows(torch.from_numpy(x)), AveragedRows(DenseRows(torch.from_numpy(x)), np.eye(5), np.ones(5))):
        np.testing.assert_allclose(rows.inner_products(torch.from_numpy(vector)), x @ vector)
        assert not rows.gram_is_expensive


@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        (np.ones(2), ValueError, r"weights must have shape \(3,\), one for each row; found \(2,\)"),
        (np.array([1.0, -1.0, 1.0]), ValueError, r"weights must be finite and not negative; found \[1.0, -1.0, 1.0\]"),
        (np.array([1.0, np.nan, 1.0]), ValueError, "weights must be finite and not negative"),
        (np.array([1.0, np.inf, 1.0]), ValueError, "weights must be finite and not negative"),
        ([1.0, 1.0, 1.0], TypeError, "weights must be an array of numbers, one for each row; found list"),
        (torch.ones(3), TypeError, "weights must be an array of numbers, one for each row; found Tensor"),
        (
            np.array(["a", "b", "c"]),
            TypeError,
            "weights must be an array of numbers, one for each row; found an array of",
        ),
    ],
)
def test_weights_are_checked(weights, kind, message):
    with pytest.raises(kind, match=message):
        DenseRows(torch.ones(3, 2), weights)
