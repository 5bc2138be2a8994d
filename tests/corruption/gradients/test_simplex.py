"""Simplex: shift in common, products that vanish, and corners of a simplex."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.corruption import Simplex
from skbgmd.corruption.gradients.simplex import simplex


@pytest.mark.parametrize("z", [None, 0.4, 3.0])
@given(b=st.integers(6, 30), seed=st.integers(0, 10**6))
def test_rows_share_a_shift_and_are_orthogonal_about_the_mean(z, b, seed):
    gradients = matrix(b, 80, seed)
    attacked, corrupt, honest = split(Simplex(fraction=0.4, z=z), gradients, seed)
    c, mean = len(corrupt), gradients[honest].mean(dim=0)
    std = gradients[honest].std(dim=0, correction=0)
    centered = attacked[corrupt] - mean
    shift = -(c**-0.5 if z is None else z) * std
    torch.testing.assert_close(centered.mean(dim=0), shift, rtol=1e-9, atol=1e-12)
    expected = c * float(shift @ shift) * torch.eye(c, dtype=torch.float64)
    torch.testing.assert_close(centered @ centered.T, expected, rtol=1e-9, atol=1e-9)
    if z is None:
        # Not farther off than honest ones.
        honest_squares = ((gradients[honest] - mean) ** 2).sum(dim=1)
        assert float(expected[0, 0]) == pytest.approx(float(honest_squares.mean()))


@pytest.mark.parametrize(("c", "d"), [(2, 3), (5, 6), (5, 200)])
def test_corners(c, d):
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(c, d, generator=generator, dtype=torch.float64)
    for normal in (torch.randn(d, generator=generator, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)):
        corners = simplex(directions, normal)
        expected = (torch.eye(c) * c - 1.0).double() / (c - 1)
        torch.testing.assert_close(corners @ corners.T, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(corners @ normal, torch.zeros(c).double(), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(("c", "d"), [(1, 5), (4, 4), (6, 2), (3, 1)])
def test_where_there_is_no_room_they_still_cancel(c, d):
    corners = simplex(torch.randn(c, d, generator=torch.Generator().manual_seed(0)), torch.ones(d))
    torch.testing.assert_close(corners.sum(dim=0), torch.zeros(d))
    assert torch.equal(corners, torch.zeros(1, d)) == (c == 1)
