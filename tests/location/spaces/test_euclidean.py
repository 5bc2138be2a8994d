"""Points with their coordinates: far rows, blocks of rows, NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.location.spaces import EuclideanSpace


def test_decrease_has_digits_among_far_rows(rng):
    X = np.vstack([rng.normal(size=(6, 2)), [[1e160, 0.0], [0.0, -1e160]]])
    space = EuclideanSpace(X, np.ones(8), np.zeros(2))
    with np.errstate(over="ignore", invalid="ignore"):
        point = space.at(np.array([5.0, 5.0]), 1e3)
    direction = X[:6].mean(axis=0) - 5.0
    along, square = space.project(point, direction)
    near = np.linalg.norm(X[:6] - 5.0 - direction, axis=1).sum() - np.linalg.norm(X[:6] - 5.0, axis=1).sum()
    far = -direction[0] + direction[1]
    assert space.decrease(point, along, square, 1.0)[0] == pytest.approx(near + far, rel=1e-12)


def test_blocks_give_the_same_as_one_piece(points, monkeypatch):
    whole = EuclideanSpace(points, np.ones(12), points[0]).at(points[5] - points[0], 3.0)
    monkeypatch.setattr(limits, "POINT_BLOCK_ELEMENTS", 10)
    monkeypatch.setattr(limits, "KEPT_ELEMENTS", 0)
    space = EuclideanSpace(points, np.ones(12), points[0])
    parts = space.at(points[5] - points[0], 3.0)
    np.testing.assert_allclose(whole.distances, parts.distances)
    np.testing.assert_allclose(whole.residual, parts.residual)
    np.testing.assert_allclose(EuclideanSpace(points, np.ones(12), points[0])._kept is None, True)


def test_torch_namespace_matches_numpy(points):
    y = points.mean(axis=0)
    left = EuclideanSpace(points, np.ones(12), np.zeros(5)).at(y, 3.0)
    tensor = EuclideanSpace(
        torch.from_numpy(points), torch.ones(12, dtype=torch.float64), torch.zeros(5).double(), torch
    )
    right = tensor.at(torch.from_numpy(y), 3.0)
    np.testing.assert_allclose(left.residual, right.residual.numpy())
    assert left.excess.absolute == pytest.approx(right.excess.absolute)
    np.testing.assert_allclose(
        EuclideanSpace(points, np.ones(12), np.zeros(5)).newton_direction(left), tensor.newton_direction(right).numpy()
    )


@pytest.mark.parametrize("elements", [1 << 17, 10])
def test_a_newton_step_without_a_proof_is_that_with_one(points, elements, monkeypatch):
    monkeypatch.setattr(limits, "POINT_BLOCK_ELEMENTS", elements)
    weights = np.arange(1.0, 13.0)
    space = EuclideanSpace(points, weights, points[0])
    point = space.at(points.mean(axis=0) - points[0])
    direction, norm = space.newton_step(point.position)
    np.testing.assert_allclose(direction, space.newton_direction(point), rtol=1e-12)
    assert norm == pytest.approx(point.residual_norm, rel=1e-12)
    with np.errstate(all="ignore"):
        assert not np.isfinite(space.newton_step(space.row(4))[1])
