"""Min-sum, against its bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.corruption.gradients.min_sum import min_sum_length


def test_length_by_bisection(rng):
    centered = rng.normal(size=(9, 6))
    centered -= centered.mean(axis=0)
    p = rng.normal(size=6)
    distances = np.linalg.norm(centered[:, None] - centered, axis=2)
    low, high, bound = 0.0, 100.0, (distances**2).sum(axis=1).max()
    for _ in range(80):
        middle = 0.5 * (low + high)
        z = middle * p - centered
        low, high = (middle, high) if (z**2).sum() <= bound else (low, middle)
    found = min_sum_length(torch.from_numpy(centered @ centered.T), torch.from_numpy(centered @ p), float(p @ p))
    assert found == pytest.approx(low, rel=1e-10)
