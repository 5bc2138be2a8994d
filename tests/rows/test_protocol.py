"""All kinds of rows answer what a rule may ask."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch

from skbgmd.ghost import DenseFactor, GhostRows
from skbgmd.rows import AveragedRows, CoordinateBlock, DenseRows, Rows, ScaledRows

MATRIX = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 6)))
KINDS: dict[str, Any] = {
    "dense": DenseRows(MATRIX),
    "factors": GhostRows([(0, DenseFactor(MATRIX[:, :, None]))], 5, 6),
    "scaled": ScaledRows(DenseRows(MATRIX), np.ones(5)),
    "scaled factors": ScaledRows(GhostRows([(0, DenseFactor(MATRIX[:, :, None]))], 5, 6), np.ones(5)),
    "averaged": AveragedRows(DenseRows(MATRIX), np.eye(5), np.ones(5)),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_have_all_of_the_protocol(kind: str) -> None:
    rows = KINDS[kind]
    assert isinstance(rows, Rows)
    for name, asked in inspect.getmembers(Rows, inspect.isfunction):
        if name.startswith("_"):
            continue
        needed = [p for p in inspect.signature(asked).parameters.values() if p.name != "self"]
        given = inspect.signature(getattr(rows, name)).parameters
        assert [p.name for p in needed] == list(given)[: len(needed)], f"{kind}: {name}"


@pytest.mark.parametrize("kind", list(KINDS))
def test_blocks_and_subsets_keep_the_ids_of_workers(kind: str) -> None:
    rows = copy.copy(KINDS[kind])
    rows.ids = ("a", "b", 3, 4, 5)
    columns = CoordinateBlock(torch.tensor([1, 4]), 1, 6)
    assert rows.subset(np.array([4, 0])).ids == (5, "a")
    assert rows.block(columns).ids == rows.ids
    assert rows.block(columns).subset(np.array([1])).ids == ("b",)
    assert KINDS[kind].subset(np.array([4, 0])).ids is None


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_are_those_of_the_matrix(kind: str) -> None:
    rows, weights = KINDS[kind], np.arange(5.0)
    torch.testing.assert_close(rows.row(3), MATRIX[3])
    torch.testing.assert_close(rows.weighted_sum(weights), torch.from_numpy(weights) @ MATRIX)
    np.testing.assert_allclose(rows.norms(), MATRIX.norm(dim=1))
    distances = rows.gram().squared_distances()
    np.testing.assert_allclose(np.sqrt(np.maximum(distances, 0.0)), torch.cdist(MATRIX, MATRIX), atol=1e-6)
