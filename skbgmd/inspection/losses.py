"""Losses of samples and of their labels under a fitted estimator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbgmd._utils.checks import as_ids, as_targets, check_targets, refuse_masks
from skbgmd.inspection._training_samples import innermost
from skbgmd.training._estimator.multilabel import has_columns, indicator_matrix


def sample_losses(estimator: Any, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Compute the loss of each sample under a fitted classifier or regressor.

    For a classifier it is minus the log-probability of the sample's label, or its mean over several labels. For a
    regressor it is the squared error.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``, or regressor
        A fitted estimator.
    X, y : array-like
        Samples and their targets.

    Returns
    -------
    losses : ndarray of shape (n_samples,)

    Raises
    ------
    TypeError
        If targets are dates or durations, or if a classifier has no ``predict_proba``.
    ValueError
        If the classifier doesn't know a label, if there are not as many labels as samples, if targets have another
        shape than the predictions, if entries are masked, or if targets are missing.

    Warns
    -----
    sklearn.exceptions.DataConversionWarning
        If labels are a column of shape (n_samples, 1), which is taken as (n_samples,).
    """
    refuse_masks(X, "X")
    check_targets(y)
    y = as_targets(y, "y")
    if hasattr(estimator, "predict_proba"):
        if has_columns(y) or getattr(innermost(estimator), "multilabel_", False):
            of_labels: NDArray[np.float64] = label_losses(estimator, X, y).mean(axis=1)
            return of_labels
        labels = as_ids(y, "y", warn=True)
        probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        if len(labels) != len(probabilities):
            raise ValueError(
                f"y must have a label for each of the {len(probabilities)} samples of X; found {len(labels)}."
            )
        unknown = np.setdiff1d(labels, estimator.classes_)
        if len(unknown):
            raise ValueError(f"y must have labels among the classes {estimator.classes_}; found {unknown}.")
        order = np.argsort(estimator.classes_)
        place = order[np.searchsorted(estimator.classes_, labels, sorter=order)]
        chosen = probabilities[np.arange(len(place)), place]
        losses: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
        return losses
    if hasattr(estimator, "classes_"):
        raise TypeError(
            f"estimator must be a classifier with predict_proba, or a regressor; found a classifier without, "
            f"{type(innermost(estimator)).__name__}."
        )
    predicted, targets = (np.asarray(values, dtype=np.float64) for values in (estimator.predict(X), y))
    columns = predicted.reshape(len(predicted), -1)
    if (*targets.shape[:1], math.prod(targets.shape[1:])) != columns.shape:
        raise ValueError(f"y must have the shape of the predictions, {predicted.shape}; found {targets.shape}.")
    squares: NDArray[np.float64] = np.square(columns - targets.reshape(columns.shape)).mean(axis=1)
    return squares


def label_losses(estimator: Any, X: ArrayLike, y: Any) -> NDArray[np.float64]:
    """Compute the loss of each label of multilabel samples, to see which label of a suspicious sample looks wrong.

    The loss is minus the log-probability that the label is as it was given, present or absent.

    Parameters
    ----------
    estimator : classifier with ``predict_proba`` of shape (n_samples, n_labels)
        A fitted classifier.
    X : array-like of shape (n_samples, ...)
        Samples.
    y : array-like or sparse matrix of shape (n_samples, n_labels)
        Indicator matrix of 0 and 1.

    Returns
    -------
    losses : ndarray of shape (n_samples, n_labels)

    Raises
    ------
    ValueError
        If ``y`` isn't an indicator matrix of as many labels as the estimator predicts, if entries are masked, or if the
        estimator returns probabilities in another form, as scikit-learn's MultiOutputClassifier does.

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection import find_suspects, label_losses
    >>> X = np.random.default_rng(0).normal(size=(300, 4))
    >>> y = (X > 0.0).astype(int)
    >>> y[7, 2] = 1 - y[7, 2]
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=30, random_state=0).fit(X, y)
    >>> suspects = find_suspects(model, 10)
    >>> bool(7 in suspects), int(label_losses(model, X, y)[7].argmax())
    (True, 2)
    """
    refuse_masks(X, "X")
    check_targets(y)
    y = as_targets(y, "y")
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    if probabilities.ndim != 2:
        raise ValueError(
            f"estimator must predict probabilities of shape (n_samples, n_labels); found {probabilities.shape}."
        )
    given = indicator_matrix(y)
    if given.shape != probabilities.shape:
        raise ValueError(
            f"y must be an indicator matrix of the shape of the predictions, {probabilities.shape}; found shape "
            f"{given.shape}."
        )
    likelihood = np.where(given > 0.5, probabilities, 1.0 - probabilities)
    losses: NDArray[np.float64] = -np.log(np.maximum(likelihood, 1e-12))
    return losses
