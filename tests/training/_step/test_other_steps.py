"""Training steps in front of the robust one and behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.hf import AccelerateMixin

from nets import linear_net
from skbgmd import RobustNeuralNetClassifier
from skbgmd.training._estimator.wrapping import robust_class

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def data(rng):
    X = rng.normal(size=(150, 4)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] > 0).astype(np.int64)


class OwnStep:
    """What accelerate's mixin does, and others' do."""

    def train_step_single(self, batch, **fit_params):
        X, y = batch
        predicted = self.infer(X)
        loss = self.get_loss(predicted, y)
        loss.backward()
        return {"loss": loss, "y_pred": predicted}


class WholeStep:
    def train_step(self, batch, **fit_params):
        self.optimizer_.zero_grad()
        step = OwnStep.train_step_single(self, batch)
        self.optimizer_.step()
        return step


class Calls:
    def train_step_single(self, batch, **fit_params):
        return self.step_of_mine(batch, **fit_params)

    def step_of_mine(self, batch, **fit_params):
        self.called_ = True
        return super().train_step_single(batch, **fit_params)


class Skips:
    def initialize(self):
        return NeuralNet.initialize(self)


def test_steps_in_front_of_the_robust_one(data):
    X, y = data
    net = linear_net(kind=type("Net", (OwnStep, RobustNeuralNetClassifier), {})).initialize()
    before = net.module_.weight.detach().clone()
    with pytest.raises(TypeError, match=r"super\(\).train_step_single: OwnStep.train_step_single"):
        net.partial_fit(X, y)
    assert torch.equal(net.module_.weight, before)
    with pytest.raises(TypeError, match=r"super\(\).train_step_single: WholeStep.train_step"):
        linear_net(kind=type("Net", (WholeStep, RobustNeuralNetClassifier), {})).fit(X, y)
    assert linear_net(kind=type("Net", (Calls, RobustNeuralNetClassifier), {})).fit(X, y).called_
    with pytest.raises(TypeError, match=r"Net, of which a class in front of it doesn't call super\(\).initialize"):
        linear_net(kind=type("Net", (Skips, RobustNeuralNetClassifier), {})).fit(X, y)


def test_steps_behind_the_robust_one(data):
    behind = type("Own", (OwnStep, NeuralNetClassifier), {})
    last = type("Net", (RobustNeuralNetClassifier, OwnStep), {})
    whole = type("Net", (RobustNeuralNetClassifier, WholeStep), {})
    for kind, name in ((robust_class(behind), "OwnStep.train_step_single"), (last, "OwnStep.train_step_single")):
        with pytest.raises(TypeError, match=f"which the robust step replaces; found {name}"):
            linear_net(kind=kind)
    with pytest.raises(TypeError, match=r"found WholeStep\.train_step"):
        linear_net(kind=whole)
    # One that calls the step is kept, where it can be reached.
    kept = type("Own", (WholeStep, NeuralNetClassifier), {"train_step": NeuralNetClassifier.train_step})
    linear_net(kind=robust_class(kept)).fit(*data)


@pytest.mark.parametrize(
    "bases", [(AccelerateMixin, RobustNeuralNetClassifier), (RobustNeuralNetClassifier, AccelerateMixin)]
)
def test_accelerate_is_refused(bases):
    with pytest.raises(
        TypeError, match=r"must take its gradients itself.*found Net, which has skorch's AccelerateMixin"
    ):
        linear_net(kind=type("Net", bases, {}), accelerator=object())
    wrapped_one = robust_class(type("Net", (AccelerateMixin, NeuralNetClassifier), {}))
    with pytest.raises(TypeError, match="AccelerateMixin"):
        linear_net(kind=wrapped_one, accelerator=object())
