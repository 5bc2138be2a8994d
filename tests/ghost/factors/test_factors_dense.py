"""Gradients written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from single import made
from skbgmd._utils import limits
from skbgmd.ghost import DenseFactor


def test_runs_of_wide_units_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONG_RUN_ELEMENTS", 3000)
    values = made((5, 9, 300), torch.float32, 0)
    parts = DenseFactor(values).units(np.array([0, 1, 2, 5, 6]))
    assert [part.n_units for part in parts] == [3, 2]
    assert all(part.values.untyped_storage().data_ptr() == values.untyped_storage().data_ptr() for part in parts)
    (narrow,) = DenseFactor(values[:, :, :2]).units(np.array([0, 2, 5]))
    assert torch.equal(narrow.explicit(slice(0, 3)), values[:, [0, 2, 5], :2].flatten(1))
