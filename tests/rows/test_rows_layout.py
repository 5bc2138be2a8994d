"""Columns in one process: the seam for columns elsewhere changes nothing."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd.rows import CoordinateBlock, DenseRows, ParameterBlock
from skbgmd.rows.layout import IN_ONE_PROCESS


def test_everything_is_here():
    values = torch.arange(4.0)
    for same in (IN_ONE_PROCESS.add_up, IN_ONE_PROCESS.maximum, IN_ONE_PROCESS.gather):
        assert same(values) is values
    assert IN_ONE_PROCESS.pool(values[None], 9) is not None
    assert [IN_ONE_PROCESS.is_anywhere(found, values.device) for found in (True, False)] == [True, False]
    block = CoordinateBlock.all(4, values.device)
    assert IN_ONE_PROCESS.held(block) is block
    assert IN_ONE_PROCESS.sums_of_runs(values, 3).tolist() == [3.0, 3.0]
    units = ParameterBlock.of([torch.zeros(1, 3), torch.zeros(1)])
    assert IN_ONE_PROCESS.sums_of_units(values, units).tolist() == [3.0, 3.0]


def test_rows_without_columns_are_zero():
    rows = DenseRows(torch.ones(3, 5)[:, :0])
    assert rows.n_held == 0
    assert rows.norms().tolist() == [0.0] * 3
    assert not rows.gram().products.any()
    assert rows.weighted_sum(np.ones(3)).shape == (0,)
    assert not rows.distances(torch.zeros(0)).any()
    assert not rows.huge_distances(None).any()
    assert rows.column_scores(np.ones(3)).shape == (0,)
    assert rows.inner_products(torch.zeros(0)).tolist() == [0.0] * 3
