"""Corruption of labels: the function and the sampler."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris

from skbgmd.corruption import LabelCorruption, corrupt_labels

IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.mark.parametrize("kind", ["uniform", "pair", "backdoor"])
@given(
    codes=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    alphabet=st.sampled_from([np.arange(5), np.array(list("zyxwv")), np.array([0.0, 2.0, -3.0, 7.0, 1.0])]),
    fraction=st.sampled_from([0.0, 0.1, 0.29, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_exactly_the_drawn_labels_change(kind, codes, alphabet, fraction, seed):
    y = alphabet[codes]
    before = y.copy()
    target = y[0] if kind == "backdoor" else None
    y_corrupt, corrupted = corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=seed)
    eligible = len(y) if kind != "backdoor" else int((y != target).sum())
    assert corrupted.sum() == (int(np.floor(fraction * eligible + 1e-9)) if len(set(codes)) > 1 else 0)
    np.testing.assert_array_equal(y != y_corrupt, corrupted)
    np.testing.assert_array_equal(y, before)
    assert y_corrupt.dtype == y.dtype
    assert set(y_corrupt) <= set(y)
    if kind == "backdoor":
        assert (y_corrupt[corrupted] == target).all()
    again = corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=seed)
    np.testing.assert_array_equal(again[0], y_corrupt)


def test_uniform_draws_the_other_classes_at_even_odds():
    y_corrupt, corrupted = corrupt_labels(np.full(9000, 2), fraction=1.0, classes=range(4), random_state=0)
    assert corrupted.all()
    counts = np.bincount(y_corrupt, minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts[[0, 1, 3]], 3000, rtol=0.05)


def test_pair_goes_to_the_next_class_and_around():
    y = np.array(["coat", "bag", "shirt", "dress"])
    y_corrupt, _ = corrupt_labels(y, fraction=1.0, kind="pair")
    assert y_corrupt.tolist() == ["dress", "coat", "bag", "shirt"]


def test_backdoor_draws_from_the_other_classes_only():
    y = np.repeat([0, 1, 2], [70, 20, 10])
    y_corrupt, corrupted = corrupt_labels(y, fraction=0.4, kind="backdoor", target=0, random_state=0)
    assert corrupted[:70].sum() == 0
    assert corrupted.sum() == 12
    assert (y_corrupt[corrupted] == 0).all()
    everything, _ = corrupt_labels(y, fraction=1.0, kind="backdoor", target=0)
    assert not everything.any()


@pytest.mark.parametrize("kind", ["uniform", "pair", "backdoor"])
def test_a_single_class_stays(kind):
    target = "a" if kind == "backdoor" else None
    y_corrupt, corrupted = corrupt_labels(["a", "a"], fraction=1.0, kind=kind, target=target)
    assert y_corrupt.tolist() == ["a", "a"]
    assert not corrupted.any()


def test_classes_that_are_not_in_y():
    y_corrupt, corrupted = corrupt_labels(
        ["a", "b", "a"], fraction=1.0, kind="backdoor", classes=["a", "b", "longer"], target="longer"
    )
    assert y_corrupt.tolist() == ["longer"] * 3
    assert corrupted.all()
    with pytest.raises(ValueError, match=r"classes must hold every label of y; found .*'b'"):
        corrupt_labels(["a", "b"], fraction=0.5, classes=["a", "c"])


@pytest.mark.parametrize(
    "y", [pd.Series(["u", "v", "u", "v"], dtype="category"), pd.Series([True, False, True, False]), [1, 2, 1, 2]]
)
def test_kinds_of_labels(y):
    y_corrupt, corrupted = corrupt_labels(y, fraction=0.5, random_state=0)
    assert type(y_corrupt) is (np.ndarray if isinstance(y, list) else pd.Series)
    np.testing.assert_array_equal(np.asarray(y_corrupt) != np.asarray(y), corrupted)
    assert corrupted.sum() == 2


def test_more_labels_include_those_of_fewer():
    y = np.arange(100) % 5
    for kind, target in (("uniform", None), ("backdoor", 3)):
        masks = [
            corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=2)[1]
            for fraction in (0.1, 0.2, 0.6)
        ]
        assert (masks[0] <= masks[1]).all()
        assert (masks[1] <= masks[2]).all()


@pytest.mark.parametrize(
    ("y", "parameters", "kind", "message"),
    [
        ([0, 1], {"fraction": 1.5}, ValueError, r"fraction must be at least 0 and at most 1; found 1\.5"),
        ([0, 1], {"fraction": None}, TypeError, "fraction must be a number"),
        ([0, 1], {"fraction": 0.5, "kind": "all"}, ValueError, "kind must be one of 'uniform', 'pair', 'backdoor'"),
        ([0, 1], {"fraction": 0.5, "kind": "backdoor"}, ValueError, r"target must be one of the classes \[0, 1\]"),
        ([0, 1], {"fraction": 0.5, "kind": "backdoor", "target": [0, 7]}, ValueError, r"target must be .*\[0, 7\]"),
        ([0, 1], {"fraction": 0.5, "kind": "backdoor", "target": 2}, ValueError, "for kind='backdoor'; found 2"),
        ([0, 1], {"fraction": 0.5, "target": 1}, ValueError, "target must be None unless kind is 'backdoor'; found 1"),
        ([0.5, 1.5], {"fraction": 0.5}, ValueError, "Unknown label type: continuous"),
        (
            [0.0, np.nan],
            {"fraction": 0.5},
            ValueError,
            "y must have no missing values; found None, NA or NaN",
        ),
        ([0.0, np.inf], {"fraction": 0.5}, ValueError, "y contains infinity"),
        ([[0, 1], [1, 0]], {"fraction": 0.5}, ValueError, r"y must have shape \(n,\); found shape \(2, 2\)"),
    ],
)
def test_what_is_refused(y, parameters, kind, message):
    with pytest.raises(kind, match=message):
        corrupt_labels(y, **parameters)


# The sampler


def test_sampler_is_the_function():
    X, y = IRIS
    frame = pd.DataFrame(X)
    sampler = LabelCorruption(fraction=0.4, kind="backdoor", target=1, random_state=7)
    X_same, y_corrupt = sampler.fit_resample(frame, y)
    expected, corrupted = corrupt_labels(y, fraction=0.4, kind="backdoor", target=1, random_state=7)
    assert X_same is frame
    np.testing.assert_array_equal(y_corrupt, expected)
    np.testing.assert_array_equal(sampler.corrupted_, corrupted)
    assert corrupted.sum() == 40
    assert not sampler.fit(X, y).corrupted_.any()


def test_sampler_takes_any_features():
    X = np.array([["red", None], ["blue", np.nan], ["red", 3]], dtype=object)
    texts, ragged = ["red", "blue", "red"], [[1], [1, 2], [3]]
    for rows in (X, texts, pd.Series(texts), np.array(texts), [{"color": text} for text in texts], ragged):
        sampler = LabelCorruption(fraction=1.0, kind="pair")
        found, y = sampler.fit_resample(rows, [0, 1, 0])
        assert found is rows
        assert y.tolist() == [1, 0, 1]
        assert hasattr(sampler, "n_features_in_") == (rows is X or rows is ragged)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        LabelCorruption().fit_resample([1.0, 2.0, 3.0], [0, 1, 0])


def test_sampler_speaks_the_protocol_of_samplers():
    sampler = LabelCorruption()
    # A step that also transforms would be taken for a transformer.
    assert hasattr(sampler, "fit_resample")
    assert not hasattr(sampler, "transform")
    assert not hasattr(sampler, "fit_transform")
    with pytest.raises(ValueError, match="fraction must be at least 0"):
        LabelCorruption(fraction=-1).fit_resample(*IRIS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sampler.fit_resample(IRIS[0], IRIS[1][1:])


KINDS_OF_LABELS = {
    "integers": pd.Series([1, 2, 3] * 10, dtype="int8"),
    "nullable": pd.Series([1, 2, 3] * 10, dtype="Int64"),
    "booleans": pd.Series([True, False] * 15),
    "nullable booleans": pd.Series([True, False] * 15, dtype="boolean"),
    "objects": pd.Series(list("abc") * 10, dtype=object),
    "strings": pd.Series(list("abc") * 10, dtype="string"),
    "inferred": pd.Series(list("abc") * 10),
    "categories": pd.Series(list("abc") * 10, dtype=pd.CategoricalDtype(list("cabz"))),
    "ordered": pd.Series([3, 1, 7] * 10, dtype=pd.CategoricalDtype([7, 3, 1, 5], ordered=True)),
}


@pytest.mark.parametrize("kind", KINDS_OF_LABELS)
@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_series_stay_what_they_are(kind, fraction):
    y = KINDS_OF_LABELS[kind].copy()
    y.name, y.index = "label", pd.date_range("2024-01-01", periods=30)
    before = y.copy()
    settings = {"fraction": fraction, "random_state": 3}
    expected, mask = corrupt_labels(np.asarray(y.tolist()), **settings)
    for found, corrupted in (corrupt_labels(y, **settings), _resampled(y, settings)):
        assert isinstance(found, pd.Series)
        assert (found.dtype, found.name) == (y.dtype, "label")
        assert found.index.equals(y.index)
        assert found.tolist() == expected.tolist()
        np.testing.assert_array_equal(corrupted, mask)
    pd.testing.assert_series_equal(y, before)


def _resampled(y, settings):
    sampler = LabelCorruption(**settings)
    return sampler.fit_resample(np.zeros((len(y), 1)), y)[1], sampler.corrupted_


@pytest.mark.parametrize("make", [pd.Index, pd.Categorical, pd.CategoricalIndex, pd.array, pd.Series])
def test_other_columns_of_pandas(make):
    y = make(list("abc") * 4)
    found, corrupted = corrupt_labels(y, fraction=0.5, random_state=0)
    assert type(found) is type(y)
    assert found.dtype == y.dtype
    assert np.asarray(found != y).tolist() == corrupted.tolist()


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_a_frame_of_one_column():
    frame = pd.DataFrame({"label": list("ab") * 4}, index=range(10, 18))
    found, corrupted = corrupt_labels(frame, fraction=0.5, random_state=0)
    assert isinstance(found, pd.DataFrame)
    assert found.columns.tolist() == ["label"]
    assert found.index.equals(frame.index)
    assert (found["label"] != frame["label"]).tolist() == corrupted.tolist()


@pytest.mark.parametrize(
    ("y", "classes", "dtype"),
    [
        (pd.Series([1, 1], dtype="int8"), [1, 300], "int64"),
        (pd.Series([1, 1], dtype="Int64"), [1, 3], "Int64"),
        (pd.Series(["a", "a"], dtype="string"), ["a", "bc"], "string"),
        (pd.Series(["a", "a"], dtype="category"), ["a", "bc"], pd.CategoricalDtype(["a", "bc"])),
        (pd.Series(["a", "a"], dtype=pd.CategoricalDtype(["z", "bc", "a"])), ["a", "bc"], None),
    ],
)
def test_classes_that_no_sample_has(y, classes, dtype):
    found, _ = corrupt_labels(y, fraction=0.5, classes=classes, random_state=0)
    assert found.dtype == (y.dtype if dtype is None else dtype)
    assert sorted(found.tolist()) == sorted(classes)


def test_tensors_with_a_gradient_are_labels():
    X, y = IRIS
    of_grad = torch.tensor(X, requires_grad=True), torch.tensor(y, dtype=torch.float64, requires_grad=True)
    sampler, other = (LabelCorruption(fraction=0.2, random_state=0) for _ in range(2))
    unchanged, found = sampler.fit_resample(*of_grad)
    assert unchanged is of_grad[0]
    np.testing.assert_array_equal(found, other.fit_resample(X, y.astype(float))[1])
