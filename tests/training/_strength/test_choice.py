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
from skbgmd.aggregators import GeometricMedian, NonFiniteRowsError
from skbgmd.corruption import BitFlip
from skbgmd.training._strength.evidence import (
    STRENGTHS_OF_CLASSES,
)
from skbgmd.training.nets import RobustNeuralNetRegressor
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
    # What is held out is predicted after a third of the epochs, so that nothing else is tried.
    assert list(chosen[-1].strength_scores_) == ["mild"]
    assert chosen[-1].strength_scores_["mild"].errors_ahead == np.inf


@pytest.mark.parametrize("copied", [60, 600])
def test_gross_targets_are_distrusted_whose_rows_occur_twice(copied: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 5))
    y = X[:, 0] + np.sin(2.0 * X[:, 1]) + 0.1 * rng.normal(size=1200)
    dirty = y.copy()
    dirty[:600][rng.random(600) < 0.15] += 20.0
    order = rng.permutation(np.r_[np.arange(600), np.arange(copied)])
    model = BlockGMDRegressor(random_state=0).fit(X[order], dirty[order])
    assert model.strength_ == "firm"
    assert model.score(X[600:], y[600:]) > 0.9


def test_wrong_labels_are_distrusted_whose_rows_occur_three_times(digits: Any) -> None:
    X, y = (np.repeat(array, 3, axis=0) for array in (digits[0][:300], wrong(digits[1])[:300]))
    model = BlockGMDClassifier(max_epochs=60, random_state=0).fit(X, y)
    assert model.strength_ in ("firm", "strict")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_levels", [1, 3, 40])
def test_of_few_distinct_inputs_some_are_held_out(n_levels: int) -> None:
    levels = np.arange(240) % n_levels
    for kind in (BlockGMDClassifier, BlockGMDRegressor):
        model = kind(max_epochs=20, random_state=0).fit(levels[:, None].astype(float), levels % 2)
        assert list(model.strength_scores_)[:1] == ["mild"]


@pytest.mark.filterwarnings("ignore:max_epochs must be enough")
@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"max_epochs": 10}], ids=str)
def test_a_switch_that_few_samples_have_is_not_given_up(seed: int, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1500, 5))
    X[:, 4] = rng.random(1500) < 0.04
    y = X[:, 0] + 30.0 * X[:, 4] * X[:, 1]
    X = StandardScaler().fit_transform(X)
    model = BlockGMDRegressor(random_state=seed, **settings).fit(X[:500], y[:500])
    assert model.strength_ == "mild"
    if not settings:
        assert model.score(X[500:], y[500:]) > 0.6
    # Nothing tells these.
    dirty = X[:500, 0].copy()
    dirty[rng.random(500) < 0.2] += 30.0
    assert model.fit(X[:500], dirty).strength_ == "firm"


def in_parts(model: BlockGMDRegressor, X: np.ndarray, y: np.ndarray, size: int) -> BlockGMDRegressor:
    """A model after some epochs of calls with so many samples."""
    for _ in range(5):
        for start in range(0, len(X), size):
            model.partial_fit(X[start : start + size], y[start : start + size])
    return model


@pytest.mark.filterwarnings("ignore:max_epochs must be enough")
@pytest.mark.parametrize("how", ["short", "few", "parts", "small parts"])
def test_without_a_choice_tails_are_kept_and_gross_targets_distrusted(how: str) -> None:
    rng = np.random.default_rng(0)
    n = 95 if how == "few" else 400
    X = rng.normal(size=(n, 4))
    modes = np.where(rng.random(n) < 1.0 / (1.0 + np.exp(1.0 + 2.0 * X[:, 0])), 10.0, 0.0)
    modes += 0.5 * X[:, 1] + 0.3 * rng.normal(size=n)
    claims = np.exp(X[:, 0] + 0.7 * rng.normal(size=n))
    places = np.flatnonzero(rng.random(n) < 0.15)
    two_sided, one_sided = X[:, 0].copy(), X[:, 0].copy()
    two_sided[places] += rng.choice([-20.0, 20.0], size=len(places))
    one_sided[places] += 20.0 + 20.0 * rng.random(len(places))
    for y, expected in ((modes, "mild"), (claims, "mild"), (two_sided, "firm"), (one_sided, "firm")):
        model = BlockGMDRegressor(random_state=0, max_epochs=100 if how == "few" else 10)
        model = in_parts(model, X, y, 10 if how.startswith("small") else 200) if "parts" in how else model.fit(X, y)
        assert (model.strength_, model.strength_scores_) == (expected, {})


def test_the_first_part_may_show_a_rule_that_few_samples_follow() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    X[:, 3] = rng.random(500) < 0.1
    y = X[:, 0] + 30.0 * X[:, 3] * np.sign(X[:, 1])
    assert BlockGMDRegressor(random_state=0).partial_fit(X, y).strength_ == "mild"
    assert BlockGMDRegressor(random_state=0).partial_fit(rng.permutation(X), y).strength_ == "firm"


@pytest.mark.parametrize("seed", [311, 315])
def test_hard_targets_between_bounds_are_not_given_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.0, 1.0, size=(800, 3))
    y = np.cos(7.0 * X[:, 0]) * np.sign(X[:, 1]) + 0.05 * rng.normal(size=800)
    model = BlockGMDRegressor(random_state=seed).fit(X[:600], y[:600])
    assert model.strength_ == "mild"


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


def test_few_samples_and_parts_are_trained_by_the_gentlest_and_clients_as_the_parameters_say(digits: Any) -> None:
    X, y = digits
    clients = BlockGMDClassifier(max_epochs=20).fit(X, y, groups=np.arange(len(y)) % 7)
    few, short = BlockGMDClassifier(max_epochs=20).fit(X[:99], y[:99]), BlockGMDClassifier(max_epochs=19).fit(X, y)
    part = BlockGMDClassifier().partial_fit(X, y, classes=np.arange(10))
    for model in (few, short, part):
        assert (model.strength_, model.strength_scores_) == ("mild", {})
    assert (clients.strength_, clients.strength_scores_) == (None, {})


@pytest.mark.parametrize("name", list(STRENGTHS_OF_CLASSES))
def test_a_name_stands_for_its_settings(digits: Any, name: str) -> None:
    X, y = digits
    named = BlockGMDClassifier(max_epochs=8, random_state=0, strength=name).fit(X, y)
    settings = STRENGTHS_OF_CLASSES[name]._asdict()
    if settings.pop("keeps_short"):
        # No digit is long for its class.
        settings["rejection"] = None
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


def idle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A machine that is mostly idle, and numbers that say what it does."""
    rng = np.random.default_rng(0)
    X = 0.05 * rng.normal(size=(n, 5))
    X[::8] += 2.0 * rng.normal(size=(len(X[::8]), 5))
    return StandardScaler().fit_transform(X), X[:, 0] * X[:, 1] + X[:, 2] + 0.05 * rng.normal(size=n)


def limit_of(model: Any) -> float | None:
    """Median distances beyond which rows were left out."""
    return model.net_.aggregator_.aggregator.rejection


@pytest.mark.parametrize("strength", ["mild", "auto"])
def test_no_row_is_left_out_where_long_inputs_are_right(strength: str) -> None:
    X, y = idle(1500)
    model = BlockGMDRegressor(strength=strength, random_state=0).fit(X[:1000], y[:1000])
    assert model.leverage_ is None
    assert limit_of(model) is None
    limited = BlockGMDRegressor(strength="mild", rejection=20.0, random_state=0).fit(X[:1000], y[:1000])
    assert limit_of(limited) == 20.0
    assert model.score(X[1000:], y[1000:]) > limited.score(X[1000:], y[1000:]) + 0.05


def wide_classes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Many narrow samples, and two classes of wide ones."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, size=n, p=[0.86, 0.07, 0.07])
    X = rng.normal(size=(n, 5)) * np.where(y > 0, 8.0, 1.0)[:, None]
    X[y > 0, 0] = np.where(y == 1, 1.0, -1.0)[y > 0] * (np.abs(X[y > 0, 0]) + 4.0)
    return StandardScaler().fit_transform(X), y


@pytest.mark.parametrize(("share", "size"), [(0.1, 30.0), (0.2, 100.0), (0.002, 30.0), (0.1, -4.0)])
def test_wide_classes_are_learnt_beside_wrong_features(share: float, size: float) -> None:
    X, y = wide_classes(1500)
    rng = np.random.default_rng(1)
    wrong = rng.permutation(1000)[: round(share * 1000)]
    X[wrong] *= size
    model = BlockGMDClassifier(strength="mild", max_epochs=60, random_state=0).fit(X[:1000], y[:1000])
    assert limit_of(model) is None
    found = model.predict(X[1000:])
    assert min((found == k)[y[1000:] == k].mean() for k in range(3)) > 0.75


@pytest.mark.parametrize(
    "settings",
    [
        {"huber": 3.0},
        {"strength": None},
        {"trust_power": 1.0},
        {"leverage": 3.0},
        {"max_epochs": 19},
        {"early_stopping": True},
    ],
)
@pytest.mark.filterwarnings("ignore:max_epochs must be enough")
def test_wide_classes_keep_their_rows_whatever_else_is_given(settings: dict[str, Any]) -> None:
    X, y = wide_classes(1500)
    model = BlockGMDClassifier(**{"max_epochs": 60, "random_state": 0, **settings}).fit(X[:1000], y[:1000])
    assert limit_of(model) is None
    found = model.predict(X[1000:])
    assert min((found == k)[y[1000:] == k].mean() for k in range(3)) > 0.6
    # But for a limit that is given, and where nobody is to look at inputs.
    for kept in ({"rejection": 7.0}, {"leverage": None}):
        limited = BlockGMDClassifier(**{**settings, **kept, "max_epochs": 1, "random_state": 0}).fit(X, y)
        assert limit_of(limited) == kept.get("rejection", 10.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_wide_classes_keep_their_rows_where_half_of_their_labels_are_wrong(seed: int) -> None:
    X, y = wide_classes(1500)
    rng = np.random.default_rng(seed)
    X[rng.permutation(1000)[:100]] *= -20.0
    labels, wrong = y.copy(), rng.permutation(1000)[:150]
    labels[wrong] = (y[wrong] + rng.integers(1, 3, size=150)) % 3
    assert 0.4 < (y[:1000] == 1)[labels[:1000] == 1].mean() < 0.6
    model = BlockGMDClassifier(strength="mild", max_epochs=60, random_state=seed).fit(X[:1000], labels[:1000])
    assert limit_of(model) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_wide_classes_are_right_beside_wrong_labels(seed: int) -> None:
    X, y = wide_classes(1500)
    wrong = np.random.default_rng(seed).permutation(1000)[:200]
    labels = y.copy()
    labels[wrong] = (y[wrong] + 1) % 3
    # Of the second class most are narrow samples then, so that its own ones are long for it.
    model = BlockGMDClassifier(strength="mild", max_epochs=60, random_state=seed).fit(X[:1000], labels[:1000])
    assert (model.leverage_, limit_of(model)) == (None, None)


def test_a_class_whose_inputs_are_wrong_in_a_fifth_does_not_lie_apart() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.1).astype(int)
    X = rng.normal(size=(1000, 5))
    X[:, 0] += 2.0 * y
    wrong = np.flatnonzero(y)[::5]
    X[wrong] += 20.0 * rng.normal(size=(len(wrong), 5))
    model = BlockGMDClassifier(strength="mild", max_epochs=20, random_state=0).fit(X, y)
    assert limit_of(model) == 10.0


def test_two_wide_classes_among_many_narrow_samples_are_learnt() -> None:
    rng = np.random.default_rng(0)
    X, y = wide_classes(1500)
    model = BlockGMDClassifier(strength="mild", max_epochs=60, random_state=0).fit(X[:1000], y[:1000])
    assert limit_of(model) is None
    found = model.predict(X[1000:])
    assert min((found == k)[y[1000:] == k].mean() for k in range(3)) > 0.8
    # Without long ones, what is far are wrong labels and what is hard or rare: the gentlest keeps it.
    X = rng.uniform(-1.0, 1.0, size=X.shape)
    for strength, limit in (("mild", None), ("firm", 10.0)):
        narrow = BlockGMDClassifier(strength=strength, max_epochs=20, random_state=0).fit(X, X[:, 0] > 0.0)
        assert (narrow.leverage_, limit_of(narrow)) == (None, limit)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, None),
        ({"max_epochs": 19}, None),
        ({"early_stopping": True}, None),
        ({"rejection": 7.0}, 7.0),
        ({"leverage": None}, 10.0),
        ({"gradient_corruption": BitFlip(0.1), "max_epochs": limits.CHOICE_LEAST_EPOCHS}, 10.0),
        ({"strength": None}, 10.0),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_rare_class_that_is_learnt_last_keeps_its_rows(settings: dict[str, Any], limit: float | None) -> None:
    """Most samples have been learnt by then, so that its rows are many median distances away."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6))
    y = np.abs(X[:, 0]) > 2.0
    model = BlockGMDClassifier(max_epochs=40, random_state=0).set_params(**settings).fit(X[:2000], y[:2000])
    assert limit_of(model) == limit
    if not settings:
        plain = BlockGMDClassifier(max_epochs=40, random_state=0, aggregator="mean").fit(X[:2000], y[:2000])
        recalls = [(each.predict(X[2000:]) & y[2000:]).sum() / y[2000:].sum() for each in (model, plain)]
        assert model.strength_ == "mild"
        assert min(recalls) > 0.7
        assert recalls[0] >= recalls[1] - 0.05


@pytest.mark.parametrize(
    ("kind", "settings", "limit"),
    [
        ("short", {}, None),
        ("short", {"strength": "firm"}, None),
        ("short", {"rejection": 7.0}, 7.0),
        ("short", {"leverage": None}, 20.0),
        ("short", {"leverage": 3.0}, 20.0),
        ("short", {"max_epochs": 19}, 20.0),
        ("short", {"strength": None, "huber": 2.0}, 10.0),
        ("short", {"criterion": nn.MSELoss}, 20.0),
        ("short", {"criterion__beta": 100.0}, 20.0),
        ("unscaled", {}, 20.0),
        ("one long", {}, 20.0),
        ("wrong", {}, 20.0),
        ("tokens", {}, 20.0),
    ],
)
@pytest.mark.filterwarnings("ignore:The training has stalled")
def test_rows_are_left_out_unless_inputs_say_that_none_is_wrong(kind: str, settings: Any, limit: float | None) -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1.0, 1.0, size=(1100, 4))
    y = np.exp(2.0 * X[:, 0])
    if kind == "unscaled":
        X[:, 1] *= 1e5
    elif kind == "one long":
        X[7] *= 100.0
    elif kind == "wrong":
        X[::4] += 30.0 * rng.normal(size=X[::4].shape)
    elif kind == "tokens":
        X = rng.integers(5, size=X.shape)
        settings = {**settings, "module": _Tokens}
    model = BlockGMDRegressor(**{"strength": "mild", "max_epochs": 20, "random_state": 0, **settings}).fit(X, y)
    assert limit_of(model) == limit
    # What goes on keeps what was found, and another fit looks again.
    model.partial_fit(X, y)
    assert limit_of(model) == limit
    X = np.where(np.arange(1100)[:, None] % 4 == 0, 40 * X, X)
    if kind == "short" and not settings:
        assert limit_of(model.fit(X, rng.permutation(y))) == 20.0


def test_a_limit_of_lengths_that_there_are_none_of_is_warned_of() -> None:
    X, y = np.random.default_rng(0).integers(5, size=(60, 4)), np.arange(60.0) % 3
    settings: dict[str, Any] = {"module": _Tokens, "max_epochs": 1, "random_state": 0}
    with pytest.warns(UserWarning, match=r"leverage must be \"auto\" or None where no input has a length.*found 3\.0"):
        BlockGMDRegressor(leverage=3.0, **settings).fit(X, y)
    for limit in ("auto", None):
        BlockGMDRegressor(leverage=limit, **settings).fit(X, y)
    # Numbers have lengths, and without a module so have integers.
    BlockGMDRegressor(leverage=3.0, **settings).fit(X.astype(float), y)
    BlockGMDRegressor(leverage=3.0, **{**settings, "module": None}).fit(X, y)


class _Logarithm(nn.Module):
    """A layer that has no number for some samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([X, torch.log(X[:, :1])], dim=1))[:, 0]


@pytest.mark.parametrize("seed", range(4))
def test_a_prediction_that_is_no_number_decides_nothing(seed: int) -> None:
    X = np.random.default_rng(seed).uniform(0.1, 1.0, size=(200, 1))
    X[150] = -1.0
    weight = np.where(np.arange(200) == 150, 0.0, 1.0)
    settings: dict[str, Any] = {"max_epochs": 20, "random_state": seed}
    # A step by it is refused; where it is held out, there is none.
    for given in (weight, None):
        try:
            model = BlockGMDRegressor(module=_Logarithm, **settings).fit(X, np.exp(3.0 * X[:, 0]), sample_weight=given)
        except NonFiniteRowsError:
            assert given is None
        else:
            assert model.strength_ in ("mild", "firm")


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


class _Tokens(nn.Module):
    """A layer of numbers that are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layer(X.float())[:, 0]


def test_choices_leave_the_global_generators_alone() -> None:
    X, y = make_friedman1(120, random_state=0)
    net = RobustNeuralNetRegressor(MLP, module__n_features=10, module__n_outputs=1, max_epochs=20, train_split=None)
    before = torch.get_rng_state()
    model = BlockGMDRegressor(net, random_state=0).fit(X.astype(np.float32), y)
    assert model.strength_scores_ != {}
    assert torch.equal(torch.get_rng_state(), before)


class _Squares(nn.Module):
    """A loss of one's own, of which nothing is known."""

    def forward(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((predicted - targets) ** 2).mean()


ENDING = {
    "held out": {"early_stopping": True, "max_epochs": 25},
    "loss": {"early_stopping": "loss", "max_epochs": 60},
    "callback": {"train_split": ValidSplit(5), "callbacks": [EarlyStopping(patience=3)], "max_epochs": 60},
}
STEERED = {
    "train_split": ValidSplit(5),
    "callbacks": [LRScheduler(policy=ReduceLROnPlateau, monitor="valid_loss")],
    "max_epochs": 20,
}


@pytest.mark.parametrize("settings", [*ENDING.values(), STEERED], ids=[*ENDING, "plateau"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_trainings_that_held_out_samples_end_or_steer_are_not_compared(digits: Any, settings: dict[str, Any]) -> None:
    X, y = digits
    model = BlockGMDClassifier(random_state=0, **settings).fit(X[:200], y[:200])
    assert (model.strength_, model.strength_scores_) == ("mild", {})


@pytest.mark.parametrize("settings", ENDING.values(), ids=ENDING)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_trainings_of_numbers_that_end_by_themselves_are_compared(settings: dict[str, Any]) -> None:
    X, y = make_friedman1(600, noise=1.0, random_state=0)
    X = StandardScaler().fit_transform(X)
    of_stopped = BlockGMDRegressor(random_state=0, **settings).fit(X, y)
    # By trainings that don't end.
    whole = BlockGMDRegressor(random_state=0, max_epochs=settings["max_epochs"]).fit(X, y)
    assert of_stopped.strength_scores_ == whole.strength_scores_ != {}


def test_choices_for_a_training_that_ends_have_few_epochs() -> None:
    X, y = make_friedman1(300, noise=1.0, random_state=0)
    X = StandardScaler().fit_transform(X)
    for most, other in ((5000, 100), (30, 30)):
        stopped = BlockGMDRegressor(early_stopping=True, n_iter_no_change=2, max_epochs=most, random_state=0)
        whole = BlockGMDRegressor(max_epochs=other, random_state=0)
        assert stopped.fit(X, y).strength_scores_ == whole.fit(X, y).strength_scores_ != {}


@pytest.mark.parametrize("make", [BlockGMDClassifier, BlockGMDRegressor])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_wrong_features_are_found_in_trainings_that_end_by_themselves(make: Any) -> None:
    X, y = make_friedman1(1000, noise=1.0, random_state=0)
    X = StandardScaler().fit_transform(X)
    y = (y > np.median(y)).astype(int) if make is BlockGMDClassifier else y
    rng = np.random.default_rng(0)
    wrong = X[:700].copy()
    wrong[:200] += 30.0 * rng.normal(size=(200, X.shape[1]))
    stopped = make(early_stopping=True, random_state=0).fit(wrong, y[:700])
    assert stopped.leverage_ == 3.0
    whole = make(random_state=0).fit(wrong, y[:700])
    assert stopped.score(X[700:], y[700:]) > whole.score(X[700:], y[700:]) - 0.04


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_losses_of_ones_own_are_trained_by() -> None:
    X, y = make_friedman1(150, random_state=0)
    model = BlockGMDRegressor(criterion=_Squares, max_epochs=20, random_state=0).fit(X, y)
    assert (model.strength_, model.strength_scores_) == (None, {})
    # Each sample is of a class of its own: none can be held out.
    many = BlockGMDClassifier(max_epochs=20, random_state=0).fit(X, np.arange(150))
    assert many.strength_ == "mild"
    one = BlockGMDRegressor(max_epochs=20, random_state=0).fit(X, y, sample_weight=(np.arange(150) == 3).astype(float))
    assert one.strength_ == "mild"


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


@pytest.mark.parametrize("n", [800, 1500])
def test_a_few_far_off_with_a_rule_of_their_own_are_learnt(n: int) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n + 500, 5))
    far = rng.random(n + 500) < 0.06
    X[far, :2] += 10.0
    y = np.where(far, 3.0 * X[:, 3] * X[:, 4] + 3.0, X[:, 2]) + 0.1 * rng.normal(size=n + 500)
    X = StandardScaler().fit_transform(X)
    model = BlockGMDRegressor(strength="mild", random_state=0).fit(X[:n], y[:n])
    assert model.leverage_ is None
    # Whatever is in them, features that are wrong are known by now.
    wrong = np.where(far[:n, None], 10.0 * rng.normal(size=(n, 5)), X[:n])
    assert BlockGMDRegressor(strength="mild", random_state=0).fit(wrong, rng.permutation(y[:n])).leverage_ == 3.0


@pytest.mark.parametrize(
    ("given", "share"),
    [({}, 0.2), ({}, 0.4), ({"strength": "mild"}, 0.4), ({"strength": None}, 0.2), ({"leverage": None}, 0.4)],
    ids=str,
)
def test_rows_have_a_limit_where_gradients_are_made_wrong(given: dict[str, Any], share: float) -> None:
    """No input is long, and yet what is far is wrong."""
    X, y = make_friedman1(700, noise=0.5, random_state=0)
    X = StandardScaler().fit_transform(X)
    numbers = BlockGMDRegressor(gradient_corruption=BitFlip(share), max_epochs=30, random_state=0, **given)
    assert numbers.fit(X[:500], y[:500]).score(X[500:], y[500:]) > 0.5
    assert numbers.net_.aggregator_.aggregator.rejection == 10.0
    # Long inputs that are right are predicted.
    X = np.exp(1.5 * X)
    labels = (np.log(X) @ np.arange(10.0) > 0).astype(int)
    classes = BlockGMDClassifier(gradient_corruption=BitFlip(share), max_epochs=30, random_state=0, **given)
    assert classes.fit(np.log1p(X[:500]), labels[:500]).score(np.log1p(X[500:]), labels[500:]) > 0.75
    assert classes._setting(of_samples=True).rejection == 10.0


def test_lengths_are_limited_where_the_second_training_has_none_to_hold_out() -> None:
    # Of two samples of a class one is held out at first, and none later.
    rng = np.random.default_rng(0)
    X, y = rng.uniform(-1.0, 1.0, size=(120, 3)), np.arange(120) // 2
    X[::10] *= 50.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skbgmd.training._strength.choice.are_predicted", lambda *_: 0.5)
        model = BlockGMDClassifier(max_epochs=20, strength="mild", random_state=0).fit(X, y)
    assert model.leverage_ == 3.0
