"""Losses with tensors of their own train with parameters of any dtype, and stay the user's."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNet, RobustNeuralNetClassifier
from skbgmd.training._lifecycle.loss_dtype import in_dtype_of

# Nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")

WEIGHT = torch.tensor([1.0, 2.0, 3.0])


class Holds(nn.Module):
    """A loss that holds weights in some way."""

    def __init__(self, how="buffer", weight=WEIGHT):
        super().__init__()
        self.how, self.reduction = how, "mean"
        self.register_buffer("classes", torch.arange(3))
        if how == "buffer":
            self.register_buffer("weight", weight)
        elif how == "parameter":
            self.weight = nn.Parameter(weight.clone())
        elif how == "attribute":
            self.weight = weight
        elif how == "list":
            self.held = [{"weight": weight}]
        else:
            self.part = nn.ModuleList([nn.CrossEntropyLoss(weight=weight)])

    def the_weight(self):
        if self.how == "list":
            return self.held[0]["weight"]
        return self.part[0].weight if self.how == "module" else self.weight

    def forward(self, predicted, y):
        assert self.classes.dtype == torch.int64
        if self.how == "parameter":
            # Torch doesn't differentiate by weights of classes.
            return nn.functional.cross_entropy(predicted * self.weight, y)
        return nn.functional.cross_entropy(predicted, y, weight=self.the_weight(), reduction=self.reduction)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(60, 4))
    return X, np.arange(60) % 3


def fitted(X, y, **settings):
    return BlockGMDClassifier(max_epochs=3, random_state=0, **settings).fit(X, y)


def parameters(model):
    return [parameter.detach().numpy() for parameter in model.module_.parameters()]


WAYS = {
    "class": lambda weight: {"criterion": nn.CrossEntropyLoss, "criterion__weight": weight},
    "default": lambda weight: {"criterion__weight": weight},
    "instance": lambda weight: {"criterion": nn.CrossEntropyLoss(weight=weight)},
    "partial": lambda weight: {"criterion": functools.partial(nn.CrossEntropyLoss, weight=weight)},
    **{
        how: lambda weight, how=how: {"criterion": Holds(how, weight)}
        for how in ("buffer", "attribute", "list", "module")
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gradients", ["auto", "micro_batches"])
def test_weights_of_another_dtype_are_those_of_the_dtype(way, dtype, gradients, data):
    X, y = data[0].astype(dtype), data[1]
    same, other = (torch.float32, torch.float64)[:: 1 if dtype == np.float32 else -1]
    expected = fitted(X, y, gradients=gradients, **WAYS[way](WEIGHT.to(same)))
    found = fitted(X, y, gradients=gradients, **WAYS[way](WEIGHT.to(other)))
    for one, two in zip(parameters(expected), parameters(found), strict=True):
        np.testing.assert_array_equal(one, two)
    # One pass reads the weights: without them it is another training.
    plain = fitted(X, y, gradients=gradients)
    assert any((one != two).any() for one, two in zip(parameters(plain), parameters(found), strict=True))


def test_the_choice_of_a_strength_and_further_calls(data):
    X, y = np.vstack([data[0]] * 4), np.tile(data[1], 4)
    model = BlockGMDClassifier(criterion__weight=WEIGHT, max_epochs=25, warm_start=True, random_state=0).fit(X, y)
    assert model.strength_ is not None
    assert model.fit(X, y).partial_fit(X, y).score(X, y) > 0.0
    assert copy.deepcopy(model).partial_fit(X, y).net_.criterion_.weight.dtype == torch.float64


@pytest.mark.parametrize("how", ["buffer", "parameter", "attribute", "list", "module"])
def test_a_net_leaves_the_users_loss_as_it_is(how, data):
    X, y = data
    criterion = Holds(how)
    given, before = criterion.the_weight(), dict(vars(criterion))
    net = RobustNeuralNet(nn.Linear(4, 3).double(), criterion=criterion, train_split=None, max_epochs=2, verbose=0)
    net.fit(X, y)
    assert net.criterion_.the_weight().dtype == torch.float64
    assert criterion.the_weight() is given
    assert given.dtype == torch.float32
    assert dict(vars(criterion)) == before
    np.testing.assert_array_equal(given.detach(), WEIGHT)


def test_a_loss_that_fits_is_the_users():
    criterion = Holds()
    assert in_dtype_of([nn.Linear(4, 3)], criterion) is criterion
    assert in_dtype_of([nn.Identity()], criterion) is criterion
    both = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).double())
    assert in_dtype_of([both], criterion) is criterion
    assert in_dtype_of([both], Holds(weight=WEIGHT.half())).weight.dtype == torch.float64


def test_a_loss_learns_its_own_parameters(data):
    X, y = data
    net = RobustNeuralNet(
        nn.Linear(4, 3).double(), Holds("parameter"), train_split=None, max_epochs=2, verbose=0, lr=0.1
    ).fit(X, y)
    assert any(each is net.criterion_.weight for each in net.optimizer_.param_groups[0]["params"])
    assert (net.criterion_.weight != WEIGHT).any()


def test_what_a_loss_shares_stays_shared():
    network = nn.Linear(3, 3).double()
    criterion = Holds()
    criterion.network, criterion.again, criterion.twice = network, [network.weight], criterion.weight
    made = in_dtype_of([network], criterion)
    assert made is not criterion
    assert made.network is network
    assert made.again[0] is network.weight
    assert made.twice is made.weight
    assert network.weight.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modules_in_half_precision(dtype, data):
    X, y = torch.from_numpy(data[0]).to(dtype), torch.from_numpy(data[1])
    criterion = in_dtype_of([nn.Linear(4, 3, dtype=dtype)], nn.CrossEntropyLoss(weight=WEIGHT))
    assert bool(torch.isfinite(criterion(nn.Linear(4, 3, dtype=dtype)(X), y)))


def test_numbers_that_overflow_are_refused():
    with pytest.raises(
        ValueError, match=r"criterion must hold numbers that are finite .* torch\.float32; found 1e\+39"
    ):
        in_dtype_of([nn.Linear(4, 3)], nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1e39], dtype=torch.float64)))
    inf = torch.tensor([1.0, torch.inf], dtype=torch.float64)
    assert in_dtype_of([nn.Linear(4, 3)], Holds(weight=inf)).weight.isinf().any()


def test_several_labels_and_numbers(data):
    X, y = data
    labels = np.column_stack([y > 0, y > 1]).astype(int)
    assert fitted(X, labels, criterion__pos_weight=WEIGHT[:2]).net_.criterion_.pos_weight.dtype == torch.float64

    class Scaled(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, predicted, y):
            return ((predicted - y)[:, None] @ self.by).square().mean()

    model = BlockGMDRegressor(criterion=Scaled, criterion__by=torch.ones(1, 1), max_epochs=2, random_state=0)
    assert np.isfinite(model.fit(X, y.astype(float)).predict(X)).all()


def test_parameters_of_the_loss_that_are_set_later(data, tmp_path):
    X, y = data
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "max_epochs": 1, "verbose": 0}
    net = RobustNeuralNetClassifier(nn.Linear(4, 3).double(), **settings).fit(X, y)
    net.set_params(criterion__weight=WEIGHT)
    net.partial_fit(X, y)
    assert net.criterion_.weight.dtype == torch.float64
    net.save_params(f_criterion=tmp_path / "criterion.pt")
    other = RobustNeuralNetClassifier(nn.Linear(4, 3).double(), criterion__weight=torch.ones(3), **settings)
    other.initialize().load_params(f_criterion=tmp_path / "criterion.pt")
    np.testing.assert_array_equal(other.criterion_.weight, WEIGHT.double())
