"""Means of rows near the largest number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.rows import DenseRows
from skbgmd.rows.means import in_range, means


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_that_overflow_end_at_the_mean(dtype):
    largest = torch.finfo(dtype).max
    # Rounded products of these add up to more than there is.
    rows = DenseRows(torch.tensor([[largest, 1.0], [largest, 2.0], [largest, 3.0]], dtype=dtype))
    weights = np.full(3, 1.0 / 3.0)
    vector = in_range(rows, torch.tensor([torch.inf, 2.0], dtype=dtype), weights)
    assert vector.tolist() == pytest.approx([largest, 2.0])
    assert bool(torch.isfinite(means(rows, weights)).all())


def test_rows_without_weight_are_not_looked_at():
    largest = torch.finfo(torch.float32).max
    rows = DenseRows(torch.tensor([[largest], [largest], [torch.nan]]))
    vector = in_range(rows, torch.tensor([torch.inf]), np.array([0.5, 0.5, 0.0]))
    assert vector.item() == pytest.approx(largest)


def test_what_is_not_finite_in_the_rows_stays():
    rows = DenseRows(torch.tensor([[torch.inf, 1.0], [1.0, 3.0]]))
    assert means(rows, np.array([0.5, 0.5])).tolist() == [torch.inf, 2.0]
    nowhere = torch.full((2,), torch.nan)
    assert in_range(rows, nowhere, np.array([0.5, 0.5])) is nowhere
