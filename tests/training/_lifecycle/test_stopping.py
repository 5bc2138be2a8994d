"""Trainings that end by themselves: scores, what is held out, the best epoch, and what goes with it."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LoadInitState, LRScheduler
from skorch.dataset import Dataset, ValidSplit

from fits import states
from naming import without_address
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetRegressor
from skbgmd._utils import limits
from skbgmd.corruption import corrupt_labels
from skbgmd.training._lifecycle.held_out_scores import bounded_likelihood, residual_scores
from skbgmd.training._lifecycle.stopping import StoppingCriterion, stopping_of
from skbgmd.training.networks import MLP

#: Trainings are short here.
pytestmark = pytest.mark.filterwarnings("ignore:max_epochs must be enough:sklearn.exceptions.ConvergenceWarning")


def classifier(**settings):
    given = {"early_stopping": True, "max_epochs": 12, "batch_size": 40, "strength": None, "random_state": 0}
    return BlockGMDClassifier(**{**given, **settings})


def regressor(**settings):
    given = {"early_stopping": True, "max_epochs": 12, "batch_size": 40, "strength": None, "random_state": 0}
    return BlockGMDRegressor(**{**given, **settings})


def assert_same(ours, theirs):
    theirs = theirs if isinstance(theirs, dict) else states(theirs)
    for name, value in states(ours).items():
        np.testing.assert_array_equal(value.numpy(), theirs[name].numpy())


class Keeps(Callback):
    """Keeps the parameters of each epoch."""

    def on_train_begin(self, net, **kwargs):
        self.kept_ = []

    def on_epoch_end(self, net, **kwargs):
        self.kept_.append({name: value.clone() for name, value in net.module_.state_dict().items()})


class Interrupts(Callback):
    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == 6:
            raise KeyboardInterrupt


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_counts_as_a_perceptron_of_scikit_learn_does():
    curve = [0.1, 0.2, 0.205, 0.21, 0.3, 0.3, 0.3, 0.309, 0.1, float("nan"), 0.2]
    criterion, theirs = StoppingCriterion(tol=0.01, n_iter_no_change=4), MLPClassifier(tol=0.01, early_stopping=True)
    theirs.best_validation_score_, theirs.validation_scores_, theirs._no_improvement_count = -np.inf, [], 0
    theirs.coefs_ = theirs.intercepts_ = []
    # scikit-learn 1.7 has weights besides.
    validation = [None] * (len(inspect.signature(theirs._update_no_improvement_count).parameters) - 1)
    criterion.on_train_begin(None)
    best = -np.inf
    for score in curve[:9]:
        theirs._score = lambda *data, score=score, **weights: score
        theirs._update_no_improvement_count(True, *validation)
        criterion.count(score, best)
        best = max(best, score)
        assert criterion.misses_ == theirs._no_improvement_count
    assert criterion.is_over
    criterion.count(curve[9], best)
    assert criterion.misses_ == 5


# ---- what is held out -----------------------------------------------------------------------------------------------


def test_classes_have_their_shares(rng):
    X, y = rng.normal(size=(200, 3)), np.repeat(["a", "b", "c"], [150, 40, 10])
    model = classifier(max_epochs=2).fit(X, y)
    held_out = np.isnan(model.sample_trust_)
    assert [int(held_out[y == label].sum()) for label in "abc"] == [15, 4, 1]
    # The same for the same seed, and others for another.
    assert np.array_equal(held_out, np.isnan(classifier(max_epochs=2).fit(X, y).sample_trust_))
    assert not np.array_equal(held_out, np.isnan(classifier(max_epochs=2, random_state=1).fit(X, y).sample_trust_))


@pytest.mark.parametrize("make", [classifier, regressor])
def test_whole_clients_are_held_out(rng, make):
    X = rng.normal(size=(120, 3))
    y, groups = (X[:, 0] > 0).astype(float), np.arange(120) % 12
    model = make(max_epochs=3, validation_fraction=0.25, batch_size=5).fit(X, y, groups=groups)
    held_out = np.isnan(model.sample_trust_)
    assert sorted({held_out[groups == client].mean() for client in range(12)}) == [0.0, 1.0]
    assert len(set(groups[held_out])) == 3


def test_equal_samples_are_not_merged():
    X = np.repeat(np.eye(3), 20, axis=0)
    y = np.repeat([0, 1, 2], 20)
    held_out = np.isnan(classifier(max_epochs=1, batch_size=256).fit(X, y).sample_trust_)
    assert [int(held_out[y == label].sum()) for label in range(3)] == [2, 2, 2]


def test_weights(data):
    X, y = data
    weight = np.ones(len(X))
    weight[::4] = 0.0
    given = classifier().fit(X, y, sample_weight=weight)
    left = classifier().fit(X[weight > 0], y[weight > 0])
    assert given.validation_scores_ == left.validation_scores_
    assert_same(given, left)
    # Those of held-out samples count in the score, in classification and in regression.
    held_out = np.isnan(left.sample_trust_)
    for make, targets in ((classifier, y), (regressor, X[:, 0])):
        heavy = np.where(np.arange(len(X)) % 2, 1.0, 1e-9)
        model = make(max_epochs=3).fit(X, targets, sample_weight=heavy)
        assert model.validation_scores_ != make(max_epochs=3).fit(X, targets).validation_scores_
        held_out = np.isnan(model.sample_trust_) & (heavy == 1.0)
        assert held_out.any()
        if make is classifier:
            best = model.predict_proba(X[held_out])
            expected = bounded_likelihood(best, (targets[held_out] == "yes").astype(int))
            assert model.best_validation_score_ == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("y", "groups", "settings", "match"),
    [
        (["a"] * 20 + ["b"] * 19 + ["c"], None, {}, "two samples and more of each class.*found 1 sample of class 'c'"),
        (
            np.arange(40) % 10,
            None,
            {},
            "hold out 10 samples or more for as many classes.*n_samples=40, .*=0.1 holds out 4",
        ),
        (np.arange(40) % 2, np.zeros(40), {}, "hold out 1 clients or more, .*n_clients=1, "),
        (np.arange(40) % 2, np.arange(40) % 2, {}, "leave samples of each class to train on; found none of class"),
        (
            [0] * 34 + [1] * 6,
            None,
            {"validation_fraction": 0.95},
            "leave as many to train|leave samples of each",
        ),
    ],
)
def test_too_few_to_hold_some_out(y, groups, settings, match):
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ValueError, match=match):
        classifier(**settings).fit(X, np.asarray(y), groups=groups)
    # A regressor needs two.
    with pytest.raises(ValueError, match=r"hold out 2 samples or more, and leave as many.*n_samples=9, "):
        regressor().fit(X[:9], X[:9, 0])


# ---- the end --------------------------------------------------------------------------------------------------------


def test_wrong_labels_are_not_learnt_by_heart():
    X, y = load_digits(return_X_y=True)
    X, (wrong, _) = StandardScaler().fit_transform(X), corrupt_labels(y[:900], fraction=0.4, random_state=0)
    settings = {"max_epochs": 60, "batch_size": 256, "strength": "mild"}
    whole = classifier(early_stopping=False, **settings).fit(X[:900], wrong)
    model = classifier(**settings).fit(X[:900], wrong)
    assert model.n_iter_ < 60 == whole.n_iter_
    assert model.score(X[900:], y[900:]) > whole.score(X[900:], y[900:]) + 0.1
    # Of 800 samples an epoch has three steps: fifty take 17 epochs.
    assert int(np.argmax(model.validation_scores_)) == model.n_iter_ - 1 - 17


@pytest.mark.parametrize(("batch_size", "patience"), [(40, 13), (20, 10), (1000, 50)])
@pytest.mark.parametrize("how", [True, "loss"], ids=["held out", "loss"])
def test_small_data_have_as_many_steps_to_improve_in(data, how, batch_size, patience):
    X, y = data
    settings = {"early_stopping": how, "max_epochs": 2, "validation_fraction": 0.05, "batch_size": batch_size}
    assert stopping_of(classifier(**settings).fit(X, y).net_).patience == patience
    assert stopping_of(classifier(**settings, n_iter_no_change=3).fit(X, y).net_).patience == 3


def test_gross_targets_do_not_decide():
    X, y = make_friedman1(1500, noise=1.0, random_state=0)
    X, rng = StandardScaler().fit_transform(X), np.random.default_rng(0)
    wrong = y[:1000] + np.where(rng.random(1000) < 0.4, 50.0 + 100.0 * rng.normal(size=1000), 0.0)
    settings = {"max_epochs": 60, "batch_size": 64, "lr": 0.01, "huber": 8.0}
    whole = regressor(early_stopping=False, **settings).fit(X[:1000], wrong)
    model = regressor(**settings).fit(X[:1000], wrong)
    assert model.n_iter_ < 60
    assert model.score(X[1000:], y[1000:]) > whole.score(X[1000:], y[1000:]) + 0.1


@pytest.mark.parametrize("make", [classifier, regressor])
def test_parameters_are_those_of_the_best_epoch(data, make):
    X, y = data
    y = X[:, 0] + np.cos(40.0 * X[:, 1]) if make is regressor else y
    tol = 0.02 if make is regressor else 0.0
    model = make(max_epochs=80, lr=0.1, n_iter_no_change=4, tol=tol, callbacks=[("keeps", Keeps())]).fit(X, y)
    scores, kept = model.validation_scores_, dict(model.net_.callbacks_)["keeps"].kept_
    best = int(np.argmax(scores))
    assert best < model.n_iter_ - 1
    assert len(scores) == len(kept) == model.n_iter_ < 80
    assert model.best_validation_score_ == max(scores)
    assert_same(model, kept[best])
    assert model.history_[:, "validation_score"] == scores
    # Of residuals there are several scores, each of which may have improved at another epoch.
    assert model.n_iter_ == best + 1 + 4 or make is regressor


def test_scores_of_all_epochs_have_one_scale(line):
    X, y = line
    y = y + np.random.default_rng(0).standard_cauchy(len(y))
    model = regressor(max_epochs=15, callbacks=[("keeps", Keeps())]).fit(X, y)
    held_out, twin = np.isnan(model.sample_trust_), copy.deepcopy(model)
    residuals = []
    for parameters in dict(model.net_.callbacks_)["keeps"].kept_:
        twin.module_.load_state_dict(parameters)
        residuals.append(np.abs(twin.predict(X[held_out]) - y[held_out]))
    residuals = np.array(residuals)[:, :, None]
    scores = residual_scores(residuals) + residual_scores(residuals / model._scale, limits.MISSED_TARGET)
    np.testing.assert_allclose(model.validation_scores_, scores, rtol=1e-9)


@pytest.fixture(scope="module")
def rare():
    """A switch that turns a feature up in one of twenty samples."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1400, 6))
    X[:, 0] = rng.random(1400) < 0.05
    return StandardScaler().fit_transform(X), X[:, 1] + 25.0 * X[:, 0] * X[:, 2]


@pytest.mark.parametrize(
    "settings", [{"strength": "mild"}, {"aggregator": "mean", "group_size": None}], ids=["robust", "plain"]
)
def test_rules_of_few_samples_are_learnt_before_it_ends(rare, settings):
    X, y = rare
    given = {"max_epochs": 100, "batch_size": 128, **settings}
    model = regressor(**given).fit(X[:700], y[:700])
    whole = regressor(early_stopping=False, **given).fit(X[:700], y[:700])
    assert model.score(X[700:], y[700:]) > whole.score(X[700:], y[700:]) - 0.1 > 0.6
    # Far ones that inputs tell have their share of what is held out.
    held_out, far = np.isnan(model.sample_trust_), np.abs(y[:700]) > 6.0
    assert (held_out & far).sum() == pytest.approx(0.1 * far.sum(), abs=1.5)


class OfTensors(Dataset):
    """One that keeps inputs as tensors."""

    def __init__(self, X, y=None):
        super().__init__(torch.as_tensor(X), y)


def test_inputs_are_looked_at_whatever_a_dataset_makes_of_them(rare):
    X, y = rare[0][:300].astype(np.float32), rare[1][:300]
    models = []
    for dataset in (OfTensors, Dataset):
        net = RobustNeuralNetRegressor(MLP, dataset=dataset, module__n_features=6, module__n_outputs=1, max_epochs=5)
        net.set_params(train_split=None, verbose=0)
        models.append(BlockGMDRegressor(net, early_stopping=True, random_state=0).fit(X, y))
    assert models[0].validation_scores_ == models[1].validation_scores_


def test_noise_that_inputs_tell_is_not_waited_for_to_the_end():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4))
    y = X[:, 0] + np.where(X[:, 1] > 1.2, 100.0, 0.1) * rng.choice((-1.0, 1.0), size=600)
    model = regressor(strength="mild", max_epochs=400, batch_size=200).fit(X, y)
    assert 100 <= model.n_iter_ < 200


def test_epochs_without_a_finite_score_are_no_improvement():
    criterion = StoppingCriterion(n_iter_no_change=3)
    criterion.on_train_begin(None)
    for _ in range(3):
        criterion.count([-np.inf, float("nan")], [-np.inf, -np.inf])
    assert criterion.is_over


def test_no_epoch_is_waited_for_that_gross_targets_would_need(rare):
    X, y = rare
    gross = y[:700].copy()
    rng = np.random.default_rng(0)
    gross[rng.permutation(700)[:70]] += 200.0 * rng.choice((-1.0, 1.0), size=70)
    model = regressor(max_epochs=300, batch_size=128, lr=0.02).fit(np.delete(X[:700], 0, axis=1), gross)
    assert model.n_iter_ < 300


def test_several_targets(line):
    X, y = line
    model = regressor(max_epochs=5).fit(X, np.c_[y, 1e6 * X[:, 0]])
    assert len(model.validation_scores_) == 5
    assert np.diff(model.validation_scores_).max() > 0


def test_the_loss_ends_it_too(data):
    X, y = data
    model = classifier(early_stopping="loss", max_epochs=60, lr=0.1, n_iter_no_change=3, tol=0.02).fit(X, y)
    losses = model.loss_curve_
    best = np.minimum.accumulate(losses)
    misses = [loss > before - 0.02 for loss, before in zip(losses[1:], best, strict=False)]
    assert len(losses) < 60
    assert all(misses[-3:])
    assert not any(all(misses[at : at + 3]) for at in range(len(misses) - 3))
    assert model.validation_scores_ is model.best_validation_score_ is None
    assert np.isfinite(model.sample_trust_).all()
    # It is the same training.
    assert_same(model, classifier(early_stopping=False, max_epochs=len(losses), lr=0.1).fit(X, y))


@pytest.mark.filterwarnings("default")
def test_warns_of_far_targets_that_are_yet_to_be_predicted(data):
    X, _ = data
    y = X[:, 0] + np.where(X[:, 1] > 1.0, 100.0, 0.0) * np.sign(X[:, 2])
    with pytest.warns(ConvergenceWarning, match="found 30, which don't predict far targets yet"):
        regressor(strength="mild", max_epochs=30, n_iter_no_change=5).fit(X, y)


@pytest.mark.filterwarnings("default")
def test_warns_where_max_epochs_come_first(data):
    X, y = data
    for stopping in (True, "loss"):
        with pytest.warns(ConvergenceWarning, match="max_epochs must be enough.*found 3"):
            classifier(early_stopping=stopping, max_epochs=3, n_iter_no_change=2).fit(X, y)
        with pytest.warns(ConvergenceWarning, match="found 3, where one ends after 13 without an improvement"):
            classifier(early_stopping=stopping, max_epochs=3).fit(X, y)
        with pytest.warns(ConvergenceWarning) as caught:
            classifier(early_stopping=stopping, max_epochs=3).fit(X, y)
        assert caught[0].filename == __file__
    model = classifier(max_epochs=3, warm_start=True)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="found 3"):
            model.fit(X, y)


@pytest.mark.filterwarnings("error")
def test_no_other_training_is_warned_of(data):
    X, y = data
    classifier(early_stopping=False, max_epochs=2).fit(X, y)
    classifier(max_epochs=40, lr=0.1, n_iter_no_change=2).fit(X, y)
    classifier(early_stopping="loss", max_epochs=2).partial_fit(X, y, classes=["no", "yes"])
    # A callback's own end is one.
    stop = EarlyStopping("valid_loss", patience=1, threshold=9.0, threshold_mode="abs")
    assert classifier(max_epochs=9, callbacks=[stop]).fit(X, y).n_iter_ < 9


# ---- what goes with it ----------------------------------------------------------------------------------------------


def test_randomness(data):
    X, y = data
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert_same(classifier().fit(X, y), classifier().fit(X, y))
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])
    np.testing.assert_array_equal(before[1], torch.get_rng_state())


def test_warm_start_holds_the_same_out(data):
    X, y = data
    model = classifier(max_epochs=4, warm_start=True).fit(X, y)
    held_out, first = np.isnan(model.sample_trust_), model.validation_scores_
    model.fit(X, y)
    np.testing.assert_array_equal(held_out, np.isnan(model.sample_trust_))
    assert model.validation_scores_[:4] == first
    assert len(model.validation_scores_) == 8
    assert model.best_validation_score_ == max(model.validation_scores_[4:])
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        model.set_params(early_stopping=False).partial_fit(X, y)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_partial_fit(data, make):
    X, y = data[0], (data[1] == "yes").astype(int)
    classes = {"classes": [0, 1]} if make is classifier else {}
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        make().partial_fit(X, y, **classes)
    model = make(early_stopping="loss", n_iter_no_change=1, tol=9.0)
    for _ in range(3):
        model.partial_fit(X, y, **classes)
    assert model.n_iter_ == 3


def test_callbacks_of_a_users_own_see_every_epoch(data):
    X, y = data
    scoring = EpochScoring("accuracy", lower_is_better=False, name="mine")
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.9)
    callbacks = [("mine", scoring), ("schedule", schedule), ("keeps", Keeps())]
    model = classifier(max_epochs=40, n_iter_no_change=2, tol=0.05, callbacks=callbacks, verbose=0).fit(X, y)
    assert model.n_iter_ < 40
    assert len(model.history_[:, "mine"]) == len(model.history_[:, "valid_loss"]) == model.n_iter_
    assert len(dict(model.net_.callbacks_)["keeps"].kept_) == model.n_iter_
    assert [name for name, _ in callbacks] == [name for name, _ in model.callbacks]
    stop = EarlyStopping("valid_loss", patience=2, threshold=9.0, threshold_mode="abs")
    assert classifier(callbacks=[("stop", stop)]).fit(X, y).n_iter_ == 3


def test_it_is_told_of(data, capsys):
    classifier(max_epochs=40, n_iter_no_change=2, tol=0.05, verbose=1).fit(*data)
    told = capsys.readouterr().out
    assert "validation_score" in told
    assert "Nothing has improved for 2 epochs: the training is over." in told


@pytest.mark.parametrize("raises", [False, True])
def test_an_interrupt_keeps_the_best_epoch(data, raises):
    X, y = data

    class Signals(Interrupts):
        def on_batch_end(self, net, training=False, **kwargs):
            if training and len(net.history) == 6 and not raises:
                os.kill(os.getpid(), signal.SIGINT)
            super().on_batch_end(net, training=training, **kwargs)

    model = classifier(lr=0.1, callbacks=[("keeps", Keeps()), ("interrupts", Signals())])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert model.n_iter_ == len(model.validation_scores_) == 5
    kept = dict(model.net_.callbacks_)["keeps"].kept_
    assert_same(model, kept[int(np.argmax(model.validation_scores_))])


@pytest.mark.usefixtures("forked")
def test_goes_with_scikit_learn(data):
    X, y = data
    model = classifier(max_epochs=5)
    twin = pickle.loads(pickle.dumps(model.fit(X, y)))
    assert twin.validation_scores_ == model.validation_scores_
    assert twin.best_validation_score_ == model.best_validation_score_
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    assert_same(
        twin.set_params(warm_start=True).fit(X, y), clone(model).set_params(warm_start=True).fit(X, y).fit(X, y)
    )
    data = skops.io.dumps(model)
    loaded = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    assert loaded.best_validation_score_ == model.best_validation_score_
    # Whatever it is a copy of, a training ends by itself.
    settings = {"warm_start": True, "n_iter_no_change": 2, "tol": 9.0}
    first = clone(model).set_params(**settings).fit(X, y)
    for other in (loaded, first, pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        n = other.n_iter_
        with pytest.warns(UserWarning, match="n_iter_no_change=2") if other is loaded else nullcontext():
            assert other.set_params(**settings).fit(X, y).n_iter_ == n + (5 if other is loaded else 3)
    net = clone(first.net_).set_params(max_epochs=9, verbose=0)
    net.fit(X.astype(np.float64), (y == "yes").astype(int))
    assert len(net.history) == 3
    pipeline = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    assert len(pipeline[-1].validation_scores_) == 5
    search = GridSearchCV(model, {"tol": [0.0, 9.0], "n_iter_no_change": [2]}, cv=2).fit(X, y)
    assert search.best_estimator_.n_iter_ <= 5
    with pytest.raises(AttributeError):
        classifier().validation_scores_  # noqa: B018


# Equal samples may be held out or trained on, each by itself; and partial_fit refuses. Whole trainings go through the
# checks elsewhere: these have the fewest epochs for which anything is chosen.
EXCEPT = {"check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"}
CHECKS = [
    (estimator, check)
    for kind in (BlockGMDClassifier, BlockGMDRegressor)
    for estimator, check in estimator_checks_generator(
        kind(early_stopping=True, validation_fraction=0.3, max_epochs=limits.CHOICE_LEAST_EPOCHS)
    )
    if getattr(check, "func", check).__name__ not in EXCEPT
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_estimator_checks(estimator, check):
    before = np.random.get_state()
    try:
        check(estimator)
    except ValueError as error:
        if "partial_fit does not support" not in str(error):
            raise
    finally:
        np.random.set_state(before)


class Net(torch.nn.Module):
    def __init__(self, n_outputs=2):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs))

    def forward(self, X):
        return self.layers(X.float())


def test_a_skorch_net_as_the_module(data):
    X, y = data
    settings = {"criterion": torch.nn.CrossEntropyLoss, "lr": 0.1, "max_epochs": 8, "verbose": 0, "batch_size": 40}
    for callbacks in (None, "disable", [("keeps", Keeps())]):
        net = NeuralNetClassifier(Net, train_split=None, callbacks=callbacks, **settings)
        model = BlockGMDClassifier(net, early_stopping=True, random_state=0).fit(X, y)
        assert len(model.validation_scores_) == len(model.loss_curve_) == 8
        assert net.callbacks == callbacks
        assert net.train_split is None
        assert {"train_loss", "valid_loss"} <= set(model.history_[-1]) or callbacks == "disable"
    with pytest.raises(ValueError, match=r"train_split of the net that is the module must be None.*=True"):
        BlockGMDClassifier(NeuralNetClassifier(Net, **settings), early_stopping=True).fit(X, y)
    ours = NeuralNetRegressor(Net, module__n_outputs=1, train_split=None, max_epochs=4, verbose=0)
    assert len(BlockGMDRegressor(ours, early_stopping=True).fit(X, X[:, 0]).validation_scores_) == 4


@pytest.mark.usefixtures("forked")
def test_losses_and_modules_of_other_kinds(data):
    X, y = data
    binary = classifier(module=Net(1), criterion=torch.nn.BCEWithLogitsLoss, max_epochs=3).fit(X, y)
    assert max(binary.validation_scores_) < 0.1
    margins = classifier(module=Net, criterion=torch.nn.MultiMarginLoss, max_epochs=3).fit(X, y)
    assert all(0.0 <= score <= 1.0 for score in margins.validation_scores_)


class Loader(torch.utils.data.DataLoader):
    """One that knows nothing of weights."""


def test_a_loader_of_ones_own(data):
    X, y = data
    weight = np.arange(1.0, 161.0)
    net = NeuralNetClassifier(Net, criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=3)
    ours = BlockGMDClassifier(net, early_stopping=True, random_state=0).fit(X, y, sample_weight=weight)
    net.set_params(iterator_valid=Loader)
    own = BlockGMDClassifier(net, early_stopping=True, random_state=0).fit(X, y, sample_weight=weight)
    assert own.validation_scores_ == ours.validation_scores_


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def checkpointed(folder, make=classifier, **settings):
    checkpoint = Checkpoint(monitor=None, dirname=str(folder))
    return make(callbacks=[("checkpoint", checkpoint), ("load", LoadInitState(checkpoint))], **settings)


def test_a_training_that_is_over_stays_so(data, tmp_path):
    settings = {"max_epochs": 40, "lr": 0.1, "n_iter_no_change": 3}
    whole = checkpointed(tmp_path, **settings).fit(*data)
    assert whole.n_iter_ < 40
    again = checkpointed(tmp_path, random_state=5, **settings).fit(*data)
    assert again.validation_scores_ == whole.validation_scores_
    assert_same(again, whole)
    # More patience is a reason to go on.
    more = checkpointed(tmp_path, **{**settings, "n_iter_no_change": 5}).fit(*data)
    assert more.n_iter_ >= whole.n_iter_ + 2
    assert more.validation_scores_[: whole.n_iter_] == whole.validation_scores_


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"early_stopping": "score"}, ValueError, "early_stopping must be True, False or \"loss\"; found 'score'"),
        ({"early_stopping": 1}, ValueError, "early_stopping must be True, False"),
        ({"early_stopping": None}, ValueError, "early_stopping must be True, False"),
        ({"validation_fraction": 0.0}, ValueError, "validation_fraction must be between 0 and 1"),
        ({"validation_fraction": 1}, ValueError, "validation_fraction must be between 0 and 1"),
        ({"validation_fraction": "a"}, TypeError, "validation_fraction must be a number"),
        ({"n_iter_no_change": "often"}, TypeError, "n_iter_no_change must be an integer"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
        ({"n_iter_no_change": 1.5}, TypeError, "n_iter_no_change must be an integer"),
        ({"tol": -1.0}, ValueError, "tol must be at least 0"),
        (
            {"train_split": ValidSplit(5)},
            ValueError,
            "train_split of the estimator must be None with early_stopping=True",
        ),
    ],
)
@pytest.mark.parametrize("make", [classifier, regressor])
def test_parameters(data, make, settings, error, match):
    with pytest.raises(error, match=match):
        make(**settings).fit(data[0], data[0][:, 0] > 0)


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (EarlyStopping(), "valid_loss"),
        (EarlyStopping("valid_acc", lower_is_better=False), "valid_acc"),
        (Checkpoint(), "valid_loss_best"),
        (LRScheduler("ReduceLROnPlateau", monitor="valid_loss"), "valid_loss"),
    ],
    ids=without_address,
)
def test_callbacks_without_held_out_data(data, tmp_path, callback, name):
    X, y = data
    if isinstance(callback, Checkpoint):
        callback.set_params(dirname=str(tmp_path))
    for stopping in (False, "loss"):
        model = classifier(early_stopping=stopping, callbacks=[callback])
        match = rf"train_split must hold out data.*{type(callback).__name__} to monitor '{name}'.*early_stopping=True"
        with pytest.raises(ValueError, match=match):
            model.fit(X, y)
        assert not hasattr(model, "net_")
    assert len(classifier(callbacks=[callback], max_epochs=3).fit(X, y).history_) > 1
    split = ValidSplit(4, stratified=True)
    assert len(classifier(early_stopping=False, train_split=split, callbacks=[callback]).fit(X, y).history_) > 1


def test_callbacks_that_are_served_otherwise(data):
    X, y = data

    class Records(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("valid_loss", 1.0)

    own = classifier(early_stopping=False, max_epochs=3, callbacks=[Records(), EarlyStopping()]).fit(X, y)
    assert own.n_iter_ == 3
    scoring = EpochScoring("accuracy", on_train=True, name="valid_acc")
    given = [("scoring", scoring), ("stop", EarlyStopping("valid_acc"))]
    assert classifier(early_stopping=False, max_epochs=3, callbacks=given).fit(X, y).n_iter_ == 3
    assert stopping_of(own.net_) is None
