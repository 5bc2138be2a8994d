"""Weights of classes times those of samples; what trainings make of them is beside the other tests of classifiers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("large", [1e200, 1e307, 1.7e308])
@pytest.mark.parametrize("kind", ["balanced", dict])
def test_large_weights_are_those_times_a_constant(large, kind, data):
    X, y = data
    labels, classes = np.unique(y), "balanced"
    if kind is dict:
        classes = {label: large / (2 + place) for place, label in enumerate(labels)}
    weight = np.linspace(0.5, 1.0, len(y))
    found = quick(class_weight=classes).fit(X, y, sample_weight=large * weight)
    if kind is dict:
        classes = {label: 1.0 / (2 + place) for place, label in enumerate(labels)}
    expected = quick(class_weight=classes).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-5, atol=1e-6)
    score = found.score(X, y, sample_weight=large * weight)
    assert score == pytest.approx(found.score(X, y, sample_weight=weight))


@pytest.mark.parametrize("given", ["balance", "Balanced", 5, True, [1.0, 2.0], ("balanced",), len, [{0: 1.0}]], ids=str)
def test_what_is_no_weight_of_classes_is_refused(given, data):
    with pytest.raises(
        (TypeError, ValueError), match=r'class_weight must be a dict of numbers by labels, "balanced" or'
    ):
        quick(class_weight=given).fit(*data)
    with pytest.raises(
        (TypeError, ValueError), match=r'class_weight must be a dict of numbers by labels, "balanced" or'
    ):
        quick(class_weight=given).partial_fit(*data, classes=np.unique(data[1]))


@pytest.mark.parametrize("weight", ["a", "3", [1.0], None, 1j, np.ones(2)], ids=str)
def test_weights_of_classes_are_numbers(weight, data):
    label = data[1][0]
    with pytest.raises(TypeError, match=r"class_weight must hold numbers; found .* for the label"):
        quick(class_weight={label: weight}).fit(*data)


@pytest.mark.parametrize("weight", [2, np.float32(2.0), np.array(2.0), torch.tensor(2.0), True], ids=str)
def test_any_number_is_a_weight_of_a_class(weight):
    found = weighted_by_class({"no": weight}, None, Y, CLASSES)
    np.testing.assert_array_equal(found[Y == "no"], float(weight))
