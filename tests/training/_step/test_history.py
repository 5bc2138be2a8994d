"""Records of steps, and the history's entries of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.training._step.history import StepRecord, entries_of, lower_half_weights


def lower_half_weight(weights: np.ndarray, given: np.ndarray) -> float:
    return float(lower_half_weights(weights[None], given[None])[0])


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=20, unique=True))
def test_lower_half_is_that_of_the_smallest_weights(values: list[float]) -> None:
    weights = np.round(np.array(values), 3) + 1e-2 * np.arange(len(values))
    weights = np.unique(weights)
    half = np.sort(weights)[: len(weights) // 2].sum()
    assert lower_half_weight(weights, np.ones(len(weights))) == pytest.approx(half, rel=1e-3)


def test_rows_that_count_alike_are_not_told_apart_by_rounding() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 1.0, size=40)
    found = [lower_half_weight(base * (1.0 + 1e-7 * rng.normal(size=40)), base) for _ in range(20)]
    assert np.ptp(found) < 1e-5
    assert found[0] == pytest.approx(base.sum() / 2.0, rel=1e-5)


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (2, 0.5), (3, 1 / 3)])
def test_few_rows(n: int, expected: float) -> None:
    assert lower_half_weight(np.full(n, 1.0 / n), np.ones(n)) == pytest.approx(expected)


def test_rows_without_weight_are_the_lower_half() -> None:
    assert lower_half_weight(np.array([0.0, 0.0, 0.5, 0.5]), np.ones(4)) == 0.0
    assert lower_half_weight(np.array([0.0, 0.2, 0.4, 0.4]), np.ones(4)) == pytest.approx(0.2)


def test_entries_hold_what_is_known() -> None:
    weights = np.full(4, 0.25)
    plain = StepRecord(0.5, {"a": 1.0}, None, np.ones(4), None)
    weighted = StepRecord(0.5, {}, weights, np.ones(4), 0.9)
    assert entries_of([plain, weighted]) == [
        {"aggregation_time": 0.5, "a": 1.0},
        {"aggregation_time": 0.5, "lower_half_weight": 0.5, "selected_mass": 0.9},
    ]


def test_steps_of_many_and_of_few_rows_have_what_each_has_alone() -> None:
    rng = np.random.default_rng(0)
    records = []
    for n in (1, 2, 7, 200, 7, 1, 200) * 30:
        weights, own = rng.uniform(size=n) * (rng.uniform(size=n) < 0.8), rng.uniform(0.1, 1.0, size=n)
        records.append(StepRecord(0.0, {}, weights, own, None))
    # A weight that is no number leaves none.
    records.append(StepRecord(0.0, {}, np.full(7, np.nan), np.ones(7), None))
    together = [entries["lower_half_weight"] for entries in entries_of(records)]
    alone = [entries_of([record])[0]["lower_half_weight"] for record in records]
    np.testing.assert_array_equal(together, alone)
    assert np.isnan(together[-1])
    assert np.isfinite(together[:-1]).all()
