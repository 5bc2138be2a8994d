"""Min-max and min-sum: directions, bounds and sizes that both have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix, split
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.corruption import (
    MinMax,
    MinSum,
)


def largest_distance(rows, point):
    return float(torch.linalg.vector_norm(rows - point, dim=1).max())


def sum_of_squares(rows, point):
    return float(((rows - point) ** 2).sum())


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
@given(b=st.integers(4, 15), d=st.integers(1, 30), seed=st.integers(0, 10**6), offset=st.sampled_from([0.0, 1.0, 1e3]))
def test_min_max_and_min_sum_go_as_far_as_their_bound(kind, direction, b, d, seed, offset):
    rng = np.random.default_rng(seed)
    gradients = torch.from_numpy(rng.standard_t(3, size=(b, d)) + offset * rng.normal(size=d))
    attacked, corrupt, honest = split(kind(fraction=0.3, direction=direction), gradients, seed)
    rows, point = gradients[honest], attacked[corrupt[0]]
    assert torch.equal(attacked[corrupt], point.expand(len(corrupt), -1))
    cost = largest_distance if kind is MinMax else sum_of_squares
    bound = max(cost(rows, row) for row in rows)
    step = point - rows.mean(dim=0)
    assert cost(rows, point) <= bound * (1 + 1e-9)
    assert cost(rows, rows.mean(dim=0) + 1.01 * step) > bound
    mean = rows.mean(dim=0)
    expected = {"std": -rows.std(dim=0, correction=0), "sign": -mean.sign(), "unit": -mean / mean.norm()}[direction]
    gamma = float(step @ expected / (expected @ expected))
    assert gamma > 0.0
    assert torch.allclose(step, gamma * expected, rtol=1e-6, atol=1e-9 * float(mean.abs().max()))


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_min_max_where_the_honest_rows_are_equal(kind, direction, value):
    gradients = torch.full((5, 3), value, dtype=torch.float64)
    assert torch.equal(kind(fraction=0.4, direction=direction, random_state=0)(gradients), gradients)


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
def test_directions_of_any_size(direction, kind):
    gradients = matrix()
    expected = kind(0.4, direction)(gradients, random_state=0)
    for size in (1e-200, 1e200):
        found = kind(0.4, direction)(gradients * size, random_state=0) / size
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
