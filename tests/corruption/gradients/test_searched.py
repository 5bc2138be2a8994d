"""Line searches: against a finer search, and against the rule with its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import counted, matrix, median, split

from conftest import extremes
from skbgmd import geometric_median
from skbgmd.aggregators import get_aggregator
from skbgmd.corruption import (
    ALittleIsEnough,
    InnerProduct,
    SearchedALittleIsEnough,
    SearchedInnerProduct,
)
from skbgmd.corruption.gradients.searched import harm_of, strongest_harm
from skbgmd.rows import DenseRows

KINDS = [(SearchedALittleIsEnough, ALittleIsEnough, "z"), (SearchedInnerProduct, InnerProduct, "epsilon")]


@pytest.mark.parametrize("rule", ["geometric_median", "coordinate_median", "trimmed_mean", "krum"])
@pytest.mark.parametrize("objective", ["progress", "deviation"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("searched", "fixed", "strength"), KINDS)
def test_no_other_strength_harms_much_more(searched, fixed, strength, own, objective, rule):
    gradients = matrix(20, 60, seed=3)
    aggregate, seen = counted(lambda rows: get_aggregator(rule)(DenseRows(rows))[0].vector)
    attack = searched(fraction=0.4, objective=objective, aggregator=aggregate, own=own)
    attacked, _, honest = split(attack, gradients)
    assert len(seen) <= 13
    mean = gradients[honest].mean(dim=0)

    def harm(rows):
        return harm_of(aggregate(rows), mean, objective)

    others = [
        harm(split(fixed(fraction=0.4, own=own, **{strength: value}), gradients)[0])
        for value in np.geomspace(0.1, 100.0, 60).tolist()
    ]
    lost = 1.0 + harm(attacked) if objective == "progress" else harm(attacked)
    most = 1.0 + max(others) if objective == "progress" else max(others)
    assert lost >= most - 0.15 * abs(most)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("objective", ["progress", "deviation"])
def test_own_rows_of_any_size_stay_finite(objective, dtype):
    fixed = (ALittleIsEnough(0.4, own=True), InnerProduct(0.4, own=True))
    searched = [kind(0.4, objective, aggregator=median, own=True) for kind, _, _ in KINDS]
    for kind, gradients in extremes(dtype).items():
        for attack in (*fixed, *searched):
            attacked = attack(gradients, random_state=0)
            assert attacked.dtype == dtype
            assert torch.isfinite(attacked).all(), kind


def test_rows_that_the_rule_is_asked_about_differ_from_the_gradients_in_corrupt_ones_alone():
    gradients = matrix(20)
    aggregate, seen = counted(geometric_median)
    attacked, corrupt, honest = split(SearchedALittleIsEnough(fraction=0.4, aggregator=aggregate), gradients)
    assert all(torch.equal(rows[honest], gradients[honest]) for rows in seen)
    # The answer is one of those that were tried.
    assert any(torch.equal(rows, attacked) for rows in seen)
    assert len({float(rows[corrupt[0], 0]) for rows in seen}) == len(seen)


@pytest.mark.parametrize("peak", [0.05, 0.1, 0.3, 1.7, 20.0, 99.0, 500.0])
def test_search_on_a_known_curve(peak):
    tried = []

    def harm(strength):
        tried.append(strength)
        return -abs(np.log(strength / peak))

    found = strongest_harm(harm, 0.1, 100.0)
    assert len(tried) <= 13
    assert all(0.1 <= strength <= 100.0 for strength in tried)
    # A quarter of a step of the grid is left.
    assert abs(np.log(found / np.clip(peak, 0.1, 100.0))) <= np.log(1000.0) / 8 / 4


def test_search_where_harm_is_no_number_or_the_same_everywhere():
    assert strongest_harm(lambda _: float("nan"), 0.1, 100.0) == 0.1
    assert strongest_harm(lambda strength: float("nan") if strength > 1.0 else strength, 0.1, 100.0) <= 1.0
    assert strongest_harm(lambda _: 0.0, 2.0, 2.0) == 2.0


@pytest.mark.parametrize("size", [1e-300, 1e-20, 1.0, 1e200])
def test_harm(size):
    mean = size * torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert harm_of(-mean, mean, "progress") == pytest.approx(1.0)
    assert harm_of(0.5 * mean, mean, "progress") == pytest.approx(-0.5)
    assert harm_of(-mean, mean, "deviation") == pytest.approx(2.0)
    assert harm_of(mean.flip(0) * torch.tensor([1.0, -1.0]), mean, "progress") == pytest.approx(0.0, abs=1e-12)
    assert harm_of(mean, 0.0 * mean, "progress") == pytest.approx(min(5.0 * size, 5e200), abs=1e-100)
