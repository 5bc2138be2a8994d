"""Attacks that look at the corrupt rows alone."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import (
    AdditiveNoise,
    BitFlip,
    ConstantRows,
    NonFinite,
    SignFlip,
)


def test_bit_and_sign_flip():
    gradients = matrix()
    for attack, factor in ((BitFlip(fraction=0.4), -100.0), (BitFlip(fraction=0.4, scale=3.0), 3.0), (SignFlip(), -1)):
        attacked, corrupt, _ = split(attack, gradients)
        assert torch.equal(attacked[corrupt], factor * gradients[corrupt])


def test_additive_noise_has_its_standard_deviation():
    gradients = matrix(10, 4000, dtype=torch.float32)
    attacked, corrupt, _ = split(AdditiveNoise(fraction=0.4, std=3.0), gradients)
    noise = attacked[corrupt] - gradients[corrupt]
    assert float(noise.std()) == pytest.approx(3.0, rel=0.02)
    assert float(torch.corrcoef(noise).sub(torch.eye(4)).abs().max()) < 0.1


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_non_finite(value):
    attacked, corrupt, _ = split(NonFinite(fraction=0.4, value=value), matrix())
    assert (attacked[corrupt].isnan() if value == "nan" else attacked[corrupt] == float("inf")).all()


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
