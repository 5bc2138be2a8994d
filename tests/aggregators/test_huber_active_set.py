"""Huber's mean of a few far rows, against the same by the Gram matrix of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd.aggregators import BlockGeometricMedian, HuberMean
from skbgmd.aggregators.huber_active_set import _are_few_beyond, huber_active_set
from skbgmd.aggregators.huber_mean import huber_weights_about_median
from skbgmd.aggregators.memory import Scale
from skbgmd.ghost import GhostRows
from skbgmd.ghost.factors import DenseFactor
from skbgmd.rows import DenseRows


def remembered(value):
    """A scale that steps of the same size neither raise nor lower but by fading."""
    return Scale(value, (0.5 * value,) * 5)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(3, 60)), draw(st.integers(1, 30))
    x = rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 0.3, 2.0])) * rng.normal(size=d)
    far = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.3]))
    x[far] = draw(st.sampled_from([3.0, 30.0, 1e4])) * (x[far] + draw(st.sampled_from([0.0, 1.0])))
    weights = rng.choice([0.25, 0.5, 1.0], size=n) if draw(st.booleans()) else np.ones(n)
    weights /= weights.max()
    factor = draw(st.sampled_from([0.7, 1.5, 4.0]))
    value = factor * float(np.median(np.linalg.norm(x, axis=1)))
    huber, rejection = draw(st.sampled_from([0.5, 1.0, 2.0, 20.0])), draw(st.sampled_from([None, 3.0, 10.0]))
    return x, weights, huber, rejection, remembered(value)


@settings(max_examples=400)
@given(problems())
def test_it_is_the_mean_that_the_gram_matrix_gives(problem):
    x, weights, huber, rejection, before = problem
    rows = GhostRows([(0, DenseFactor(torch.from_numpy(x)[:, :, None]))], len(x), x.shape[1], weights)
    found = huber_active_set(rows, huber, rejection, before, tol=1e-12, max_iter=2000)
    if found is None:
        return
    np.testing.assert_allclose(found.weights.sum(), 1.0)
    np.testing.assert_allclose(found.vector().numpy(), found.weights @ x, atol=1e-9 * np.abs(x).max())
    assert found.scale.value == before.decayed
    # Of all weights that this scale allows they are Huber's: each row counts by its distance to the mean they make.
    distances = np.linalg.norm(x - found.weights @ x, axis=1)
    limit = huber * before.decayed
    expected = weights * limit / np.maximum(distances, limit)
    out = found.weights == 0.0
    expected[out] = 0.0
    np.testing.assert_allclose(found.weights, expected / expected.sum(), atol=1e-7)
    if rejection is None:
        assert not out.any()
    else:
        # None is left out but far ones; the first distances are to a mean of clipped rows.
        assert (distances[out] > 0.3 * rejection * before.decayed).all()
    if not out.any():
        by_gram = huber_weights_about_median(
            DenseRows(torch.from_numpy(x), weights), huber, None, before, tol=1e-12, max_iter=2000
        )
        # Where many rows are tied it may raise the scale for the others.
        if not by_gram.tied:
            assert by_gram.scale.value == before.decayed
            np.testing.assert_allclose(found.weights, by_gram.weights, atol=1e-6)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=30),
    st.sampled_from([-0.5, 0.0, 0.7, 1.0, 2.5, 3.0]),
    st.booleans(),
    st.integers(0, 9),
)
def test_few_rows_are_beyond_a_limit(norms, limit, are_equal, seed):
    norms = np.array(norms)
    weights = np.full(len(norms), 0.5) if are_equal else np.random.default_rng(seed).uniform(0.1, 1.0, len(norms))
    beyond = norms > limit
    expected = 3 * beyond.sum() <= len(norms) and 3 * weights[beyond].sum() <= weights.sum() * (1 + 1e-9)
    assert _are_few_beyond(limit, norms, np.sort(norms), weights, are_equal=are_equal) == expected


def ghost(x):
    return GhostRows([(0, DenseFactor(x[:, :, None]))], len(x), x.shape[1])


def test_it_is_taken_where_few_are_far(rng):
    x = torch.from_numpy(rng.normal(size=(100, 20)))
    before = remembered(2.0 * float(x.norm(dim=1).median()))
    same = {"tol": 1e-6, "max_iter": 100}
    assert huber_active_set(ghost(x), 2.0, 10.0, before, **same).weights == pytest.approx(np.full(100, 0.01))
    x[:20] *= 7.0
    some = huber_active_set(ghost(x), 2.0, 10.0, before, **same)
    assert 0.0 < some.weights[:20].max() < 0.01 < some.weights[20:].min()
    x[:20] *= 1e3
    assert (huber_active_set(ghost(x), 2.0, 10.0, before, **same).weights[:20] == 0.0).all()
    # Many that may be far, a scale that this step would raise, and none that is remembered.
    assert huber_active_set(ghost(x), 0.4, 10.0, before, **same) is None
    rising = Scale(before.value, (1.5 * before.value,) * 4)
    assert huber_active_set(ghost(1.5 * x), 2.0, 10.0, rising, **same) is None
    assert huber_active_set(ghost(x), 2.0, 10.0, Scale(), **same) is None


@pytest.mark.parametrize("largest", [10.0, 1e160, 1e300])
def test_rows_within_what_was_once_the_largest_scale_are_clipped_and_kept(rng, largest):
    x = torch.from_numpy(rng.normal(size=(100, 20)))
    length = 2.0 * float(x.norm(dim=1).median())
    before = replace(remembered(length), largest=largest * length)
    x[:20] *= 150.0
    found = huber_active_set(ghost(x), 2.0, 10.0, before, tol=1e-6, max_iter=100)
    assert found.scale.largest == before.largest
    expected = 2.0 * before.decayed / np.asarray(x[:20].norm(dim=1))
    is_far = np.asarray(x[:20].norm(dim=1)) > 10.0 * before.largest
    np.testing.assert_allclose(found.weights[:20] / found.weights[20:].max(), np.where(is_far, 0.0, expected), rtol=0.1)


def test_the_aggregator_does_the_same_with_and_without_it(rng):
    """Over steps: of factors, where it is taken, and of a matrix, where it isn't."""
    rule = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-9, max_iter=500)
    state = other = None
    taken = 0
    for step in range(30):
        x = torch.from_numpy(rng.normal(size=(64, 10))) * 0.98**step
        x[:9] *= 6.0
        x[9] = torch.nan
        rows = ghost(x)
        found, state = rule(rows, state)
        taken += rows._gram is None
        expected, other = rule(DenseRows(x), other)
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
        assert found.weights[9] == 0.0
        assert state.value == pytest.approx(other.value, rel=1e-9)
    assert taken > 20


def test_a_memory_keeps_to_the_block(rng):
    x = torch.from_numpy(rng.normal(size=(50, 6)))
    rule = BlockGeometricMedian(1.0, HuberMean(2.0, remember=True), complement="memory")
    _, state = rule(ghost(x))
    aggregate, after = rule(ghost(x), state)
    assert after.memory is not None
    assert aggregate.vector.shape == (6,)


@pytest.mark.parametrize("size", [1e36, 1e38])
@pytest.mark.parametrize("rejection", [None, 10.0])
def test_rows_whose_products_have_no_number(rng, size, rejection):
    x = torch.from_numpy(rng.normal(size=(64, 200))).float() / 3.0
    x[:12] = 0.0
    x[:12, 0] = size
    found, _ = HuberMean(2.0, rejection=rejection, remember=True)(ghost(x), remembered(10.0))
    assert np.isfinite(found.weights).all()
    assert found.vector.norm() < 20.0


@pytest.mark.parametrize("size", [1e-150, 1e-120, 1e-30, 1.0, 1e15])
@pytest.mark.parametrize("rejection", [None, 10.0])
def test_weights_do_not_depend_on_the_unit(rng, size, rejection):
    x = torch.from_numpy(rng.normal(size=(64, 10)) / 4.0)
    x[:5] *= 10.0
    rule = HuberMean(2.0, rejection=rejection, remember=True)
    expected, _ = rule(ghost(x), remembered(2.0))
    found, state = rule(ghost(size * x), remembered(2.0 * size))
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
    assert found.weights[:5].max() < 0.9 * found.weights[5:].min()
    assert state.value == pytest.approx(2.0 * size, rel=2e-3)


def test_single_bad_batches_do_not_raise_the_scale(rng):
    """Of 30 % corrupt samples, more than half in every sixth step: what they do to it is what they do by the matrix."""
    rule, scales = HuberMean(2.0, rejection=10.0, remember=True), {}
    for kind in ("factors", "matrix"):
        draws, state = np.random.default_rng(0), remembered(1.0)
        for step in range(120):
            x = draws.normal(size=(64, 40)) * 0.5 / np.sqrt(40)
            bad = draws.random(64) < (0.55 if step % 6 == 5 else 0.3)
            x[bad] = 8.0 * state.value * np.eye(40)[0] + x[bad]
            rows = torch.from_numpy(x)
            _, state = rule(ghost(rows) if kind == "factors" else DenseRows(rows), state)
        scales[kind] = state.value
    assert scales["factors"] <= 1.02 * scales["matrix"]


@pytest.mark.parametrize("ratio", [1e2, 1e12])
def test_few_rows_may_have_most_of_the_weight(rng, ratio):
    x = torch.from_numpy(rng.normal(size=(64, 10)) / 4.0)
    x[:4] = torch.tensor([[20.0], [-20.0], [20.0], [-20.0]]) * torch.eye(10, dtype=torch.float64)[[0, 0, 2, 2]]
    weights = np.full(64, 1.0 / ratio)
    weights[:4] = 1.0
    rule, before = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-9, max_iter=500), remembered(1.0)
    rows = GhostRows([(0, DenseFactor(x[:, :, None]))], 64, 10, weights)
    found, expected = rule(rows, before)[0], rule(DenseRows(x, weights), before)[0]
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
    np.testing.assert_allclose(found.vector.numpy(), found.weights @ x.numpy(), atol=1e-9)
