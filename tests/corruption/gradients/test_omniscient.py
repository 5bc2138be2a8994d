"""Attacks that look at the honest rows, against their definitions and bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import RANDOM, make, matrix, split
from hypothesis import given
from hypothesis import strategies as st

from skbgmd._utils import limits
from skbgmd.corruption import (
    GRADIENT_CORRUPTIONS,
    ALittleIsEnough,
    InnerProduct,
    Mimic,
    MinMax,
    MinSum,
)
from skbgmd.corruption.gradients.omniscient import min_max_length, min_sum_length


def test_a_little_is_enough_and_inner_product():
    gradients = matrix()
    attacked, corrupt, honest = split(ALittleIsEnough(fraction=0.4, z=0.7), gradients)
    mean, std = gradients[honest].mean(dim=0), gradients[honest].std(dim=0, correction=0)
    assert torch.allclose(attacked[corrupt], (mean - 0.7 * std).expand(len(corrupt), -1), rtol=1e-12)
    attacked, corrupt, _ = split(InnerProduct(fraction=0.4, epsilon=0.3), gradients)
    assert torch.allclose(attacked[corrupt], (-0.3 * mean).expand(len(corrupt), -1), rtol=1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_own_noise_stays_about_the_same_shift(own):
    gradients = matrix()
    for attack in (ALittleIsEnough(fraction=0.4, z=0.7, own=own), InnerProduct(fraction=0.4, epsilon=0.3, own=own)):
        attacked, corrupt, honest = split(attack, gradients)
        mean, std = gradients[honest].mean(dim=0), gradients[honest].std(dim=0, correction=0)
        target = mean - 0.7 * std if isinstance(attack, ALittleIsEnough) else -0.3 * mean
        noise = gradients[corrupt] - mean if own else torch.zeros(len(corrupt), 1)
        torch.testing.assert_close(attacked[corrupt], target + noise, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", [0, 7])
def test_mimic_copies_the_same_row_at_every_step(target):
    gradients, source = matrix(), np.random.RandomState(0)
    for _ in range(20):
        attacked = gradients.clone()
        corrupt = Mimic(fraction=0.4, target=target).apply_(attacked, random_state=source)
        assert target not in corrupt
        assert torch.equal(attacked[corrupt], gradients[target].expand(len(corrupt), -1))


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


def test_min_max_takes_columns_in_chunks():
    gradients = matrix(8, 2 * limits.CORRUPTED_COLUMNS + 5, dtype=torch.float32)
    attacked, corrupt, honest = split(MinMax(fraction=0.3), gradients)
    rows = gradients[honest].double()
    bound = max(largest_distance(rows, row) for row in rows)
    assert largest_distance(rows, attacked[corrupt[0]].double()) == pytest.approx(bound, rel=1e-5)


def test_min_max_length_by_bisection(rng):
    centered = rng.normal(size=(9, 6))
    centered -= centered.mean(axis=0)
    p = rng.normal(size=6)
    args = torch.from_numpy(centered @ centered.T), torch.from_numpy(centered @ p), float(p @ p)
    distances = np.linalg.norm(centered[:, None] - centered, axis=2)
    for length, cost, bound in (
        (min_max_length, lambda z: np.linalg.norm(z, axis=1).max(), distances.max()),
        (min_sum_length, lambda z: (z**2).sum(), (distances**2).sum(axis=1).max()),
    ):
        low, high = 0.0, 100.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if cost(middle * p - centered) <= bound else (low, middle)
        assert length(*args) == pytest.approx(low, rel=1e-10)


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_min_max_where_the_honest_rows_are_equal(kind, direction, value):
    gradients = torch.full((5, 3), value, dtype=torch.float64)
    assert torch.equal(kind(fraction=0.4, direction=direction, random_state=0)(gradients), gradients)


@pytest.mark.parametrize(
    "name",
    [name for name, kind in GRADIENT_CORRUPTIONS.items() if kind.omniscient and name != "mimic"],
)
@pytest.mark.parametrize("size", [1e-280, 1e-20, 1e20, 1e100, 1e200, 1e300])
def test_attacks_scale_with_the_gradients(name, size):
    gradients = matrix()
    attack = make(name, fraction=0.4)
    expected = attack(gradients, random_state=0)
    torch.testing.assert_close(attack(gradients * size, random_state=0) / size, expected, rtol=1e-9, atol=1e-9)
    if 1e-30 < size < 1e30 and name not in RANDOM:
        single = attack((gradients * size).float(), random_state=0).double() / size
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
def test_directions_of_any_size(direction, kind):
    gradients = matrix()
    expected = kind(0.4, direction)(gradients, random_state=0)
    for size in (1e-200, 1e200):
        found = kind(0.4, direction)(gradients * size, random_state=0) / size
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
