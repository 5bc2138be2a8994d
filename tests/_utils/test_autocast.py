"""Products under autocast."""

from __future__ import annotations

import torch

from skbgmd._utils.autocast import without_autocast


def test_products_are_in_the_dtypes_given_under_autocast_too():
    X = torch.linspace(0.9, 1.1, 12).view(3, 4)

    @without_autocast
    def product():
        return X @ X.T

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product().dtype == torch.float32
        assert (X @ X.T).dtype == torch.bfloat16
