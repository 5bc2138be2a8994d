"""Mimic copies one honest row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix

from skbgmd.corruption import (
    Mimic,
)


@pytest.mark.parametrize("target", [0, 7])
def test_mimic_copies_the_same_row_at_every_step(target):
    gradients, source = matrix(), np.random.RandomState(0)
    for _ in range(20):
        attacked = gradients.clone()
        corrupt = Mimic(fraction=0.4, target=target).apply_(attacked, random_state=source)
        assert target not in corrupt
        assert torch.equal(attacked[corrupt], gradients[target].expand(len(corrupt), -1))
