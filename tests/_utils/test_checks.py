"""Checks of parameters, masks, dates, missing values and labels."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from skbgmd._utils.checks import (
    as_ids,
    as_labels,
    as_numpy,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_once,
    check_row_weights,
    check_targets,
    check_verbosity,
    not_finite,
    refuse_masks,
    refuse_masks_and_dates,
    refuse_missing,
    refuse_unknown_objects,
)


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
    for value in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="x must be at least 0 and at most 1; found"):
            check_number(value, "x", at_least=0.0, at_most=1.0)
    assert check_number(0, "x", at_least=0.0) == 0.0
    with pytest.raises(ValueError, match="x must be at least 0 and finite; found inf"):
        check_number(float("inf"), "x", at_least=0.0)
    with pytest.raises(ValueError, match="x must be one of 'a', 'b'; found 'c'"):
        check_choice("c", "x", ("a", "b"))


def test_not_finite_names_the_first_entry():
    X = torch.zeros(3, 4)
    X[1, 2], X[2, 0] = -torch.inf, torch.nan
    assert "inf at row 1, column 2" in str(not_finite("X", X))


def test_choices_may_hold_none():
    assert check_choice(None, "memory", (None, "mean")) is None
    with pytest.raises(ValueError, match="memory must be one of None, 'mean'; found 'x'"):
        check_choice("x", "memory", (None, "mean"))
    with pytest.raises(ValueError, match="found None"):
        check_choice(None, "block", ("unit",))


def test_missing_labels():
    for values in (
        ["a", None],
        np.array(["a", pd.NA], dtype=object),
        pd.Series(["a", None], dtype="string"),
        [1, np.nan],
    ):
        with pytest.raises(ValueError, match="y must have no missing values; found None, NA or NaN at position 1"):
            refuse_missing(values, "y")
    with pytest.raises(ValueError, match="position 1"):
        refuse_missing(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, np.nan]}), "y")
    for values in (["a", "b"], np.array([1.0, np.nan]), pd.Series(["a", "b"]), np.zeros((2, 2), dtype=object)):
        refuse_missing(values, "y")


def test_masks_and_dates_deep_inside():
    masked, moment = np.ma.masked_array([1, 2], mask=[0, 1]), datetime(2020, 1, 2, tzinfo=UTC)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(3), masked]
    record = np.ma.masked_array(np.zeros(2, dtype=[("a", "f8"), ("b", "i8")]), mask=[(0, 1), (0, 0)])
    boolean = [[True, np.ma.masked_array(True, mask=True)]]
    for values in (
        [[[1, 2]], [masked]],
        ({"a": [0, 1], "b": masked},),
        deque([(masked,)]),
        ragged,
        record,
        boolean,
        pd.Series([np.zeros(2), masked]),
        pd.DataFrame({"a": [1, np.ma.masked]}, dtype=object),
    ):
        for refuse in (refuse_masks, refuse_masks_and_dates):
            with pytest.raises(ValueError, match="X must have no masked entries; found 1 of them"):
                refuse(values, "X")
    for values in ([[[1]], [[moment]]], {"a": [moment]}, pd.Series([[moment]]), [pd.Series([moment])], ["a", moment]):
        with pytest.raises(TypeError, match="X must hold no dates or durations; found"):
            refuse_masks_and_dates(values, "X")
        refuse_masks(values, "X")
    for values in (
        [],
        [[]],
        "2020",
        range(3),
        {"a": [1, "b", None]},
        [torch.zeros(2), np.zeros(2)],
        np.array([{"a": 1}, object()]),
        pd.DataFrame({"a": ["x", None], "b": [1, 2]}),
        pd.Series(["a"], dtype="category"),
        sparse.csr_array(np.eye(2)),
    ):
        refuse_masks_and_dates(values, "X")


def test_labels_and_ids():
    for values in ([1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2]), pd.Series([1, 2]), [[1], [2]]):
        for take in (as_ids, as_labels):
            np.testing.assert_array_equal(take(values, "ids"), [1, 2])
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")
    np.testing.assert_array_equal(as_ids(days, "ids"), days)
    with pytest.raises(TypeError, match="ids must hold no dates or durations"):
        as_labels(days, "ids")
    times = np.array(["2020", "NaT"], dtype="datetime64[D]")
    for values in (np.array([1.0, np.nan]), times, torch.tensor([1.0, torch.nan])):
        with pytest.raises(ValueError, match="ids must have no missing values; found None, NA or NaN at position 1"):
            as_ids(values, "ids")
    for values in (3, None, [[1, 2]], np.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"^ids must have"):
            as_ids(values, "ids")


def test_values_that_passed_are_not_looked_at_again():
    seen = []

    def check(number, other):
        seen.append((number, other))
        check_number(number, "number")

    for values in ((1.0, "a"), (1.0, "a"), (1, "a"), (1.0, [2]), (1.0, [2])):
        check_once(check, *values)
    # Equal numbers of another type count as others, and what has no hash is looked at each time.
    assert seen == [(1.0, "a"), (1, "a"), (1.0, [2]), (1.0, [2])]
    for _ in range(2):
        with pytest.raises(ValueError, match="number must be greater than 0 and finite; found -1"):
            check_once(check, -1.0, "a")
        with pytest.raises(TypeError, match="number must be a number; found True"):
            check_once(check, True, "a")
        with pytest.raises(TypeError, match=r"number must be a number; found \[1\]"):
            check_once(check, [1], "a")


def test_flags():
    assert check_flag(np.bool_(True), "x") is True
    for value in ("x", 1, None, {}):
        with pytest.raises(TypeError, match="x must be True or False; found "):
            check_flag(value, "x")


def test_row_weights():
    weights = np.array([0.0, 2.0])
    assert check_row_weights(weights, 2) is weights
    np.testing.assert_array_equal(check_row_weights(np.array([True, False]), 2), [1.0, 0.0])
    assert check_row_weights(np.ones(0), 0).shape == (0,)
    np.testing.assert_array_equal(check_row_weights(np.zeros(2), 2), [0.0, 0.0])


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-200, 1e-30, 1e30, 1e200, 1e308])
def test_huge_and_tiny_row_weights_keep_their_ratios(size):
    weights = np.array([0.0, size, size])
    np.testing.assert_array_equal(check_row_weights(weights, 3) > 0.0, [False, True, True])
    assert 0.5 <= check_row_weights(weights, 3)[1] == check_row_weights(weights, 3)[2] < 1.0
    assert weights[1] == size


def test_tensors_are_arrays_without_a_gradient():
    given = torch.tensor([[0.0, 2.0]], requires_grad=True)
    assert as_numpy(given).tolist() == as_numpy(given.detach()).tolist() == [[0.0, 2.0]]
    assert as_numpy(given.bfloat16()).dtype == np.float32
    # The bit of a negative imaginary part is none of NumPy's.
    assert as_numpy(torch.tensor([1.0 + 2.0j]).conj().imag).tolist() == [-2.0]
    assert as_numpy(given.to_sparse()).toarray().tolist() == [[0.0, 2.0]]
    assert as_numpy(values := [1.0]) is values
    assert as_ids(given[0], "ids").tolist() == [0.0, 2.0]
    with pytest.raises(TypeError, match="y must hold real numbers; found dtype"):
        as_numpy(torch.ones(2, dtype=torch.complex64), "y")


@pytest.mark.parametrize("given", [0, 3, True, False, np.bool_(True), np.int64(2)], ids=str)
def test_verbosity(given):
    assert check_verbosity(given) == int(given)


@pytest.mark.parametrize(("given", "error"), [("x", TypeError), (1.5, TypeError), (None, TypeError), (-1, ValueError)])
def test_what_is_no_verbosity(given, error):
    with pytest.raises(error, match="verbose must be"):
        check_verbosity(given)


def test_labels_that_are_objects_of_several_kinds():
    refuse_unknown_objects(np.array(["a", np.str_("b")], dtype=object))
    refuse_unknown_objects(np.array([1, 2]))
    for y, dtype in ((np.array([1, 0], dtype=object), "str"), (np.array([[1, 0]], dtype=object), "int")):
        with pytest.raises(ValueError, match=rf"Convert them, as by y.astype\({dtype}\)"):
            refuse_unknown_objects(y)
    with pytest.raises(
        ValueError, match=r"Unknown label type: y must hold labels of one kind.* types int, str\. .*astype"
    ):
        refuse_unknown_objects(np.array([1, "a", 2], dtype=object))


@pytest.mark.parametrize("check", [check_targets, as_ids], ids=["targets", "ids"])
def test_an_index_of_several_levels(check):
    index = pd.MultiIndex.from_arrays([["a", "b"], ["c", "d"]])
    with pytest.raises(TypeError, match="y must be one label a sample; found a MultiIndex of 2 levels"):
        check(index, "y")
    check(pd.Index(["a", "b"]), "y")
