"""Block steps in the caller's terms, and what an adversary can do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sparse_gradients import gradients

from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.rows import DenseRows

PAPER = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "clip_scores": False}


# ---------------------------------------------------------------------------------------------------------------------
# The step


@pytest.mark.parametrize("complement", ["weighted", "filtered", "zero", "memory"])
def test_beta_one_is_the_geometric_median(hard_matrix, complement):
    block = block_geometric_median(hard_matrix, beta=1.0, complement=complement, return_result=True)
    full = geometric_median(hard_matrix, return_result=True)
    np.testing.assert_allclose(block.weights, full.weights, atol=1e-12)
    np.testing.assert_allclose(block.median, full.median, rtol=1e-6, atol=1e-7 * np.abs(full.median).max())
    assert len(block.block) == hard_matrix.shape[1]


@pytest.mark.parametrize(("beta", "k"), [(1e-9, 1), (0.1, 1), (0.101, 2), (0.5, 5), (1.0, 10)])
def test_number_of_columns(beta, k, rng):
    result = block_geometric_median(rng.normal(size=(6, 10)), beta=beta, return_result=True)
    assert len(result.block) == k


def test_block_gets_the_geometric_median_of_its_columns(rng):
    X, _ = gradients(rng)
    result = block_geometric_median(X, return_result=True)
    np.testing.assert_allclose(result.median[result.block], geometric_median(X[:, result.block]), atol=1e-7)
    scores = (np.minimum(1, np.median(np.linalg.norm(X, axis=1)) / np.linalg.norm(X, axis=1))[:, None] * X) ** 2
    np.testing.assert_array_equal(result.block, np.sort(np.argsort(scores.sum(axis=0))[-40:]))


def test_complements(rng):
    X, _ = gradients(rng)
    others = np.ones(400, dtype=bool)
    results = {c: block_geometric_median(X, complement=c, return_result=True) for c in ("weighted", "zero", "memory")}
    block, w = results["zero"].block, results["zero"].weights
    others[block] = False
    outside = np.linalg.norm(X[:, others], axis=1)
    # Of 20 rows: the lower median.
    clip = np.minimum(1.0, np.sort(outside)[9] / outside)
    capped = np.minimum(w, np.sort(w)[10])
    expected = (capped / capped.sum() * clip) @ X[:, others]
    assert (results["zero"].median[others] == 0).all()
    assert (results["memory"].median[others] == 0).all()
    np.testing.assert_allclose(results["weighted"].median[others], expected, atol=1e-12)
    np.testing.assert_allclose(results["memory"].memory[others], expected, atol=1e-12)
    assert (results["memory"].memory[block] == 0).all()
    assert results["weighted"].memory is None
    for result in results.values():
        np.testing.assert_allclose(result.median[block], w @ X[:, block], atol=1e-12)


def test_algorithm_1_of_the_paper_line_by_line(rng):
    """Four steps against a transcription of Algorithm 1 that shares only the geometric median with the library."""
    memory, mine, gamma = np.zeros(60), None, 0.3
    for step in range(4):
        G = gamma * rng.normal(size=(8, 60)) + 0.1
        result = block_geometric_median(G, beta=0.2, memory=mine, random_state=step, return_result=True, **PAPER)
        augmented = G + memory
        delta = np.zeros_like(augmented)
        delta[:, result.block] = augmented[:, result.block]
        memory = (augmented - delta).mean(axis=0)
        np.testing.assert_allclose(result.median, geometric_median(delta, tol=1e-9), atol=1e-6)
        np.testing.assert_allclose(result.memory, memory, atol=1e-12)
        mine = result.memory


@pytest.mark.parametrize("selection", ["sample", "uniform"])
def test_randomness_comes_from_random_state(selection, rng):
    X = rng.normal(size=(5, 200))

    def block(seed):
        return block_geometric_median(X, selection=selection, random_state=seed, return_result=True).block

    np.testing.assert_array_equal(block(3), block(3))
    assert not np.array_equal(block(3), block(4))
    assert not np.array_equal(block(None), block(None))
    np.testing.assert_array_equal(block(np.random.RandomState(1)), block(np.random.RandomState(1)))
    generator = np.random.default_rng(0)
    assert not np.array_equal(block(generator), block(generator))


# ---------------------------------------------------------------------------------------------------------------------
# Adversaries


def test_fixed_huge_block_does_not_own_the_clipped_scores(rng):
    X, direction = gradients(rng, noise=0.1)
    X[:8, -40:] = 1e6
    naive = block_geometric_median(X, clip_scores=False, return_result=True)
    clipped = block_geometric_median(X, return_result=True)
    np.testing.assert_array_equal(naive.block, np.arange(360, 400))
    important = direction[:-40] == 1.0
    assert np.isin(np.flatnonzero(important), clipped.block).mean() > 0.4
    assert np.linalg.norm(clipped.median - direction) < np.linalg.norm(direction)


@pytest.mark.parametrize("complement", ["weighted", "filtered", "memory"])
@pytest.mark.parametrize("clip_scores", [True, False])
def test_decoys_that_own_the_block_cannot_carry_the_others_off(complement, clip_scores, rng):
    """Some corrupt rows park huge values on the block; the others look honest there and send -1000 g elsewhere."""
    X, _ = gradients(rng)
    X[0, :40] = 1e9
    X[1:8, 40:] *= -1000.0
    result = block_geometric_median(X, complement=complement, clip_scores=clip_scores, return_result=True)
    honest = np.linalg.norm(X[8:], axis=1).max()
    assert np.linalg.norm(result.median) <= 2.5 * honest
    if complement == "memory":
        assert np.linalg.norm(result.memory) <= honest


def test_breakdown_point_counts_weight_not_rows():
    """Five light rows of eight are corrupt: 5/14 of the weight."""
    X = np.ones((8, 40))
    X[3:, 39] = 1e9
    weights = [3, 3, 3, 1, 1, 1, 1, 1]
    for seed in range(20):
        y = block_geometric_median(X, sample_weight=weights, selection="uniform", random_state=seed)
        assert np.linalg.norm(y) <= 2 * np.sqrt(40)


# ---------------------------------------------------------------------------------------------------------------------
# The caller's terms


def test_weights_count_as_repeated_rows(rng):
    X, counts = rng.normal(size=(6, 40)), np.array([1, 2, 1, 3, 1, 2])
    once = block_geometric_median(X, sample_weight=counts, clip_scores=False, complement="zero", tol=1e-12)
    twice = block_geometric_median(np.repeat(X, counts, axis=0), clip_scores=False, complement="zero", tol=1e-12)
    np.testing.assert_allclose(once, twice, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_tensors(dtype):
    X = torch.randn(6, 90, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = block_geometric_median(X, complement="memory", return_result=True)
    assert result.median.dtype == result.memory.dtype == dtype
    assert result.weights.dtype == torch.promote_types(dtype, torch.float32)
    assert result.block.dtype == torch.int64
    again = block_geometric_median(X, complement="memory", memory=result.memory)
    assert again.shape == (90,)


def test_the_input_is_left_alone(rng):
    X = rng.normal(size=(6, 50)).astype(np.float32)
    before = X.copy()
    memory = rng.normal(size=50).astype(np.float32)
    kept = memory.copy()
    block_geometric_median(X, complement="memory", memory=memory)
    block_geometric_median(X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(memory, kept)


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta must be greater than 0 and at most 1; found 0.0"),
        ({"beta": 1.1}, ValueError, "beta must be"),
        ({"selection": "best"}, ValueError, "selection must be one of 'top', 'sample', 'uniform'; found 'best'"),
        ({"complement": None}, ValueError, "complement must be one of"),
        ({"memory_rule": "median"}, ValueError, "memory_rule must be one of 'weighted', 'mean'"),
        ({"run_length": 0}, ValueError, "run_length must be at least 1"),
        ({"memory": np.zeros(5)}, ValueError, "only used with complement"),
        ({"memory": np.zeros(4), "complement": "memory"}, ValueError, r"shape \(5,\); found shape \(4,\)"),
        (
            {"memory": np.full(5, np.nan), "complement": "memory"},
            ValueError,
            "memory must be finite .*; found nan",
        ),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"random_state": "x", "selection": "sample"}, ValueError, "random_state must be an integer"),
    ],
)
def test_bad_parameters(parameters, kind, message):
    with pytest.raises(kind, match=message):
        block_geometric_median(np.eye(5), **parameters)


def test_not_finite():
    with pytest.raises(ValueError, match="found NaN at row 1, column 2"):
        block_geometric_median([[1.0, 2.0, 3.0], [1.0, 2.0, np.nan], [0.0, 0.0, 0.0]])


def test_cuda(cuda):
    X = torch.randn(8, 5000, generator=torch.Generator().manual_seed(0))
    y = block_geometric_median(X.to(cuda), run_length=4)
    assert y.device.type == "cuda"
    assert torch.allclose(y.cpu(), block_geometric_median(X, run_length=4), atol=1e-5)


def test_a_row_that_is_not_finite_is_found_among_long_runs(rng):
    X = rng.normal(size=(9, 3000)).astype(np.float32)
    X[4, 2999] = np.nan
    with pytest.raises(ValueError, match="row 4, column 2999"):
        block_geometric_median(X, run_length=64)
    aggregate, _ = BlockGeometricMedian(run_length=64)(DenseRows(torch.from_numpy(X)))
    assert aggregate.weights[4] == 0.0
    assert torch.isfinite(aggregate.vector).all()


# ---------------------------------------------------------------------------------------------------------------------
# Numbers of any size, and blocks of any


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"selection": "uniform"}, "selection must be 'sample' with algorithm='bgmd_paper'; found 'uniform'"),
        ({"complement": "zero"}, "complement must be 'memory' with algorithm='bgmd_paper'; found 'zero'"),
        ({"run_length": 2}, "run_length must be 1 with algorithm='bgmd_paper'; found 2"),
        ({"selection": "best"}, "selection must be one of"),
        ({"algorithm": "paper"}, "algorithm must be one of 'robust', 'bgmd_paper'; found 'paper'"),
    ],
)
def test_parameters_that_contradict_the_papers_algorithm_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        block_geometric_median(np.eye(4), **{"algorithm": "bgmd_paper"} | given)


def test_parameters_may_be_given_as_the_papers_algorithm_fixes_them(rng):
    X, fixed = rng.normal(size=(8, 30)), {"algorithm": "bgmd_paper", "random_state": 0}
    expected = block_geometric_median(X, **fixed)
    found = block_geometric_median(X, **fixed, selection="sample", clip_scores=False, memory_rule="mean")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("selection", ["top", "sample"])
def test_parameters_that_are_none(selection):
    for given in ("x", 1.5, -1):
        with pytest.raises(ValueError, match=r"random_state must be .*; found"):
            block_geometric_median(np.eye(3), selection=selection, random_state=given)
    with pytest.raises(TypeError, match="return_result must be True or False; found 'x'"):
        block_geometric_median(np.eye(3), selection=selection, return_result="x")
