"""Every kind of factor answers as the gradients that it stands for, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from single import made
from skbgmd._utils import limits
from skbgmd.ghost import DenseFactor, EmbeddingFactor, Factor, OuterProductFactor
from skbgmd.ghost.factors import KernelFactor

N, UNITS, WIDTH = 6, 4, 6


def looked_up() -> EmbeddingFactor:
    row, unit = torch.tensor([0, 0, 1, 3, 5]), torch.tensor([2, 0, 2, 1, 3])
    return EmbeddingFactor(row, unit, made((5, WIDTH), torch.float64, 4), N, UNITS)


def not_held() -> OuterProductFactor:
    factor = OuterProductFactor(made((N, 5, UNITS), torch.float64, 1), made((N, 5, WIDTH), torch.float64, 2))
    factor._is_held = False
    return factor


KINDS: dict[str, Any] = {
    "dense": lambda: DenseFactor(made((N, UNITS, WIDTH), torch.float64, 0)),
    "outer product": lambda: OuterProductFactor(
        made((N, 1, UNITS), torch.float64, 1), made((N, 1, WIDTH), torch.float64, 2)
    ),
    "several positions": lambda: OuterProductFactor(
        made((N, 5, UNITS), torch.float64, 1), made((N, 5, WIDTH), torch.float64, 2)
    ),
    "a kernel": lambda: KernelFactor(made((N, UNITS, WIDTH // 2, 2), torch.float64, 0)),
    "positions that aren't written out": not_held,
    "embedding": looked_up,
}


def written(factor: Factor) -> torch.Tensor:
    return factor.explicit(slice(0, factor.n_units))


@pytest.fixture(params=list(KINDS))
def factor(request: pytest.FixtureRequest) -> Factor:
    made_factor: Factor = KINDS[request.param]()
    return made_factor


@pytest.mark.parametrize("chunked", [False, True])
def test_sums_products_and_scores(factor: Factor, chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if chunked:
        monkeypatch.setattr(limits, "WRITTEN_ELEMENTS", N * WIDTH)
        monkeypatch.setattr(limits, "ONE_PRODUCT_COLUMNS", 2)
        monkeypatch.setattr(limits, "FACTOR_STRIPE_ROWS", 4)
    whole, weights = written(factor), made((N,), torch.float64, 7).abs()
    assert (factor.n_rows, factor.n_columns, whole.shape) == (N, UNITS * WIDTH, (N, UNITS * WIDTH))
    vector, out = made((UNITS * WIDTH,), torch.float64, 8), torch.empty(UNITS * WIDTH, dtype=torch.float64)
    torch.testing.assert_close(factor.inner_products(vector), whole @ vector)
    torch.testing.assert_close(factor.gram(), whole @ whole.T)
    torch.testing.assert_close(factor.squared_norms(), whole.square().sum(dim=1))
    torch.testing.assert_close(factor.column_scores(weights), weights @ whole.square())
    of_units = whole.view(N, UNITS, WIDTH).square().sum(dim=2)
    torch.testing.assert_close(factor.unit_scores(weights), weights @ of_units)
    factor.weighted_sum(weights, out)
    torch.testing.assert_close(out, weights @ whole)
    other, chosen = made((N,), torch.float64, 9), np.array([1, 3])
    factor.weighted_sum_by_block(weights, other, chosen, out)
    expected = (other @ whole).view(UNITS, WIDTH).clone()
    expected[chosen] = (weights @ whole).view(UNITS, WIDTH)[chosen]
    torch.testing.assert_close(out.view(UNITS, WIDTH), expected)
    unit, place = torch.tensor([0, 3, 3]), torch.tensor([2, 0, 1])
    torch.testing.assert_close(factor.entries(unit, place), whole[:, unit * WIDTH + place])


def test_rows_groups_and_units(factor: Factor) -> None:
    whole = written(factor)
    index = torch.tensor([0, 3, 5])
    torch.testing.assert_close(written(factor.rows(index)), whole[index])
    torch.testing.assert_close(written(factor.stacked(2)), whole.view(3, 2, -1).sum(dim=1))
    groups, used = torch.tensor([[0, 1], [2, 2], [3, 4], [5, 5]]), torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]]).bool()
    expected = torch.stack([whole[:2].sum(0), whole[2], whole[3:5].sum(0), whole[5]])
    torch.testing.assert_close(written(factor.grouped(groups, used)), expected)
    chosen = np.array([0, 2, 3])
    parts = torch.cat([written(part) for part in factor.units(chosen)], dim=1)
    torch.testing.assert_close(parts, whole.view(N, UNITS, WIDTH)[:, chosen].flatten(1))
    converted = factor.to(torch.float32)
    assert converted.dtype == torch.float32
    torch.testing.assert_close(written(converted), whole.float())
