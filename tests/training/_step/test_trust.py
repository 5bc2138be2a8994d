"""The trust in samples and clients."""

from __future__ import annotations

import copy
import datetime
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skbgmd import BlockGMDClassifier, RobustNeuralNet
from skbgmd._utils import limits
from skbgmd.training._data.loader import Batch
from skbgmd.training._step.groups import GroupedBatch
from skbgmd.training._step.trust import SampleTrust, earned_trust, prior_weights, strata_of


def batch(positions: list[int], group_size: int = 2, y: list[int] | None = None) -> GroupedBatch:
    X = torch.zeros(len(positions), 2)
    return GroupedBatch(Batch(X, X[:, 0] if y is None else torch.tensor(y), np.array(positions)), group_size)


def test_means_are_over_the_steps_that_a_sample_was_in() -> None:
    trust = SampleTrust()
    trust.add(batch([0, 1, 5, 2]), np.array([1.0, 0.5]))
    trust.add(batch([1, 2]), np.array([0.0]))
    np.testing.assert_array_equal(trust.means(7), [1.0, 0.5, 0.25, np.nan, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(trust.means(2), [1.0, 0.5])
    again = SampleTrust()
    again.load_state_dict(trust.state_dict())
    again.add(batch([3]), np.array([2.0]))
    assert again.means(4)[3] == 2.0
    assert again.means(2)[1] == 0.5


@pytest.mark.parametrize("repeats", [False, True])
def test_many_steps_at_once_are_those_steps_one_by_one(monkeypatch, rng, repeats) -> None:
    """Samples may be in several of them, new ones among old ones, and clients' share what is remembered of them."""

    def seen(held: int, ids: Any) -> SampleTrust:
        monkeypatch.setattr(limits, "VISITS_HELD", held)
        draws, trust = np.random.default_rng(0), SampleTrust()
        if ids is not None:
            trust.begin(len(ids), ids, are_clients=False)
        for step in range(30):
            size = 7 if step % 5 else 4
            chosen = draws.choice(40, size, replace=False) if repeats else (np.arange(size) + 7 * step) % 210
            single = batch(chosen.tolist(), 1, (chosen % 3).tolist())
            squares = torch.from_numpy(draws.random(size)) if step % 4 or not repeats else None
            trust.add(single, draws.random(size), torch.from_numpy(draws.exponential(size=size)), squares)
        return trust

    for ids in (None, [f"sample {place % 150}" for place in range(210)]):
        one_by_one, together = (seen(held, ids).state_dict() for held in (1, 13))
        for name in ("sums", "fits", "targets"):
            # There may be more room than was needed yet.
            n = min(len(together[name]), len(one_by_one[name]))
            torch.testing.assert_close(together[name][:n], one_by_one[name][:n], rtol=0.0, atol=0.0)
            assert not together[name][n:].any()
            assert not one_by_one[name][n:].any()
        assert together["sums"].any()


def test_what_is_noted_of_single_samples_is_their_likelihood_and_their_inputs() -> None:
    trust, (first, second) = SampleTrust(), limits.LIKELIHOOD_VISITS
    single = batch([0, 2], 1, [1, 0])
    for visit in range(second + 1):
        losses = torch.log(torch.tensor([2.0, 4.0 if visit < first else 1.0]))
        trust.add(single, np.ones(2), losses, torch.tensor([9.0, 25.0]) if visit % 2 else None)
    again = SampleTrust()
    again.load_state_dict(trust.state_dict())
    for record in (trust.record(3), again.record(3)):
        later = [(0.25 * first + n - first) / n for n in (second, second + 1)]
        expected = [[0.5, np.nan, 0.25], [0.5, np.nan, later[0]], [0.5, np.nan, later[1]]]
        np.testing.assert_allclose(record.likelihood, expected, rtol=1e-6)
        np.testing.assert_allclose(record.input_norm, [3.0, np.nan, 5.0])
        np.testing.assert_array_equal(record.trust, [1.0, np.nan, 1.0])
        np.testing.assert_array_equal(record.target_class[[0, 2]], [1.0, 0.0])
    few = SampleTrust()
    few.add(single, None, torch.tensor([0.0, 1e4]), None)
    few.add(batch([0, 1], 2), None, torch.ones(1), None)
    # A likelihood that has no number is none.
    with np.errstate(under="raise"):
        record = few.record(2)
    assert np.isnan(record.likelihood[:2]).all()
    assert np.isnan(record.input_norm).all()
    # Of groups nothing is noted.
    np.testing.assert_array_equal(record.likelihood[2], [1.0, np.nan])


def test_places_must_be_known() -> None:
    trust = SampleTrust()
    trust.has_places = False
    trust.add(batch([0, 1]), np.ones(1))
    trust.has_places = True
    trust.add(GroupedBatch((torch.zeros(2, 1), torch.zeros(2)), 1), np.ones(2))
    assert np.isnan(trust.means(2)).all()
    assert not trust.tells_rows_apart


def test_what_is_old_decays_and_weighs_after_some_visits() -> None:
    trust, n = SampleTrust(), limits.TRUST_VISITS
    assert trust.prior(batch([0], 1)) is None
    for visit in range(n):
        trust.weigh(1.0)
        np.testing.assert_array_equal(trust.prior(batch([0, 1, 2], 1, [0, 0, 0])), 1.0)
        trust.add(batch([0, 1, 2], 1, [0, 0, 0]), np.array([1.0, 1.0, float(visit < 2)]))
    trust.weigh(2.0)
    kept = limits.TRUST_DECAY ** np.arange(n)
    expected = (kept[n - 2 :].sum() / kept.sum()) ** 2
    np.testing.assert_allclose(trust.prior(batch([2, 0, 7], 1)), [expected, 1.0, 1.0])
    # Groups of several have no identity.
    assert trust.prior(batch([0, 1], 2)) is None


def test_clients_are_remembered_by_their_ids_and_samples_by_theirs() -> None:
    trust = SampleTrust()
    trust.begin(4, np.array(["b", "a", "b", "a"]), are_clients=True)
    both = GroupedBatch(
        Batch(torch.zeros(4, 2), torch.zeros(4), np.array([0, 2, 1, 3]), slices=[slice(0, 2), slice(2, 4)]), None
    )
    for _ in range(limits.TRUST_VISITS):
        trust.add(both, np.array([1.0, 0.25]))
    np.testing.assert_allclose(trust.means(4), [1.0, 0.25, 1.0, 0.25])
    trust.weigh(1.0)
    # The median of two is between them.
    np.testing.assert_allclose(trust.prior(both), [1.0, 0.4])
    again = SampleTrust()
    again.begin(4, np.array(["a", "b", "a", "b"]), are_clients=True)
    again.load_state_dict(trust.state_dict())
    np.testing.assert_allclose(again.means(4), [0.25, 1.0, 0.25, 1.0])
    # Other data of the same clients, and a new one.
    again.begin(3, np.array(["c", "a", "b"]), are_clients=True)
    np.testing.assert_allclose(again.means(3), [np.nan, 0.25, 1.0])
    again.begin(3, np.array(["c", "a", "b"]), are_clients=False)
    assert np.isnan(again.means(3)).all()


def test_other_data_begin_anew_where_samples_have_no_ids() -> None:
    trust = SampleTrust()
    trust.begin(2, None, are_clients=False)
    trust.add(batch([0, 1], 1), np.array([1.0, 0.5]))
    trust.begin(2, None, are_clients=False)
    np.testing.assert_array_equal(trust.means(2), [1.0, 0.5])
    trust.begin(3, None, are_clients=False)
    assert np.isnan(trust.means(3)).all()


def test_strata_are_classes_or_quantiles() -> None:
    np.testing.assert_array_equal(strata_of(np.array([3.0, 1.0, 3.0, 2.0]), are_classes=True), [2, 0, 2, 1])
    # Two values are classes, whatever the loss takes them for.
    np.testing.assert_array_equal(strata_of(np.array([1.0] * 98 + [0.0] * 2), are_classes=False), [1] * 98 + [0] * 2)
    numbers = np.random.default_rng(0).permutation(1000).astype(float)
    counts = np.bincount(strata_of(numbers, are_classes=False))
    assert len(counts) == limits.TRUST_QUANTILES
    assert counts.max() - counts.min() <= 1
    zeros = np.where(numbers < 700, 0.0, numbers)
    assert len(np.unique(strata_of(zeros, are_classes=False)[numbers < 700])) == 1
    np.testing.assert_array_equal(strata_of(np.arange(20.0), are_classes=False), 0)


@settings(deadline=None)
@given(
    # Of subnormal numbers the unit does matter.
    trust=st.lists(st.floats(0.0, 1e6, allow_subnormal=False), min_size=1, max_size=30),
    power=st.floats(0.0, 8.0),
    n_strata=st.integers(1, 4),
)
def test_prior_weights_spare_half_of_each_stratum(trust: list[float], power: float, n_strata: int) -> None:
    values, strata = np.array(trust), np.arange(len(trust)) % n_strata
    weights = prior_weights(values, strata, power)
    assert np.all((weights >= limits.LEAST_PRIOR) & (weights <= 1.0))
    for stratum in np.unique(strata):
        chosen = strata == stratum
        assert np.count_nonzero(weights[chosen] == 1.0) >= np.count_nonzero(chosen) / 2
        order = np.argsort(values[chosen])
        assert np.all(np.diff(weights[chosen][order]) >= 0.0)
    # The unit of trust doesn't matter.
    np.testing.assert_allclose(prior_weights(4.0 * values, strata, power), weights)


def test_wrong_labels_lose_their_weight_and_rare_classes_keep_it() -> None:
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    kept = (y > 1) | (rng.random(len(y)) < 0.2)
    X, y = StandardScaler().fit_transform(X[kept]), y[kept]
    wrong = rng.random(len(y)) < 0.3
    dirty = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)
    settings = {"huber": 1.0, "max_epochs": 60, "random_state": 0}
    model = BlockGMDClassifier(trust_power=3.0, **settings).fit(X, dirty)
    without = BlockGMDClassifier(**settings).fit(X, dirty)
    assert model.score(X, y) > without.score(X, y) + 0.03
    assert roc_auc_score(wrong, -model.sample_trust_) > 0.95
    weights = model.net_._trust_.weights[: len(y)]
    assert weights[wrong].mean() < 0.3
    assert weights[~wrong & (y <= 1)].mean() > 0.7


def test_trust_is_refused_where_none_can_be_remembered() -> None:
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    with pytest.warns(UserWarning, match="trust_power must be 0 where no trust is remembered"):
        BlockGMDClassifier(group_size=8, max_epochs=2, trust_power=1.0).fit(X, y)
    with pytest.raises(ValueError, match="trust_power must be at least 0 and finite; found -1"):
        BlockGMDClassifier(trust_power=-1).fit(X, y)


def test_a_prior_is_a_weight_of_rows_by_either_way() -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(np.int64)
    y[:8] = 1 - y[:8]
    fitted = [
        BlockGMDClassifier(huber=1.0, trust_power=2.0, gradients=gradients, max_epochs=20, random_state=0).fit(X, y)
        for gradients in ("one_pass", "micro_batches")
    ]
    assert fitted[0].net_._trust_.weights[:40].min() < 0.5
    np.testing.assert_allclose(fitted[0].predict_proba(X), fitted[1].predict_proba(X), atol=0.02)


def test_trust_follows_samples_by_their_ids_through_parts_in_any_order() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = StandardScaler().fit_transform(X)[:500], y[:500]
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < 0.3
    dirty = np.where(wrong, (y + 1) % 10, y)
    named = np.array([f"sample {number}" for number in range(len(y))])
    model = BlockGMDClassifier(huber=1.0, trust_power=3.0, random_state=0)
    nameless = BlockGMDClassifier(huber=1.0, trust_power=3.0, random_state=0)
    for _ in range(30):
        for part in np.array_split(rng.permutation(len(y)), 2):
            model.partial_fit(X[part], dirty[part], classes=np.arange(10), sample_id=named[part])
            part = part[: len(part) - rng.integers(1, 9)]
            nameless.partial_fit(X[part], dirty[part], classes=np.arange(10))
    trust = model.net_._trust_
    weights = dict(zip(trust.ids, trust.weights[: len(y)], strict=True))
    of_sample = np.array([weights[name] for name in named])
    assert of_sample[wrong].mean() < of_sample[~wrong].mean() - 0.2
    # Of what has no id nothing is known but its place among as many.
    assert np.all(nameless.net_._trust_.weights == 1.0)
    assert model.score(X, y) > nameless.score(X, y)
    again = pickle.loads(pickle.dumps(model)).partial_fit(X, dirty, sample_id=named)
    np.testing.assert_array_equal(again.net_._trust_.state_dict()["ids"], trust.ids)


def test_a_warm_start_goes_on_with_what_is_remembered_and_a_failed_one_does_not() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(np.int64)
    y[:8] = 1 - y[:8]
    model = BlockGMDClassifier(huber=1.0, trust_power=2.0, max_epochs=10, warm_start=True, random_state=0).fit(X, y)
    before = model.net_._trust_.state_dict()["sums"]
    model.set_params(callbacks=[("stops", _Stops())])
    model.net_.set_params(callbacks=[("stops", _Stops())])
    model.net_.initialize_callbacks()
    with pytest.raises(ZeroDivisionError):
        model.fit(X, y)
    np.testing.assert_array_equal(model.net_._trust_.state_dict()["sums"], before)
    model.net_.set_params(callbacks=None)
    model.net_.initialize_callbacks()
    after = model.fit(X, y).net_._trust_.state_dict()["sums"]
    np.testing.assert_array_equal(after[:60, 1], 2 * before[:60, 1])


class _Stops(Callback):
    def on_epoch_end(self, net, **kwargs) -> None:
        if len(net.history) > 12:
            raise ZeroDivisionError


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("group_size", [1, 4])
def test_a_tilted_mean_is_the_gradient_of_generalized_cross_entropy(gradients: str, group_size: int) -> None:
    """Weighted by exp(-tilt loss), which is the probability of the label to that power for groups of one."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 3)).astype(np.float32), rng.integers(0, 3, 24)
    layer = torch.nn.Linear(3, 3)
    net = RobustNeuralNet(
        copy.deepcopy(layer),
        criterion=torch.nn.CrossEntropyLoss,
        aggregator="mean",
        group_size=group_size,
        tilt=0.7,
        gradients=gradients,
        iterator_train__stratify=None,
    ).initialize()
    net.train_step_single((torch.from_numpy(X), torch.from_numpy(y)))
    loss = torch.nn.functional.cross_entropy(layer(torch.from_numpy(X)), torch.from_numpy(y), reduction="none")
    loss = loss.view(-1, group_size).mean(dim=1)
    weights = torch.exp(-0.7 * loss.detach())
    expected = torch.autograd.grad((weights / weights.sum()) @ loss, list(layer.parameters()))
    for parameter, gradient in zip(net.module_.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_losses_that_are_no_numbers_tilt_nothing() -> None:
    tilted = batch([0, 1, 2], 1)
    with np.errstate(all="raise"):
        tilted.tilt(torch.tensor([np.nan, 1.0, 1e6]), 1.0)
    np.testing.assert_array_equal(tilted.tilted, [1.0, 1.0, limits.LEAST_PRIOR])
    untilted = batch([0, 1], 1)
    untilted.tilt(torch.tensor([np.nan, np.inf]), 1.0)
    assert untilted.tilted is None


def test_a_large_loss_is_a_part_of_the_trust() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(np.int64)
    y[:6] = 1 - y[:6]
    model = BlockGMDClassifier(aggregator="mean", tilt=0.7, max_epochs=40, lr=0.02, random_state=0).fit(X, y)
    assert roc_auc_score(np.arange(60) < 6, -model.sample_trust_) > 0.9


def test_a_client_that_sends_wrong_labels_is_remembered() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = StandardScaler().fit_transform(X)[:800], y[:800]
    clients = np.arange(len(y)) % 8
    hostile = clients == 5
    wrong = np.where(hostile, (y + 1) % 10, y)
    model = BlockGMDClassifier(trust_power=3.0, max_epochs=15, batch_size=16, random_state=0)
    model.fit(X, wrong, groups=clients)
    trust = model.net_._trust_
    weights = dict(zip(trust.ids, trust.weights[:8], strict=True))
    assert min(weights, key=weights.get) == 5
    assert sorted(weights.values())[1] > 2 * weights[5]
    # One figure a client.
    assert all(np.ptp(model.sample_trust_[clients == client]) == 0.0 for client in range(8))


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_of_classes_tilt_nothing(reduction: str) -> None:
    """The tilt is of the probability of a label, whatever its class weighs."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 3)).astype(np.float32), rng.integers(0, 3, 24)
    batched = Batch(torch.from_numpy(X), torch.from_numpy(y), np.arange(24))
    scores = torch.from_numpy(rng.normal(size=(24, 3)))
    plain = torch.nn.functional.cross_entropy(scores, batched[1], reduction="none")
    criterion = torch.nn.CrossEntropyLoss(
        weight=torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64), reduction=reduction
    )
    grouped = GroupedBatch(batched, 1, criterion)
    losses = torch.nn.functional.cross_entropy(scores, batched[1], weight=criterion.weight, reduction="none")
    np.testing.assert_allclose(grouped.unweighted(grouped.shares(losses)), plain.numpy())
    targets = torch.from_numpy(rng.normal(size=(24, 5)))
    numbers = GroupedBatch(Batch(torch.from_numpy(X), targets, np.arange(24)), 1, torch.nn.MSELoss(reduction=reduction))
    np.testing.assert_allclose(numbers.unweighted(numbers.shares(targets**2)), (targets**2).mean(dim=1).numpy())


def test_ids_of_anything_can_be_saved() -> None:
    trust = SampleTrust()
    days = np.array([datetime.date(2020, 1, day) for day in (1, 2)], dtype=object)
    trust.begin(2, days, are_clients=False)
    trust.add(batch([0, 1], 1), np.array([1.0, 0.5]))
    again = SampleTrust()
    again.begin(2, days[::-1], are_clients=False)
    again.load_state_dict(trust.state_dict())
    np.testing.assert_array_equal(again.means(2), [0.5, 1.0])
    assert all(isinstance(id_, str) for id_ in trust.state_dict()["ids"])


def test_trust_is_earned_beside_the_weight_that_was_given() -> None:
    given, weights = np.array([1.0, 1.0, 0.5, 1.0]), np.array([0.4, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(earned_trust(weights, given, None), 3.5 * weights / given)
    # What a loss took away counts as distrust.
    tilted = np.array([0.5, 1.0])
    np.testing.assert_allclose(earned_trust(weights, given, tilted, slice(2, 4)), 4.0 * weights[2:])
    np.testing.assert_array_equal(given, [1.0, 1.0, 0.5, 1.0])
