"""Iterative trimmed loss minimisation (Shen & Sanghavi 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier

#: Short trainings that choose what is kept for the next: a network that has had time knows all samples by heart.
ROUNDS, EPOCHS = 4, 20


def trimmed(model: Any, X: NDArray[Any], y: NDArray[Any], *, kept: float) -> Any:
    """Train anew again and again on the share of the samples that the last training had the lowest losses on."""
    chosen = np.arange(len(y))
    for _ in range(ROUNDS):
        short = clone(model).set_params(max_epochs=min(EPOCHS, model.max_epochs))
        order = np.argsort(losses(short.fit(X[chosen], y[chosen]), X, y), kind="stable")
        chosen = np.sort(order[: max(1, round(kept * len(y)))])
    return clone(model).fit(X[chosen], y[chosen])


def losses(model: Any, X: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Numbers that grow with the losses of samples; infinite for a class that the model hasn't seen."""
    if not is_classifier(model):
        return np.abs(y - model.predict(X))
    is_label = y[:, None] == model.classes_
    return np.where(is_label.any(axis=1), -(model.predict_proba(X) * is_label).sum(axis=1), np.inf)
