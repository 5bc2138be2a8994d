"""The groups of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils.slices import Slices
from skbgmd.training._groups import (
    group_slices,
    group_sums,
    group_weights,
    is_sorted,
    loss_shares,
    pieces,
)
from skbgmd.training._loader import Batch

X, y = torch.zeros(7, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0])
SLICES = Slices([slice(0, 3), slice(3, 5), slice(5, 7)])
WEIGHT = torch.tensor([1.0, 0.0, 3.0, 2.0, 2.0, 0.0, 0.0])


def test_slices_are_the_batchs_or_as_equal_as_can_be() -> None:
    assert group_slices((X, y), 3) == SLICES
    assert group_slices((X, y), None) == Slices([slice(0, 7)])
    own = [slice(0, 1), slice(1, 7)]
    assert group_slices(Batch(X, y, np.arange(7), None, own), 3) == Slices(own)
    assert pieces(slice(2, 7), 2) == [slice(2, 5), slice(5, 7)]
    assert pieces(slice(2, 4), 5) == [slice(2, 3), slice(3, 4)]


def test_weights_are_sums_or_numbers_of_samples() -> None:
    assert group_weights(SLICES, None).tolist() == [3.0, 2.0, 2.0]
    assert group_weights(SLICES, WEIGHT).tolist() == [4.0, 4.0, 0.0]


def test_shares_of_a_group_add_up_to_one_unless_it_has_no_weight() -> None:
    ones = torch.ones(7)
    plain = loss_shares(ones, (X, y), SLICES, group_weights(SLICES, None), summed=False)
    np.testing.assert_allclose(group_sums(plain, SLICES), 1.0)
    batch = Batch(X, y, np.arange(7), WEIGHT)
    weighted = loss_shares(ones, batch, SLICES, group_weights(SLICES, WEIGHT), summed=False)
    np.testing.assert_allclose(group_sums(weighted, SLICES), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(weighted[:3], [0.25, 0.0, 0.75])


def test_losses_of_several_outputs_are_averaged_for_each_sample() -> None:
    losses, singles = torch.arange(14.0).view(7, 2), Slices(slice(i, i + 1) for i in range(7))
    means = loss_shares(losses, (X, y), singles, group_weights(singles, None), summed=False)
    assert means.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5]
    shares = loss_shares(losses, (X, y), SLICES, group_weights(SLICES, None), summed=False)
    assert shares[0].item() == pytest.approx(0.5 / 3)
    sums = loss_shares(losses, (X, y), SLICES, group_weights(SLICES, None), summed=True)
    assert sums[0].item() == pytest.approx(1.0 / 3)


def test_sums_of_equal_groups() -> None:
    assert group_sums(torch.arange(6.0), Slices([slice(0, 3), slice(3, 6)])).tolist() == [3.0, 12.0]


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
