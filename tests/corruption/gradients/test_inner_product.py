"""Inner product manipulation, against its definition."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import (
    InnerProduct,
)


@pytest.mark.parametrize("own", [False, True])
def test_definition(own):
    gradients = matrix()
    attacked, corrupt, honest = split(InnerProduct(fraction=0.4, epsilon=0.3, own=own), gradients)
    mean = gradients[honest].mean(dim=0)
    noise = gradients[corrupt] - mean if own else torch.zeros(len(corrupt), 1)
    torch.testing.assert_close(attacked[corrupt], -0.3 * mean + noise, rtol=1e-12, atol=1e-12)
