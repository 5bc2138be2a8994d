"""Ctrl-C in a training: what is kept, and who is told."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.training._lifecycle.interrupts import TrainingInterrupted


class Interrupts(Callback):
    """Ctrl-C as it comes: once, by a signal, at an event of some epoch."""

    def __init__(self, event="on_batch_end", epoch=3, raises=False):
        self.event, self.epoch, self.raises = event, epoch, raises

    def initialize(self):
        self.is_over_ = False
        return self

    def _at(self, event, net):
        if event == self.event and len(net.history) == self.epoch and not self.is_over_:
            self.is_over_ = True
            if self.raises:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self._at("on_train_begin", net)

    def on_epoch_begin(self, net, **kwargs):
        self._at("on_epoch_begin", net)

    def on_batch_begin(self, net, **kwargs):
        self._at("on_batch_begin", net)

    def on_batch_end(self, net, **kwargs):
        self._at("on_batch_end", net)

    def on_epoch_end(self, net, **kwargs):
        self._at("on_epoch_end", net)

    def on_train_end(self, net, **kwargs):
        self._at("on_train_end", net)


def classifier(*args, kind=BlockGMDClassifier, **settings):
    settings = {"max_epochs": 6, "batch_size": 40, "random_state": 0, **settings}
    return kind(callbacks=[("interrupts", Interrupts(*args))], **settings)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    ("event", "whole"), [("on_epoch_begin", 2), ("on_batch_begin", 2), ("on_batch_end", 2), ("on_epoch_end", 3)]
)
def test_what_there_is_is_kept(data, event, whole, raises):
    model = classifier(event, 3, raises)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*data)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.history_[:, "train_loss"]) == whole
    assert np.isfinite(model.sample_trust_).all()
    assert model.score(*data) > 0.5
    # A training that is interrupted goes on.
    assert model.partial_fit(*data).n_iter_ == whole + 1


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("kind", [BlockGMDClassifier, BlockGMDRegressor])
def test_at_the_end_all_is_kept(data, line, kind, raises):
    X, y = data if kind is BlockGMDClassifier else line
    whole = kind(max_epochs=3, batch_size=40, random_state=0).fit(X, y)
    model = classifier("on_train_end", 3, raises, kind=kind, max_epochs=3)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert (model.n_iter_, model.loss_curve_) == (3, whole.loss_curve_)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))
    # The net isn't at its end for good: it is trained, saved and loaded as before.
    assert not model.net_._is_over_
    assert model.partial_fit(X, y).n_iter_ == 4
    with pytest.raises(TrainingInterrupted):
        clone(classifier("on_train_end", 3, raises, kind=kind, max_epochs=3)).fit(X, y)


@pytest.mark.usefixtures("forked")
def test_at_the_end_of_a_net_and_of_a_training_that_goes_on(data):
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    with pytest.warns(UserWarning, match="interrupted by user"):
        trained = net("on_train_end", 3, max_epochs=3).fit(X, y)
    assert len(trained.history) == 3
    # That is no end of the next training.
    again = dict(trained.callbacks_)["Interrupts"]
    again.event, again.is_over_ = "on_train_begin", False
    with pytest.raises(KeyboardInterrupt):
        trained.partial_fit(X, y)
    going_on = classifier("on_train_end", 7, warm_start=True).fit(*data)
    with pytest.warns(UserWarning, match="interrupted"):
        assert going_on.set_params(max_epochs=1).fit(*data).n_iter_ == 7


def test_in_the_first_epoch_too(line):
    model = classifier("on_batch_end", 1, kind=BlockGMDRegressor)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(*line)
    assert (model.n_iter_, model.loss_curve_, len(model.history_)) == (0, [], 0)
    # One step of five was taken.
    assert np.isfinite(model.sample_trust_).sum() == 40
    assert model.predict(line[0]).shape == (200,)


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_batch_begin"])
def test_before_the_first_step_there_is_nothing_to_keep(data, event):
    model = classifier(event, 1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert not hasattr(model, "net_")
    fitted = classifier(event, 9).fit(*data)
    before = dict(vars(fitted))
    with pytest.raises(KeyboardInterrupt):
        fitted.set_params(callbacks=[Interrupts(event, 1)]).fit(*data)
    assert fitted.net_ is before["net_"]
    # What goes on has steps already, and keeps them.
    going_on = classifier(event, 7, warm_start=True).fit(*data)
    with pytest.warns(UserWarning, match="interrupted"):
        assert going_on.fit(*data).n_iter_ == 6


@pytest.mark.parametrize(
    ("search", "n_jobs"),
    [(search, None) for search in ("grid", "validate", "pipeline", "refit", "bagging", "boosting")] + [("grid", 2)],
)
def test_whoever_fits_clones_stops(data, search, n_jobs):
    model = classifier()
    meta = {
        "grid": lambda: GridSearchCV(model, {"lr": [0.1, 0.01]}, cv=2, n_jobs=n_jobs),
        "pipeline": lambda: GridSearchCV(
            make_pipeline(StandardScaler(), model), {"blockgmdclassifier__lr": [0.1]}, cv=2
        ),
        # Only what is refitted takes so many epochs.
        "refit": lambda: GridSearchCV(AtRefit(max_epochs=6), {"lr": [0.1]}, cv=2),
        "bagging": lambda: BaggingClassifier(model, n_estimators=2, random_state=0),
        "boosting": lambda: AdaBoostClassifier(model, n_estimators=2, random_state=0),
    }
    fit = partial(cross_validate, model, cv=2) if search == "validate" else meta[search]().fit
    with pytest.raises(KeyboardInterrupt):
        fit(*data)


class AtRefit(BlockGMDClassifier):
    """Is interrupted where it gets all the data."""

    def fit(self, X, y, groups=None):
        if len(X) == 160:
            self.callbacks = [Interrupts()]
        return super().fit(X, y)


def test_a_clone_keeps_what_it_has_and_hands_the_interrupt_on(data):
    model = clone(classifier())
    with pytest.raises(TrainingInterrupted):
        model.fit(*data)
    assert model.n_iter_ == 2
    assert model.score(*data) > 0.5


def net(*args, **settings):
    module = torch.nn.Linear(4, 2).double()
    given = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "batch_size": 40, "verbose": 0}
    return RobustNeuralNetClassifier(module, callbacks=[Interrupts(*args)], **given, **settings)


@pytest.mark.usefixtures("forked")
def test_nets_do_the_same(data):
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    with pytest.warns(UserWarning, match="interrupted by user"):
        trained = net().fit(X, y)
    assert len(trained.history) == 3
    with pytest.raises(KeyboardInterrupt):
        net("on_batch_begin", 1).fit(X, y)
    with pytest.raises(TrainingInterrupted):
        clone(net()).fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(net(), {"lr": [0.1, 0.01]}, cv=2, scoring="accuracy").fit(X, y)


class Derived(EarlyStopping):
    """A user's own way to stop early."""


@pytest.mark.parametrize("kind", [EarlyStopping, Derived])
def test_early_stopping_is_no_interrupt(data, kind):
    model = BlockGMDClassifier(callbacks=[kind("train_loss", patience=1, threshold=0.9)], random_state=0)
    assert model.fit(*data).n_iter_ == 2
    search = GridSearchCV(model, {"lr": [0.1, 0.01]}, cv=2).fit(*data)
    assert search.best_estimator_.n_iter_ == 2
