"""The rule of estimators and nets where none is given: one and the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch import NeuralNetBinaryClassifier

from nets import dataset_of
from skbgmd import (
    BlockGMDClassifier,
    BlockGMDRegressor,
    RobustNeuralNet,
    RobustNeuralNetClassifier,
    RobustNeuralNetRegressor,
)
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean, Krum, NearestNeighborMixing, Zeno
from skbgmd.training._estimator.wrapping import robust_class
from skbgmd.training._strength.defaults import TOL, default_rule, has_default, with_default

pytestmark = pytest.mark.usefixtures("forked")


def test_the_rule() -> None:
    of_groups = GeometricMedian(rejection=10.0, tol=TOL)
    assert str(default_rule(huber=3.0, of_samples=False)) == str(of_groups)
    expected = HuberMean(3.0, rejection=10.0, remember=True, tol=TOL)
    assert str(default_rule(huber=3.0, of_samples=True)) == str(expected)
    expected = GeometricMedian(rejection=10.0, ties="huber", tol=TOL)
    assert str(default_rule(huber=None, of_samples=True)) == str(expected)
    kept = default_rule(huber=None, of_samples=False, memory="mean", beta=0.1, selection="sample", random_state=3)
    block = default_rule(huber=3.0, of_samples=False, beta=0.1)
    assert str(block) == str(BlockGeometricMedian(0.1, of_groups, complement="filtered", block="unit"))
    assert default_rule(huber=3.0, of_samples=True, beta=0.1).complement == "weighted"
    settings = {"selection": "sample", "complement": "memory", "memory_rule": "mean", "block": "unit"}
    assert str(kept) == str(BlockGeometricMedian(0.1, of_groups, random_state=3, **settings))


def test_an_assumed_share_that_is_auto_is_no_rule() -> None:
    told = NearestNeighborMixing(Krum("auto"), fraction="auto")
    assert not has_default(told)
    assert not has_default(Krum("auto"))
    mixed = NearestNeighborMixing("auto", fraction="auto")
    assert has_default(mixed)
    filled = with_default(mixed, GeometricMedian())
    assert (str(filled.aggregator), filled.fraction) == ("GeometricMedian()", "auto")


def _layers(n_outputs: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, n_outputs))


@pytest.mark.parametrize("group_size", [1, 8])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_nets_and_estimators_take_the_same_steps(data: Any, group_size: int, kind: str) -> None:
    X = data[0].astype(np.float32)
    by_class = kind == "classes"
    y = (X[:, 0] > X[:, 1]).astype(np.int64) if by_class else X[:, :1] - X[:, 1:2]
    estimator, net_class = (
        (BlockGMDClassifier, RobustNeuralNetClassifier) if by_class else (BlockGMDRegressor, RobustNeuralNetRegressor)
    )
    module = _layers(2 if by_class else 1)
    settings = {"optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 5, "batch_size": 40, "group_size": group_size}
    # A net doesn't see all inputs at once.
    own = {"strength": None, "leverage": None} if group_size == 1 else {}
    model = estimator(module, shuffle=False, random_state=0, **own, **settings).fit(X, y)
    criterion = torch.nn.CrossEntropyLoss() if by_class else torch.nn.SmoothL1Loss(beta=2.0)
    net = net_class(
        module, criterion=criterion, iterator_train__even=True, train_split=None, verbose=0, **settings
    ).fit(X, y if by_class else ((y - model._center) / model._scale).astype(np.float32))
    found, expected = ([p.detach() for p in which.module_.parameters()] for which in (net, model))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    ignored = {"random_state": None}
    rules = [which.aggregator_.aggregator.get_params() | ignored for which in (net, model.net_)]
    assert rules[0] == rules[1]


@pytest.mark.parametrize(
    ("make", "huber"),
    [
        (lambda **s: RobustNeuralNetClassifier(_layers(2), **s), 16.0),
        (lambda **s: RobustNeuralNetRegressor(_layers(1), **s), None),
        (lambda **s: RobustNeuralNet(_layers(2), criterion=torch.nn.CrossEntropyLoss, **s), 16.0),
        (lambda **s: RobustNeuralNet(_layers(2), criterion=torch.nn.MSELoss, **s), None),
        (lambda **s: robust_class(NeuralNetBinaryClassifier)(_layers(1), **s), 16.0),
    ],
)
def test_single_samples_of_classes_are_huberised(make: Any, huber: float | None) -> None:
    for settings, expected in (
        ({"group_size": 1}, huber),
        ({}, None),
        ({"group_size": None}, None),
        ({"group_size": 1, "local_steps": 2}, None),
    ):
        assert make(**settings).initialize().aggregator_.aggregator.get_params().get("c") == expected
    assert make(aggregator=BlockGeometricMedian()).initialize().aggregator_.aggregator.beta == 0.1
    changed = make(group_size=1).set_params(aggregator__rejection=2.0)
    assert str(changed.aggregator) == str(default_rule(huber=huber, of_samples=True, rejection=2.0))


def test_clients_are_no_single_samples(data: Any) -> None:
    X, y = data[0].astype(np.float32), (data[1] == "yes").astype(np.int64)
    settings = {"criterion": torch.nn.CrossEntropyLoss, "group_size": 1, "train_split": None, "verbose": 0}
    net = RobustNeuralNetClassifier(_layers(2), max_epochs=1, **settings)
    net.fit(dataset_of(X, y, None, np.arange(160) % 4), y)
    assert isinstance(net.aggregator_.aggregator, GeometricMedian)
    state = net.aggregator_
    net.partial_fit(dataset_of(X, y, None, np.arange(160) % 4), y)
    assert net.aggregator_ is state
    assert net.partial_fit(X, y).aggregator_.aggregator.c == 16.0


def test_a_net_of_single_samples_is_as_good_as_the_estimator() -> None:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    module = torch.nn.Sequential(torch.nn.Linear(64, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
    net = RobustNeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.005,
        max_epochs=30,
        group_size=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).fit(X[:1200], y[:1200])
    assert net.score(X[1200:], y[1200:]) > 0.9


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (
            {"memory": "mean", "block": "coordinate", "strength": None},
            "block='coordinate', memory='mean' with aggregator='auto', beta=None",
        ),
        ({"beta": 1.0, "selection": "sample"}, "selection='sample' with aggregator='auto', beta=1.0"),
        ({"group_size": 8, "huber": 1.0}, "huber=1.0 with aggregator='auto', beta=None and rows of groups"),
        ({"aggregator": "krum", "beta": 0.1, "rejection": None}, "beta=0.1, rejection=None with aggregator='krum'"),
        ({"aggregator": "mean", "pre_aggregation": "nearest"}, "pre_aggregation='nearest' with aggregator='mean'"),
        ({"aggregator": BlockGeometricMedian(0.2), "beta": 0.5}, "beta=0.5 with aggregator=BlockGeometricMedian"),
        ({"group_size": None, "rejection": None}, "rejection=None with group_size=None"),
        ({"group_size": None, "aggregator": "krum"}, "aggregator='krum' with group_size=None"),
        ({"strength": "strict", "beta": 0.2}, "beta=0.2 with strength='strict', aggregator='auto' and rows of single"),
    ],
)
def test_parameters_that_a_rule_ignores_are_warned_of(data: Any, settings: Any, found: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(f"must be left at their defaults; found {found}")):
        BlockGMDClassifier(max_epochs=1, **settings).fit(*data)


def test_groups_are_ignored_beside_clients(data: Any) -> None:
    X, y = data
    with pytest.warns(UserWarning, match="found group_size=4 with aggregator='auto', beta=None and rows of groups or"):
        BlockGMDClassifier(max_epochs=1, group_size=4).fit(X, y, clients=np.arange(len(y)) % 9)


def test_without_groups_clients_give_rows_all_the_same(data: Any) -> None:
    X, y = data
    of_clients = np.arange(len(y)) % 9
    settings = {"aggregator": "worker_memory", "max_epochs": 2, "random_state": 0}
    found, expected = (
        BlockGMDClassifier(group_size=size, **settings).fit(X, y, clients=of_clients).predict_proba(X)
        for size in (None, 1)
    )
    np.testing.assert_array_equal(found, expected)


def test_warnings_print_no_data(data: Any) -> None:
    X, y = data
    zeno = Zeno(trusted=(X[:100], y[:100]))
    for settings in ({"beta": 0.5, "group_size": 8}, {"group_size": None}):
        with pytest.warns(UserWarning, match=r"must be left at their defaults; .*aggregator=Zeno\(\.\.\.\)") as caught:
            BlockGMDClassifier(aggregator=zeno, max_epochs=1, **settings).fit(X, y)
        assert max(len(str(warning.message)) for warning in caught) < 200


@pytest.mark.parametrize(
    "settings",
    [
        {"huber": 1.0},
        {"group_size": 8, "rejection": None},
        {"beta": 0.5, "memory": "mean", "selection": "sample", "block": "coordinate"},
        {"aggregator": "block_geometric_median", "beta": 0.2},
        {"aggregator": "krum", "pre_aggregation": "nearest"},
        {"aggregator": "mean", "group_size": None},
    ],
    ids=str,
)
def test_parameters_that_count_are_not(data: Any, settings: Any) -> None:
    model = BlockGMDClassifier(max_epochs=1, **settings).fit(*data)
    if settings.get("aggregator") == "block_geometric_median":
        assert str(model.net_.aggregator_.aggregator) == str(BlockGeometricMedian(0.2))


def test_the_default_rule_can_be_written_down(data: Any) -> None:
    """Printed, cloned and given by hand it is the same training."""
    for settings in ({}, {"group_size": 8}, {"beta": 0.3}):
        model = BlockGMDClassifier(max_epochs=3, random_state=0, **settings).fit(*data)
        names = {"HuberMean": HuberMean, "GeometricMedian": GeometricMedian}
        names["BlockGeometricMedian"] = BlockGeometricMedian
        rule = eval(repr(model.net_.aggregator_.aggregator), names)
        size = settings.get("group_size", 1)
        again = BlockGMDClassifier(max_epochs=3, random_state=0, group_size=size, aggregator=clone(rule)).fit(*data)
        np.testing.assert_array_equal(again.predict_proba(data[0]), model.predict_proba(data[0]))
