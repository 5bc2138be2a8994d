"""The choice of a strength by held-out samples, as estimators make it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_friedman1
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd._utils import limits
from skbgmd.aggregators import GeometricMedian
from skbgmd.training._strength.evidence import (
    STRENGTHS_OF_CLASSES,
)
from skbgmd.training.networks import MLP


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


def test_held_out_labels_are_remembered_at_their_places(digits: Any) -> None:
    X, y = digits
    labels = wrong(y)
    model = BlockGMDClassifier(max_epochs=30, random_state=0).fit(X, labels)
    found = model._held_out
    known = np.isfinite(found.predicted)
    assert 0.6 < known.mean() <= 2 / 3
    np.testing.assert_array_equal(found.differs[known], found.predicted[known] != labels[known])
    # Most are predicted rightly, and so those whose labels are wrong differ.
    assert (found.predicted == y)[known].mean() > 0.7
    assert found.differs[known & (labels != y)].mean() > 0.7
    assert ((found.probability >= 0.1) & (found.probability <= 1.0))[known].all()
    # Of the others there is what the gentlest candidate made of them, once it has seen them often enough.
    assert np.isnan(found.gentle_likelihood).all()
    longer = BlockGMDClassifier(max_epochs=96, random_state=0).fit(X, labels)._held_out
    np.testing.assert_array_equal(np.isfinite(longer.gentle_likelihood), ~np.isfinite(longer.predicted))
    # Other samples may follow, and other settings.
    model.partial_fit(X, labels)
    assert model._held_out is None
    assert model.set_params(strength="firm").fit(X[:100], labels[:100])._held_out is None


def test_gross_targets_are_distrusted() -> None:
    X, y = make_friedman1(400, noise=1.0, random_state=0)
    dirty = y.copy()
    dirty[::4] += 100.0
    model = make_pipeline(StandardScaler(), BlockGMDRegressor(random_state=0)).fit(X, dirty)
    assert model[-1].strength_ not in (None, "mild")
    assert model[-1].strength_scores_["firm"].errors_ahead == limits.CLEAR_GAIN
    assert model.score(X, y) > 0.6
    chosen, mild = (
        make_pipeline(StandardScaler(), BlockGMDRegressor(strength=strength, random_state=0)).fit(X, y)
        for strength in ("auto", "mild")
    )
    assert chosen.score(X, y) > mild.score(X, y) - 0.005
    assert chosen[-1].strength_scores_["firm"].errors_ahead == limits.CLEAR_GAIN_WITHOUT_GROSS


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
    with pytest.raises(ValueError, match=r"strength must be one of None, 'auto', 'mild', 'firm'; found 'weak'"):
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


class _Squares(nn.Module):
    """A loss of one's own, of which nothing is known."""

    def forward(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((predicted - targets) ** 2).mean()


@pytest.mark.parametrize(
    "settings",
    [
        {"early_stopping": True, "max_epochs": 25},
        {"early_stopping": "loss", "max_epochs": 60},
        {"train_split": ValidSplit(5), "callbacks": [EarlyStopping(patience=3)], "max_epochs": 60},
        {
            "train_split": ValidSplit(5),
            "callbacks": [LRScheduler(policy=ReduceLROnPlateau, monitor="valid_loss")],
            "max_epochs": 20,
        },
    ],
    ids=["held out", "loss", "callback", "plateau"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_trainings_that_held_out_samples_end_or_steer_are_not_compared(digits: Any, settings: dict[str, Any]) -> None:
    X, y = digits
    model = BlockGMDClassifier(random_state=0, **settings).fit(X[:200], y[:200])
    assert (model.strength_, model.strength_scores_) == (None, {})


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_losses_of_ones_own_are_trained_by() -> None:
    X, y = make_friedman1(150, random_state=0)
    model = BlockGMDRegressor(criterion=_Squares, max_epochs=20, random_state=0).fit(X, y)
    assert (model.strength_, model.strength_scores_) == (None, {})
    # Each sample is of a class of its own: none can be held out.
    many = BlockGMDClassifier(max_epochs=20, random_state=0).fit(X, np.arange(150))
    assert many.strength_ is None
    one = BlockGMDRegressor(max_epochs=20, random_state=0).fit(X, y, sample_weight=(np.arange(150) == 3).astype(float))
    assert one.strength_ == "firm"


class _Locked(Callback):
    """What can't be copied."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock


class _Sub(BlockGMDClassifier):
    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(X, y)

    def predict(self, X: Any) -> Any:
        return super().predict(X).astype(str)


def test_candidates_copy_nothing_that_is_dropped_and_call_nothing_that_is_overridden(digits: Any) -> None:
    X, y = digits
    model = _Sub(max_epochs=20, callbacks=[_Locked(threading.Lock())], random_state=0).fit(X, y)
    assert min(found.score for found in model.strength_scores_.values()) > 0.5


def test_a_scheduler_that_is_given_as_a_class_steers_candidates_as_well(digits: Any) -> None:
    X, y = digits
    model = BlockGMDClassifier(
        max_epochs=20, callbacks=[("rate", LRScheduler)], callbacks__rate__policy="StepLR", random_state=0
    )
    model.set_params(callbacks__rate__step_size=1, callbacks__rate__gamma=0.0).fit(X, y)
    assert max(found.score for found in model.strength_scores_.values()) < 0.8


def test_a_value_that_is_given_is_taken_even_where_it_is_what_would_be_taken_anyway(digits: Any) -> None:
    X, y = digits
    for each in ({"huber": 2.0}, {"trust_power": 0.0}, {"tilt": 0.0}):
        assert BlockGMDClassifier(max_epochs=20, random_state=0, **each).fit(X, y).strength_ is None
    median = BlockGMDRegressor(huber=None, max_epochs=20, random_state=0).fit(X, y.astype(float))
    assert type(median.net_.aggregator_.aggregator) is GeometricMedian


def test_ids_are_refused_before_anything_is_trained(digits: Any) -> None:
    X, y = digits
    with pytest.raises(ValueError, match="must have shape"):
        BlockGMDClassifier(callbacks=[_Fails()]).fit(X, y, sample_id=np.arange(3))


class _Fails(Callback):
    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        raise AssertionError("It was trained.")
