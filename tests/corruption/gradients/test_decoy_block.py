"""Decoys hold the block, and the others turn around off it."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd import block_geometric_median
from skbgmd.corruption import (
    DecoyBlock,
)


@pytest.mark.parametrize(("fraction", "n_decoys", "n_others"), [(0.1, 1, 0), (0.2, 1, 1), (0.35, 2, 2), (0.3, 2, 1)])
def test_decoys_hold_the_block_and_the_others_turn_around_off_it(fraction, n_decoys, n_others):
    gradients = matrix(13, 40)
    attacked, corrupt, _ = split(DecoyBlock(fraction=fraction), gradients)
    decoys = [i for i in corrupt.tolist() if (attacked[i, :4].abs() == 1e9).all()]
    others = [i for i in corrupt.tolist() if i not in decoys]
    assert (len(decoys), len(others)) == (n_decoys, n_others)
    assert torch.equal(attacked[decoys, 4:], gradients[decoys, 4:])
    assert torch.equal(attacked[others, :4], gradients[others, :4])
    assert torch.equal(attacked[others, 4:], -1000.0 * gradients[others, 4:])


@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_it_owns_a_block_that_is_selected_by_plain_norms(fraction):
    gradients = matrix(20, 400)
    attacked = DecoyBlock(fraction=fraction)(gradients, random_state=0)
    result = block_geometric_median(attacked, clip_scores=False, return_result=True)
    assert result.block.tolist() == list(range(40))
    honest = torch.linalg.vector_norm(gradients, dim=1).max()
    assert torch.linalg.vector_norm(attacked.mean(dim=0)) > 100 * honest
    assert torch.linalg.vector_norm(result.median) < 3 * honest
