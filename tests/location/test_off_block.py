"""What the rows say off the block, and what an adversary can do to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_gradients import gradients

from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian
from skbgmd.location.block_selection import select_block
from skbgmd.location.off_block import BlockPart, _clipped_products, block_step, cap_weights, off_block_norms
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock


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
    found = _clipped_products(rows, part, used, norms[used], limit)
    shares = np.eye(6) - 1 / 6
    np.testing.assert_allclose(shares @ found @ shares, shares @ clipped @ clipped.T @ shares, atol=1e-4 * limit**2)


@pytest.mark.parametrize("exponent", [-150.0, 139.9, 150.0, 153.2, 154.14, 154.2])
@pytest.mark.parametrize("n", [8, 16, 64, 128])
def test_filtering_takes_rows_whose_squares_have_no_number(n, exponent, rng):
    row = 10.0**exponent * rng.uniform(1.0, 2.0, size=8)
    assert block_geometric_median(np.tile(row, (n, 1)), complement="filtered") == pytest.approx(row, rel=1e-9, abs=0.0)
    rows = 10.0 ** (exponent - 1.0) * rng.normal(size=(n, 8))
    found = block_geometric_median(rows, complement="filtered")
    expected = block_geometric_median(rows * 10.0**-exponent, complement="filtered")
    np.testing.assert_allclose(found * 10.0**-exponent, expected, atol=1e-6)


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


def test_outside_norms_keep_their_digits_when_the_block_is_huge(rng):
    X = rng.normal(size=(5, 50))
    X[0, :5] = 1e9
    rows = DenseRows(torch.from_numpy(X))
    block = select_block(rows, 0.1, clip=False)
    inside = rows.block(block)
    norms = off_block_norms(rows, BlockPart(block, inside, np.full(5, 0.2)))
    np.testing.assert_allclose(norms, np.linalg.norm(X[:, 5:], axis=1), rtol=1e-9)


@pytest.mark.parametrize("size", [1.0, 1e-300, 1e-310, 1e150])
def test_outside_norms_of_rows_that_are_zero_on_the_block_or_off_it(rng, size):
    X = rng.normal(size=(6, 10))
    X[0], X[1, :4], X[2, 4:], X[3, 4:] = 0.0, 0.0, 0.0, 1e-9 * X[3, 4:]
    X *= size
    rows = DenseRows(torch.from_numpy(X))
    block = CoordinateBlock(torch.arange(4), 1, 10)
    norms = off_block_norms(rows, BlockPart(block, rows.block(block), np.full(6, 1 / 6)))
    expected = size * np.linalg.norm(X[:, 4:] / size, axis=1)
    # Subnormal numbers have few digits.
    np.testing.assert_allclose(norms, expected, rtol=1e-9 if size > 1e-308 else 1e-2, atol=1e-322)


def test_step_of_a_whole_block_has_empty_memory():
    rows = DenseRows(torch.eye(3, dtype=torch.float64))
    block = select_block(rows, 1.0)
    weights = np.full(3, 1 / 3)
    inside = rows.block(block)
    part = BlockPart(block, inside, weights)
    step, memory = block_step(rows, part, off_block="memory")
    assert torch.allclose(step, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert not memory.any()


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
