"""Errors of trainings that can't go on: the part of a step that is not finite, and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from skorch import NeuralNet
from skorch.dataset import unpack_data
from torch.utils._pytree import tree_leaves

from skbgmd._utils.checks import listed
from skbgmd.rows import Rows
from skbgmd.training._data.scaling import scale_ratio, scaling_advice


def explanation(
    net: Any,
    batch: Any,
    rows: Rows,
    parameters: list[torch.Tensor],
    losses: torch.Tensor,
    predicted: Any,
) -> str:
    """Name the part of a step that is not finite first: parameters, data, predictions, losses or gradients.

    Parameters
    ----------
    net : RobustNeuralNet
        The net that is trained.
    batch : tuple
        Samples and targets of the step.
    rows : Rows
        Gradients of the groups.
    parameters : list of tensors
        Whose gradients these are, in their order.
    losses : tensor of shape (g,)
        Losses of the groups.
    predicted : tensor, or tensors in containers
        What the module gave.
    """
    X, y = unpack_data(batch)
    data = {"X": X, "y": y}
    reason = diverged(net, parameters, data) or _of_data(net, data)
    if reason is not None:
        return reason
    when = _when(net)
    if not _is_finite(predicted):
        largest = _largest(parameters)
        told = "" if largest is None else f", whose largest parameter is {largest:.1g}"
        return (
            f"{_begin(when, 'predictions')} are not finite, though the data are: numbers overflow in the module{told}. "
            f"{_ADVICE}"
        )
    if not _is_finite(losses):
        kind = type(net._criterion()).__name__
        largest = _largest(predicted)
        told = "" if largest is None else f", the largest of which is {largest:.1g},"
        return f"{_begin(when, 'loss')} {kind} is not finite, though predictions{told} and targets are. {_ADVICE}"
    bad = _of_bad_gradients(net, rows, parameters)
    if not bad:
        return f"{_begin(when, 'gradients')} are so large that their lengths overflow. {_ADVICE}"
    if getattr(net, "gradient_corruption", None) is not None:
        return f"{_begin(when, 'gradients')} of {_listed(bad)} are not finite after {net.gradient_corruption}."
    return f"{_begin(when, 'gradients')} of {_listed(bad)} are not finite, though the losses are. {_ADVICE}"


def diverged(net: NeuralNet, parameters: list[torch.Tensor], data: dict[str, Any]) -> str | None:
    """Name the parameters that are not finite, or the data that made them so; None where all are finite.

    Parameters
    ----------
    net : NeuralNet
        The net that is trained.
    parameters : list of tensors
        Some or all of its parameters.
    data : dict of str to arrays, or to anything that holds them
        What it was trained on.
    """
    bad = [name for name, parameter in _named(net, parameters) if not _is_finite(parameter)]
    if not bad:
        return None
    of_data = _of_data(net, data)
    if of_data is not None:
        return of_data
    found = f"{_begin(_when(net), 'parameters')} {_listed(bad)} are not finite: the training diverged. {_ADVICE}"
    X = data.get("X")
    advice = scaling_advice(scale_ratio(X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else X))
    return f"{found} {advice}".rstrip()


def _of_data(net: NeuralNet, data: dict[str, Any]) -> str | None:
    for name, values in data.items():
        if not _is_finite(values):
            return f"{_begin(_when(net), 'data')} are not finite: {name} holds NaN or inf."
    return None


_ADVICE = "A smaller lr, or data and targets of smaller numbers, may prevent it."


def _when(net: NeuralNet) -> str:
    epoch = len(getattr(net, "history_", []) or [])
    return f"In epoch {epoch} " if epoch else ""


def _begin(when: str, what: str) -> str:
    return f"{when}the {what}" if when else f"The {what}"


def _named(net: NeuralNet, parameters: list[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    names = {id(parameter): name for name, parameter in net.get_all_learnable_params()}
    for number, parameter in enumerate(parameters):
        yield names.get(id(parameter), f"number {number}"), parameter


def _of_bad_gradients(net: NeuralNet, rows: Rows, parameters: list[torch.Tensor]) -> list[str]:
    """Names of the parameters whose gradients are not finite in the first row that isn't."""
    row = rows.row(int(np.argmin(rows.finite)))
    parts = torch.split(row, [parameter.numel() for parameter in parameters])
    return [name for (name, _), part in zip(_named(net, parameters), parts, strict=True) if not _is_finite(part)]


def _largest(values: Any) -> float | None:
    """Size of the largest number in some finite tensors; None where there is no number."""
    sizes = [
        float(numbers.detach().abs().max())
        for leaf in tree_leaves(values)
        for numbers in _numbers(leaf)
        if isinstance(numbers, torch.Tensor) and numbers.numel() > 0
    ]
    return max(sizes, default=None)


def _is_finite(values: Any) -> bool:
    for leaf in tree_leaves(values):
        for numbers in _numbers(leaf):
            isfinite: Any = torch.isfinite if isinstance(numbers, torch.Tensor) else np.isfinite
            if not bool(isfinite(numbers).all()):
                return False
    return True


def _numbers(leaf: Any) -> Iterator[torch.Tensor | NDArray[Any]]:
    """The numbers in a tensor, an array, a series or a data frame that may be NaN or inf."""
    if isinstance(leaf, torch.Tensor):
        if leaf.is_sparse:
            leaf = leaf.coalesce().values()
        elif leaf.layout != torch.strided:
            leaf = leaf.values()
        if leaf.is_floating_point() or leaf.is_complex():
            yield leaf
    elif hasattr(leaf, "iloc"):
        columns = [leaf.iloc[:, place] for place in range(leaf.shape[1])] if leaf.ndim == 2 else [leaf]
        for column in columns:
            if getattr(column.dtype, "kind", "O") in "fiub":
                yield column.to_numpy(dtype=np.float64, na_value=np.nan)
    elif isinstance(leaf, float):
        yield np.array(leaf)
    else:
        held: Any = leaf
        values = getattr(held, "data", None) if issparse(leaf) else held
        if isinstance(values, np.ndarray) and values.dtype.kind in "fc":
            yield values


def _listed(names: list[str]) -> str:
    return listed([repr(name) for name in names])
