"""Shares of numbers are whole where only rounding keeps them from that."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skbgmd._utils.shares import share_of


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_percentages_are_whole(kind):
    for n in (10, 34, 100, 1000, 60_000):
        for percent in range(101):
            share = share_of(kind(percent / 100), n)
            assert math.ceil(share) == -(-percent * n // 100)
            assert math.floor(share) == percent * n // 100


def test_what_is_not_whole_stays():
    assert share_of(0.251, 10) == 2.51
    assert share_of(1.0 / 3.0 + 1e-6, 3000) > 1000.0
    assert share_of(0.0, 5) == share_of(1e-12, 5) == 0.0
