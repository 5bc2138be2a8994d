"""Samples between an estimator and its net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch import NeuralNet
from skorch.dataset import Dataset

from skbgmd._utils import limits
from skbgmd.training._data.inputs import SeveralInputs, as_inputs
from skbgmd.training._data.samples import (
    _ranks,
    check_ids,
    check_weights,
    drop_and_merge,
    moderate,
    predicted_at_once,
    weights_of_score,
)


def test_samples_without_weight_are_left_out(rng):
    X, y = rng.normal(size=(6, 2)), np.arange(6)
    weight, clients = np.array([1.0, 0.0, 2.0, 0.0, 3.0, 1.0]), np.array(list("aabbcc"))
    samples = drop_and_merge(X, y, weight, clients, merge=False)
    np.testing.assert_array_equal(samples.X, X[[0, 2, 4, 5]])
    assert samples.y.tolist() == [0, 2, 4, 5]
    assert samples.weight.tolist() == [1.0, 2.0, 3.0, 1.0]
    assert samples.clients.tolist() == ["a", "b", "c", "c"]
    spread = samples.spread(np.array([10.0, 20.0, 30.0, 40.0]))
    np.testing.assert_array_equal(spread, [10.0, np.nan, 20.0, np.nan, 30.0, 40.0])
    dataset = samples.dataset_of(NeuralNet(torch.nn.Identity, torch.nn.MSELoss))
    assert type(dataset) is Dataset
    assert dataset.sample_weight is samples.weight
    assert dataset.clients is samples.clients


def test_merging_makes_weights_of_repetitions(rng):
    X, y = rng.normal(size=(7, 2, 2)), np.array([0, 1, 0, 1, 0, 1, 1])
    times = np.array([1, 3, 0, 2, 1, 1, 4])
    order = rng.permutation(7)
    repeated = drop_and_merge(np.repeat(X, times, axis=0), np.repeat(y, times), None, None, merge=True)
    weighted = drop_and_merge(X[order], y[order], times[order].astype(float), None, merge=True)
    for name in ("X", "y", "weight"):
        np.testing.assert_array_equal(getattr(repeated, name), getattr(weighted, name))
    values = rng.normal(size=len(weighted.X))
    by_sample = weighted.spread(values)
    for place, sample in enumerate(order):
        if times[sample]:
            np.testing.assert_array_equal(weighted.X[np.flatnonzero(values == by_sample[place])[0]], X[sample])


def test_what_differs_is_not_merged():
    X = np.ones((4, 1))
    assert len(drop_and_merge(X, np.array([0, 1, 0, 1]), None, None, merge=True).X) == 2
    assert len(drop_and_merge(X, np.array([0, 1, 0, 1]), None, np.array([1, 1, 2, 2]), merge=True).X) == 4
    assert drop_and_merge(X, np.array([0, 1, 0, 1]), None, None, merge=True).weight is None  # all of them equal
    named = drop_and_merge(X, np.array([0, 1, 0, 1]), np.array([1.0, 0.0, 1.0, 1.0]), None, np.arange(4), merge=True)
    assert named.ids.tolist() == [0, 2, 3]
    assert drop_and_merge(X, np.array([0, 1, 1, 1]), None, None, merge=True).weight.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        ([1.0, -1.0], "must not be negative; found -1"),
        ([0.0, 0.0], "must have a positive entry"),
        ([1.0, np.nan], "NaN"),
        ([1.0], r"must have shape \(2,\); found shape \(1,\)"),
        ([[1.0], [2.0]], r"must have shape \(2,\); found shape \(2, 1\)"),
    ],
)
def test_bad_weights(weight, match):
    with pytest.raises(ValueError, match=match):
        check_weights(weight, np.zeros((2, 1)))


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 2.0}])
def test_weights_of_classes_are_no_weights_of_samples(weight):
    with pytest.raises(TypeError, match=r"sample_weight must be numbers, .* compute_sample_weight\('balanced', y\)"):
        check_weights(weight, np.zeros((2, 1)))


def test_weights_and_clients():
    X = np.zeros((3, 1))
    assert check_weights(None, X) is None
    assert check_ids(None, "groups", X) is None
    assert check_weights(2.0, X).tolist() == [2.0, 2.0, 2.0]
    assert check_weights([1, 2, 3], X).dtype == np.float64
    with pytest.raises(ValueError, match="groups must have shape"):
        check_ids(["a", "b"], "groups", X)


def test_few_samples_are_predicted_at_once_where_any_input_is_sparse_and_wide():
    width = limits.DENSE_ELEMENTS // 8
    wide, narrow = sparse.csr_array((40, width)), np.ones((40, 2))
    sequences = [np.ones(1 + place % 3) for place in range(40)]
    for given in (
        wide,
        {"text": wide, "numbers": narrow},
        {"deep": {"text": wide}, "numbers": narrow},
        SeveralInputs([narrow, wide]),
        {"text": wide, "words": sequences},
    ):
        assert predicted_at_once(as_inputs(given, 40, collates=True)) == 8
    assert predicted_at_once({"title": wide, "text": wide}) == 4
    assert predicted_at_once(sparse.csr_array((40, 100 * limits.DENSE_ELEMENTS))) == 1
    for given in (narrow, {"numbers": narrow}, {"text": wide[:, :5]}, as_inputs(sequences, 40, collates=True)):
        assert predicted_at_once(given) == limits.PREDICTED_SAMPLES


@pytest.mark.parametrize("large", [1e307, 1e308, 1.7e308, np.longdouble(1e308)])
def test_weights_whose_sum_would_overflow_are_those_by_a_power_of_two(large):
    given = np.full(200, large) * np.linspace(0.5, 1.0, 200)
    found = check_weights(given, given)
    assert np.isfinite(found.sum())
    np.testing.assert_array_equal(found / found[-1], given.astype(np.float64) / float(given[-1]))


def test_weights_times_a_factor():
    weight, factor = np.array([0.0, 1.0, 3.0]), np.array([2.0, 0.5, 1.0])
    np.testing.assert_array_equal(moderate(weight, factor), weight * factor)
    np.testing.assert_array_equal(moderate(weight), weight)
    large = moderate(1e300 * weight, 1e300 * factor)
    np.testing.assert_allclose(large / large[2], weight * factor / 3.0)
    assert moderate(np.empty(0)).shape == (0,)


@pytest.mark.parametrize(
    "given", [None, [1, 2], np.array([1.0, np.nan]), np.array([-1.0, 2.0]), np.array(2.0)], ids=str
)
def test_other_weights_of_a_score_are_for_scikit_learn_to_check(given):
    assert weights_of_score(given) is given


def test_weights_of_a_score():
    found = weights_of_score(np.full(3, 1e308))
    assert np.isfinite(found.sum())
    assert (found == found[0]).all()


@pytest.mark.parametrize("width", [1, 5, 70, 300])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_ranks_are_those_of_a_sort_by_all_columns(kind, width):
    rng = np.random.default_rng(width)
    X = np.zeros((40, width))
    X[:, rng.choice(width, min(width, 3), replace=False)] = rng.integers(-1, 2, size=(40, min(width, 3)))
    y, clients = rng.integers(2, size=40), rng.integers(2, size=40)
    expected = np.unique(np.column_stack([X, y, clients]), axis=0, return_inverse=True)[1].reshape(-1)
    np.testing.assert_array_equal(_ranks([kind(X), y, clients]), expected)
    different = rng.normal(size=(40, width))
    expected = np.unique(different, axis=0, return_inverse=True)[1].reshape(-1)
    np.testing.assert_array_equal(_ranks([kind(different), y]), expected)


def test_wide_samples_are_not_sorted_by_all_columns(monkeypatch):
    seen = []
    sort = np.unique
    monkeypatch.setattr(np, "unique", lambda values, **given: seen.append(np.shape(values)) or sort(values, **given))
    _ranks([np.random.default_rng(0).normal(size=(50, 10_000)), np.zeros(50)])
    assert max(shape[1] for shape in seen) <= limits.FIRST_SORTED_COLUMNS + 1
