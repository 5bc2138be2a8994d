"""Framing: corrupt rows are nearer to the honest mean than any honest row."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import Framing


def test_corrupt_rows_look_better_than_honest_ones():
    gradients = matrix(20, 400)
    attacked, corrupt, honest = split(Framing(fraction=0.4), gradients)
    mean, std = gradients[honest].mean(dim=0), gradients[honest].std(dim=0, correction=0)
    off = (attacked - mean).norm(dim=1)
    assert off[corrupt].max() < 0.2 * off[honest].min()
    noise = (attacked[corrupt] - mean) / std
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert float(torch.corrcoef(noise).sub(torch.eye(8)).abs().max()) < 0.2


def test_without_noise_they_are_the_mean():
    gradients = matrix()
    attacked, corrupt, honest = split(Framing(fraction=0.4, noise=0.0), gradients)
    torch.testing.assert_close(attacked[corrupt], gradients[honest].mean(dim=0).expand(len(corrupt), -1))
