"""Medians within classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import ClasswiseMedian, GeometricMedian
from skbgmd.rows import DenseRows


def rows(values: np.ndarray, labels: list[int] | None, weights: np.ndarray | None = None) -> DenseRows:
    made = DenseRows(torch.as_tensor(values), weights)
    made.labels = None if labels is None else torch.tensor(labels)
    return made


def test_a_minority_keeps_its_share() -> None:
    values = np.repeat([[0.0, 0.0], [1.0, 1.0]], [8, 2], axis=0) + 1e-3 * np.random.default_rng(0).normal(size=(10, 2))
    labels = [0] * 8 + [1] * 2
    found = ClasswiseMedian(rejection=1e6)(rows(values, labels))[0]
    np.testing.assert_allclose(found.vector.numpy(), [0.2, 0.2], atol=0.01)
    assert found.weights is not None
    assert found.weights[8:].sum() == pytest.approx(0.2)
    overruled = GeometricMedian()(rows(values, labels))[0].vector
    assert float(overruled.norm()) < 0.01


def test_without_labels_it_is_one_median_without_far_rows() -> None:
    values = np.random.default_rng(0).normal(size=(11, 5))
    values[0] = 1e6
    found = ClasswiseMedian()(rows(values, None))[0]
    expected = GeometricMedian(rejection=10.0)(rows(values, None))[0]
    torch.testing.assert_close(found.vector, expected.vector, rtol=1e-3, atol=1e-3)
    assert found.weights is not None
    assert found.weights[0] == 0.0


def test_a_class_of_one_corrupt_row_pulls_no_farther_than_the_limit() -> None:
    values = np.random.default_rng(0).normal(size=(11, 5))
    values[0] = 1e12
    found = ClasswiseMedian()(rows(values, [9] + [0] * 10))[0].vector
    assert float(found.norm()) < 3.0


def test_weights_are_repetitions() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4))
    weights = np.array([1.0, 2.0, 3.0, 1.0, 1.0, 2.0])
    labels = np.array([0, 0, 0, 1, 1, 1])
    repeated = np.repeat(np.arange(6), weights.astype(int))
    one = ClasswiseMedian(tol=1e-8)(rows(values, labels.tolist(), weights))[0].vector
    many = ClasswiseMedian(tol=1e-8)(rows(values[repeated], labels[repeated].tolist()))[0].vector
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-5)
