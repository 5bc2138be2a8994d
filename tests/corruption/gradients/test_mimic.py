"""Mimic copies one honest row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacking import matrix

from skbgmd.corruption import AttackContext, Mimic, Sleeper


@pytest.mark.parametrize("target", [0, 7])
def test_mimic_copies_the_same_row_at_every_step(target):
    gradients, source = matrix(), np.random.RandomState(0)
    for _ in range(20):
        attacked = gradients.clone()
        corrupt = Mimic(fraction=0.4, target=target).apply_(attacked, random_state=source)
        assert target not in corrupt
        assert torch.equal(attacked[corrupt], gradients[target].expand(len(corrupt), -1))


def test_mimic_follows_the_worker_that_it_copies():
    gradients, attack = matrix(4), Mimic(target=3, corrupt=[1])
    for workers, place in (((1, 2, 3, 8), 2), ((3, 1, 4, 5), 0)):
        context = AttackContext(workers=workers)
        attacked = attack(gradients, context=context)
        for others in (list(workers), np.array(workers), torch.tensor(workers)):
            assert torch.equal(attack(gradients, context=AttackContext(workers=others)), attacked)
        assert torch.equal(attacked[workers.index(1)], gradients[place])
        assert torch.equal(
            Sleeper(attack=Mimic(target=3), corrupt=[1], n_honest_steps=0)(gradients, context=context), attacked
        )
    # Nobody is there to be copied.
    assert torch.equal(attack(gradients, context=AttackContext(workers=(0, 1, 2, 4))), gradients)
    assert attack.absent([1]) == Sleeper(attack=attack, corrupt=[1]).absent([1]) == [3]
