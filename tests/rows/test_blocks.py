"""Blocks: runs of columns, and whole units."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbgmd._utils import limits
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock, largest

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


def nudged(keys: np.ndarray, rng: np.random.Generator, ulps: int = 20) -> np.ndarray:
    """Keys as another order of a sum may have rounded them."""
    eps = np.finfo(keys.dtype).eps
    return (keys * (1.0 + eps * rng.integers(-ulps, ulps + 1, size=len(keys)))).astype(keys.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("seed", range(20))
def test_which_of_equal_scores_are_chosen_does_not_depend_on_rounding(dtype: type, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    starts = np.append(0, np.cumsum(rng.integers(1, 9, size=n)))
    units = ParameterBlock(starts[:-1], int(starts[-1]), np.arange(n), torch.device("cpu"))
    means = scale * (1.0 + rng.integers(1 + seed % 5, size=n)) * (rng.random(n) < 0.9)
    for k in rng.integers(1, units.total, size=10).tolist():
        expected = units.choose(means, k).chosen
        for _ in range(5):
            scores = nudged((means * units.sizes).astype(dtype), rng)
            np.testing.assert_array_equal(units.top(scores, k).chosen, expected)


@pytest.mark.parametrize("n", [300, 1 << 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_values", [1, 2, 50])
def test_which_of_many_equal_keys_are_the_largest_does_not_depend_on_rounding(
    rng: np.random.Generator, n: int, dtype: type, n_values: int
) -> None:
    keys = 1.0 + rng.integers(n_values, size=n).astype(dtype)
    # More ties than a sample may see, among them the first and the last key.
    keys[[0, 1, -1]] = n_values
    eps = np.finfo(dtype).eps
    for k in (1, 2, n // 7, n // 2, n - 1):
        expected = np.sort(np.argsort(-keys, kind="stable")[:k])
        for _ in range(3):
            found = largest(torch.from_numpy(nudged(keys, rng)), k, 64 * eps)
            np.testing.assert_array_equal(found, expected)


def test_keys_that_differ_by_more_than_rounding_are_no_ties() -> None:
    keys = np.array([1.0, 1.0 + 1e-5, 1.0 - 1e-5, 0.0], dtype=np.float32)
    assert largest(torch.from_numpy(keys), 1, 1e-6).tolist() == [1]
    assert largest(torch.from_numpy(keys), 2, 1e-6).tolist() == [0, 1]
    assert largest(torch.from_numpy(keys), 1, 1e-4).tolist() == [0]
    units = ParameterBlock(np.arange(4), 4, np.arange(4), torch.device("cpu"))
    assert units.top(keys, 1).chosen.tolist() == [1]
    assert units.top(nudged(keys, np.random.default_rng(0), 10), 3).chosen.tolist() == [0, 1, 2]


def test_keys_without_bounds_are_compared_as_they_are() -> None:
    keys = torch.tensor([-math.inf, 0.0, -math.inf, 2.0, math.inf])
    for k in range(1, 6):
        assert largest(keys, k, 1e-5).tolist() == sorted([4, 3, 1, 0, 2][:k])
    units = ParameterBlock(np.arange(5), 5, np.arange(5), torch.device("cpu"))
    for k in range(1, 6):
        assert units.choose(keys.numpy(), k, 1e-5).chosen.tolist() == sorted([4, 3, 1, 0, 2][:k])


@pytest.mark.parametrize("k", [1, 30, 200])
def test_the_largest_on_another_device(cuda: torch.device, k: int, rng: np.random.Generator) -> None:
    keys = torch.from_numpy(nudged(np.ceil(4.0 * rng.random(230)), rng))
    torch.testing.assert_close(largest(keys.to(cuda), k, 1e-14).cpu(), largest(keys, k, 1e-14))


@pytest.mark.parametrize("k", [1, 50, 4000, 20_000, 60_000, 65_535])
@pytest.mark.parametrize("kind", ["spread", "few values", "rising", "sample misses them"])
def test_largest_of_many_are_those_of_a_sort(rng: np.random.Generator, kind: str, k: int) -> None:
    keys = rng.random(1 << 16).astype(np.float32)
    if kind == "few values":
        keys = np.floor(4.0 * keys)
    elif kind == "rising":
        keys = np.sort(keys)
    elif kind == "sample misses them":
        keys[:: len(keys) // limits.THRESHOLD_SAMPLE] = 2.0
        keys[1 :: len(keys) // limits.THRESHOLD_SAMPLE] = 3.0
    expected = np.sort(np.argsort(-keys, kind="stable")[:k])
    np.testing.assert_array_equal(largest(torch.from_numpy(keys), k), expected)


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
