"""Trust in workers by products of their rows."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.aggregators.base import n_assumed_corrupt
from skbgmd.aggregators.worker_trust import (
    huber_trust,
    merge_equal,
    most_trusted,
    norm_in_honest_range,
    worker_coordinates,
    worker_votes,
)

#: Workers, and corrupt ones among them.
N, F = 20, 8


def with_copies(rng, n_copies, n=20, d=300):
    rows = rng.normal(size=(n, d))
    rows[:n_copies] = rows[n_copies:].mean(axis=0) + 0.01 * rng.normal(size=(n_copies, d))
    return rows @ rows.T


def test_votes_are_by_the_witnesses_as_well(rng):
    """Products that followers have with followed workers, of whatever size, count where all workers are asked."""
    noise = 0.01 * rng.normal(size=(N, N))
    products = noise + noise.T
    products[:F, :F] += 0.5
    for follower in range(F):
        products[follower, F + follower] = products[F + follower, follower] = 0.5
    honest = np.arange(N) >= F
    assert worker_votes(products, N - F)[2 * F :].max() < 0.5
    np.testing.assert_array_equal(worker_votes(products, N - F, witnesses=honest), np.ones(N))
    # Witnesses take votes from none that all others don't.
    copies = with_copies(rng, 6)
    assert (worker_votes(copies, 12, witnesses=honest) >= worker_votes(copies, 12)).all()
    np.testing.assert_array_equal(worker_votes(copies, 12, witnesses=np.zeros(N, dtype=bool)), np.ones(N))


def test_the_most_trusted_are_as_many_as_are_honest_and_all_where_nothing_stands_out(rng):
    camps = np.where(np.arange(N) < F, 1.0, 0.0)[:, None] + 0.01 * rng.normal(size=(N, 2))
    chosen = most_trusted(camps, N - F)
    np.testing.assert_array_equal(chosen, np.arange(N) >= F)
    assert most_trusted(np.zeros((N, 0)), N - F).all()


def test_norm_in_honest_range(rng):
    for n in (3, 4, 5, 10, 33, 34):
        kept = n - n_assumed_corrupt(0.4, n)
        for f in range((n - 1) // 2 + 1):
            honest = rng.lognormal(sigma=2.0, size=n - f)
            for size in (0.0, 1e-9, 1e9):
                norms = rng.permutation(np.r_[honest, np.full(f, size)])
                votes = np.where(norms == size, 1.0, 1e-3)
                found = norm_in_honest_range(norms, np.ones(n), votes, kept)
                longest = honest.max() if f <= n - kept else 10.0 * honest.max()
                assert honest.min() <= found <= longest
    # Votes count within that range.
    norms = np.array([0.1] * 11 + [1.0] * 9)
    assert norm_in_honest_range(norms, np.ones(20), np.r_[np.full(11, 1 / 11), np.ones(9)], 12) == 1.0
    assert norm_in_honest_range(norms, np.ones(20), np.ones(20), 12) == 0.1


def test_among_places_on_a_line_with_a_gap_in_the_middle_trust_is_even():
    line = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    for places in (line[:, None], np.outer(line, [0.6, 0.8])):
        trust = huber_trust(places, np.ones(6))
        for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]):
            np.testing.assert_allclose(huber_trust(places[order], np.ones(6)), trust[order])
        np.testing.assert_allclose(trust, trust[::-1])


def test_as_many_are_trusted_as_the_last_one_that_is_chosen():
    camps = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    places = camps[:, None] + 0.1 * np.arange(6)[:, None] % 0.3
    np.testing.assert_array_equal(most_trusted(places, 5), np.ones(6, dtype=bool))


def test_coordinates_recover_camps_and_leave_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(30, 30))
    noise = (noise + noise.T) / np.sqrt(2.0)
    # The largest eigenvalue of pure noise is about at its edge.
    assert worker_coordinates(noise).shape[1] <= 6
    camp = np.where(np.arange(30) < 12, -1.0, 1.0)
    places = worker_coordinates(2.0 * np.outer(camp, camp) + noise)
    strongest = places[:, np.abs(places).max(axis=0).argmax()]
    assert len({*np.sign(strongest * camp)}) == 1


def test_coordinates_do_not_look_at_the_diagonal_nor_at_pairs_that_never_met():
    rng = np.random.default_rng(1)
    products = rng.normal(size=(12, 12))
    products += products.T
    expected = worker_coordinates(products)
    np.testing.assert_allclose(worker_coordinates(products + 1e6 * np.eye(12)), expected)
    met = np.ones((12, 12), dtype=bool)
    met[2, 5] = met[5, 2] = False
    changed = products.copy()
    changed[2, 5] = changed[5, 2] = 1e9
    np.testing.assert_allclose(worker_coordinates(changed, met), worker_coordinates(products, met))


@pytest.mark.parametrize("n_copies", [2, 5, 8])
def test_copies_share_a_vote(n_copies, rng):
    expected = np.ones(20)
    expected[:n_copies] = 1.0 / n_copies
    np.testing.assert_allclose(worker_votes(with_copies(rng, n_copies), 12), expected)


def test_workers_that_are_alike_throughout_have_a_vote_each():
    noise = np.random.default_rng(3).normal(size=(30, 30))
    np.testing.assert_array_equal(worker_votes(noise + noise.T, 18), np.ones(30))
    np.testing.assert_array_equal(worker_votes(np.ones((30, 30)), 18), np.ones(30))
    # Pairs of copies, and so most of them are as the others are.
    np.testing.assert_array_equal(worker_votes(np.kron(noise + noise.T, np.ones((2, 2))), 36), np.ones(60))


def test_votes_do_not_depend_on_the_diagonal_the_unit_or_pairs_that_never_met(rng):
    products = with_copies(rng, 6)
    expected = worker_votes(products, 12)
    np.testing.assert_allclose(worker_votes(1e-30 * products + 1e6 * np.eye(20), 12), expected)
    met = np.ones((20, 20), dtype=bool)
    met[2, 5] = met[5, 2] = met[3, 15] = met[15, 3] = False
    np.testing.assert_allclose(worker_votes(np.where(met, products, 1e9), 12, met), expected)
    np.testing.assert_array_equal(worker_votes(products, 12, np.eye(20, dtype=bool)), np.ones(20))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_workers_have_a_vote_each(n):
    np.testing.assert_array_equal(worker_votes(np.ones((n, n)), 1), np.ones(n))


@pytest.mark.parametrize("n", [1, 2])
def test_few_workers_have_no_coordinates(n):
    assert worker_coordinates(np.ones((n, n))).shape == (n, 0)


def test_equal_lines_are_merged_and_one_of_more_than_half_of_the_weight_is_alone():
    lines = np.eye(4)[[0, 1, 2, 0, 3, 1, 0]]
    distinct, total = merge_equal(lines, np.array([1.0, 2.0, 3.0, 1.0, 4.0, 0.5, 1.0]))
    assert sorted(zip(map(tuple, distinct), total, strict=True)) == sorted(
        [((1, 0, 0, 0), 3.0), ((0, 1, 0, 0), 2.5), ((0, 0, 1, 0), 3.0), ((0, 0, 0, 1), 4.0)]
    )
    for weight, n_left in ((8.4, 4), (8.5, 4), (8.6, 1), (30.0, 1)):
        distinct, total = merge_equal(lines, np.array([1.0, 2.0, 3.0, 1.0, weight, 0.5, 1.0]))
        assert len(distinct) == len(total) == n_left
    np.testing.assert_array_equal(distinct, [[0, 0, 0, 1]])
