"""Sleeper: when it attacks, and how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix, same
from sklearn.base import clone

from skbgmd.corruption import (
    ALittleIsEnough,
    AttackContext,
    BitFlip,
    Mimic,
    NonFinite,
    SearchedInnerProduct,
    Simplex,
    Sleeper,
)


@pytest.mark.parametrize("attack", [None, BitFlip(), NonFinite(), Mimic(target=3), Simplex()])
def test_it_wakes_up_as_the_attack_that_it_wraps(attack):
    gradients, fixed = matrix(), [1, 3, 7]
    sleeper = Sleeper(attack=attack, n_honest_steps=5, corrupt=fixed)
    for step in range(5):
        attacked = gradients.clone()
        assert sleeper.apply_(attacked, 0, AttackContext(step=step)).tolist() == []
        assert torch.equal(attacked, gradients)
    inner = (ALittleIsEnough() if attack is None else clone(attack)).set_params(corrupt=fixed)
    for context in (AttackContext(step=5), AttackContext(step=50), None):
        assert same(sleeper(gradients, 0, context), inner(gradients, 0))


def test_rows_are_drawn_as_those_of_the_attack():
    gradients = matrix(20)
    found = Sleeper(0.3, BitFlip(fraction=0.0), n_honest_steps=0)(gradients, np.random.RandomState(4))
    assert torch.equal(found, BitFlip(0.3)(gradients, np.random.RandomState(4)))


def test_the_attack_gets_the_context():
    gradients, asked = matrix(20), []

    def aggregate(rows):
        asked.append(rows)
        return rows.mean(dim=0)

    sleeper = Sleeper(0.4, SearchedInnerProduct(), n_honest_steps=2)
    sleeper(gradients, 0, AttackContext(aggregate, step=1))
    assert not asked
    sleeper(gradients, 0, AttackContext(aggregate, step=2))
    assert asked
