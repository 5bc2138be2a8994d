"""Groups of suspicious samples in what a training noted."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.inspection._suspect_groups import (
    NOBODY,
    badly_fitted,
    overrules_a_class,
    quality_of,
    suspects_in,
    with_unusual_inputs,
)
from skbgmd.training._trust import SampleRecord


def likelihoods(n: int, n_wrong: int, seed: int = 0) -> np.ndarray:
    """Likelihoods of clean samples with a tail of hard ones, the wrong ones first."""
    rng = np.random.default_rng(seed)
    return np.append(rng.beta(1.0, 8.0, n_wrong), rng.beta(5.0, 1.0, n - n_wrong))


@pytest.mark.parametrize("n", [600, 10_000])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_a_separate_group_is_counted(n: int, share: float) -> None:
    n_wrong = int(share * n)
    found = badly_fitted(likelihoods(n, n_wrong))
    assert found.n == pytest.approx(n_wrong, rel=0.15)
    assert found.low <= n_wrong <= found.high


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_is_no_group(seed: int) -> None:
    assert badly_fitted(likelihoods(2000, 0, seed)) == NOBODY
    assert badly_fitted(np.random.default_rng(seed).uniform(size=2000)) == NOBODY
    assert badly_fitted(np.full(50, 0.7)) == NOBODY


def test_what_is_fitted_late_makes_up_for_the_tail() -> None:
    values = np.append(likelihoods(2000, 300), np.linspace(0.0, 1.0, 400))
    assert badly_fitted(values, fits_all=True).n > badly_fitted(values).n


def test_large_inputs_that_are_fitted_worse_are_counted() -> None:
    rng = np.random.default_rng(0)
    norms = np.exp(np.append(rng.normal(2.0, 0.3, 100), rng.normal(0.0, 0.3, 900)))
    fitted = np.full(1000, 0.9)
    assert with_unusual_inputs(fitted, norms) == NOBODY
    fitted[:100:2] = 0.1
    found = with_unusual_inputs(fitted, norms)
    assert found.n == pytest.approx(100, abs=5)
    assert found.low <= 100 <= found.high
    assert (norms >= found.threshold).sum() == found.n
    # What is fitted no worse than the others isn't suspicious.
    fitted[::2] = 0.1
    assert with_unusual_inputs(fitted, norms) == NOBODY
    assert with_unusual_inputs(fitted, np.full(1000, np.nan)) == NOBODY


def test_quality_falls_with_the_inputs() -> None:
    np.testing.assert_allclose(
        quality_of(np.array([0.5, 0.5, 1.0]), np.array([1.0, 1.0, 4.0])), [0.470588, 0.470588, 1 / 17], rtol=1e-5
    )
    np.testing.assert_array_equal(quality_of(np.array([0.5, 0.1]), np.full(2, np.nan)), [0.5, 0.1])
    np.testing.assert_array_equal(quality_of(np.array([0.5, 0.1]), np.zeros(2)), [0.5, 0.1])


def test_a_class_that_is_learnt_late_is_no_group() -> None:
    early, late = likelihoods(2000, 200), likelihoods(2000, 0)
    classes = np.append(np.ones(200), np.zeros(1800))
    assert overrules_a_class(np.arange(2000) < 200, classes.astype(int))
    norms = np.ones(2000)
    kept = suspects_in(SampleRecord(norms, np.stack([early, late, late]), norms, classes))
    assert kept.estimate[0] == 0
    # It is one if it lasts, or is of all classes.
    lasting = suspects_in(SampleRecord(norms, np.stack([early, early, early]), norms, classes))
    assert lasting.chosen[:200].mean() > 0.8
    np.testing.assert_array_equal(lasting.likelihood, early)
    mixed = suspects_in(SampleRecord(norms, np.stack([early, late, late]), norms, np.arange(2000) % 3.0))
    assert mixed.chosen[:200].mean() > 0.8
    short = suspects_in(SampleRecord(norms, np.stack([norms * np.nan, norms * np.nan, early]), norms, classes))
    assert short.estimate[0] == 0
