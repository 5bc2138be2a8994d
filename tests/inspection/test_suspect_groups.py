"""Groups of suspicious samples in what a training noted."""

from __future__ import annotations

import numpy as np
import pytest

from fits import held_out_labels_of
from skbgmd._utils import limits
from skbgmd.inspection._suspect_groups import (
    NOBODY,
    UNCONFIRMED,
    Confirmed,
    Group,
    agreed,
    badly_fitted,
    confirmed_by,
    overrules_a_class,
    quality_of,
    shows_a_group,
    suspects_in,
    with_unusual_inputs,
)
from skbgmd.training._step.trust import SampleRecord
from skbgmd.training._strength.held_out_labels import HeldOutLabels, wrong_labels_in


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


def test_the_number_agrees_with_held_out_labels() -> None:
    values = likelihoods(1000, 200)
    group = Group(200, 180, 220, 0.5)
    sure = Confirmed(0.1, 0.09, 0.07, is_sure=True, is_flat=True)
    overlap, few_sure = sure._replace(is_flat=False), Confirmed(0.04, 0.03, 0.025, is_sure=True, is_flat=True)
    # What isn't confirmed leaves a group that the bounds allow as it is, but for its own bounds.
    for confirmed in (UNCONFIRMED, overlap, sure._replace(is_sure=False), sure._replace(least=0.01)):
        low = round(1000 * confirmed.least)
        assert agreed(group, (0.15, 0.25), confirmed, values) == (200, low, 250, 0.5)
        assert agreed(NOBODY, (0.0, 0.1), confirmed, values)[:3] == (0, 0, 100)
    # What is, counts whatever the group says: some were learnt by heart, or hard samples are among it.
    few = Group(60, 50, 70, 0.3)
    for found in (NOBODY, few, Group(95, 85, 105, 0.4), Group(120, 110, 130, 0.4)):
        raised = agreed(found, (0.05, 0.15), sure, values)
        assert raised[:3] == (100, 90, 150)
        assert (values < raised.threshold).sum() == 100
    assert agreed(group, (0.08, 0.12), sure, values)[:3] == (100, 90, 220)
    assert agreed(NOBODY, (0.0, 0.08), few_sure._replace(least=0.011), values)[:3] == (40, 11, 80)
    # Never more than surely predicted labels allow.
    assert agreed(group, (0.04, 0.09), sure, values)[:3] == (90, 90, 220)
    assert agreed(NOBODY, (0.0, 0.08), sure, values)[:3] == (80, 80, 80)
    # More than wrong labels anywhere explain: hard samples are among them, or are all of them.
    for confirmed in (UNCONFIRMED, overlap):
        assert agreed(group, (0.08, 0.12), confirmed, values)[:3] == (100, 80, 220)
        assert agreed(group, (0.01, 0.05), confirmed, values)[:3] == (0, 0, 220)
    # Or labels are wrong near boundaries alone, or there, too.
    for bounds, confirmed, low in (
        ((0.01, 0.05), UNCONFIRMED, 0),
        ((0.01, 0.05), overlap, 90),
        ((0.03, 0.06), few_sure, 30),
    ):
        assert agreed(group, bounds, confirmed, values, contradicts=True) == (200, low, 220, 0.5)
    assert agreed(few, (0.05, 0.15), sure, values, contradicts=True)[:3] == (100, 90, 150)
    # Or most were learnt by heart: the group is within the bounds and what is confirmed isn't.
    assert agreed(group, (0.15, 0.25), sure, values) == (200, 90, 250, 0.5)
    assert agreed(Group(140, 130, 150, 0.4), (0.15, 0.25), sure, values)[:3] == (100, 90, 250)
    # Of many, all may have been learnt by heart, if that is proved.
    many = Confirmed(0.3, 0.25, 0.2, is_sure=False, is_flat=True)
    assert agreed(group, (0.35, 0.45), many, values)[:3] == (350, 350, 450)
    assert agreed(NOBODY, (0.35, 0.45), many, values)[:3] == (350, 350, 450)
    for bounds, confirmed in (((0.25, 0.45), many), ((0.35, 0.45), many._replace(least_of_surest=0.15))):
        assert agreed(group, bounds, confirmed, values).n == 200
        assert agreed(NOBODY, bounds, confirmed, values).n == 0


def noted(
    n: int, share: float, *, slope: float = 50.0, learnt: float = 0.0, hard: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, HeldOutLabels]:
    """Samples of a logistic model: which have wrong labels, first likelihoods, and labels that were held out.

    Some wrong labels have been learnt; of some samples a network that was trained on a third is wrong.
    """
    rng = np.random.default_rng(seed)
    odds = slope * rng.normal(size=n)
    label = rng.random(n) < 1.0 / (1.0 + np.exp(-odds))
    wrong, is_hard = rng.random(n) < share, rng.random(n) < hard
    own = 1.0 / (1.0 + np.exp(np.where(label, -odds, odds)))
    likelihood = np.clip(own, 0.02, 0.98) - 0.1 * rng.random(n) * own
    likelihood = np.where(is_hard, rng.uniform(0.5, 0.9, n), likelihood)
    by_heart = rng.random(n) < learnt
    likelihood = np.where(wrong, np.where(by_heart, rng.uniform(0.5, 0.9, n), rng.beta(1.0, 8.0, n)), likelihood)
    differs = (label ^ wrong) != ((odds > 0) ^ is_hard)
    found = np.stack([(odds > 0) ^ is_hard, 1.0 / (1.0 + np.exp(-np.abs(odds))), differs]).astype(float)
    found[:, rng.random(n) < 1 / 3] = np.nan
    return wrong, likelihood, HeldOutLabels(*found, np.full(n, np.nan))


@pytest.mark.parametrize("n", [1500, 12_000])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("hard", [0.0, 0.1])
def test_wrong_labels_are_confirmed_and_hard_samples_are_not(n: int, share: float, hard: float) -> None:
    wrong, likelihood, held_out = noted(n, share, hard=hard)
    found = confirmed_by(likelihood, held_out)
    assert found.is_sure
    assert found.is_flat
    assert found.share == pytest.approx(wrong.mean(), rel=0.2, abs=0.02)
    assert found.least <= wrong.mean()
    # Where hard samples are predicted wrongly a wrong label may be guessed.
    clean = confirmed_by(*noted(n, 0.0, hard=hard)[1:])
    assert clean.least == clean.least_of_surest == 0.0
    assert clean.share < 0.01


def test_nothing_is_confirmed_where_classes_overlap_or_nothing_is_certain() -> None:
    _, likelihood, held_out = noted(6000, 0.0, slope=2.0)
    assert not confirmed_by(likelihood, held_out).is_flat
    unsure = held_out._replace(probability=0.5 + 0.6 * (held_out.probability - 0.5))
    assert not confirmed_by(likelihood, unsure).is_sure
    nothing = HeldOutLabels(*(np.full(5, np.nan) for _ in range(4)))
    assert confirmed_by(np.full(5, 0.1), nothing) == UNCONFIRMED


@pytest.mark.parametrize("share", [0.06, 0.08, 0.1])
@pytest.mark.parametrize("learnt", [0.55, 0.7, 1.0])
def test_few_wrong_labels_of_which_some_were_learnt_are_counted(share: float, learnt: float) -> None:
    near = {"before": 0, "after": 0, "bounded": 0}
    for seed in range(20):
        wrong, late, held_out = noted(3000, share, learnt=learnt, hard=0.1, seed=seed)
        # Early on, wrong labels and hard samples are one tail.
        early = np.where(wrong, np.random.default_rng(seed + 100).uniform(0.0, 0.5, 3000), late)
        ones = np.ones(3000)
        record = SampleRecord(ones, np.stack([early, early, late]), ones, ones)
        found = {"before": suspects_in(record), "after": suspects_in(record, held_out=held_out)}
        for name, each in found.items():
            near[name] += abs(each.estimate[0] / wrong.sum() - 1.0) <= 0.3
        near["bounded"] += found["after"].estimate[1] <= wrong.sum() <= found["after"].estimate[2]
    # By chance one in forty shares isn't flat.
    assert near["after"] >= 17
    assert near["bounded"] >= 17
    assert near["before"] <= 5


@pytest.mark.parametrize("n", [1500, 3000, 12_000])
@pytest.mark.parametrize("slope", [8.0, 16.0])
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_few_wrong_labels_are_counted_where_classes_overlap_at_borders(n: int, slope: float, share: float) -> None:
    near = bounded = 0
    for seed in range(20):
        wrong, likelihood, held_out = noted(n, share, slope=slope, seed=seed)
        ones = np.ones(n)
        record = SampleRecord(ones, np.stack([likelihood] * 3), ones, np.arange(n) % 2.0)
        found = suspects_in(record, held_out=held_out).estimate
        near += abs(found[0] / wrong.sum() - 1.0) <= 0.3
        bounded += found[1] <= wrong.sum() <= found[2]
    assert near >= 16
    assert bounded >= 17


@pytest.mark.parametrize("n", [1500, 3000, 12_000])
@pytest.mark.parametrize("slope", [2.0, 4.0, 8.0, 16.0])
def test_overlap_alone_is_not_counted_but_bounds_say_what_may_be(n: int, slope: float) -> None:
    for seed in range(20):
        _, likelihood, held_out = noted(n, 0.0, slope=slope, seed=seed)
        ones = np.ones(n)
        record = SampleRecord(ones, np.stack([likelihood] * 3), ones, np.arange(n) % 2.0)
        estimate = suspects_in(record, held_out=held_out).estimate
        assert estimate[:2] == (0, 0)
        assert estimate[2] == round(n * wrong_labels_in(held_out)[1]) > 0


@pytest.mark.parametrize("hard", [0.4, 0.45, 0.5])
def test_a_network_that_is_surely_wrong_is_no_evidence_of_wrong_labels(hard: float) -> None:
    _, likelihood, held_out = noted(1200, 0.0, hard=hard)
    assert wrong_labels_in(held_out)[0] > limits.MANY_WRONG
    ones = np.ones(1200)
    record = SampleRecord(ones, np.stack([likelihood] * 3), ones, np.arange(1200) % 2.0)
    assert suspects_in(record, held_out=held_out).estimate[0] == suspects_in(record).estimate[0] == 0


def calibrated_likelihoods(n: int, distance: float, *, share: float = 0.0, seed: int = 0) -> np.ndarray:
    """Likelihoods of two normal classes by Bayes' classifier, with a share of labels wrong near the boundary alone."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    odds = distance * (distance * (y - 0.5) + rng.normal(size=n))
    rank = np.abs(odds).argsort().argsort() / n
    wrong = np.argsort(rank / 0.2 - rng.gumbel(size=n))[: int(share * n)]
    y[wrong] = 1 - y[wrong]
    return 1.0 / (1.0 + np.exp(np.where(y == 1, -odds, odds)))


def by_gentle(likelihood: np.ndarray) -> HeldOutLabels:
    """Of every third sample a likelihood; the others are held out, and differ where nothing is sure."""
    n = len(likelihood)
    held_out = np.arange(n) % 3 > 0
    sure, differs = np.maximum(likelihood, 1.0 - likelihood), likelihood < 0.5
    found = [np.where(held_out, of, np.nan) for of in (np.zeros(n), sure, differs)]
    return HeldOutLabels(*found, np.where(held_out, np.nan, likelihood))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [900, 30_000])
@pytest.mark.parametrize("distance", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_overlap_is_no_group_where_likelihoods_are_right(distance: float, n: int, seed: int) -> None:
    likelihood = calibrated_likelihoods(n, distance, seed=seed)
    assert not shows_a_group(likelihood[::3], np.arange(n // 3) % 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [900, 30_000])
@pytest.mark.parametrize("share", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("distance", [5.0, 8.0])
def test_wrong_labels_near_the_boundary_of_classes_that_lie_apart_are_a_group(
    distance: float, share: float, n: int, seed: int
) -> None:
    likelihood = calibrated_likelihoods(n, distance, share=share, seed=seed)
    classes = np.arange(n // 3) % 2
    assert shows_a_group(likelihood[::3], classes)
    # Most of a class is one that is yet to be learnt.
    assert not shows_a_group(likelihood[::3], (likelihood[::3] < 0.5).astype(int))
    assert not shows_a_group(np.full(len(classes), np.nan), classes)


@pytest.mark.parametrize("fits_all", [False, True])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("gentle", [False, True])
def test_a_group_near_the_boundary_is_kept_where_a_gentle_training_has_it(
    gentle: bool, early: bool, fits_all: bool
) -> None:
    n = 1500
    ones = np.ones(n)
    likelihood = calibrated_likelihoods(n, 8.0, share=0.15)
    wrong, known = likelihood < 0.5, np.full(n, 0.95)
    values = np.where(wrong, 0.05, 0.95)
    record = SampleRecord(ones, np.stack([values if early else known] * 2 + [values]), ones, np.arange(n) % 2.0)
    held_out = by_gentle(likelihood)._replace(gentle_likelihood=likelihood if gentle else np.full(n, np.nan))
    assert wrong_labels_in(held_out)[1] < wrong.mean()
    found = suspects_in(record, fits_all=fits_all, held_out=held_out)
    np.testing.assert_array_equal(found.chosen, wrong & (gentle or (fits_all and early)))


def test_wrong_labels_that_were_learnt_by_heart_are_counted() -> None:
    fitted = np.append(np.linspace(0.2, 0.6, 1600), np.linspace(0.5, 0.9, 2400))
    ones = np.ones(4000)
    record = SampleRecord(ones, np.stack([fitted] * 3), ones, ones)
    assert suspects_in(record).estimate[0] == 0
    found = suspects_in(record, held_out=held_out_labels_of(4000, 0.4))
    assert found.chosen[:1600].mean() > 0.8
    assert found.estimate[1] <= 1600 <= found.estimate[2]


def test_unusual_inputs_are_no_evidence_of_wrong_labels() -> None:
    # With wrong features, labels are surely predicted by chance.
    norms = np.append(np.full(400, 50.0), np.linspace(0.9, 1.1, 600))
    likelihood = np.append(np.tile([0.1, 0.9], 200), np.full(600, 0.9))
    held_out = HeldOutLabels(
        np.zeros(1000),
        np.append(np.ones(400), np.full(600, 0.9)),
        (likelihood < 0.5).astype(float),
        np.full(1000, np.nan),
    )
    record = SampleRecord(np.ones(1000), np.stack([likelihood] * 3), norms, np.zeros(1000))
    assert wrong_labels_in(held_out)[0] > 0.3
    bounded, alone = (suspects_in(record, held_out=of).estimate for of in (held_out, None))
    assert (bounded[0], *bounded[3:5]) == (alone[0], *alone[3:5])
    assert suspects_in(record).estimate[3:5] == (0, pytest.approx(400, abs=5))
