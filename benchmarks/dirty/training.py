"""One training: a set, its dirt, a method, and a score on clean test data."""

from __future__ import annotations

import time
import warnings
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from threadpoolctl import threadpool_limits

from dirty import dirt, methods
from dirty.data import CLASSES, Split, split
from skbgmd import BlockGMDClassifier

#: The first four are what a row is of.
COLUMNS = (
    "data",
    "dirt",
    "method",
    "seed",
    "score",
    "trust AUROC",
    "strength",
    "seconds",
    "error",
    "epochs",
    "cleanlab",
)


@lru_cache(maxsize=1)
def prepared(data: str, kind: str, seed: int) -> tuple[Split, NDArray[np.bool_]]:
    """Training data with dirt, the clean test data, and which training samples are corrupt."""
    kinds = dirt.OF_CLASSES if data in CLASSES else dirt.OF_TARGETS
    clean = split(data, seed)
    X, y, corrupted = kinds[kind](clean.X, clean.y, np.random.default_rng(seed))
    return clean._replace(X=X, y=y), corrupted


@lru_cache(maxsize=1)
def warm_up() -> None:
    """A training that isn't counted: what a process loads in its first is not the method's."""
    BlockGMDClassifier(max_epochs=1, random_state=0).fit([[0.0], [1.0]], [0, 1])


def train(data: str, kind: str, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """What a row of the results has besides the training that it is of.

    A method that refuses the data, or predicts what is no number, has the name of the error in place of a score.
    """
    torch.set_num_threads(1)
    warm_up()
    parts, corrupted = prepared(data, kind, seed)
    of_classes = data in CLASSES
    fit = (methods.OF_CLASSES if of_classes else methods.OF_TARGETS)[method]
    told = {"share": corrupted.mean()} if method == methods.ORACLE else {}
    metric = balanced_accuracy_score if of_classes else r2_score
    row = {"epochs": epochs, "cleanlab": version("cleanlab")}
    start = time.process_time()
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Got `batch_size`")
        try:
            model = fit(parts.X.copy(), parts.y.copy(), seed, epochs, **told)
            row["seconds"] = round(time.process_time() - start, 2)
            score = metric(parts.y_test, model.predict(parts.X_test))
        except ValueError as error:
            return {**row, "error": type(error).__name__}
    return {**row, "score": round(float(score), 5), "trust AUROC": found(model, corrupted), "strength": chosen(model)}


def chosen(model: Any) -> str | None:
    """The strength of one of our estimators, given or chosen."""
    return getattr(model, "strength_", None)


def found(model: Any, corrupted: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve of the least trusted as the corrupt samples; None where all are alike to the model."""
    trust = getattr(model, "sample_trust_", None)
    if trust is None or len(trust) != len(corrupted):
        return None
    known = np.isfinite(trust)
    if len(np.unique(corrupted[known])) < 2 or len(np.unique(trust[known])) < 2:
        return None
    return round(float(roc_auc_score(corrupted[known], -trust[known])), 4)
