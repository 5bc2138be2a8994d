"""Time of a training step by rule, and of a whole fit against scikit-learn's perceptron."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import REST, in_turns
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from skbgmd import BlockGMDClassifier, RobustNeuralNetClassifier
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, Mean, NearestNeighborMixing
from skbgmd.training.networks import MLP, LeNet

#: Rules whose step is timed.
RULES = {
    "mean": Mean(),
    "geometric median": GeometricMedian(),
    "block geometric median": BlockGeometricMedian(),
    "block geometric median with rejection": BlockGeometricMedian(location=GeometricMedian(rejection=10.0)),
    "nearest neighbours + block geometric median": NearestNeighborMixing(BlockGeometricMedian()),
}


def step_times(name: str, rows: int, group_size: int, repeats: int, seed: int) -> dict[str, list[float]]:
    """Seconds of a training step on random data, the same micro-batches for each rule; and of a plain step."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        module, shape = (LeNet(), (1, 28, 28)) if name == "LeNet" else (MLP(64, 10), (64,))
        batch = torch.randn(rows * group_size, *shape), torch.randint(0, 10, (rows * group_size,))
        calls: dict[str, Callable[[], Any]] = {}
        for rule, aggregator in {**RULES, "plain step": Mean()}.items():
            size = None if rule == "plain step" else group_size
            net = RobustNeuralNetClassifier(
                copy.deepcopy(module), criterion=torch.nn.CrossEntropyLoss, aggregator=aggregator, group_size=size
            ).initialize()
            calls[rule] = lambda net=net: _step(net, batch)
        return in_turns(calls, repeats)


def fit_times(repeats: int, seed: int) -> dict[str, list[float]]:
    """Seconds of a fit on digits: equal layers, epochs and batch size."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype(np.float32)
    epochs = 10
    theirs = MLPClassifier(batch_size=256, max_iter=epochs, tol=0.0, n_iter_no_change=epochs + 1, random_state=seed)
    estimators = {
        "MLPClassifier": theirs,
        "BlockGMDClassifier": BlockGMDClassifier(max_epochs=epochs, random_state=seed),
        "BlockGMDClassifier, group_size=None": BlockGMDClassifier(
            max_epochs=epochs, group_size=None, aggregator="mean", random_state=seed
        ),
    }
    calls = {name: lambda estimator=estimator: _fit(estimator, X, y) for name, estimator in estimators.items()}
    # Theirs uses NumPy's threads.
    return in_turns(calls, repeats, rest=REST)


def _step(net: Any, batch: Any) -> None:
    with torch.enable_grad():
        net.train_step(batch)
        net.aggregator_.commit()


def _fit(estimator: Any, X: Any, y: Any) -> None:
    with torch.enable_grad():
        estimator.fit(X, y)
