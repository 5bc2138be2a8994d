"""Wrong labels among held-out samples, and what they ask of a strength that is ahead."""

from __future__ import annotations

import numpy as np
import pytest

from fits import held_out_labels_of
from skbgmd._utils import limits
from skbgmd.training._strength.held_out_labels import (
    HeldOutLabels,
    errors_ahead_of_classes,
    wrong_labels_in,
)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("slope", [4.0, 50.0])
def test_surely_predicted_labels_bound_the_share_of_wrong_ones(share: float, slope: float) -> None:
    held_out = held_out_labels_of(6000, share, slope=slope)
    least, most = wrong_labels_in(held_out)
    # Half as many standard errors more, for these are six draws.
    slack = (most - least) / 4.0
    assert least - slack <= share <= most + slack
    assert most - least < 0.1
    # Of all, where classes overlap, many more differ.
    assert slope > 4.0 or np.nanmean(held_out.differs) > most
    assert wrong_labels_in(HeldOutLabels(*(np.full(5, np.nan) for _ in range(4)))) == (0.0, 1.0)


def test_each_predicted_class_has_its_surest_samples() -> None:
    # Labels of the rare class are wrong, and it is never predicted as surely as the other.
    predicted = np.append(np.ones(100), np.zeros(900))
    held_out = HeldOutLabels(predicted, np.where(predicted == 1.0, 0.8, 0.9), predicted, np.full(1000, np.nan))
    least, most = wrong_labels_in(held_out)
    assert least < 0.1 < most


@pytest.mark.parametrize(
    ("share", "asked"),
    [
        (0.0, limits.CLEAR_GAIN),
        (0.04, limits.CLEAR_GAIN),
        (0.12, limits.CLEAR_GAIN_OF_WRONG),
        (0.4, limits.CLEAR_GAIN_OF_WRONG),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_less_is_asked_where_wrong_labels_are_proven(share: float, asked: float, seed: int) -> None:
    assert errors_ahead_of_classes(held_out_labels_of(3000, share, seed=seed)) == asked


def test_overlap_and_nothing_held_out_prove_nothing() -> None:
    assert errors_ahead_of_classes(None) == limits.CLEAR_GAIN
    # A fifth of the labels of these differ from what is predicted, and few of what is predicted most surely.
    overlapping = held_out_labels_of(3000, 0.0, slope=2.0)
    assert np.nanmean(overlapping.differs) > 0.15
    assert errors_ahead_of_classes(overlapping) == limits.CLEAR_GAIN
