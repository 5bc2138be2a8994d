"""What is compared: a name, and a function of (X, y, seed, epochs) that gives a fitted model.

A setting of ours is a line of ``OURS``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cleanlab.classification import CleanLearning
from cleanlab.regression.learn import CleanLearning as CleanRegressionLearning
from sklearn.base import BaseEstimator, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import HuberRegressor, RANSACRegressor, TheilSenRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch.nn import MSELoss, SmoothL1Loss

from dirty.losses import GeneralizedCrossEntropy, SymmetricCrossEntropy
from dirty.trimmed import trimmed
from skbgmd import BlockGMDClassifier, BlockGMDRegressor

Method = Callable[..., Any]
PLAIN = "plain"
PLAIN_SETTINGS: dict[str, Any] = {"group_size": None}
#: Said in full, so that they don't change with the estimators' defaults.
SAMPLES: dict[str, Any] = {
    "group_size": 1,
    "beta": None,
    "rejection": 10.0,
    "leverage": None,
    "strength": None,
    "trust_power": 0.0,
}
#: Settings of both estimators by name, candidates for their defaults.
OURS: dict[str, dict[str, Any]] = {
    PLAIN: PLAIN_SETTINGS,
    "auto": {"strength": "auto"},
    **{name: {"strength": name} for name in ("mild", "firm")},
}
#: Those that differ.
OURS_OF_CLASSES: dict[str, dict[str, Any]] = {
    **OURS,
    "strict": {"strength": "strict"},
    "huber=2": {**SAMPLES, "huber": 2.0},
}
OURS_OF_TARGETS: dict[str, dict[str, Any]] = {
    **OURS,
    "median": {**SAMPLES, "huber": None},
}
#: Plain training with other losses.
LOSSES_OF_CLASSES: dict[str, dict[str, Any]] = {
    "GCE": {**PLAIN_SETTINGS, "criterion": GeneralizedCrossEntropy},
    "SCE": {**PLAIN_SETTINGS, "criterion": SymmetricCrossEntropy},
}
LOSSES_OF_TARGETS: dict[str, dict[str, Any]] = {
    "plain squared": {**PLAIN_SETTINGS, "criterion": MSELoss},
    "plain smooth 1": {**PLAIN_SETTINGS, "criterion": SmoothL1Loss, "criterion__beta": 1.0},
}
#: Trainings without anything robust about them, the best of which is what a default is measured by on clean data.
PLAIN_OF_CLASSES, PLAIN_OF_TARGETS = (PLAIN, "MLP"), (PLAIN, "plain squared", "MLP")
#: Share that trimming keeps where nobody tells it the share of the corrupt.
KEPT = 0.7
ORACLE = "trimmed oracle"


def ours(X: Any, y: Any, seed: int, epochs: int, *, kind: type[BaseEstimator], settings: dict[str, Any]) -> Any:
    return kind(max_epochs=epochs, random_state=seed, **settings).fit(X, y)


def perceptron(kind: type[BaseEstimator], seed: int, epochs: int, **settings: Any) -> Any:
    """Scikit-learn's, with the layers, batches, steps and epochs of ours."""
    given = {"batch_size": 256, "learning_rate_init": 0.005, "max_iter": epochs, "n_iter_no_change": 10**6, **settings}
    return kind(hidden_layer_sizes=(100,), random_state=seed, **given)


def mlp(X: Any, y: Any, seed: int, epochs: int, *, kind: type[BaseEstimator], **settings: Any) -> Any:
    return perceptron(kind, seed, epochs, **settings).fit(X, y)


def cleanlab(X: Any, y: Any, seed: int, epochs: int, *, kind: type[BaseEstimator]) -> Any:
    """Cleanlab around a perceptron of scikit-learn's, or around our plain training."""
    if issubclass(kind, (MLPClassifier, MLPRegressor)):
        model = perceptron(kind, seed, epochs)
    else:
        model = kind(max_epochs=epochs, random_state=seed, **PLAIN_SETTINGS)
    if is_classifier(model):
        return CleanLearning(model, seed=seed, find_label_issues_kwargs={"n_jobs": 1}).fit(X, y)
    return CleanRegressionLearning(model, seed=seed).fit(X, y)


def trimmed_loss(X: Any, y: Any, seed: int, epochs: int, *, kind: type[BaseEstimator], share: float = 1 - KEPT) -> Any:
    """Trimmed loss about our plain training; the oracle is told the ``share`` of the corrupt."""
    model = kind(max_epochs=epochs, random_state=seed, **PLAIN_SETTINGS)
    return trimmed(model, X, y, kept=1.0 - share)


def other(X: Any, y: Any, seed: int, epochs: int, *, kind: type[BaseEstimator], **settings: Any) -> Any:
    """Models that aren't trained in epochs."""
    if "random_state" in kind().get_params():
        settings["random_state"] = seed
    return kind(**settings).fit(X, y)


def _settings(kind: type[BaseEstimator], given: dict[str, dict[str, Any]]) -> dict[str, Method]:
    return {name: partial(ours, kind=kind, settings=settings) for name, settings in given.items()}


def _networks(estimator: type[BaseEstimator], of_sklearn: type[BaseEstimator]) -> dict[str, Method]:
    return {
        "MLP": partial(mlp, kind=of_sklearn),
        "MLP early stopping": partial(mlp, kind=of_sklearn, early_stopping=True, n_iter_no_change=10),
        "cleanlab MLP": partial(cleanlab, kind=of_sklearn),
        "cleanlab plain": partial(cleanlab, kind=estimator),
        f"trimmed {KEPT:.0%}".replace("%", " %"): partial(trimmed_loss, kind=estimator),
        ORACLE: partial(trimmed_loss, kind=estimator),
    }


OF_CLASSES: dict[str, Method] = {
    **_settings(BlockGMDClassifier, OURS_OF_CLASSES | LOSSES_OF_CLASSES),
    **_networks(BlockGMDClassifier, MLPClassifier),
    "boosting": partial(other, kind=HistGradientBoostingClassifier),
}
OF_TARGETS: dict[str, Method] = {
    **_settings(BlockGMDRegressor, OURS_OF_TARGETS | LOSSES_OF_TARGETS),
    **_networks(BlockGMDRegressor, MLPRegressor),
    "boosting": partial(other, kind=HistGradientBoostingRegressor, loss="absolute_error"),
    "RANSAC": partial(other, kind=RANSACRegressor),
    "Huber": partial(other, kind=HuberRegressor, max_iter=1000),
    "Theil-Sen": partial(other, kind=TheilSenRegressor, max_subpopulation=1000),
}
