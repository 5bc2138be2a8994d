"""Expanded squares: the same evaluation as by differences, as far as there are digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.location.solver import vardi_zhang_step
from skbgmd.location.spaces import EuclideanSpace, ExpandedSpace

WEIGHTS = np.linspace(0.5, 1.0, 60)


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(60, 100))
    X[:3] *= 1e3
    return X


@pytest.mark.parametrize("block", [100, 1 << 20])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_evaluates_as_by_differences(rows, dtype, rtol, block, monkeypatch):
    monkeypatch.setattr(limits, "ROW_BLOCK_ELEMENTS", {4: block, 8: block})
    X, y = rows.astype(dtype), rows[5:].mean(axis=0).astype(dtype).astype(np.float64)
    for center in (None, X[7]):
        place = np.zeros(100) if center is None else center.astype(np.float64)
        found = ExpandedSpace(X, WEIGHTS, center).at(y - place)
        exact = EuclideanSpace(X, WEIGHTS, place).at(found.position)
        np.testing.assert_allclose(found.distances, exact.distances, rtol=rtol)
        np.testing.assert_allclose(found.residual, exact.residual, atol=rtol * np.linalg.norm(exact.residual))
        assert found.excess.absolute >= exact.excess.absolute * (1.0 - rtol)
        assert found.excess.absolute == pytest.approx(exact.excess.absolute, rel=10 * rtol)
        assert found.excess.near_objective == pytest.approx(exact.excess.near_objective, rel=rtol)


def test_steps_are_weiszfelds_stretched(rows):
    space = ExpandedSpace(rows, WEIGHTS)
    v = WEIGHTS / np.linalg.norm(rows, axis=1)
    start = space.start()
    np.testing.assert_allclose(start, 100 / 99 * (v @ rows) / v.sum())
    np.testing.assert_allclose(space.ahead(start), start + 100 / 99 * vardi_zhang_step(space.at(start)), atol=1e-12)


def test_a_moved_center_changes_nothing_but_digits(rows):
    space = ExpandedSpace(rows + 1e5, WEIGHTS)
    doubtful = space.at(np.full(100, 1e5))
    start = space.move_to(np.full(100, 1e5))
    np.testing.assert_allclose(start, ExpandedSpace(rows, WEIGHTS).start(), atol=1e-9)
    clear = space.at(np.zeros(100))
    assert clear.rounding < 1e-3 * doubtful.rounding
    assert clear.objective == pytest.approx(doubtful.objective, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, 1e-300])
def test_proves_nothing_where_squares_are_out_of_range(rows, value):
    X = rows.copy()
    X[4] = value
    X[5:] = 0.0
    with np.errstate(all="ignore"):
        assert ExpandedSpace(X, WEIGHTS).at(np.zeros(100)).excess.absolute == math.inf


def test_proves_nothing_at_a_point(rows):
    with np.errstate(all="ignore"):
        assert ExpandedSpace(rows, WEIGHTS).at(rows[10]).excess.absolute == math.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_namespace_matches_numpy(rows, dtype):
    tensor = torch.from_numpy(rows).to(dtype)
    left = ExpandedSpace(tensor.numpy(), WEIGHTS, tensor[7].numpy())
    right = ExpandedSpace(tensor, torch.from_numpy(WEIGHTS), tensor[7], torch)
    start, same = left.start(), right.start()
    np.testing.assert_allclose(start, same.numpy(), rtol=1e-4, atol=1e-5)
    left_point, right_point = left.at(start), right.at(torch.from_numpy(start))
    np.testing.assert_allclose(left_point.residual, right_point.residual.numpy(), rtol=1e-3, atol=1e-4)
    assert left_point.excess.absolute == pytest.approx(right_point.excess.absolute, rel=1e-3)
