"""Weights of samples by the lengths of their inputs."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.metrics import r2_score

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import GaussianNoise
from skbgmd.training._data.inputs import Items, SeveralInputs
from skbgmd.training._data.leverage import DEVIATION, _medians, _medians_of_groups, leverage_weights
from skbgmd.training._strength import choice

NUMBERS = st.floats(-100.0, 100.0, allow_subnormal=False).map(lambda value: round(value, 3))


def exact(X: Any, limit: float, weight: Any = None, strata: Any = None) -> Any:
    """The same by repeated samples, one number at a time."""
    counts = np.ones(len(X), dtype=int) if weight is None else weight.astype(int)

    def median(values: list[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2] if values else 0.0

    squares = np.zeros(len(X))
    for column in X.T:
        center = median([value for value, count in zip(column, counts, strict=True) for _ in range(count)])
        sizes = np.abs(column - center)
        unit = median([size for size, count in zip(sizes, counts, strict=True) for _ in range(count) if size > 0.0])
        squares += (sizes / unit) ** 2 if unit > 0.0 else 0.0
    lengths = np.sqrt(squares)

    def typical(members: Any) -> float:
        return median([lengths[i] for i in range(len(X)) for _ in range(counts[i]) if members[i] and lengths[i] > 0.0])

    every = np.ones(len(X), dtype=bool)
    own = [typical(every if strata is None else strata == strata[i]) for i in range(len(X))]
    typicals = np.maximum(np.maximum(own, typical(every)), DEVIATION)
    with np.errstate(divide="ignore"):
        return np.minimum(1.0, (limit * typicals / lengths) ** 2)


def as_weights(found: Any, n: int) -> Any:
    return np.ones(n) if found is None else found


@pytest.mark.parametrize("scale", [1.0, 0.1, 1.0 / 3.0, 1e-20, 1e20, 1e300])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_weights_of_any_scale_count_as_repeated_samples(scale: float, is_sparse: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        X, counts = rng.integers(0, 4, size=(12, 3)).astype(float), rng.integers(1, 6, size=12)
        strata, order = rng.integers(0, 3, size=12), rng.permutation(12)
        X[rng.integers(12)] *= 50.0
        given, repeated = (
            sparse.csr_array(each) if is_sparse else each for each in (X[order], X.repeat(counts, axis=0))
        )
        expected = leverage_weights(repeated, 1.5, strata=strata.repeat(counts))
        found = leverage_weights(given, 1.5, scale * counts[order], strata[order])
        np.testing.assert_array_equal(
            as_weights(found, 12), as_weights(expected, counts.sum())[np.cumsum(counts) - 1][order]
        )


@pytest.mark.parametrize("kind", ["features", "groups"])
def test_large_integer_weights_are_told_apart(kind: str) -> None:
    values, weight = np.array([1.0, 2.0]), np.array([2.0**40 - 1.0, 2.0**40 + 1.0])
    for size in (1.0, 1e-300, 1e290):
        if kind == "features":
            assert _medians(values[None], size * weight) == 2.0
        else:
            assert _medians_of_groups(values, size * weight, np.zeros(2, dtype=int))[1] == 2.0


@pytest.mark.parametrize("groups", [[0, 0, 1], [1, 1, 0]])
def test_groups_of_next_to_no_weight_have_a_median_of_their_own(groups: list[int]) -> None:
    known, medians = _medians_of_groups(np.array([3.0, 4.0, 5.0]), np.array([1e-30, 1e-30, 1.0]), np.array(groups))
    assert dict(zip(known.tolist(), medians.tolist(), strict=True)) == {groups[0]: 3.0, groups[2]: 5.0}


@given(data=st.data(), n=st.integers(1, 12), d=st.integers(1, 4), limit=st.sampled_from([1.0, 1.5, 3.0]))
def test_weights_are_those_of_the_formula(data: Any, n: int, d: int, limit: float) -> None:
    X = data.draw(arrays(np.float64, (n, d), elements=st.one_of(NUMBERS, st.sampled_from([0.0, 1.0]))))
    weight = data.draw(st.none() | arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0, 2.0])))
    if weight is not None and not weight.any():
        weight = None
    strata = data.draw(st.none() | arrays(np.int64, n, elements=st.integers(0, 2)))
    found = as_weights(leverage_weights(X, limit, weight, strata), n)
    np.testing.assert_allclose(found, exact(X, limit, weight, strata), rtol=1e-9)


@given(scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]), shift=st.sampled_from([0.0, -7.0]))
def test_units_and_places_of_features_do_not_matter(scale: float, shift: float) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    X[:5] *= 40.0
    other = X * np.array([1.0, scale, 1.0]) + np.array([0.0, 0.0, shift])
    np.testing.assert_allclose(leverage_weights(other, 3.0), leverage_weights(X, 3.0), rtol=1e-6)


@pytest.mark.parametrize("period", [3, 4, 5, 8, 10, 16, 20, 100])
@pytest.mark.parametrize("n", [1500, 2000, 2048, 5120, 10_000])
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("factor", [0.0, 1e-6])
def test_samples_in_turns_do_not_matter(period: int, n: int, turn: int, factor: float) -> None:
    """As rows of machines that take turns, of which one lacks a sensor, or has it in another unit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    X[turn::period, 0] *= factor
    wrong = np.flatnonzero((rng.random(n) < 0.05) & (np.arange(n) % period != turn))
    # Units of the one machine would hide what is wrong in others.
    X[wrong, :2] = 300.0
    X[wrong[::2], rng.integers(2)] = 0.0
    found = leverage_weights(X, 3.0)
    assert found is not None
    assert (found[wrong] < 0.01).all()
    assert (np.delete(found, wrong) == 1.0).mean() > 0.9
    order = rng.permutation(n)
    others = as_weights(leverage_weights(X[order], 3.0), n)
    assert (np.abs(found[order] - others) > 0.1).mean() < 0.03


@pytest.mark.usefixtures("forked")
def test_integers_have_lengths_unless_a_module_takes_them() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(-9, 9, size=(300, 3))
    X[:6] *= 1000
    y = (X[:, 0] > 0).astype(int)
    settings: dict[str, Any] = {"max_epochs": 2, "strength": "mild", "random_state": 0}

    def differ(given: Any, **others: Any) -> bool:
        with_lengths, without = (
            BlockGMDClassifier(**settings, **others, leverage=limit).fit(given, y).predict_proba(given)
            for limit in (3.0, None)
        )
        return not np.array_equal(with_lengths, without)

    assert differ(X)
    assert differ(X.astype(np.float32))
    tokens = torch.nn.Sequential(torch.nn.EmbeddingBag(20_000, 4), torch.nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="leverage must be"):
        assert not differ(X + 9500, module=tokens)


def test_rare_categories_are_not_long() -> None:
    levels = np.random.default_rng(0).choice(40, size=(2000, 3), p=np.r_[0.961, np.full(39, 0.001)])
    X = np.eye(40)[levels].reshape(2000, -1)
    assert leverage_weights(X, 3.0) is None
    scaled = (X - X.mean(axis=0)) / np.where(X.any(axis=0), X.std(axis=0), 1.0)
    assert np.linalg.norm(scaled, axis=1).max() > 10.0 * np.median(np.linalg.norm(scaled, axis=1))
    assert leverage_weights(scaled, 3.0) is None


def test_a_class_that_lies_far_off_is_not_long() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), np.repeat([0, 1], [270, 30])
    X[y == 1] += 50.0
    assert (leverage_weights(X, 3.0)[y == 1] < 0.1).all()
    assert leverage_weights(X, 3.0, strata=y) is None


def test_inputs_of_other_kinds() -> None:
    X = np.random.default_rng(0).normal(size=(60, 6))
    X[X < 0.3] = 0.0
    X[:4, 0] = 1e3
    expected = leverage_weights(X, 3.0)
    assert (expected[:4] < 0.01).all()
    for same in (
        sparse.csr_array(X),
        X.reshape(60, 2, 3),
        {"x": X, "ids": np.arange(60)},
        SeveralInputs([X[:, :2], X[:, 2:]]),
    ):
        np.testing.assert_allclose(leverage_weights(same, 3.0), expected, rtol=1e-12)
    np.testing.assert_allclose(leverage_weights(X.astype(np.float32), 3.0), expected, rtol=1e-4)
    items = Items(list(X), lambda source, place: source[place], np.arange(60))
    for unknown in (X.astype(int), {"x": items}, items, X[:, :0], np.ones((60, 2))):
        assert leverage_weights(unknown, 3.0) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs(dtype: Any) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(dtype)
    X[0], X[1] = np.finfo(dtype).max, np.nan
    found = leverage_weights(X, 3.0)
    assert 0.0 <= found[0] < 1e-12
    assert (found[1:] == 1.0).all()


@given(data=st.data(), n=st.integers(3, 12), d=st.integers(1, 5))
def test_sparse_matrices_are_as_dense_ones(data: Any, n: int, d: int) -> None:
    X = data.draw(arrays(np.float64, (n, d), elements=NUMBERS))
    empty = data.draw(arrays(np.bool_, (n, d)))
    # More than half of each feature is zero.
    X[empty] = 0.0
    for column in X.T:
        column[np.flatnonzero(column)[(n - 1) // 2 :]] = 0.0
    weight = data.draw(st.none() | st.just(np.full(n, 2.0)))
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        found = as_weights(leverage_weights(kind(X), 1.5, weight), n)
        np.testing.assert_allclose(found, as_weights(leverage_weights(X, 1.5, weight), n), rtol=1e-9)


def test_wide_sparse_matrices_are_never_dense() -> None:
    X = sparse.random_array((2000, 1_000_000), density=2e-6, rng=0, format="csr")
    tracemalloc.start()
    found = leverage_weights(X, 3.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is None or found.shape == (2000,)
    assert peak < 64 * 2**20


def test_weights_of_classes_say_nothing_of_lengths() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.9).astype(int)
    X = np.clip(rng.normal(size=(600, 2)), -2.3, 2.3) * np.where(y[:, None] == 1, 1.0, [1.0, 0.01])
    settings: dict[str, Any] = {"max_epochs": 1, "leverage": 3.0, "strength": "mild", "batch_size": 600}
    assert leverage_weights(X, 3.0, None, y) is None
    assert leverage_weights(X, 3.0, np.where(y == 0, 100.0, 1.0), y) is not None
    with_lengths, without = (
        BlockGMDClassifier(class_weight={0: 100.0, 1: 1.0}, random_state=0, **{**settings, "leverage": limit}).fit(X, y)
        for limit in (3.0, None)
    )
    for ours, theirs in zip(with_lengths.net_.module_.parameters(), without.net_.module_.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).standard_t(2, size=(100, 3))
    expected = leverage_weights(X, 2.0)
    monkeypatch.setattr("skbgmd._utils.limits.LENGTHS_AT_ONCE", 7)
    np.testing.assert_array_equal(leverage_weights(X, 2.0), expected)


def test_wrong_features_hardly_matter_to_numbers() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 8))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
    wrong = GaussianNoise(0.3, std=10.0, random_state=0).fit_transform(X[:900])
    settings: dict[str, Any] = {"strength": "mild", "random_state": 0}
    score = {
        name: r2_score(y[900:], BlockGMDRegressor(leverage=limit, **settings).fit(wrong, y[:900]).predict(X[900:]))
        for name, limit in (("with", "auto"), ("without", None))
    }
    assert score["with"] > score["without"] + 0.1


@pytest.fixture
def long() -> tuple[Any, Any]:
    """Samples of which a tenth is long and has random labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] > 0.0).astype(int)
    X[:60] *= 30.0
    X[:60] = X[rng.permutation(60)]
    return X, y


def parameters(data: tuple[Any, Any], weight: Any = None, **settings: Any) -> Any:
    given = {"max_epochs": 20, "hidden_layer_sizes": (20,), "random_state": 0, "strength": "mild", **settings}
    model = BlockGMDClassifier(**given).fit(*data, weight)
    return np.concatenate([p.detach().numpy().ravel() for p in model.net_.module_.parameters()])


def test_auto_is_a_limit_where_long_samples_are_wrong(long: Any) -> None:
    X, y = long
    weight = leverage_weights(X, 3.0, None, y)
    expected = parameters(long, weight, leverage=None)
    np.testing.assert_array_equal(parameters(long), expected)
    np.testing.assert_array_equal(parameters(long, leverage=3.0), expected)
    assert (parameters(long, leverage=2.0) != expected).any()
    assert (parameters(long, leverage=None) != expected).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": 8, "strength": "auto"},
        {"group_size": None, "strength": "auto"},
        {"aggregator": "mean", "strength": "auto"},
        {"max_epochs": 19},
    ],
    ids=str,
)
def test_auto_is_none_where_nothing_can_be_held_out(long: Any, settings: Any) -> None:
    np.testing.assert_array_equal(parameters(long, **settings), parameters(long, leverage=None, **settings))
    X, y = long
    small = X[:99], y[:99]
    np.testing.assert_array_equal(parameters(small), parameters(small, leverage=None))
    model = BlockGMDClassifier(random_state=0).partial_fit(X, y, classes=[0, 1])
    assert model.leverage_ is None


def test_long_samples_that_are_right_keep_their_weight() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_t(2, size=(600, 4))
    idle = np.arange(600) < 360
    rare = np.where(idle[:, None], 1e-3 * X, X)
    for some in (X, rare):
        assert leverage_weights(some, 3.0) is not None
        labels = (some[:, 0] + some[:, 1] > 0.0).astype(int)
        assert BlockGMDClassifier(max_epochs=60, random_state=0).fit(some, labels).leverage_ is None
    numbers = np.clip(X[:, 0], -3.0, 3.0) + X[:, 1]
    assert BlockGMDRegressor(max_epochs=60, random_state=0).fit(X, numbers).leverage_ is None


@pytest.mark.parametrize("kind", ["numbers", "columns", "classes", "labels", "words"])
def test_wrong_features_are_known_whatever_is_predicted(kind: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(600, 5))
    z = X[:, 0] + np.sin(2.0 * X[:, 1])
    y: Any = {
        "numbers": z,
        "columns": np.stack([z, X[:, 2]], axis=1),
        "classes": (z > 0.0).astype(int),
        "labels": (np.stack([z, X[:, 2]], axis=1) > 0.0).astype(int),
        "words": np.where(z > 0.0, "yes", "no"),
    }[kind]
    wrong = GaussianNoise(0.3, std=10.0, random_state=0).fit_transform(X)
    estimator = BlockGMDRegressor if kind in ("numbers", "columns") else BlockGMDClassifier
    settings: dict[str, Any] = {"max_epochs": 40, "strength": "mild", "random_state": 0}
    assert estimator(**settings).fit(wrong, y).leverage_ == 3.0
    assert estimator(**settings).fit(X, y).leverage_ in (3.0, None)


def test_a_call_that_goes_on_keeps_the_limit(long: Any) -> None:
    model = BlockGMDClassifier(max_epochs=20, warm_start=True, random_state=0).fit(*long)
    assert model.leverage_ == 3.0
    assert model.fit(*long).leverage_ == 3.0
    assert model.partial_fit(*long).leverage_ == 3.0


@pytest.mark.parametrize("limit", [0.5, "long", float("nan")])
def test_limits_are_checked(long: Any, limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="leverage must be"):
        BlockGMDClassifier(leverage=limit).fit(*long)


def test_one_long_sample_of_thousands_is_not_worth_a_training() -> None:
    X = np.clip(np.random.default_rng(0).normal(size=(2001, 3)), -2.0, 2.0)
    X[0] = 50.0
    y = (X[:, 0] > 0.0).astype(int)
    model = BlockGMDClassifier(max_epochs=20, strength="mild", random_state=0)
    assert model.fit(X, y).leverage_ is None
    y[:20], X[:20] = np.arange(20) % 2, 50.0
    assert model.fit(X, y).leverage_ == 3.0


def test_lengths_are_judged_once(long: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    are_predicted = choice.are_predicted
    monkeypatch.setattr(choice, "are_predicted", lambda *given: calls.append(given) or are_predicted(*given))
    model = BlockGMDClassifier(max_epochs=20, random_state=0).fit(*long)
    assert len(calls) == 1
    assert set(model.strength_scores_) == {"mild", "firm", "strict"}
