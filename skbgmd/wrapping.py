"""A robust training step for a skorch net that exists: same class, same settings, another step."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from sklearn.base import clone
from skorch import NeuralNet
from torch.utils.data import DataLoader

from skbgmd.batches import ArrayLoader
from skbgmd.net import _RobustTraining


@cache
def robust_class(base: Any) -> Any:
    """A subclass of a skorch net's class with the robust training step; the class itself if it has that already."""
    if issubclass(base, _RobustTraining):
        return base
    return type(f"Robust{base.__name__}", (_RobustTraining, base), {"__reduce__": _reduce, "__module__": __name__})


def copied(net: NeuralNet) -> NeuralNet:
    """A net to go on with, while the given one stays as it is; they share their callbacks.

    skorch's own way to a copy is a pickle, which classes made in functions and many callbacks don't allow.
    """
    twin: NeuralNet = object.__new__(type(net))
    twin.__dict__.update(net.__dict__)
    parts = [f"{name}_" for name in (*net._modules, *net._criteria, *net._optimizers, "history", "aggregator")]
    # All at once: an optimizer holds the parameters of a module.
    twin.__dict__.update(copy.deepcopy({name: vars(net)[name] for name in parts}))
    return twin


def wrapped(net: NeuralNet, **robust: Any) -> NeuralNet:
    """A new net with the settings of ``net`` and a robust training step.

    Parameters
    ----------
    net : NeuralNet
        An unfitted skorch net; it is not changed.
    **robust
        Parameters of :class:`skbgmd.RobustNeuralNet`.

    Raises
    ------
    ValueError
        The net has data of its own.
    """
    if not callable(net.dataset):
        raise ValueError(f"The net's dataset must be a class, to be made of what is trained on; found {net.dataset!r}.")
    params = clone(net).get_params(deep=False)
    for name in ("iterator_train", "iterator_valid"):
        # The default collates sample by sample and doesn't say which samples these are.
        if params.get(name) is DataLoader:
            params[name] = ArrayLoader
            if name == "iterator_valid":
                params.setdefault("iterator_valid__apart", True)
    base: Any = type(net)
    robust_net: NeuralNet = robust_class(base)(**{**params, **robust})
    return robust_net


def _reduce(net: Any) -> Any:
    # A class made here can't be looked up by its name.
    base: Any = type(net).__mro__[2]
    return _rebuild, (base,), net.__getstate__()


def _rebuild(base: Any) -> Any:
    made = robust_class(base)
    return made.__new__(made)
