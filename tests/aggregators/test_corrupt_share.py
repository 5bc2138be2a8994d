"""Estimates of the share of corrupt rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from conftest import ZOO, extremes
from skbgmd.aggregators import estimate_corrupt_share
from skbgmd.aggregators.corrupt_share import far_rows, opposed_rows, tied_groups
from skbgmd.corruption import GRADIENT_CORRUPTIONS
from skbgmd.rows import DenseRows
from skbgmd.rows.gram import Gram

#: Attacks that show, each by the kind of rows that it makes.
KINDS = {
    "bit_flip": "far",
    "additive_noise": "far",
    "constant_rows": "far",
    "sign_flip": "opposed",
    "a_little_is_enough": "tied",
    "inner_product": "tied",
    "min_max": "tied",
}


def honest(rng, n=30, d=2000, mean=0.2):
    return mean + rng.normal(size=(n, d))


def attacked(X, attack, fraction):
    G = torch.from_numpy(X.copy())
    corrupt = GRADIENT_CORRUPTIONS[attack](fraction, random_state=0).apply_(G)
    return G.numpy(), len(corrupt) / len(X)


def distances_of(X):
    return np.sqrt(Gram(X @ X.T, np.ones(len(X), dtype=bool)).squared_distances())


@pytest.mark.parametrize("attack", list(KINDS))
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.45])
def test_an_attack_that_shows_is_counted(attack, fraction, rng):
    X, truth = attacked(honest(rng), attack, fraction)
    share = estimate_corrupt_share(dense(X))
    assert share.estimate == pytest.approx(truth)
    assert getattr(share, KINDS[attack]) == pytest.approx(truth)
    assert share.low <= truth + 1e-9
    assert truth <= share.high + 1e-9


def test_one_more_row_for_copies_of_an_honest_one(rng):
    X, truth = attacked(honest(rng), "mimic", 0.3)
    share = estimate_corrupt_share(dense(X))
    assert share.estimate == pytest.approx(truth + 1 / 30)
    assert share.low == pytest.approx(truth)


@pytest.mark.parametrize("attack", list(KINDS))
def test_more_corrupt_rows_give_a_larger_estimate(attack, rng):
    X = honest(rng)
    found = [estimate_corrupt_share(dense(attacked(X, attack, k / 30)[0])).estimate for k in range(2, 15)]
    assert all(np.diff(found) > 0.0)


@pytest.mark.parametrize("mean", [0.0, 0.2, 3.0, 1e6])
@pytest.mark.parametrize("n", [4, 6, 10, 30])
def test_nothing_shows_in_clean_rows(mean, n, rng):
    found = [estimate_corrupt_share(dense(honest(rng, n, 500, mean))).estimate for _ in range(20)]
    assert np.mean(found) < 0.01


def test_rows_without_a_common_direction_can_hide_anything(rng):
    share = estimate_corrupt_share(dense(honest(rng, mean=0.0)))
    assert share.estimate == share.low == 0.0
    assert share.high == pytest.approx(14 / 30)
    assert np.isnan(share.opposed)


@pytest.mark.parametrize("attack", list(KINDS))
@pytest.mark.parametrize("factor", [1e-120, 1e-9, 3.0, 1e120])
def test_scale_and_order_of_the_rows_change_nothing(attack, factor, rng):
    X, _ = attacked(honest(rng, d=300, mean=0.5), attack, 0.2)
    once = estimate_corrupt_share(dense(X))
    np.testing.assert_allclose(estimate_corrupt_share(dense(factor * X)), once, atol=1e-12)
    np.testing.assert_allclose(estimate_corrupt_share(dense(X[rng.permutation(len(X))])), once, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_corrupt(bad, rng):
    X = honest(rng)
    X[[2, 5, 7], 3] = bad
    X[9] *= 100.0
    share = estimate_corrupt_share(dense(X))
    assert share.estimate == share.low == share.far == pytest.approx(4 / 30)
    X[:20] = bad
    assert estimate_corrupt_share(dense(X)).estimate >= 20 / 30
    X[:] = bad
    assert estimate_corrupt_share(dense(X)).estimate == 1.0


def test_weights_count_where_they_say_more(rng):
    X, _ = attacked(honest(rng), "bit_flip", 0.1)
    is_far = np.linalg.norm(X, axis=1) > 1e3
    heavy = np.where(is_far, 3.0, 1.0)
    assert estimate_corrupt_share(dense(X, heavy)).estimate == pytest.approx(9 / 36)
    assert estimate_corrupt_share(dense(X, 1.0 / heavy)).estimate == pytest.approx(3 / 30)
    none = np.where(is_far, 0.0, 1.0)
    assert estimate_corrupt_share(dense(X, none)).estimate == 0.0


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_not_corrupt(n, dtype, rng):
    for row in (rng.normal(size=50), 1e6 + rng.normal(size=50), np.zeros(50)):
        share = estimate_corrupt_share(DenseRows(torch.from_numpy(np.tile(row, (n, 1))).to(dtype)))
        assert share.estimate == 0.0


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-320, 1e300])
@pytest.mark.parametrize("n", [1, 2, 3, 9, 20])
def test_rows_that_are_all_equal_show_nothing(n, value):
    assert estimate_corrupt_share(dense(np.full((n, 5), value))) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_majority_of_equal_rows_is_honest(rng):
    X = np.tile(rng.normal(size=40), (10, 1))
    X[:4] = rng.normal(size=(4, 40))
    assert estimate_corrupt_share(dense(X)).estimate == pytest.approx(0.4)


def test_pairs_of_equal_rows_all_over_are_no_groups(rng):
    assert estimate_corrupt_share(dense(np.repeat(honest(rng, 15), 2, axis=0))).estimate == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_of_rows_changes_nothing_where_most_have_copies(dtype):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(9, 36)), int(rng.choice([50, 200, 1000]))
        X = honest(rng, n, d, mean=0.1)
        m = int(rng.integers(n // 2, n))
        X[:m] = X[rng.integers(0, m // 2, m)]
        found, permuted = (
            estimate_corrupt_share(DenseRows(torch.tensor(Y, dtype=dtype))) for Y in (X, X[rng.permutation(n)])
        )
        assert found == pytest.approx(permuted, nan_ok=True)
        assert found.tied < 0.5


def test_of_weighted_copies_the_heaviest_may_be_honest_whatever_the_order(rng):
    X, weights = honest(rng, 10, 50), np.array([1.0, 5.0, 1.0] + 7 * [3.0])
    X[1:3] = X[0]
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        some = [*order, *range(3, 10)]
        share = estimate_corrupt_share(dense(X[some], weights[some]))
        assert share.low == pytest.approx(0.2)
        assert share.estimate == pytest.approx(0.3)


def test_of_two_halves_the_lighter_one_is_opposed_whatever_the_order(rng):
    X, weights = honest(rng, 8, 50, mean=5.0), np.array(4 * [1.0] + 4 * [5.0])
    X[:4] *= -1.0
    for _ in range(10):
        order = rng.permutation(8)
        assert estimate_corrupt_share(dense(X[order], weights[order])).opposed == pytest.approx(0.5)


def test_rows_of_zeros_are_on_neither_side(rng):
    X = honest(rng, 9, 50, mean=1.0)
    X[:3] *= -1.0
    X[3] = 0.0
    for _ in range(5):
        assert estimate_corrupt_share(dense(X[rng.permutation(9)])).opposed == pytest.approx(3 / 9)


def test_scale_changes_nothing_at_a_gap_of_just_a_factor_of_two():
    X = np.array([1.0, 1.0, -1.0, 0.0, -1.0, 1.0, 0.0, 1.0, -2.0, 2.0])[:, None]
    estimates = {estimate_corrupt_share(dense(X * factor)).estimate for factor in (1.0, 2.0, 1024.0, 3.0, 1e-5)}
    assert len(estimates) == 1


def test_few_rows(rng):
    for n in (1, 2):
        assert estimate_corrupt_share(dense(honest(rng, n))).estimate == 0.0
    three = honest(rng, 3)
    three[1] *= -100.0
    assert estimate_corrupt_share(dense(three)).estimate == pytest.approx(1 / 3)
    four = honest(rng, 4, mean=1.0)
    four[2] *= -1.0
    assert estimate_corrupt_share(dense(four)).estimate == pytest.approx(1 / 4)


@pytest.mark.parametrize("name", list(ZOO))
def test_bounds_on_every_hard_matrix(name):
    X = ZOO[name]
    share = estimate_corrupt_share(dense(X))
    assert 0.0 <= share.low <= share.estimate <= share.high < 0.5
    np.testing.assert_allclose(share.far + share.tied + np.nan_to_num(share.opposed), share.estimate, atol=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_bounds_on_every_extreme_matrix(dtype):
    for X in extremes(dtype).values():
        share = estimate_corrupt_share(DenseRows(X))
        assert 0.0 <= share.low <= share.estimate <= share.high < 0.5


def test_no_rows_is_an_error(rng):
    with pytest.raises(TypeError, match="rows must be Rows"):
        estimate_corrupt_share(honest(rng))


def test_far_rows_by_hand():
    X = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 40.0, 60.0])[:, None]
    # Median distances 3, 2, 2, 2, 3, 38, 58: beyond the gap from 3 to 38, and no gap between 2 and 3 counts.
    np.testing.assert_array_equal(far_rows(distances_of(X)), [False] * 5 + [True] * 2)
    assert not far_rows(distances_of(X[:5])).any()


def test_tied_groups_by_hand():
    X = np.vstack([np.eye(6), np.eye(6)[:1] + 0.01])
    groups = tied_groups(distances_of(X), np.linalg.norm(X, axis=1))
    assert groups[0] == groups[6] >= 0
    assert set(groups[1:6]) == {-1}


def test_opposed_rows_by_hand():
    X = 0.5 * np.eye(6)
    X[:, 0] += np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    opposed, least, most = opposed_rows(distances_of(X), np.linalg.norm(X, axis=1), np.ones(6))
    np.testing.assert_array_equal(opposed, [False] * 4 + [True] * 2)
    assert (least <= opposed).all()
    assert (opposed <= most).all()
    assert opposed_rows(distances_of(np.eye(6)), np.ones(6), np.ones(6)) is None
