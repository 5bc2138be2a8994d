"""The choice of the way to a geometric median, by what each costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import PATHS, on_path
from skbgmd import geometric_median
from skbgmd._utils import limits
from skbgmd.location.paths.choice import takes_gram_path, weiszfeld_pays


def test_gram_matrix_for_few_rows_of_many_columns():
    assert takes_gram_path(500, 1000)
    assert not takes_gram_path(30, 10)
    assert not takes_gram_path(1000, 1000)


def test_weiszfeld_steps_pay_up_to_what_another_path_costs():
    for n, d in ((1024, 41_000), (1000, 100), (5000, 6000)):
        most = n / limits.GRAM_EVALUATION_ROWS if takes_gram_path(n, d) else limits.NEWTON_EVALUATIONS
        assert weiszfeld_pays(n, d, most)
        assert not weiszfeld_pays(n, d, most + 1)


@pytest.mark.parametrize(("n", "d"), [(100, 2), (10**7, 3), (1000, 64), (32, 10**6)])
def test_weiszfeld_steps_are_not_begun_where_another_path_costs_little(n, d):
    assert not weiszfeld_pays(n, d, limits.WEISZFELD_STEPS)


@pytest.mark.parametrize(("n", "d"), [(100, 2), (1024, 41_000), (1000, 100)])
def test_no_end_in_sight_never_pays(n, d):
    assert not weiszfeld_pays(n, d, math.inf)


def test_paths_agree(rng):
    X = rng.normal(size=(30, 10))
    X[:9] += 6.0
    found = []
    for path in PATHS:
        with on_path(path):
            found.append(geometric_median(X, tol=1e-12))
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)
    np.testing.assert_allclose(found[2], found[0], atol=1e-9)


def test_a_row_of_weight_zero_has_to_be_finite_too():
    X = np.ones((4, 2))
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match="found NaN at row 2, column 1"):
        geometric_median(X, sample_weight=[0, 1, 0, 1])
