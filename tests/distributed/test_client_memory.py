"""Memory of clients: cosines over rounds, clients that come and go, and camps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.distributed.client_memory import (
    ClientMemory,
    can_judge,
    has_converged,
    larger_camp,
    majority,
    opposed_camps,
)


def gram(rng, hostile=0, n=10, d=200, along=2.0):
    """Products of noisy updates of n clients, of which the last ones go another way."""
    X = rng.normal(size=(n, d)) + along * np.ones(d) / np.sqrt(d) * 5
    if hostile:
        X[-hostile:, : d // 2] += 2.0
    return X @ X.T


def remember(grams, clients=tuple(range(10))):
    memory = ClientMemory()
    for products in grams:
        memory = memory.add_round(clients, products, np.ones(len(clients)))
    return memory


def test_hostile_clients_that_are_alike_over_rounds_are_a_camp(rng):
    memory = remember([gram(rng, hostile=4) for _ in range(5)])
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), np.ones(10)), [1] * 6 + [0] * 4)


def test_honest_clients_are_no_camps(rng):
    memory = remember([gram(rng) for _ in range(20)])
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), np.ones(10)), np.ones(10))


def test_two_rounds_say_nothing(rng):
    memory = remember([gram(rng, hostile=4) for _ in range(2)])
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), np.ones(10)), np.ones(10))


def test_a_newcomer_is_trusted_until_it_is_known(rng):
    memory = remember([gram(rng, hostile=4) for _ in range(5)])
    everyone = (*range(10), 77)
    memory = memory.add_round(everyone, gram(rng, hostile=5, n=11), np.ones(11))
    np.testing.assert_array_equal(memory.trust(everyone, np.ones(11)), [1] * 6 + [0] * 4 + [1])
    for _ in range(2):
        memory = memory.add_round(everyone, gram(rng, hostile=5, n=11), np.ones(11))
    np.testing.assert_array_equal(memory.trust(everyone, np.ones(11)), [1] * 6 + [0] * 5)


def test_clients_are_known_by_their_ids_whatever_their_order(rng):
    memory = ClientMemory()
    for _ in range(5):
        order = rng.permutation(10)
        memory = memory.add_round(tuple(order.tolist()), gram(rng, hostile=4)[np.ix_(order, order)], np.ones(10))
    np.testing.assert_array_equal(memory.trust((9, 0, 8, 1, 2), np.ones(5)), [0, 1, 0, 1, 1])


def test_the_absent_are_kept_for_a_while_and_then_forgotten(rng):
    memory = remember([gram(rng)])
    for _ in range(20):
        memory = memory.add_round((0, 1, 2), gram(rng, n=3), np.ones(3))
    assert set(memory.ids) == set(range(10))
    for _ in range(60):
        memory = memory.add_round((0, 1, 2), gram(rng, n=3), np.ones(3))
    assert memory.ids == (0, 1, 2)
    assert memory.products.shape == memory.visits.shape == (3, 3)


def test_of_very_many_clients_those_that_come_most_are_remembered(rng, monkeypatch):
    monkeypatch.setattr(limits, "REMEMBERED_CLIENTS", 20)
    memory = ClientMemory()
    for number in range(12):
        clients = (*range(10), *range(1000 + 10 * number, 1010 + 10 * number))
        products = gram(rng, hostile=4, n=20)[::-1, ::-1]
        memory = memory.add_round(clients, products, np.ones(20), lengths=np.ones(20))
    for each in (memory, memory.about_zero, memory.every_round):
        # 20 / (1 - 0.9) / 2.5; the strangers of the last rounds come next to those that are always there.
        assert set(each.ids) == {*range(10), *range(1050, 1120)}
    assert memory.longest.keys() <= {*memory.ids, *range(1040, 1120)}
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), np.ones(10)), [0] * 4 + [1] * 6)


def test_similarities_dont_depend_on_lengths_and_decay(rng):
    products = gram(rng)
    once, often = remember([products]), remember([products] * 7)
    np.testing.assert_allclose(once.similarities((3, 4)), often.similarities((3, 4)))
    np.testing.assert_allclose(remember([1e200 * products]).similarities((3, 4)), once.similarities((3, 4)))


def test_strangers_have_no_similarity(rng):
    memory = remember([gram(rng)])
    np.testing.assert_array_equal(memory.similarities((50, 60)), np.eye(2))
    np.testing.assert_array_equal(ClientMemory().similarities((1, 2)), np.eye(2))
    np.testing.assert_array_equal(ClientMemory().visits_of((1, 2)), np.zeros(2))


@pytest.mark.parametrize(
    "products", [np.zeros((3, 3)), np.ones((3, 3)), np.diag([0.0, 0.0, 1e300]), np.eye(3) * 1e-320]
)
def test_equal_and_extreme_updates_leave_finite_cosines(products):
    memory = remember([products] * 4, (1, 2, 3))
    assert np.isfinite(memory.similarities((1, 2, 3))).all()
    assert memory.trust((1, 2, 3), np.ones(3)).sum() >= 2


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_clients_are_no_camps(rng, n):
    clients = tuple(range(n))
    memory = remember([gram(rng, n=n) for _ in range(5)], clients)
    np.testing.assert_array_equal(memory.trust(clients, np.ones(n)), np.ones(n))


@pytest.mark.parametrize("n_clients", [5, 6, 7])
def test_the_camp_of_more_than_half_of_all_clients_stays(n_clients):
    side = np.array([True, True, True, False, False])
    expected = [1, 1, 1, 0, 0] if n_clients == 5 else np.ones(5)
    np.testing.assert_array_equal(majority(side, n_clients), expected)
    np.testing.assert_array_equal(majority(~side, n_clients), expected)


def test_of_camps_of_as_many_clients_both_stay():
    np.testing.assert_array_equal(majority(np.array([True, True, False, False]), 4), np.ones(4))


def test_claims_are_no_clients(rng):
    """Hostile clients that claim most of the weight are left out, as they are fewer."""
    memory = remember([gram(rng, hostile=4) for _ in range(5)])
    weights = np.where(np.arange(10) < 6, 1.0, 50.0)
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), weights), [1] * 6 + [0] * 4)


def test_the_known_are_left_out_only_by_more_than_half_of_all(rng):
    """Four hostile clients that are known for long, three honest ones, and strangers."""
    memory = remember([gram(rng, hostile=4, n=7) for _ in range(5)], tuple(range(7)))
    np.testing.assert_array_equal(memory.trust(tuple(range(7)), np.ones(7)), [0] * 3 + [1] * 4)
    for strangers in (1, 3, 10):
        clients = (*range(7), *range(100, 100 + strangers))
        np.testing.assert_array_equal(memory.trust(clients, np.ones(len(clients))), np.ones(len(clients)))
    # Strangers without weight are none.
    weights = np.r_[np.ones(7), np.zeros(3)]
    np.testing.assert_array_equal(memory.trust((*range(7), 100, 101, 102), weights), [0] * 3 + [1] * 7)


def opposite(X, hostile):
    X[:hostile] *= -1.0


def huge(X, hostile):
    X[:hostile] = -1e6


def agreed(X, hostile):
    X[:hostile] = X[hostile:].mean(axis=0) - X[hostile:].std(axis=0)


@pytest.mark.parametrize("attack", [opposite, huge, agreed])
@pytest.mark.parametrize("decay", [0.7, 0.9])
@pytest.mark.parametrize("pool", [15, 30, 60, 100])
@pytest.mark.parametrize(("n", "hostile"), [(5, 1), (5, 2), (10, 2), (10, 3), (10, 4), (20, 5), (20, 9)])
def test_hostile_clients_in_every_round_get_no_half_where_honest_ones_are_drawn(rng, n, hostile, pool, decay, attack):
    memory = ClientMemory()
    for _ in range(40):
        drawn = np.sort(rng.choice(pool, n - hostile, replace=False))
        clients = (*range(1000, 1000 + hostile), *drawn.tolist())
        X = 0.3 + rng.normal(size=(n, 100))
        attack(X, hostile)
        memory = memory.add_round(clients, X @ X.T, np.ones(n), decay, np.linalg.norm(X, axis=1))
        trust = memory.trust(clients, np.ones(n))
        assert trust[hostile:].sum() > trust[:hostile].sum()


@pytest.mark.parametrize(("n", "hostile"), [(9, 2), (10, 2), (25, 6)])
def test_fewer_than_a_quarter_get_no_half_whoever_they_side_with(rng, n, hostile):
    """Whatever is remembered: products of any kind."""
    clients = tuple(range(n))
    for _ in range(200):
        X = rng.normal(size=(n, 3)) * rng.choice([0.1, 1.0, 10.0], size=(n, 1))
        trust = remember([X @ X.T] * 4, clients).trust(clients, np.ones(n))
        assert 2 * hostile < trust.sum()


def cosines(memory, clients):
    similar = memory.about_zero.means(clients)
    np.fill_diagonal(similar, 1.0)
    return similar


def skewed(rng, hostile=0, n=10, classes=10, overlap=0.3):
    """Products of updates of honest clients that differ for good, and of hostile ones that send the opposite of theirs.

    No eigenvalue of these stands out, as clients differ in many ways.
    """
    own = rng.normal(size=(n, classes)) + overlap * np.sqrt(classes)

    def of_round():
        X = np.repeat(own, 20, axis=1) / np.sqrt(20) + rng.normal(size=(n, 20 * classes)) / 10
        X[n - hostile :] *= -1.0
        return X @ X.T

    return of_round


@pytest.mark.parametrize(("n", "overlap"), [(8, 0.8), (10, 0.8), (25, 0.8)])
def test_hostile_clients_that_oppose_others_are_a_camp_where_clients_differ_for_good(rng, n, overlap):
    of_round, clients, hostile = skewed(rng, hostile=3, n=n, overlap=overlap), tuple(range(n)), 3
    memory = remember([of_round() for _ in range(5)], clients)
    assert opposed_camps(cosines(memory, clients), np.ones(n))[0] < limits.CAMP_CONFLICT
    trust = memory.trust(clients, np.ones(n))
    np.testing.assert_array_equal(trust[n - hostile :], 0.0)
    # Honest clients may have more in common with the opposite of the others.
    assert trust.sum() >= n - hostile - 2


def without_a_gap():
    return skewed(np.random.default_rng(5), hostile=3, n=25, overlap=0.3), tuple(range(25))


def test_opposed_camps_are_found_where_no_eigenvalue_stands_out():
    of_round, clients = without_a_gap()
    memory = remember([of_round() for _ in range(5)], clients)
    assert larger_camp(memory.similarities(clients), 25).all()
    trust = memory.trust(clients, np.ones(25))
    np.testing.assert_array_equal(trust[22:], 0.0)
    assert trust.sum() >= 20


@pytest.mark.parametrize("n", [4, 10, 25])
def test_honest_clients_that_differ_for_good_are_no_camps(rng, n):
    of_round, clients = skewed(rng, n=n, overlap=0.8), tuple(range(n))
    memory = remember([of_round() for _ in range(5)], clients)
    assert opposed_camps(cosines(memory, clients), np.ones(n))[0] > limits.CAMP_CONFLICT
    np.testing.assert_array_equal(memory.trust(clients, np.ones(n)), np.ones(n))


def test_the_most_opposed_camps_are_those_of_an_exhaustive_search(rng):
    found = []
    for _ in range(20):
        own = rng.normal(size=(7, 5)) + 0.3
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        weights = rng.uniform(0.5, 1.5, size=7)
        lowest = 1.0
        for members in range(1, 1 << 6):
            side = np.array([members >> i & 1 for i in range(7)], dtype=bool)
            if 2 <= side.sum() <= 5:
                a, b = (np.average(own[camp], axis=0, weights=weights[camp]) for camp in (side, ~side))
                lowest = min(lowest, a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        conflict, side = opposed_camps(own @ own.T, weights)
        a, b = (np.average(own[camp], axis=0, weights=weights[camp]) for camp in (side, ~side))
        assert conflict == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert 2 <= side.sum() <= 5
        assert conflict >= lowest - 1e-9
        found.append(conflict < lowest + 1e-9)
    assert np.mean(found) > 0.6


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_clients_are_no_opposed_camps(n):
    conflict, side = opposed_camps(2.0 * np.eye(n) - 1.0, np.ones(n))
    assert conflict == 1.0
    assert side.all()


def test_one_client_that_opposes_all_others_is_no_camp(rng):
    similar = np.full((6, 6), 0.5) + 0.5 * np.eye(6)
    similar[5, :5] = similar[:5, 5] = -0.4
    assert min(np.bincount(opposed_camps(similar, np.ones(6))[1], minlength=2)) >= 2


def test_a_camp_whose_members_oppose_each_other_is_no_camp():
    # Such cosines are no round's; means of pairs that met in different rounds may be.
    similar = np.full((6, 6), 0.5) + 0.5 * np.eye(6)
    similar[:3, :3] = 1.8 * np.eye(3) - 0.8
    similar[:3, 3:] = similar[3:, :3] = 0.0
    similar[0, 3] = similar[3, 0] = -0.1
    conflict, _ = opposed_camps(similar, np.ones(6))
    assert conflict >= -1.0


def test_clients_without_weight_are_trusted_and_dont_count(rng):
    memory = remember([gram(rng, hostile=4) for _ in range(5)])
    weights = np.array([1.0] * 6 + [0.0] * 4)
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), weights), np.ones(10))
    np.testing.assert_array_equal(memory.trust(tuple(range(10)), np.zeros(10)), np.ones(10))


def test_a_gap_below_the_limit_makes_no_camps():
    top, second = np.array([1.0, 1.0, -1.0]) / np.sqrt(3.0), np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
    for gap, camp in ((0.99 * limits.CAMP_GAP, [1, 1, 1]), (1.01 * limits.CAMP_GAP, [1, 1, 0])):
        similar = gap * np.outer(top, top) + np.outer(second, second)
        np.testing.assert_array_equal(larger_camp(similar, 3), camp)


def trust_after(memory, rounds, clients):
    """Trust once rounds, pairs of products and lengths, are added."""
    for products, lengths in rounds:
        memory = memory.add_round(clients, products, np.ones(len(clients)), lengths=lengths)
    return memory, memory.trust(clients, np.ones(len(clients)))


def converging(rng, n, rounds=60, fast=0.9):
    """Products and lengths of honest updates whose common part vanishes: what is left adds up to about zero."""
    own = rng.normal(size=(n, 40))
    own -= own.mean(axis=0)
    for turn in range(rounds):
        X = fast**turn * np.ones(40) + 0.3 * own + 0.05 * rng.normal(size=(n, 40))
        yield X @ X.T, np.linalg.norm(X, axis=1)


@pytest.mark.parametrize("n", [4, 5, 7, 10, 25])
@pytest.mark.parametrize("fast", [0.8, 0.9])
def test_honest_clients_whose_training_has_converged_are_no_camps(rng, n, fast):
    clients, rounds = tuple(range(n)), list(converging(rng, n, fast=fast))
    np.testing.assert_array_equal(trust_after(ClientMemory(), rounds, clients)[1], np.ones(n))
    # By their cosines alone they are, unless both have as many clients.
    _, by_cosines = trust_after(ClientMemory(), [(products, None) for products, _ in rounds], clients)
    assert by_cosines.sum() < n or n % 2 == 0


@pytest.mark.parametrize("n", [5, 10, 25])
def test_camps_that_were_found_before_training_converged_stay_found(rng, n):
    clients, hostile = tuple(range(n)), 2 * n // 5
    rounds = [(gram(rng, hostile=hostile, n=n), np.ones(n)) for _ in range(5)]
    before, trust = trust_after(ClientMemory(), rounds, clients)
    expected = np.arange(n) < n - hostile
    np.testing.assert_array_equal(trust, expected)
    short = [(gram(rng, n=n, along=0.0), np.where(expected, 0.3, 1.0)) for _ in range(50)]
    while_it_lasts, trust = trust_after(before, short, clients)
    np.testing.assert_array_equal(trust, expected)
    after, trust = trust_after(while_it_lasts, short, clients)
    np.testing.assert_array_equal(trust, expected)
    assert torch.equal(after.visits, while_it_lasts.visits)


@pytest.mark.parametrize("n", [10, 25])
def test_sleepers_are_found_once_honest_updates_are_long_again(rng, n):
    clients, hostile = tuple(range(n)), 2 * n // 5
    rounds = [(gram(rng, n=n), np.full(n, 0.95**turn)) for turn in range(60)]
    memory, trust = trust_after(ClientMemory(), rounds, clients)
    np.testing.assert_array_equal(trust, np.ones(n))
    awake = [(gram(rng, hostile=hostile, n=n), np.ones(n)) for _ in range(10)]
    np.testing.assert_array_equal(trust_after(memory, awake, clients)[1], np.arange(n) < n - hostile)


def asleep(rng, n, hostile=0, rounds=20):
    """Products and lengths of honest updates that are short noise, and of hostile ones that go one way."""
    for _ in range(rounds):
        X = 0.1 * rng.normal(size=(n, 200))
        X[n - hostile :, :100] += 0.2
        yield X @ X.T, np.where(np.arange(n) < n - hostile, 0.3, 1.0)


@pytest.mark.parametrize("n", [7, 10, 25])
def test_clients_that_turn_hostile_while_updates_are_short_are_found_and_stay_found(rng, n):
    clients, hostile = tuple(range(n)), (n - 1) // 2
    begun, trust = trust_after(ClientMemory(), [(gram(rng, n=n), np.ones(n)) for _ in range(5)], clients)
    np.testing.assert_array_equal(trust, np.ones(n))
    honest, trust = trust_after(begun, asleep(rng, n), clients)
    np.testing.assert_array_equal(trust, np.ones(n))
    assert torch.equal(honest.visits, begun.visits)
    found, trust = trust_after(honest, asleep(rng, n, hostile), clients)
    np.testing.assert_array_equal(trust, np.arange(n) < n - hostile)
    assert found.visits_of((0,)) > honest.visits_of((0,))
    # Once they are left out they are like the others again, as the network comes back.
    _, trust = trust_after(found, asleep(rng, n, rounds=60), clients)
    np.testing.assert_array_equal(trust, np.arange(n) < n - hostile)


def test_a_gap_below_the_limit_makes_no_late_camps():
    top, second = np.array([1.0, 1.0, -1.0]) / np.sqrt(3.0), np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
    for gap, camp in ((0.99 * limits.LATE_CAMP_GAP, [1, 1, 1]), (1.01 * limits.LATE_CAMP_GAP, [1, 1, 0])):
        similar = gap * np.outer(top, top) + np.outer(second, second)
        np.testing.assert_array_equal(larger_camp(similar, 3, limits.LATE_CAMP_GAP), camp)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 11])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_only_more_than_half_of_the_clients_have_a_round_left_out(n, scale):
    for short in range(n + 1):
        lengths = scale * np.where(np.arange(n) < short, 0.99, 1.01) * limits.SHORT_UPDATE
        assert has_converged(lengths, np.full(n, scale), np.ones(n)) == (2 * short > n)


@pytest.mark.parametrize("said", [0.0, 1e-300, 1e300, np.inf])
def test_fewer_than_half_decide_nothing_whatever_lengths_they_send(said):
    longest = np.array([1.0] * 6 + [1e3] * 4)
    for honest, expected in ((0.9, False), (0.1, True)):
        lengths = np.array([honest] * 6 + [said] * 4)
        assert has_converged(lengths, np.maximum(longest, lengths), np.ones(10)) == expected


def test_clients_without_weight_dont_have_a_round_left_out():
    lengths, weights = np.array([0.9, 0.9, 0.1, 0.1, 0.1]), np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    assert has_converged(lengths, np.ones(5), np.ones(5))
    assert not has_converged(lengths, np.ones(5), weights)
    assert not has_converged(lengths, np.ones(5), np.zeros(5))


def test_updates_that_never_had_a_length_are_not_short():
    assert not has_converged(np.zeros(4), np.zeros(4), np.ones(4))


def test_lengths_are_compared_with_those_of_the_same_client_and_forgotten_with_it(rng):
    memory = ClientMemory().add_round((1, 2, 3), gram(rng, n=3), np.ones(3), lengths=np.array([1.0, 10.0, 100.0]))
    memory = memory.add_round((3, 2, 1), gram(rng, n=3), np.ones(3), lengths=np.array([90.0, 11.0, 0.8]))
    np.testing.assert_array_equal(memory.longest_of((1, 2, 3, 4)), [1.0, 11.0, 100.0, 0.0])
    np.testing.assert_allclose(memory.visits_of((1, 2, 3)), 1.9)
    # Strangers that come for a single round each, in rounds that are left out, are forgotten, and others aren't.
    for stranger in range(100, 200):
        lengths = np.array([0.1, 1.0, 10.0, 5.0])
        memory = memory.add_round((1, 2, 3, stranger), gram(rng, n=4), np.ones(4), lengths=lengths)
    assert set(memory.longest) == {1, 2, 3, 199}
    np.testing.assert_allclose(memory.visits_of((1, 2, 3)), 1.9)
    for _ in range(80):
        memory = memory.add_round((1, 2), gram(rng, n=2), np.ones(2), lengths=np.array([1.0, 11.0]))
    assert set(memory.longest) == {1, 2}


def test_one_that_was_saved_without_lengths_learns_them(rng):
    packed = pack_state(remember([gram(rng)] * 4))
    del packed["values"]["longest"], packed["values"]["every_round"]
    memory = unpack_state(packed).add_round(tuple(range(10)), gram(rng), np.ones(10), lengths=np.full(10, 2.0))
    assert memory.visits_of((0,)) > limits.CAMP_VISITS
    np.testing.assert_array_equal(memory.longest_of(tuple(range(10))), np.full(10, 2.0))


def test_it_is_saved_as_plain_containers(rng, tmp_path):
    memory = remember([gram(rng)]).add_round(tuple(range(10)), gram(rng), np.ones(10), lengths=np.arange(10.0))
    torch.save(pack_state(memory), tmp_path / "memory.pt")
    loaded = unpack_state(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert loaded.ids == memory.ids
    assert loaded.longest == memory.longest
    assert torch.equal(loaded.every_round.products, memory.every_round.products)
    assert torch.equal(loaded.products, memory.products)


def test_one_that_was_saved_without_cosines_about_zero_learns_them_for_three_rounds():
    of_round, clients = without_a_gap()
    packed = pack_state(remember([of_round() for _ in range(9)], clients))
    del packed["values"]["about_zero"]
    memory, trusted = unpack_state(packed), []
    for _ in range(3):
        memory = memory.add_round(clients, of_round(), np.ones(25))
        trusted.append(memory.trust(clients, np.ones(25))[22:].sum())
    assert trusted == [3, 3, 0]


@pytest.mark.parametrize(("decay", "every"), [(0.5, 1), (0.6, 1), (0.62, 1), (0.9, 5), (0.9, 4)])
def test_which_decays_can_judge(decay, every):
    """Two camps that nobody could miss; of clients that come in every m-th round the decay is that of m rounds."""
    camps = np.outer(side := np.array([1.0, 1.0, 1.0, -1.0, -1.0]), side)
    memory, clients = ClientMemory(), (1, 2, 3, 4, 5)
    for _ in range(60):
        memory = memory.add_round(clients, camps, np.ones(5), decay)
        for _ in range(every - 1):
            memory = memory.add_round((6, 7), np.eye(2), np.ones(2), decay)
    found = memory.add_round(clients, camps, np.ones(5), decay).trust(clients, np.ones(5))
    assert can_judge(decay**every) == (not found.all())
    assert can_judge(decay**every) == ((decay, every) in {(0.62, 1), (0.9, 4)})
