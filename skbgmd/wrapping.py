"""A robust training step for a skorch net that exists: same class, same settings, another step."""

from __future__ import annotations

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
