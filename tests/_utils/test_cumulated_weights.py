"""Integer weights count as that number of equal rows, and what is rounded adds up."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbgmd._utils.cumulated_weights import bounds, halves, in_units, middle

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=60).filter(any)


def lower_and_upper(weights: np.ndarray, share: float = 0.5) -> tuple[int, int]:
    mass = np.cumsum(in_units(weights))
    least, most = bounds(int(mass[-1]), len(mass), share)
    return int(mass.searchsorted(least)), int(mass.searchsorted(most, side="right"))


@given(COUNTS, st.floats(1e-3, 1e3))
def test_as_repeated_rows(counts: list[int], factor: float) -> None:
    rows, weights = np.repeat(np.arange(len(counts)), counts), factor * np.array(counts)
    expected = rows[(len(rows) - 1) // 2], rows[len(rows) // 2]
    assert lower_and_upper(weights) == expected
    assert lower_and_upper(weights / weights.max()) == expected


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=20).filter(any))
def test_large_integers_are_told_apart(counts: list[int]) -> None:
    mass = np.cumsum(counts)
    low, high = (2 * mass >= mass[-1]).argmax(), (2 * mass > mass[-1]).argmax()
    weights = np.array(counts, dtype=np.float64)
    assert lower_and_upper(weights) == lower_and_upper(weights / weights.max()) == (low, high)


@given(COUNTS, st.integers(1, 9))
def test_other_shares(counts: list[int], tenths: int) -> None:
    mass = np.cumsum(counts)
    low, high = (10 * mass >= tenths * mass[-1]).argmax(), (10 * mass > tenths * mass[-1]).argmax()
    assert lower_and_upper(np.array(counts) / max(counts), tenths / 10) == (low, high)


@pytest.mark.parametrize("size", [5e-324, 1e-300, 0.1, 1e308])
def test_weights_of_any_size(size):
    assert lower_and_upper(np.array([0.0, size, 0.0, size, 0.0])) == (1, 3)


def test_weights_that_are_nothing_beside_others():
    with np.errstate(all="raise"):
        assert lower_and_upper(np.array([1e-300, 1e300, 0.0])) == (1, 1)


def test_decimals_add_up_to_half():
    assert 0.1 + 0.2 != 0.3
    assert lower_and_upper(np.array([0.1, 0.2, 0.3])) == lower_and_upper(np.array([0.2, 0.1, 0.3])) == (1, 2)


def test_the_whole_weight_ends_at_the_last_that_has_some():
    assert lower_and_upper(np.array([0.0, 1.0, 0.0]), 1.0) == (1, 1)
    assert lower_and_upper(np.array([0.0, 1.0, 0.0]), 1e-300) == (1, 1)


@pytest.mark.parametrize("n", [3, 1000, 300_001])
def test_many_weights_that_are_all_rounded(n):
    weights = np.full(2 * n, 1.0 / 3.0)
    weights[-1] += 1e-6
    assert lower_and_upper(weights) == (n, n)
    assert lower_and_upper(np.append(weights[:-1], weights[0])) == (n - 1, n)


@given(COUNTS, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_places_of_the_middle_are_those_of_repeated_numbers(counts: list[int], factor: float, random: Random) -> None:
    order = random.sample(range(len(counts)), len(counts))
    places = np.repeat(np.arange(len(counts)), [counts[at] for at in order])
    assert middle(factor * np.array(counts), np.array(order)) == (
        places[(len(places) - 1) // 2],
        places[len(places) // 2],
    )


@given(COUNTS)
def test_halves_are_the_bounds_of_each_total(counts: list[int]) -> None:
    units, n = in_units(np.array(counts, dtype=np.float64)), len(counts)
    totals = np.append(np.cumsum(units), 0)
    found = [bounds(int(total), n)[0] if total else 0 for total in totals]
    # A share of a total is taken in floats.
    np.testing.assert_allclose(halves(totals, n), found, rtol=0, atol=256)
