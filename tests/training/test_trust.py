"""The trust in samples."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd.training._groups import GroupedBatch
from skbgmd.training._loader import Batch
from skbgmd.training._trust import SampleTrust


def batch(positions: list[int]) -> GroupedBatch:
    X = torch.zeros(len(positions), 2)
    return GroupedBatch(Batch(X, X[:, 0], np.array(positions)), 2)


def test_means_are_over_the_steps_that_a_sample_was_in() -> None:
    trust = SampleTrust()
    trust.add(batch([0, 1, 5, 2]), np.array([1.0, 0.5]))
    trust.add(batch([1, 2]), np.array([0.0]))
    np.testing.assert_array_equal(trust.means(7), [1.0, 0.5, 0.25, np.nan, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(trust.means(2), [1.0, 0.5])
    again = SampleTrust(trust.sums.copy())
    again.add(batch([3]), np.array([2.0]))
    assert again.means(4)[3] == 2.0


def test_places_must_be_known() -> None:
    trust = SampleTrust()
    trust.has_places = False
    trust.add(batch([0, 1]), np.ones(1))
    trust.has_places = True
    trust.add(GroupedBatch((torch.zeros(2, 1), torch.zeros(2)), 1), np.ones(2))
    assert np.isnan(trust.means(2)).all()
