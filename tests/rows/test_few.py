"""A few of many rows, of a matrix and of factors."""

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.ghost import DenseFactor, GhostRows
from skbgmd.ghost.factors import AffineFactor
from skbgmd.rows import DenseRows


def rows_of(kind, generator):
    left, right = (torch.randn(9, d, generator=generator, dtype=torch.float64) for d in (3, 4))
    matrix = torch.cat([(left[:, :, None] * right[:, None]).flatten(1), left], dim=1)
    if kind == "matrix":
        return DenseRows(matrix), matrix
    if kind == "affine":
        return GhostRows([(0, AffineFactor(left, right))], 9, 15), matrix
    # Columns that no factor covers, and others than affine ones.
    part = DenseFactor(matrix[:, :5, None])
    matrix = torch.cat([torch.zeros(9, 2, dtype=torch.float64), matrix[:, :5]], dim=1)
    return GhostRows([(2, part)], 9, 7), matrix


@pytest.mark.parametrize("elements", [0, 10**6])
@pytest.mark.parametrize("kind", ["matrix", "affine", "other factors"])
def test_products_and_sums(kind, elements, monkeypatch):
    monkeypatch.setattr(limits, "FEW_ELEMENTS", elements)
    rows, matrix = rows_of(kind, torch.Generator().manual_seed(0))
    index, weights = np.array([1, 4, 8]), np.arange(1.0, 10.0)
    few = rows.few(index)
    np.testing.assert_allclose(few.products(), matrix[index] @ matrix[index].T, atol=1e-12)
    total = rows.weighted_sum(weights)
    np.testing.assert_allclose(few.inner_products(total, weights), matrix[index] @ total, atol=1e-11)
    vector = torch.ones(matrix.shape[1], dtype=torch.float64)
    found = few.add_to(vector, 0.5, np.array([1.0, 2.0, 3.0]))
    assert found is vector
    torch.testing.assert_close(found, 0.5 + torch.tensor([1.0, 2.0, 3.0]).double() @ matrix[index])


@pytest.mark.parametrize("elements", [0, 10**6])
@pytest.mark.parametrize("size", [1e30, torch.inf])
def test_products_out_of_range(size, elements, monkeypatch):
    monkeypatch.setattr(limits, "FEW_ELEMENTS", elements)
    left = torch.ones(4, 2)
    left[1] = size
    rows = GhostRows([(0, AffineFactor(left, torch.ones(4, 3)))], 4, 8)
    assert rows.few(np.array([0, 1])).products() is None
