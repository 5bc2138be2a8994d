"""Majority vote over redundant rows: exact as long as most of each group are honest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from conftest import ZOO, extremes
from skbgmd.aggregators import (
    CoordinatewiseMedian,
    GeometricMedian,
    HuberMean,
    MajorityVote,
    Mean,
    NonFiniteRowsError,
    WorkerMomentum,
)
from skbgmd.corruption import GRADIENT_CORRUPTIONS, AttackContext
from skbgmd.distributed import RobustHook
from skbgmd.rows import DenseRows


def attacked(G: torch.Tensor, attack: str, r: int, seed: int) -> torch.Tensor:
    """Rows r times each, of which an attack replaces at most (r - 1) / 2 of each group."""
    honest = G.repeat_interleave(r, dim=0)
    corruption = GRADIENT_CORRUPTIONS[attack](fraction=0.49)
    sent = honest.clone()
    context = AttackContext(aggregate=lambda rows: rows.mean(dim=0), step=1000)  # none sleeps as long
    corrupt = corruption.apply_(sent, np.random.RandomState(seed), context)
    for group in range(len(G)):
        for row in corrupt[corrupt // r == group][(r - 1) // 2 :].tolist():
            sent[row] = honest[row]
    return sent


@pytest.mark.parametrize("attack", [name for name, kind in GRADIENT_CORRUPTIONS.items() if not kind.acts_on_targets])
@pytest.mark.parametrize("r", [3, 5])
@pytest.mark.parametrize("inner", [None, GeometricMedian(), CoordinatewiseMedian(), HuberMean(remember=True)])
def test_recovery_is_exact_under_every_attack(attack, r, inner):
    """The authors' claim: the aggregate has the bits that it has without corrupt rows."""
    generator = torch.Generator().manual_seed(0)
    rule, n_corrupted, state, clean_state = MajorityVote(r, inner), 0, None, None
    for step in range(5):
        G = torch.randn(8, 70, generator=generator)
        sent = attacked(G, attack, r, step)
        n_corrupted += int((~(sent == G.repeat_interleave(r, dim=0)).all(dim=1)).sum())
        aggregate, state = rule(DenseRows(sent), state)
        clean, clean_state = rule(DenseRows(G.repeat_interleave(r, dim=0)), clean_state)
        expected, _ = (inner or Mean())(DenseRows(G))
        assert torch.equal(aggregate.vector, clean.vector)
        if not isinstance(inner, HuberMean):
            torch.testing.assert_close(aggregate.vector, expected.vector, rtol=1e-5, atol=1e-6)
        assert aggregate.record["groups_without_majority"] == 0
        if aggregate.weights is not None:
            wrong = ~(sent == G.repeat_interleave(r, dim=0)).all(dim=1).numpy()
            assert aggregate.weights[wrong].sum() == 0.0
            np.testing.assert_allclose(
                aggregate.weights.reshape(8, r).sum(axis=1), clean.weights.reshape(8, r).sum(axis=1)
            )
    # An attack may leave a row as it is.
    assert n_corrupted > 0


@pytest.mark.parametrize("name", list(ZOO))
@pytest.mark.parametrize("rtol", [0.0, 1e-6])
def test_repeated_rows_of_every_hard_matrix(name, rtol):
    X = ZOO[name]
    found, _ = MajorityVote(3, Mean(), rtol)(dense(np.repeat(X, 3, axis=0)))
    np.testing.assert_allclose(found.vector, Mean()(dense(X))[0].vector, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_repeated_rows_of_every_extreme_matrix(dtype):
    for X in extremes(dtype).values():
        found, _ = MajorityVote(3)(DenseRows(X.repeat_interleave(3, dim=0)))
        assert torch.isfinite(found.vector).all()


@pytest.mark.parametrize("places", [(0, 1), (0, 4), (3, 4), (1, 3)])
def test_any_places_in_a_group(places, rng):
    X = np.repeat(rng.normal(size=(2, 6)), 5, axis=0)
    expected = MajorityVote(5)(dense(X))[0].vector
    for group in (0, 1):
        for liar, place in enumerate(places):
            X[5 * group + place] = 100.0 + liar
    aggregate, _ = MajorityVote(5)(dense(X))
    assert torch.equal(aggregate.vector, expected)
    honest = np.setdiff1d(np.arange(5), places)
    np.testing.assert_allclose(aggregate.weights.reshape(2, 5)[:, honest], 1 / 6)


def test_liars_in_agreement_are_a_minority(rng):
    X = np.repeat(rng.normal(size=(1, 6)), 5, axis=0)
    expected = MajorityVote(5)(dense(X))[0].vector
    X[[0, 1]] = 7.0
    assert torch.equal(MajorityVote(5)(dense(X))[0].vector, expected)


@pytest.mark.parametrize("r", [2, 4])
def test_half_of_a_group_is_no_majority(r):
    X = np.ones((3 * r, 2))
    X[: r // 2] = 5.0
    aggregate, _ = MajorityVote(r)(dense(X))
    np.testing.assert_allclose(aggregate.vector, 1.0)
    assert aggregate.record == {"groups_without_majority": 1}
    np.testing.assert_array_equal(aggregate.weights[:r], 0.0)
    assert aggregate.weights.sum() == pytest.approx(1.0)


def test_too_many_groups_without_majority_is_an_error(rng):
    X = np.vstack([np.ones((3, 4)), rng.normal(size=(3, 4))])
    with pytest.raises(ValueError, match=r"More than half of the groups of r=3 .* found 1 of 2 without"):
        MajorityVote(3)(dense(X))


def test_rows_that_are_not_finite_have_no_vote():
    X = np.repeat([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], 3, axis=0)
    X[:2] = np.inf  # they are equal, and a majority
    X[4] = np.nan
    aggregate, _ = MajorityVote(3)(dense(X))
    np.testing.assert_array_equal(aggregate.vector, [4.0, 5.0])
    assert aggregate.record == {"groups_without_majority": 1}
    with pytest.raises(NonFiniteRowsError):
        MajorityVote(3)(dense(np.full((3, 2), np.nan)))


def test_rows_of_weight_zero_have_no_vote():
    X = np.repeat([[1.0], [3.0], [5.0]], 3, axis=0)
    X[:2] = 9.0
    weights = np.ones(9)
    weights[0] = 0.0
    aggregate, _ = MajorityVote(3)(dense(X, weights))
    assert aggregate.record == {"groups_without_majority": 1}
    np.testing.assert_array_equal(aggregate.vector, [4.0])


def test_rounding_is_allowed_by_rtol(rng):
    X = np.repeat(rng.normal(size=(4, 50)), 3, axis=0)
    rounded = X * (1.0 + 1e-7 * rng.normal(size=X.shape))
    rounded[::3] = -X[::3]
    with pytest.raises(ValueError, match="More than half of the groups"):
        MajorityVote(3)(dense(rounded))
    aggregate, _ = MajorityVote(3, rtol=1e-5)(dense(rounded))
    np.testing.assert_allclose(aggregate.vector, X.reshape(4, 3, 50)[:, 0].mean(axis=0), rtol=1e-4, atol=1e-6)
    assert aggregate.weights[::3].sum() == 0.0
    for scale in (1e-30, 1e30):
        np.testing.assert_array_equal(MajorityVote(3, rtol=1e-5)(dense(scale * rounded))[0].weights, aggregate.weights)


def test_the_inner_rule_withstands_groups_that_are_lost(rng):
    G = rng.normal(size=(9, 20)) * 0.1 + 1.0
    X = np.repeat(G, 3, axis=0)
    X[:6] = -100.0  # two groups of liars that agree
    aggregate, _ = MajorityVote(3, GeometricMedian())(dense(X))
    assert np.linalg.norm(aggregate.vector - 1.0) < 1.0


def test_votes_of_one_are_the_inner_rule(rng):
    X = rng.normal(size=(7, 5))
    found, expected = MajorityVote(1, GeometricMedian())(dense(X))[0], GeometricMedian()(dense(X))[0]
    np.testing.assert_allclose(found.vector, expected.vector)
    np.testing.assert_allclose(found.weights, expected.weights)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"r": 0}, ValueError, "r must be at least 1; found 0"),
        ({"r": 2.0}, TypeError, "r must be an integer; found 2.0"),
        ({"aggregator": "mean"}, TypeError, "aggregator must be an Aggregator or None; found 'mean'"),
        ({"rtol": -1.0}, ValueError, "rtol must be at least 0"),
        ({"rtol": 2.0}, ValueError, "rtol must be at least 0 and at most 1"),
    ],
)
def test_majority_vote_parameters(params, kind, message):
    with pytest.raises(kind, match=message):
        MajorityVote(**params)(DenseRows(torch.ones(6, 2)))
    with pytest.raises(kind, match=message):
        RobustHook(MajorityVote(**params))


def test_rows_must_come_in_whole_groups():
    with pytest.raises(ValueError, match="rows must come in whole groups of r=3; found 7 of them"):
        MajorityVote(3)(DenseRows(torch.ones(7, 2)))
    with pytest.raises(ValueError, match="tol must be"):
        RobustHook(MajorityVote(3, GeometricMedian(tol=-1.0)))


def test_a_rule_behind_the_vote_knows_groups_whichever_of_their_rows_win(rng):
    G = torch.from_numpy(rng.normal(size=(4, 3)))
    rule, state = MajorityVote(3, WorkerMomentum(Mean())), None
    for liar in (0, 1, 2):
        sent = G.repeat_interleave(3, dim=0)
        sent[liar] = 100.0
        # A group without a majority is away, and the next ones stay who they are.
        sent[3:6] += torch.arange(3.0)[:, None] * liar
        _, state = rule(DenseRows(sent), state)
    assert state.ids == (0, 6, 9)
    torch.testing.assert_close(state.momentum, G[[0, 2, 3]])


def test_groups_without_weight_are_not_counted(rng):
    G = torch.from_numpy(rng.normal(size=(5, 3)))
    weights = np.repeat([0.0, 1.0, 0.0, 1.0, 0.0], 3)
    aggregate, _ = MajorityVote(3)(DenseRows(G.repeat_interleave(3, dim=0), weights))
    torch.testing.assert_close(aggregate.vector, G[[1, 3]].mean(dim=0))
    assert aggregate.record["groups_without_majority"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [5e-324, 1e-200, 1e-40, 1.0, 1e38, 1e200, 1.7e308])
def test_rows_of_every_size_are_compared_by_rtol(size, dtype):
    info = torch.finfo(dtype)
    smallest, largest = info.tiny * info.eps, info.max
    for near in (1.0, 1.0 - 1e-6):
        X = (torch.tensor([[0.1], [near], [1.0]], dtype=torch.float64) * size).clamp(max=largest).to(dtype)
        if not X[1:].any() or bool(X[0] == X[2]) or float(X[2]) < 100.0 * smallest:
            continue
        aggregate, _ = MajorityVote(3, rtol=1e-5)(DenseRows(X))
        assert torch.equal(aggregate.vector, X[1])
        np.testing.assert_array_equal(aggregate.weights, [0.0, 0.5, 0.5])
