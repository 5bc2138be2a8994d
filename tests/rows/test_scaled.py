"""Rows times numbers, never formed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.ghost import DenseFactor, GhostRows
from skbgmd.rows import DenseRows, ScaledRows


def ghosts(matrix):
    return GhostRows([(0, DenseFactor(matrix[:, :, None]))], *matrix.shape)


def test_products_of_rows_known_by_factors_take_no_pass_over_columns(rng, monkeypatch):
    matrix = torch.from_numpy(rng.normal(size=(6, 50)) + 0.3)
    factors = rng.uniform(size=6)
    rows = ScaledRows(ghosts(matrix), factors)
    monkeypatch.setattr(GhostRows, "chunk", lambda self, part: pytest.fail("written out"))
    exact = torch.from_numpy(factors)[:, None] * matrix
    np.testing.assert_allclose(rows.gram().squared_distances(), torch.cdist(exact, exact) ** 2, atol=1e-10)


@pytest.mark.parametrize(("size", "kind"), [(1e-30, DenseRows), (1e30, DenseRows), (1e30, ghosts)])
def test_products_out_of_range_are_those_of_the_rows_themselves(size, kind, rng):
    matrix = torch.from_numpy(rng.normal(size=(6, 50)) * size).float()
    factors = rng.uniform(0.1, 1.0, size=6)
    exact = torch.from_numpy(factors)[:, None] * matrix.double()
    gram = ScaledRows(kind(matrix), factors).gram()
    distances = np.sqrt(gram.squared_distances()) * gram.unit
    np.testing.assert_allclose(distances, torch.cdist(exact, exact), atol=1e-4 * size)


def test_half_precision_is_scaled_in_single(rng):
    matrix = torch.from_numpy(rng.normal(size=(5, 40))).half()
    factors = np.full(5, 1 / 3)
    rows = ScaledRows(DenseRows(matrix), factors)
    assert rows.dtype == rows.row(0).dtype == torch.float32
    torch.testing.assert_close(rows.row(2), matrix[2].float() / 3)
    torch.testing.assert_close(rows.weighted_sum(np.full(5, 0.2)), matrix.float().mean(dim=0) / 3)
