"""Loss of a net on samples of the user's at displaced parameters, after which the net is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.utils import multi_indexing

from skbgmd._utils.random import seeded


class DisplacedLoss:
    """Loss of a net on some samples at its parameters plus a displacement, as its validation step has it.

    The net is in evaluation mode for it, and its random draws are the same each time. Parameters, buffers, modes and
    the global random generators are then as they were.

    Parameters
    ----------
    net : RobustNeuralNet
        The net that is trained.
    parameters : sequence of tensors
        The parameters that are displaced, in the order of the columns.
    X, y : tensors, or tensors in containers
        A batch to train on, in whose dtypes and shapes other samples are put.
    """

    def __init__(self, net: Any, parameters: Sequence[torch.Tensor], X: Any, y: Any) -> None:
        self.net, self.parameters, self.X, self.y = net, parameters, X, y

    @property
    def lr(self) -> float:
        """Learning rate of the training."""
        return float(self.net._learning_rate())

    def on(self, samples: tuple[Any, Any], index: NDArray[np.intp]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Mean loss on the samples (X, y) of these indices, as a function of a displacement (d,) of the parameters."""
        net, (X, y) = self.net, (multi_indexing(part, index) for part in samples)
        batch = _like(X, self.X), _like(y, self.y)
        divisor = len(index) if getattr(net._criterion(), "reduction", "mean") == "sum" else 1

        def at(displacement: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), _restored(net), seeded(0, net.device), displaced(self.parameters, displacement):
                loss: torch.Tensor = net.validation_step(batch)["loss"]
            return loss / divisor

        return at


@contextmanager
def displaced(parameters: Sequence[torch.Tensor], displacement: torch.Tensor) -> Iterator[None]:
    """Add a vector (d,) to parameters for a while; they get the very bits back that they had.

    Raises
    ------
    ValueError
        A displacement of another length.
    """
    sizes = [parameter.numel() for parameter in parameters]
    if len(displacement) != sum(sizes):
        raise ValueError(
            f"A displacement must have the length of all parameters, {sum(sizes)}; found {len(displacement)}."
        )
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, part in zip(parameters, torch.split(displacement, sizes), strict=True):
                parameter.add_(part.view(parameter.shape).to(parameter.device, parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, start in zip(parameters, before, strict=True):
                parameter.copy_(start)


@contextmanager
def _restored(net: Any) -> Iterator[None]:
    """Put the modes of a net's modules, and their buffers, back to what they were."""
    parts = [module for _, part in net._learning_parts() for module in part.modules()]
    modes = [module.training for module in parts]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in parts
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, mode in zip(parts, modes, strict=True):
            module.training = mode
        for module, name, buffer, before in buffers:
            # A module may have put another tensor in its place.
            module._buffers[name] = buffer.copy_(before)


def _like(values: Any, like: Any) -> Any:
    """Put samples (n, ...) in the dtype and the shape of those in a batch, unless that has them in containers."""
    if not isinstance(like, torch.Tensor):
        return values
    plain = values if isinstance(values, torch.Tensor) else torch.tensor(np.asarray(values), device="cpu")
    return plain.to(like).reshape(len(values), *like.shape[1:])
