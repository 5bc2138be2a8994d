"""Sources of random numbers."""

from __future__ import annotations

import copy
import io
import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from skbgmd._utils.random import (
    check_random_source,
    generator_states,
    generators_of,
    random_source,
    seeded,
    set_generator_states,
    step_seed,
    torch_generator,
)

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
    with pytest.raises(ValueError, match="random_state must be an integer from 0"):
        random_source("seed")
    with pytest.raises(ValueError, match=r"random_state must be an integer from 0 to .*; found -1"):
        random_source(-1)


@pytest.mark.parametrize("make", [lambda: 5, lambda: np.random.RandomState(5), lambda: np.random.default_rng(5)])
def test_a_torch_generator_follows_its_source(make):
    first, second = (torch.randn(3, generator=torch_generator(make(), CPU)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(3, generator=torch_generator(6, CPU)))


def test_seeding_leaves_the_generators_as_they_were(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA generators were seeded"))
    before = torch.get_rng_state()
    with seeded(3, "cpu"):
        first = torch.rand(4)
    with seeded(3, "cpu"):
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_seeding_a_device():
    before = torch.cuda.get_rng_state()
    with seeded(3, "cuda"):
        first = torch.rand(4, device="cuda")
    with seeded(3, "cuda"):
        assert torch.equal(torch.rand(4, device="cuda"), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_global_generators_are_put_to_where_they_were():
    before = generator_states()
    file = io.BytesIO()
    torch.save(before, file)
    file.seek(0)
    draws = [(torch.rand(1).item(), np.random.normal(), random.gauss(0.0, 1.0))]
    set_generator_states(torch.load(file, weights_only=True))
    # Both normal draws come in pairs, of which one is kept for the next time.
    draws += [(torch.rand(1).item(), np.random.normal(), random.gauss(0.0, 1.0))]
    middle = generator_states()
    draws += [(torch.rand(1).item(), np.random.normal(), random.gauss(0.0, 1.0))]
    set_generator_states(middle)
    draws += [(torch.rand(1).item(), np.random.normal(), random.gauss(0.0, 1.0))]
    set_generator_states(before)
    assert draws[0] == draws[1]
    assert draws[2] == draws[3] != draws[1]


def test_generators_of_a_loader_and_its_samplers():
    one, two, three = (torch.Generator() for _ in range(3))
    X = torch.zeros(6, 1)
    sampler = BatchSampler(RandomSampler(X, generator=one), 2, False)
    assert set(generators_of(DataLoader(X, batch_sampler=sampler, generator=two))) == {one, two}
    weighted = WeightedRandomSampler([0.5] * 6, 6, generator=three)
    assert generators_of(DataLoader(X, sampler=weighted, generator=three)) == [three]
    assert generators_of(DataLoader(X, shuffle=True, generator=torch.default_generator)) == []
    assert generators_of([X]) == []


def test_step_seed():
    assert step_seed(None, 3) is None
    assert step_seed(1, 2).integers(1 << 30) == step_seed(1, 2).integers(1 << 30)
    assert step_seed(1, 2).integers(1 << 30) != step_seed(1, 3).integers(1 << 30)


@pytest.mark.parametrize("given", ["x", 1.5, -1, [-1]], ids=str)
def test_what_makes_no_generator_is_refused(given):
    with pytest.raises(ValueError, match=r"random_state must be an integer of at least 0, .*; found"):
        torch_generator(given, torch.device("cpu"))


def test_checks_draw_nothing():
    for source in (np.random.RandomState(0), np.random.default_rng(0)):
        before = copy.deepcopy(source)
        check_random_source(source)
        assert source.bytes(4) == before.bytes(4)
    check_random_source(None)
