"""Newton steps in the Gram matrix: digits of float32 rows, and of rows with an offset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd import block_geometric_median, geometric_median


def test_a_large_float32_matrix_is_proved_too():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(24, 60_000, generator=generator)
    X[:7] += 3.0
    single = geometric_median(X, return_result=True)
    double = geometric_median(X.double(), tol=1e-12, return_result=True)
    assert single.converged
    distances = (X.double() - single.median.double()).norm(dim=1)
    true = float(distances.sum() / double.objective - 1.0)
    assert -1e-12 <= true <= min(single.gap, 1e-9)


@pytest.mark.parametrize("offset", [10.0, 1e4])
def test_large_float32_matrix_with_a_common_offset(offset):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(24, 60_000, generator=generator) + offset
    result = geometric_median(X, return_result=True)
    best = geometric_median(X.double(), tol=1e-12, return_result=True)
    true = float((X.double() - result.median.double()).norm(dim=1).sum() / best.objective - 1.0)
    # At 1e4 the median's own float32 rounding is all that is left.
    assert true <= result.gap <= 1e-6


def test_many_equal_float32_rows_of_the_gram_path_give_that_row():
    X = np.full((9, 40), 0.1, dtype=np.float32)
    result = block_geometric_median(X, beta=0.5, return_result=True)
    np.testing.assert_array_equal(result.median[result.block], X[0, result.block])
    assert result.gap == 0.0
