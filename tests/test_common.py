"""scikit-learn's own checks of estimators: all of them, none skipped, none expected to fail."""

from __future__ import annotations

from unittest import SkipTest

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import estimator_checks_generator

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import CorruptedLabels, GaussianNoise, ImpulseNoise, LabelCorruption

ESTIMATORS = [
    GaussianNoise(),
    ImpulseNoise(),
    CorruptedLabels(LogisticRegression()),
    LabelCorruption(),
    BlockGMDClassifier(),
    BlockGMDRegressor(),
    # Trainings of other rules are shorter, as scikit-learn's own are in these checks: their steps are what differs.
    *(
        kind(max_epochs=20, **settings)
        for settings in (
            {"beta": 0.25},
            {"beta": 0.1, "memory": "weighted"},
            {"group_size": 8},
            {"pre_aggregation": "nearest"},
        )
        for kind in (BlockGMDClassifier, BlockGMDRegressor)
    ),
]
#: Of a method that estimators needn't have; for others it is skipped.
OF_DECISION_FUNCTIONS = "check_classifiers_multilabel_output_format_decision_function"
CHECKS = [
    (estimator, check)
    for given in ESTIMATORS
    for estimator, check in estimator_checks_generator(given)
    if getattr(check, "func", check).__name__ != OF_DECISION_FUNCTIONS or hasattr(estimator, "decision_function")
]


@pytest.fixture(autouse=True)
def _global_randomness_is_left_alone():
    """Some of the checks draw from NumPy's global generator themselves."""
    before = np.random.get_state()
    yield
    np.random.set_state(before)


def check_name(check):
    arguments = ",".join(f"{key}={value}" for key, value in getattr(check, "keywords", {}).items())
    return getattr(check, "func", check).__name__ + (f"({arguments})" if arguments else "")


# Some of the checks fit as few samples as make one group.
@pytest.mark.filterwarnings("ignore:group_size must be smaller than the batches")
@pytest.mark.parametrize(
    ("estimator", "check"), CHECKS, ids=[f"{estimator}-{check_name(c)}" for estimator, c in CHECKS]
)
def test_estimator_checks(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        pytest.fail(f"The check was skipped: {skipped}")


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_the_checks_are_there(estimator):
    names = {check_name(check).partition("(")[0] for other, check in CHECKS if repr(other) == repr(estimator)}
    assert len(names) >= 30
    assert {"check_n_features_in_after_fitting", "check_fit2d_1sample", "check_estimators_pickle"} <= names
