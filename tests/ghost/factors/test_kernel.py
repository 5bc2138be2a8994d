"""Gradients of a kernel with the channels last."""

from __future__ import annotations

import torch

from single import made
from skbgmd.ghost.factors import DenseFactor, KernelFactor


def test_columns_are_in_the_order_of_the_parameter() -> None:
    values = made((5, 4, 6, 3), torch.float64, 0)
    kernel, dense = KernelFactor(values), DenseFactor(values.transpose(2, 3).contiguous())
    assert torch.equal(kernel.explicit(slice(1, 3)), dense.explicit(slice(1, 3)))
    assert torch.equal(kernel.rows(torch.tensor([3, 0])).explicit(slice(0, 4)), dense.values[[3, 0]])
