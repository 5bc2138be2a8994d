"""Losses that hold tensors of their own, such as weights of classes, in the dtype of a network's parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten, tree_unflatten

from skbgmd._utils.checks import FLOATS


def in_dtype_of(networks: list[nn.Module], criterion: Any) -> Any:
    """A loss whose floating point tensors have the dtype of the networks' parameters, as X has.

    Parameters
    ----------
    networks : list of modules
        Of several dtypes, tensors of any stay what they are, and others get the widest.
    criterion : loss
        Its parameters, buffers and other tensors are looked at, those in its modules, lists and dicts included.

    Returns
    -------
    criterion : loss
        The same, where all fits; otherwise a copy, which shares with it what needs no change.

    Raises
    ------
    ValueError
        Numbers that overflow in the dtype.
    """
    network = nn.ModuleList(networks)
    dtypes = {parameter.dtype for parameter in network.parameters() if parameter.dtype in FLOATS}
    return _Conversion(network, dtypes)(criterion) if dtypes else criterion


class _Conversion:
    """Conversion of a loss; what is held in several places is made once, and the networks stay themselves."""

    def __init__(self, network: nn.Module, dtypes: set[torch.dtype]) -> None:
        self._dtypes, self._dtype = dtypes, max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        self._made: dict[int, Any] = {id(module): module for module in network.modules()}

    def __call__(self, criterion: Any) -> Any:
        return self._of_object(criterion) if hasattr(criterion, "__dict__") else criterion

    def _of_object(self, held: Any) -> Any:
        if id(held) in self._made:
            return self._made[id(held)]
        self._made[id(held)] = held
        changed = {name: new for name, value in vars(held).items() if (new := self._of_tree(value)) is not value}
        if changed:
            made = object.__new__(type(held))
            # What is set in one by its name, as buffers are, isn't set in the other.
            own = {name: copy.copy(value) if isinstance(value, dict) else value for name, value in vars(held).items()}
            vars(made).update({**own, **changed})
            self._made[id(held)] = made
        return self._made[id(held)]

    def _of_tree(self, value: Any) -> Any:
        leaves, form = tree_flatten(value)
        new = [self._of_leaf(leaf) for leaf in leaves]
        return value if all(a is b for a, b in zip(new, leaves, strict=True)) else tree_unflatten(new, form)

    def _of_leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, nn.Module):
            return self._of_object(leaf)
        if not (isinstance(leaf, torch.Tensor) and self._is_other(leaf)):
            return leaf
        if id(leaf) not in self._made:
            self._made[id(leaf)] = self._cast(leaf)
        return self._made[id(leaf)]

    def _is_other(self, tensor: torch.Tensor) -> bool:
        return tensor.dtype in FLOATS and tensor.dtype not in self._dtypes and not is_lazy(tensor)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        cast = tensor.to(self._dtype)
        wrong = cast.isinf() & tensor.isfinite()
        if bool(wrong.any()):
            raise ValueError(
                f"criterion must hold numbers that are finite in the network's dtype, {self._dtype}; found "
                f"{tensor[wrong][0].item():g}."
            )
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(cast.detach(), requires_grad=tensor.requires_grad)
        return cast
