"""Huber's mean, with the scale of one step and with one that is remembered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aggregating import assert_convex, dense
from hypothesis import given, settings
from hypothesis import strategies as st

from grams import gram_sizes
from skbgmd import geometric_median
from skbgmd._utils import limits
from skbgmd.aggregators import (
    BlockGeometricMedian,
    BlockState,
    Bucketing,
    GeometricMedian,
    HuberMean,
    NearestNeighborMixing,
)
from skbgmd.aggregators.memory import Scale
from skbgmd.ghost import GhostRows
from skbgmd.ghost.factors import DenseFactor
from skbgmd.location.typical_distance import of_common_size
from skbgmd.rows import DenseRows


def test_huber_mean_satisfies_its_equation(rng):
    X = rng.normal(size=(15, 4))
    X[:4] += 8.0
    w = HuberMean(c=1.0, tol=1e-12, max_iter=1000).weights(dense(X))
    y = w @ X
    center = geometric_median(X, tol=1e-10)
    limit = np.sort(np.linalg.norm(X - center, axis=1))[7]
    d = np.linalg.norm(X - y, axis=1)
    expected = np.minimum(1.0, limit / d)
    np.testing.assert_allclose(w, expected / expected.sum(), atol=1e-4)


def test_huber_mean_lies_between_mean_and_geometric_median(rng):
    X = rng.normal(size=(15, 4))
    np.testing.assert_allclose(HuberMean(c=1e6)(dense(X))[0].vector, X.mean(axis=0), atol=1e-9)
    small = HuberMean(c=1e-6, max_iter=3000, tol=1e-12)(dense(X))[0].vector
    np.testing.assert_allclose(small, geometric_median(X), atol=1e-3)


def test_huber_mean_of_a_majority_of_equal_rows(rng):
    X = np.vstack([np.ones((6, 3)), rng.normal(size=(4, 3)) * 100])
    np.testing.assert_allclose(HuberMean()(dense(X))[0].vector, np.ones(3), atol=1e-9)


def test_huber_mean_survives_a_row_at_1e160(rng):
    X = rng.normal(size=(7, 12))
    X[2] *= 1e160
    assert HuberMean()(dense(X))[0].vector.norm() < 10


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        (HuberMean(c=-1.0), "c must be greater than 0"),
    ],
)
def test_parameters_are_checked(aggregator, message):
    with pytest.raises(ValueError, match=message):
        aggregator(DenseRows(torch.eye(3)))


def cloud(scale: float, seed: int = 0, d: int = 20) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(15, d))


def rule_of(huber: float | None = None, ties: str = "median", beta: float = 1.0) -> Any:
    location = GeometricMedian(10.0, ties) if huber is None else HuberMean(huber, rejection=10.0, remember=True)
    return location if beta == 1.0 else BlockGeometricMedian(beta, location)


def scale_of(state: Any) -> Scale:
    return state.location if isinstance(state, BlockState) else state


def test_the_first_step_is_hubers_mean() -> None:
    values = torch.as_tensor(cloud(1.0))
    values[0] *= 5.0
    found, state = HuberMean(1.0, remember=True, tol=1e-9)(DenseRows(values))
    expected = HuberMean(1.0, tol=1e-9)(DenseRows(values))[0]
    # The scale is that of a median of less accuracy.
    torch.testing.assert_close(found.vector, expected.vector, rtol=0.05, atol=0.02)
    assert state.value > 0.0


def test_the_scale_is_remembered_and_fades() -> None:
    aggregator = HuberMean(1.0, remember=True)
    first = None
    for seed in range(limits.SCALE_WINDOW):
        _, first = aggregator(DenseRows(torch.as_tensor(cloud(1.0, seed))), first)
    small = cloud(1e-3)
    small[0] += 0.05
    second = first
    for _ in range(limits.SCALE_WINDOW):
        aggregate, second = aggregator(DenseRows(torch.as_tensor(small)), second)
    assert 0.99 * limits.SCALE_DECAY**limits.SCALE_WINDOW < second.value / first.value < 1.01
    # Seen from this step alone the row is an outlier; seen from the steps before it is not.
    assert aggregate.weights is not None
    np.testing.assert_allclose(aggregate.weights, 1 / 15, rtol=1e-6)
    alone, _ = aggregator(DenseRows(torch.as_tensor(small)))
    assert alone.weights is not None
    assert alone.weights[0] < 0.2 / 15


def test_rejection_is_by_the_remembered_scale() -> None:
    aggregator = HuberMean(1.0, rejection=10.0, remember=True)
    values = cloud(1.0)
    values[:6] = 1e9 * np.random.default_rng(1).normal(size=(6, 20))
    aggregate, state = aggregator(DenseRows(torch.as_tensor(values)))
    assert aggregate.weights is not None
    assert np.all(aggregate.weights[:6] == 0.0)
    assert float(aggregate.vector.norm()) < 3.0
    assert state.value < 20.0


def test_the_nearer_half_is_kept_where_all_rows_are_farther_than_ever() -> None:
    aggregator = HuberMean(1.0, rejection=10.0, remember=True)
    state = None
    for seed in range(limits.SCALE_WINDOW):
        _, state = aggregator(DenseRows(torch.as_tensor(cloud(1e-6, seed))), state)
    aggregate, after = aggregator(DenseRows(torch.as_tensor(cloud(1.0))), state)
    assert aggregate.weights is not None
    assert 8 <= np.count_nonzero(aggregate.weights) < 15
    assert aggregate.weights.sum() == pytest.approx(1.0)
    assert after.value < 1e-5
    aggregate, _ = aggregator(DenseRows(torch.as_tensor(cloud(1e308 / 20))), state)
    assert aggregate.weights is not None
    assert aggregate.weights.sum() == pytest.approx(1.0)


def test_rows_that_coincide_are_no_scale_for_those_that_do_not() -> None:
    aggregator = HuberMean(1.0, rejection=10.0, remember=True)
    same = torch.ones(15, 20, dtype=torch.float64)
    aggregate, state = aggregator(DenseRows(same))
    torch.testing.assert_close(aggregate.vector, same[0])
    for values in (cloud(1.0), cloud(1.0)[:1]):
        aggregate, _ = aggregator(DenseRows(torch.as_tensor(values)), state)
        assert aggregate.weights is not None
        assert aggregate.weights.sum() == pytest.approx(1.0)


def test_huber_is_checked() -> None:
    with pytest.raises(ValueError, match="c must be"):
        BlockGeometricMedian(location=HuberMean(0.0))(DenseRows(torch.zeros(3, 2)))


def mostly_equal(n: int = 40, share: float = 0.6, size: float = 1.0, place: float = 1.0, d: int = 12) -> np.ndarray:
    """Rows of which a share is one and the same, with norm ``place``, and the others are of another size."""
    rng = np.random.default_rng(0)
    rows = size * rng.normal(size=(n, d)) / np.sqrt(d)
    same = rng.normal(size=d)
    rows[: int(share * n)] = place * same / np.linalg.norm(same)
    return rows


def as_ghosts(values: np.ndarray, dtype: torch.dtype) -> GhostRows:
    return GhostRows([(0, DenseFactor(torch.as_tensor(values, dtype=dtype)[:, :, None]))], *values.shape)


KINDS = {
    "matrix": lambda values: DenseRows(torch.as_tensor(values)),
    "float32": lambda values: DenseRows(torch.as_tensor(values).float()),
    "factors": lambda values: as_ghosts(values, torch.float64),
    "factors, float32": lambda values: as_ghosts(values, torch.float32),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("share", [0.25, 0.45, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("settings", [{"huber": 2.0}, {"huber": 1.0}, {"ties": "huber"}, {"huber": 2.0, "beta": 0.5}])
def test_tied_rows_leave_a_say_to_the_others(kind: str, share: float, size: float, settings: Any) -> None:
    values = mostly_equal(share=share, size=size)
    aggregate, state = rule_of(**settings)(KINDS[kind](values))
    others = aggregate.weights[int(share * 40) :]
    # As of rows that aren't tied: none is left out, and a typical one has a good part of its share.
    assert (others > 0.0).all()
    assert np.median(others) > 0.3 / 40
    assert np.isfinite(scale_of(state).value)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("place", [0.0, 1e-9, 1.0, 1e3])
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-7])
@pytest.mark.parametrize(
    "rule", [HuberMean(), NearestNeighborMixing(HuberMean()), Bucketing(HuberMean(), 2, 0)], ids=str
)
def test_hubers_mean_of_rows_that_coincide_but_for_rounding(kind: str, place: float, noise: float, rule: Any) -> None:
    values = mostly_equal(place=place)
    values[:24] += noise * np.random.default_rng(1).normal(size=(24, 12))
    aggregate, _ = rule(KINDS[kind](values))
    assert_convex(aggregate.weights)
    if not isinstance(rule, Bucketing):
        # It is the place of the majority.
        assert np.linalg.norm(aggregate.vector.numpy() - values[0]) < 2e-2 * (place or 1.0) + 10 * noise


@pytest.mark.parametrize("settings", [{"huber": 2.0}, {"ties": "huber"}, {"huber": 2.0, "beta": 0.5}])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.6])
def test_what_others_than_tied_rows_can_do_is_bounded_by_norms(settings: Any, share: float) -> None:
    values = mostly_equal(60, share=share)
    values[-24:] = 1e9 * np.random.default_rng(1).normal(size=(24, 12))
    aggregate, state = rule_of(**settings)(KINDS["matrix"](values))
    # Ten thousand median norms, times huber.
    assert aggregate.vector.norm() < 2e4
    assert scale_of(state).value <= limits.SAME_SIZE * np.median(np.linalg.norm(values, axis=1)) * 1.01


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6])
@pytest.mark.parametrize("corrupt", [0.2, 0.3])
def test_corrupt_rows_that_are_no_copies_do_not_set_the_scale(share: float, corrupt: float) -> None:
    """Of many rows that are tied, and others of which some are a hundred times as long: these are left out."""
    values = mostly_equal(100, share=share)
    drawn = np.random.default_rng(3).choice(100, int(100 * corrupt), replace=False)
    values[drawn] = 100.0 * np.random.default_rng(4).normal(size=(len(drawn), 12))
    state = None
    for _ in range(4):
        aggregate, state = HuberMean(2.0, rejection=10.0, remember=True)(KINDS["factors"](values), state)
        assert (aggregate.weights[drawn] == 0.0).all()
        assert state.value < 5.0


def test_samples_that_have_been_learned_raise_no_scale() -> None:
    rule = HuberMean(2.0, rejection=10.0, remember=True)
    state = None
    for seed in range(limits.SCALE_WINDOW):
        _, state = rule(DenseRows(torch.as_tensor(cloud(1.0, seed))), state)
    learned = 50.0 * cloud(1.0)
    learned[:9] = 0.0
    for _ in range(limits.SCALE_WINDOW):
        before = state.value
        _, state = rule(DenseRows(torch.as_tensor(learned)), state)
        assert state.value == pytest.approx(limits.SCALE_DECAY * before)


@pytest.mark.parametrize("kind", ["factors", "factors, float32"])
@pytest.mark.parametrize("right", [0.55, 0.6])
def test_samples_that_are_right_by_chance_set_no_scale(kind: str, right: float) -> None:
    """Most gradients are next to nothing, of all sizes, before any other was seen."""
    rng = np.random.default_rng(0)
    values = 1e3 * rng.normal(size=(100, 12))
    values[: int(100 * right)] *= 10.0 ** rng.uniform(-60.0, -10.0, size=(int(100 * right), 1))
    if "float32" in kind:
        values = values.astype(np.float32).astype(np.float64)
    state = None
    for _ in range(4):
        aggregate, state = HuberMean(2.0, rejection=10.0, remember=True)(KINDS[kind](values), state)
        assert state.value > 1e3
        np.testing.assert_allclose(aggregate.weights, 0.01, rtol=0.5)


@pytest.mark.parametrize("size", [1e6, 1e12, 1e30])
def test_rows_of_another_size_are_of_no_common_size(size: float) -> None:
    """Less than half of them, far off and of one size, while those of the others differ by a thousand."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 12)) * 10.0 ** rng.uniform(-1.5, 1.5, size=(100, 1))
    values[:40] *= size
    assert not of_common_size(np.linalg.norm(values, axis=1), np.ones(100))[:40].any()
    aggregate, _ = HuberMean(2.0, rejection=10.0, remember=True)(KINDS["factors"](values))
    assert aggregate.vector.norm() < 200.0


@pytest.mark.parametrize("size", [100.0, 1000.0])
@pytest.mark.parametrize("shares", [(0.3, 0.35), (0.4, 0.3), (0.5, 0.25)])
def test_copies_and_samples_that_are_right_by_chance_are_both_no_scale(
    size: float, shares: tuple[float, float]
) -> None:
    """Three groups: copies, wherever they are, next to nothing, and what is to be learned."""
    values = mostly_equal(100, share=shares[0], size=size)
    nothing = slice(int(100 * shares[0]), int(100 * sum(shares)))
    values[nothing] *= 10.0 ** np.random.default_rng(1).uniform(-30.0, -8.0, size=(nothing.stop - nothing.start, 1))
    aggregate, state = HuberMean(2.0, rejection=10.0, remember=True)(KINDS["factors"](values))
    assert state.value > 0.5 * size
    assert (aggregate.weights > 0.0).all()


@pytest.mark.parametrize("big", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_corrupt_rows_are_of_no_common_size_where_nearly_as_many_are_honest(big: float, place: float) -> None:
    values = mostly_equal(100, share=0.45, place=place)
    corrupt = np.random.default_rng(2).normal(size=12)
    values[70:] = big * corrupt / np.linalg.norm(corrupt)
    state = None
    for _ in range(4):
        aggregate, state = HuberMean(2.0, rejection=10.0, remember=True)(KINDS["factors"](values), state)
        assert state.value < 5.0
        assert aggregate.vector.norm() < 5.0


@st.composite
def trainings(draw):
    """Rows and weights of a dozen steps, as short gradients, long ones and ones without weight come."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16, 32, 64, 100])), draw(st.sampled_from([2, 5, 30]))
    place = draw(st.sampled_from([0.0, 0.3, 2.0, 30.0])) * rng.normal(size=d)
    spread, growth = draw(st.sampled_from([0.0, 0.5, 1.5])), draw(st.sampled_from([0.9, 0.99, 1.0, 1.02]))
    far = draw(st.sampled_from([0.0, 0.1, 0.3]))
    choices = draw(st.sampled_from([[1.0], [0.25, 0.5, 1.0], [0.0, 0.5, 1.0]]))
    steps = []
    for step in range(12):
        x = (rng.normal(size=(n, d)) + place) * np.exp(spread * rng.normal(size=(n, 1))) * growth**step
        x[rng.random(n) < far] *= 30.0
        weights = rng.choice(choices, size=n)
        weights[0] = 1.0
        steps.append((x, weights))
    return steps


@settings(max_examples=100)
@given(trainings())
def test_the_scale_is_the_same_for_every_kind_of_rows(steps) -> None:
    rule = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4)
    states: list[Scale | None] = [None, None, None]
    for step, (x, weights) in enumerate(steps):
        X = torch.from_numpy(x)
        kinds = (
            DenseRows(X, weights),
            GhostRows([(0, DenseFactor(X[:, :, None]))], *x.shape, weights),
            DenseRows(X.flip(0), weights[::-1].copy()),
        )
        for i, rows in enumerate(kinds):
            _, states[i] = rule(rows, states[i])
        expected, *others = [state.value for state in states if state is not None]
        # Later steps may know an upper bound instead of a distance.
        assert others == pytest.approx([expected, expected], rel=1e-6 if step < limits.SCALE_ENOUGH else 0.01)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_two_rows_that_are_equally_far_none_is_left_out(rng, size: float, dtype: torch.dtype) -> None:
    rule = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4)
    for _ in range(20):
        X = torch.from_numpy(size * rng.normal(size=(2, 30))).to(dtype)
        for rows in (DenseRows(X), GhostRows([(0, DenseFactor(X[:, :, None]))], 2, 30)):
            # Far in scales that are remembered.
            weights = rule(rows, Scale(0.01 * size, (0.01 * size,) * 5))[0].weights
            np.testing.assert_allclose(weights, 0.5, atol=1e-3)


def copies_of(points: Any, counts: tuple[int, ...], noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are copies of a few points, but for noise, and which point each is of."""
    rng = np.random.default_rng(1)
    point = np.repeat(np.arange(len(counts)), counts)
    rows = np.asarray(points)[point]
    return rows + noise * np.linalg.norm(rows, axis=1, keepdims=True) * rng.normal(size=rows.shape), point


A, B, C = np.random.default_rng(7).normal(size=(3, 30))
#: Points, and how many rows are copies of each.
FEW_POINTS = {
    "nearly halves": ((A, B), (21, 19)),
    "halves": ((A, B), (20, 20)),
    "a small part": ((A, B), (34, 6)),
    "opposed": ((A, -A), (26, 14)),
    "rest zero": ((A, 0.0 * A), (26, 14)),
    "most zero": ((0.0 * A, A), (26, 14)),
    "half as long": ((A, 0.5 * B), (26, 14)),
    "three": ((A, B, C), (14, 13, 13)),
    "three, one of most": ((A, B, C), (30, 5, 5)),
    "three rows": ((A, B), (2, 1)),
    "long": ((1e8 * A, 1e8 * B), (21, 19)),
    "one column": (([1.0], [-0.5]), (26, 14)),
}


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(FEW_POINTS))
def test_copies_of_a_few_points_all_count(name: str, kind: str, noise: float) -> None:
    points, counts = FEW_POINTS[name]
    values, point = copies_of(points, counts, noise)
    rule, state = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4), None
    for _ in range(6):
        aggregate, state = rule(KINDS[kind](values), state)
        shares = np.bincount(point, aggregate.weights)
        np.testing.assert_allclose(shares, np.array(counts) / sum(counts), atol=0.02)


@pytest.mark.parametrize("name", list(FEW_POINTS))
def test_weighted_copies_of_a_few_points_all_count(name: str) -> None:
    points, counts = FEW_POINTS[name]
    values, point = copies_of(points, tuple(2 * count for count in counts))
    weights = np.random.default_rng(2).choice([0.5, 1.0, 2.0], size=len(values))
    expected = np.bincount(point, weights) / weights.sum()
    for rows in (
        DenseRows(torch.from_numpy(values), weights),
        GhostRows([(0, DenseFactor(torch.from_numpy(values)[:, :, None]))], *values.shape, weights),
    ):
        found = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4)(rows)[0].weights
        np.testing.assert_allclose(np.bincount(point, found), expected, atol=0.02)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("counts", [(21, 19), (26, 14), (34, 6)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_long_copies_do_not_pull_without_a_limit(kind: str, counts: tuple[int, int], size: float) -> None:
    values, _ = copies_of((A, size * B), counts, 1e-6)
    rule, state = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4), None
    for _ in range(limits.SCALE_ENOUGH):
        aggregate, state = rule(KINDS[kind](values), state)
        assert np.linalg.norm(aggregate.vector.numpy()) <= 3.0 * np.linalg.norm(A)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rare_class_that_is_learnt_last_is_not_left_out(kind: str) -> None:
    """Its rows stay as long as all were in the first steps, and the others' shrink to next to nothing."""
    rng = np.random.default_rng(0)
    rule, state = HuberMean(16.0, rejection=10.0, remember=True), None
    for step in range(40):
        values = rng.normal(size=(40, 60))
        values[2:] *= 0.7**step
        aggregate, state = rule(KINDS[kind](torch.as_tensor(values)), state)
        assert aggregate.weights[:2].min() > 0.0
    # What is far beside the first steps' is left out, however short most are.
    values[2] = 100.0
    aggregate, state = rule(KINDS[kind](torch.as_tensor(values)), state)
    assert aggregate.weights[2] == 0.0
    assert aggregate.weights[:2].min() > 0.0


def test_remember_is_a_flag():
    with pytest.raises(TypeError, match="remember must be True or False; found 'x'"):
        HuberMean(remember="x").check_parameters()


def ghost(x):
    return GhostRows([(0, DenseFactor(x[:, :, None]))], *x.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("kind", ["ghost", "dense"])
def test_steps_of_many_rows_are_those_of_the_gram_matrix(kind, share, dtype, rng, monkeypatch):
    """From the first step on, whether far rows are in it or not; its scale is that of some of the rows."""
    n, rule = 1500, HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4)
    state = other = None
    for step in range(8):
        x = rng.normal(size=(n, 30)) * 0.97**step + 0.1
        x[rng.permutation(n)[: int(share * n)]] *= 30.0
        x = torch.from_numpy(x).to(dtype)
        rows = ghost(x) if kind == "ghost" else DenseRows(x)
        with monkeypatch.context() as patch:
            sizes = gram_sizes(patch, type(rows))
            found, state = rule(rows, state)
        assert max(sizes, default=0) <= limits.GRAM_ROWS
        with monkeypatch.context() as patch:
            patch.setattr(limits, "GRAM_ROWS", n)
            expected, other = rule(ghost(x), other)
        assert state.value == pytest.approx(other.value, rel=0.1)
        # Of the standard error of the mean.
        assert torch.linalg.norm(found.vector - expected.vector) < 0.1 * (30 / n) ** 0.5


@pytest.mark.parametrize("kind", ["zero", "equal", "few points", "mostly zero"])
def test_many_rows_that_are_tied(kind, rng):
    n = 1200
    x = rng.normal(size=(n, 5))
    x = {
        "zero": np.zeros((n, 5)),
        "equal": np.tile(x[0], (n, 1)),
        "few points": x[rng.integers(0, 4, n)],
        "mostly zero": np.where(np.arange(n)[:, None] % 10 == 3, x, 0.0),
    }[kind]
    rule, state, other = HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4), None, None
    for _ in range(4):
        found, state = rule(ghost(torch.from_numpy(x)), state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "GRAM_ROWS", n)
            expected, other = rule(ghost(torch.from_numpy(x)), other)
        np.testing.assert_allclose(found.vector.numpy(), expected.vector.numpy(), rtol=0.05, atol=0.02)
        assert state.value == pytest.approx(other.value, rel=0.1, abs=1e-6)


def test_many_rows_with_values_out_of_range_take_the_matrix(rng):
    x = torch.from_numpy(rng.normal(size=(600, 4)))
    for far in (1e30, 1e200):
        x[7] = far
        found, _ = HuberMean(2.0, rejection=10.0, remember=True)(ghost(x))
        assert found.weights[7] == 0.0
        assert torch.linalg.norm(found.vector) < 0.5


RULES = {
    "median": GeometricMedian(tol=1e-4),
    "median, rejection": GeometricMedian(rejection=5.0, tol=1e-4),
    "median of learnt samples": GeometricMedian(rejection=10.0, ties="huber", tol=1e-4),
    "Huber": HuberMean(1.5),
    "Huber, rejection": HuberMean(1.5, rejection=5.0),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45])
@pytest.mark.parametrize("kind", ["ghost", "dense"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rules_of_many_rows_need_no_matrix(rule, share, kind, weighted, rng, monkeypatch):
    x = rng.normal(size=(900, 20)) + 0.2
    x[: int(share * 900)] = 20.0 * (x[: int(share * 900)] + 1.0)
    rows = ghost(torch.from_numpy(x)) if kind == "ghost" else DenseRows(torch.from_numpy(x))
    if weighted:
        rows.weights = rng.choice([0.5, 1.0, 2.0], size=900)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "GRAM_ROWS", 900)
        expected, _ = rule(DenseRows(torch.from_numpy(x), rows.weights))
    sizes = gram_sizes(monkeypatch, type(rows))
    found, _ = rule(rows)
    assert max(sizes, default=0) <= limits.GRAM_ROWS
    # Both are as near to the median as the tolerance asks for.
    assert torch.linalg.norm(found.vector - expected.vector) < 0.05 * torch.linalg.norm(expected.vector)
    np.testing.assert_allclose(found.weights, expected.weights, atol=2e-4)
