"""Clean data of which many samples are alike train as plain training does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning

from skbgmd import BlockGMDClassifier, BlockGMDRegressor


def repeated(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean data of which most samples, or many, are alike; their classes, and which samples are not among them."""
    rng = np.random.default_rng(0)
    X, y, other = rng.normal(size=(300, 6)), np.zeros(300), np.arange(300) >= 180
    y[180:] = X[180:, 0] > 0
    X[:180] = 3.0 if kind == "constant" else 0.0
    if kind == "standardised":
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    elif kind == "large":
        X *= 30.0
    elif kind == "nearly":
        X[:180] += 1e-3 * rng.normal(size=(180, 6))
    elif kind == "one-hot":
        category = rng.choice(8, 300, p=[0.6, *[0.4 / 7] * 7])
        X, y, other = np.eye(8)[category], category % 2, category > 0
    return X, y, other


KINDS = ["empty", "constant", "standardised", "large", "nearly", "one-hot"]
SIMPLE = {"random_state": 0, "max_epochs": 60}


def lost(model: Any, data: tuple[Any, Any, Any], **settings: Any) -> float:
    """What the rule of a model costs on samples that aren't alike, against plain training."""
    X, y, other = data
    scores = []
    of_rule = ("beta", "huber", "rejection")
    plain = {name: value for name, value in settings.items() if name not in of_rule}
    for given in ({**plain, "aggregator": "mean"}, settings):
        fitted = model(**{**SIMPLE, **given}).fit(X, y)
        assert np.isfinite(fitted.sample_trust_).all()
        scores.append(fitted.score(X[other], y[other]))
    return float(scores[0] - scores[1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_are_alike_do_not_overrule_the_others(kind: str, dtype: Any) -> None:
    X, y, other = repeated(kind)
    assert lost(BlockGMDClassifier, (X.astype(dtype), y, other)) < 0.04


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 150},
        {"batch_size": 50},
        {"huber": 1.0},
        {"rejection": None},
        {"hidden_layer_sizes": ()},
        {"beta": 0.1},
        {"gradients": "micro_batches", "max_epochs": 8},
    ],
    ids=str,
)
def test_they_do_not_by_any_rule_for_single_samples(settings: Any) -> None:
    assert lost(BlockGMDClassifier, repeated("empty"), **settings) < 0.04


@pytest.mark.parametrize("kind", KINDS)
def test_they_do_not_in_regression(kind: str) -> None:
    X, _, other = repeated(kind)
    y = X @ np.arange(1.0, X.shape[1] + 1.0)
    assert lost(BlockGMDRegressor, (X, y, other)) < 0.04


def test_a_sample_of_more_than_half_of_the_weight_does_not_overrule_the_others() -> None:
    X, y, _ = repeated("empty")
    X, y = X[179:], y[179:]
    weight = np.r_[180.0, np.ones(len(X) - 1)]
    model = BlockGMDClassifier(**SIMPLE).fit(X, y, sample_weight=weight)
    assert model.score(X[1:], y[1:]) > 0.9


@pytest.mark.parametrize("pre_aggregation", [None, "nearest"])
def test_copies_end_in_a_model_of_numbers(pre_aggregation: str | None) -> None:
    X = np.random.default_rng(0).normal(size=(100, 6))
    y = (X[:, 0] > 0).astype(int)
    X[:70], y[:70] = X[0], y[0]
    model = BlockGMDClassifier(pre_aggregation=pre_aggregation, **SIMPLE).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X[70:], y[70:]) > 0.8


def test_data_that_are_not_scaled() -> None:
    """Half of the samples are right by chance to begin with, and without a gradient."""
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="put a StandardScaler in front"):
        model = BlockGMDClassifier(**SIMPLE).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.85
