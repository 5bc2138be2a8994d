"""Parameters that a module uses several times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from single import check, made
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import DenseFactor
from skbgmd.ghost.factors import Factor, OuterProductFactor
from skbgmd.ghost.factors.sums import merged, overlap, written_out


class Twice(nn.Module):
    """A layer used twice."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(torch.tanh(self.layer(x)))
        return result


class Tied(nn.Module):
    """An embedding whose table is the last layer's matrix, too."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, dtype=dtype)
        self.last = nn.Linear(4, 7, dtype=dtype)
        self.last.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.tanh(self.table(x)))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shared_parameters(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    check(Twice(dtype), made((5, 4), dtype, 1))
    check(Twice(dtype), made((5, 3, 4), dtype, 1))
    check(Tied(dtype), torch.randint(7, (5,)))
    check(Tied(dtype), torch.randint(7, (5, 3)))


def test_factors_overlap_where_some_units_are_common_but_not_all() -> None:
    def factor(units: int) -> Factor:
        return DenseFactor(torch.ones(2, units, 3))

    assert not overlap({0: [factor(2), factor(2)], 2: [factor(4)]})
    assert overlap({0: [factor(3)], 2: [factor(4)]})
    assert overlap({0: [factor(2), factor(3)]})
    whole = written_out({0: [factor(3)], 2: [factor(2)]}, 4)
    assert whole.explicit(slice(0, 4)).view(2, 4, 3)[0, :, 0].tolist() == [1.0, 1.0, 2.0, 1.0]


def test_sums_keep_their_form() -> None:
    one, other = torch.ones(2, 1, 3), 2.0 * torch.ones(2, 1, 4)
    outer = merged([OuterProductFactor(one, other), OuterProductFactor(one, other)])
    assert isinstance(outer, OuterProductFactor)
    np.testing.assert_array_equal(outer.explicit(slice(0, 3)), np.full((2, 12), 4.0))
    mixed = merged([OuterProductFactor(one, other), DenseFactor(torch.ones(2, 3, 4))])
    assert isinstance(mixed, DenseFactor)
    np.testing.assert_array_equal(mixed.explicit(slice(0, 3)), np.full((2, 12), 3.0))
