"""Several labels for each sample: indicator matrices, and the net that predicts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skbgmd.training._losses import targets_of
from skbgmd.training._strength.evidence import Utilities
from skbgmd.training.nets import RobustNeuralNetClassifier

#: Losses of numbers of which a sigmoid makes the probabilities of labels.
OF_LOGITS = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss)


def has_columns(y: Any) -> bool:
    """True for targets (n, k) of two columns and more."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1


def indicator_matrix(y: Any, n_labels: int | None = None) -> NDArray[np.float64]:
    """Convert an indicator matrix, which may be sparse, to float64; of ``n_labels`` columns, where that is given.

    Raises
    ------
    ValueError
        It holds anything but 0 and 1, or has another number of columns.
    """
    # To its types, a sparse array isn't one that can be made dense.
    held: Any = y
    matrix: NDArray[Any] = np.asarray(held.toarray() if issparse(y) else held)
    if matrix.ndim != 2 or (n_labels is not None and matrix.shape[1] != n_labels):
        columns = "several" if n_labels is None else n_labels
        raise ValueError(f"y must be an indicator matrix of {columns} labels; found shape {matrix.shape}.")
    other = ~np.isin(matrix, (0, 1))
    if other.any():
        raise ValueError(
            f"y must be an indicator matrix of 0 and 1, where it has several columns; found {matrix[other][0]!r}. For "
            f"several targets of more than two classes fit an estimator for each, as "
            f"sklearn.multioutput.MultiOutputClassifier does."
        )
    return matrix.astype(np.float64)


def signs_matrix(y: Any, n_labels: int | None = None) -> NDArray[np.float64]:
    """Convert an indicator matrix, as :func:`indicator_matrix` does, to -1 and 1."""
    return 2.0 * indicator_matrix(y, n_labels) - 1.0


def check_loss_of_labels(criterion: Any) -> None:
    """Refuse losses of one class among several.

    Raises
    ------
    ValueError
        The criterion, a class or an instance, is of indices of classes.
    """
    if targets_of(criterion) == "classes":
        kind = criterion if isinstance(criterion, type) else type(criterion)
        raise ValueError(
            f"criterion must be a loss of each label by itself, such as BCEWithLogitsLoss, for y with several labels; "
            f"found {kind.__name__}, which is of one class among several."
        )


def check_net_of_labels(net: NeuralNet) -> None:
    """Refuse nets that predict one class among several.

    Raises
    ------
    ValueError
        The net predicts as skorch's classifiers do.
    """
    check_loss_of_labels(net.criterion)
    predict = type(net).predict
    if predict in (NeuralNetClassifier.predict, NeuralNetBinaryClassifier.predict):
        raise ValueError(
            f"module must be a plain NeuralNet, or predict an indicator matrix, for y with several labels; found "
            f"{type(net).__name__}, which predicts one class among several."
        )


def probabilities_by(criterion: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Function that makes probabilities of labels of what a module gives; None: they are taken for what it gives."""
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return torch.sigmoid if issubclass(kind, OF_LOGITS) else None


def wrong_label_probabilities(probabilities: NDArray[Any]) -> NDArray[np.bool_]:
    """Lines of numbers (n, n_labels) that are not all within [0, 1], (n,)."""
    wrong: NDArray[np.bool_] = np.any((probabilities < 0.0) | (probabilities > 1.0), axis=1)
    return wrong


def balanced_points(
    predicted: Mapping[str, NDArray[Any]], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> Utilities:
    """Points of samples whose weighted mean is the mean, over the labels, of the balanced accuracy.

    Parameters
    ----------
    predicted : mapping of names to ndarrays of shape (n, n_labels)
        Indicator matrices that were predicted.
    y : ndarray of shape (n, n_labels)
        The given one.
    weight : ndarray of shape (n,)
        Positive weights of the samples.

    Returns
    -------
    points : dict of names to ndarrays of shape (n,)

    Examples
    --------
    >>> y = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    >>> points = balanced_points({"zeros": np.zeros((3, 2), dtype=int)}, y, np.ones(3))
    >>> round(float(points["zeros"].mean()), 6)
    0.75
    """
    positive, total = weight @ y, weight.sum()
    n_values = (y > 0.5).any(axis=0).astype(np.int64) + (y <= 0.5).any(axis=0)
    factors = total / (n_values * np.where(y > 0.5, positive, total - positive))
    return {name: ((labels == y) * factors).mean(axis=1) for name, labels in predicted.items()}


class RobustMultilabelNet(RobustNeuralNetClassifier):
    """The net of a classifier with several labels a sample, each predicted where its probability is above a half."""

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Predict an indicator matrix, (n_samples, n_labels)."""
        labels: NDArray[np.int64] = (self.predict_proba(X) > 0.5).astype(np.int64)
        return labels
