"""Remembered products: means with decay, and workers that come and go."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.remembered_products import RememberedProducts


def gram(rng, k):
    X = rng.normal(size=(k, 5))
    return X @ X.T


def test_means_by_definition(rng):
    steps, memory = [((3, 1, 2), gram(rng, 3)), ((2, 3), gram(rng, 2)), ((1, 4, 3), gram(rng, 3))], RememberedProducts()
    for ids, products in steps:
        memory = memory.update(ids, products, decay=0.8)
    for a in (1, 2, 3, 4):
        for b in (1, 2, 3, 4):
            ages = [(2 - t, p[i.index(a), i.index(b)]) for t, (i, p) in enumerate(steps) if {a, b} <= set(i)]
            weights = np.array([0.8**age for age, _ in ages])
            expected = weights @ [value for _, value in ages] / weights.sum() if ages else 0.0
            found, met = memory.means((a, b)), memory.met((a, b))
            assert found[0, -1] == pytest.approx(expected)
            assert bool(met[0, -1]) == bool(ages)


def test_those_that_were_there_most_stay_as_they_are(rng):
    memory = RememberedProducts()
    for ids in ((5, 6, 7), (6, 8), (6, 5)):
        memory = memory.update(ids, gram(rng, len(ids)), 0.9)
    some = memory.of_most_visits(2)
    assert some.ids == (5, 6)
    np.testing.assert_array_equal(some.means((6, 5)), memory.means((6, 5)))
    assert memory.of_most_visits(4) is memory


def test_order_of_ids_does_not_matter(rng):
    products, order = gram(rng, 4), [2, 0, 3, 1]
    one = RememberedProducts().update((1, 2, 3, 4), products, 0.9).update((1, 2, 3, 4), products, 0.9)
    shuffled = tuple((1, 2, 3, 4)[i] for i in order)
    other = RememberedProducts().update((1, 2, 3, 4), products, 0.9)
    other = other.update(shuffled, products[np.ix_(order, order)], 0.9)
    np.testing.assert_allclose(one.means((4, 1)), other.means((4, 1)))


def test_the_same_workers_each_time_are_as_others(rng):
    """Steps of equal ids take a way of their own."""
    fast = slow = RememberedProducts()
    for step in range(4):
        products = gram(rng, 3)
        fast = fast.update((1, 2, 3), products, 0.9)
        slow = slow.update((1, 2, 3) if step == 0 else (3, 2, 1), products if step == 0 else products[::-1, ::-1], 0.9)
    np.testing.assert_allclose(fast.means((1, 2, 3)), slow.means((1, 2, 3)))


def test_strangers_are_unknown_and_those_away_for_long_forgotten(rng):
    memory = RememberedProducts().update((1, 2), gram(rng, 2), 0.5)
    assert not memory.met((7, 8)).any()
    assert not memory.means((7, 8)).any()
    np.testing.assert_array_equal(memory.visits_of((7, 1)), [0.0, 1.0])
    for _ in range(20):
        memory = memory.update((3, 4), gram(rng, 2), 0.5)
    assert set(memory.ids) == {3, 4}


def test_nothing_is_changed_and_states_are_packed(rng):
    first = RememberedProducts().update((1, 2), gram(rng, 2), 0.9)
    before = first.means((1, 2))
    first.update((1, 2), gram(rng, 2), 0.9)
    first.update((1, 5), gram(rng, 2), 0.9)
    np.testing.assert_array_equal(first.means((1, 2)), before)
    again = unpack_state(pack_state(first))
    assert again.ids == first.ids
    np.testing.assert_array_equal(again.means((2, 1)), first.means((2, 1)))
