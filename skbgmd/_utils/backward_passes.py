"""Graphs of losses, and refusal of passes that don't give gradients back, but leave them in ``grad``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.autograd.graph import Node

#: What to say of a graph with such a node.
REENTRANT = (
    "Losses must not go through torch.utils.checkpoint with use_reentrant=True, which gives the gradients of what it "
    "runs to loss.backward() alone; found such a segment. Give it use_reentrant=False."
)


def is_reentrant(node: Node) -> bool:
    """Tell whether a node of a graph is a checkpoint that takes a backward pass of its own."""
    # Other libraries' checkpoints are of torch's name, too.
    return type(node).__name__ == "CheckpointFunctionBackward"


def refuse_reentrant(loss: torch.Tensor) -> None:
    """Refuse a loss whose graph has a checkpoint that takes a backward pass of its own.

    Without inputs that were computed torch passes over it in silence where gradients of given parameters are asked for.

    Raises
    ------
    ValueError
        There is one.
    """
    if any(map(is_reentrant, nodes_of(loss))):
        raise ValueError(REENTRANT)


def is_in_half_precision(loss: torch.Tensor) -> bool:
    """Tell whether any part of the graph of a loss is of fewer than 32 bits."""
    return any(
        found.dtype.is_floating_point and found.dtype.itemsize < torch.float32.itemsize
        for node in nodes_of(loss)
        for found in getattr(node, "_input_metadata", ())
    )


def nodes_of(loss: torch.Tensor) -> Iterator[Node]:
    """Walk the graph of a loss."""
    seen: set[Node] = set()
    left = [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        left += [source for source, _ in node.next_functions]


@contextmanager
def unwritten(parameters: Sequence[torch.Tensor]) -> Iterator[None]:
    """Refuse backward passes that write to parameters' ``grad``, which is then what it was before.

    Raises
    ------
    ValueError
        One did.
    """
    before = [parameter.grad for parameter in parameters]
    found = None
    _set(parameters, [None] * len(before))
    try:
        yield
        found = next((parameter for parameter in parameters if parameter.grad is not None), None)
    finally:
        _set(parameters, before)
    if found is not None:
        raise ValueError(
            f"Backward passes must leave grad alone; found one that wrote to that of a parameter of shape "
            f"{tuple(found.shape)}, as blocks that save memory do, such as reversible ones, which call "
            f"torch.autograd.backward inside: such gradients are those of no sample, and no rule sees them. Use "
            f"torch.utils.checkpoint with use_reentrant=False in their place, or have the block's autograd.Function "
            f"take its parameters as inputs and return their gradients."
        )


def _set(parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is not gradient:
            parameter.grad = gradient
