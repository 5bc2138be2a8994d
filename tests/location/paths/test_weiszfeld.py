"""Weiszfeld steps: as long as they pay."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from conftest import vertex
from skbgmd import geometric_median
from skbgmd.location.paths import choice
from skbgmd.location.spaces import ExpandedSpace


@pytest.mark.parametrize("kind", ["easy", "offset", "a few far rows", "outliers"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weiszfeld_steps_solve_many_rows_of_easy_data(kind, dtype, rng):
    X = rng.normal(size=(400, 3000)).astype(dtype)
    if kind == "offset":
        X += 30.0
    elif kind == "a few far rows":
        X[:4] *= 1e5
    elif kind == "outliers":
        X[:120] += 10.0
    with mock.patch.object(choice, "solve_gram", side_effect=AssertionError("the Gram matrix isn't needed")):
        result = geometric_median(X, return_result=True)
    with mock.patch.object(choice, "weiszfeld_pays", return_value=False):
        other = geometric_median(X, tol=1e-9 if dtype is np.float64 else 1e-6, return_result=True)
    assert result.converged
    assert result.objective <= other.objective * (1.0 + 1e-6)
    assert np.linalg.norm(result.weights @ X.astype(np.float64) - result.median) <= 1e-5 * np.linalg.norm(X[-1])


def test_weiszfeld_steps_give_way_where_they_contract_slowly():
    X = np.tile(vertex(3), (1, 400))
    X = np.concatenate([X] * (400 // len(X) + 1))
    with mock.patch.object(ExpandedSpace, "at", autospec=True, side_effect=ExpandedSpace.at) as at:
        result = geometric_median(X, return_result=True)
    assert result.converged
    assert at.call_count <= 8
