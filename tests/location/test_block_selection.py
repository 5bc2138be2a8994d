"""Selection of a block: draws, runs, ties, and rows of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_gradients import gradients

from skbgmd import block_geometric_median, geometric_median
from skbgmd.location.block_selection import median_clip_factors, select_block
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import sums_of_runs


def residual_share(X, index):
    kept = np.zeros(X.shape[1], dtype=bool)
    kept[index] = True
    return (X[:, ~kept] ** 2).sum() / (X**2).sum()


@pytest.mark.parametrize("selection", ["top", "sample", "uniform"])
@pytest.mark.parametrize("beta", [0.05, 0.25, 0.6])
def test_lemma_1(selection, beta, rng):
    """E ||C_k(G) - G||^2 <= (1 - k/d) ||G||^2: with equality for uniform draws, less for scores that differ."""
    X, _ = gradients(rng, n=6, d=80)
    X *= rng.exponential(size=80)
    rows = DenseRows(torch.from_numpy(X))
    shares = []
    for draw in range(400 if selection != "top" else 1):
        generator = torch.Generator().manual_seed(draw)
        block = select_block(rows, beta, selection=selection, clip=False, generator=generator)
        shares.append(residual_share(X, block.indices.numpy()))
    bound = 1 - np.ceil(beta * 80) / 80
    error = 3 * np.std(shares) / np.sqrt(len(shares))
    if selection == "uniform":
        assert np.mean(shares) == pytest.approx(bound, abs=error)
    else:
        assert np.mean(shares) + error < bound


def test_first_draw_has_probabilities_proportional_to_squared_column_norms():
    X = np.sqrt(np.array([[1.0, 2.0, 3.0, 4.0]]))
    rows = DenseRows(torch.from_numpy(X))
    generator = torch.Generator().manual_seed(0)
    draws = [
        int(select_block(rows, 0.25, selection="sample", clip=False, generator=generator).indices) for _ in range(4000)
    ]
    np.testing.assert_allclose(np.bincount(draws) / 4000, [0.1, 0.2, 0.3, 0.4], atol=0.03)


def test_columns_of_zeros_are_drawn_last():
    X = np.zeros((3, 10))
    X[:, [2, 5]] = 1.0
    block = block_geometric_median(X, beta=0.2, selection="sample", random_state=0, return_result=True).block
    np.testing.assert_array_equal(block, [2, 5])
    assert len(block_geometric_median(X, beta=0.5, selection="sample", random_state=0, return_result=True).block) == 5


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.floats(0.01, 1.0))
def test_runs(d, length, beta):
    X = np.random.default_rng(d).normal(size=(4, d))
    result = block_geometric_median(X, beta=beta, run_length=length, return_result=True)
    k = max(1, int(np.ceil(beta * d)))
    assert min(k, d) - length < len(result.block) <= k + length - 1
    if k < d:
        starts = np.unique(result.block // length)
        whole = np.concatenate([np.arange(s * length, min((s + 1) * length, d)) for s in starts])
        np.testing.assert_array_equal(result.block, whole)
    np.testing.assert_allclose(result.median[result.block], geometric_median(X[:, result.block]), atol=1e-5)


#: Of each row, whether it is one of order one, "1", or nothing but rounding, "r".
HALF_ROUNDING = ["1r", "1rr1", "11r", "r111", "111rrr", "1", "r", "11"]


def rows_with_rounding(rows: str, dtype: torch.dtype, seed: int) -> np.ndarray:
    """Rows of order one, always the same, and others of less than an ulp of these, different by the seed."""
    X, noise = np.random.default_rng(0).normal(size=(len(rows), 40)), np.random.default_rng(seed)
    are_short = np.array([row == "r" for row in rows])
    X[are_short] = 0.25 * torch.finfo(dtype).eps * noise.normal(size=(are_short.sum(), 40))
    return X


@pytest.mark.parametrize("rows", HALF_ROUNDING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_rows_of_rounding_dont_choose_the_block(rows, dtype, weight):
    """As in a batch of two samples, of which one is learnt: its gradient is zero or not by the order of a sum."""
    weights = np.full(len(rows), weight)
    zeroed = rows_with_rounding(rows, dtype, 0) * np.array([[row == "1"] for row in rows])
    expected = select_block(DenseRows(torch.from_numpy(zeroed).to(dtype), weights), 0.1).indices
    for seed in range(5 if "1" in rows else 0):
        X = rows_with_rounding(rows, dtype, seed)[np.random.default_rng(seed).permutation(len(rows))]
        assert torch.equal(select_block(DenseRows(torch.from_numpy(X).to(dtype), weights), 0.1).indices, expected)


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [0.1, 0.2 + 1e-7, 0.3]])
def test_rows_of_rounding_with_half_of_the_weight_dont_choose_the_block(weights):
    first, second = (
        select_block(
            DenseRows(torch.from_numpy(rows_with_rounding("rr1", torch.float64, seed)), np.array(weights)), 0.1
        )
        for seed in (0, 1)
    )
    assert torch.equal(first.indices, second.indices)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.float64]))
def test_a_block_is_the_same_for_rows_that_differ_by_rounding(n, seed, dtype):
    """Columns in pairs, whose scores are tied, of which the block has half of one pair."""
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(n, 6)), 2, axis=1) * rng.choice([0.0, 1.0, 1e-3], size=(n, 1))
    X[:, 1::2] *= -1.0
    other = X[rng.permutation(n)] * (1.0 + torch.finfo(dtype).eps * rng.uniform(-1.0, 1.0, size=X.shape))
    first, second = (select_block(DenseRows(torch.from_numpy(each).to(dtype)), 0.25) for each in (X, other))
    assert torch.equal(first.indices, second.indices)


@pytest.mark.parametrize("n", [2, 4, 5, 9])
def test_corrupt_rows_of_less_than_half_of_the_weight_are_clipped_to_an_honest_norm(n):
    norms = np.ones(n)
    norms[: (n - 1) // 2] = 1e30
    np.testing.assert_allclose(median_clip_factors(norms, np.ones(n)) * norms, 1.0)


def test_ties_give_exactly_k_columns():
    assert len(block_geometric_median(np.ones((3, 100)), beta=0.37, return_result=True).block) == 37


def test_clip_factors_bound_by_the_median_norm():
    norms = np.array([0.0, 1.0, 2.0, 1e300, 4.0])
    np.testing.assert_allclose(median_clip_factors(norms, np.ones(5)) * norms, [0.0, 1.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(median_clip_factors(norms, np.array([1, 1, 0, 0, 1]))[4], 0.25)


@pytest.mark.parametrize("size", [1e-160, 1e-20, 1e20, 1e160])
@pytest.mark.parametrize("settings", [{}, {"run_length": 16}, {"clip_scores": False}, {"complement": "memory"}])
def test_the_block_does_not_depend_on_the_size_of_the_rows(size, settings, rng):
    X, memory = rng.normal(size=(9, 640)), None
    X *= np.exp(rng.normal(size=640))
    dtypes = [np.float64] if max(size, 1 / size) > 1e30 else [np.float64, np.float32]
    if "complement" in settings:
        memory = rng.normal(size=640)
    for dtype in dtypes:
        blocks = []
        for factor in (1.0, size):
            kept = {} if memory is None else {"memory": (factor * memory).astype(dtype)}
            scaled = (factor * X).astype(dtype)
            blocks.append(block_geometric_median(scaled, **settings, **kept, return_result=True).block)
        np.testing.assert_array_equal(*blocks)


@pytest.mark.parametrize("length", [32, 64])
@pytest.mark.parametrize("columns", [3000, 4096])
def test_norms_and_scores_of_long_runs_come_of_one_pass(rng, length, columns):
    """The same norms and scores as column by column, for rows of any size, rows left out included."""
    for dtype, sizes in ((torch.float32, 1.0), (torch.float64, 1.0), (torch.float32, 1e25), (torch.float64, 1e170)):
        X = torch.from_numpy(rng.normal(size=(9, columns))).to(dtype)
        X[2] *= sizes
        weights = rng.random(9)
        rows, plain = DenseRows(X, weights), DenseRows(X, weights)
        np.testing.assert_allclose(rows.norms(length), plain.norms(), rtol=1e-6)
        assert rows._run_norms is not None
        scale = np.minimum(1.0, np.median(plain.norms()) / plain.norms()) * (np.arange(9) != 5)
        scores = sums_of_runs(plain.column_scores(scale), length)
        torch.testing.assert_close(rows.run_scores(length, scale), scores, rtol=1e-4, atol=0.0)
        shift = torch.linspace(-1, 1, columns, dtype=dtype)
        shifted = sums_of_runs(plain.column_scores(scale, shift), length)
        torch.testing.assert_close(rows.run_scores(length, scale, shift), shifted, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("selection", ["top", "sample", "uniform"])
def test_blocks_of_runs_hold_as_many_columns_as_asked_for(selection, rng):
    for d in (5, 10, 13, 20, 29):
        X = rng.normal(size=(4, d))
        # The last run is likely chosen.
        X[:, -1] *= 10.0
        for run_length in (2, 3, 7, 12):
            for beta in (0.1, 0.3, 0.5, 0.9):
                result = block_geometric_median(
                    X, beta=beta, run_length=run_length, selection=selection, random_state=0, return_result=True
                )
                k = int(np.ceil(beta * d))
                assert k <= len(result.block) < k + 2 * run_length


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-40, 1e-20, 1.0, 1e30])
def test_tiny_rows_beside_others(dtype, size):
    X = np.full((6, 40), size, dtype=dtype)
    X[0] = min(1e38, 1e20 * size)
    for options in ({}, {"clip_scores": False}, {"run_length": 32}, {"selection": "sample", "random_state": 0}):
        result = block_geometric_median(X, return_result=True, **options)
        np.testing.assert_array_equal(result.median[result.block], X[1, result.block])
        assert result.converged


@pytest.mark.parametrize("dtype", [np.float32, np.float64, torch.bfloat16])
@pytest.mark.parametrize("run_length", [1, 3, 32])
@pytest.mark.parametrize("order", ["as they are", "reversed", "shuffled"])
def test_the_block_of_columns_of_equal_scores_does_not_depend_on_rounding(rng, dtype, run_length, order):
    """Columns of the same squares, of either sign and by rows in another order, have scores equal but for rounding."""
    values = rng.normal(size=(150, 1))
    X = np.tile(values, (1, 960)) * rng.choice([-1.0, 1.0], size=960)
    X[:, 480:] *= 2.0 ** -rng.integers(0, 3, size=480)
    rows = {"as they are": np.arange(150), "reversed": np.arange(150)[::-1], "shuffled": rng.permutation(150)}[order]
    given = torch.from_numpy(X[rows]).to(dtype) if isinstance(dtype, torch.dtype) else X[rows].astype(dtype)
    result = block_geometric_median(given, beta=0.3, run_length=run_length, return_result=True)
    np.testing.assert_array_equal(result.block, np.arange(len(result.block)))
