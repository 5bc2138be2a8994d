"""Compiled modules are saved as what they were made of, and compiled anew."""

from __future__ import annotations

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.training import SKOPS_TRUSTED
from skbgmd.training._lifecycle import compiled_pickle
from skbgmd.training._lifecycle.checked_pickle import load_naming, named_in
from skbgmd.training._lifecycle.compiled_pickle import compiled_again, dumps

# Torch's own compiler still imports what it warns of.
pytestmark = [
    pytest.mark.usefixtures("forked"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:The .grad attribute"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def _forget():
    """What the compiler has learnt here of shapes would have others' modules compiled otherwise."""
    yield
    torch.compiler.reset()


def by_skops(model):
    data = skops.io.dumps(model)
    found = skops.io.get_untrusted_types(data=data)
    assert {name for name in found if name not in SKOPS_TRUSTED and not name.startswith(__name__)} == set()
    return skops.io.loads(data, trusted=found)


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return joblib.load(file)


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old protocol": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "deepcopy": copy.deepcopy,
    "joblib": by_joblib,
    "torch": by_torch,
    "skops": by_skops,
    "twice": lambda model: copy.deepcopy(by_joblib(model)),
}
#: Arguments of torch.compile.
ARGUMENTS = [
    {},
    {"backend": "eager"},
    {"backend": "aot_eager"},
    {"mode": "reduce-overhead"},
    {"mode": "max-autotune"},
    {"mode": "max-autotune-no-cudagraphs"},
    {"mode": "default", "fullgraph": True},
    {"dynamic": True},
    {"dynamic": False, "backend": "eager", "fullgraph": True},
]


class Inner(torch.nn.Module):
    """A module of a user's own that compiles one of its layers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.compile(torch.nn.Linear(4, 2), backend="eager")

    def forward(self, X):
        return self.layer(X)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_compiled_as_before(arguments):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.3)).eval()
    compiled = torch.compile(module, **arguments)
    payload = dumps({"module_": compiled, "parameters": list(module.parameters())})
    loaded = load_naming(payload, named_in(payload))
    again = loaded["module_"]
    assert compiled_pickle._settings(again) == compiled_pickle._settings(compiled)
    assert type(again) is type(compiled)
    assert not again.training
    for theirs, ours, before in zip(loaded["parameters"], again.parameters(), module.parameters(), strict=True):
        assert theirs is ours
        torch.testing.assert_close(ours, before, rtol=0, atol=0)


def test_settings_are_those_given():
    named = {"mode": "max-autotune", "dynamic": True, "fullgraph": True}
    assert compiled_pickle._settings(torch.compile(torch.nn.Linear(2, 2), **named)) == (
        "inductor",
        "max-autotune",
        True,
        True,
    )
    # Programs to be run aren't taken from a file.
    custom = torch.compile(torch.nn.Linear(2, 2), options={"cpp.cxx": ("echo",)})
    assert compiled_pickle._settings(custom) == ("inductor", None, None, False)
    assert b"echo" not in dumps(custom)


def own_backend(graph, inputs):
    return graph.forward


def test_a_backend_of_ones_own_is_listed():
    payload = dumps(torch.compile(torch.nn.Linear(2, 2), backend=own_backend))
    assert own_backend in named_in(payload)
    again = load_naming(payload, named_in(payload))
    assert compiled_pickle._settings(again)[0] is own_backend
    with pytest.raises(pickle.UnpicklingError, match="own_backend, which is not listed"):
        load_naming(payload, [thing for thing in named_in(payload) if thing is not own_backend])


@pytest.mark.parametrize(
    "given",
    [
        (torch.nn.Linear(1, 1), {"cpp.cxx": "x"}),
        (print, "inductor"),
        (torch.nn.Linear(1, 1), "inductor", {"cpp.cxx": "x"}),
        (torch.nn.Linear(1, 1), "inductor", "fastest"),
        (torch.nn.Linear(1, 1), "inductor", None, [1]),
    ],
    ids=range(5),
)
def test_nothing_else_is_compiled(given):
    with pytest.raises(pickle.UnpicklingError, match="must have a backend and a mode"):
        compiled_again(*given)


@pytest.mark.parametrize("way", WAYS)
def test_nets_by_the_default_backend(way, rng):
    """Compiling is lazy: a net that is trained by passes of the original pays for none."""
    X, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 2, 40)
    torch.manual_seed(0)
    sizes = {"module__in_features": 4, "module__out_features": 2, "criterion": torch.nn.CrossEntropyLoss}
    order = {"iterator_train__shuffle": False, "train_split": None, "max_epochs": 2, "verbose": 0}
    net = RobustNeuralNetClassifier(torch.nn.Linear, compile=True, group_size=1, **sizes, **order).fit(X, y)
    again = WAYS[way](net)
    assert compiled_pickle._settings(again.module_)[0] == "inductor"
    assert [id(p) for p in again.module_.parameters()] == [id(p) for p in again.optimizer_.param_groups[0]["params"]]
    for one in (net, again):
        one.partial_fit(X, y)
    for ours, theirs in zip(net.module_.parameters(), again.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


KINDS = {
    "classifier": (BlockGMDClassifier(compile=True), "labels"),
    "blocks": (BlockGMDClassifier(compile=True, beta=0.3), "labels"),
    "warm": (BlockGMDClassifier(compile=True, warm_start=True), "labels"),
    "stopping": (BlockGMDClassifier(compile=True, early_stopping=True, warm_start=True), "labels"),
    "several labels": (BlockGMDClassifier(compile=True), "several"),
    "regressor": (BlockGMDRegressor(compile=True), "numbers"),
    "user's": (BlockGMDClassifier(Inner, criterion=torch.nn.CrossEntropyLoss), "labels"),
    "user's, compiled": (BlockGMDClassifier(Inner, criterion=torch.nn.CrossEntropyLoss, compile=True), "labels"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "skops"])
def test_estimators(kind, way, rng, monkeypatch):
    """Predictions are those of a backend that compiles nothing, as inductor takes long."""
    model, of_kind = clone(KINDS[kind][0]), KINDS[kind][1]
    model.set_params(max_epochs=3, batch_size=20, random_state=0, strength=None)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = {"labels": (X[:, 0] > 0).astype(int), "several": (X[:, :2] > 0).astype(int), "numbers": X[:, 1]}[of_kind]
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **given: compiler(module, **{**given, "backend": "eager"}))
    predict = "predict" if of_kind == "numbers" else "predict_proba"
    model.fit(X, y)
    again = WAYS[way](model)
    assert hasattr(again.module_, "_orig_mod") == model.compile
    np.testing.assert_array_equal(getattr(again, predict)(X), getattr(model, predict)(X))
    for one in (model, again):
        one.fit(X, y) if model.warm_start else one.partial_fit(X, y)
    np.testing.assert_array_equal(getattr(again, predict)(X), getattr(model, predict)(X))
