"""Weights of classes times those of samples; what trainings make of them is beside the other tests of classifiers."""

from __future__ import annotations

import numpy as np
import pytest

from fits import quick
from skbgmd.training._estimator.class_weight import balanced, weighted_by_class

Y, CLASSES = np.array(["no", "yes", "no", "no"]), np.array(["maybe", "no", "yes"])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"no": -1.0, "yes": 1.0}, "class_weight must be finite and not negative"),
        ({"no": np.inf, "yes": 1.0}, "class_weight must be finite and not negative"),
        ({"no": 0.0, "yes": 0.0}, "class_weight must leave a sample with a positive weight"),
    ],
)
def test_class_weights_are_checked(data, weight, message):
    with pytest.raises(ValueError, match=message):
        quick(class_weight=weight).fit(*data)


def test_samples_have_their_own_weight_times_that_of_their_class():
    given = {"no": 2.0, "yes": 3.0}
    np.testing.assert_array_equal(weighted_by_class(given, None, Y, CLASSES), [2.0, 3.0, 2.0, 2.0])
    weight = np.array([1.0, 0.5, 0.0, 2.0])
    np.testing.assert_array_equal(weighted_by_class(given, weight, Y, CLASSES), [2.0, 1.5, 0.0, 4.0])


def test_balanced_classes_have_the_same_weight_by_the_weights_of_their_samples():
    weight = np.array([1.0, 3.0, 0.0, 1.0])
    found = weighted_by_class("balanced", weight, Y, CLASSES)
    assert [found[label == Y].sum() for label in ("no", "yes")] == pytest.approx([2.5, 2.5])
    np.testing.assert_allclose(balanced(np.array([1, 2, 1, 1]), weight, 3), [0.0, 1.25, 2.5 / 3.0])
