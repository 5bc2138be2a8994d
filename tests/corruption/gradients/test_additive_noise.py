"""Additive noise has its standard deviation."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import (
    AdditiveNoise,
)


def test_additive_noise_has_its_standard_deviation():
    gradients = matrix(10, 4000, dtype=torch.float32)
    attacked, corrupt, _ = split(AdditiveNoise(fraction=0.4, std=3.0), gradients)
    noise = attacked[corrupt] - gradients[corrupt]
    assert float(noise.std()) == pytest.approx(3.0, rel=0.02)
    assert float(torch.corrcoef(noise).sub(torch.eye(4)).abs().max()) < 0.1
