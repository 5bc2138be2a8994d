"""Estimators that are quick to fit, for tests of them, and what a choice of a strength may note."""

from __future__ import annotations

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback

from skbgmd import BlockGMDClassifier
from skbgmd.training._strength.held_out_labels import HeldOutLabels


def quick(**settings):
    # A skorch net has epochs of its own.
    epochs = {} if isinstance(settings.get("module"), NeuralNet) else {"max_epochs": 10}
    return BlockGMDClassifier(
        **{
            **epochs,
            "hidden_layer_sizes": (8,),
            "group_size": 8,
            "pre_aggregation": None,
            "random_state": 0,
            **settings,
        }
    )


def states(estimator):
    return {name: value.clone() for name, value in estimator.module_.state_dict().items()}


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) >= 2 and getattr(Fails, "armed", False):
            raise RuntimeError("in the middle")


def held_out_labels_of(n: int, share: float, *, slope: float = 50.0, seed: int = 0) -> HeldOutLabels:
    """Labels of a logistic model, a share of them the other one, and what the model says; a third aren't held out."""
    rng = np.random.default_rng(seed)
    odds = slope * rng.normal(size=n)
    label = (rng.random(n) < 1 / (1 + np.exp(-odds))) ^ (rng.random(n) < share)
    found = np.stack([odds > 0, 1 / (1 + np.exp(-np.abs(odds))), label != (odds > 0)]).astype(float)
    found[:, rng.random(n) < 1 / 3] = np.nan
    return HeldOutLabels(*found, np.full(n, np.nan))
