"""Division of columns among ranks: nothing is lost, whatever the sizes."""

from __future__ import annotations

import pytest
import torch

from skbgmd.distributed.column_shards import ColumnShards

SIZES = [(12,), (7,), (1,), (0,), (4, 3), (1, 1, 1), (0, 5, 0), (9, 1, 30, 2), (3, 0, 8), (100, 7, 7, 7, 1)]


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_columns_that_are_split_are_joined_again(sizes, n_ranks):
    shards = ColumnShards.of(sizes, n_ranks)
    d = sum(sizes)
    rows = torch.arange(1.0, 2 * d + 1).view(2, d)
    padded = shards.split(rows)
    assert padded.shape == (n_ranks, 2, shards.width)
    for line in range(2):
        torch.testing.assert_close(shards.join(padded[:, line]), rows[line])
    # Each column is one rank's, and padding is zero.
    held = [column for rank in range(n_ranks) for part in shards.held(rank) for column in range(part.start, part.stop)]
    assert sorted(held) == list(range(d))
    assert int((padded != 0).sum()) == 2 * d
    for rank in range(n_ranks):
        index = [column for part in shards.held(rank) for column in range(part.start, part.stop)]
        own = shards.unpad(padded[rank], rank)
        torch.testing.assert_close(own, rows[:, index])
        torch.testing.assert_close(shards.pad(own[0], rank), padded[rank, 0])


def test_rows_in_other_memory_and_dtypes():
    shards = ColumnShards((5, 4), 2)
    wide = torch.arange(36.0).view(2, 18)
    for rows in (wide[:, ::2], wide.view(18, 2)[:9].T):
        torch.testing.assert_close(shards.join(shards.split(rows, torch.bfloat16)[:, 1]), rows[1].bfloat16())


def test_a_number_is_one_part():
    assert ColumnShards.of(7, 2) == ColumnShards((7,), 2)
    assert ColumnShards.of(7, 2).held(1) == [slice(4, 7)]
