"""Constant rows hold a block that plain norms select."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix

from skbgmd import block_geometric_median
from skbgmd.corruption import (
    ConstantRows,
)


def test_constant_rows_are_the_same_at_every_step():
    gradients, source = matrix(d=35), np.random.RandomState(0)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for _ in range(3):
        attacked = gradients.clone()
        corrupt = ConstantRows(fraction=0.4, value=7.0).apply_(attacked, random_state=source)
        assert torch.equal(attacked[corrupt, :4], (7.0 * signs).expand(len(corrupt), -1))
        assert torch.equal(attacked[corrupt, 4:], gradients[corrupt, 4:])
    assert (ConstantRows(fraction=0.4, share=1.0, random_state=0)(gradients).abs() == 1e6).all(dim=1).sum() == 4


@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_it_owns_a_block_that_is_selected_by_plain_norms(fraction):
    gradients = matrix(20, 400)
    attacked = ConstantRows(fraction=fraction)(gradients, random_state=0)
    result = block_geometric_median(attacked, clip_scores=False, return_result=True)
    assert result.block.tolist() == list(range(40))
    honest = torch.linalg.vector_norm(gradients, dim=1).max()
    assert torch.linalg.vector_norm(attacked.mean(dim=0)) > 100 * honest
    assert torch.linalg.vector_norm(result.median) < 3 * honest
