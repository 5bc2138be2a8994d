"""Min-max, against its bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix, split

from skbgmd._utils import limits
from skbgmd.corruption import (
    MinMax,
)
from skbgmd.corruption.gradients.min_max import min_max_length


def largest_distance(rows, point):
    return float(torch.linalg.vector_norm(rows - point, dim=1).max())


def test_min_max_takes_columns_in_chunks():
    gradients = matrix(8, 2 * limits.CORRUPTED_COLUMNS + 5, dtype=torch.float32)
    attacked, corrupt, honest = split(MinMax(fraction=0.3), gradients)
    rows = gradients[honest].double()
    bound = max(largest_distance(rows, row) for row in rows)
    assert largest_distance(rows, attacked[corrupt[0]].double()) == pytest.approx(bound, rel=1e-5)


def test_length_by_bisection(rng):
    centered = rng.normal(size=(9, 6))
    centered -= centered.mean(axis=0)
    p = rng.normal(size=6)
    distances = np.linalg.norm(centered[:, None] - centered, axis=2)
    low, high, bound = 0.0, 100.0, distances.max()
    for _ in range(80):
        middle = 0.5 * (low + high)
        z = middle * p - centered
        low, high = (middle, high) if np.linalg.norm(z, axis=1).max() <= bound else (low, middle)
    found = min_max_length(torch.from_numpy(centered @ centered.T), torch.from_numpy(centered @ p), float(p @ p))
    assert found == pytest.approx(low, rel=1e-10)
