"""Fused steps: what they compute is what the step for all cases does, and where nobody may miss it."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
)
from skorch.dataset import ValidSplit
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from skbgmd import (
    BlockGMDClassifier,
    BlockGMDRegressor,
    RobustNeuralNet,
    RobustNeuralNetClassifier,
    RobustNeuralNetRegressor,
)
from skbgmd.aggregators import AGGREGATORS, HuberMean, NonFiniteRowsError
from skbgmd.corruption import BitFlip
from skbgmd.ghost.perceptron import Perceptron
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training._data.loader import ArrayLoader, _Whole
from skbgmd.training._step import fused_step
from skbgmd.training._step.fused_step import FusedStep
from skbgmd.training._step.robust_step import RobustStep
from skbgmd.training._step.trust import SampleTrust
from skbgmd.training._strength.defaults import default_rule
from skbgmd.training.networks import MLP

pytestmark = pytest.mark.usefixtures("forked")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(230, 6)).astype(np.float32)
Y = (X[:, 0] + 0.3 * RNG.normal(size=230) > 0).astype(np.int64) + (X[:, 1] > 0.8)
TARGETS = (X @ np.arange(6.0) + RNG.normal(size=230)).astype(np.float32)
SETTINGS = {"hidden_layer_sizes": (9,), "max_epochs": 6, "batch_size": 32, "random_state": 0, "strength": "mild"}


class Taken(Counter):
    """Counts steps that were fused, and those that were given up."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    counter, call = Taken(), FusedStep.__call__

    def counted(self: FusedStep, batch: Any) -> Any:
        step = call(self, batch)
        counter["fused" if step is not None else "given up"] += 1
        return step

    monkeypatch.setattr(FusedStep, "__call__", counted)
    return counter


def general(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FusedStep, "of", classmethod(lambda cls, net, batch: None))


def parameters_of(net: Any) -> np.ndarray:
    return torch.cat([each.detach().double().flatten() for each in net.module_.parameters()]).numpy()


def assert_same(ours: Any, theirs: Any, rtol: float = 1e-4) -> None:
    """Compare estimators or nets after their trainings."""
    ours, theirs = (getattr(each, "net_", each) for each in (ours, theirs))
    np.testing.assert_allclose(parameters_of(ours), parameters_of(theirs), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.sample_trust(len(X)), theirs.sample_trust(len(X)), rtol=10 * rtol, atol=10 * rtol)
    ours_record, theirs_record = ours.sample_record(len(X)), theirs.sample_record(len(X))
    for name in ("likelihood", "input_norm", "target_class"):
        np.testing.assert_allclose(getattr(ours_record, name), getattr(theirs_record, name), rtol=rtol, atol=rtol)
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert mine.keys() == other.keys()
        names = [name for name, value in other.items() if isinstance(value, float)]
        for name in set(names) - {"dur", "aggregation_time"}:
            np.testing.assert_allclose(mine[name], other[name], rtol=100 * rtol, atol=100 * rtol)
    state, other_state = ours.aggregator_.state_dict(), theirs.aggregator_.state_dict()
    assert state.keys() == other_state.keys()
    assert state["n_batches"] == other_state["n_batches"]


CASES = {
    "classes": lambda **more: BlockGMDClassifier(**{**SETTINGS, **more}).fit(X, Y),
    "two classes": lambda **more: BlockGMDClassifier(**{**SETTINGS, **more}).fit(X, Y > 0),
    "several labels": lambda **more: BlockGMDClassifier(**{**SETTINGS, **more}).fit(X, np.eye(3, dtype=int)[Y]),
    "numbers": lambda **more: BlockGMDRegressor(**{**SETTINGS, **more}).fit(X, TARGETS),
    "several numbers": lambda **more: BlockGMDRegressor(**{**SETTINGS, **more}).fit(X, X[:, :2] * TARGETS[:, None]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (5, 12)},
        {"strength": "firm"},
        {"huber": 0.5},
        {"trust_power": 2.0, "huber": 1.0},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.02},
        {"optimizer": torch.optim.AdamW},
        {"optimizer__amsgrad": True},
        {"optimizer__weight_decay": 0.1},
        {"batch_size": 230},
        {"rejection": None},
        {"callbacks": [LRScheduler("ExponentialLR", gamma=0.9)]},
    ],
    ids=lambda more: "-".join(more) or "defaults",
)
def test_trains_the_same_network(case: str, more: dict, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    if more.keys() & {"huber", "trust_power", "rejection"}:
        more = {**more, "strength": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fused = CASES[case](**more)
        assert taken["fused"] >= 5
        assert not taken["given up"]
        n_fused = taken["fused"]
        general(monkeypatch)
        assert_same(fused, CASES[case](**more))
        assert taken["fused"] == n_fused


@pytest.mark.parametrize("rule", sorted(AGGREGATORS))
def test_any_rule_may_have_its_say(rule: str, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit() -> BlockGMDClassifier:
        return BlockGMDClassifier(**{**SETTINGS, "max_epochs": 2, "strength": None}, aggregator=rule, group_size=1).fit(
            X, Y
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused = fit()
        assert taken["fused"] >= 5
        general(monkeypatch)
        # Selections jump by rounding: a step or two are compared.
        assert_same(fused, fit(), 1e-3)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Taken:
    """Counts steps by blocks of units that were taken without the rule."""
    counter, call = Taken(), fused_step.unit_block_mean

    def counted(*args: Any) -> Any:
        found = call(*args)
        counter["quick" if found is not None else "by the rule"] += 1
        return found

    monkeypatch.setattr(fused_step, "unit_block_mean", counted)
    return counter


def net_of_blocks(beta: float = 0.1, kind: Any = None, **more: Any) -> Any:
    """A net whose rows are judged by blocks of units; of dead ones, which have equal scores, any may be chosen."""
    torch.manual_seed(0)
    module = more.pop("module", nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)))
    rule = default_rule(huber=2.0, of_samples=True, beta=beta, memory=more.pop("memory", None))
    rule.set_params(**{name: more.pop(name) for name in ("block", "selection") if name in more}, random_state=0)
    # Batches of as many rows as aren't written out.
    settings = {"module": module, "aggregator": rule, "trust_power": 1.0, "batch_size": 115, **more}
    return net_of(RobustNeuralNetClassifier if kind is None else kind, **settings)


BLOCKS: list[dict[str, Any]] = [
    {},
    {"trust_power": 0.0},
    {"tilt": 0.7},
    {"batch_size": 32},
    {"optimizer": torch.optim.SGD, "lr": 0.1},
    {"memory": "weighted"},
    {"memory": "mean"},
    {"selection": "sample"},
    {"selection": "uniform"},
    {"block": "coordinate"},
]


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("more", BLOCKS, ids=lambda more: "-".join(map(str, more.values())) or "defaults")
def test_blocks_are_the_same(
    beta: float, more: dict, taken: Taken, quick: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> Any:
        return net_of_blocks(beta, **{"max_epochs": 8, **more}).fit(X, Y)

    fused = fit()
    assert taken["fused"] >= 16
    assert not taken["given up"]
    # All but the first step; what is kept of other columns, drawn or written out is the rule's affair.
    is_plain = not more.keys() & {"memory", "selection", "block"}
    assert quick["quick"] == (taken["fused"] - 1 if is_plain else 0)
    general(monkeypatch)
    assert_same(fused, fit(), 1e-3 if "block" in more else 1e-4)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("lr", [0.003, 0.05])
def test_blocks_of_two_classes_are_the_same(activation: Any, lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer's two units have gradients of opposite signs: equal scores, in every step."""

    def chosen() -> list[list[int]]:
        torch.manual_seed(0)
        module, blocks, top = nn.Sequential(nn.Linear(6, 9), activation(), nn.Linear(9, 2)), [], ParameterBlock.top

        def noted(self: ParameterBlock, scores: Any, k: int) -> ParameterBlock:
            block = top(self, scores, k)
            # Units of the last layer: of the two weights, or biases, the first one comes first.
            for first in (18, 20):
                assert first in block.chosen or first + 1 not in block.chosen
            blocks.append(block.chosen.tolist())
            return block

        with monkeypatch.context() as patch:
            patch.setattr(ParameterBlock, "top", noted)
            net_of_blocks(0.1, module=module, lr=lr, max_epochs=10).fit(X, (X[:, 0] > 0.0).astype(np.int64))
        return blocks

    fused = chosen()
    general(monkeypatch)
    assert chosen() == fused
    assert any(18 in block and 19 not in block for block in fused)


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_blocks_with_weighted_samples(least: float, quick: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.where(np.arange(len(X)) % 7 == 0, least, np.linspace(0.5, 1.0, len(X)))

    def fit() -> Any:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
        settings = {**SETTINGS, "strength": None, "beta": 0.1, "batch_size": 115, "module": module}
        return BlockGMDClassifier(**settings).fit(X, Y, sample_weight=weights)

    fused = fit()
    assert quick["quick"] >= 5
    general(monkeypatch)
    assert_same(fused, fit())


def test_blocks_go_on_to_the_same_network(quick: Taken, tmp_path: Any) -> None:
    whole = net_of_blocks(max_epochs=6).fit(X, Y)
    assert quick["quick"] == 6 * 2 - 1
    half = net_of_blocks(max_epochs=3).fit(X, Y)
    half.save_params(f_params=tmp_path / "p.pt", f_optimizer=tmp_path / "o.pt", f_history=tmp_path / "h.json")
    rest = net_of_blocks(max_epochs=3).initialize()
    rest.load_params(f_params=tmp_path / "p.pt", f_optimizer=tmp_path / "o.pt", f_history=tmp_path / "h.json")
    rest.partial_fit(X, Y)
    assert rest.aggregator_.state.step == whole.aggregator_.state.step == 12
    np.testing.assert_array_equal(parameters_of(rest), parameters_of(whole))


def test_blocks_are_watched_to_the_bit(quick: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, batches = Watcher(), BatchWatcher()
    plain, watched, counted = (net_of_blocks(callbacks=each).fit(X, Y) for each in ([], [watcher], [batches]))
    assert quick["quick"] == 3 * (3 * 2 - 1)
    for net in (watched, counted):
        np.testing.assert_array_equal(parameters_of(net), parameters_of(plain))
        assert net.history[:, "selected_mass"] == plain.history[:, "selected_mass"]
    general(monkeypatch)
    other = Watcher()
    net_of_blocks(callbacks=[other]).fit(X, Y)
    for ours, theirs in zip(watcher.seen, other.seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dtypes_are_kept(dtype: type, taken: Taken) -> None:
    fitted = BlockGMDClassifier(**SETTINGS).fit(X.astype(dtype), Y)
    assert taken["fused"]
    assert fitted.predict_proba(X.astype(dtype)).dtype == dtype


def net_of(kind: type = RobustNeuralNetClassifier, module: nn.Module | None = None, **more: Any) -> Any:
    torch.manual_seed(0)
    defaults = {
        "criterion": nn.CrossEntropyLoss,
        "group_size": 1,
        "max_epochs": 3,
        "batch_size": 32,
        "verbose": 0,
        "train_split": None,
        "optimizer": torch.optim.Adam,
        "random_state": 0,
    }
    return kind(MLP(6, 3, (9,)) if module is None else module, **{**defaults, **more})


class Watcher(Callback):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        self.seen.append([parameter.grad.clone() for _, parameter in named_parameters])


class BatchWatcher(Callback):
    def __init__(self) -> None:
        self.seen = 0

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        self.seen += 1


class OwnStep(RobustNeuralNetClassifier):
    n_steps = 0

    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        type(self).n_steps += 1
        return super().train_step_single(batch, **fit_params)


class OwnLoss(RobustNeuralNetClassifier):
    def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get_loss(y_pred, y_true, *args, **kwargs)


class OwnInfer(RobustNeuralNetClassifier):
    def infer(self, x: Any, **fit_params: Any) -> Any:
        return super().infer(x, **fit_params)


class Accumulating(RobustNeuralNetClassifier):
    def _zero_grad_optimizer(self, set_to_none: Any = None) -> None:
        super()._zero_grad_optimizer(set_to_none)


class Transposed(nn.Sequential):
    """A perceptron whose weights may lie in memory column by column."""

    def __init__(self, transposed: bool = True) -> None:
        super().__init__(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
        if transposed:
            for layer in (self[0], self[2]):
                layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)


class WideGradients(MLP):
    """Gradients are to have another dtype than parameters."""

    def __init__(self) -> None:
        super().__init__(6, 3, (9,))
        for parameter in self.parameters():
            parameter.grad_dtype = torch.float64


class MyAdam(torch.optim.Adam):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: net_of(OwnStep),
        lambda: net_of(OwnLoss),
        lambda: net_of(OwnInfer),
        lambda: net_of(Accumulating),
        lambda: net_of(optimizer=MyAdam),
        lambda: net_of(optimizer=torch.optim.LBFGS, optimizer__max_iter=2),
        lambda: net_of(group_size=4),
        lambda: net_of(group_size=None),
        lambda: net_of(local_steps=2, group_size=2),
        lambda: net_of(gradients="micro_batches", batch_size=115),
        lambda: net_of(gradient_corruption=BitFlip(0.1)),
        lambda: net_of(criterion=nn.CrossEntropyLoss(weight=torch.ones(3))),
        lambda: net_of(criterion=nn.CrossEntropyLoss(label_smoothing=0.1)),
        lambda: net_of(criterion=nn.CrossEntropyLoss(reduction="sum")),
        lambda: net_of(module=nn.Sequential(nn.Linear(6, 9), nn.Dropout(), nn.Linear(9, 3))),
        lambda: net_of(module=Transposed()),
        pytest.param(
            lambda: net_of(module=WideGradients(), optimizer=torch.optim.SGD, optimizer__lr=0.01),
            marks=pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="gradients have no other dtype"),
        ),
    ],
)
def test_the_step_for_all_cases_is_taken_where_it_matters(make: Any, taken: Taken) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make().fit(X, Y)
    assert not taken["fused"]


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("watched", [False, True])
def test_weights_that_lie_in_another_order_are_trained_alike(watched: bool, optimizer: Any) -> None:
    """Torch's fused optimizers go through memory."""
    fitted = [
        net_of(
            module=Transposed,
            module__transposed=transposed,
            optimizer=optimizer,
            optimizer__fused=True,
            callbacks=[BatchWatcher()] if watched else None,
        ).fit(X, Y)
        for transposed in (False, True)
    ]
    assert not fitted[1].module_[0].weight.is_contiguous()
    assert_same(*fitted, rtol=1e-3)


def test_what_watches_sees_each_step(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, batches = Watcher(), BatchWatcher()
    plain, watched, counted = (net_of(callbacks=each).fit(X, Y) for each in ([], [watcher], [batches]))
    assert taken["fused"] == 3 * 3 * 8
    # To the bit: whether anybody watches makes no difference.
    for net in (watched, counted):
        np.testing.assert_array_equal(parameters_of(net), parameters_of(plain))
    OwnStep.n_steps = 0
    net_of(OwnStep).fit(X, Y)
    assert len(watcher.seen) == batches.seen == OwnStep.n_steps == 3 * 8
    general(monkeypatch)
    other = Watcher()
    net_of(callbacks=[other]).fit(X, Y)
    for ours, theirs in zip(watcher.seen, other.seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


class Replaces(Callback):
    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        for _, parameter in named_parameters:
            parameter.grad = 0.5 * parameter.grad


@pytest.mark.parametrize("make", [lambda: GradientNormClipping(0.05), Replaces])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_callbacks_may_change_gradients(
    make: Any, optimizer: Any, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = net_of(callbacks=[make()], optimizer=optimizer, lr=0.1).fit(X, Y)
    assert taken["fused"] == 24
    general(monkeypatch)
    assert_same(fused, net_of(callbacks=[make()], optimizer=optimizer, lr=0.1).fit(X, Y))


def assert_general_fit_is_the_same(fit: Any, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some steps of a fit are fused, and it comes to what it does with none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused = fit()
        assert taken["fused"] >= 8
        general(monkeypatch)
        assert_same(fused, fit())


class Changes(Callback):
    """Changes something in the midst of an epoch."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if training and len(net.history) == 2 and len(net.history[-1]["batches"]) == 3:
            self.change(net)


def freeze(net: Any) -> None:
    for parameter in net.module_[0].parameters():
        parameter.requires_grad_(False)


def move(net: Any) -> None:
    net.module_[0].weight.data = 2.0 * net.module_[0].weight.data


def replace_loss(net: Any) -> None:
    net.criterion_ = nn.CrossEntropyLoss(label_smoothing=0.5)


def drop_out(net: Any) -> None:
    net.module_[1] = nn.Sequential(nn.ReLU(), nn.Identity())


def slow_down(net: Any) -> None:
    net.optimizer_ = torch.optim.SGD(net.module_.parameters(), lr=0.01)


def smooth(net: Any) -> None:
    net.criterion_.label_smoothing = 0.3


def transpose(net: Any) -> None:
    weight = net.module_[2].weight
    weight.data = weight.data.T.contiguous().T


def load_state(net: Any) -> None:
    state = net.optimizer_.state_dict()
    for each in state["state"].values():
        each["exp_avg"] = 0.0 * each["exp_avg"]
    net.optimizer_.load_state_dict(state)


def go_up(net: Any) -> None:
    net.optimizer_.param_groups[0]["maximize"] = True


def predict(net: Any) -> None:
    net.predict(X[:3])


CHANGES = [freeze, move, replace_loss, drop_out, slow_down, smooth, transpose, load_state, go_up, predict]


class OwnEnd(RobustNeuralNetClassifier):
    """Does to itself what a callback may do."""

    change: Any = None

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        super().on_batch_end(net, batch=batch, training=training, **kwargs)
        Changes(type(self).change).on_batch_end(self, training=training)


class OwnLoader(ArrayLoader):
    """Does so between batches."""

    net: Any = None
    change: Any = None

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if OwnLoader.net is not None and len(OwnLoader.net.history) == 2:
                Changes(OwnLoader.change).on_batch_end(OwnLoader.net, training=True)
            yield batch


@pytest.mark.parametrize("where", ["callback", "decorated", "scoring", "net", "loader"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_trained_may_be_changed_between_batches(
    change: Any, where: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> Any:
        if where == "net":
            OwnEnd.change = staticmethod(change)
            return net_of(OwnEnd, optimizer__fused=True).fit(X, Y)
        if where == "loader":
            net = net_of(iterator_train=OwnLoader, optimizer__fused=True).initialize()
            OwnLoader.net, OwnLoader.change = net, staticmethod(change)
            try:
                return net.partial_fit(X, Y)
            finally:
                OwnLoader.net = None
        callback: Any = Changes(change)
        if where == "decorated":

            class Decorated(EpochScoring):
                @functools.wraps(EpochScoring.on_batch_end)
                def on_batch_end(self, net: Any, *args: Any, training: bool = False, **kwargs: Any) -> None:
                    Changes(change).on_batch_end(net, training=training)

            callback = Decorated("accuracy", on_train=True, name="seen", use_caching=False)
        if where == "scoring":

            def score(net: Any, *_: Any) -> float:
                Changes(change).on_batch_end(net, training=True)
                return 0.0

            callback = BatchScoring(score, on_train=True, name="seen")
        return net_of(callbacks=[callback], optimizer__fused=True).fit(X, Y)

    assert_general_fit_is_the_same(fit, taken, monkeypatch)


class BetweenEpochs(Callback):
    """Changes something before or after an epoch."""

    def __init__(self, change: Any, event: str) -> None:
        self.change, self.event = change, event

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self._told(net, "on_epoch_begin")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self._told(net, "on_epoch_end")

    def _told(self, net: Any, event: str) -> None:
        if event == self.event and len(net.history) == 2:
            self.change(net)


class OwnEpochs(RobustNeuralNetClassifier):
    """Changes something where skorch goes once through the data."""

    change: Any = None

    def run_single_epoch(self, iterator: Any, training: bool, *args: Any, **kwargs: Any) -> None:
        super().run_single_epoch(iterator, training, *args, **kwargs)
        if training and len(self.history) == 2:
            type(self).change(self)


class OwnLoop(RobustNeuralNetClassifier):
    """Has a loop of its own through the epochs."""

    change: Any = None

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> Any:
        for epoch in range(epochs or self.max_epochs):
            super().fit_loop(X, y, epochs=1, **fit_params)
            if epoch == 1:
                type(self).change(self)
        return self


def print_and(change: Any) -> tuple[Callback, list[str]]:
    """A log that changes something, and what it was told."""
    told: list[str] = []
    nets: list[Any] = []

    class Log(PrintLog):
        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            nets[:] = [net]
            super().on_epoch_end(net, **kwargs)

    def sink(line: str) -> None:
        told.append(line)
        if len(nets[0].history) == 2 and len(told) == 4:
            change(nets[0])

    return Log(sink=sink), told


@pytest.mark.parametrize("where", ["on_epoch_begin", "on_epoch_end", "scoring", "sink", "net", "loop"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_trained_may_be_changed_between_epochs(
    change: Any, where: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(net: Any, *_: Any) -> float:
        if len(net.history) == 2:
            change(net)
        return 0.0

    def fit() -> Any:
        kind: Any = {"net": OwnEpochs, "loop": OwnLoop}.get(where, RobustNeuralNetClassifier)
        callbacks: list[Any] = []
        if where in ("net", "loop"):
            kind.change = staticmethod(change)
        elif where == "scoring":
            callbacks = [EpochScoring(score, on_train=True, name="seen")]
        elif where == "sink":
            log, told = print_and(change)
            fitted = net_of(callbacks__print_log=log, optimizer__fused=True, verbose=1).fit(X, Y)
            assert len(told) >= 4
            return fitted
        else:
            callbacks = [BetweenEpochs(change, where)]
        return net_of(kind, callbacks=callbacks, optimizer__fused=True).fit(X, Y)

    assert_general_fit_is_the_same(fit, taken, monkeypatch)


@pytest.mark.parametrize(
    ("callbacks", "n_looks"),
    [
        ([], 1),
        ([EpochScoring("accuracy", on_train=True, name="seen")], 1),
        ([BetweenEpochs(len, "never")], 3),
        ([LRScheduler("StepLR", step_size=1)], 3),
        ([EarlyStopping(monitor="train_loss")], 3),
    ],
    ids=["none", "scoring", "own", "scheduler", "stopping"],
)
def test_a_step_is_looked_up_once_where_nobody_can_change_it(
    callbacks: list[Any], n_looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    of = FusedStep.of
    monkeypatch.setattr(FusedStep, "of", classmethod(lambda cls, net, batch: looks.append(net) or of(net, batch)))
    net = net_of(callbacks=callbacks, max_epochs=3).fit(X, Y)
    assert len(looks) == n_looks
    # The next training begins with a look.
    net.partial_fit(X, Y)
    assert len(looks) == 2 * n_looks


def test_a_step_that_lasts_trains_on_after_a_validation(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []
    take = RobustStep._record
    monkeypatch.setattr(
        RobustStep, "_record", lambda net, record: modes.append(net.module_[1].training) or take(net, record)
    )
    fused = net_of(train_split=ValidSplit(3)).fit(X, Y)
    assert taken["fused"] >= 12
    assert modes
    assert all(modes)
    general(monkeypatch)
    assert_same(fused, net_of(train_split=ValidSplit(3)).fit(X, Y))


heard: list[str] = []


class OwnNotify(RobustNeuralNetClassifier):
    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        heard.append(method_name)
        super().notify(method_name, **cb_kwargs)


def test_a_net_that_is_notified_hears_of_each_event() -> None:
    heard.clear()
    net_of(OwnNotify).fit(X, Y)
    assert heard.count("on_grad_computed") == heard.count("on_batch_end") == 24


def test_methods_that_are_put_in_front_of_an_optimizers_are_called(taken: Taken) -> None:
    calls: Counter[str] = Counter()

    class Patches(Callback):
        def on_train_begin(self, net: Any, **kwargs: Any) -> None:
            for name in ("step", "zero_grad"):
                original = getattr(net.optimizer_, name)

                def patched(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                    calls[name] += 1
                    return original(*args, **kwargs)

                setattr(net.optimizer_, name, patched)

    net_of(callbacks=[Patches()]).fit(X, Y)
    assert calls == {"step": 24, "zero_grad": 24}
    assert not taken["fused"]


def test_a_step_that_is_patched_is_taken(taken: Taken) -> None:
    with mock.patch.object(RobustNeuralNetClassifier, "train_step_single", autospec=True) as patched:
        patched.side_effect = lambda net, batch, **_: RobustStep.train_step_single(net, batch)
        net_of().fit(X, Y)
    assert patched.call_count == 24
    assert not taken["fused"]


def test_callbacks_that_come_and_go_are_told() -> None:
    late = BatchWatcher()

    class Comes(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 2:
                net.callbacks_.append(("late", late))

    class Goes(BatchWatcher):
        def on_batch_end(self, net: Any, **kwargs: Any) -> None:
            super().on_batch_end(net, **kwargs)
            net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not self]

    goes = Goes()
    net_of(callbacks=[Comes(), goes]).fit(X, Y)
    assert late.seen == 16
    assert goes.seen == 1


def test_gradients_that_are_kept_stay_as_they_were() -> None:
    kept: list[torch.Tensor] = []

    class Keeps(Callback):
        def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
            kept.append(net.module_[0].weight.grad)

    net_of(callbacks=[Keeps()]).fit(X, Y)
    assert len({float(each.sum()) for each in kept}) == len(kept) == 24


def test_another_module_between_epochs() -> None:
    class Anew(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 2:
                net.initialize_module()
                net.initialize_optimizer()

    fitted = net_of(callbacks=[Anew()], module=MLP, module__n_features=6, module__n_outputs=3).fit(X, Y)
    assert np.isfinite(parameters_of(fitted)).all()


@pytest.mark.parametrize("of_blocks", [False, True])
@pytest.mark.parametrize("value", [1e15, 1e20, 1e30])
def test_numpys_warnings_stay_silent(of_blocks: bool, value: float) -> None:
    huge = X.copy()
    huge[3] = value
    with np.errstate(over="raise", invalid="raise"), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (net_of_blocks() if of_blocks else net_of()).fit(huge, Y)


def test_skorchs_own_scoring_goes_with_it(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit() -> Any:
        scoring = EpochScoring("accuracy", on_train=True, name="seen_acc", lower_is_better=False)
        return net_of(callbacks=[scoring]).fit(X, Y)

    fused = fit()
    assert taken["fused"] >= 20
    general(monkeypatch)
    assert fused.history[:, "seen_acc"] == fit().history[:, "seen_acc"]


def test_hooks_of_layers_are_called(taken: Taken) -> None:
    module, calls = MLP(6, 3, (9,)), []
    module[0].register_forward_hook(lambda *_: calls.append(1))
    net_of(module=module).fit(X, Y)
    assert not taken["fused"]
    assert len(calls) >= 24


def test_a_hook_that_comes_in_a_later_epoch_is_called(taken: Taken) -> None:
    calls: list[int] = []

    class Hooks(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 3:
                net.module_[2].register_forward_hook(lambda *_: calls.append(1))

    net_of(callbacks=[Hooks()]).fit(X, Y)
    assert taken["fused"] == 16
    assert len(calls) >= 8


def _mask(parameter: Any, mask: Any) -> None:
    parameter.grad.mul_(mask)


class _Masks:
    """A hook of a weight, which keeps part of it as it is."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def put_on(self, weight: Any) -> None:
        mask = torch.ones_like(weight)
        mask[:, :3] = 0.0
        if self.kind == "of a gradient":
            weight.register_hook(lambda gradient: gradient * mask)
        else:
            weight.register_post_accumulate_grad_hook(lambda parameter: _mask(parameter, mask))


@pytest.mark.parametrize("later", [False, True], ids=["from the beginning", "in a later epoch"])
@pytest.mark.parametrize("kind", ["of a gradient", "after it"])
@pytest.mark.parametrize("settings", [{}, {"group_size": 8}, {"aggregator": "mean"}], ids=str)
@pytest.mark.filterwarnings("ignore:There is a pass for each group from now on, which may be slower")
def test_hooks_of_parameters_are_called(taken: Taken, kind: str, later: bool, settings: dict[str, Any]) -> None:
    module, kept = MLP(6, 3, (9,)), []

    class Later(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == (3 if later else 1):
                _Masks(kind).put_on(net.module_[0].weight)
                kept.append(net.module_[0].weight.detach().clone())

    # Momentum would go on with what was before.
    net = net_of(module=module, callbacks=[Later()], optimizer=torch.optim.SGD, lr=0.1, **settings).fit(X, Y)
    moved = net.module_[0].weight.detach() - kept[0]
    assert not moved[:, :3].any()
    assert moved[:, 3:].any()


def test_hooks_of_the_optimizer_are_called(taken: Taken) -> None:
    calls: list[int] = []

    class Hooks(Callback):
        def on_train_begin(self, net: Any, **kwargs: Any) -> None:
            net.optimizer_.register_step_post_hook(lambda *_: calls.append(1))

    net_of(callbacks=[Hooks()], optimizer__fused=True).fit(X, Y)
    assert not taken["fused"]
    assert len(calls) == 24


def test_schedulers_count_their_steps(taken: Taken) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = net_of(
            callbacks=[LRScheduler("StepLR", step_size=1, gamma=0.5, step_every="batch")], optimizer__fused=True
        ).fit(X, Y)
    assert taken["fused"] >= 20
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(net.lr * 0.5**24, rel=1e-6)


def test_settings_that_change_between_steps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halves(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            net.optimizer_.param_groups[0].update(lr=0.1 * 0.5 ** len(net.history), weight_decay=0.01)

    def fit() -> Any:
        return net_of(callbacks=[Halves()], optimizer__fused=True).fit(X, Y)

    fused = fit()
    general(monkeypatch)
    assert_same(fused, fit())


def test_clients_take_the_step_for_all_cases(taken: Taken) -> None:
    BlockGMDClassifier(**{**SETTINGS, "strength": None}).fit(X, Y, clients=np.arange(len(X)) % 8)
    assert not taken["fused"]


@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("strength", ["mild", "firm"])
def test_weighted_samples(least: float, strength: str, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.where(np.arange(len(X)) % 7 == 0, least, np.linspace(min(1.0, least + 0.5), 1.0, len(X)))

    def fit(weights: Any) -> Any:
        return BlockGMDClassifier(**{**SETTINGS, "strength": strength}).fit(X, Y, sample_weight=weights)

    fused = fit(weights)
    assert taken["fused"] >= 30
    if least == 1.0:
        np.testing.assert_array_equal(parameters_of(fused.net_), parameters_of(fit(None).net_))
    general(monkeypatch)
    assert_same(fused, fit(weights))


@pytest.mark.parametrize("value", [np.inf, 1e30])
def test_what_is_not_finite_is_told_as_ever(value: float, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(Callback):
        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 2:
                with torch.no_grad():
                    net.module_[0].weight.fill_(value)

    def error() -> str:
        net = net_of(callbacks=[Breaks()], module=MLP(6, 3, (9, 9)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(NonFiniteRowsError) as found:
                net.fit(1e9 * X, Y)
        return str(found.value)

    fused = error()
    assert taken["given up"]
    general(monkeypatch)
    assert fused == error()


def test_labels_that_are_none_are_told_as_ever(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    y = Y.copy()
    y[-1] = 7

    def error() -> str:
        net = net_of(RobustNeuralNet, iterator_train__shuffle=False)
        with pytest.raises(IndexError) as found:
            net.fit(X, y)
        return str(found.value)

    fused = error()
    assert taken["fused"]
    assert taken["given up"] == 0
    general(monkeypatch)
    assert fused == error()


@pytest.mark.parametrize("ignored", [-100, -1, 0])
def test_ignored_labels_count_for_nothing(ignored: int, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    y = Y.copy()
    y[5:40:9] = ignored

    def fit() -> Any:
        criterion = nn.CrossEntropyLoss(ignore_index=ignored)
        return net_of(RobustNeuralNet, criterion=criterion, iterator_train__shuffle=False).fit(X, y)

    fused = fit()
    assert taken["given up"]
    assert taken["fused"] or ignored == 0
    general(monkeypatch)
    assert_same(fused, fit())


def test_a_training_goes_on_to_the_same_network(taken: Taken, tmp_path: Any) -> None:
    whole = net_of(max_epochs=6).fit(X, Y)
    half = net_of(max_epochs=3).fit(X, Y)
    half.save_params(f_params=tmp_path / "p.pt", f_optimizer=tmp_path / "o.pt", f_history=tmp_path / "h.json")
    rest = net_of(max_epochs=3).initialize()
    rest.load_params(f_params=tmp_path / "p.pt", f_optimizer=tmp_path / "o.pt", f_history=tmp_path / "h.json")
    rest.partial_fit(X, Y)
    assert taken["fused"] == 12 * 8
    np.testing.assert_array_equal(parameters_of(rest), parameters_of(whole))


def stops() -> Callback:
    """A callback that stops a training in its second epoch."""

    class Stops(Callback):
        def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 2 and len(net.history[-1]["batches"]) == 3:
                raise RuntimeError("stop")

    return Stops()


def test_nothing_is_left_of_it_after_a_training_that_was_broken_off(taken: Taken) -> None:
    net = net_of(max_epochs=2).fit(X, Y)
    with pytest.raises(RuntimeError, match="stop"):
        net.set_params(callbacks=[stops()]).fit(X, Y)
    assert net._fused_ is None
    assert not net._listening_


def test_random_numbers_stay_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> torch.Tensor:
        net_of(RobustNeuralNetRegressor, criterion=nn.MSELoss, module=MLP(6, 1, (9,))).fit(X, TARGETS[:, None])
        return torch.rand(3)

    fused = drawn()
    general(monkeypatch)
    assert torch.equal(fused, drawn())


def test_threads_stay_as_many_as_they_were(taken: Taken) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            net_of().fit(X, Y)
            with pytest.raises(RuntimeError, match="stop"):
                net_of(callbacks=[stops()]).fit(X, Y)
            assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert taken["fused"] >= 20


def test_small_nets_take_one_thread_for_all_that_is_done_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread of an operation that is over goes on spinning: it took as much time as the main one."""
    seen: dict[str, set[int]] = {}

    def watch(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seen.setdefault(f"{owner.__name__}.{name}", set()).add(torch.get_num_threads())
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (HuberMean, "judge"),  # as long as no scale is remembered
        (HuberMean, "_judge_by_gram"),
        (Perceptron, "forward"),
        (_Whole, "__getitem__"),
        (SampleTrust, "_note"),
        (SampleTrust, "_add"),
    ):
        watch(owner, name)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for watcher in ([], [BatchWatcher()]):
            net_of(callbacks=watcher, batch_size=115).fit(X, Y)
            net_of_blocks(callbacks=watcher).fit(X, Y)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 6
    assert set.union(*seen.values()) == {1}


def test_gradients_are_those_of_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = net_of().fit(X, Y)
    general(monkeypatch)
    plain = net_of().fit(X, Y)
    for ours, theirs in zip(fused.module_.parameters(), plain.module_.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_rule_of_single_samples_is_the_default() -> None:
    assert isinstance(net_of().initialize().aggregator_.aggregator, HuberMean)


@pytest.mark.parametrize(("max_epochs", "optimizer", "n_calls"), [(1, "Adam", 1), (3, "Adam", 1), (2, "SGD", 14)])
def test_an_optimizer_itself_takes_the_first_step_alone(max_epochs: int, optimizer: str, n_calls: int) -> None:
    kind = getattr(torch.optim, optimizer)
    settings = {**SETTINGS, "max_epochs": max_epochs, "optimizer": kind, "lr": 0.05}
    with mock.patch.object(kind, "step", autospec=True, side_effect=kind.step) as step:
        found = BlockGMDClassifier(**settings).fit(X, Y)
    assert step.call_count == n_calls
    # What watches batches may look at the optimizer's state, and has its own step.
    watched = BlockGMDClassifier(**settings, callbacks=[("watch", _Watch())]).fit(X, Y)
    np.testing.assert_array_equal(parameters_of(found.net_), parameters_of(watched.net_))


class _Watch(Callback):
    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        """See that the optimizer has a state of each parameter."""
        assert net.optimizer_.state or isinstance(net.optimizer_, torch.optim.SGD)
