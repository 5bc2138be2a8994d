"""Rows by their factors, where numbers are of sizes far apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean
from skbgmd.ghost import DenseFactor, GhostRows, OuterProductFactor
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import ParameterBlock


def ghosts(outputs: torch.Tensor, inputs: torch.Tensor, weights: np.ndarray | None = None) -> GhostRows:
    """Gradients of a layer's weights and bias, by what comes back to its outputs (n, q) and its inputs (n, p)."""
    left, (q, p) = outputs[:, None, :].contiguous(), (outputs.shape[1], inputs.shape[1])
    factors = [(0, OuterProductFactor(left, inputs[:, None, :])), (q * p, DenseFactor(left[:, 0, :, None]))]
    units = ParameterBlock.of([torch.empty(q, p), torch.empty(q)])
    return GhostRows(factors, len(outputs), q * p + q, weights, units=units)


def test_a_far_row_that_has_most_of_the_weight_is_where_the_median_is() -> None:
    """What is typical of norms is so by the rows' weights: all the others are drawn in, or none."""
    values = torch.tensor([[1e-28, 2e-28], [3e-28, 1e-28], [2e-28, 1e-28], [60.0, 100.0]], dtype=torch.float64)
    weights = np.array([1e-3, 1e-3, 1e-3, 1.0])
    dense, rows = DenseRows(values, weights), GhostRows([(0, DenseFactor(values[:, :, None]))], 4, 2, weights)
    for rule in (GeometricMedian(), HuberMean(2.0, remember=True), GeometricMedian(ties="huber")):
        expected, state = rule(dense)
        found, own_state = rule(rows)
        torch.testing.assert_close(found.vector, values[3], rtol=1e-2, atol=0.0)
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-6, atol=0.0)
        if state is not None:
            assert own_state.value == pytest.approx(state.value)


@pytest.mark.parametrize("block", ["coordinate", "unit"])
@pytest.mark.parametrize("size", [1e25, 1e36])
def test_a_large_input_to_what_is_learnt_spoils_no_block(block: str, size: float) -> None:
    """Nothing comes back for it: its gradient is zero, but zero times the square of the input is not a number."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = torch.randn(6, 3, generator=generator), torch.randn(6, 4, generator=generator)
    outputs[2], inputs[2] = 0.0, size
    rule = BlockGeometricMedian(0.3, block=block)
    found, _ = rule(ghosts(outputs, inputs))
    products = (outputs[:, :, None] * inputs[:, None, :]).flatten(1)
    expected, _ = rule(
        DenseRows(
            torch.cat([products, outputs], dim=1),
            np.ones(6),
            units=ParameterBlock.of([torch.empty(3, 4), torch.empty(3)]),
        )
    )
    assert torch.equal(found.block, expected.block)
    torch.testing.assert_close(found.vector, expected.vector, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e-38, 1e-42])
def test_a_memory_next_to_the_smallest_numbers(size: float) -> None:
    """Scores are taken of rows that are brought to order one, and so is what they are combined to."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = size * torch.randn(6, 3, generator=generator), torch.randn(6, 4, generator=generator)
    rule, state = BlockGeometricMedian(0.5, HuberMean(2.0, remember=True), complement="memory"), None
    for _ in range(3):
        found, state = rule(ghosts(outputs, inputs), state)
        assert len(found.block) == 8
        assert torch.isfinite(found.vector).all()
