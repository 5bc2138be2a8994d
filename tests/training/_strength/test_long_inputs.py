"""Whether held-out samples with long inputs are predicted."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.training._strength.evidence import stratified_mean
from skbgmd.training._strength.long_inputs import UNCLEAR, Skill, are_predicted, lies_apart, share_of_most, skill


def test_skill_is_relative_to_what_there_is_to_tell() -> None:
    constant, perfect = np.array([-4.0, -2.0, 0.0, -2.0]), np.zeros(4)
    strata, weight = np.zeros(4, dtype=np.intp), np.array([1.0, 1.0, 1.0, 1.0])
    for network, expected in ((perfect, 1.0), (constant, 0.0), (2.0 * constant, -1.0), (0.5 * constant, 0.5)):
        given = {"constant": constant, "network": network, "perfect": perfect}
        assert skill(given, strata, weight).value == pytest.approx(expected)
    assert skill({"constant": perfect, "network": constant, "perfect": perfect}, strata, weight) == Skill(0.0, 0.0)


def test_strata_count_alike() -> None:
    given = {"constant": np.zeros(5), "network": np.array([1.0, 0.0, 0.0, 0.0, 0.0]), "perfect": np.ones(5)}
    assert skill(given, np.array([0, 1, 1, 1, 1]), np.ones(5)).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("of_long", "of_others", "as_well", "expected"),
    [
        ((0.3, 0.1), (0.9, 0.0), 0.0, 1.0),
        ((0.3, 0.1), (0.9, 0.0), 0.5, UNCLEAR),
        ((0.2, 0.1), (0.9, 0.0), 0.5, 0.0),
        ((0.6, 0.1), (0.9, 0.0), 0.5, 1.0),
        ((0.1, 0.2), (-0.5, 0.0), 0.5, UNCLEAR),
        ((-0.1, 0.01), (-0.5, 0.0), 0.5, 0.0),
        ((0.0, 0.0), (0.0, 0.0), 0.0, UNCLEAR),
    ],
)
def test_clearly_and_as_well(
    of_long: tuple[float, float], of_others: tuple[float, float], as_well: float, expected: float
) -> None:
    assert are_predicted([Skill(*of_long)], [Skill(*of_others)], as_well) == expected
    sure, not_at_all = Skill(1.0, 0.0), Skill(-1.0, 0.1)
    assert are_predicted([Skill(*of_long), sure], [Skill(*of_others), sure], as_well) == expected
    assert are_predicted([Skill(*of_long), not_at_all], [Skill(*of_others), sure], as_well) == 0.0


@pytest.mark.parametrize(
    ("n_long", "n_of_class", "expected"),
    [
        (30, 30, True),
        (24, 30, True),
        (10, 30, False),
        (100, 300, True),
        (80, 300, False),
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
    ],
)
def test_a_class_lies_apart_by_clearly_more_than_a_quarter_of_it(n_long: int, n_of_class: int, expected: bool) -> None:
    strata = np.repeat([0, 1, 2], [200, n_of_class, 50])
    are_long = (strata == 1) & (np.arange(len(strata)) < 200 + n_long)
    assert lies_apart(are_long, strata, np.ones(len(strata))) is expected
    # As many times, by weights or by what is left out.
    assert lies_apart(are_long, strata, np.full(len(strata), 7.0)) is expected
    assert lies_apart(np.ones(len(strata), dtype=bool), strata, (strata != 1) * (1.0 - are_long)) is True
    assert not lies_apart(are_long, strata, np.where(strata == 1, 0.0, 1.0))


def test_each_class_is_judged_by_the_error_of_its_own_mean() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        strata, weight = rng.integers(3, size=40), rng.integers(3, size=40).astype(float)
        are_long = rng.random(40) < rng.random(3)[strata]
        expected = False
        for stratum in range(3):
            some = (strata == stratum) & (weight > 0.0)
            if some.any():
                mean, error = stratified_mean(
                    are_long[some].astype(float), np.zeros(some.sum(), dtype=int), weight[some]
                )
                expected |= mean - 2.0 * error > 0.25
        assert lies_apart(are_long, strata, weight) == expected


def test_the_share_of_the_largest_class() -> None:
    strata = np.array([3, 3, 0, 3])
    assert share_of_most(strata, np.ones(4)) == 0.75
    assert share_of_most(strata, np.array([0.0, 0.0, 2.0, 6.0])) == 0.75
    for nothing in (strata[:0], strata):
        assert share_of_most(nothing, np.zeros(len(nothing))) == 1.0
