"""Shadowing: honest rows of their own, and a shift in common."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.corruption import Shadowing


@pytest.mark.parametrize("z", [None, 0.4, 3.0])
@given(b=st.integers(6, 30), seed=st.integers(0, 10**6))
def test_each_row_is_an_honest_one_of_its_own_with_the_shift(z, b, seed):
    gradients = matrix(b, 50, seed)
    attacked, corrupt, honest = split(Shadowing(fraction=0.4, z=z), gradients, seed)
    c = len(corrupt)
    shift = (c**-0.5 if z is None else z) * gradients[honest].std(dim=0, correction=0)
    torch.testing.assert_close(attacked[corrupt] + shift, gradients[honest[:c]], rtol=1e-9, atol=1e-12)
    assert torch.equal(attacked[honest], gradients[honest])


def test_the_same_honest_rows_are_followed_in_every_call():
    attack = Shadowing(corrupt=[1, 3])
    lasting = 10.0 * matrix(8, 30, seed=5)
    for step in range(3):
        attacked, corrupt, _ = split(attack, lasting + 0.01 * matrix(8, 30, seed=step))
        assert torch.cdist(attacked[corrupt], lasting).argsort(dim=1)[:, 0].tolist() == [0, 2]


def test_with_fewer_honest_rows_than_corrupt_ones_some_are_followed_twice():
    gradients = matrix(5, 20)
    with pytest.warns(UserWarning, match="half"):
        attacked = Shadowing(corrupt=[0, 1, 2, 3])(gradients)
    torch.testing.assert_close(attacked[:4], gradients[[4, 4, 4, 4]])
