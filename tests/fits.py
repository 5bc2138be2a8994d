"""Estimators that are quick to fit, for tests of them."""

from __future__ import annotations

from skorch import NeuralNet
from skorch.callbacks import Callback

from skbgmd import BlockGMDClassifier


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
