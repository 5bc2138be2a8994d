"""Group sizes against total variation distances that are computed by integration."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense
from scipy.integrate import quad, trapezoid
from scipy.stats import norm

from skbgmd.aggregators import Aggregate, Mean, group_size_needed, indistinguishable_distance
from skbgmd.aggregators.noise_to_signal import noise_to_signal


def total_variation(distance):
    """Of two normal distributions of variance one, by integrating the positive part of the densities' difference."""
    found, _ = quad(lambda x: max(norm.pdf(x) - norm.pdf(x - distance), 0.0), -12.0, 0.5 * distance)
    return found


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.2, 0.38, 0.4, 0.49])
def test_the_distance_is_where_corrupt_rows_can_fill_the_difference(fraction):
    distance = indistinguishable_distance(fraction)
    assert total_variation(distance) == pytest.approx(fraction / (1.0 - fraction), abs=1e-7)


def test_two_means_at_that_distance_have_one_mixture():
    """The corrupt share that fills up each of two distributions to the same one is a distribution, of mass one."""
    share = 0.3
    distance = indistinguishable_distance(share)
    x = np.linspace(-10.0, 10.0 + distance, 200_001)
    first, second = norm.pdf(x), norm.pdf(x - distance)
    together = (1.0 - share) * np.maximum(first, second)
    for honest in (first, second):
        corrupt = (together - (1.0 - share) * honest) / share
        assert corrupt.min() >= 0.0
        assert trapezoid(corrupt, x) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("fraction", [0.2, 0.38, 0.45])
@pytest.mark.parametrize("ratio", [0.5, 3.0, 20.0])
def test_opposite_means_can_be_told_apart_from_that_size_on(ratio, fraction):
    size = group_size_needed(ratio, fraction)
    possible = fraction / (1.0 - fraction)
    assert total_variation(2.0 / (ratio / size**0.5)) > possible
    if size > 1:
        assert total_variation(2.0 / (ratio / (size - 1) ** 0.5)) <= possible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1.0, 0.2), "noise_to_signal must be at least 0"), ((1.0, 0.5), "fraction must be less than 0.5")],
)
def test_parameters_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_size_needed(*arguments)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_estimate_is_the_ratio_of_normal_rows(ratio, scale, rng):
    """Noise is other across the mean than along it, which counts."""
    X = rng.normal(size=(500, 20)) * np.append(ratio, np.full(19, 0.3))
    X[:, 0] += 1.0
    rows = dense(scale * X)
    assert noise_to_signal(rows, Mean()(rows)[0]) == pytest.approx(ratio, rel=0.15)


def test_the_aggregates_own_noise_is_no_signal(rng):
    """Ten rows whose mean is as long by noise as by signal."""
    found = []
    for _ in range(20):
        X = rng.normal(size=(10, 400))
        X[:, 0] += 400**0.5 / 10**0.5
        rows = dense(X)
        found.append(noise_to_signal(rows, Mean()(rows)[0]))
    uncorrected = np.median(found) / 2**0.5
    assert np.median(found) == pytest.approx(10**0.5 / 400**0.5, rel=0.4)
    assert uncorrected < 0.85 * 10**0.5 / 400**0.5


def test_there_is_none_for_an_aggregate_of_zero(rng):
    rows = dense(rng.normal(size=(5, 4)))
    assert noise_to_signal(rows, Aggregate(rows.row(0) * 0.0)) is None
