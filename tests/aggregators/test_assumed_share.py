"""Rules that estimate the share of corrupt rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense
from sklearn.base import clone

from skbgmd.aggregators import (
    BlockGeometricMedian,
    Krum,
    NearestNeighborMixing,
    NormFilter,
    SpectralFilter,
    TrimmedMean,
    estimate_corrupt_share,
)
from skbgmd.aggregators.assumed_share import assumed_share, check_fraction_or_auto
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.memory import ShareMemory

RULES = {
    "krum": Krum,
    "multi-krum": lambda fraction: Krum(fraction, n_selected=9),
    "norm filter": NormFilter,
    "spectral filter": SpectralFilter,
    "trimmed mean": TrimmedMean,
    "mixing": lambda fraction: NearestNeighborMixing(fraction=fraction),
    "mixing, krum": lambda fraction: NearestNeighborMixing(Krum(fraction), fraction),
    "block of krum": lambda fraction: BlockGeometricMedian(0.5, Krum(fraction)),
}
#: Those of which every estimate is of all rows and columns.
OF_ALL_ROWS = [name for name in RULES if name not in ("mixing, krum", "block of krum")]


@pytest.fixture(params=list(RULES))
def rule(request):
    return RULES[request.param]


@pytest.fixture
def X(rng):
    """Twenty rows of which four are long and two have their signs flipped; a row more is assumed."""
    X = 0.5 + rng.normal(size=(20, 300))
    X[:4] *= 50.0
    X[[7, 8]] *= -1.0
    return X


@pytest.mark.parametrize("name", OF_ALL_ROWS)
def test_the_first_step_is_that_of_the_rule_that_is_told(name, X):
    rule = RULES[name]
    np.testing.assert_array_equal(rule("auto")(dense(X))[0].vector, rule(0.35)(dense(X))[0].vector)


def test_nothing_is_left_out_of_clean_rows(rng):
    X = 0.5 + rng.normal(size=(20, 300))
    for make in (NormFilter, SpectralFilter, TrimmedMean):
        np.testing.assert_allclose(make("auto")(dense(X))[0].vector, X.mean(axis=0))


@pytest.mark.parametrize("name", OF_ALL_ROWS)
def test_what_showed_once_is_assumed_for_some_steps(name, X, rng):
    rule = RULES[name]
    clean = 0.5 + rng.normal(size=(20, 300))
    fresh, state = rule("auto")(dense(X))[0], None
    _, state = rule("auto")(dense(X), state)
    after, state = rule("auto")(dense(clean), state)
    told = rule(0.35)(dense(clean))[0]
    np.testing.assert_array_equal(after.vector, told.vector)
    for _ in range(5):
        after, state = rule("auto")(dense(clean), state)
    np.testing.assert_array_equal(after.vector, rule("auto")(dense(clean))[0].vector)
    assert fresh.record["corrupt_share"] > 0.0
    assert after.record["corrupt_share"] == 0.0


@pytest.mark.parametrize("name", OF_ALL_ROWS)
def test_history_has_the_estimate_and_counts_rows_that_are_lost(name, X):
    rule = RULES[name]
    assert rule("auto")(dense(X))[0].record["corrupt_share"] == pytest.approx(0.3)
    lost = X.copy()
    lost[[1, 12], 0] = np.nan
    record = rule("auto")(dense(lost))[0].record
    assert record["corrupt_share"] == pytest.approx(estimate_corrupt_share(dense(lost)).estimate)
    assert record["corrupt_share"] == pytest.approx(7 / 20)
    assert "corrupt_share" not in rule(0.3)(dense(X))[0].record


def test_weights_that_fall_little_by_little_remove_all_of_the_corrupt_rows(rng):
    X = 0.1 * rng.normal(size=(34, 300)) * rng.uniform(0.3, 3.0, size=(34, 1)) + 0.1
    X[:6] *= -100.0
    left = [SpectralFilter(share).weights(dense(X))[:6].sum() for share in ("auto", 6 / 34)]
    assert left[0] < 0.01 * left[1]


def test_state_is_saved(rule, X, rng):
    _, state = rule("auto")(dense(X))
    again = unpack_state(pack_state(state))
    clean = dense(0.5 + rng.normal(size=(20, 300)))
    assert torch.equal(rule("auto")(clean, state)[0].vector, rule("auto")(clean, again)[0].vector)


def test_a_state_of_either_kind_of_share_does_for_the_other(rule, X):
    for one, other in (("auto", 0.3), (0.3, "auto")):
        _, state = rule(one)(dense(X))
        assert torch.isfinite(rule(other)(dense(X), state)[0].vector).all()


def test_it_withstands_what_shows(rule, X):
    honest = np.delete(X, [0, 1, 2, 3, 7, 8], axis=0).mean(axis=0)
    vector = rule("auto")(dense(X))[0].vector.numpy()
    assert np.linalg.norm(vector - honest) < 1.1 * np.sqrt(300)


def test_parameters(rule, X):
    twin = clone(rule("auto"))
    assert "fraction='auto'" in repr(twin)
    for name in twin.get_params():
        if name.endswith("fraction"):
            twin.set_params(**{name: 0.1})
    assert "auto" not in repr(twin)
    for wrong in ("half", "Auto", ""):
        with pytest.raises(ValueError, match=r'fraction must be "auto" or a number; found'):
            rule(wrong)(dense(X))
    for wrong in (None, [0.1], True):
        with pytest.raises(TypeError, match="fraction must be a number"):
            rule(wrong)(dense(X))


def test_assumed_share(X):
    assert assumed_share(0.2, dense(X), None) == (0.2, None, {})
    assert assumed_share("auto", dense(X), None).fraction == pytest.approx(0.35)
    assert assumed_share("auto", dense(X[4:7]), None).fraction == 0.0
    before = ShareMemory((0.45,))
    found = assumed_share("auto", dense(X), before)
    assert found.fraction == pytest.approx(9.5 / 20)
    assert found.record == {"corrupt_share": pytest.approx(0.3)}
    assert found.memory.recent == (0.45, pytest.approx(0.3))
    check_fraction_or_auto("auto")
