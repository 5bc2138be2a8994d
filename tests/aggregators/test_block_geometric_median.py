"""The block geometric median as an aggregator, with its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier, block_geometric_median
from skbgmd._utils.random import step_seed
from skbgmd.aggregators import (
    BlockGeometricMedian,
    BlockState,
    GeometricMedian,
    HuberMean,
    Mean,
    get_aggregator,
)
from skbgmd.corruption import Squatter
from skbgmd.rows import DenseRows
from skbgmd.rows.averaged import AveragedRows
from skbgmd.rows.blocks import ParameterBlock


@pytest.mark.parametrize("complement", ["weighted", "filtered", "zero", "memory"])
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


@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 1.0}, {"run_length": 4}, {"selection": "sample", "random_state": 3}, {"complement": "memory"}],
)
def test_the_columns_that_a_call_would_look_at(settings, rng):
    rule, state = BlockGeometricMedian(**{"beta": 0.3, **settings}), None
    for _ in range(3):
        X = rng.normal(size=(8, 50))
        X[2, 0] = np.nan
        found = rule.looked_at(dense(X), state)
        aggregate, state = rule(dense(X), state)
        if aggregate.block is None:
            assert found is None
        else:
            assert torch.equal(found, aggregate.block)
    assert Mean().looked_at(dense(X)) is None


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


def test_the_location_rule_is_checked(rng):
    with pytest.raises(TypeError, match="location must be None or an aggregator that weighs rows; found 'median'"):
        BlockGeometricMedian(location="median")(dense(rng.normal(size=(4, 3))))


def test_the_papers_algorithm_by_each_of_its_names_step_after_step(rng):
    """Class method, name and function; and the function with each parameter written out."""
    rules = [BlockGeometricMedian.published(random_state=3), get_aggregator("bgmd_paper").set_params(random_state=3)]
    written_out = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "clip_scores": False}
    states, memories = [None, None], [None, None]
    for step in range(4):
        X, found = rng.normal(size=(9, 50)), []
        for i, rule in enumerate(rules):
            aggregate, states[i] = rule(dense(X), states[i])
            found.append((aggregate.vector, aggregate.block, aggregate.weights, states[i].memory))
        for i, parameters in enumerate(({"algorithm": "bgmd_paper"}, written_out)):
            seed = step_seed(3, step)
            result = block_geometric_median(X, memory=memories[i], random_state=seed, return_result=True, **parameters)
            memories[i] = result.memory
            found.append((result.median, result.block, result.weights, result.memory))
        for others in found[1:]:
            for value, expected in zip(others, found[0], strict=True):
                np.testing.assert_allclose(value, expected, atol=1e-6)
    assert [state.step for state in states] == [4, 4]


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


def cloud(scale: float, seed: int = 0, d: int = 20) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(15, d))


def test_on_a_block_parts_outside_are_clipped_to_a_remembered_norm() -> None:
    units = ParameterBlock.of([torch.zeros(5, 4)])
    aggregator = BlockGeometricMedian(0.2, HuberMean(1.0, rejection=10.0, remember=True), block="unit")
    values = torch.as_tensor(cloud(1.0))
    _, state = aggregator(DenseRows(values, units=units))
    assert state.off_block.value > 0.0
    # Six rows look honest on the block, whichever it is, and are huge elsewhere: they can't.
    attacked = values.clone()
    attacked[:6, 4:] *= 1e6
    for before in (None, state):
        aggregate, after = aggregator(DenseRows(attacked, units=units), before)
        assert float(aggregate.vector.norm()) < 20.0
        assert after.off_block.value < 20.0


@pytest.mark.parametrize(
    "location",
    [
        GeometricMedian(),
        GeometricMedian(rejection=3.0),
        GeometricMedian(ties="huber"),
        HuberMean(0.5),
        HuberMean(1.0, rejection=3.0, remember=True),
        Mean(),
    ],
)
@pytest.mark.parametrize("n_squatters", [1, 5])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 1.0, 0.5] * 4)])
def test_no_row_counts_for_more_than_twice_its_share_off_the_block(location, n_squatters, weights, rng) -> None:
    """Rows at the block's median; weights off the block are read off rows that are orthogonal unit vectors there."""
    on_block = 3.0 + rng.normal(size=(16, 8))
    on_block[:n_squatters] = on_block[n_squatters:].mean(axis=0)
    on_block[13:] += 1e3
    rows, a = dense(np.hstack([on_block, 1e-3 * np.eye(16)]), weights), np.ones(16) if weights is None else weights
    aggregate, _ = BlockGeometricMedian(8 / 24, location)(rows)
    np.testing.assert_array_equal(aggregate.block, np.arange(8))
    found = 1e3 * aggregate.vector.numpy()[8:]
    # Under Huber's mean they are clipped to c typical norms.
    np.testing.assert_allclose(found.sum(), min(1.0, getattr(location, "c", 1.0)), atol=1e-6)
    found /= found.sum()
    assert (found <= 2.0 * a / a.sum() * (1 + 1e-6)).all()
    if getattr(location, "rejection", None):
        np.testing.assert_array_equal(found[13:], 0.0)


@pytest.mark.slow
def test_training_withstands_rows_at_the_blocks_median(forked) -> None:
    """One of 34 rows, and thirteen of them."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16.0, y, test_size=0.4, random_state=0, stratify=y)
    scores = []
    for n in (0, 1, 13):
        model = BlockGMDClassifier(
            beta=0.1,
            group_size=8,
            batch_size=272,
            strength=None,
            max_epochs=20,
            gradient_corruption=Squatter((n + 0.5) / 34) if n else None,
            random_state=0,
        )
        scores.append(model.fit(X, y).score(X_test, y_test))
    assert scores[1] > scores[0] - 0.02
    assert scores[2] > scores[0] - 0.03
