"""Factors of an embedding's table."""

from __future__ import annotations

import torch

from single import made
from skbgmd.ghost import EmbeddingFactor


def test_entries_of_the_same_row_and_unit_are_added_up() -> None:
    row, unit = torch.tensor([0, 0, 1, 0]), torch.tensor([2, 2, 1, 0])
    values = made((4, 5), torch.float64, 0)
    factor = EmbeddingFactor.of(row, unit, values, 2, 3)
    written = factor.explicit(slice(0, 3)).view(2, 3, 5)
    torch.testing.assert_close(written[0, 2], values[0] + values[1])
    torch.testing.assert_close(written[0, 0], values[3])
    torch.testing.assert_close(written[1, 1], values[2])
    assert not written[1, 0].any()
    assert len(factor.values) == 3
