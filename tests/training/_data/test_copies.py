"""Copies of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from skbgmd.training._data.copies import first_copies
from skbgmd.training._data.inputs import Items, SeveralInputs

N = 120
NONE = np.arange(N)


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Samples of which 70 is as 10 is, 80 as 20, and 90 as 30 but for its target."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, 6)), rng.normal(size=N)
    X[rng.random(X.shape) < 0.3] = 0.0
    X[[70, 80, 90]], y[[70, 80]] = X[[10, 20, 30]], y[[10, 20]]
    return X, y


def found(X: Any, y: np.ndarray, strata: np.ndarray | None = None) -> dict[int, int]:
    """Copies, with the places of the first ones."""
    first = first_copies(X, y, np.zeros(len(y), dtype=int) if strata is None else strata)
    return {place: int(of) for place, of in enumerate(first) if of != place}


@pytest.mark.parametrize(
    "kind",
    ["float64", "float32", "float16", "int", "bool", "signs", "Fortran", "images", "csr", "csc", "coo", "dict", "list"],
)
def test_copies_have_equal_inputs_and_targets(kind: str) -> None:
    X, y = samples()
    given: Any = X
    if kind in ("float32", "float16"):
        given = X.astype(kind)
    elif kind == "int":
        given = (1e6 * X).astype(int)
    elif kind == "bool":
        bits = np.random.default_rng(1).random((N, 64)) < 0.5
        bits[[70, 80, 90]] = bits[[10, 20, 30]]
        given = bits
    elif kind == "signs":
        given, y = X.copy(), y.copy()
        given[70:] = np.where(X[70:] == 0.0, -0.0, X[70:])
        y[[10, 70]] = 0.0, -0.0
    elif kind == "Fortran":
        given = np.asfortranarray(X)
    elif kind == "images":
        given = X.reshape(N, 1, 2, 3)
    elif kind in ("csr", "csc", "coo"):
        given = getattr(sparse, f"{kind}_matrix")(X)
    elif kind == "dict":
        given = {"a": X[:, :3], "b": sparse.csr_matrix(X[:, 3:])}
    elif kind == "list":
        given = SeveralInputs([X[:, :3], X[:, 3:].astype(np.float32)])
    before = given.copy() if isinstance(given, np.ndarray) else None
    assert found(given, y) == {70: 10, 80: 20}
    assert found(given, np.column_stack([y, NONE % 10])) == {70: 10, 80: 20}
    assert found(given, np.column_stack([y, NONE == 80])) == {70: 10}
    if before is not None:
        np.testing.assert_array_equal(given, before)


def test_sparse_zeros_and_orders_are_no_differences() -> None:
    places, ends = [0, 3, 1, 3, 0, *range(N - 2)], [0, 3, *range(5, N + 4)]
    values = np.array([1.0, 2.0, 0.0, 2.0, 1.0, *(3.0 + NONE[2:])])
    matrix = sparse.csr_matrix((values, places, ends), (N, N - 2))
    assert found(matrix, np.zeros(N)) == {1: 0}
    # The matrix is as it was.
    assert matrix.nnz == N + 3


def test_equal_inputs_of_which_one_target_differs_are_samples_of_their_own() -> None:
    X, y = samples()
    X[50], y[50] = X[10], 7.0
    assert found(X, y) == {80: 20}
    assert found(X, np.arange(N).astype(str), np.zeros(N, dtype=int))[90] == 30
    assert found(X, np.arange(N).astype(str), np.arange(N) // 40) == {}


def test_categories_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    levels, bits = rng.integers(30, size=(2000, 2)), rng.integers(2, size=(2000, 9))
    one_hot = np.eye(30)[levels].reshape(2000, -1)
    for X in (NONE[:, None] // 2, np.eye(N)[NONE // 2], levels, bits, one_hot, sparse.csr_matrix(one_hot)):
        n = X.shape[0]
        assert found(X, np.zeros(n)) == {}
        assert found(X, np.full(n, "a"), np.zeros(n, dtype=int)) == {}
    # Beside a number that no other has they are.
    X = np.hstack([levels, rng.normal(size=(2000, 1))])
    X[1990:] = X[:10]
    assert len(found(X, np.zeros(2000))) == 10


def test_a_part_of_the_stratum_is_no_copy_of_one() -> None:
    X = np.random.default_rng(0).normal(size=(N + 10, 3))
    for n, n_copies in ((5, 5), (6, 0)):
        X[-10:] = np.random.default_rng(1).normal(size=(10, 3))
        X[N : N + n] = X[0]
        assert len(found(X, np.zeros(N + 10))) == n_copies


def test_of_few_different_inputs_none_are_copies() -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    assert found(np.r_[X[:99], X[:99]], np.zeros(198)) == {}
    assert len(found(np.r_[X, X], np.zeros(200))) == 100


def test_of_what_is_unknown_there_are_no_copies() -> None:
    X, y = samples()
    items = Items(X, lambda source, place: source[place], NONE)
    for given in (items, {"a": X, "b": items}, X.astype(object), np.zeros((N, 0)), {"a": np.zeros((N, 0))}):
        assert found(given, y) == {}
    for n in (0, 1):
        assert found(X[:n], y[:n]) == {}
