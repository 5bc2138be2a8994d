"""Validation data of the user's own."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression
from skorch.callbacks import EarlyStopping
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch.utils.data import Subset

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.validation import EncodedSplit


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
        loss = np.where(small < 1.0, scaled**2 / 2, small - 0.5).mean()
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
