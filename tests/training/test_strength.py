"""The choice of a strength by held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits, make_friedman1
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._strength import (
    STRENGTHS_OF_CLASSES,
    bounded_scores,
    choose,
    evidence_for,
    hold_out,
    stratified_mean,
)
from skbgmd.training.networks import MLP

ONES = np.ones(40)
STRATA = np.arange(40) % 2


def hits(*shares: float) -> dict[str, np.ndarray]:
    """Utilities by "0", "1", ...: so many of the samples, the first ones, are predicted."""
    return {str(name): (np.arange(40) < share * 40).astype(float) for name, share in enumerate(shares)}


def test_stratified_means_are_of_classes_rather_than_of_samples() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0])
    mean, error = stratified_mean(values, np.array([0, 0, 0, 1]), np.ones(4))
    assert mean == 0.5
    # A single one that came out well proves nothing.
    assert error >= 1 / 6
    assert stratified_mean(values, np.zeros(4, dtype=int), np.array([0.0, 0.0, 1.0, 3.0]))[0] == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 3.0)), min_size=2, max_size=30))
@settings(deadline=None)
def test_the_error_of_a_mean_is_no_less_than_the_textbooks(pairs: list[tuple[float, float]]) -> None:
    values, weight = np.array(pairs).T
    mean, error = stratified_mean(values, np.zeros(len(values), dtype=int), weight)
    share = weight / weight.sum()
    assert mean == pytest.approx(share @ values, abs=1e-12)
    assert error >= np.sqrt(share**2 @ (values - mean) ** 2) - 1e-12


def test_gains_are_paired() -> None:
    noise = np.random.default_rng(0).normal(size=40)
    found = evidence_for({"a": noise, "b": noise + 0.1}, np.zeros(40, dtype=int), ONES)["b"]
    assert found.gain == pytest.approx(0.1)
    assert found.standard_error < 0.01


@pytest.mark.parametrize(
    ("mild", "firm", "strict", "chosen", "to_the_end"),
    [
        # Far behind: dropped.
        ((0.9,), (0.5,), (0.4,), "mild", ()),
        # Level or ahead: the end decides.
        ((0.9, 0.9), (0.9, 0.9), (0.9, 0.9), "mild", ("mild", "firm", "strict")),
        ((0.9, 0.9), (0.5,), (0.95, 0.9), "mild", ("mild", "strict")),
        ((0.9, 0.9), (0.95, 0.925), (0.5,), "mild", ("mild", "firm")),
        ((0.9, 0.5), (0.9, 0.8), (0.95, 0.9), "strict", ("mild", "firm", "strict")),
        ((0.9, 0.5), (0.9, 0.9), (0.95, 0.8), "firm", ("mild", "firm", "strict")),
        ((0.9, 0.8), (0.95, 0.95), (0.5,), "firm", ("mild", "firm")),
        # One that diverges is out.
        ((0.5,), (0.1,), (None,), "mild", ()),
        ((None, 0.5), (0.5, 0.5), (0.6, 0.7), "strict", ("firm", "strict")),
        ((None,), (None,), (None,), "mild", ()),
        ((0.9, None), (0.9, 0.9), (0.95, 0.9), "firm", ("mild", "firm", "strict")),
        ((0.9, None), (0.1,), (0.95, None), "strict", ("mild", "strict")),
    ],
)
def test_another_must_be_ahead(
    mild: tuple[float | None, ...],
    firm: tuple[float | None, ...],
    strict: tuple[float | None, ...],
    chosen: str,
    to_the_end: tuple[str, ...],
) -> None:
    shares = {"mild": list(mild), "firm": list(firm), "strict": list(strict)}
    if mild[0] is None:
        shares["mild"] = [None]
    asked: list[tuple[str, int]] = []

    def predict(name: str, more: int) -> Any:
        asked.append((name, more))
        return shares[name].pop(0)

    def utilities(predicted: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: hits(share)["0"] for name, share in predicted.items()}

    name, evidence = choose(list(shares), predict, utilities, STRATA, ONES, epochs=100)
    assert name == chosen
    assert asked == [(each, 34) for each in shares] + [(each, 66) for each in to_the_end]
    assert set(evidence) == {each for each in shares if (mild, firm, strict)[list(shares).index(each)][0] is not None}


def test_a_share_of_each_class_is_held_out_and_none_of_a_tiny_one() -> None:
    strata = np.repeat([0, 1, 2], [80, 9, 3])
    mask = hold_out(strata, 0.25, np.random.RandomState(0))
    assert np.bincount(strata[mask], minlength=3).tolist() == [20, 2, 0]
    np.testing.assert_array_equal(mask, hold_out(strata, 0.25, np.random.RandomState(0)))


def test_gross_targets_do_not_decide_between_predictions_of_numbers() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, 1))
    good, poor = y + 0.1 * rng.normal(size=y.shape), y + 0.5 * rng.normal(size=y.shape)
    y[:60] += 1e6
    # The poor one is right about the errors.
    poor[:60] += 1e6
    poor[60:] += 0.5
    scores = bounded_scores({"good": good - y, "poor": poor - y}, y, np.ones(200))
    assert scores["good"][60:].mean() > scores["poor"][60:].mean()
    assert scores["good"].min() > -40.0
    scaled = bounded_scores({"good": 1e9 * (good - y), "poor": 1e9 * (poor - y)}, 1e9 * y, np.ones(200))
    np.testing.assert_allclose(scaled["good"], scores["good"])


def test_targets_that_are_mostly_zero_leave_a_scale() -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(400) < 0.7, 0.0, rng.lognormal(size=400))[:, None]
    zeros, tail = np.zeros_like(y), y + 0.05 * rng.normal(size=y.shape)
    scores = bounded_scores({"zeros": zeros - y, "tail": tail - y}, y, np.ones(400))
    assert scores["tail"].mean() > scores["zeros"].mean()
    alike = bounded_scores({"exact": zeros}, np.zeros_like(y), np.ones(400))
    np.testing.assert_array_equal(alike["exact"], 0.0)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X)[:600], y[:600]


def wrong(y: np.ndarray, share: float = 0.3) -> np.ndarray:
    """Labels of which a share are of the next class."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(len(y)) < share, (y + 1) % 10, y)


def test_clean_labels_are_trusted_and_the_fit_is_that_of_the_gentle_one(digits: Any) -> None:
    X, y = digits
    chosen = BlockGMDClassifier(max_epochs=30, random_state=0).fit(X, y)
    assert chosen.strength_ == "mild"
    assert list(chosen.strength_scores_) == ["mild", "firm", "strict"]
    named = BlockGMDClassifier(max_epochs=30, random_state=0, strength="mild").fit(X, y)
    assert (named.strength_, named.strength_scores_) == ("mild", {})
    np.testing.assert_array_equal(named.predict_proba(X), chosen.predict_proba(X))


def test_wrong_labels_are_distrusted(digits: Any) -> None:
    X, y = digits
    chosen = BlockGMDClassifier(random_state=0).fit(X, wrong(y))
    assert chosen.strength_ not in (None, "mild")
    assert chosen.strength_scores_[chosen.strength_].is_clear
    mild = BlockGMDClassifier(random_state=0, strength="mild").fit(X, wrong(y))
    assert chosen.score(X, y) > mild.score(X, y) + 0.05
    again = BlockGMDClassifier(random_state=0, strength=chosen.strength_).fit(X, wrong(y))
    np.testing.assert_array_equal(again.predict_proba(X), chosen.predict_proba(X))


def test_gross_targets_are_distrusted() -> None:
    X, y = make_friedman1(400, noise=1.0, random_state=0)
    dirty = y.copy()
    dirty[::4] += 100.0
    model = make_pipeline(StandardScaler(), BlockGMDRegressor(random_state=0)).fit(X, dirty)
    assert model[-1].strength_ not in (None, "mild")
    assert model.score(X, y) > 0.6
    chosen, mild = (
        make_pipeline(StandardScaler(), BlockGMDRegressor(strength=strength, random_state=0)).fit(X, y).score(X, y)
        for strength in ("auto", "mild")
    )
    assert chosen > mild - 0.005


@pytest.mark.parametrize(
    "settings",
    [
        {"huber": 1.0},
        {"beta": 0.5},
        {"trust_power": 1.0},
        {"aggregator": "geometric_median"},
        {"group_size": 8},
        {"strength": None},
    ],
    ids=str,
)
def test_what_is_given_says_it(digits: Any, settings: dict[str, Any]) -> None:
    X, y = digits
    model = BlockGMDClassifier(max_epochs=20, random_state=0, **settings).fit(X, wrong(y))
    assert (model.strength_, model.strength_scores_) == (None, {})


def test_clients_few_samples_and_parts_are_trained_as_the_parameters_say(digits: Any) -> None:
    X, y = digits
    clients = BlockGMDClassifier(max_epochs=20).fit(X, y, groups=np.arange(len(y)) % 7)
    few, short = BlockGMDClassifier(max_epochs=20).fit(X[:99], y[:99]), BlockGMDClassifier(max_epochs=19).fit(X, y)
    part = BlockGMDClassifier().partial_fit(X, y, classes=np.arange(10))
    for model in (clients, few, short, part):
        assert (model.strength_, model.strength_scores_) == (None, {})


@pytest.mark.parametrize("name", list(STRENGTHS_OF_CLASSES))
def test_a_name_stands_for_its_settings(digits: Any, name: str) -> None:
    X, y = digits
    named = BlockGMDClassifier(max_epochs=8, random_state=0, strength=name).fit(X, y)
    settings = STRENGTHS_OF_CLASSES[name]._asdict()
    spelt = BlockGMDClassifier(max_epochs=8, random_state=0, strength=None, **settings).fit(X, y)
    np.testing.assert_array_equal(named.predict_proba(X), spelt.predict_proba(X))


def test_what_a_strength_overrules_is_warned_of(digits: Any) -> None:
    X, y = digits
    with pytest.warns(UserWarning, match="huber=1.5, trust_power=1.0 with"):
        BlockGMDClassifier(max_epochs=1, strength="strict", huber=1.5, trust_power=1.0).fit(X, y)
    with pytest.warns(UserWarning, match="strength='strict' with"):
        BlockGMDClassifier(max_epochs=1, strength="strict", aggregator="krum").fit(X, y)
    with pytest.raises(
        ValueError, match=r"strength must be one of None, 'auto', 'mild', 'firm', 'strict'; found 'weak'"
    ):
        BlockGMDRegressor(strength="weak").fit(X, y)


class _Counts(Callback):
    epochs = 0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.epochs += 1


def test_callbacks_watch_the_one_training_and_schedules_steer_all(digits: Any) -> None:
    X, y = digits
    watching, schedule = _Counts(), LRScheduler(StepLR, step_size=1, gamma=0.0)
    model = BlockGMDClassifier(max_epochs=20, callbacks=[watching, ("rate", schedule)], random_state=0).fit(X, y)
    assert watching.epochs == 20
    # Nothing is learnt after the first epoch, by whatever strength.
    assert model.strength_ == "mild"
    assert max(found.score for found in model.strength_scores_.values()) < 0.8


def test_a_given_net_and_a_search_choose_as_well(digits: Any) -> None:
    X, y = digits
    X = X.astype(np.float32)
    net = NeuralNetClassifier(
        MLP,
        module__n_features=64,
        module__n_outputs=10,
        module__hidden_layer_sizes=(20,),
        criterion=nn.CrossEntropyLoss,
        max_epochs=20,
        verbose=0,
    )
    model = BlockGMDClassifier(net, random_state=0).fit(X, y)
    assert set(model.strength_scores_) == set(STRENGTHS_OF_CLASSES)
    assert net.max_epochs == 20
    assert len(model.history_) == 20
    assert clone(model).strength == "auto"


def test_a_failed_fit_loses_nothing(digits: Any) -> None:
    X, y = digits
    model = BlockGMDClassifier(max_epochs=20, random_state=0).fit(X, y)
    before = model.predict_proba(X), model.strength_scores_
    model.set_params(lr=1e30, optimizer=torch.optim.SGD, strength="mild")
    with pytest.raises(ValueError, match="finite"):
        model.fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before[0])
    assert model.strength_scores_ is before[1]
