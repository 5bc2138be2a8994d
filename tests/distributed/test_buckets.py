"""Exchange bucket by bucket: one order of the columns, and memory that lasts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from processes import on_ranks
from skbgmd.aggregators import GeometricMedian
from skbgmd.distributed import Exchange
from skbgmd.distributed.buckets import ColumnOrder, ShardedBuckets

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
    # A state that is loaded leaves the order as it is, though buckets have been rebuilt.
    buckets.reset()
    buckets.load_state_dict(buckets.state_dict())
    found.append(step(buckets, groups[1], parameters, values))
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
        assert message.startswith(
            "A model must have the parameters that it had in the first step; found missing: (3, 7) float32, (3,) "
            "float32, () float32. "
        )
    whole = np.concatenate([found[0][1][2] for found, _ in ranks], axis=1)
    # Each column is on one rank.
    np.testing.assert_array_equal(np.sort(whole, axis=1), np.sort(matrix, axis=1))


def parameters_of(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Any]:
    return [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]


def settled(parameters: list[Any]) -> ColumnOrder:
    order = ColumnOrder()
    assert order.settle([parameters])
    return order


def test_the_order_is_that_of_the_first_buckets_from_the_last_to_the_first():
    a, b, c = parameters_of((3,), (3,), (2, 2))
    order = ColumnOrder()
    assert order.settle([[c], [a, b]])
    assert order.parameters == [a, b, c]
    for buckets in ([[b], [c, a]], [[a, b, c]], [[c, b, a]]):
        assert not order.settle(buckets)
        assert order.parameters == [a, b, c]
    # A state that is loaded changes nothing about it, be it of these parameters or of none.
    for state in (order.state_dict(), []):
        order.load_state_dict(state)
        assert not order.settle([[b], [c, a]])
        assert order.parameters == [a, b, c]


def test_a_copy_has_the_order_of_its_own_buckets():
    order = settled(parameters_of((3,), (2, 2)))
    copied = parameters_of((3,), (2, 2))
    assert order.settle([[copied[1]], [copied[0]]])
    assert order.parameters == copied


FLOAT, DOUBLE = torch.float32, torch.float64
ALIKE = parameters_of((4,), (4,), (4,))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (ALIKE[:2], ALIKE, "new: (4,) float32. "),
        (ALIKE, ALIKE[1:], "missing: (4,) float32. "),
        # One layer is unfrozen and one of the same shape frozen, which shapes don't tell.
        (ALIKE[:2], ALIKE[1:], "new: (4,) float32; missing: (4,) float32. "),
        (parameters_of((4, 3)), parameters_of((3, 4)), "new: (3, 4) float32; missing: (4, 3) float32. "),
        (parameters_of((4,), (2,)), parameters_of((2,), (4,)), "them in another order. "),
        (parameters_of((4,)), parameters_of((4,), dtype=DOUBLE), "new: (4,) float64; missing: (4,) float32. "),
        (parameters_of((4,)), parameters_of((4,), *[(5,)] * 5), "new: (5,) float32, (5,) float32, (5,) float32 and 2"),
        (parameters_of((4,)), parameters_of((2,), (2,)), "new: (2,) float32, (2,) float32; missing: (4,) float32. "),
        (parameters_of(()), parameters_of((1,)), "new: (1,) float32; missing: () float32. "),
        (parameters_of((4,)), parameters_of((2,), dtype=torch.complex64), "new: (2,) complex64; missing: (4,) float32"),
    ],
)
def test_other_parameters_are_named_and_refused(before, after, found):
    order = settled(before)
    with pytest.raises(ValueError, match=re.escape(f"had in the first step; found {found}")):
        order.settle([after])
    assert order.parameters == before
    state = order.state_dict()
    if before[0] is ALIKE[0] and len(before) == len(after):
        return
    for new in (ColumnOrder(), settled(after)):
        new.load_state_dict(state)
        with pytest.raises(ValueError, match=re.escape(f"that the state is of; found {found}")):
            new.settle([after])
        assert new.state_dict() == state
