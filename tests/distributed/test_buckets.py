"""Exchange bucket by bucket: one order of the columns, and memory that lasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from processes import on_ranks
from skbgmd.aggregators import GeometricMedian
from skbgmd.distributed import Exchange
from skbgmd.distributed.buckets import ShardedBuckets

SHAPES = [(7, 5), (7,), (3, 7), (3,), ()]


def step(buckets: ShardedBuckets, groups: list[list[int]], parameters: list[Any], values: torch.Tensor) -> Any:
    """Aggregate values, all parameters' one after another, in buckets of some of them."""
    pieces = values.split([parameter.numel() for parameter in parameters])
    for group in groups:
        buckets.add(torch.cat([pieces[i] for i in group]), [parameters[i] for i in group])
    seen = []

    def aggregate(rows: Any) -> Any:
        seen.append((rows.n_columns, rows.units.starts.tolist(), rows.matrix.clone().numpy()))
        return GeometricMedian()(rows)[0]

    _, vectors = buckets.finish(aggregate)
    joined: list[Any] = [None] * len(parameters)
    for group, vector in zip(groups, vectors, strict=True):
        for i, piece in zip(group, vector.split([parameters[i].numel() for i in group]), strict=True):
            joined[i] = piece
    buckets.reset()
    return torch.cat(joined).numpy(), seen[0]


def in_several_buckets(rank: int, size: int) -> Any:
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    buckets = ShardedBuckets(Exchange())
    values = torch.from_numpy(np.random.default_rng(rank).normal(size=67)).float()
    # First as DDP begins; then rebuilt, alone, together, and after a step that was given up.
    groups = [[[3, 4], [1, 2], [0]], [[4, 0], [2], [3, 1]], [[4], [3], [2], [1], [0]], [[2, 1, 4, 0, 3]]]
    found = [step(buckets, some, parameters, values) for some in groups]
    memory = buckets._rows
    buckets.add(values[:35], parameters[:1])
    buckets.reset()
    found.append(step(buckets, groups[1], parameters, values))
    assert buckets._rows is memory
    try:
        step(buckets, [[1], [0]], parameters[:2], values[:42])
        message = ""
    except ValueError as error:
        message = str(error)
    return found, message


def test_rows_are_the_same_however_parameters_are_grouped():
    ranks = on_ranks(in_several_buckets, 3)
    matrix = np.stack([np.random.default_rng(rank).normal(size=67) for rank in range(3)]).astype(np.float32)
    for found, message in ranks:
        first, (n_columns, starts, rows) = found[0]
        assert n_columns == 67
        assert starts == [0, 5, 10, 15, 20, 25, 30, *range(35, 43), 49, 56, *range(63, 67)]
        np.testing.assert_array_equal(first, ranks[0][0][0][0])
        for vector, (_, _, other) in found[1:]:
            np.testing.assert_array_equal(vector, first)
            np.testing.assert_array_equal(other, rows)
        assert message.startswith("A model must have the parameters that it had")
    whole = np.concatenate([found[0][1][2] for found, _ in ranks], axis=1)
    # Each column is on one rank.
    np.testing.assert_array_equal(np.sort(whole, axis=1), np.sort(matrix, axis=1))
