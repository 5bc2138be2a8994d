"""Remainders of compressed gradients (error feedback), kept by the names of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Part:
    """Parameters whose gradients are exchanged together, such as a bucket, and what is kept of them.

    Attributes
    ----------
    layout : dict of str to int
        Names of the parameters and their numbers of elements, in the order of the vector.
    remainder : tensor of shape (d,)
        What this rank has not sent yet, in the vector's dtype, or in float32 for half precision.
    step : int
        Number of exchanges so far.
    state : object
        State of the aggregation rule.
    """

    layout: dict[str, int]
    remainder: torch.Tensor
    step: int = 0
    state: Any = None

    def pieces(self) -> dict[str, torch.Tensor]:
        """Remainder of each parameter, by name."""
        return dict(zip(self.layout, torch.split(self.remainder, list(self.layout.values())), strict=True))


def regroup(parts: Sequence[Part], layout: Mapping[str, int], like: torch.Tensor) -> tuple[Part, list[Part]]:
    """Collect the remainders of a layout's parameters from the parts that have them.

    A parameter that no part has begins with a remainder of zero. What the layout leaves of a part, such as parameters
    that are frozen for now, stays a part of its own.

    Parameters
    ----------
    parts : sequence of Part
        No two with a parameter in common.
    layout : mapping of str to int
        Names of the parameters and their numbers of elements.
    like : tensor
        Of the dtype and device that the remainder is to have.

    Returns
    -------
    part : Part
        Of this layout. Its rule begins anew where the parameters of no part are the same in the same order.
    others : list of Part

    Raises
    ------
    ValueError
        A parameter with another number of elements than before.

    Examples
    --------
    >>> bucket = Part({"weight": 2, "bias": 1}, torch.tensor([1.0, 2.0, 3.0]), step=5)
    >>> part, others = regroup([bucket], {"bias": 1, "scale": 1}, bucket.remainder)
    >>> part.remainder, part.step, [other.layout for other in others]
    (tensor([3., 0.]), 5, [{'weight': 2}])
    """
    order = list(layout.items())
    for part in parts:
        if list(part.layout.items()) == order:
            moved = Part(part.layout, part.remainder.to(like), part.step, part.state)
            return moved, [other for other in parts if other is not part]
    givers = [part for part in parts if part.layout.keys() & layout.keys()]
    pieces = {name: piece for part in givers for name, piece in part.pieces().items()}
    for name, size in order:
        if name in pieces and len(pieces[name]) != size:
            raise ValueError(
                f"layout must give parameter {name!r} as many elements as before, {len(pieces[name])}; found {size}."
            )
    found = [pieces.pop(name).to(like) if name in pieces else like.new_zeros(size) for name, size in order]
    step = max((part.step for part in givers), default=0)
    others = [part for part in parts if all(part is not giver for giver in givers)]
    if pieces:
        rest = {name: len(piece) for name, piece in pieces.items()}
        others.append(Part(rest, torch.cat(list(pieces.values())), step))
    return Part(dict(order), torch.cat([like.new_zeros(0), *found]), step), others
