"""Weights of classes, and of samples by their class."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from skbgmd._utils.checks import brief
from skbgmd._utils.label_dtypes import comparable
from skbgmd.training._data.samples import moderate


def weighted_by_class(
    class_weight: Any, weight: NDArray[np.float64] | None, y: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Weights of samples times those of their classes.

    Parameters
    ----------
    class_weight : dict or "balanced"
        As a classifier takes it.
    weight : ndarray of shape (n,), or None
        Weights of the samples; None: all are one.
    y : ndarray of shape (n,)
        Labels.
    classes : ndarray of shape (n_classes,)
        All labels there are, sorted.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_class_weight` does.
    ValueError
        A class that some sample has is given no weight that is finite and not negative, or no sample is left with a
        positive one.
    """
    check_class_weight(class_weight)
    y, classes = comparable(y, classes)
    codes = np.searchsorted(classes, y)
    # Not of this batch's classes only, which may be fewer.
    if isinstance(class_weight, str) and class_weight == "balanced":
        given = balanced(codes, weight, len(classes))
    else:
        given = compute_class_weight(class_weight, classes=classes, y=y)
    of_class: NDArray[np.float64] = given[codes]
    if not (np.isfinite(of_class).all() and (of_class >= 0.0).all()):
        raise ValueError(f"class_weight must be finite and not negative; found {class_weight}.")
    product = moderate(np.ones(len(y)) if weight is None else weight, of_class)
    if not product.any():
        raise ValueError(
            f"class_weight must leave a sample with a positive weight; found {class_weight} and the labels "
            f"{np.unique(y)}."
        )
    return product


def check_class_weight(class_weight: Any) -> None:
    """Check weights of classes as far as they can be without data.

    Raises
    ------
    TypeError
        Neither a dict nor a name, or a dict with something else than numbers.
    ValueError
        Another name than "balanced".
    """
    must = 'class_weight must be a dict of numbers by labels, "balanced" or None'
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise ValueError(f"{must}; found {class_weight!r}.")
    if not (class_weight is None or isinstance(class_weight, (str, dict))):
        raise TypeError(f"{must}; found {brief(class_weight)}.")
    for label, weight in class_weight.items() if isinstance(class_weight, dict) else ():
        # Arrays and tensors of one number are numbers as well.
        if not (isinstance(weight, (Real, np.bool_)) or (hasattr(weight, "item") and np.ndim(weight) == 0)):
            raise TypeError(f"class_weight must hold numbers; found {weight!r} for the label {label!r}.")


def balanced(codes: NDArray[np.intp], weight: NDArray[np.float64] | None, n_classes: int) -> NDArray[np.float64]:
    """Weights under which all classes (n_classes,) have the same, that of the samples on the whole; 0 for one without.

    As scikit-learn's newer versions have it; older ones don't look at the weights.
    """
    totals = np.bincount(codes, weights=weight, minlength=n_classes).astype(np.float64)
    found = totals > 0.0
    result: NDArray[np.float64] = np.where(found, totals.sum() / (found.sum() * np.where(found, totals, 1.0)), 0.0)
    return result
