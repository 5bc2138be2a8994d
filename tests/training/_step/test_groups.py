"""The groups of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils.slices import Slices
from skbgmd.training._data.loader import Batch
from skbgmd.training._step.groups import GroupedBatch, is_sorted, pieces

X, y = torch.zeros(7, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0])
SLICES = Slices([slice(0, 3), slice(3, 5), slice(5, 7)])
WEIGHT = torch.tensor([1.0, 0.0, 3.0, 2.0, 2.0, 0.0, 0.0])


def grouped(weight: torch.Tensor | None = None, slices: Slices = SLICES) -> GroupedBatch:
    return GroupedBatch(Batch(X, y, np.arange(7), weight, list(slices)), None)


def test_slices_are_the_batchs_or_as_equal_as_can_be() -> None:
    assert GroupedBatch((X, y), 3).slices == SLICES
    assert GroupedBatch((X, y), None).slices == Slices([slice(0, 7)])
    assert not GroupedBatch((X, y), 3).has_clients
    own = grouped(slices=Slices([slice(0, 1), slice(1, 7)]))
    assert own.slices == Slices([slice(0, 1), slice(1, 7)])
    assert own.has_clients
    assert own.n_samples == 7
    assert pieces(slice(2, 7), 2) == [slice(2, 5), slice(5, 7)]
    assert pieces(slice(2, 4), 5) == [slice(2, 3), slice(3, 4)]


def test_weights_are_sums_or_numbers_of_samples() -> None:
    assert grouped().weights.tolist() == [3.0, 2.0, 2.0]
    assert grouped(WEIGHT).weights.tolist() == [4.0, 4.0, 0.0]
    np.testing.assert_allclose(grouped().relative_weights, [1.0, 2 / 3, 2 / 3])


def test_shares_of_a_group_add_up_to_one_even_if_it_has_no_weight() -> None:
    ones = torch.ones(7)
    np.testing.assert_allclose(grouped().sums(grouped().shares(ones)), 1.0)
    weighted = grouped(WEIGHT).shares(ones)
    np.testing.assert_allclose(grouped().sums(weighted), 1.0)
    np.testing.assert_allclose(weighted[:3], [0.25, 0.0, 0.75])
    single = GroupedBatch((X, y), 1)
    assert single.shares(ones) is ones
    assert single.sums(ones) is ones


def test_sums_of_equal_groups() -> None:
    equal = GroupedBatch((X[:6], y[:6]), 3)
    assert equal.sums(torch.arange(6.0)).tolist() == [3.0, 12.0]


def test_means_are_weighted_by_the_groups() -> None:
    losses = torch.tensor([1.0, 4.0, 4.0])
    assert float(grouped(WEIGHT).mean(losses)) == 2.5
    assert float(GroupedBatch((X[:6], y[:6]), 2).mean(losses)) == 3.0


def test_what_is_sorted() -> None:
    ordered = torch.arange(3).repeat_interleave(8)
    assert is_sorted(ordered, 8)
    assert is_sorted(ordered.flip(0), 2)
    for other in (
        ordered[torch.arange(24) * 7 % 24],
        torch.cat([ordered, ordered[:1]]),
        torch.zeros(24, dtype=torch.int64),
        torch.arange(24),
        torch.cat([torch.zeros(23, dtype=torch.int64), torch.ones(1, dtype=torch.int64)]),
        ordered[:12],
        ordered.double(),
        ordered[:, None],
        None,
    ):
        assert not is_sorted(other, 2)
    assert not is_sorted(ordered, 9)


def test_numbers_are_sorted_by_class_under_a_binary_loss() -> None:
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(12)
    smooth = 0.1 + 0.8 * labels
    for ordered in (labels, labels.flip(0), labels[:, None].half(), labels.double(), 2 * labels - 1, smooth):
        assert is_sorted(ordered, 8, binary=True)
        assert not is_sorted(ordered, 8)
        assert not is_sorted(ordered, 13, binary=True)
        assert not is_sorted(ordered[torch.arange(24) * 7 % 24], 2, binary=True)
    assert is_sorted(labels.long(), 8, binary=True)
    # Several labels of each sample.
    assert not is_sorted(torch.stack([labels, labels], dim=1), 8, binary=True)
    assert not is_sorted(torch.tensor(1.0), 1, binary=True)


def test_samples_along_another_axis_are_counted_by_their_targets_and_not_cut_out() -> None:
    time_major = torch.zeros(3, 7, 2)
    for inputs in (time_major, {"tokens": time_major, "lengths": torch.ones(7)}, (torch.zeros(20), torch.zeros(7))):
        batch = GroupedBatch((inputs, y), 3)
        assert batch.slices == SLICES
        with pytest.raises(ValueError, match=r"X must have the samples .*batch_first=True.* for 7 samples"):
            batch.inputs(slice(0, 3))
    assert GroupedBatch((X, [0, 1]), 3).n_samples == 7
    assert len(GroupedBatch(({"a": X, "b": X}, y), 3).inputs(slice(0, 3))["b"]) == 3
