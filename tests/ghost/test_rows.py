"""Rows by their factors: blocks, dtypes, and numbers of sizes far apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from single import close, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd._utils import limits
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean
from skbgmd.ghost import DenseFactor, GhostRows, GradientRecorder
from skbgmd.ghost.factors import OuterProductFactor
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock


def ghosts(outputs: torch.Tensor, inputs: torch.Tensor, weights: np.ndarray | None = None) -> GhostRows:
    """Gradients of a layer's weights and bias, by what comes back to its outputs (n, q) and its inputs (n, p)."""
    left, (q, p) = outputs[:, None, :].contiguous(), (outputs.shape[1], inputs.shape[1])
    factors = [(0, OuterProductFactor(left, inputs[:, None, :])), (q * p, DenseFactor(left[:, 0, :, None]))]
    units = ParameterBlock.of([torch.empty(q, p), torch.empty(q)])
    return GhostRows(factors, len(outputs), q * p + q, weights, units=units)


def test_a_far_row_that_has_most_of_the_weight_is_where_the_median_is() -> None:
    """Typical norms are weighted, in both kinds of rows: all other rows are shrunk, or none."""
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
@pytest.mark.parametrize("complement", ["weighted", "filtered"])
def test_a_large_input_without_a_gradient_spoils_no_block(block: str, size: float, complement: str) -> None:
    """The gradient of such a sample is zero, but zero times the square of the input is not a number."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = torch.randn(6, 3, generator=generator), torch.randn(6, 4, generator=generator)
    outputs[2], inputs[2] = 0.0, size
    rule = BlockGeometricMedian(0.3, block=block, complement=complement)
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
    """Scores are those of rows scaled to order one, and so are weighted sums."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = size * torch.randn(6, 3, generator=generator), torch.randn(6, 4, generator=generator)
    rule, state = BlockGeometricMedian(0.5, HuberMean(2.0, remember=True), complement="memory"), None
    for _ in range(3):
        found, state = rule(ghosts(outputs, inputs), state)
        assert len(found.block) == 8
        assert torch.isfinite(found.vector).all()


def test_rows_whose_squares_have_no_number_in_float32_are_finite() -> None:
    x, left = made((5, 4), torch.float32, 0), made((5, 3), torch.float32, 1)
    factor = OuterProductFactor(1e13 * left[:, None], 1e13 * x[:, None])
    rows = GhostRows([(0, factor)], 5, 12)
    gram = rows.gram()
    assert gram.finite.all()
    exact = (1e26 * left.double()[:, :, None] * x.double()[:, None]).flatten(1).numpy()
    np.testing.assert_allclose(gram.unit**2 * gram.products, exact @ exact.T, rtol=1e-6, atol=1e44)


def test_weighted_sums_by_block_leave_out_rows_that_are_not_finite() -> None:
    left, right = made((4, 1, 3), torch.float32, 0), made((4, 1, 2), torch.float32, 1)
    left[2] = torch.nan
    rows = GhostRows([(0, OuterProductFactor(left, right))], 4, 6)
    units = ParameterBlock.of([torch.zeros(3, 2)])
    on_block, elsewhere = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.2, 0.3, 0.0, 0.5])
    written = torch.einsum("iu,iw->iuw", left[:, 0], right[:, 0]).flatten(1).nan_to_num(0.0).double()
    for block in (replace(units, chosen=np.array([1])), CoordinateBlock(torch.tensor([2, 3]), 1, 6)):
        expected = torch.as_tensor(elsewhere) @ written
        expected[2:4] = (torch.as_tensor(on_block) @ written)[2:4]
        close(rows.weighted_sum_by_block(on_block, elsewhere, block), expected, 1e-6, 1.0)


class _Mixed(nn.Module):
    """A layer in single precision, one in double, and one that isn't used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Linear(8, 6), nn.Linear(3, 4), nn.Linear(6, 5).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x).double())
        return result


@pytest.mark.parametrize("selection", ["top", "uniform"])
@pytest.mark.parametrize("complement", ["weighted", "filtered", "zero", "memory"])
def test_blocks_of_units_with_layers_of_two_precisions_and_one_unused(selection: str, complement: str) -> None:
    module, x = _Mixed(), made((16, 8), torch.float32, 0)
    parameters = list(module.parameters())
    with GradientRecorder(module, parameters) as recorder:
        losses = loss(module(x))
    units = ParameterBlock.of(parameters)
    rows = GhostRows(recorder.factors(losses), 16, units.total, units=units)
    dense = DenseRows(rows.chunk(slice(0, units.total)), units=units)
    rule = BlockGeometricMedian(0.4, selection=selection, block="unit", complement=complement, random_state=0)
    (found, after), (expected, exact) = rule(rows), rule(dense)
    np.testing.assert_array_equal(found.block, expected.block)
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    if complement == "memory":
        np.testing.assert_allclose(after.memory, exact.memory, atol=1e-6)
        assert after.memory.untyped_storage().size() == 8 * units.total


@pytest.mark.parametrize("block", ["coordinate", "unit"])
def test_scores_of_rows_whose_squares_have_no_number_in_float32(block: str) -> None:
    X = made((9, 50, 40), torch.float32, 0)
    X[6:] *= 1e30
    units = ParameterBlock.of([torch.zeros(50, 40)])
    rows = GhostRows([(0, DenseFactor(X))], 9, 2000, units=units)
    rule = BlockGeometricMedian(0.1, block=block)
    found, expected = rule(rows)[0], rule(DenseRows(X.flatten(1), units=units))[0]
    np.testing.assert_array_equal(found.block, expected.block)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-4)


def test_many_small_gradients_are_multiplied_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [made((6, width), torch.float64, width) for width in (3, 5, 2, 7, 4)]
    starts = np.cumsum([0, 3, 5, 2, 7]).tolist()
    rows = GhostRows([(start, DenseFactor(part)) for start, part in zip(starts, values, strict=True)], 6, 21)
    whole = torch.cat(values, dim=1)
    for at_once in (1, 2, 5):
        monkeypatch.setattr(limits, "WRITTEN_ELEMENTS", at_once * 6 * limits.ONE_PRODUCT_COLUMNS)
        assert len(list(rows._gram_parts(torch.float64))) == -(-5 // at_once)
        np.testing.assert_allclose(rows._gram_in(torch.float64).products, (whole @ whole.T).numpy(), atol=1e-12)


@pytest.mark.parametrize("rule", [GeometricMedian(), HuberMean(2.0), BlockGeometricMedian(0.5)])
@pytest.mark.parametrize("exponent", [-1060, -300, 300, 1020])
def test_weights_count_by_their_ratios(rule, exponent):
    factor, weights = DenseFactor(torch.randn(6, 10)), np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
    expected = rule(GhostRows([(0, factor)], 6, 10, weights))[0].vector
    assert torch.equal(rule(GhostRows([(0, factor)], 6, 10, np.ldexp(weights, exponent)))[0].vector, expected)


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([1.0] * 6, TypeError),
        (np.ones(5), ValueError),
        (-np.ones(6), ValueError),
        (np.full(6, np.nan), ValueError),
        (np.ma.masked_equal(np.arange(6.0), 2.0), ValueError),
    ],
)
def test_weights_are_checked(weights, error):
    with pytest.raises(error, match="weights must "):
        GhostRows([(0, DenseFactor(torch.ones(6, 10)))], 6, 10, weights)
