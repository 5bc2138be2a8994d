"""Far targets that inputs tell, and those that nothing tells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier

from skbgmd._utils import limits
from skbgmd.training._data.far_targets import FarTargets, far_targets


def switched(n: int, seed: int, share: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """A line, and where the last feature is on, a steep one."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    X[:, -1] = rng.random(n) < share
    return X, (X[:, 0] + 30.0 * X[:, -1] * X[:, 1])[:, None]


def share_told_by_inputs(X: Any, y: np.ndarray, counted: np.ndarray, seed: int) -> float:
    return far_targets(X, y, counted, seed).share_told


def everybody(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [400, 6000])
def test_a_switch_tells_its_targets(n: int, seed: int) -> None:
    X, y = switched(n, seed)
    assert share_told_by_inputs(X, y, everybody(n), 0) > limits.TOLD_BY_INPUTS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.02, 0.15, 0.4])
@pytest.mark.parametrize("one_sided", [False, True])
def test_nothing_tells_gross_targets(share: float, seed: int, one_sided: bool) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(500, 5))
    y = X[:, :1] + 0.3 * rng.normal(size=(500, 1))
    y[rng.random(500) < share] += 20.0 if one_sided else rng.choice((-20.0, 20.0))
    assert abs(share_told_by_inputs(X, y, everybody(500), 0)) < 0.2


@pytest.mark.parametrize("seed", [0, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_a_group_beside_gross_targets_is_found_and_missed_by_predictions_that_give_it_up(
    share: float, seed: int
) -> None:
    X, y = switched(1000, seed)
    right = y.copy()
    gross = np.random.default_rng(1).random(1000) < share
    y[gross] += 40.0
    found = far_targets(X, y, everybody(1000), 0)
    assert found.group.sum() > 15
    assert X[found.group, -1].mean() > 0.8
    assert (found.share_told > limits.TOLD_BY_INPUTS) == (share == 0.0)
    places = np.arange(0, 1000, 2)
    for predicted, are_given_up in ((X[:, :1], True), (right, False), (0.6 * right, False), (np.nan * right, True)):
        assert found.are_given_up(places, (predicted - y)[places]) == are_given_up
    assert not found.are_given_up(np.flatnonzero(~found.group), (X[:, :1] - y)[~found.group])


@pytest.mark.parametrize("seed", range(3))
def test_no_more_trees_are_asked_where_few_tell_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n_trees = []

    class Counted(RandomForestClassifier):
        def fit(self, *args: Any) -> Any:
            n_trees.append(self.n_estimators)
            return super().fit(*args)

    monkeypatch.setattr("skbgmd.training._data.far_targets.RandomForestClassifier", Counted)
    X, y = switched(500, seed)
    group = far_targets(X, y, everybody(500), seed)
    assert n_trees == [limits.FIRST_TREES, limits.FOREST_TREES]
    # The same trees as if all were asked at once.
    settings = {"min_samples_leaf": limits.FOREST_LEAF, "oob_score": True, "random_state": seed}
    forest = RandomForestClassifier(limits.FOREST_TREES, **settings).fit(X, group.far)
    np.testing.assert_array_equal(group.told, forest.oob_decision_function_[:, 1] > limits.TOLD_FROM)
    y = X[:, :1].copy()
    y[:75] += 20.0
    n_trees.clear()
    assert not far_targets(X, y, everybody(500), seed).told.any()
    assert n_trees == [limits.FIRST_TREES]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3, 0.4])
def test_gross_targets_are_no_group(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(500, 5))
    y = X[:, :1] + 0.3 * rng.normal(size=(500, 1))
    y[rng.random(500) < share] += 20.0
    assert not far_targets(X, y, everybody(500), 0).group.any()


def test_few_of_which_most_are_far_are_a_group_by_a_standard_error() -> None:
    for n, n_far, is_group in ((4, 4, False), (5, 5, True), (20, 15, False), (20, 19, True)):
        told, far = np.arange(40) < n, np.arange(40) < n_far
        found = FarTargets(everybody(40), np.ones(1), np.ones((40, 1)), far, told)
        assert found.group.sum() == (n_far if is_group else 0)


@pytest.mark.parametrize("copied", [50, 500])
def test_copies_of_gross_targets_tell_nothing(copied: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5))
    y = X[:, :1] + 0.3 * rng.normal(size=(500, 1))
    y[rng.random(500) < 0.15] += 20.0
    order = rng.permutation(np.r_[np.arange(500), np.arange(copied)])
    found = far_targets(X[order], y[order], everybody(500 + copied), 0)
    assert abs(found.share_told) < 0.2
    assert not found.group.any()
    # The first that counts is looked at.
    counted = order >= 100
    found = far_targets(X[order], y[order], counted, 0)
    assert found.asked.sum() == 400
    assert not (found.asked & ~counted).any()


def test_samples_that_do_not_count_tell_nothing() -> None:
    X = np.random.default_rng(0).uniform(-1.0, 1.0, size=(500, 3))
    y = X[:, :1].copy()
    wrong = np.arange(500) % 10 == 0
    X[wrong] *= 30.0
    y[wrong] += 50.0
    assert share_told_by_inputs(X, y, everybody(500), 0) > limits.TOLD_BY_INPUTS
    assert share_told_by_inputs(X, y, ~wrong, 0) == 0.0


@pytest.mark.parametrize("kind", ["sparse", "dict", "integers", "NaN", "inf", "images", "two targets", "float16"])
def test_inputs_of_all_kinds(kind: str) -> None:
    X, y = switched(400, 0)
    given: Any = X
    if kind == "sparse":
        given = sparse.csr_matrix(X)
    elif kind == "dict":
        given = {"a": X[:, :3], "b": sparse.csr_matrix(X[:, 3:])}
    elif kind == "integers":
        given = (10.0 * X).round().astype(int)
    elif kind in ("NaN", "inf"):
        given = X.copy()
        given[::7, 0] = np.nan if kind == "NaN" else np.inf
    elif kind == "images":
        given = X.reshape(400, 1, 5, 1)
    elif kind == "two targets":
        y = np.hstack([X[:, :1], y])
    else:
        given = X.astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert share_told_by_inputs(given, y, everybody(400), 0) > limits.TOLD_BY_INPUTS


@pytest.mark.parametrize("n", [1, 2, 20])
def test_without_far_targets_nothing_is_told(n: int) -> None:
    X = np.arange(float(n))[:, None]
    assert share_told_by_inputs(X, X, everybody(n), 0) == 0.0
    assert share_told_by_inputs(X, np.zeros((n, 1)), everybody(n), 0) == 0.0


def test_the_same_seed_tells_the_same() -> None:
    X, y = switched(300, 3, share=0.03)
    before = np.random.get_state()[1].copy()
    found = {share_told_by_inputs(X, y, everybody(300), seed) for seed in (0, 0, 0)}
    assert len(found) == 1
    np.testing.assert_array_equal(before, np.random.get_state()[1])
