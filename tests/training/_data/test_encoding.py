"""Validation data of the user's own."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_classification, make_regression
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, EpochScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch.utils.data import Subset

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._data.encoding import EncodedSplit


class Halves(Dataset):
    """A dataset that does something of its own with its items."""

    def transform(self, X, y):
        return super().transform(X, y)


@pytest.mark.parametrize("kind", [Dataset, Halves, partial(lambda X, y: Subset(Dataset(X, y), range(len(X))))])
def test_targets_are_scaled_as_those_of_the_training(kind):
    X, y = make_regression(300, 4, noise=5.0, random_state=0)
    y = 1000.0 + y
    settings = {"max_epochs": 60, "lr": 0.02, "random_state": 0}
    split = predefined_split(kind(X[200:], y[200:]))
    model = BlockGMDRegressor(train_split=split, callbacks=[EarlyStopping(patience=30)], **settings)
    for given in (X[:200], X[:200].astype(np.float32)):  # data of another dtype are made alike
        model.fit(given, y[:200])
        scaled = (model.predict(X[200:].astype(given.dtype)) - y[200:]) / model._scale
        small = np.abs(scaled)
        loss = np.where(small < 2.0, scaled**2 / 4, small - 1.0).mean()
        np.testing.assert_allclose(model.history_[-1, "valid_loss"], loss, rtol=1e-4)
        assert model.n_iter_ > 30
        assert np.isfinite(model.sample_trust_).all()
    assert pickle.loads(pickle.dumps(model)).score(X, y) > 0.9


def test_labels_are_coded_as_those_of_the_training():
    X, y = make_classification(300, 4, random_state=0)
    labels = np.array(["a", "b"])[y]
    split = predefined_split(Dataset(X[200:], labels[200:]))
    model = BlockGMDClassifier(train_split=split, max_epochs=20, random_state=0).fit(X[:200], labels[:200])
    assert model.history_[-1, "valid_acc"] == pytest.approx(model.score(X[200:], labels[200:]))
    with pytest.raises(ValueError, match=r"labels among the classes \['a'\]; found \['b'\]"):
        BlockGMDClassifier(train_split=split, max_epochs=2).fit(X[:200], np.full(200, "a"))


def test_parts_of_the_training_data_are_left_alone():
    data = Dataset(np.zeros((20, 1)), np.arange(20))
    train, valid = EncodedSplit(ValidSplit(4), pytest.fail)(data)
    assert isinstance(train, Subset)
    assert valid.dataset is data
    assert EncodedSplit(lambda dataset, y: (dataset, None), pytest.fail)(data) == (data, None)


def _own(dataset, y=None):
    return Dataset(dataset.X[:60], dataset.y[:60]), Dataset(dataset.X[60:], dataset.y[60:])


def test_what_a_split_makes_of_the_training_data_is_encoded_already():
    X, y = make_regression(100, 3, random_state=0)
    settings = {"max_epochs": 20, "lr": 0.02, "random_state": 0}
    model = BlockGMDRegressor(train_split=_own, **settings).fit(X, 1000.0 + y)
    scaled = np.abs(model.predict(X[60:]) - 1000.0 - y[60:]) / model._scale
    loss = np.where(scaled < 2.0, scaled**2 / 4, scaled - 1.0).mean()
    np.testing.assert_allclose(model.history_[-1, "valid_loss"], loss, rtol=1e-6)
    labels = np.where(y > 0, "a", "b")
    assert "valid_acc" in BlockGMDClassifier(train_split=_own, **settings).fit(X, labels).history_[-1]


@pytest.mark.parametrize("kind", ["tensor", "float32", "integers", "frame", "torch's own"])
def test_data_of_any_kind_are_made_alike(kind):
    X, y = make_regression(100, 3, random_state=0)
    X = np.rint(10 * X)
    made = {
        "tensor": lambda: Dataset(torch.from_numpy(X), y),
        "float32": lambda: Dataset(X.astype(np.float32), y),
        "integers": lambda: Dataset(X.astype(int), y),
        "frame": lambda: Dataset(pd.DataFrame(X), pd.Series(y)),
        "torch's own": lambda: torch.utils.data.TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y)),
    }[kind]()
    scoring = EpochScoring("r2", name="valid_r2", use_caching=False, lower_is_better=False)
    callbacks = [] if kind == "torch's own" else [scoring]
    model = BlockGMDRegressor(
        train_split=predefined_split(made), max_epochs=30, lr=0.02, callbacks=callbacks, random_state=0
    ).fit(X, y)
    scaled = np.abs(model.predict(X) - y) / model._scale
    loss = np.where(scaled < 2.0, scaled**2 / 4, scaled - 1.0).mean()
    np.testing.assert_allclose(model.history_[-1, "valid_loss"], loss, rtol=1e-4)
    if callbacks:
        assert model.history_[-1, "valid_r2"] == pytest.approx(model.score(X, y), abs=1e-4)


class Bare(torch.utils.data.Dataset):
    """A net's kind of data that isn't skorch's."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index].astype(np.float32), 0 if self.targets is None else self.targets[index]


def test_nets_with_another_kind_of_data():
    X, y = make_classification(100, 4, random_state=0)
    with torch.random.fork_rng(devices=[]):
        module = torch.nn.Linear(4, 2)
    net = NeuralNetClassifier(
        module, criterion=torch.nn.CrossEntropyLoss, dataset=Bare, train_split=predefined_split(Bare(X, y)), verbose=0
    )
    assert "valid_acc" in BlockGMDClassifier(net, random_state=0).fit(X, y).history_[-1]
