"""Huber's mean by products with an unformed Gram matrix, against the same by the matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd._utils import limits
from skbgmd.aggregators import HuberMean
from skbgmd.aggregators.huber_by_products import huber_by_products
from skbgmd.aggregators.huber_mean import huber_weights_about_median
from skbgmd.aggregators.memory import Scale
from skbgmd.ghost import DenseFactor, GhostRows
from skbgmd.rows import DenseRows


def ghost(x, weights=None):
    return GhostRows([(0, DenseFactor(x[:, :, None]))], *x.shape, weights)


@pytest.fixture(autouse=True)
def any_width(monkeypatch):
    """Matrices of few columns are passed over, too."""
    monkeypatch.setattr(limits, "ONE_PRODUCT_COLUMNS", 1)
    monkeypatch.setattr(limits, "READING_MULTIPLICATIONS", 0)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(3, 60)), draw(st.integers(1, 30))
    x = rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 0.3, 2.0])) * rng.normal(size=d)
    far = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.3]))
    x[far] = draw(st.sampled_from([3.0, 30.0])) * (x[far] + draw(st.sampled_from([0.0, 1.0])))
    weights = rng.choice([0.25, 0.5, 1.0], size=n) if draw(st.booleans()) else np.ones(n)
    huber, rejection = draw(st.sampled_from([1.0, 2.0, 20.0])), draw(st.sampled_from([None, 3.0, 10.0]))
    value = draw(st.sampled_from([0.3, 1.0, 1.5])) * float(np.median(np.linalg.norm(x, axis=1)))
    return x, weights, huber, rejection, Scale(value, (value,) * draw(st.integers(3, 5)))


@settings(max_examples=300)
@given(problems())
def test_it_is_what_the_gram_matrix_gives(problem):
    x, weights, huber, rejection, before = problem
    x = torch.from_numpy(x)
    same = {"tol": 1e-4, "max_iter": 100}
    found = huber_by_products(ghost(x, weights), huber, rejection, before, **same)
    if found is None:
        return
    expected = huber_weights_about_median(ghost(x, weights), huber, rejection, before, **same)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-8)
    assert found.scale.value == pytest.approx(expected.scale.value, rel=1e-7)
    torch.testing.assert_close(found.vector(), torch.from_numpy(expected.weights) @ x)


def test_it_is_taken_in_steps_that_raise_the_scale(rng):
    x = torch.from_numpy(rng.normal(size=(200, 50)))
    before = Scale(7.0, (7.0,) * 5)
    same = {"tol": 1e-4, "max_iter": 100}
    rows = ghost(x)
    assert huber_by_products(rows, 2.0, 10.0, before, **same).weights == pytest.approx(np.full(200, 0.005))
    assert rows._gram is None
    # The first steps, a tenth of the rows alike, rows out of range, and many iterations need the matrix.
    assert huber_by_products(ghost(x), 2.0, 10.0, Scale(7.0, (7.0,)), **same) is None
    assert huber_by_products(ghost(torch.cat([x, x[:1].expand(300, -1)])), 2.0, 10.0, before, **same) is None
    assert huber_by_products(ghost(torch.cat([x, 1e9 * x[:1]])), 2.0, 10.0, before, **same) is None
    assert huber_by_products(ghost(x), 0.1, None, Scale(1e-3, (1e-3,) * 5), tol=1e-12, max_iter=100) is None
    # A matrix has no other way.
    assert huber_by_products(DenseRows(x), 2.0, 10.0, before, **same) is None


def test_the_aggregator_does_the_same_with_and_without_it(rng):
    rule = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4)
    state = other = None
    taken = 0
    for step in range(20):
        x = torch.from_numpy(rng.normal(size=(64, 40))) * 1.01**step
        x[:3] *= 3.0
        x[9] = torch.nan
        rows = ghost(x)
        found, state = rule(rows, state)
        taken += rows._gram is None
        known = ghost(x)
        known.gram()
        expected, other = rule(known, other)
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-8)
        assert state.value == pytest.approx(other.value, rel=1e-7)
    assert taken > 10
