"""Memory of workers: colluding ones are found over steps, whatever a single step shows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from aggregating import assert_convex, dense
from scipy.linalg import hadamard

from skbgmd.aggregators import GeometricMedian, Mean, NonFiniteRowsError, WorkerMemory
from skbgmd.aggregators.base import n_assumed_corrupt
from skbgmd.aggregators.remembered_products import RememberedProducts
from skbgmd.corruption import InnerProduct, Shadowing, Simplex
from skbgmd.rows import DenseRows
from skbgmd.rows.chunked import ChunkedRows

N, F, D = 20, 8, 300


def steps(rng, attack, n_steps=80, dtype=np.float64, mean=0.1):
    """Rows of N workers, the first F of which are attackers."""
    for step in range(n_steps):
        X = rng.normal(size=(N, D)) + mean
        attack(X, rng, step)
        yield X.astype(dtype)


def colluding(z):
    def attack(X, rng, step):
        X[:F] = X[F:].mean(axis=0) - z * X[F:].std(axis=0)

    return attack


def own_noise(X, rng, step):
    X[:F] -= 0.5


def sleeping(X, rng, step):
    if step >= 40:
        colluding(1.0)(X, rng, step)


def now_and_then(X, rng, step):
    if step % 3 == 0:
        colluding(1.0)(X, rng, step)


def camps(X, rng, step):
    X[: F // 2, ::2] -= 1.0
    X[F // 2 : F, 1::2] -= 1.0


def inflating_noise(X, rng, step):
    """Products with honest rows that last, to raise the edge of the noise."""
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(N - F, F)))[0].T
    X[:F] = 0.8 * basis @ (X[F:] - X[F:].mean(axis=0)) + X[F:].mean(axis=0) - 0.5


def framing(X, rng, step):
    """Copies of the honest mean, but for one honest worker's noise, turned around."""
    X[:F] = X[F:].mean(axis=0) - 0.6 * X[F]


ATTACKS = {
    "colluding, 0.3": colluding(0.3),
    "colluding, 1": colluding(1.0),
    "colluding, 3": colluding(3.0),
    "own noise": own_noise,
    "sleeping": sleeping,
    "now and then": now_and_then,
    "camps": camps,
}


def weight_of_attackers(rule, X, state):
    aggregate, state = rule(dense(X), state)
    assert_convex(aggregate.weights)
    return aggregate.weights[:F].sum(), state


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_colluding_workers_end_without_weight(attack, rng):
    state, found = None, []
    for X in steps(rng, attack):
        weight, state = weight_of_attackers(WorkerMemory(), X, state)
        found.append(weight)
    assert np.mean(found[-10:]) < 0.02


def test_a_memory_sees_what_no_step_shows(rng):
    def own_shift(X, rng, step):
        X[:F] -= 0.3

    remembered, forgotten, found = None, None, []
    for X in steps(rng, own_shift):
        weight, remembered = weight_of_attackers(WorkerMemory(), X, remembered)
        other, forgotten = weight_of_attackers(WorkerMemory(decay=0.0), X, forgotten)
        found.append((weight, other))
    over_time, now = np.mean(found[20:], axis=0)
    assert over_time < 0.01 < 0.2 < now


def test_attackers_that_raise_the_noise_lose_weight(rng):
    """Their products with honest rows last, in as many directions as there are attackers."""
    state, found = None, []
    for X in steps(rng, inflating_noise):
        weight, state = weight_of_attackers(WorkerMemory(), X, state)
        found.append(weight)
    assert np.mean(found[20:]) < 0.6 * F / N


def test_a_framed_worker_costs_no_other_its_weight(rng):
    state = None
    for X in steps(rng, framing):
        aggregate, state = WorkerMemory()(dense(X), state)
    assert aggregate.weights[F + 1 :].min() > 0.5 / N


def test_honest_workers_cost_little(rng):
    """The aggregate of honest rows is about as near to their mean as the plain mean is."""
    state, errors, plain = None, [], []
    for X in steps(rng, lambda *_: None):
        aggregate, state = WorkerMemory(Mean())(dense(X), state)
        errors.append(np.square(aggregate.vector.numpy() - 0.1).sum())
        plain.append(np.square(X.mean(axis=0) - 0.1).sum())
    assert np.mean(errors) < 1.3 * np.mean(plain)


@pytest.mark.parametrize("n_classes", [5, 10])
@pytest.mark.parametrize(
    "attack",
    [Simplex(corrupt=range(F)), InnerProduct(epsilon=0.1, corrupt=range(F))],
    ids=["simplex", "inner product"],
)
def test_workers_in_agreement_share_a_vote_where_honest_ones_differ(attack, n_classes, rng):
    """Honest workers mix classes in shares of their own; attackers are in their middle, some of them with noise."""
    shares = rng.dirichlet(np.full(n_classes, 0.5), size=N)
    own = 2.0 * (shares - shares.mean(axis=0)) @ rng.normal(size=(n_classes, D))
    of_aggregates, of_attackers, weights, state = torch.zeros(D), torch.zeros(D), [], None
    for step in range(40):
        X = torch.from_numpy(rng.normal(size=(N, D)) + 0.1 + own)
        mean = X[F:].mean(dim=0)
        attack.apply_(X, random_state=step)
        aggregate, state = WorkerMemory()(DenseRows(X), state)
        if step >= 20:
            weights.append(aggregate.weights[:F].sum())
            of_aggregates += aggregate.vector - mean
            of_attackers += X[:F].mean(dim=0) - mean
    # As one or two of N - F + 1 workers, not as F of N; what they have in common adds up over steps.
    assert np.mean(weights) < 2.0 / (N - F + 1)
    assert of_aggregates @ of_attackers < 2.0 / (N - F + 1) * (of_attackers @ of_attackers)


#: How attackers take the noise of as many honest rows: of one each, of two, of all of them.
FOLLOWING = {
    "one": np.eye(F),
    "two": (np.eye(F) + np.roll(np.eye(F), 1, axis=0)) / 2**0.5,
    "all": hadamard(F) / F**0.5,
}


@pytest.mark.parametrize("z", [1.0, 3.0])
@pytest.mark.parametrize("following", FOLLOWING.values(), ids=FOLLOWING)
def test_followers_take_no_votes_from_workers_that_are_not_followed(following, z, rng):
    """Followed rows look unlike by their products with followers, and the rest, being alike, isn't a camp for it."""

    def shifted(X, rng, step):
        center = X[F:].mean(axis=0)
        X[:F] = center + following @ (X[F : 2 * F] - center) - z

    state, weights = None, []
    for X in steps(rng, shifted):
        aggregate, state = WorkerMemory()(dense(X), state)
        weights.append(aggregate.weights)
    mean = np.mean(weights[40:], axis=0)
    assert mean[:F].sum() < 0.2 * F / N
    assert mean[2 * F :].min() > 0.5 / N


def test_shadows_of_workers_with_even_data_end_without_weight(rng):
    state = None
    for step in range(60):
        X = torch.from_numpy(rng.normal(size=(N, D)) + 0.1)
        Shadowing(z=1.0, corrupt=range(F)).apply_(X, random_state=step)
        aggregate, state = WorkerMemory()(DenseRows(X), state)
    assert aggregate.weights[:F].sum() < 0.05


def test_copies_do_not_make_the_typical_norm(rng):
    """Attackers that send next to nothing would have all rows clipped to that, and longer ones left out."""
    own, state = 2.0 * rng.normal(size=(N, D)), None
    for _ in range(20):
        X = rng.normal(size=(N, D)) + own
        X[F : F + 3] *= 0.02
        X[:F] = -0.02 * X[F:].mean(axis=0)
        aggregate, state = WorkerMemory()(dense(X), state)
    # The farthest may be in no mean of nearest rows.
    assert np.sort(aggregate.weights[F:])[1] > 0.5 / N


def linked(X, f, step):
    """Corrupt rows that hold a part of a third of the honest ones: the other honest workers look like copies."""
    followed = max(2, (len(X) - f) // 3)
    links = np.random.default_rng(9).normal(size=(f, followed))
    links *= 0.7 / np.linalg.norm(links, axis=1, keepdims=True)
    X[:f] = 0.1 + links @ (X[f : f + followed] - 0.1) + 0.7 * (X[:f] - 0.1)


def in_groups(size):
    """Honest rows that are equal in groups: workers with the same data."""

    def prepare(X, f, step):
        for start in range(f, len(X), size):
            X[start : start + size] = X[start]

    return prepare


def half_equal(X, f, step):
    X[f : f + (len(X) - f + 1) // 2 + 1] = X[f]


def half_equal_in_pairs_of_steps(X, f, step):
    if step % 2:
        half_equal(X, f, step)


def half_zero(X, f, step):
    X[f : f + (len(X) - f + 1) // 2] = 0.0


def all_zero_but_one(X, f, step):
    if step >= 6:
        X[f + 1 :] = 0.0


def of_several_lengths(X, f, step):
    X[f:] *= np.geomspace(1e-3, 1.0, len(X) - f)[:, None]


def linked_and_equal(X, f, step):
    half_equal(X, f, step)
    linked(X, f, step)


#: What a memory may be made of before the attack: what honest rows have in common, and corrupt ones with them.
BEFORE = {
    "nothing": lambda X, f, step: None,
    "links": linked,
    "pairs": in_groups(2),
    "triples": in_groups(3),
    "equal": in_groups(10_000),
    "half equal": half_equal,
    "half equal now and then": half_equal_in_pairs_of_steps,
    "half zero": half_zero,
    "zero but one": all_zero_but_one,
    "of several lengths": of_several_lengths,
    "links and equal": linked_and_equal,
}


def longest_in_honest_rows(prepare, n, f, d, *, size, quiet, n_steps, fraction=0.4, seed=0):
    """Length of the longest answer from step `quiet` on, in the longest honest rows of this step or those before."""
    rng, state, rule, ratios, before = np.random.default_rng(seed), None, WorkerMemory(fraction=fraction), [], 0.0
    for step in range(n_steps):
        X = 0.1 + rng.normal(size=(n, d))
        prepare(X, f, step)
        if step >= quiet:
            X[:f] = -size * (1.0 + rng.random((f, 1))) * np.ones(d)
        aggregate, state = rule(dense(X), state)
        honest = np.linalg.norm(X[f:], axis=1)
        of_step = honest.max() if np.median(np.linalg.norm(X, axis=1)) > 0.0 else max(honest.max(), before)
        before = of_step
        ratios.append(float(torch.linalg.vector_norm(aggregate.vector)) / of_step)
    return max(ratios[quiet:])


@pytest.mark.parametrize("quiet", [0, 15])
@pytest.mark.parametrize(("n", "d"), [(4, 2), (5, 50), (10, 500), (34, 200)])
@pytest.mark.parametrize("prepare", BEFORE.values(), ids=BEFORE)
def test_the_answer_is_bounded_by_honest_rows_whatever_is_remembered(prepare, n, d, quiet):
    f = n_assumed_corrupt(0.4, n)
    for size in (9.0, 1e8):
        longest = longest_in_honest_rows(prepare, n, f, d, size=size, quiet=quiet, n_steps=quiet + 4)
        assert longest <= 1.0 + f / (n - 2 * f)


@pytest.mark.parametrize("prepare", [linked, half_equal, half_zero], ids=["links", "half equal", "half zero"])
@pytest.mark.parametrize("n", [10, 34])
def test_more_corrupt_workers_than_assumed_have_a_bound_as_well(prepare, n):
    f, assumed = (n - 1) // 2, n_assumed_corrupt(0.2, n)
    longest = longest_in_honest_rows(prepare, n, f, 100, size=1e8, quiet=20, n_steps=30, fraction=0.2)
    assert longest <= 10.0 * (1.0 + f / (n - f - assumed))


@pytest.mark.parametrize("prepare", [linked, linked_and_equal], ids=["links", "links and equal"])
@pytest.mark.parametrize(("n", "d"), [(10, 5000), (34, 5000)])
def test_a_long_time_of_preparation_changes_no_bound(prepare, n, d):
    f = n_assumed_corrupt(0.4, n)
    longest = longest_in_honest_rows(prepare, n, f, d, size=1e8, quiet=100, n_steps=104)
    assert longest <= 1.0 + f / (n - 2 * f)


@pytest.mark.parametrize("n", [10, 20, 34])
def test_far_rows_are_left_out_by_links_or_not(n):
    """Where corrupt workers have most of the votes, rows that are longer than ten honest ones still have no weight."""
    f = n_assumed_corrupt(0.4, n)
    assert longest_in_honest_rows(linked, n, f, 3000, size=1e3, quiet=20, n_steps=40) < 0.7


def test_where_most_rows_are_zero_none_is_longer_than_before(rng):
    """Twelve workers, others in each step, have learned their samples; what the rest sends counts all the same."""
    state, means = None, []
    for step in range(40):
        X = 0.1 + rng.normal(size=(N, D))
        if step >= 20:
            X[rng.permutation(N)[:12]] = 0.0
        aggregate, state = WorkerMemory()(dense(X), state)
        means.append(float(aggregate.vector.mean()))
    assert np.mean(means[20:]) > 0.03
    for liars in (1, 3, 9):
        X = np.where(np.arange(N)[:, None] < liars, 1e9, 0.0) * np.ones(D)
        aggregate, _ = WorkerMemory()(dense(X), state)
        # In the longest of the rows before.
        assert torch.linalg.vector_norm(aggregate.vector) < 4.0 * 1.2 * D**0.5
        # With nothing to compare with, nothing moves.
        aggregate, _ = WorkerMemory()(dense(X))
        assert not aggregate.vector.any()


def test_states_of_earlier_versions_go_on(rng):
    state = None
    for X in steps(rng, own_noise, n_steps=5):
        _, state = WorkerMemory()(dense(X), state)
    earlier = RememberedProducts(state.memory.ids, state.memory.products, state.memory.visits)
    expected, _ = WorkerMemory()(dense(X), state)
    found, after = WorkerMemory()(dense(X), replace(state, memory=earlier))
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert after.memory.typical > 0.0


def test_far_rows_are_left_out_up_to_the_assumed_number(rng):
    """Most workers fit their data and have next to no gradient; all of the long rows would be half of all."""
    X = rng.normal(size=(N, D))
    X[: N // 2] *= 1e-3
    X[:F] *= -1.0
    _, state = WorkerMemory()(dense(X))
    assert len(state.memory.ids) >= N - F
    X[-F:] *= 1e6
    _, state = WorkerMemory()(dense(X))
    assert state.memory.ids == tuple(range(N - F))


def test_workers_are_known_by_their_ids(rng):
    """The order of rows changes from step to step, and workers are away now and then."""
    state = None
    for X in steps(rng, own_noise, n_steps=120):
        there = rng.permutation(N)[: N - 4]
        rows = DenseRows(torch.from_numpy(X[there]), ids=tuple(int(i) + 100 for i in there))
        aggregate, state = WorkerMemory()(rows, state)
    assert aggregate.weights[there < F].sum() < 0.3 * (there < F).mean()
    # Subsets and blocks of rows keep their ids.
    assert rows.subset(np.array([3, 1])).ids == (there[3] + 100, there[1] + 100)


@pytest.mark.parametrize(
    ("n", "d", "seed", "fraction", "steps"),
    [
        # Half of the means on either side of a gap on a line.
        (10, 50, 0, 0.4, 22),
        (34, 2000, 0, 0.4, 6),
        # More workers are trusted as much as the last one that is chosen.
        (6, 40, 126, 0.2, 8),
        (6, 5, 486, 0.2, 2),
        (10, 40, 354, 0.2, 6),
    ],
)
def test_the_order_of_workers_makes_no_difference(n, d, seed, fraction, steps):
    rng, rule, states = np.random.default_rng(seed), WorkerMemory(fraction=fraction), [None, None]
    for _ in range(steps):
        X = rng.normal(size=(n, d)) + 0.3
        order = rng.permutation(n)
        found, states[0] = rule(DenseRows(torch.from_numpy(X), ids=tuple(range(n))), states[0])
        shuffled = DenseRows(torch.from_numpy(X[order]), ids=tuple(order.tolist()))
        again, states[1] = rule(shuffled, states[1])
        # Huber's mean and the median stop at a tolerance of 1e-4.
        assert torch.linalg.norm(again.vector - found.vector) < 1e-3 * torch.linalg.norm(found.vector)


def test_rows_that_are_not_finite_or_far_are_left_out(rng):
    X = next(steps(rng, own_noise))
    X[0, 3], X[1, 5], X[2] = np.nan, np.inf, X[2] * 100.0
    aggregate, state = WorkerMemory()(dense(X))
    assert not aggregate.weights[:3].any()
    assert set(state.memory.ids) == set(range(3, N))
    # They come back as new ones.
    aggregate, state = WorkerMemory()(dense(next(steps(rng, own_noise))), state)
    assert set(state.memory.ids) == set(range(N))
    assert torch.isfinite(aggregate.vector).all()


def test_long_rows_count_for_less(rng):
    X = np.tile(rng.normal(size=40), (10, 1))
    X[0] *= 8.0
    aggregate, _ = WorkerMemory(Mean())(dense(X))
    np.testing.assert_allclose(aggregate.weights[0] / aggregate.weights[1:], 1 / 8, rtol=0.2)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_does_not_matter(scale, dtype, rng):
    rows = list(steps(rng, colluding(0.5), n_steps=10))
    weights = []
    for factor in (1.0, scale):
        state = None
        for X in rows:
            aggregate, state = WorkerMemory()(dense((X * factor).astype(dtype)), state)
        weights.append(aggregate.weights)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-3)


def test_products_are_about_zero_wherever_the_gram_matrix_is_taken(rng):
    X = rng.normal(size=(8, 30)) + 3.0
    _, state = WorkerMemory()(dense(X))
    norms = np.linalg.norm(X, axis=1)
    typical = np.sort(norms)[3]
    clipped = X * np.minimum(1.0, typical / norms)[:, None]
    np.testing.assert_allclose(state.memory.means(tuple(range(8))), clipped @ clipped.T / typical**2, rtol=1e-9)


def test_rows_that_mostly_coincide(rng):
    X = np.tile(rng.normal(size=40), (9, 1))
    X[0] += 1e-14
    X[1] = -3.0 * X[1]
    state = None
    for _ in range(3):
        aggregate, state = WorkerMemory()(dense(X), state)
    np.testing.assert_allclose(aggregate.vector, X[-1], rtol=1e-6)


def test_zero_rows(rng):
    X = np.zeros((9, 5))
    aggregate, state = WorkerMemory()(dense(X))
    assert not aggregate.vector.any()
    X[:3] = rng.normal(size=(3, 5))
    aggregate, state = WorkerMemory()(dense(X), state)
    assert torch.isfinite(aggregate.vector).all()


@pytest.mark.parametrize(
    ("rule", "kind", "message"),
    [
        (WorkerMemory("mean"), TypeError, "aggregator must be an Aggregator or None; found 'mean'"),
        (WorkerMemory(fraction=0.5), ValueError, "fraction must be less than 0.5"),
        (WorkerMemory(decay=1.5), ValueError, "decay must be"),
    ],
)
def test_parameters_are_checked(rule, kind, message):
    with pytest.raises(kind, match=message):
        rule(DenseRows(torch.eye(3)))


def test_inner_rule_and_its_state_are_used(rng):
    X = rng.normal(size=(10, 30))
    aggregate, state = WorkerMemory(GeometricMedian())(dense(X))
    assert state.step == 1
    assert aggregate.weights.shape == (10,)


def simplex(X, rng, step):
    X[:] = Simplex(corrupt=range(F))(torch.from_numpy(X), random_state=step).numpy()


def reversing(X, rng, step):
    X[:F] = -X[:F]


@pytest.mark.parametrize("attack", [colluding(0.3), colluding(1.0), colluding(3.0)])
def test_a_step_takes_one_gram_matrix_where_workers_collude(attack, rng, monkeypatch):
    passes, gram_about = [], ChunkedRows.gram_about

    def counting(self, *about):
        passes.append(self.n_columns)
        return gram_about(self, *about)

    monkeypatch.setattr(ChunkedRows, "gram_about", counting)
    n_columns, state = 60_000, None  # more than are multiplied in float64
    for step in range(6):
        X = rng.normal(size=(N, n_columns)) + 0.1
        attack(X, rng, step)
        passes.clear()
        _, state = WorkerMemory()(dense(X.astype(np.float32)), state)
        # Products of coordinates have few columns.
        assert passes.count(n_columns) == 1


@pytest.mark.parametrize("attack", [*ATTACKS.values(), simplex, reversing])
def test_merging_means_changes_no_median_by_more_than_its_accuracy(attack, rng):
    states = [None, None]
    for X in steps(rng, attack, n_steps=25):
        (found, states[0]), (exact, states[1]) = (
            rule(dense(X), state)
            for rule, state in zip((WorkerMemory(), WorkerMemory(GeometricMedian(tol=1e-12))), states, strict=True)
        )
        off = float(torch.linalg.vector_norm(found.vector - exact.vector))
        # Of the standard error of the honest rows' mean.
        assert off < 0.1 * (D / (N - F)) ** 0.5
        np.testing.assert_allclose(found.weights.sum(), 1.0)


@pytest.mark.parametrize(("n", "fraction"), [(1, 0.4), (2, 0.4), (10, 0.0)])
def test_where_none_is_assumed_corrupt_nobody_is_judged_and_the_setting_is_warned_of_once(n, fraction, rng):
    rule, state = WorkerMemory(fraction=fraction), None
    opposed = np.where(np.arange(n) < n // 2, -1.0, 1.0)[:, None] * rng.normal(size=40) + 0.1 * rng.normal(size=(n, 40))
    rows = DenseRows(torch.from_numpy(opposed))
    told = pytest.warns(UserWarning, match="fraction must be more than 0") if fraction == 0.0 else nullcontext()
    with told:
        aggregate, state = rule(rows, state)
    for _ in range(20):
        aggregate, state = rule(rows, state)
    np.testing.assert_allclose(aggregate.weights, np.full(n, 1.0 / n), atol=0.05)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_others_judge_from_the_first_step_on_with_any_decay(decay, rng):
    opposed = np.where(np.arange(10) < 4, -1.0, 1.0)[:, None] * rng.normal(size=40) + 0.1 * rng.normal(size=(10, 40))
    aggregate, _ = WorkerMemory(decay=decay)(DenseRows(torch.from_numpy(opposed)))
    assert aggregate.weights[:4].max() < 1e-6


@pytest.mark.parametrize("heavy", [2.9, 3.0, 3.1])
def test_a_long_row_of_half_the_weight_is_no_row_that_holds_nan(heavy, rng):
    X = rng.normal(size=(4, 50))
    X[3] *= 100.0
    weights = np.array([1.0, 1.0, 1.0, heavy])
    aggregate, _ = WorkerMemory()(DenseRows(torch.from_numpy(X), weights))
    assert (aggregate.weights[3] == 0.0) == (heavy <= 3.0)


def test_an_error_counts_rows_by_why_they_are_left_out(rng):
    X = rng.normal(size=(5, 50))
    X[0] = np.nan
    X[1] *= 1e3
    weights = np.array([2.0, 2.0, 1.0, 1.0, 1.0])
    with pytest.raises(NonFiniteRowsError, match="of 5 rows of any weight, 1 that hold NaN or inf and 1 that are too"):
        WorkerMemory()(DenseRows(torch.from_numpy(X), weights))
    X[1] = np.nan
    with pytest.raises(NonFiniteRowsError, match="found 2 of 5 rows that hold NaN or inf"):
        WorkerMemory()(DenseRows(torch.from_numpy(X), weights))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"ids": (1, 2)}, ValueError, r"products of 2 ids must be a tensor of shape \(2, 2\); found \(4, 4\)"),
        ({"visits": torch.ones(4)}, ValueError, r"visits of 4 ids must be a tensor of shape \(4, 4\); found \(4,\)"),
        ({"visits": None}, ValueError, r"visits of 4 ids must be a tensor of shape \(4, 4\); found None"),
        ({"ids": ()}, ValueError, r"products of 0 ids must be a tensor of shape \(0, 0\); found \(4, 4\)"),
    ],
)
def test_states_whose_parts_do_not_fit_are_named(changed, error, message, rng):
    rows = DenseRows(torch.from_numpy(rng.normal(size=(4, 5))))
    _, state = WorkerMemory()(rows)
    odd = replace(state, memory=replace(state.memory, **changed))
    with pytest.raises(error, match=message):
        WorkerMemory()(rows, odd)


def test_what_is_no_memory_is_named(rng):
    rows = DenseRows(torch.from_numpy(rng.normal(size=(4, 5))))
    _, state = WorkerMemory()(rows)
    with pytest.raises(TypeError, match="memory of a state must be WorkerProducts or None; found tuple"):
        WorkerMemory()(rows, replace(state, memory=(1, 2)))
