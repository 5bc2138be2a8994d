"""Blocks: runs of columns, and whole units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock

PARAMETERS = [torch.zeros(3, 4), torch.zeros(3), torch.zeros(2, 2, 2)]


def test_units_are_slices_along_the_first_axis() -> None:
    units = ParameterBlock.of(PARAMETERS)
    assert units.total == 23
    assert units.starts.tolist() == [0, 4, 8, 12, 13, 14, 15, 19]
    assert units.sizes.tolist() == [4, 4, 4, 1, 1, 1, 4, 4]
    assert len(units) == 23
    assert units.indices.tolist() == list(range(23))


def test_choosing_takes_units_in_the_order_of_their_keys_until_there_are_enough_columns() -> None:
    units = ParameterBlock.of(PARAMETERS)
    keys = np.array([1.0, 9.0, 2.0, 8.0, 0.0, 0.0, 3.0, 7.0])
    assert units.choose(keys, 1).chosen.tolist() == [1]
    chosen = units.choose(keys, 5)
    assert chosen.chosen.tolist() == [1, 3]
    assert chosen.indices.tolist() == [4, 5, 6, 7, 12]
    assert len(chosen) == 5
    assert units.choose(keys, 6).chosen.tolist() == [1, 3, 7]
    assert len(units.choose(keys, 23)) == 23


@given(seed=st.integers(0, 1000), n=st.integers(1, 60), few=st.integers(1, 5), share=st.floats(0.01, 1.0))
def test_choosing_is_that_of_a_stable_sort(seed: int, n: int, few: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    starts = np.append(0, np.cumsum(rng.integers(1, 9, size=n)))
    units = ParameterBlock(starts[:-1], int(starts[-1]), np.arange(n), torch.device("cpu"))
    keys, k = rng.integers(few, size=n).astype(float), max(1, int(share * starts[-1]))
    order = np.argsort(-keys, kind="stable")
    expected = np.sort(order[: np.searchsorted(np.cumsum(units.sizes[order]), k) + 1])
    np.testing.assert_array_equal(units.choose(keys, k).chosen, expected)


def test_sums_and_places() -> None:
    units = ParameterBlock.of(PARAMETERS)
    values = torch.arange(23.0)
    expected = [values[start : start + size].sum() for start, size in zip(units.starts, units.sizes, strict=True)]
    assert units.sums(values).tolist() == [float(value) for value in expected]
    chosen = units.choose(np.array([1.0, 9.0, 2.0, 8.0, 0.0, 0.0, 3.0, 7.0]), 9)
    assert chosen.within(0, 12).tolist() == [1]
    assert chosen.within(12, 15).tolist() == [0]
    assert chosen.within(15, 23).tolist() == [1]


def test_runs_at_the_end_of_the_matrix() -> None:
    columns = CoordinateBlock(torch.tensor([0, 2]), 3, 8)
    assert columns.indices.tolist() == [0, 1, 2, 6, 7]
    assert len(columns) == 5
    assert columns.device == torch.device("cpu")
    assert np.array_equal(CoordinateBlock(torch.tensor([1, 4]), 1, 8).indices, [1, 4])


def test_all_columns_are_one_run_and_none_of_them_are_none() -> None:
    whole = CoordinateBlock.all(5, torch.device("cpu"))
    assert len(whole) == 5
    assert whole.indices.tolist() == [0, 1, 2, 3, 4]
    assert len(CoordinateBlock(torch.tensor([], dtype=torch.int64), 1, 1)) == 0


def test_chosen_columns_before_a_unit() -> None:
    units = ParameterBlock.of([torch.zeros(3, 4), torch.zeros(2)])
    chosen = replace(units, chosen=np.array([0, 2, 4]))
    assert [chosen.before(column) for column in (0, 4, 8, 12, 13, 14)] == [0, 4, 4, 8, 8, 9]
    assert len(chosen) == 9


@pytest.mark.parametrize("seed", range(5))
def test_the_units_off_a_block_are_all_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = ParameterBlock.of([torch.zeros(5, 3), torch.zeros(5), torch.zeros(2, 5), torch.zeros(2)])
    # Small whole numbers: many are equal.
    block = units.choose(rng.integers(0, 3, size=14).astype(float), int(rng.integers(1, 32)))
    others = block.off_block
    assert isinstance(others, ParameterBlock)
    together = np.concatenate([block.indices.numpy(), others.indices.numpy()])
    np.testing.assert_array_equal(np.sort(together), np.arange(32))
    assert len(block) + len(others) == 32
