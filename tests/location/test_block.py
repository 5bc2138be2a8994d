"""Block selection, complement, memory, and what an adversary can do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian
from skbgmd.location import block
from skbgmd.location.block import (
    BlockPart,
    block_step,
    cap_weights,
    median_clip_factors,
    off_block_norms,
    select_block,
)
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import sums_of_runs

PAPER = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "clip_scores": False}


def gradients(rng, n=20, d=400, noise=0.3):
    """Rows around a sparse direction, as gradients are."""
    direction = np.where(rng.random(d) < 0.1, 1.0, 0.05)
    return direction + noise * rng.normal(size=(n, d)), direction


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


def squatting(kind, rng, n=13, d=2000, mean=0.2, **settings):
    """Rows of which the first n sit at the others' median on the block that comes of them, and are wrong elsewhere."""
    honest = mean + rng.normal(size=(34 - n, d))
    X = np.vstack([np.full((n, d), -5.0 * mean), honest])
    own = rng.normal(size=(n, d))
    for _ in range(5):
        on = np.zeros(d, dtype=bool)
        on[block_geometric_median(X, return_result=True, **settings).block] = True
        size = np.median(np.linalg.norm(honest[:, ~on], axis=1))
        wrong = np.full((n, d), -1.0)
        if kind == "own noise":
            wrong = own - 1.0
        elif kind == "a few columns":
            wrong = np.where(np.arange(d) % 20 == 3, -1.0, 0.0) * np.ones((n, 1))
        elif kind == "two camps":
            wrong[: n // 2, : d // 2], wrong[n // 2 :, d // 2 :] = 0.0, 0.0
        elif kind == "a random direction":
            wrong = rng.normal(size=d) - 1.0 + np.zeros((n, d))
        wrong *= size / np.linalg.norm(wrong[:, ~on], axis=1, keepdims=True)
        wrong *= {"long": 1e6, "huge": 1e100, "a little shorter": 0.9}.get(kind, 1.0)
        wrong[:, on] = geometric_median(honest[:, on], tol=1e-3)
        if kind == "near the median":
            wrong[:, on] += 0.3 * rng.normal(size=(n, on.sum()))
        elif kind == "decoys":
            wrong[0, on] = 1e6
        X[:n] = wrong
    return X


def parts_along(X, mean=0.2, **settings):
    """Parts of the mean that the estimate off the block has along it, if it is filtered and if it isn't."""
    found = []
    for complement in ("filtered", "weighted"):
        result = block_geometric_median(X, complement=complement, return_result=True, **settings)
        others = np.setdiff1d(np.arange(X.shape[1]), result.block)
        found.append(float(result.median[others].mean() / mean))
    return found


#: Rows, and the least that is left of the mean. What lies in directions of as little variance as those of clean rows
#: passes.
SQUATTERS = {
    "at the median": 0.8,
    "near the median": 0.8,
    "a little shorter": 0.8,
    "own noise": 0.7,
    "a random direction": 0.8,
    "decoys": 0.8,
    "long": 0.8,
    "huge": 0.8,
    "a few columns": None,
    "two camps": None,
}


@pytest.mark.parametrize("kind", SQUATTERS)
@pytest.mark.parametrize("beta", [0.05, 0.1])
def test_squatters_are_filtered_off_the_block(kind, beta, rng):
    """At 38 % they outweigh the honest mean where the block's weights are carried to the other columns."""
    X = squatting(kind, rng, beta=beta)
    filtered, weighted = parts_along(X, beta=beta)
    assert filtered > weighted - 0.2
    if SQUATTERS[kind] is not None:
        assert filtered > SQUATTERS[kind]


@pytest.mark.parametrize("settings", [{"run_length": 16}, {"selection": "uniform", "random_state": 0}, {"beta": 0.02}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_squatters_are_filtered_however_the_block_is_chosen(settings, dtype, rng):
    X = squatting("at the median", rng, **settings).astype(dtype)
    filtered, weighted = parts_along(X, **settings)
    assert filtered > 0.8 > 0.0 > weighted


@pytest.mark.parametrize(("scale", "exact"), [(1e-30, False), (1e30, False), (2.0**-100, True), (2.0**100, True)])
def test_filtering_knows_no_scale(scale, exact, rng):
    """Powers of two round nothing; others may end medians a step earlier or later."""
    X = squatting("at the median", rng)
    expected = block_geometric_median(X, complement="filtered")
    for dtype, rtol in ((np.float32, 1e-3), (np.float64, 1e-12 if exact else 1e-3)):
        found = block_geometric_median((scale * X).astype(dtype), complement="filtered")
        np.testing.assert_allclose(found / scale, expected, rtol=rtol, atol=rtol)


def test_filtering_counts_row_weights(rng):
    """Squatters of little weight are as few, and rows that count twice as two."""
    X = squatting("at the median", rng, n=9)
    counts = np.array([1] * 9 + [2] * 5 + [1] * 20)
    once = block_geometric_median(X, sample_weight=counts, complement="filtered", tol=1e-10)
    twice = block_geometric_median(np.repeat(X, counts, axis=0), complement="filtered", tol=1e-10)
    np.testing.assert_allclose(once, twice, atol=1e-6)


@pytest.mark.parametrize("n", [5, 34, 80])
def test_where_no_direction_stands_out_filtering_leaves_a_mean_of_clipped_parts(n, rng):
    X, _ = gradients(rng, n=n, d=4000, noise=1.0)
    X[0] *= 3.0
    result = block_geometric_median(X, complement="filtered", return_result=True)
    others = np.setdiff1d(np.arange(4000), result.block)
    norms = np.linalg.norm(X[:, others], axis=1)
    clipped = X[:, others] * np.minimum(1.0, np.sort(norms)[(n - 1) // 2] / norms)[:, None]
    np.testing.assert_allclose(result.median[others], clipped.mean(axis=0), atol=1e-9)
    weighted = block_geometric_median(X, return_result=True)
    np.testing.assert_array_equal(result.median[result.block], weighted.median[result.block])


def test_filtering_bounds_the_answer_off_the_block(hard_matrix):
    result = block_geometric_median(hard_matrix, beta=0.3, complement="filtered", return_result=True, tol=1e-3)
    assert np.isfinite(result.median).all()
    others = np.setdiff1d(np.arange(hard_matrix.shape[1]), result.block)
    with np.errstate(over="ignore"):
        longest = np.abs(hard_matrix[:, others].astype(np.float64)).max(initial=0.0)
    assert np.abs(result.median[others]).max(initial=0.0) <= longest * (1 + 1e-6)


@pytest.mark.parametrize("large", [0.0, 1e2, 1e4, 1e12])
def test_products_off_the_block_keep_their_digits(large, rng):
    """Rows may be long on the block beside what they are elsewhere, or beside other rows."""
    X = rng.normal(size=(12, 60))
    X[0] *= max(1.0, large)
    X[:, :6] += large * rng.normal(size=(12, 6))
    rows = DenseRows(torch.from_numpy(X))
    chosen = select_block(rows, 0.1)
    part = BlockPart(chosen, rows.block(chosen), np.full(12, 1 / 12))
    others, used = chosen.off_block.indices.numpy(), np.array([0, 2, 3, 7, 8, 11])
    norms = off_block_norms(rows, part)
    limit = float(np.median(norms))
    clipped = (X * np.minimum(1.0, limit / norms)[:, None])[np.ix_(used, others)]
    found = block._clipped_products(rows, part, used, norms[used], limit)
    shares = np.eye(6) - 1 / 6
    np.testing.assert_allclose(shares @ found @ shares, shares @ clipped @ clipped.T @ shares, atol=1e-4 * limit**2)


def test_rows_that_the_block_rejects_stay_out_when_filtered(rng):
    X = rng.normal(size=(20, 300)) + 0.5
    X[:5, :200] *= 1e4
    rows = DenseRows(torch.from_numpy(X))
    answer, _ = BlockGeometricMedian(0.1, GeometricMedian(rejection=5.0), complement="filtered")(rows)
    rest, _ = BlockGeometricMedian(0.1, complement="filtered")(DenseRows(torch.from_numpy(X[5:])))
    outside = np.setdiff1d(np.arange(300), answer.block)
    outside = np.setdiff1d(outside, rest.block)
    assert np.linalg.norm(answer.vector[outside] - rest.vector[outside]) < 0.5 * np.linalg.norm(rest.vector[outside])
    assert answer.weights[:5].sum() == 0.0


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


# ---------------------------------------------------------------------------------------------------------------------
# Weights that are carried off the block


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_capped_weights_are_bounded_by_twice_the_shares(seed, n):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(n)) * (rng.random(n) < 0.8)
    shares[rng.integers(n)] += 0.1
    weights = rng.dirichlet(np.full(n, 0.3)) * (shares > 0.0) + 1e-9 * shares
    weights /= weights.sum()
    found = cap_weights(weights, shares)
    np.testing.assert_allclose(found.sum(), 1.0)
    assert (found <= 2.0 * shares / shares.sum() * (1 + 1e-9)).all()
    # By equal parts of the shares, in the order of the weights: all at the cap, or as they were but for one factor.
    has = shares > 0.0
    multiples, before = found[has] / shares[has], weights[has] / shares[has]
    below = multiples < multiples.max() * (1 - 1e-9)
    np.testing.assert_allclose((multiples / before)[below], (multiples / before)[below][:1].repeat(below.sum()))
    assert shares[has][~below].sum() >= 0.5 * shares.sum() * (1 - 1e-9)


@pytest.mark.parametrize("weights", [[0.25, 0.25, 0.25, 0.25], [0.3, 0.3, 0.3, 0.1], [0.0, 0.0, 0.0, 1.0]])
def test_weights_of_which_most_are_alike_are_left_as_they_are(weights):
    """Such as those of Huber's mean, and those of a rule that chooses a few rows."""
    np.testing.assert_array_equal(cap_weights(np.array(weights), np.ones(4)), weights)


def shares_off_the_block(on_block, weights=None):
    """Weights off the block, read off rows with orthogonal unit vectors there; the block's columns are the largest."""
    n, k = on_block.shape
    X = np.hstack([on_block, np.eye(n) * 1e-6 * np.abs(on_block).max()])
    result = block_geometric_median(X, beta=k / (n + k), sample_weight=weights, return_result=True)
    np.testing.assert_array_equal(result.block, np.arange(k))
    return result.median[k:] / (1e-6 * np.abs(on_block).max()), result.weights


@pytest.mark.parametrize("n_squatters", [1, 4])
@pytest.mark.parametrize("weights", [None, [1, 3, 1, 2, 1, 1, 0, 1, 2, 1, 1, 1]])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_no_row_counts_for_more_than_a_multiple_of_its_share_off_the_block(n_squatters, weights, scale, rng):
    """Rows at the median of the others would have nearly all weight, and as one of them is the median, all of it."""
    on_block = 1.0 + rng.normal(size=(12, 6))
    a = np.ones(12) if weights is None else np.array(weights, dtype=np.float64)
    on_block[:n_squatters] = geometric_median(on_block[n_squatters:], sample_weight=a[n_squatters:], tol=1e-10)
    found, on = shares_off_the_block(scale * on_block, weights)
    multiples = found / np.where(a > 0.0, a, 1.0) * a.sum()
    assert (on[:n_squatters] / a[:n_squatters] * a.sum() > 2.0).all()
    assert multiples.max() <= 1.5
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-6)
    assert (found[a == 0.0] == 0.0).all()


def test_a_block_of_one_column_leaves_no_row_out():
    """On a line the median is one row or two, which would be all there is off the block."""
    found, on = shares_off_the_block(np.array([[1.0], [3.0], [2.0], [2.5], [1.5]]))
    np.testing.assert_allclose(on, [0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(found, np.array([0.5, 0.5, 1.0, 1.0, 1.0]) / 4.0)
    found, _ = shares_off_the_block(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(found, 0.5)


def test_rows_that_are_far_on_the_block_are_next_to_nothing_off_it():
    """Half of the rows lie together on the block, and the median is one of them."""
    on_block = np.ones((12, 3))
    on_block[8:] += 1e6
    found, _ = shares_off_the_block(on_block)
    np.testing.assert_allclose(found, np.where(np.arange(12) < 8, 1 / 8, 0.0), atol=1e-12)
    on_block[:8] += 0.01 * np.random.default_rng(0).normal(size=(8, 3))
    found, _ = shares_off_the_block(on_block)
    assert found[8:].max() < 1e-7


def squatters(honest, n, beta, jitter, length, rounds=6):
    """Rows at the others' median on the block, and against their mean elsewhere, for the block that these rows make."""
    rng, d = np.random.default_rng(0), honest.shape[1]
    X = np.vstack([honest, np.full((n, d), -5.0 * honest.mean())])
    for _ in range(rounds):
        mask = np.zeros(d, dtype=bool)
        mask[block_geometric_median(X, beta=beta, return_result=True).block] = True
        row = np.full(d, -length * np.median(np.linalg.norm(honest[:, ~mask], axis=1)) / np.sqrt((~mask).sum()))
        row[mask] = geometric_median(honest[:, mask])
        rows = np.tile(row, (n, 1))
        rows[:, mask] += jitter * rng.normal(size=(n, mask.sum()))
        X = np.vstack([honest, rows])
        yield X


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("n", [1, 6, 13])
def test_rows_at_the_blocks_median_gain_no_more_than_on_all_columns(beta, n, rng):
    """The estimate along the honest mean is no worse than the full geometric median's, but for 0.05 of that mean."""
    honest = 0.1 + rng.normal(size=(34 - n, 3000))
    for jitter, length in ((0.0, 1.0), (0.3, 1.0), (0.0, 2.0)):
        for X in squatters(honest, n, beta, jitter, length):
            along, full = (y.mean() / 0.1 for y in (block_geometric_median(X, beta=beta), geometric_median(X)))
            assert along >= full - 0.05


def test_bounds_off_the_block_hold_for_squatters(rng):
    """The theorem on direction, with the bound worked out from the honest rows."""
    honest = 1.0 + rng.normal(size=(30, 500))
    for n in (1, 3, 6):
        for X in squatters(honest, n, 0.1, 0.0, 1.0):
            result = block_geometric_median(X, return_result=True)
            others = np.ones(500, dtype=bool)
            others[result.block] = False
            parts, y = honest[:, others], result.median[others]
            norms, mean = np.linalg.norm(parts, axis=1), parts.mean(axis=0)
            clip = np.sort(np.linalg.norm(X[:, others], axis=1))[(len(X) - 1) // 2]
            apart = np.linalg.norm((X - result.median)[:, ~others], axis=1)
            typical = np.sort(apart)[(len(X) - 1) // 2]
            psi, c = n / len(X), 1.0 / np.minimum(1.0, typical / np.maximum(apart, typical)).mean()
            assert c < 1.1
            along = mean / np.linalg.norm(mean)
            cut = np.maximum(norms - clip, 0.0).mean()
            spread = np.linalg.norm(parts - mean, 2) / np.sqrt(len(parts))
            spread_along = np.std(parts @ along)
            bound = (1 - c * psi) * np.linalg.norm(mean) - c * psi * clip - c * (1 - psi) * (spread_along / 2 + cut)
            assert y @ along >= bound
            far = c * psi * (clip + np.linalg.norm(mean)) + c * (1 - psi) * (spread / 2 + cut)
            assert np.linalg.norm(y - mean) <= far


@pytest.mark.parametrize("size", [1.0, 1e-160, 1e160])
def test_a_weighted_memory_is_bounded_by_honest_rows_for_ever(size, rng):
    """A memory that corrupt rows feed in every step, in columns that no block holds, has a largest norm."""
    memory, longest, norms = None, 0.0, []
    for _ in range(60):
        X = rng.normal(size=(9, 60))
        X[:4, 6:] = 2.0
        X[:, :6] *= 1e3
        longest = max(longest, np.linalg.norm(X[4:], axis=1).max())
        result = block_geometric_median(
            size * X, selection="uniform", complement="memory", memory=memory, random_state=0, return_result=True
        )
        memory = result.memory
        norms.append(np.linalg.norm(memory / size))
    assert max(norms) <= longest / 0.1 * (1 + 1e-9)
    assert norms[-1] == pytest.approx(norms[-2], rel=0.2)


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
    norms = off_block_norms(rows, BlockPart(block, inside, np.full(5, 0.2)))
    np.testing.assert_allclose(norms, np.linalg.norm(X[:, 5:], axis=1), rtol=1e-9)


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


def test_many_rows_are_not_filtered() -> None:
    """Eigenvectors of thousands of rows, hundreds of times, would take hours."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1100, 6))
    filtered, weighted = (
        block_geometric_median(X, beta=0.3, complement=complement) for complement in ("filtered", "weighted")
    )
    np.testing.assert_array_equal(filtered, weighted)
    fewer = block_geometric_median(X[:60] + 5.0 * (np.arange(60) < 20)[:, None], beta=0.2, complement="filtered")
    assert not np.allclose(
        fewer, block_geometric_median(X[:60] + 5.0 * (np.arange(60) < 20)[:, None], beta=0.2), atol=1e-3
    )
