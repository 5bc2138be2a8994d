"""Constant vote: norms, columns, and the block that is elected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix, split

from skbgmd import block_geometric_median
from skbgmd.corruption import ConstantVote


def test_rows_have_the_median_norm_on_the_same_columns():
    source = np.random.RandomState(0)
    for seed in range(3):
        gradients = matrix(21, 40, seed)
        attacked = gradients.clone()
        corrupt = ConstantVote(fraction=0.4, share=0.2).apply_(attacked, random_state=source)
        honest = [i for i in range(21) if i not in corrupt.tolist()]
        norm = float(gradients[honest].norm(dim=1).median())
        assert attacked[corrupt].norm(dim=1).tolist() == pytest.approx([norm] * len(corrupt))
        assert (attacked[corrupt, :8] > 0.0).all()
        assert (attacked[corrupt, 8:] == 0.0).all()


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_clipped_rows_elect_the_columns(seed):
    gradients = torch.randn(20, 400, generator=torch.Generator().manual_seed(seed))
    attacked, _, _ = split(ConstantVote(fraction=0.4), gradients)
    assert block_geometric_median(attacked, return_result=True).block.tolist() == list(range(40))
