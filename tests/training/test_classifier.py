"""The estimators, as users of scikit-learn meet them."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset, ValidSplit

from fits import Fails, quick, states
from grams import gram_sizes
from nets import Narrow
from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd._utils import limits
from skbgmd.aggregators import AGGREGATORS, Krum
from skbgmd.corruption import BitFlip, GaussianNoise
from skbgmd.ghost import GhostRows
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.training.classifier import _codes


def test_fit_and_predict(data):
    X, y = data
    model = quick(max_epochs=40, lr=0.03).fit(X, y)
    assert model.classes_.tolist() == ["no", "yes"]
    assert set(model.predict(X)) <= {"no", "yes"}
    assert model.score(X, y) > 0.93
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert model.n_iter_ == len(model.loss_curve_) == len(model.history_) == 40
    assert model.sample_trust_.shape == (160,)
    assert "selected_mass" not in model.history_[-1]
    assert 0.5 < quick(beta=0.5).fit(X, y).history_[-1]["selected_mass"] < 1.0
    assert "BlockGMDClassifier" in model._repr_html_()


@pytest.mark.parametrize("random_state", [0, None, "instance"])
def test_randomness(data, random_state):
    X, y = data
    results, before = [], (np.random.get_state()[1].copy(), torch.random.get_rng_state())
    for _ in range(2):
        given = np.random.RandomState(3) if random_state == "instance" else random_state
        model = quick(random_state=given, gradient_corruption=BitFlip(0.3), beta=0.5, selection="sample").fit(X, y)
        results.append(model.predict_proba(X))
    assert np.array_equal(*results) == (random_state is not None)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.random.get_rng_state())


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_in_a_pipeline(data, n_jobs):
    X, y = data
    pipe = make_pipeline(StandardScaler(), GaussianNoise(0.2, random_state=0), quick(max_epochs=3))
    grid = {"blockgmdclassifier__beta": [0.2, 1.0], "blockgmdclassifier__lr": [1e-6, 0.02]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=n_jobs).fit(X, y)
    assert search.best_params_["blockgmdclassifier__lr"] == 0.02
    scores = search.cv_results_["mean_test_score"].tolist()
    seen = test_grid_search_in_a_pipeline.__dict__.setdefault("scores", scores)
    assert scores == seen  # of the other number of jobs


def test_pickle_and_clone(data):
    X, y = data
    model = quick(optimizer__weight_decay=0.1, aggregator=Krum()).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    copied = clone(model)
    assert copied.get_params()["optimizer__weight_decay"] == 0.1
    assert copied.aggregator is not model.aggregator
    assert not hasattr(copied, "net_")


@pytest.mark.parametrize("method", ["fit", "warm", "partial_fit"])
def test_a_failed_fit_leaves_everything_as_it_was(data, method):
    X, y = data
    model = quick(callbacks=[Fails()], warm_start=method == "warm").fit(X, y)
    before, attributes = model.predict_proba(X), {**vars(model)}
    Fails.armed = True
    try:
        with pytest.raises(RuntimeError, match="in the middle"):
            (model.partial_fit if method == "partial_fit" else model.fit)(X[:, ::-1].copy(), y)
    finally:
        Fails.armed = False
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert {**vars(model)} == attributes
    with pytest.raises(ValueError, match="beta must be"):
        model.set_params(beta=2.0).fit(X[:, :2], y)
    assert model.n_features_in_ == 4


@pytest.mark.parametrize("estimator", [BlockGMDClassifier, BlockGMDRegressor])
def test_a_failed_fit_on_other_features_leaves_their_number_and_names(rng, estimator):
    X = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    y = np.arange(40) % 2
    model = estimator(max_epochs=2, random_state=0).fit(X, y)
    other = X[["a", "b"]].rename(columns={"a": "u", "b": "v"})
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        model.fit(other, y, sample_weight=np.full(40, -1.0))
    assert model.n_features_in_ == 3
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    model.predict(X)


def test_warm_start_and_partial_fit(data):
    X, y = data
    model = quick(warm_start=True, max_epochs=3).fit(X, y)
    first = states(model)
    model.fit(X, y)
    assert model.n_iter_ == 6
    assert not torch.equal(states(model)["0.weight"], first["0.weight"])
    with pytest.raises(ValueError, match="classes of the last fit"):
        model.fit(X, np.where(y == "yes", "maybe", y))
    parts = quick()
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        parts.partial_fit(X, y)
    for _ in range(5):
        parts.partial_fit(X[:50], y[:50], classes=["yes", "no", "other"])
    assert parts.n_iter_ == 5
    assert parts.predict_proba(X).shape == (160, 3)
    with pytest.raises(ValueError, match=r"y must have labels among the classes .*; found \['new'\]"):
        parts.partial_fit(X, np.full(160, "new"))
    with pytest.raises(ValueError, match="balanced"):
        quick(class_weight="balanced").partial_fit(X, y, classes=["no", "yes"])


def test_class_weights(rng):
    X = rng.normal(size=(300, 2))
    y = (X[:, 0] + rng.normal(size=300) > 1.5).astype(int)
    plain, balanced, given = (
        quick(class_weight=weight, max_epochs=30).fit(X, y).predict(X).mean()
        for weight in (None, "balanced", {0: 1.0, 1: 20.0})
    )
    assert plain < balanced < given


def test_integer_weights_are_repetitions(data):
    X, y = data[0][:60], data[1][:60]
    weight = np.random.default_rng(1).integers(0, 3, size=60)
    weighted = quick().fit(X, y, sample_weight=weight)
    repeated = quick().fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9)
    assert np.isnan(weighted.sample_trust_[weight == 0]).all()
    assert (weighted.sample_trust_[weight > 0] > 0.0).all()


def test_images_and_modules(rng, forked):
    X = rng.normal(size=(60, 1, 6, 6)).astype(np.float32)
    y = (X.mean(axis=(1, 2, 3)) > 0).astype(int)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 2))
    before = copy.deepcopy(module.state_dict())
    model = quick(module=module, batch_size=32, max_epochs=30).fit(X, y)
    assert model.score(X, y) > 0.8
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    np.testing.assert_allclose(model.predict_proba(torch.from_numpy(X)), model.predict_proba(X))
    with pytest.raises(ValueError, match="dim 4"):
        quick().fit(X, y)


class Words(torch.nn.Module):
    def __init__(self, n_words=5):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(n_words, 3), torch.nn.Linear(3, 2)

    def forward(self, X):
        return self.last(self.table(X).mean(dim=1))


def test_integers_for_an_embedding(rng, forked):
    X = rng.integers(0, 9, size=(100, 4))
    y = (X.sum(axis=1) > 16).astype(int)
    model = quick(module=Words(9), max_epochs=40, lr=0.05).fit(X, y)
    assert model.score(X, y) > 0.8


def test_a_class_of_modules(data):
    X, y = data

    class Net(torch.nn.Sequential):
        def __init__(self, width=3):
            super().__init__(torch.nn.Linear(4, width), torch.nn.Linear(width, 2))

    assert quick(module=Net, module__width=7).fit(X, y).module_[0].out_features == 7


def test_a_skorch_net_is_wrapped(data, forked):
    X, y = data
    module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Softmax(dim=-1))
    net = NeuralNetClassifier(module, lr=0.5, batch_size=33, max_epochs=7, train_split=None, verbose=0)
    model = BlockGMDClassifier(net, random_state=0, aggregator="krum").fit(X, y)
    assert (model.net_.lr, model.net_.batch_size, model.n_iter_) == (0.5, 33, 7)
    assert isinstance(model.net_, NeuralNetClassifier)
    assert not net.initialized_
    assert model.set_params(module__max_epochs=2).fit(X, y).n_iter_ == 2
    pickle.loads(pickle.dumps(model)).predict(X)
    with pytest.raises(ValueError, match="unfitted skorch net"):
        BlockGMDClassifier(net.initialize()).fit(X, y)


@pytest.mark.parametrize(
    "settings",
    [
        *({"aggregator": name} for name in AGGREGATORS),
        {"memory": "weighted", "beta": 0.5},
        {"memory": "mean", "beta": 0.5},
        {"pre_aggregation": "nearest"},
    ],
    ids=str,
)
def test_every_rule_trains(data, settings):
    assert quick(max_epochs=60, group_size=8, lr=0.02, **settings).fit(*data).score(*data) > 0.85


def test_trust_tells_wrong_labels(data):
    X, y = data
    bad = np.arange(160) % 4 == 0
    y = np.where(bad, np.where(y == "yes", "no", "yes"), y)
    model = quick(group_size=1, huber=1.0, max_epochs=60).fit(X, y)
    assert model.sample_trust_[bad].mean() < 0.8 * model.sample_trust_[~bad].mean()


def test_clients(rng):
    X = rng.normal(size=(200, 3))
    y = (X[:, 0] > 0).astype(int)
    clients = np.arange(200) % 10
    wrong = clients >= 7
    flipped = np.where(wrong, 1 - y, y)
    model = quick(batch_size=20, max_epochs=80, local_steps=2, group_size=1).fit(X, flipped, groups=clients)
    assert model.score(X, y) > 0.9
    assert model.sample_trust_[wrong].max() < model.sample_trust_[~wrong].min()
    with pytest.raises(ValueError, match="must have shape"):
        model.fit(X, y, groups=clients[:10])


def test_data_frames(data):
    X, y = data
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = quick().fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(frame), quick().fit(X, y).predict(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_of_the_data(data, dtype):
    model = quick().fit(data[0].astype(dtype), data[1])
    assert model.predict_proba(data[0]).dtype == dtype
    assert next(model.module_.parameters()).dtype == (torch.float32 if dtype == np.float32 else torch.float64)


def test_real_data_clean_and_corrupt():
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    assert BlockGMDClassifier(random_state=0).fit(X, y).score(X, y) > 0.95
    X, y = load_digits(return_X_y=True)
    corrupt = BlockGMDClassifier(gradient_corruption=BitFlip(0.4), max_epochs=5, random_state=0)
    assert corrupt.fit(X[:1200] / 16, y[:1200]).score(X[1200:] / 16, y[1200:]) > 0.8
    plain = clone(corrupt).set_params(aggregator="mean").fit(X[:1200] / 16, y[:1200])
    assert plain.score(X[1200:] / 16, y[1200:]) < 0.4


def test_on_a_cuda_device_as_on_the_processor(data, cuda):
    here, there = (quick(device=device, max_epochs=10).fit(*data) for device in ("cpu", str(cuda)))
    np.testing.assert_allclose(there.predict_proba(data[0]), here.predict_proba(data[0]), atol=1e-3)


def test_warm_start_goes_on_for_as_many_epochs_as_it_is_told_now(rng):
    X = rng.normal(size=(60, 3))
    model = BlockGMDClassifier(max_epochs=2, warm_start=True, random_state=0).fit(X, X[:, 0] > 0)
    assert model.set_params(max_epochs=5).fit(X, X[:, 0] > 0).n_iter_ == 7


@pytest.mark.parametrize("batch_size", [40, 60, 100])
def test_what_is_held_out_does_not_depend_on_the_batch_size(batch_size, rng):
    X, seen = rng.normal(size=(60, 3)).astype(np.float32), []

    def last(dataset, y, **kwargs):
        seen.append(np.asarray(dataset.X))
        return torch.utils.data.Subset(dataset, range(50)), torch.utils.data.Subset(dataset, range(50, 60))

    BlockGMDClassifier(max_epochs=1, batch_size=batch_size, train_split=last, random_state=0).fit(X, X[:, 0] > 0)
    np.testing.assert_array_equal(seen[0], X)


def test_what_was_trained_before_an_interrupt_is_kept(rng):
    class Interrupt(Callback):
        def on_batch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    X = rng.normal(size=(60, 3))
    model = BlockGMDClassifier(max_epochs=9, callbacks=[Interrupt()], random_state=0)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, X[:, 0] > 0)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert len(model.predict(X)) == 60


def test_a_binary_skorch_net_as_the_module(rng):
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(3, 1)

        def forward(self, x):
            return self.last(x)[:, 0]

    X = rng.normal(size=(200, 3)).astype(np.float32)
    y = np.where(X[:, 0] > 0, "yes", "no")
    net = NeuralNetBinaryClassifier(Line, lr=0.5, max_epochs=20, train_split=None, verbose=0)
    model = BlockGMDClassifier(net, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.predict_proba(X).shape == (200, 2)


def test_epochs_are_counted_without_callbacks_too(rng):
    X = rng.normal(size=(60, 3))
    assert BlockGMDClassifier(max_epochs=3, callbacks="disable", random_state=0).fit(X, X[:, 0] > 0).n_iter_ == 3


class Flat(torch.nn.Module):
    """A module that gives one number a sample, without an axis for it."""

    def __init__(self, n_features=3):
        super().__init__()
        self.layer = torch.nn.Linear(n_features, 1)

    def forward(self, X):
        return self.layer(X).squeeze(-1)


@pytest.mark.parametrize("group_size", [1, 8, None])
@pytest.mark.parametrize("train_split", [None, ValidSplit(4)])
def test_modules_without_an_axis_of_outputs(line, group_size, train_split):
    """Targets have the shape of what is predicted: none is compared with all predictions."""
    X, y = line
    settings = {"lr": 0.05, "max_epochs": 30, "group_size": group_size, "train_split": train_split, "random_state": 0}
    model = BlockGMDRegressor(Flat, **settings).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.partial_fit(X, y[:, None]).predict(X).shape == (200, 1)
    alike = BlockGMDRegressor(WithAxis, **settings).fit(X, y)
    np.testing.assert_allclose(alike.loss_curve_, model.loss_curve_[:30], rtol=1e-3, atol=1e-6)


class WithAxis(Flat):
    def forward(self, X):
        return self.layer(X)


def test_outputs_must_suit_the_targets(line, data, forked):
    X, y = line
    with pytest.raises(ValueError, match=r"each target, shape \(n_samples, 1\); found shape \(n_samples, 2\)"):
        BlockGMDRegressor(torch.nn.Linear(3, 2), max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"each target, shape \(n_samples, 2\); found shape \(n_samples\)"):
        BlockGMDRegressor(Flat, max_epochs=1).fit(X, np.stack([y, y], axis=1))

    class Gaussian(torch.nn.Module):
        """A loss of another number of outputs than targets."""

        def forward(self, predicted, target):
            mean, log_scale = predicted.split(1, dim=1)
            return (((target - mean) / log_scale.exp()).square() / 2 + log_scale).mean()

    model = BlockGMDRegressor(torch.nn.Linear(3, 2), criterion=Gaussian, group_size=8, max_epochs=100, lr=0.05)
    assert model.set_params(random_state=0).fit(X, y).score(X, y) > 0.9
    X, y = data
    for n in (1, 3):
        message = rf"each of the 2 classes, shape \(n_samples, 2\); found shape \(n_samples, {n}\)"
        with pytest.raises(ValueError, match=message):
            quick(module=torch.nn.Linear(4, n)).fit(X, y)


@pytest.mark.parametrize("criterion", [torch.nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss(), torch.nn.BCELoss])
@pytest.mark.parametrize("group_size", [1, 8])
def test_binary_losses(data, criterion, group_size, forked):
    X, y = data
    layers = [torch.nn.Linear(4, 1), torch.nn.Sigmoid()]
    own = torch.nn.Sequential(*layers[: 1 + (criterion is torch.nn.BCELoss)])
    modules = [own] if criterion is torch.nn.BCELoss else [own, None]
    for module in modules:
        settings = {"criterion": criterion, "group_size": group_size, "lr": 0.05, "max_epochs": 60}
        model = quick(module=module, **settings).fit(X, y)
        assert model.score(X, y) > 0.93
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0, rtol=1e-6)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        with pytest.raises(ValueError, match="two classes for a binary loss; found 3"):
            quick(module=module, criterion=criterion).fit(X, np.arange(160) % 3)


@pytest.mark.parametrize("wraps", [False, True])
def test_weights_and_clients_are_not_lost_in_loaders(data, wraps, forked):
    """What batches aren't known by is refused, rather than trained without."""
    X, y = data[0].astype(np.float32), data[1]
    if wraps:
        net = NeuralNetClassifier(torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None)
        model = quick(module=net.set_params(iterator_train=torch.utils.data.dataloader.DataLoader, verbose=0))
        model.module.set_params(iterator_train__sampler=range(160))
    else:
        model = quick(iterator_train__sampler=range(160), iterator_train__stratify=None, shuffle=False)
    assert np.isnan(model.fit(X, y).sample_trust_).all()
    weight = np.arange(160.0)
    model.set_params(group_size=1)
    for given, name in (({"sample_weight": weight}, "weights"), ({"groups": weight // 40}, "clients")):
        with pytest.raises(ValueError, match=f"iterator_train must be an ArrayLoader.*to have {name}"):
            model.fit(X, y, **given)
    (model.module if wraps else model).set_params(train_split=ValidSplit(4))
    with pytest.raises(ValueError, match="to have weights"):
        model.fit(X, y, sample_weight=weight)


def test_losses_without_the_callback_that_records_them(data):
    X, y = data
    silent = quick(callbacks__train_loss=None).fit(X, y)
    np.testing.assert_allclose(silent.loss_curve_, quick().fit(X, y).loss_curve_, rtol=1e-6)


def test_a_warm_net_takes_its_own_new_settings(data, forked):
    X, y = data[0].astype(np.float32), data[1]
    net = NeuralNetClassifier(
        torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, max_epochs=4, train_split=None, verbose=0
    )
    model = quick(module=net, warm_start=True).fit(X, y)
    assert model.partial_fit(X, y).n_iter_ == 5
    assert model.fit(X, y).n_iter_ == 9
    assert model.set_params(module__max_epochs=2).fit(X, y).n_iter_ == 11


class Halved(Dataset):
    """A kind of data of the user's own."""

    def transform(self, X, y):
        return super().transform(X / 2, y)


def test_nets_with_a_kind_of_data_of_their_own(data, forked):
    """What is predicted of is made the same as what was trained on."""
    X, y = data[0].astype(np.float32), data[1]
    net = NeuralNetClassifier(
        torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, lr=0.5, train_split=None, verbose=0, dataset=Halved
    )
    model = quick(module=net).fit(X, y)
    plain = quick(module=net.set_params(dataset=Dataset)).fit(X / 2, y)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X / 2), rtol=1e-5)
    with pytest.raises(ValueError, match="dataset must be a class"):
        quick(module=net.set_params(dataset=Dataset(X, y))).fit(X, y)


def test_what_else_data_and_sizes_may_be(data):
    X, y = data
    assert quick(hidden_layer_sizes=np.array([5, 4])).fit(X, y).module_[2].out_features == 4
    half = torch.from_numpy(X).bfloat16()
    np.testing.assert_array_equal(
        quick().fit(half, y).predict(half), quick().fit(half.float().numpy(), y).predict(half)
    )
    with pytest.raises(TypeError, match="groups must hold sortable values"):
        quick().fit(X, y, groups=[object()] * 160)


def test_a_frozen_module(data, forked):
    with pytest.raises(ValueError, match="must have parameters that require gradients"):
        quick(module=torch.nn.Linear(4, 2).requires_grad_(False)).fit(*data)


def test_data_are_not_copied_to_be_read(data):
    X, y = np.repeat(data[0].astype(np.float32), 10, axis=0), np.repeat(data[1], 10)
    X.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(max_epochs=1).fit(X, y)
    seen = model.net_.get_iterator(Dataset(X, y == "yes"), training=True).dataset.X
    assert np.shares_memory(seen.numpy(), X)


@pytest.mark.parametrize("criterion", [torch.nn.BCEWithLogitsLoss, None])
def test_what_is_the_nets_is_no_copy(data, criterion):
    X, y = data
    model = quick(criterion=criterion).fit(X, y)
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.module_ is again.net_.module_
        assert again.history_ is again.net_.history
        again.partial_fit(X, y)
        assert again.n_iter_ == len(again.loss_curve_) == len(again.net_.history)
        assert again.module_ is again.net_.module_
    assert not any(hasattr(quick(), name) for name in ("module_", "history_", "loss_curve_", "n_iter_"))


def test_balanced_classes_count_weights(rng):
    """An integer weight is as many samples."""
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    weight = rng.integers(0, 4, size=60)
    weight[y == 2] = np.minimum(weight[y == 2], 1)
    settings = {"class_weight": "balanced", "batch_size": 1000, "max_epochs": 5}
    weighted = quick(**settings).fit(X, y, sample_weight=weight)
    repeated = quick(**settings).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)
    weight = np.where(y == 1, 0, weight)
    dropped = quick(**settings).fit(X, y, sample_weight=weight)
    assert np.isnan(dropped.sample_trust_[y == 1]).all()
    given = dropped._weights(weight, y, np.arange(3))
    totals = [given[y == label].sum() for label in range(3)]
    assert totals == pytest.approx([weight.sum() / 2, 0.0, weight.sum() / 2])


def test_probabilities_under_a_loss_of_ones_own(data, forked):
    X, y = data

    class Focal(torch.nn.Module):
        def forward(self, predicted, target):
            p = predicted.log_softmax(dim=1).gather(1, target[:, None])
            return (-((1 - p.exp()) ** 2) * p).mean()

    settings = {"module": torch.nn.Linear(4, 2), "criterion": Focal, "lr": 0.05, "max_epochs": 40}
    model = quick(**settings).fit(X, y)
    assert model.score(X, y) > 0.9
    for method in (model.predict_proba, model.predict_log_proba):
        with pytest.raises(
            ValueError, match=r"predict_nonlinearity must make probabilities .* for the criterion Focal"
        ):
            method(X)
    told = quick(**settings, predict_nonlinearity=_softmax).fit(X, y)
    np.testing.assert_allclose(told.predict_proba(X).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(told.predict(X), model.predict(X))
    net = NeuralNetClassifier(settings["module"], criterion=Focal, train_split=None, verbose=0)
    with pytest.raises(ValueError, match="predict_nonlinearity"):
        quick(module=net).fit(X, y).predict_proba(X)
    net.set_params(predict_nonlinearity=_softmax)
    np.testing.assert_allclose(quick(module=net).fit(X, y).predict_proba(X).sum(axis=1), 1.0, rtol=1e-6)
    binary = NeuralNetBinaryClassifier(torch.nn.Linear(4, 1), criterion=torch.nn.MSELoss, train_split=None, verbose=0)
    with pytest.raises(ValueError, match="predict_nonlinearity must make two probabilities of a number"):
        quick(module=binary).fit(X, y)
    with pytest.raises(TypeError, match="predict_nonlinearity must be callable"):
        quick(predict_nonlinearity="softmax").fit(X, y)


def _softmax(values):
    return values.softmax(dim=1)


class SqueezesAll(torch.nn.Linear):
    def forward(self, X):
        return super().forward(X).squeeze()


@pytest.mark.parametrize("group_size", [1, 8, None])
@pytest.mark.parametrize("kind", ["numbers", "binary", "classes"])
def test_modules_that_squeeze_predict_any_number_of_samples(rng, kind, group_size, forked):
    X = rng.normal(size=(1025, 3))
    y = X[:, 0] if kind == "numbers" else (X[:, 0] > 0).astype(int)
    module = SqueezesAll(3, 2 if kind == "classes" else 1)
    settings = {"batch_size": 128, "iterator_train__even": False, "group_size": group_size, "max_epochs": 2}
    if kind == "numbers":
        model = BlockGMDRegressor(module, **settings).fit(X, y)
        method = model.predict
    else:
        criterion = torch.nn.BCEWithLogitsLoss if kind == "binary" else None
        model = quick(module=module, criterion=criterion, **settings).fit(X, y)
        method = model.predict_proba
    whole = method(X)
    for n in (1, 1024, 1025):
        assert model.predict(X[:n]).shape == (n,)
        np.testing.assert_allclose(method(X[:n]), whole[:n], rtol=1e-5, atol=1e-6)
    if kind == "numbers" and group_size != 8:
        assert clone(model).fit(X[:1], y[:1]).predict(X[:2]).shape == (2,)


@pytest.mark.parametrize("kind", ["group", "clients"])
def test_rules_without_anything_to_compare(data, kind):
    X, y = data
    if kind == "group":
        with pytest.warns(UserWarning, match=r"group_size=200 and no batch of more than \d+ samples"):
            quick(group_size=200).fit(X, y)
    else:
        with pytest.warns(UserWarning, match="must be several; found one client"):
            quick(group_size=1).fit(X, y, groups=np.zeros(160))
    quick(group_size=None).fit(X, y)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("labels", ["two", "one_number", "several"])
def test_modules_that_give_bfloat16(data, inside, labels):
    X, y = data[0].astype(np.float32), data[1]
    several = np.column_stack([y == "yes", y == "no"]).astype(int)
    criterion = torch.nn.BCEWithLogitsLoss if labels == "one_number" else None
    outputs = 1 if labels == "one_number" else 2
    settings = {"module__inputs": X.shape[1], "module__outputs": outputs, "module__inside": inside}
    model = quick(module=Narrow, criterion=criterion, max_epochs=40, lr=0.03, **settings)
    around = nullcontext() if inside else torch.autocast("cpu", dtype=torch.bfloat16)
    targets = several if labels == "several" else y
    with around:
        model.fit(X, targets)
        probabilities = model.predict_proba(X)
        assert model.score(X, targets) > 0.9
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (160, 2)
    assert {value.dtype for value in model.module_.parameters()} == {torch.float32}
    np.testing.assert_allclose(model.predict_proba(X), probabilities, atol=2e-2)
    assert model.predict(X).shape == targets.shape
    found = model.to_module()(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_array_equal(found.reshape(160, -1)[:, -1], model.predict_proba(X)[:, -1])


@pytest.mark.parametrize("settings", [{}, {"gradients": "micro_batches"}, {"group_size": None}], ids=str)
def test_autocast_around_a_training_does_not_keep_the_first_parameters(data, settings):
    # In float64 autocast does nothing.
    X, y = data[0].astype(np.float32), data[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = quick(max_epochs=40, lr=0.03, **{"group_size": 4, **settings}).fit(X, y)
        assert model.score(X, y) > 0.93
    assert model.score(X, y) > 0.93
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]


def test_labels_of_several_kinds_are_refused(data):
    X, y = data
    labels = np.array([1, "a"], dtype=object)[np.unique(y, return_inverse=True)[1] % 2]
    with pytest.raises(ValueError, match="Unknown label type: y must hold labels of one kind"):
        quick().fit(X, labels)


def test_labels_beyond_floats_stay_apart():
    classes = np.array([2**53, 2**53 + 1, 2**63], dtype=np.uint64)
    assert _codes(np.array([2**53 + 1, 2**53]), classes, False).tolist() == [1, 0]
    with pytest.raises(ValueError, match="y must have labels among the classes"):
        _codes(np.array([2**53 + 2]), classes, False)


@pytest.mark.parametrize(
    "judging", [{"strength": "mild"}, {"strength": "firm"}, {"strength": "strict"}, {"strength": None, "beta": 0.1}]
)
@pytest.mark.parametrize("hidden", [(), (20,)])
def test_large_batches_have_no_gram_matrix_of_all_rows(judging, hidden, monkeypatch):
    """One of 10,000 rows takes a gigabyte, and a hundred times as long as the step."""
    X, y = make_classification(2000, 8, n_classes=3, n_informative=6, class_sep=2.0, flip_y=0.2, random_state=0)
    sizes = gram_sizes(monkeypatch, ChunkedRows, GhostRows)
    model = BlockGMDClassifier(
        hidden_layer_sizes=hidden, max_epochs=6, batch_size=len(X), random_state=0, **judging
    ).fit(X, y)
    assert max(sizes) <= limits.GRAM_ROWS
    assert model.score(X, y) > 0.4
