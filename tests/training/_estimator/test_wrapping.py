"""Robust steps for nets that exist."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import warnings

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.datasets import make_classification
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, LRScheduler
from torch.utils._pytree import tree_leaves

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._estimator import wrapping
from skbgmd.training._estimator.wrapping import copied, deep_copies, robust_class, wrapped

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


class Penalized(NeuralNetClassifier):
    """A user's net, with a loss and a parameter of its own."""

    def __init__(self, *args, penalty=0.1, **kwargs):
        super().__init__(*args, **kwargs)
        self.penalty = penalty

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + self.penalty * sum(p.square().sum() for p in self.module_.parameters())


class Layer(torch.nn.Linear):
    def __init__(self, n=2):
        super().__init__(4, n)


@pytest.fixture
def net():
    return Penalized(Layer, criterion=torch.nn.CrossEntropyLoss, lr=0.3, batch_size=17, penalty=0.2, verbose=0)


def test_settings_stay_and_the_step_changes(net, rng):
    robust = wrapped(net, aggregator="krum", group_size=4)
    assert isinstance(robust, Penalized)
    assert (robust.lr, robust.batch_size, robust.penalty, robust.aggregator) == (0.3, 17, 0.2, "krum")
    assert robust.iterator_train is ArrayLoader
    assert net.iterator_train is not ArrayLoader
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    robust.fit(X, y)
    assert "lower_half_weight" in robust.history[-1]
    assert not net.initialized_
    again = pickle.loads(pickle.dumps(robust))
    np.testing.assert_array_equal(again.predict_proba(X), robust.predict_proba(X))
    again.partial_fit(X, y)
    # The user's own loss is still the loss.
    assert robust.history[-1, "train_loss"] > 0.0
    heavy = wrapped(net.set_params(penalty=100.0, lr=1e-3), aggregator="krum").fit(X, y)
    assert sum(p.detach().square().sum().item() for p in heavy.module_.parameters()) < 0.5


def test_classes_are_made_once():
    assert robust_class(NeuralNetRegressor) is robust_class(NeuralNetRegressor)
    assert robust_class(RobustNeuralNetClassifier) is RobustNeuralNetClassifier
    assert robust_class(Penalized).__name__ == "RobustPenalized"


SKORCH_NETS = [NeuralNet, NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor]


@pytest.mark.parametrize("base", [*SKORCH_NETS, Penalized])
def test_classes_that_are_made_have_names(base):
    kind = robust_class(base)
    assert getattr(wrapping, f"Robust{base.__name__}") is kind
    assert pickle.loads(pickle.dumps(kind)) is kind


def test_names_that_stand_for_nothing_or_for_several():
    for name in ("RobustNothing", "Nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match="found none; import the module that defines it first"):
            getattr(wrapping, name)
    others = [type("Twice", (NeuralNetClassifier,), {}) for _ in range(2)]
    with pytest.raises(AttributeError, match=r"found 2: \["):
        _ = wrapping.RobustTwice
    assert len({robust_class(kind) for kind in others}) == 2


def _saved_nets():
    criterion = {"criterion": torch.nn.CrossEntropyLoss}
    settings = {"train_split": None, "verbose": 0, "max_epochs": 2}
    return {
        "default": BlockGMDClassifier(max_epochs=2, random_state=0),
        "binary": BlockGMDClassifier(max_epochs=2, criterion=torch.nn.BCEWithLogitsLoss, random_state=0),
        "regressor": BlockGMDRegressor(max_epochs=2, random_state=0),
        "wrapped": BlockGMDClassifier(NeuralNetClassifier(Layer, **criterion, **settings), random_state=0),
        "wrapped binary": BlockGMDClassifier(NeuralNetBinaryClassifier(Layer, module__n=1, **settings), random_state=0),
        "wrapped, own": BlockGMDClassifier(Penalized(Layer, **criterion, **settings), random_state=0),
        "net": RobustNeuralNetClassifier(Layer, **criterion, **settings),
    }


def _by_skops(model):
    data = skops.io.dumps(model)
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


def _by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return joblib.load(file)


WAYS = {
    "skops": _by_skops,
    "joblib": _by_joblib,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("kind", _saved_nets())
def test_what_is_saved_predicts_and_goes_on(kind, rng):
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = X[:, 0] if kind == "regressor" else (X[:, 0] > 0).astype(np.int64)
    model = _saved_nets()[kind].fit(X, y)
    method = "predict" if kind == "regressor" else "predict_proba"
    expected = getattr(model, method)(X)
    for way, save in WAYS.items():
        again = save(model)
        np.testing.assert_array_equal(getattr(again, method)(X), expected, err_msg=way)
        if kind != "net":
            assert again.module_ is again.net_.module_, way
            assert again.history_ is again.net_.history, way
            assert type(again.net_) is type(model.net_), way
        again.partial_fit(X, y)
        assert not np.array_equal(getattr(again, method)(X), expected), way


def test_classes_are_found_in_a_new_process(rng, tmp_path):
    X = rng.normal(size=(60, 4)).astype(np.float32)
    net = NeuralNetBinaryClassifier(torch.nn.Linear, module__in_features=4, module__out_features=1, train_split=None)
    model = BlockGMDClassifier(net.set_params(verbose=0), random_state=0).fit(X, X[:, 0] > 0)
    (tmp_path / "model.skops").write_bytes(skops.io.dumps(model))
    (tmp_path / "kind.pkl").write_bytes(pickle.dumps(type(model.net_)))
    np.save(tmp_path / "X.npy", X)
    script = """
import pickle, sys, numpy as np, skops.io
from pathlib import Path
folder = Path(sys.argv[1])
kind = pickle.loads((folder / "kind.pkl").read_bytes())
data = (folder / "model.skops").read_bytes()
model = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
assert type(model.net_) is kind
np.save(folder / "found.npy", model.predict_proba(np.load(folder / "X.npy")))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), model.predict_proba(X))


def test_settings_that_the_net_has_itself_are_told_of(rng):
    X = rng.normal(size=(60, 4)).astype(np.float32)
    net = NeuralNetClassifier(
        torch.nn.Linear,
        criterion=torch.nn.CrossEntropyLoss,
        module__in_features=4,
        module__out_features=2,
        max_epochs=2,
        train_split=None,
        verbose=0,
    )
    y = (X[:, 0] > 0).astype(int)
    with pytest.warns(
        UserWarning, match=r"given to the net, as in module__lr=1e-06; found lr=1e-06, max_epochs=50 with"
    ):
        model = BlockGMDClassifier(net, lr=1e-6, max_epochs=50, strength=None, random_state=0).fit(X, y)
    assert len(model.history_) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BlockGMDClassifier(net, strength=None, random_state=0).set_params(module__lr=0.5, module__max_epochs=3)
        assert len(model.fit(X, y).history_) == 3
    assert model.net_.lr == 0.5


class Breaks(Callback):
    """An error after some steps of a training; None: never."""

    after = None

    def on_batch_end(self, net, training=False, **kwargs):
        if training and Breaks.after is not None:
            Breaks.after -= 1
            if Breaks.after < 0:
                raise RuntimeError("in the middle")


class Normalized(torch.nn.Sequential):
    """A module with buffers, whose pass may fail as where memory runs out."""

    error, after = None, 0

    def __init__(self):
        super().__init__(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))

    def forward(self, X):
        if self.training and Normalized.error is not None:
            Normalized.after -= 1
            if Normalized.after < 0:
                raise Normalized.error
        return super().forward(X.float())


MOMENTUM = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
#: Estimators whose optimizers or rules remember something.
GOING_ON = {
    "Adam": (BlockGMDClassifier, {}),
    "Adam of the regressor": (BlockGMDRegressor, {}),
    "AMSGrad": (BlockGMDClassifier, {"optimizer__amsgrad": True}),
    "momentum": (BlockGMDClassifier, MOMENTUM),
    "momentum of the regressor": (BlockGMDRegressor, MOMENTUM),
    "LBFGS": (BlockGMDClassifier, {"optimizer": torch.optim.LBFGS, "lr": 0.1}),
    "groups": (BlockGMDClassifier, {"group_size": 8}),
    "groups of the regressor": (BlockGMDRegressor, {"group_size": 8, **MOMENTUM}),
    "a block": (BlockGMDClassifier, {"beta": 0.2, "memory": "weighted", "group_size": 4}),
    "trust": (BlockGMDClassifier, {"trust_power": 2.0}),
    "a scheduler": (
        BlockGMDClassifier,
        {"callbacks": [LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1), Breaks()]},
    ),
    "a module": (BlockGMDClassifier, {"module": Normalized, "group_size": 8}),
    "a skorch net": (
        BlockGMDClassifier,
        {
            "module": NeuralNetClassifier(
                Normalized,
                criterion=torch.nn.CrossEntropyLoss,
                callbacks=[Breaks()],
                max_epochs=3,
                verbose=0,
                train_split=None,
                batch_size=20,
                **MOMENTUM,
            ),
            "group_size": 8,
        },
    ),
}


def fitted(kind, settings, rng):
    X = rng.normal(size=(60, 4))
    own = {} if isinstance(settings.get("module"), NeuralNet) else {"max_epochs": 3, "batch_size": 20}
    own |= {"random_state": 0, **({"callbacks": [Breaks()]} if own else {}), **settings}
    y = X[:, 0] if kind is BlockGMDRegressor else (X[:, 0] > 0).astype(int)
    return kind(**own).fit(X, y), X, y


def assert_same_training(model, other):
    for (name, value), expected in zip(
        model.module_.state_dict().items(), other.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    np.testing.assert_array_equal(model.sample_trust_, other.sample_trust_)
    found, expected = (repr(each.net_.optimizer_.state_dict()) for each in (model, other))
    assert found == expected


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("name", GOING_ON)
def test_a_training_that_fails_leaves_what_the_next_goes_on_from(name, method, rng, monkeypatch):
    kind, settings = GOING_ON[name]
    model, X, y = fitted(kind, settings, rng)
    model.warm_start = method == "fit"
    expected = copy.deepcopy(model)
    monkeypatch.setattr(Breaks, "after", 1)
    with pytest.raises(RuntimeError, match="in the middle"):
        getattr(model, method)(X[::-1], y[::-1])
    monkeypatch.setattr(Breaks, "after", None)
    assert_same_training(model, expected)
    # As many global random numbers for both.
    for each in (model, expected):
        with torch.random.fork_rng(devices=[]):
            each.partial_fit(X, y)
    assert_same_training(model, expected)


@pytest.mark.parametrize(("error", "after"), [(RuntimeError("out of memory"), 1), (KeyboardInterrupt(), 0)], ids=str)
def test_a_pass_that_fails_leaves_what_the_next_goes_on_from(error, after, rng, monkeypatch):
    model, X, y = fitted(BlockGMDClassifier, {"module": Normalized, "group_size": None}, rng)
    expected = copy.deepcopy(model)
    monkeypatch.setattr(Normalized, "error", error)
    monkeypatch.setattr(Normalized, "after", after)
    # Before its first step an interrupt has nothing to keep.
    told = pytest.warns(UserWarning, match="interrupted by user") if after == 0 else pytest.raises(RuntimeError)
    with told:
        model.partial_fit(X, y)
    monkeypatch.setattr(Normalized, "error", None)
    for each in (model, expected):
        with torch.random.fork_rng(devices=[]):
            each.partial_fit(X, y)
    assert_same_training(model, expected)


@pytest.mark.parametrize("name", GOING_ON)
def test_copies_share_no_memory(name, rng):
    model, _, _ = fitted(*GOING_ON[name], rng)

    def memory(net):
        tensors = tree_leaves([net.optimizer_.state_dict(), net.module_.state_dict(), net.aggregator_.state_dict()])
        return {each.data_ptr() for each in tensors if isinstance(each, torch.Tensor) and each.numel()}

    twin = copied(model.net_)
    assert not memory(model.net_) & memory(twin)
    assert len(memory(twin)) == len(memory(model.net_))


def test_copies_of_states_that_were_computed():
    computed = torch.ones(2, requires_grad=True) * 2.0
    copies = deep_copies({"optimizer": {"state": {0: {"buffer": computed}}}})
    found = copies["optimizer"]["state"][0]["buffer"]
    assert found.tolist() == [2.0, 2.0]
    assert found.data_ptr() != computed.data_ptr()


def test_a_copy_shares_epochs_that_are_over_and_has_the_last_one_to_itself():
    """A stream has an epoch for each part: to copy all of them took longer with each."""
    X, y = make_classification(60, random_state=0)
    net = BlockGMDClassifier(hidden_layer_sizes=(4,), max_epochs=3, random_state=0, strength="mild").fit(X, y).net_
    before = copy.deepcopy(net.history_)
    twin = copied(net)
    assert twin.history_ == net.history_
    assert [mine is its for mine, its in zip(twin.history_, net.history_, strict=True)] == [True, True, False]
    twin.history_.record("more", 1.0)
    twin.history_.record_batch("more", 1.0)
    twin.history_.new_epoch()
    assert net.history_ == before
    assert type(twin.history_) is type(net.history_)


def test_a_copy_of_a_net_without_epochs():
    net = RobustNeuralNetClassifier(torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss).initialize()
    assert list(copied(net).history_) == []
