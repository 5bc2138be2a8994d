"""Rows of NaN and infinity."""

from __future__ import annotations

import pytest
from attacking import matrix, split

from skbgmd.corruption import (
    NonFinite,
)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_non_finite(value):
    attacked, corrupt, _ = split(NonFinite(fraction=0.4, value=value), matrix())
    assert (attacked[corrupt].isnan() if value == "nan" else attacked[corrupt] == float("inf")).all()
