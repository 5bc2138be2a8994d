"""Scales of targets; and features of very different scales, told of where a training stalls by them."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd._utils import limits
from skbgmd.training._data.scaling import (
    cross_entropy_of_shares,
    deviation_of_most,
    location_and_scale,
    scale_ratio,
    smooth_l1_of_zero,
    stalls,
)
from skbgmd.training._step.divergence import diverged

STALLED = r"training has stalled, at a loss of .*features' scales differ by a factor of .*StandardScaler"


def standardized(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def fit(X, y, kind=BlockGMDClassifier, **settings):
    return kind(**{"max_epochs": 20, "strength": None, "random_state": 0, **settings}).fit(X, y)


def in_units(factors):
    X, y = make_friedman1(200, n_features=5, random_state=0)
    return X * factors, y


@pytest.mark.parametrize("settings", [{}, {"strength": "auto"}, {"early_stopping": "loss", "tol": 0.0}], ids=str)
def test_stalled_trainings_are_told_once(settings):
    X, y = load_wine(return_X_y=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(X, y, **settings)
    assert [each.category for each in found if "StandardScaler" in str(each.message)] == [ConvergenceWarning]


def test_numbers_and_several_labels():
    X, y = in_units([1e3, 1.0, 1e-2, 1.0, 1e4])
    with pytest.warns(ConvergenceWarning, match=STALLED):
        fit(X, y, BlockGMDRegressor)
    with pytest.warns(ConvergenceWarning, match=STALLED):
        fit(X, np.stack([y > 14, y > 10], axis=1))


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_digits])
def test_scaled_data_are_not(load):
    X, y = standardized(load)
    fit(X, y, max_epochs=10)
    # Labels that nothing can be learnt of stall as well.
    fit(X[:100], np.random.default_rng(0).permutation(y[:100]), max_epochs=10)
    fit(*standardized(load_diabetes), BlockGMDRegressor, max_epochs=10)


def test_scales_alone_are_not():
    """A training that gets there says nothing, nor one that is too short to say, nor of other networks and losses."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) * [1.0, 1.0, 1.0, 1e-4]
    y = (X[:, 0] > 0).astype(int)
    assert scale_ratio(X) > limits.SCALES_APART
    fit(X, y, max_epochs=30, lr=0.02)
    X, y = load_wine(return_X_y=True)
    fit(X, y, max_epochs=limits.STALLED_EPOCHS - 1)
    BlockGMDClassifier(strength=None).partial_fit(X, y, classes=[0, 1, 2])
    with torch.random.fork_rng():
        normalized = torch.nn.Sequential(torch.nn.LayerNorm(13, dtype=torch.float64), torch.nn.Linear(13, 3).double())
    fit(X, y, module=normalized)


def test_divergence_names_scaling():
    class Net:
        history_: tuple = ()

        def get_all_learnable_params(self):
            return []

    bad = [torch.tensor([float("nan")])]
    X, _ = load_wine(return_X_y=True)
    assert diverged(Net(), bad, {"X": X, "y": None}).endswith("make_pipeline(StandardScaler(), model).")
    assert "StandardScaler" in diverged(Net(), bad, {"X": torch.from_numpy(X)})
    for other in (StandardScaler().fit_transform(X), X[:, :1], {"a": X}, None, torch.zeros(3, 2, 2)):
        assert diverged(Net(), bad, {"X": other}).endswith("may prevent it.")


def test_scale_ratio():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    assert scale_ratio(X) < 2.0
    assert scale_ratio(X * [1, 1, 1e-2, 1, 1e3]) == pytest.approx(1e5, rel=0.3)
    # Neither a column without numbers, nor gross errors of some samples, nor rare entries.
    gross, rare = X.copy(), np.where(rng.random((300, 5)) < 0.02, 1.0, 0.0)
    gross[:30, 0] *= 1e9
    for given in (gross, rare, np.c_[X, np.zeros(300)], X[:, :1], X[:0], X.astype(str), X[:, :, None]):
        assert scale_ratio(given) < limits.SCALES_APART
    assert scale_ratio(X * [1, 1e-300, 1, 1e300, 1]) > 1e300
    X[0, 0] = np.nan
    assert scale_ratio(X) < 2.0


def test_losses_of_constants():
    y = np.array([0, 0, 1, 2])
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).expand(4, 3)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    assert cross_entropy_of_shares(np.array([0.5, 0.25, 0.25])) == pytest.approx(float(expected))
    numbers = np.linspace(-3.0, 3.0, 14).reshape(7, 2)
    for beta in (0.0, 1.0, 2.0):
        of_zero = torch.nn.functional.smooth_l1_loss(torch.zeros(7, 2), torch.from_numpy(numbers).float(), beta=beta)
        assert smooth_l1_of_zero(numbers, None, beta) == pytest.approx(float(of_zero))
        assert smooth_l1_of_zero(np.full((7, 2), 1.5e308), None, beta) == np.inf
    weight = np.arange(7.0)
    repeated = np.repeat(numbers, weight.astype(int), axis=0)
    assert smooth_l1_of_zero(numbers, weight, 2.0) == pytest.approx(smooth_l1_of_zero(repeated, None, 2.0))
    assert stalls([1.0] * 20, 1.0)
    # Of the last tenth of the epochs: one that was lucky says nothing.
    assert stalls([1.0] * 19 + [0.2], 1.0)
    assert not stalls([1.0] * 10 + [0.2] * 10, 1.0)
    assert not stalls([1.0] * (limits.STALLED_EPOCHS - 1), 1.0)


#: Targets beside many zeros, which are at the median or beside it, as functions of a generator and a number.
BESIDE_ZEROS = {
    "positive": lambda rng, n: np.abs(rng.normal(size=n)),
    "both sides": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "counts": lambda rng, n: 1.0 + rng.poisson(2.0, size=n),
    "two values": lambda rng, n: rng.choice((-1.0, 1.0), size=n),
}


@pytest.mark.parametrize(
    ("name", "of_value"),
    [
        *product(BESIDE_ZEROS, (0.45, 0.48, 0.52, 0.6, 0.7, 0.8)),
        *product(("both sides", "positive", "exponential"), (0.2, 0.3, 0.4)),
    ],
)
def test_gross_targets_do_not_set_the_scale_beside_many_of_one_value(name: str, of_value: float) -> None:
    rng, n = np.random.default_rng(0), 4000
    y = np.where(rng.random(n) < of_value, 0.0, BESIDE_ZEROS[name](rng, n))
    clean = deviation_of_most(y)
    assert 0.25 < clean / np.sqrt(np.mean(y[y != 0.0] ** 2)) < 2.5
    wrong = rng.permutation(n)
    for percent in (5, 15):
        for sign in (1.0, rng.choice((-1.0, 1.0), size=n)):
            spoilt = y.copy()
            chosen = wrong[: n * percent // 100]
            spoilt[chosen] = (1e6 * (1.0 + rng.random(n)) * sign)[chosen]
            center, scale = location_and_scale(np.column_stack([spoilt, 1e-9 * spoilt + 7.0]), None)
            # The median itself moves with them, within the targets.
            assert abs(center[0]) < 2.5
            assert clean / 3.0 < scale[0] < 4.0 * clean
            assert scale[1] == pytest.approx(1e-9 * scale[0], rel=1e-5)


def test_scales_of_targets_do_not_jump_where_half_of_them_are_one_value() -> None:
    rng = np.random.default_rng(0)
    for others in (rng.normal(size=1000), np.abs(rng.normal(size=1000)), rng.laplace(size=1000)):
        scales = [deviation_of_most(np.r_[np.zeros(n), others]) for n in (960, 990, 999, 1001, 1010, 1040)]
        assert max(scales) < 1.2 * min(scales)


def test_weights_of_targets_count_as_copies_in_their_scale() -> None:
    rng = np.random.default_rng(0)
    y, weight = rng.normal(size=(301, 2)).round(1), rng.integers(4, size=301)
    y[::2, 0] = 0.0
    repeated = location_and_scale(np.repeat(y, weight, axis=0), None)
    np.testing.assert_allclose(location_and_scale(y, weight.astype(float)), repeated, rtol=1e-12)
    np.testing.assert_array_equal(location_and_scale(np.full((5, 1), 3.0), None), [[3.0], [1.0]])
    y[weight == 0] = 1e300
    np.testing.assert_allclose(location_and_scale(y, weight.astype(float)), repeated, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("counts", [(454, 436, 110), (436, 454, 110), (40, 40, 20), (2, 2, 1), (450, 449, 101)])
def test_two_common_values_and_gross_ones(counts, sign, size):
    """What is neither of them may be gross, all of it."""
    y = sign * size * np.repeat([0.0, 1.0, 1e6], counts)
    assert size < deviation_of_most(y) < 5.0 * size


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_two_values_of_equal_weight_have_their_distance(size):
    """Sums of weights are rounded: one value may have the most, and the other be the median."""
    for n, k in ((300, 100), (301, 97), (307, 13), (313, 111), (7, 3), (199, 190)):
        y = size * np.repeat([0.0, 1.0], (n, k))
        for factor in (1.0, 0.1, 7.7):
            weight = factor * np.where(y > 0, 200 / k, 200 / n)
            assert size < deviation_of_most(y, weight) < 3.0 * size
