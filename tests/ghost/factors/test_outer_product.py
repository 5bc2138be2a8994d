"""Outer products, and weights and biases of one layer as one factor."""

from __future__ import annotations

import pytest
import torch

from single import made
from skbgmd.ghost import DenseFactor, OuterProductFactor
from skbgmd.ghost.factors import AffineFactor, with_biases


def test_weights_and_bias_of_one_layer_are_one_factor() -> None:
    left, right = made((5, 1, 3), torch.float64, 0), made((5, 1, 4), torch.float64, 1)
    weight, bias = OuterProductFactor(left, right), DenseFactor(left[:, 0])
    ((start, affine),) = with_biases([(2, weight), (14, bias)])
    assert (start, affine.n_columns) == (2, 15)
    assert isinstance(affine, AffineFactor)
    written = torch.cat([weight.explicit(slice(0, 3)), bias.explicit(slice(0, 3))], dim=1)
    weights, summed = made((5,), torch.float64, 2), torch.empty(15, dtype=torch.float64)
    affine.weighted_sum(weights, summed)
    torch.testing.assert_close(summed, weights @ written)
    torch.testing.assert_close(affine.gram(), written @ written.T)
    torch.testing.assert_close(affine.squared_norms(), written.square().sum(dim=1))
    scores = torch.cat([weight.unit_scores(weights), bias.unit_scores(weights)])
    torch.testing.assert_close(affine.unit_scores(weights), scores)
    torch.testing.assert_close(affine.to(torch.float32).gram(), affine.gram().float())


def test_other_factors_stay_apart() -> None:
    left, right = made((5, 1, 3), torch.float64, 0), made((5, 1, 4), torch.float64, 1)
    weight, bias = OuterProductFactor(left, right), DenseFactor(left[:, 0])
    for factors in (
        [(0, weight), (13, bias)],  # columns between them
        [(0, bias), (3, weight)],
        [(0, weight), (12, DenseFactor(left[:, 0].clone()))],
        [(0, weight), (12, DenseFactor(left[:, 0, :2]))],
        [(0, OuterProductFactor(left.expand(5, 2, 3), right.expand(5, 2, 4))), (12, bias)],
    ):
        assert with_biases(factors) == factors
    twice = with_biases([(0, weight), (12, bias), (15, bias)])
    assert [start for start, _ in twice] == [0, 15]


@pytest.mark.parametrize(
    "shapes", [((4, 2), (4, 3)), ((4, 1, 2), (4, 3)), ((4, 1, 2), (5, 1, 3)), ((4, 2, 2), (4, 1, 3))]
)
def test_other_shapes_are_named(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"left and right must have shapes .*; found \(4, "):
        OuterProductFactor(*map(torch.zeros, shapes))


def test_dtypes_are_promoted_together() -> None:
    factor = OuterProductFactor(made((5, 2, 3), torch.float32, 0), made((5, 2, 4), torch.float64, 1))
    assert factor.dtype == factor.left.dtype == factor.right.dtype == torch.float64


def test_squared_norms_of_sums_that_cancel() -> None:
    """In float32 products of the positions would be off by more than what is left."""
    left, right = made((6, 8, 40), torch.float32, 0), made((6, 1, 40), torch.float32, 1).expand(-1, 8, -1)
    left = torch.cat([left, -left[:, :7], 1e-3 * left[:, 7:] - left[:, 7:]], dim=1)
    right = torch.cat([right, right], dim=1)
    factor = OuterProductFactor(left, right)
    factor._is_held = False
    exact = torch.bmm(left.double().transpose(1, 2), right.double()).flatten(1).square().sum(dim=1)
    torch.testing.assert_close(factor.squared_norms().double(), exact, rtol=1e-3, atol=0.0)


def test_what_was_written_out_is_kept_for_some_rows() -> None:
    factor = OuterProductFactor(made((5, 7, 3), torch.float64, 0), made((5, 7, 4), torch.float64, 1))
    written = factor.explicit(slice(0, 3))
    some = factor.rows(torch.tensor([4, 1]))
    assert torch.equal(some.explicit(slice(0, 3)), written[[4, 1]])
    assert "_written" in vars(some)
