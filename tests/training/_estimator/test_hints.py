"""Hints: names of other libraries' parameters, and misspelled ones, are told what they are called here."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._estimator.hints import HINTS, hint
from skbgmd.training._estimator.parameters import ROUTED

ESTIMATORS = (BlockGMDClassifier, BlockGMDRegressor)
OWN = {*BlockGMDClassifier._get_param_names()}
#: Parameters that say nothing about a training, or nothing that there is here.
WITHOUT_MEANING = {"fit_intercept", "kwargs"}


def parameters(kind):
    names = inspect.signature(kind.__init__).parameters
    return {name for name in names if name not in ("self", "args")}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor, NeuralNet, torch.optim.SGD])
def test_other_libraries_parameters_are_known(kind):
    missing = parameters(kind) - OWN - set(HINTS) - WITHOUT_MEANING
    assert missing <= {"params", "maximize", "foreach", "differentiable", "fused"}


@pytest.mark.parametrize("name", HINTS)
def test_hints_name_what_there_is(name):
    """The first word of each is a parameter here, one that is handed on, or an argument of fit."""
    given = HINTS[name]
    assert name not in BlockGMDRegressor._get_param_names()
    first = re.match(r"(\w+)", given).group(1)
    arguments = {*inspect.signature(BlockGMDClassifier.partial_fit).parameters, "it", "them", "the", "a"}
    assert first in OWN | arguments or first.split("__")[0] in ROUTED or first == "torch"


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_iter": 5}, "'max_iter'.*max_epochs"),
        ({"learning_rate_init": 0.1}, "give lr"),
        ({"alpha": 0.1}, "optimizer__weight_decay"),
        ({"activation": "tanh"}, "a torch module of your own"),
        ({"solver": "sgd"}, "optimizer, a class"),
        ({"momentum": 0.9}, "optimizer=torch.optim.SGD with optimizer__momentum"),
        ({"max_itr": 5}, "'max_itr' give max_epochs"),
        ({"max_epoch": 5}, "mean 'max_epochs' rather than 'max_epoch'"),
        ({"optimiser__eps": 5}, "mean 'optimizer__eps'"),
        ({"optimizer_momentum": 0.5}, "mean 'optimizer__momentum'"),
        ({"iterator_train": None}, "iterator_train__x"),
        ({"hidden_layers": (5,)}, "hidden_layer_sizes"),
        ({"groups": [1, 2]}, "clients to fit"),
        ({"across": "krum"}, r"give aggregator=AcrossRanks\(across=\.\.\.\), of skbgmd\.distributed"),
        ({"within": "krum"}, r"give aggregator=AcrossRanks\(within=\.\.\.\)"),
        ({"acros": "krum"}, r"give aggregator=AcrossRanks\(across=\.\.\.\)"),
        ({"across__tol": 0.1}, r"'across__tol' give aggregator=AcrossRanks\(across=\.\.\.\)"),
        ({"transport_dtype": torch.bfloat16}, r"give aggregator=AcrossRanks\(transport_dtype=\.\.\.\)"),
        ({"max_iter": 5, "alpha": 0.1}, "'max_iter' give max_epochs. For 'alpha' give optimizer__weight_decay"),
    ],
)
def test_errors_tell_the_name_here(kind, given, told):
    with pytest.raises(TypeError, match=f"{kind.__name__} got .*unexpected keyword argument.*{told}"):
        kind(**given)
    model = kind(lr=0.25)
    with pytest.raises(ValueError, match=f"Invalid parameter.*for estimator {kind.__name__}.*{told}"):
        # Nothing is set before the names are looked at.
        model.set_params(lr=0.5, optimizer__eps=0.1, **given)
    assert model.get_params() == kind(lr=0.25).get_params()


def test_names_like_nothing_get_no_hint():
    assert hint("xyzzy", OWN, ROUTED) == hint("xyzzy__lr", OWN, ROUTED) == ""
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'xyzzy'\.$"):
        BlockGMDClassifier(xyzzy=1)


def test_searches_and_pipelines_tell_too():
    X, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).numpy(), [0, 1] * 20
    model = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=1))
    with pytest.raises(ValueError, match="'max_iter' give max_epochs"):
        GridSearchCV(model, {"blockgmdclassifier__max_iter": [1, 2]}, cv=2).fit(X, y)
    with pytest.raises(ValueError, match="'alpha' give optimizer__weight_decay"):
        clone(model).set_params(blockgmdclassifier__alpha=0.1)


def test_a_misspelled_parameter_that_exists_is_named_itself():
    with pytest.raises(TypeError, match="'class_weight' rather than 'class_weigth'"):
        BlockGMDClassifier(class_weigth="balanced")
    with pytest.raises(TypeError, match="'class_weigth' give sample_weight to fit"):
        BlockGMDRegressor(class_weigth="balanced")
    assert hint("sample_weights", OWN, ROUTED) == "For 'sample_weights' give sample_weight to fit."
