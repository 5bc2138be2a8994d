"""A little is enough, against its definition."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import (
    ALittleIsEnough,
)


@pytest.mark.parametrize("own", [False, True])
def test_definition(own):
    gradients = matrix()
    attacked, corrupt, honest = split(ALittleIsEnough(fraction=0.4, z=0.7, own=own), gradients)
    mean, std = gradients[honest].mean(dim=0), gradients[honest].std(dim=0, correction=0)
    noise = gradients[corrupt] - mean if own else torch.zeros(len(corrupt), 1)
    torch.testing.assert_close(attacked[corrupt], mean - 0.7 * std + noise, rtol=1e-12, atol=1e-12)
