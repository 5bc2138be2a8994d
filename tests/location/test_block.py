"""Block selection, complement, memory, and what an adversary can do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd import block_geometric_median, geometric_median
from skbgmd._utils import limits
from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.location import block
from skbgmd.location.block import BlockPart, block_step, median_clip_factors, off_block_clip, select_block
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import sums_of_runs

PAPER = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "clip_scores": False}


def gradients(rng, n=20, d=400, noise=0.3):
    """Rows around a sparse direction, as gradients are."""
    direction = np.where(rng.random(d) < 0.1, 1.0, 0.05)
    return direction + noise * rng.normal(size=(n, d)), direction


# ---------------------------------------------------------------------------------------------------------------------
# The step


@pytest.mark.parametrize("complement", ["weighted", "zero", "memory"])
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
    expected = (w * clip) @ X[:, others]
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


def test_memory_loses_nothing(rng):
    """With equal rows the steps add up to what went in, less what is still kept: error feedback."""
    g = rng.normal(size=50)
    for rule in ("weighted", "mean"):
        total, memory = np.zeros(50), None
        for _ in range(30):
            result = block_geometric_median(
                np.tile(g, (5, 1)), complement="memory", memory_rule=rule, memory=memory, return_result=True
            )
            total, memory = total + result.median, result.memory
        np.testing.assert_allclose(total + memory, 30 * g, atol=1e-10)
        assert np.linalg.norm(memory) < 30 * np.linalg.norm(g) / 2


def test_memory_decides_the_block_too():
    X = np.zeros((3, 10))
    X[:, 0] = 1.0
    memory = np.zeros(10)
    memory[7] = 5.0
    result = block_geometric_median(X, complement="memory", memory=memory, return_result=True)
    np.testing.assert_array_equal(result.block, [7])
    np.testing.assert_allclose(result.median[7], 5.0)
    np.testing.assert_allclose(result.memory[0], 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Selection


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


def test_ties_give_exactly_k_columns():
    assert len(block_geometric_median(np.ones((3, 100)), beta=0.37, return_result=True).block) == 37


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


@pytest.mark.parametrize("complement", ["weighted", "memory"])
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


def test_the_papers_memory_is_carried_off_and_ours_is_not(rng):
    X, _ = gradients(rng)
    X[:8] *= -100.0
    honest = np.linalg.norm(X[8:], axis=1).max()
    paper = block_geometric_median(X, complement="memory", memory_rule="mean", return_result=True)
    ours = block_geometric_median(X, complement="memory", return_result=True)
    assert np.linalg.norm(paper.memory) > 5 * honest
    assert np.linalg.norm(ours.memory) <= honest


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 12.0), st.sampled_from([1, 4]))
def test_breakdown_point_off_the_block(seed, power, run_length):
    """Whatever less than half of the rows hold, what comes out off the block is bounded by an honest row."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(9, 40))
    X[:4] = rng.normal(size=(4, 40)) * 10.0 ** (power * rng.random((4, 40)))
    result = block_geometric_median(X, run_length=run_length, return_result=True)
    others = np.ones(40, dtype=bool)
    others[result.block] = False
    bound = np.linalg.norm(X[4:][:, others], axis=1).max()
    assert np.linalg.norm(result.median[others]) <= bound * (1 + 1e-9)


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


def test_a_memory_that_dwarfs_tiny_rows_decides_the_block(rng):
    for dtype, row, kept in ((np.float32, 1e-20, 1.0), (np.float64, 1e-310, 1e-3)):
        memory = np.zeros(40, dtype=dtype)
        memory[30:] = kept * np.arange(1, 11)
        X = (rng.normal(size=(9, 40)) * row).astype(dtype)
        step = block_geometric_median(X, beta=0.1, complement="memory", memory=memory, return_result=True)
        assert step.block.tolist() == [36, 37, 38, 39]


def test_breakdown_point_counts_weight_not_rows():
    """Five light rows of eight are corrupt: 5/14 of the weight."""
    X = np.ones((8, 40))
    X[3:, 39] = 1e9
    weights = [3, 3, 3, 1, 1, 1, 1, 1]
    for seed in range(20):
        y = block_geometric_median(X, sample_weight=weights, selection="uniform", random_state=seed)
        assert np.linalg.norm(y) <= 2 * np.sqrt(40)


def test_outside_norms_keep_their_digits_when_the_block_is_huge(rng):
    X = rng.normal(size=(5, 50))
    X[0, :5] = 1e9
    rows = DenseRows(torch.from_numpy(X))
    block = select_block(rows, 0.1, clip=False)
    inside = rows.block(block)
    factors = off_block_clip(rows, BlockPart(block, inside, np.ones(5)))
    norms = np.linalg.norm(X[:, 5:], axis=1)
    np.testing.assert_allclose(factors, np.minimum(1.0, np.median(norms) / norms), rtol=1e-9)


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
        ({"random_state": "x", "selection": "sample"}, TypeError, "SeedSequence|random_state"),
    ],
)
def test_bad_parameters(parameters, kind, message):
    with pytest.raises(kind, match=message):
        block_geometric_median(np.eye(5), **parameters)


def test_not_finite():
    with pytest.raises(ValueError, match="found NaN at row 1, column 2"):
        block_geometric_median([[1.0, 2.0, 3.0], [1.0, 2.0, np.nan], [0.0, 0.0, 0.0]])


def test_step_of_a_whole_block_has_empty_memory():
    rows = DenseRows(torch.eye(3, dtype=torch.float64))
    block = select_block(rows, 1.0)
    weights = np.full(3, 1 / 3)
    inside = rows.block(block)
    part = BlockPart(block, inside, weights)
    step, memory = block_step(rows, part, off_block="memory")
    assert torch.allclose(step, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert not memory.any()


def test_cuda(cuda):
    X = torch.randn(8, 5000, generator=torch.Generator().manual_seed(0))
    y = block_geometric_median(X.to(cuda), run_length=4)
    assert y.device.type == "cuda"
    assert torch.allclose(y.cpu(), block_geometric_median(X, run_length=4), atol=1e-5)


@pytest.mark.parametrize("k", [1, 50, 4000, 20_000, 60_000, 65_535])
@pytest.mark.parametrize("kind", ["spread", "few values", "rising", "sample misses them"])
def test_largest_of_many_are_those_of_a_sort(rng, kind, k):
    keys = rng.random(1 << 16).astype(np.float32)
    if kind == "few values":
        keys = np.floor(4.0 * keys)
    elif kind == "rising":
        keys = np.sort(keys)
    elif kind == "sample misses them":
        keys[:: len(keys) // limits.THRESHOLD_SAMPLE] = 2.0
        keys[1 :: len(keys) // limits.THRESHOLD_SAMPLE] = 3.0
    expected = np.sort(np.argsort(-keys, kind="stable")[:k])
    np.testing.assert_array_equal(block._largest(torch.from_numpy(keys), k), expected)


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


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 4e37), (np.float32, 1e-44), (np.float64, 1e300)])
def test_a_memory_decides_the_block_of_rows_that_say_nothing(dtype, size):
    memory = (size * np.arange(8)).astype(dtype)
    memory[6:] = memory[3]
    step = block_geometric_median(np.zeros((5, 8)).astype(dtype), beta=0.25, complement="memory", memory=memory)
    np.testing.assert_array_equal(np.flatnonzero(step), [4, 5])


def test_memories_of_every_kind(rng):
    X, memory = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    expected = block_geometric_median(X, complement="memory", memory=memory)
    for kind in (memory.astype(">f4"), memory[::-1].copy()[::-1], memory.tolist(), torch.from_numpy(memory)):
        np.testing.assert_array_equal(block_geometric_median(X, complement="memory", memory=kind), expected)
    with pytest.raises(TypeError, match="memory must hold real numbers; found dtype object"):
        block_geometric_median(X, complement="memory", memory=np.array([None] * 8))
    with pytest.raises(ValueError, match=r"memory must be finite and have a number in torch\.float32; found 1e"):
        block_geometric_median(X, complement="memory", memory=np.full(8, 1e300))


def test_a_memory_that_has_no_number_once_it_is_added():
    X = np.full((3, 4), 3e38, dtype=np.float32)
    with pytest.raises(ValueError, match=r"memory must have a number in torch\.float32 after it is added"):
        block_geometric_median(X, complement="memory", memory=X[0])
    half = np.full((3, 4), 6e4, dtype=np.float16)
    with pytest.raises(ValueError, match=r"memory must have a number in torch\.float16"):
        block_geometric_median(half, complement="memory", memory=half[0])
    state = BlockGeometricMedian(complement="memory", beta=0.5)(DenseRows(torch.from_numpy(X)))[1]
    with pytest.raises(ValueError, match="memory must have a number"):
        BlockGeometricMedian(complement="memory", beta=0.5)(DenseRows(torch.from_numpy(X)), state)


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
