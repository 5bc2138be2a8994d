"""Sign flips turn gradients around."""

from __future__ import annotations

import torch
from attacking import matrix, split

from skbgmd.corruption import (
    SignFlip,
)


def test_definition():
    gradients = matrix()
    attacked, corrupt, _ = split(SignFlip(fraction=0.4), gradients)
    assert torch.equal(attacked[corrupt], -gradients[corrupt])
