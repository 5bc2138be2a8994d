"""The same points in both spaces."""

from __future__ import annotations

import numpy as np

from skbgmd.location.spaces import EuclideanSpace, GramSpace
from skbgmd.rows.gram import Gram


def gram_about(X, center, rounding=2.0**-50):
    Z = X - center
    return Gram(Z @ Z.T, np.ones(len(X), dtype=bool), rounding)


def both(X, weights=None):
    """A Euclidean space about zero, a Gram space about a row, and the position 'mean' in either."""
    a = np.ones(len(X)) if weights is None else weights
    space = EuclideanSpace(X, a, np.zeros(X.shape[1]))
    gram = GramSpace(gram_about(X, X[3]), a)
    w = np.full(len(X), 1.0 / len(X))
    return (space, w @ X), (gram, gram.vector(w))
