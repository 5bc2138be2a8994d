"""Modules that ``torch.compile`` made: trained by one pass of the module that they were made of."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.training._step.compiled import original_of, uncompiled
from skbgmd.training._step.robust_step import RobustStep

# Torch's own compiler still imports what it warns of.
pytestmark = [pytest.mark.usefixtures("forked"), pytest.mark.filterwarnings("ignore:.*torch.jit")]


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compile without a backend, which takes minutes for nothing that matters here."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    yield
    # What it has learnt here of shapes that change would have others' modules compiled otherwise.
    torch.compiler.reset()


class Branches(torch.nn.Module):
    """No chain: its layers' calls are recorded."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = torch.nn.Linear(4, 6), torch.nn.Linear(4, 6), torch.nn.Linear(6, 2)

    def forward(self, X):
        return self.last(torch.relu(self.first(X)) * self.second(X))


SETTINGS = [
    {},
    {"beta": 0.3},
    {"aggregator": "geometric_median"},
    {"group_size": 8},
    {"group_size": None},
    {"module": Branches},
    {"module": Branches, "group_size": 4, "tilt": 0.5},
    {"class_weight": "balanced"},
    {"optimizer": torch.optim.SGD, "local_steps": 2, "group_size": 8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_trainings_are_those_of_the_module(data, settings, monkeypatch):
    X, y = data[0].astype(np.float32), data[1]
    monkeypatch.setattr(RobustStep, "_give_up_one_pass", lambda self, error: pytest.fail(str(error)))
    trained = [
        BlockGMDClassifier(
            max_epochs=3, batch_size=32, strength=None, random_state=0, compile=compiled, **settings
        ).fit(X, y, sample_weight=np.linspace(0.5, 1.5, len(y)))
        for compiled in (False, True)
    ]
    assert hasattr(trained[1].module_, "_orig_mod")
    states = [list(model.module_.parameters()) for model in trained]
    for ours, theirs in zip(*states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[0].predict_proba(X), trained[1].predict_proba(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[0].sample_trust_, trained[1].sample_trust_, rtol=1e-3, atol=1e-4)


def test_regression(line):
    X, y = line
    models = [
        BlockGMDRegressor(max_epochs=20, random_state=0, compile=compiled).fit(X, y) for compiled in (False, True)
    ]
    np.testing.assert_allclose(models[0].predict(X), models[1].predict(X), rtol=1e-3, atol=1e-3)


def test_the_original_of_a_module():
    module = torch.nn.Linear(2, 2)
    compiled = torch.compile(module)
    assert original_of(module) is module
    assert original_of(compiled) is module
    assert original_of(None) is None
    compiled.register_forward_hook(lambda *given: None)
    assert original_of(compiled) is compiled


def test_a_net_has_its_module_again(data):
    X, y = data[0].astype(np.float32), data[1]
    net = RobustNeuralNetClassifier(Branches, criterion=torch.nn.CrossEntropyLoss, compile=True, verbose=0).initialize()
    compiled = net.module_
    with pytest.raises(RuntimeError, match="mine"), uncompiled(net):  # noqa: PT012
        assert net.module_ is compiled._orig_mod
        raise RuntimeError("mine")
    assert net.module_ is compiled
    seen = []
    compiled.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    net.set_params(max_epochs=1, group_size=1, train_split=None).partial_fit(X, (y == y[0]).astype(np.int64))
    # What watches calls of the compiled module sees a pass for each sample.
    assert seen == [1] * len(X)
