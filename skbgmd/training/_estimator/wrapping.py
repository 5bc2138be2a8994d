"""A robust training step for a skorch net that exists: same class, same settings, another step."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from sklearn.base import clone
from skorch import NeuralNet
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training.nets import _RobustTraining


@cache
def robust_class(base: Any) -> Any:
    """A subclass of a skorch net's class with the robust training step; the class itself if it has that already."""
    if issubclass(base, _RobustTraining):
        return base
    return type(_robust_name(base), (_RobustTraining, base), {"__reduce__": _reduce, "__module__": __name__})


def __getattr__(name: str) -> Any:
    """A class that :func:`robust_class` makes, by its name, for those who save it by that: pickle and skops.

    Raises
    ------
    AttributeError
        No skorch net's class, of those that were imported, has such a name, or several have.
    """
    bases = [] if name.startswith("__") else [base for base in _nets(NeuralNet) if _robust_name(base) == name]
    if len(bases) != 1:
        found = "none; import the module that defines it first" if not bases else f"{len(bases)}: {bases}"
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}: a class of nets must have that name without 'Robust'; "
            f"found {found}."
        )
    return robust_class(bases[0])


def _robust_name(base: Any) -> str:
    return f"Robust{base.__name__}"


def _nets(base: Any) -> list[Any]:
    """A class of nets and those derived from it, without those that have the robust step."""
    derived = [net for kind in base.__subclasses__() if not issubclass(kind, _RobustTraining) for net in _nets(kind)]
    return list(dict.fromkeys([base, *derived]))


def deep_copies(parts: dict[str, Any]) -> dict[str, Any]:
    """Copies of modules, states and other things that know nothing of the originals.

    Torch itself copies no tensors that were computed, such as an activation that a module keeps to be looked at.
    """
    kept = [
        value
        for part in parts.values()
        for held in (map(vars, part.modules()) if isinstance(part, nn.Module) else (part,))
        for value in tree_leaves(held)
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(parts, {id(value): value.detach().clone() for value in kept})


def copied(net: NeuralNet) -> NeuralNet:
    """A net to go on with, while the given one stays as it is; they share their callbacks.

    skorch's own way to a copy is a pickle, which classes made in functions and many callbacks don't allow.
    """
    twin: NeuralNet = object.__new__(type(net))
    parts = {name: getattr(net, f"{name}_") for name in (*net._modules, *net._criteria, "aggregator")}
    # Epochs that are over don't change, and there may be thousands of them, one for each small part of a stream.
    history = copy.copy(net.history_)
    last = history.to_list()[-1:]
    copies = deep_copies({**parts, "history": last})
    history[len(history) - len(last) :] = copies["history"]
    copies["history"] = history
    twin.__dict__.update({**net.__dict__, "virtual_params_": dict(net.virtual_params_)})
    twin.__dict__.update({f"{name}_": part for name, part in copies.items()})
    # Both change in place.
    twin._check_, twin._trust_ = copy.deepcopy(net._check_), copy.deepcopy(net._trust_)
    # Made anew, with the hooks and attributes that a copy of it wouldn't have.
    twin.initialize_optimizer()
    # Torch's optimizers take the tensors of a state as they are, and change them in place.
    states = deep_copies({name: getattr(net, f"{name}_").state_dict() for name in net._optimizers})
    for name, state in states.items():
        getattr(twin, f"{name}_").load_state_dict(state)
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
    base: Any = type(net).__bases__[1]
    return _rebuild, (base,), net.__getstate__()


def _rebuild(base: Any) -> Any:
    made = robust_class(base)
    return made.__new__(made)
