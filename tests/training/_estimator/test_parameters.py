"""Parameters: those handed on to parts, and errors that name what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EarlyStopping, EpochScoring
from skorch.dataset import ValidSplit

from fits import quick
from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import Krum


def test_routed_parameters(data):
    X, y = data
    model = quick(optimizer=torch.optim.SGD, optimizer__momentum=0.9, iterator_train__drop_last=False)
    model.set_params(optimizer__momentum=0.8, module__hidden_layer_sizes=(3,)).fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["momentum"] == 0.8
    assert model.module_[0].out_features == 3
    search = GridSearchCV(quick(max_epochs=2), {"optimizer__weight_decay": [0.0, 1e3]}, cv=2).fit(X, y)
    assert search.best_params_["optimizer__weight_decay"] == 0.0
    scoring = EpochScoring("accuracy", name="seen", lower_is_better=False)
    shown = quick(callbacks=[("mine", scoring)], callbacks__mine__name="other", train_split=ValidSplit(4)).fit(X, y)
    assert "other" in shown.history_[-1]
    assert np.isnan(shown.sample_trust_).sum() == 40
    with pytest.raises(TypeError, match="unexpected keyword argument 'bet'"):
        BlockGMDClassifier(bet=0.2)
    with pytest.raises(ValueError, match="Invalid parameter 'bet'"):
        quick().set_params(bet=0.2)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"beta": 0.0}, ValueError, "beta must be greater than 0"),
        ({"beta": "all"}, TypeError, "beta must be a number"),
        ({"selection": "best"}, ValueError, "selection must be one of"),
        ({"memory": "short"}, ValueError, "memory must be one of"),
        ({"rejection": 1.0}, ValueError, "rejection must be greater than 1"),
        ({"pre_aggregation": "far"}, ValueError, "pre_aggregation must be one of"),
        ({"aggregator": "best"}, ValueError, "aggregator must be one of"),
        ({"module": 3}, TypeError, "module must be a Module"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1"),
        ({"local_steps": 0}, ValueError, "local_steps must be at least 1"),
        ({"lr": -1.0}, ValueError, "lr must be greater than 0"),
        ({"hidden_layer_sizes": 5}, TypeError, "hidden_layer_sizes must be a sequence of integers; found 5"),
        ({"hidden_layer_sizes": (0,)}, ValueError, "hidden_layer_sizes must be at least 1"),
        ({"gradient_corruption": "flip"}, TypeError, "gradient_corruption must be None"),
        ({"warm_start": "False"}, TypeError, "warm_start must be True or False; found 'False'"),
        ({"shuffle": None}, TypeError, "shuffle must be True or False"),
    ],
)
def test_bad_parameters(data, settings, error, match):
    with pytest.raises(error, match=match):
        quick(**settings).fit(*data)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"optimizer": "adam"}, TypeError, "optimizer must be a class of optimizers"),
        ({"optimizer": torch.nn.Linear}, TypeError, "optimizer must be a class of optimizers"),
        ({"criterion": "mse"}, TypeError, "criterion must be a class of losses"),
        ({"train_split": 0.2}, TypeError, "train_split must be callable"),
        ({"callbacks": "es"}, TypeError, r"callbacks must be a list of callbacks, .*; found 'es'"),
        ({"callbacks": EarlyStopping}, TypeError, "callbacks must be a list of callbacks"),
        ({"callbacks": EarlyStopping()}, TypeError, "callbacks must be a list of callbacks"),
        ({"aggregator": Krum}, ValueError, r"aggregator must be one of .*Krum'>, a class; an instance is Krum\(\)"),
        ({"hidden_layer_sizes": np.array([[5]])}, TypeError, "hidden_layer_sizes must be a sequence"),
    ],
)
def test_parts_are_checked(data, settings, error, message):
    with pytest.raises(error, match=message):
        quick(**settings).fit(*data)


@pytest.mark.parametrize("given", ["x", 1.5, -1], ids=str)
def test_verbose_is_an_integer(data, given):
    with pytest.raises((TypeError, ValueError), match="verbose must be"):
        quick(verbose=given).fit(*data)
