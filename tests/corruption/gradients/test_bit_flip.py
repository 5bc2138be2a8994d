"""Bit flips scale gradients, as far as their dtype goes."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import (
    BitFlip,
    ConstantRows,
)


@pytest.mark.parametrize(("settings", "factor"), [({}, -100.0), ({"scale": 3.0}, 3.0)])
def test_definition(settings, factor):
    gradients = matrix()
    attacked, corrupt, _ = split(BitFlip(fraction=0.4, **settings), gradients)
    assert torch.equal(attacked[corrupt], factor * gradients[corrupt])


def test_what_is_beyond_a_dtype_becomes_its_largest_number():
    gradients = torch.full((5, 4), 1000.0, dtype=torch.float16)
    for attack, sign in ((BitFlip(0.4), -1), (ConstantRows(0.4, value=1e9, share=1.0), None), (BitFlip(0.4, 1e9), 1)):
        attacked, corrupt, _ = split(attack, gradients)
        assert (attacked[corrupt].abs() == 65504.0).all()
        if sign is not None:
            assert (attacked[corrupt].sign() == sign).all()
    gradients[0] = float("inf")
    attacked = BitFlip(0.4)(gradients, random_state=0)
    assert attacked[0].isinf().all()
