"""The experiment of the demonstration, in small."""

from __future__ import annotations

import dataclasses
import math
import signal

import numpy as np
import pytest
import torch

from skbgmd import BlockGMDClassifier
from skbgmd.inspection import demonstration
from skbgmd.inspection.demonstration import (
    CHANCE,
    CLEAN,
    FRACTIONS,
    KINDS,
    METHODS,
    TRAININGS,
    Outcome,
    cases,
    corrupt,
    digits,
    run,
    subset,
    train,
)


@pytest.fixture(scope="module")
def data():
    return subset(digits(0), 200, 0)


def test_the_digits(data):
    whole = digits(0)
    assert (len(whole.X_train), len(whole.X_test)) == (768, 1029)
    assert (whole.X_train.min(), whole.X_train.max()) == (0.0, 1.0)
    assert whole.X_train.dtype == np.float32
    assert len(data.X_train) == 200
    assert not np.array_equal(digits(1).X_train, whole.X_train)
    assert len(np.unique(whole.y_test)) == round(1 / CHANCE)


@pytest.mark.parametrize(("kind", "fraction"), cases())
def test_corruption_is_what_it_says(data, kind, fraction):
    X, y, attack = corrupt(kind, fraction, data.X_train, data.y_train, 0)
    changed = {"features": (data.X_train != X).any(axis=1), "labels": y != data.y_train}
    for name, mask in changed.items():
        assert mask.sum() == (round(fraction * 200) if kind == name else 0)
    assert (attack is not None) == (kind == "gradients")
    assert attack is None or attack.fraction == fraction


def test_the_cases_begin_clean():
    assert cases()[0] == (CLEAN, 0.0)
    assert cases()[1:] == [(kind, fraction) for kind in KINDS for fraction in FRACTIONS]
    assert Outcome(CLEAN, 0.0, "plain training", 0, math.nan, 1.0).diverged


def test_the_default_is_the_estimator_as_it_comes(data):
    assert TRAININGS["digits"] == {}
    assert METHODS["skbgmd's default"].parameters == {}
    own = BlockGMDClassifier(random_state=3).fit(data.X_train, data.y_train)
    model = train(data.X_train, data.y_train, TRAININGS["digits"], "skbgmd's default", seed=3)
    # So many samples and epochs that held-out samples choose.
    assert model.strength_ == own.strength_ is not None
    assert torch.equal(*(one.module_.state_dict()["0.weight"] for one in (model, own)))


@pytest.fixture(scope="module")
def outcomes(data):
    seen = []
    found = run({0: data, 5: data}, {"max_epochs": 25}, fractions=[0.4], n_jobs=1, progress=lambda: seen.append(1))
    assert len(seen) == len(found)
    return found


def without_times(outcomes):
    return [dataclasses.replace(outcome, seconds=0.0) for outcome in outcomes]


def test_every_method_under_every_corruption_with_every_seed(outcomes):
    assert [(one.kind, one.fraction, one.method, one.seed) for one in outcomes] == [
        (kind, fraction, method, seed) for kind, fraction in cases([0.4]) for method in METHODS for seed in (0, 5)
    ]
    worst = {}
    for one in outcomes:
        worst.setdefault((one.kind, one.method), []).append(one.accuracy)
    assert min(worst[CLEAN, "plain training"]) > 0.8
    assert max(worst["gradients", "plain training"]) < 0.4
    assert max(worst["gradients", "paper's BGMD"]) < 0.4
    for kind in ("features", "gradients"):
        assert min(worst[kind, "skbgmd's default"]) > 0.7
    seeds = [[one.accuracy for one in outcomes if one.seed == seed] for seed in (0, 5)]
    assert seeds[0] != seeds[1]


def test_processes_give_what_one_gives(data):
    training = {"max_epochs": 2}
    alone, apart = (run({0: data, 1: data}, training, fractions=[0.2], n_jobs=n_jobs) for n_jobs in (1, 2))
    assert without_times(alone) == without_times(apart)


def test_what_is_set_stays_as_it_was(data):
    threads, mask = torch.get_num_threads(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    torch.set_num_threads(2)
    try:
        run({0: data}, {"max_epochs": 1}, fractions=[], n_jobs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_what_overflows_has_diverged(data, monkeypatch):
    wild = {"optimizer": torch.optim.SGD, "lr": 1e30, "max_epochs": 3}
    monkeypatch.setattr(demonstration, "METHODS", {"plain training": METHODS["plain training"]})
    (outcome,) = run({0: data}, wild, fractions=[], n_jobs=1)
    assert outcome.diverged


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_between_ends_the_others(data, error):
    """Without joblib's warning of trainings that it ends."""
    seen = []

    def progress():
        seen.append(1)
        raise error

    with pytest.raises(error):
        run({0: data}, {"max_epochs": 1}, n_jobs=1, progress=progress)
    assert len(seen) == 1
