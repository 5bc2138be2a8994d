"""The experiment of the demonstration, in small."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from skbgmd.inspection.demonstration import (
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
)


@pytest.fixture(scope="module")
def data():
    return subset(digits(0), 200, 0)


def test_the_digits(data):
    whole = digits(0)
    assert (len(whole.X_train), len(whole.X_test)) == (1000, 797)
    assert (whole.X_train.min(), whole.X_train.max()) == (0.0, 1.0)
    assert whole.X_train.dtype == np.float32
    assert len(data.X_train) == 200
    assert not np.array_equal(digits(1).X_train, whole.X_train)


@pytest.mark.parametrize(("kind", "fraction"), cases())
def test_corruption_is_what_it_says(data, kind, fraction):
    X, y, attack = corrupt(kind, fraction, data.X_train, data.y_train, 0)
    changed = {"features": (data.X_train != X).any(axis=1), "labels": y != data.y_train}
    for name, mask in changed.items():
        assert mask.sum() == (round(fraction * 200) if kind == name else 0)
    assert (attack is not None) == (kind == "gradients")
    assert attack is None or attack.fraction == fraction


def test_every_rule_under_every_corruption(data):
    seen = []
    training = dataclasses.replace(TRAININGS["digits"], epochs=6)
    outcomes = list(run(data, training, seed=0, progress=seen.append))
    assert [(o.kind, o.fraction, o.method) for o in outcomes] == [
        (kind, fraction, method) for kind, fraction in cases() for method in METHODS
    ]
    assert sum(seen) == len(cases()) * len(METHODS) * 6 * 200
    accuracy = {(o.kind, o.fraction, o.method): o.accuracy for o in outcomes}
    assert accuracy[CLEAN, 0.0, "SGD"] > 0.5
    flipped = accuracy["gradients", 0.4, "SGD"]
    assert math.isnan(flipped) or flipped < 0.4
    assert accuracy["gradients", 0.4, "BGMD, groups"] > 0.5
    assert accuracy["features", 0.4, "BGMD"] > 0.5
    again = next(run(data, training, seed=0))
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(outcomes[0], seconds=0.0)


def test_the_cases_begin_clean():
    assert cases()[0] == (CLEAN, 0.0)
    assert cases()[1:] == [(kind, fraction) for kind in KINDS for fraction in FRACTIONS]
    assert Outcome(CLEAN, 0.0, "SGD", math.nan, 1.0).diverged
