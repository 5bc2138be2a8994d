"""Names of types in skops files, each of which is there."""

from __future__ import annotations

import importlib
from functools import reduce

import numpy as np
import pytest
import skops.io

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import AGGREGATORS, HuberMean
from skbgmd.training import SKOPS_TRUSTED


def test_names_are_of_things_that_are_there():
    missing = []
    for name in SKOPS_TRUSTED:
        parts = name.split(".")
        n = next(n for n in range(len(parts) - 1, 0, -1) if _module(".".join(parts[:n])))
        if reduce(lambda thing, part: getattr(thing, part, None), parts[n:], _module(".".join(parts[:n]))) is None:
            missing.append(name)
    # Of two names that NumPy has had for one thing, a version may lack one; plain skorch has one only with pandas.
    of_numpy = {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    assert set(missing) <= of_numpy


def test_parameters_may_be_numbers_of_numpy(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    model = BlockGMDClassifier(lr=np.logspace(-3, -2, 2)[0], aggregator=HuberMean(np.float64(2.0)), max_epochs=2)
    skops.io.dump(model.fit(X, y), tmp_path / "model.skops")
    loaded = skops.io.load(tmp_path / "model.skops", trusted=SKOPS_TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def _module(name):
    try:
        return importlib.import_module(name)
    except (ImportError, DeprecationWarning):
        return None


@pytest.mark.parametrize("name", AGGREGATORS)
def test_rules_are_among_them(name):
    kind = type(AGGREGATORS[name]())
    assert f"{kind.__module__}.{kind.__name__}" in SKOPS_TRUSTED


@pytest.mark.parametrize(
    "name",
    [
        *("builtins.eval", "builtins.getattr", "builtins.exec", "posix.system", "torch.serialization.load"),
        # Plain nets unpickle what they hold, and a checkpoint writes files.
        *("skorch.net.NeuralNet", "skorch.classifier.NeuralNetClassifier", "skorch.callbacks.training.Checkpoint"),
    ],
)
def test_what_could_run_code_is_not(name):
    assert name not in SKOPS_TRUSTED
