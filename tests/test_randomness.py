"""Sources of random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.randomness import random_source, torch_generator

CPU = torch.device("cpu")


def test_a_seed_is_repeatable_and_a_source_is_used_up():
    assert random_source(3).randint(1000) == random_source(3).randint(1000)
    for source in (np.random.RandomState(0), np.random.default_rng(0)):
        first, second = (random_source(source).randint(2**31 - 1) for _ in range(2))
        assert first != second


def test_none_is_a_fresh_source():
    assert random_source(None) is not np.random.mtrand._rand
    assert random_source(None).randint(2**31 - 1) != random_source(None).randint(2**31 - 1)


def test_other_things_are_no_source():
    with pytest.raises(ValueError, match="cannot be used to seed"):
        random_source("seed")


@pytest.mark.parametrize("make", [lambda: 5, lambda: np.random.RandomState(5), lambda: np.random.default_rng(5)])
def test_a_torch_generator_follows_its_source(make):
    first, second = (torch.randn(3, generator=torch_generator(make(), CPU)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(3, generator=torch_generator(6, CPU)))
