"""Taking a caller's array in, and giving the answer back in kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from skbgmd.arrays import (
    as_matrix,
    as_weights,
    check_choice,
    check_integer,
    check_number,
    empty,
    not_finite,
    without_autocast,
)


def test_no_copy_where_none_is_needed(rng):
    X = rng.normal(size=(4, 3)).astype(np.float32)
    matrix, _ = as_matrix(X)
    assert matrix.data_ptr() == X.ctypes.data
    tensor = torch.from_numpy(X)
    assert as_matrix(tensor)[0].data_ptr() == tensor.data_ptr()


def test_odd_memory_layouts(rng):
    X = rng.normal(size=(6, 4))
    for view in (X[::-1], X[:, ::-1], X[::2], X.T, np.asfortranarray(X), X.astype(">f4")):
        np.testing.assert_allclose(as_matrix(view)[0].numpy(), view)


def test_read_only_arrays_are_taken(rng):
    X = rng.normal(size=(3, 3))
    X.flags.writeable = False
    assert as_matrix(X)[0].shape == (3, 3)


def test_sparse_is_refused_by_name():
    with pytest.raises(TypeError, match="rows must be a dense array; found a sparse one of type csr_array"):
        as_matrix(sparse.csr_array(np.eye(3)), "rows")


@pytest.mark.parametrize(
    ("given", "dtype"), [(np.float32, np.float32), (np.int16, np.float64), (np.float16, np.float16)]
)
def test_answers_come_back_in_kind(given, dtype):
    _, caller = as_matrix(np.ones((2, 2), dtype=given))
    assert caller.give(torch.zeros(2, dtype=torch.float64)).dtype == dtype
    assert caller.give(np.zeros(2)).dtype == dtype


def test_weights_are_scaled_to_a_largest_of_one():
    np.testing.assert_array_equal(as_weights([1, 4, 2], 3), [0.25, 1.0, 0.5])
    np.testing.assert_array_equal(as_weights(torch.tensor([2.0, 0.0]), 2), [1.0, 0.0])
    np.testing.assert_array_equal(as_weights(None, 2), [1.0, 1.0])


def test_checks():
    assert check_number(np.float32(0.5), "x") == 0.5
    assert check_integer(np.int64(3), "x") == 3
    assert check_choice("a", "x", ("a", "b")) == "a"
    with pytest.raises(TypeError, match="x must be a number; found True"):
        check_number(True, "x")
    with pytest.raises(TypeError, match=r"x must be an integer; found 2\.0"):
        check_integer(2.0, "x")
    with pytest.raises(ValueError, match="greater than 0 and at most 1; found 2"):
        check_number(2, "x", at_most=1.0)
    with pytest.raises(ValueError, match="x must be one of 'a', 'b'; found 'c'"):
        check_choice("c", "x", ("a", "b"))


def test_not_finite_names_the_first_entry():
    X = torch.zeros(3, 4)
    X[1, 2], X[2, 0] = -torch.inf, torch.nan
    assert "inf at row 1, column 2" in str(not_finite("X", X))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_empty(dtype):
    assert empty((2, 3), dtype, torch.device("cpu")).shape == (2, 3)
    assert empty((2, 3), dtype, torch.device("cpu")).dtype == dtype


def test_products_are_in_the_dtypes_given_under_autocast_too():
    X = torch.linspace(0.9, 1.1, 12).view(3, 4)

    @without_autocast
    def product():
        return X @ X.T

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product().dtype == torch.float32
        assert (X @ X.T).dtype == torch.bfloat16


def test_choices_may_hold_none():
    assert check_choice(None, "memory", (None, "mean")) is None
    with pytest.raises(ValueError, match="memory must be one of None, 'mean'; found 'x'"):
        check_choice("x", "memory", (None, "mean"))
    with pytest.raises(ValueError, match="found None"):
        check_choice(None, "block", ("unit",))
