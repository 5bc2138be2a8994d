"""The memory of block steps: nothing is lost, and nobody carries it off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sparse_gradients import gradients

from skbgmd import block_geometric_median
from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.rows import DenseRows


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


def test_the_papers_memory_is_carried_off_and_ours_is_not(rng):
    X, _ = gradients(rng)
    X[:8] *= -100.0
    honest = np.linalg.norm(X[8:], axis=1).max()
    paper = block_geometric_median(X, complement="memory", memory_rule="mean", return_result=True)
    ours = block_geometric_median(X, complement="memory", return_result=True)
    assert np.linalg.norm(paper.memory) > 5 * honest
    assert np.linalg.norm(ours.memory) <= honest


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


def test_a_memory_that_dwarfs_tiny_rows_decides_the_block(rng):
    for dtype, row, kept in ((np.float32, 1e-20, 1.0), (np.float64, 1e-310, 1e-3)):
        memory = np.zeros(40, dtype=dtype)
        memory[30:] = kept * np.arange(1, 11)
        X = (rng.normal(size=(9, 40)) * row).astype(dtype)
        step = block_geometric_median(X, beta=0.1, complement="memory", memory=memory, return_result=True)
        assert step.block.tolist() == [36, 37, 38, 39]


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
