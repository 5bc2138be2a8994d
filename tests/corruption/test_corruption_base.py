"""Corrupt rows: counted and drawn."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.corruption.base import draw_rows, n_corrupted, warn_at_breakdown_point


@pytest.mark.parametrize(("fraction", "n", "count"), [(0.0, 5, 0), (0.29, 100, 29), (0.5, 5, 2), (1.0, 7, 7)])
def test_count_is_rounded_down(fraction, n, count):
    assert n_corrupted(fraction, n) == count


def test_fewer_rows_are_among_those_that_are_drawn_when_there_are_more():
    eligible = np.arange(10, 30)
    few, many = (draw_rows(eligible, count, np.random.RandomState(0)) for count in (5, 12))
    assert set(few) < set(many) < set(eligible)
    np.testing.assert_array_equal(many, np.sort(many))


def test_half_of_the_rows_is_warned_about():
    with pytest.warns(UserWarning, match=r"No rule withstands fraction=0\.5") as caught:
        warn_at_breakdown_point(0.5, 2)
    assert caught[0].filename == __file__
    warn_at_breakdown_point(0.49, 2)
