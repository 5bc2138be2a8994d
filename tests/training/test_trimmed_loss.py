"""Iterative trimmed loss: what is selected, what comes of it on wrong targets, and trainings that go on with it."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, LoadInitState
from skorch.dataset import Dataset, ValidSplit
from torch.utils.data import DataLoader

from fits import states
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.corruption import corrupt_labels
from skbgmd.training import ArrayLoader, TrimmedLoss
from skbgmd.training.trimmed_loss import losses_of, lowest

COEFFICIENTS = np.array([1.0, -2.0, 3.0, 0.5])
#: Factors of weights that are whole numbers.
SCALES = st.sampled_from([1.0, 0.1, 1.0 / 3.0, 1e-20, 1e20])


def linear(share, seed=0, n=400):
    """Linear targets, of which a share are far off, all on the same side."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    y = (X @ COEFFICIENTS + 0.01 * rng.normal(size=n)).astype(np.float32)
    wrong = rng.permutation(n)[: int(share * n)]
    y[wrong] = rng.uniform(20.0, 60.0, size=len(wrong))
    return X, y[:, None], wrong


def regressor(callbacks, **settings):
    given = {"aggregator": "mean", "group_size": None, "lr": 0.1, "max_epochs": 40, "batch_size": 20, "verbose": 0}
    shuffled = {"iterator_train__shuffle": True, "train_split": None}
    return RobustNeuralNetRegressor(torch.nn.Linear(4, 1), callbacks=callbacks, **{**given, **shuffled, **settings})


def error_of(net):
    return float(np.abs(net.module_.weight.detach().numpy()[0] - COEFFICIENTS).max())


class Watches(Callback):
    """Keeps the places of the samples of each epoch, in order, and the sizes of its batches."""

    def on_train_begin(self, net, **kwargs):
        self.epochs, self.sizes = [], []

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append([])
        self.sizes.append([])

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            self.epochs[-1] += batch.positions.tolist()
            self.sizes[-1].append(len(batch.positions))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_coefficients_are_recovered_from_gross_errors(forked, share):
    """The authors' claim: the true parameters, to the noise, where least squares is far off."""
    X, y, wrong = linear(share)
    assert error_of(regressor([]).fit(X, y)) > 0.5
    net = regressor([TrimmedLoss(share)]).fit(X, y)
    assert error_of(net) < 0.01
    kept = dict(net.callbacks_)["TrimmedLoss"].kept_.numpy()
    assert set(np.flatnonzero(~kept)) == set(wrong)


def test_digits_with_wrong_labels(forked):
    """Two of five labels uniformly wrong: plain training learns them by heart, a trimmed one doesn't."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        (X / 16.0).astype(np.float32), y, train_size=600, random_state=0, stratify=y
    )
    labels, _ = corrupt_labels(y, fraction=0.4, random_state=0)
    found = {}
    for name, callbacks in (("plain", []), ("trimmed", [TrimmedLoss(0.4, warm_up=3)])):
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        net = RobustNeuralNetClassifier(
            layers,
            criterion=torch.nn.CrossEntropyLoss,
            **{"optimizer": torch.optim.Adam, "lr": 0.01, "max_epochs": 60, "batch_size": 64, "verbose": 0},
            **{"aggregator": "mean", "group_size": None, "iterator_train__shuffle": True, "train_split": None},
            callbacks=callbacks,
        )
        found[name] = float((net.fit(X, labels.astype(np.int64)).predict(X_test) == y_test).mean())
    assert found["trimmed"] > 0.9
    assert found["trimmed"] > found["plain"] + 0.15


@pytest.mark.parametrize("every", [1, 3])
def test_epochs_have_the_samples_of_lowest_loss(forked, every):
    X, y, _ = linear(0.2)
    watches = Watches()
    regressor([TrimmedLoss(0.25, warm_up=2, every=every), watches], max_epochs=9).fit(X, y)
    chosen = [sorted(epoch) for epoch in watches.epochs]
    assert [len(epoch) for epoch in chosen] == [400] * 2 + [300] * 7
    assert all(len(set(epoch)) == len(epoch) for epoch in chosen)
    same = [one == other for one, other in pairwise(chosen[2:])]
    if every == 3:
        assert same == [True, True, False, True, True, False]
    # In another order each time, and in full batches.
    assert watches.epochs[3] != watches.epochs[4]
    assert set(watches.sizes[4]) == {20}


def test_groups_are_dealt_out_among_the_kept(forked):
    X, y = load_digits(return_X_y=True)
    watches = Watches()
    net = RobustNeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.Softmax(dim=-1)),
        **{"aggregator": "geometric_median", "group_size": 10, "batch_size": 100, "max_epochs": 2, "verbose": 0},
        callbacks=[TrimmedLoss(0.5, warm_up=1), watches],
    ).fit(X.astype(np.float32) / 16.0, y)
    kept = dict(net.callbacks_)["TrimmedLoss"].kept_
    assert len(watches.epochs[1]) == int(kept.sum())
    assert len(watches.epochs[0]) == len(kept) < len(X)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_estimators_take_it(kind):
    X, y, _ = linear(0.3)
    y = y.ravel() if kind == "regressor" else (y.ravel() > 0.0).astype(int)
    make = BlockGMDRegressor if kind == "regressor" else BlockGMDClassifier
    model = make(callbacks=[TrimmedLoss(0.3, warm_up=1)], strength=None, max_epochs=5, random_state=0, batch_size=50)
    fitted = clone(model).fit(X, y, sample_weight=np.linspace(0.5, 1.5, len(X)))
    kept = dict(fitted.net_.callbacks_)["TrimmedLoss"].kept_
    weight = np.linspace(0.5, 1.5, len(X))
    assert 0.69 < weight[kept.numpy()].sum() / weight.sum() <= 0.7 + 1e-9
    pickle.loads(pickle.dumps(fitted)).predict(X)


def test_a_resumed_training_goes_on_as_if_it_had_not_been_interrupted(forked, tmp_path):
    X, y, _ = linear(0.3)

    def trained(epochs, resumes, folder):
        torch.manual_seed(7)
        checkpoint = Checkpoint(monitor=None, dirname=tmp_path / folder)
        loads = [LoadInitState(checkpoint)] if resumes else []
        net = regressor([TrimmedLoss(0.3, warm_up=2, every=4), checkpoint, *loads], max_epochs=epochs)
        return net.fit(X, y)

    whole = trained(9, False, "whole")
    # In the middle of a round, whose selection has to be remembered.
    trained(4, False, "parts")
    resumed = trained(5, True, "parts")
    assert len(resumed.history) == 9
    for name, value in states(whole).items():
        assert torch.equal(states(resumed)[name], value), name


def test_partial_fit_on_other_data_selects_anew(forked):
    X, y, _ = linear(0.3)
    net = regressor([TrimmedLoss(0.3, warm_up=1, every=50)], max_epochs=3).fit(X, y)
    net.partial_fit(X[:100], y[:100])
    assert len(dict(net.callbacks_)["TrimmedLoss"].kept_) == 100


def test_losses_are_those_of_samples(forked):
    X, y, _ = linear(0.3)
    net = regressor([], max_epochs=1).fit(X, y)
    before = torch.random.get_rng_state()
    found = losses_of(net, Dataset(X, y))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_allclose(found, ((net.predict(X) - y) ** 2)[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("losses", "weight", "share", "expected"),
    [
        ([4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0], 0.5, [0, 1, 0, 1]),
        ([4.0, 1.0, 3.0, 2.0], [1.0, 9.0, 1.0, 1.0], 0.9, [0, 1, 0, 1]),
        ([np.nan, 1.0, np.inf, 2.0], [1.0, 1.0, 1.0, 1.0], 0.75, [1, 1, 0, 1]),
        ([2.0, 1.0], [1.0, 1.0], 0.1, [0, 1]),
        ([1.0] * 10, [0.1] * 10, 0.7, [1] * 7 + [0] * 3),
        ([2.0, 1.0, 3.0], [1.0, 1.0, 1.0], 1.0, [1, 1, 1]),
        ([1.0, 2.0, 3.0], [2.0**39, 1.0, 2.0**39 - 1.0], 0.5, [1, 0, 0]),
        ([1.0, 2.0], [2.0**39 + 1.0, 2.0**39 - 1.0], 0.5, [1, 0]),
        ([1.0, 2.0, 3.0], [2.0**39 - 1.0, 2.0, 2.0**39 - 1.0], 0.5, [1, 0, 0]),
        ([1.0, 2.0, 3.0], [1e308, 1e308, 1e308], 0.5, [1, 0, 0]),
    ],
)
def test_lowest(losses, weight, share, expected):
    np.testing.assert_array_equal(lowest(np.array(losses), np.array(weight), share), np.array(expected, dtype=bool))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), SCALES, st.integers(1, 10), st.randoms())
def test_weights_of_any_scale_count_as_repeated_samples(counts, scale, tenths, random):
    losses = np.array(random.sample(range(len(counts)), len(counts)), dtype=np.float64)
    mass = np.array([sum(np.array(counts)[losses <= loss]) for loss in losses])
    expected = (10 * mass <= tenths * sum(counts)) | (losses == 0.0)
    np.testing.assert_array_equal(lowest(losses, scale * np.array(counts), tenths / 10), expected)


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (TrimmedLoss(1.0), ValueError, r"fraction must be less than 1.*; found 1"),
        (TrimmedLoss(-0.1), ValueError, r"fraction must be at least 0.*; found -0.1"),
        (TrimmedLoss("half"), TypeError, r"fraction must be a number; found 'half'"),
        (TrimmedLoss(0.3, warm_up=-1), ValueError, r"warm_up must be at least 0; found -1"),
        (TrimmedLoss(0.3, every=0), ValueError, r"every must be at least 1; found 0"),
    ],
)
def test_parameters_are_checked(forked, callback, error, message):
    X, y, _ = linear(0.3, n=20)
    with pytest.raises(error, match=message):
        regressor([callback]).fit(X, y)


def test_other_nets_and_loaders_are_refused(forked):
    X, y, _ = linear(0.3, n=40)
    plain = NeuralNetRegressor(torch.nn.Linear(4, 1), callbacks=[TrimmedLoss(0.3)], verbose=0)
    with pytest.raises(TypeError, match=r"must be a callback of a net of this library.*; found NeuralNetRegressor"):
        plain.fit(X, y)
    with pytest.raises(TypeError, match=r"must be .* an ArrayLoader; found RobustNeuralNetRegressor with DataLoader"):
        regressor([TrimmedLoss(0.3)], iterator_train=DataLoader).fit(X, y)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    with pytest.raises(TypeError, match=r"must be an ArrayLoader that takes whole batches.*; found one of TensorDatas"):
        regressor([TrimmedLoss(0.3)]).fit(pairs, None)
    data = Dataset(X, y)
    data.clients = np.arange(40) // 10
    with pytest.raises(TypeError, match=r"without clients, .*; found one with clients\.$"):
        regressor([TrimmedLoss(0.3)], group_size=8).fit(data, None)


def test_a_loader_gives_what_is_kept(forked):
    data = Dataset(np.arange(10.0, dtype=np.float32)[:, None], np.arange(10))
    loader = ArrayLoader(data, batch_size=2, even=True)
    loader.restrict(np.arange(10) % 2 == 0)
    assert [batch.positions.tolist() for batch in loader] == [[0, 2, 4], [6, 8]]
    assert len(loader) == 2
    loader.restrict(None)
    assert len(loader) == 5


def test_the_loader_is_not_kept(forked):
    X, y, _ = linear(0.3, n=40)
    net = regressor([TrimmedLoss(0.3, warm_up=1)], max_epochs=2, train_split=ValidSplit(4)).fit(X, y)
    assert net._train_iterator_ is None
    assert len(dict(net.callbacks_)["TrimmedLoss"].kept_) == 30
