"""Huber mean, geometric median and block geometric median as aggregators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skbgmd import block_geometric_median, geometric_median
from skbgmd._utils import limits
from skbgmd._utils.random import step_seed
from skbgmd.aggregators import BlockGeometricMedian, BlockState, GeometricMedian, HuberMean
from skbgmd.rows import DenseRows
from skbgmd.rows.averaged import AveragedRows
from skbgmd.rows.blocks import ParameterBlock


def dense(X, weights=None):
    return DenseRows(torch.from_numpy(X), weights)


@pytest.mark.parametrize("shape", [(9, 40), (40, 5)])
def test_geometric_median_is_the_functions(shape, rng):
    X, a = rng.normal(size=shape), rng.random(shape[0])
    X[: shape[0] // 3] += 5.0
    aggregate, state = GeometricMedian(tol=1e-10)(dense(X, a))
    np.testing.assert_allclose(aggregate.vector, geometric_median(X, sample_weight=a, tol=1e-10), atol=1e-7)
    assert state is None


def test_geometric_median_finds_a_centre_that_a_sample_of_columns_hides(rng, monkeypatch):
    """A row like the others on every sampled column, and far out elsewhere, is a centre that costs all digits."""
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    X = rng.normal(size=(12, 3000)).astype(np.float32)
    rows = dense(X)
    decoy = X.copy()
    decoy[0] = np.median(X, axis=0)
    step = -(-3000 // limits.CENTER_SAMPLE_RUNS)
    decoy[0, limits.CENTER_SAMPLE_RUN :: step] = 1e7
    rows = dense(decoy)
    assert rows._central_index() == 0
    expected = geometric_median(decoy.astype(np.float64), tol=1e-10)
    vector = GeometricMedian()(rows)[0].vector
    assert np.linalg.norm(vector.double().numpy() - expected) < 1e-3 * np.linalg.norm(expected)


def test_huber_mean_satisfies_its_equation(rng):
    X = rng.normal(size=(15, 4))
    X[:4] += 8.0
    w = HuberMean(c=1.0, tol=1e-12, max_iter=1000).weights(dense(X))
    y = w @ X
    center = geometric_median(X, tol=1e-10)
    limit = np.sort(np.linalg.norm(X - center, axis=1))[7]
    d = np.linalg.norm(X - y, axis=1)
    expected = np.minimum(1.0, limit / d)
    np.testing.assert_allclose(w, expected / expected.sum(), atol=1e-4)


def test_huber_mean_lies_between_mean_and_geometric_median(rng):
    X = rng.normal(size=(15, 4))
    np.testing.assert_allclose(HuberMean(c=1e6)(dense(X))[0].vector, X.mean(axis=0), atol=1e-9)
    small = HuberMean(c=1e-6, max_iter=3000, tol=1e-12)(dense(X))[0].vector
    np.testing.assert_allclose(small, geometric_median(X), atol=1e-3)


def test_huber_mean_of_a_majority_of_equal_rows(rng):
    X = np.vstack([np.ones((6, 3)), rng.normal(size=(4, 3)) * 100])
    np.testing.assert_allclose(HuberMean()(dense(X))[0].vector, np.ones(3), atol=1e-9)


def test_huber_mean_survives_a_row_at_1e160(rng):
    X = rng.normal(size=(7, 12))
    X[2] *= 1e160
    assert HuberMean()(dense(X))[0].vector.norm() < 10


@pytest.mark.parametrize("complement", ["weighted", "zero", "memory"])
@pytest.mark.parametrize("memory_rule", ["weighted", "mean"])
def test_block_is_the_functions_step_after_step(complement, memory_rule, rng):
    parameters = {"beta": 0.2, "complement": complement, "memory_rule": memory_rule, "run_length": 2}
    aggregator, state, memory = BlockGeometricMedian(**parameters), None, None
    for _ in range(4):
        X = rng.normal(size=(8, 50))
        aggregate, state = aggregator(dense(X), state)
        result = block_geometric_median(X, memory=memory, return_result=True, **parameters)
        np.testing.assert_allclose(aggregate.vector, result.median, atol=1e-6)
        np.testing.assert_array_equal(aggregate.block, result.block)
        np.testing.assert_allclose(aggregate.weights, result.weights, atol=1e-6)
        memory = result.memory
    assert state.step == 4


def test_block_draws_afresh_each_step_and_again_from_the_same_state(rng):
    X = rng.normal(size=(6, 200))
    aggregator = BlockGeometricMedian(selection="sample", random_state=5)
    first, state = aggregator(dense(X))
    second, _ = aggregator(dense(X), state)
    assert not torch.equal(first.block, second.block)
    again, _ = aggregator(dense(X), BlockState(None, 1))
    assert torch.equal(second.block, again.block)


def test_block_runs_on_mixed_rows(rng):
    X, mixing = rng.normal(size=(8, 60)), rng.dirichlet(np.ones(8), size=5)
    mixed = AveragedRows(dense(X), mixing, np.ones(5))
    left = BlockGeometricMedian(run_length=3)(mixed)[0]
    right = BlockGeometricMedian(run_length=3)(dense(mixing @ X))[0]
    np.testing.assert_allclose(left.vector, right.vector, atol=1e-8)


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        (GeometricMedian(tol=0.0), "tol must be greater than 0"),
        (GeometricMedian(max_iter=0), "max_iter must be at least 1"),
        (HuberMean(c=-1.0), "c must be greater than 0"),
        (BlockGeometricMedian(beta=2.0), "beta must be"),
        (BlockGeometricMedian(selection="best"), "selection must be one of"),
        (BlockGeometricMedian(complement="none"), "complement must be one of"),
        (BlockGeometricMedian(memory_rule="none"), "memory_rule must be one of"),
        (BlockGeometricMedian(run_length=0), "run_length must be at least 1"),
        (BlockGeometricMedian(selection="uniform", random_state=-1), "random_state must be at least 0"),
    ],
)
def test_parameters_are_checked(aggregator, message):
    with pytest.raises(ValueError, match=message):
        aggregator(DenseRows(torch.eye(3)))


def test_step_seed():
    assert step_seed(None, 3) is None
    assert step_seed(1, 2).integers(1 << 30) == step_seed(1, 2).integers(1 << 30)
    assert step_seed(1, 2).integers(1 << 30) != step_seed(1, 3).integers(1 << 30)


@pytest.mark.parametrize("clip", [True, False])
def test_mass_of_the_block(clip, rng):
    X = rng.normal(size=(9, 50)) * rng.uniform(0.1, 3.0, size=50)
    X[0] *= 1e3
    aggregate, _ = BlockGeometricMedian(beta=0.2, clip_scores=clip)(DenseRows(torch.from_numpy(X)))
    norms = np.linalg.norm(X, axis=1)
    scaled = X * np.minimum(1.0, np.median(norms) / norms)[:, None] if clip else X
    expected = (scaled[:, aggregate.block.numpy()] ** 2).sum() / (scaled**2).sum()
    np.testing.assert_allclose(aggregate.mass, expected)
    assert BlockGeometricMedian(clip_scores=clip)(DenseRows(torch.zeros(3, 4)))[0].mass == 1.0
    far = X.copy()
    far[0] *= 1e150
    if clip:  # the square of the far row's norm has no number
        assert 0.0 < BlockGeometricMedian(beta=0.2)(DenseRows(torch.from_numpy(far)))[0].mass <= 1.0


@pytest.mark.parametrize(
    "rule", [GeometricMedian, lambda **kwargs: BlockGeometricMedian(1.0, GeometricMedian(**kwargs))]
)
def test_rejection(rule, rng):
    X, a = rng.normal(size=(20, 60)), rng.uniform(0.5, 1.0, size=20)
    X[:7] = 100.0 * rng.normal(size=(7, 60)) + 30.0
    aggregate, _ = rule(rejection=3.0)(dense(X, a))
    assert not aggregate.weights[:7].any()
    expected = geometric_median(X[7:], sample_weight=a[7:], tol=1e-10)
    np.testing.assert_allclose(aggregate.vector, expected, atol=1e-3)
    alone, _ = rule()(dense(X, a))
    assert np.linalg.norm(alone.vector.numpy() - expected) > 0.1
    # Nothing is far off: it is the median.
    few, _ = rule(rejection=3.0)(dense(X[7:], a[7:]))
    np.testing.assert_array_equal(few.vector, rule()(dense(X[7:], a[7:]))[0].vector)


def test_rejection_keeps_equal_rows():
    X = np.zeros((5, 3))
    X[:2] = [[1.0, 0.0, 0.0], [5.0, 5.0, 5.0]]
    aggregate, _ = GeometricMedian(rejection=2.0)(dense(X))
    np.testing.assert_allclose(aggregate.weights, [0, 0, 1 / 3, 1 / 3, 1 / 3])


@given(
    X=arrays(np.float64, (9, 3), elements=st.floats(-10, 10)),
    far=arrays(np.float64, (4, 3), elements=st.floats(-1e9, 1e9)),
    rejection=st.floats(1.01, 10.0),
)
@settings(max_examples=60, deadline=None)
def test_rejection_keeps_the_breakdown_point(X, far, rejection):
    """Four of nine rows, wherever they are: the aggregate stays within a bounded distance of the others."""
    X = np.vstack([X[4:], far])
    vector = GeometricMedian(rejection=rejection)(dense(X))[0].vector.numpy()
    # The median is within 2 (5/9) / (1 - 8/9) = 10 diameters' halves of them; what is kept is near it.
    radius = np.linalg.norm(X[:5], axis=1).max()
    assert np.linalg.norm(vector) <= 10 * radius + rejection * 11 * radius + 1e-6


@pytest.mark.parametrize(("value", "error"), [(1.0, ValueError), (np.inf, ValueError), ("far", TypeError)])
def test_rejection_is_checked(value, error, rng):
    location = GeometricMedian(rejection=value)
    for rule in (location, HuberMean(rejection=value), BlockGeometricMedian(location=location)):
        with pytest.raises(error, match="rejection must be"):
            rule(dense(rng.normal(size=(4, 3))))


def test_the_location_rule_is_checked(rng):
    with pytest.raises(TypeError, match="location must be None or an aggregator that weighs rows; found 'median'"):
        BlockGeometricMedian(location="median")(dense(rng.normal(size=(4, 3))))


def test_the_published_rule_is_algorithm_1(rng):
    X = rng.normal(size=(9, 50))
    aggregator = BlockGeometricMedian.published(0.2, random_state=3)
    first, state = aggregator(dense(X))
    paper = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "clip_scores": False}
    expected = block_geometric_median(X, beta=0.2, **paper, random_state=step_seed(3, 0), return_result=True)
    np.testing.assert_allclose(first.vector, expected.median, atol=1e-6)
    np.testing.assert_allclose(state.memory, expected.memory, atol=1e-6)
    second, _ = aggregator(dense(X), state)
    expected = block_geometric_median(X, beta=0.2, **paper, memory=expected.memory, random_state=step_seed(3, 1))
    np.testing.assert_allclose(second.vector, expected, atol=1e-6)


@pytest.mark.parametrize(
    "rule", [GeometricMedian(), BlockGeometricMedian(0.2), BlockGeometricMedian(0.2, HuberMean(1.0, remember=True))]
)
def test_of_two_rows_neither_is_thrown_away(rule):
    generator = torch.Generator().manual_seed(0)
    shared = 3.0 * torch.randn(500, generator=generator)
    aggregate, _ = rule(DenseRows(shared + torch.randn(2, 500, generator=generator)))
    assert min(aggregate.weights) > 0.3


@pytest.mark.parametrize("params", [{}, {"run_length": 8}, {"block": "unit"}])
def test_a_block_that_turns_out_to_be_all_columns(params):
    X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    rows = DenseRows(X, units=ParameterBlock.of([torch.zeros(3, 2)]))
    aggregate, _ = BlockGeometricMedian(0.9, HuberMean(1.0, remember=True), **params)(rows)
    whole, _ = HuberMean(1.0, remember=True)(rows)
    torch.testing.assert_close(aggregate.vector, whole.vector)
    assert aggregate.block is None


def test_memory_counts_only_where_it_is_kept():
    X = torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
    _, state = BlockGeometricMedian(0.2, complement="memory")(DenseRows(X))
    assert state.memory.untyped_storage().size() == 4 * 40
    rule = BlockGeometricMedian(0.2)
    torch.testing.assert_close(rule(DenseRows(X), state)[0].vector, rule(DenseRows(X))[0].vector)


def test_the_norm_outside_is_remembered_over_a_block_of_all_columns():
    units = ParameterBlock.of([torch.zeros(1, 2), torch.zeros(1, 8)])
    rule, state = BlockGeometricMedian(0.5, HuberMean(1.0, remember=True), block="unit"), None
    for step in range(5):
        X = torch.randn(8, 10, generator=torch.Generator().manual_seed(step))
        X[:, :2] *= 10.0 if step == 3 else 0.01
        aggregate, after = rule(DenseRows(X, units=units), state)
        if step == 3:
            assert aggregate.block is None
            assert after.off_block == state.off_block
        state = after
    assert state.off_block.value > 0.0
