"""Factors whose Gram matrices are formed, and those that are passed over."""

from __future__ import annotations

import numpy as np
import torch

from single import made
from skbgmd.ghost import DenseFactor, GhostRows, OuterProductFactor
from skbgmd.ghost.gram_product import split_by_cost

N = 256


def wide() -> DenseFactor:
    return DenseFactor(made((N, 30, 100), torch.float64, 0))


def linear(units: int, width: int) -> OuterProductFactor:
    return OuterProductFactor(made((N, 1, units), torch.float64, 1), made((N, 1, width), torch.float64, 2))


def test_what_is_cheap_is_formed() -> None:
    factors = [(0, linear(80, 120)), (9600, wide()), (12_600, DenseFactor(made((N, 7, 1), torch.float64, 3)))]
    formed, passed = split_by_cost(factors)
    assert [(start, factor.n_columns) for start, factor in formed] == [(0, 9600), (9600, 7)]
    assert [(start, factor.n_columns) for start, factor in passed] == [(0, 3000)]
    # Nothing is saved where everything is cheap.
    assert split_by_cost(factors[:1]) == (factors[:1], [])


def test_products_are_those_of_the_gram_matrix() -> None:
    rows = GhostRows([(0, linear(80, 120)), (9605, wide())], N, 12_605)
    product = rows.gram_product()
    assert product is not None
    vector = np.random.default_rng(0).normal(size=N)
    found = product(vector)
    np.testing.assert_allclose(found, rows.gram().products @ vector, rtol=1e-9, atol=1e-9 * np.abs(found).max())
    # Once it is known there is no other way as cheap; nor where it is cheap.
    assert rows.gram_product() is None
    assert GhostRows([(0, linear(80, 120))], N, 9600).gram_product() is None
