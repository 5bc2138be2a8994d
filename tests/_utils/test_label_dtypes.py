"""Labels of signed and unsigned integers together."""

import numpy as np
import pytest

from skbgmd import BlockGMDClassifier
from skbgmd._utils.label_dtypes import common_dtype, comparable, integers_of
from skbgmd.corruption import corrupt_labels
from skbgmd.training._estimator.class_weight import weighted_by_class

LARGE = np.array([2**62, 2**62 + 1] * 20)
KINDS = [np.int64, np.uint64]


def test_only_what_would_be_rounded_becomes_objects():
    signed, unsigned = np.array([1, 2]), np.array([1, 2], dtype=np.uint64)
    assert comparable(signed, signed) == (signed, signed)
    assert [array.dtype for array in comparable(signed, unsigned)] == [object, object]
    texts = np.array(["a"])
    assert comparable(texts, texts)[0] is texts


def test_dtypes_hold_all_labels():
    small, large = np.array([-1], dtype=np.int64), np.array([2**63], dtype=np.uint64)
    assert common_dtype(np.array([-1]), np.array([5], dtype=np.uint64)) == np.int64
    assert common_dtype(np.array([1]), large) == np.uint64
    assert common_dtype(np.array([1.5]), np.array([1])) == np.float64
    assert integers_of([]) == np.int64
    with pytest.raises(ValueError, match="A dtype of integers must hold all labels"):
        common_dtype(small, large)


@pytest.mark.parametrize("of_y", KINDS)
@pytest.mark.parametrize("of_classes", KINDS)
def test_classes_have_their_own_weights(of_y, of_classes):
    found = weighted_by_class(
        {2**62: 1.0, 2**62 + 1: 5.0}, None, LARGE.astype(of_y), np.unique(LARGE).astype(of_classes)
    )
    np.testing.assert_array_equal(found, [1.0, 5.0] * 20)


@pytest.mark.parametrize("of_y", KINDS)
@pytest.mark.parametrize("of_classes", KINDS)
def test_corrupted_labels_are_those_of_the_classes(of_y, of_classes):
    y = LARGE.astype(of_y)
    found, corrupted = corrupt_labels(y, fraction=0.4, classes=np.unique(LARGE).astype(of_classes), random_state=0)
    assert found.dtype.kind in "iu"
    np.testing.assert_array_equal(found.astype(object) != y.astype(object), corrupted)
    assert corrupted.sum() == 16
    small, _ = corrupt_labels(np.array([0, 1] * 5, dtype=of_y), fraction=0.4, classes=np.array([0, 1], of_classes))
    assert small.dtype.kind in "iu"


@pytest.mark.parametrize("of_y", KINDS)
@pytest.mark.parametrize("of_classes", KINDS)
def test_partial_fit_tells_close_labels_apart(of_y, of_classes):
    X = np.tile([[-1.0], [1.0]], (20, 1))
    model = BlockGMDClassifier(random_state=0, lr=0.1)
    for _ in range(20):
        model.partial_fit(X, LARGE.astype(of_y), classes=np.unique(LARGE).astype(of_classes))
    np.testing.assert_array_equal(model.predict(X).astype(object), LARGE.astype(object))
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(X, LARGE.astype(of_y), classes=(np.unique(LARGE) + 2).astype(of_y))
