"""Rows from arrays, and properties that aggregates of all rules share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import Aggregate
from skbgmd.rows import DenseRows


def dense(X, weights=None):
    return DenseRows(torch.from_numpy(np.ascontiguousarray(X)), weights)


def assert_convex(weights):
    """Weights are non-negative and add up to one; None, of rules for single columns, is let pass."""
    if weights is not None:
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0)


def assert_within(aggregate: Aggregate, X):
    """Every coordinate is finite and between the smallest and the largest of its column, or zero, but for rounding."""
    assert torch.isfinite(aggregate.vector).all()
    room = 1e-4 * X.abs().amax(dim=0).double() + torch.finfo(X.dtype).tiny
    # Zero, where a part is left out or clipped.
    low, high = X.double().amin(dim=0).clamp(max=0.0) - room, X.double().amax(dim=0).clamp(min=0.0) + room
    assert ((low <= aggregate.vector) & (aggregate.vector <= high)).all()
