"""Per-sample gradients of a convolution's kernel, written out in the order in which patches are fast to copy."""

from __future__ import annotations

import torch

from skbgmd.ghost.factors.base import IntArray
from skbgmd.ghost.factors.dense import DenseFactor


class KernelFactor(DenseFactor):
    """Per-sample gradients of a convolution's kernel written out, with the channels as the last axis.

    Patches whose channels are adjacent are copied several times as fast, and the order of the columns makes no
    difference to products of the rows.

    Parameters
    ----------
    values : tensor of shape (n, units, places, channels)
        The gradient of each row; the parameter has the shape (units, channels, places).
    """

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__(values)
        self.places, self.channels = values.shape[2:]

    def _like(self, values: torch.Tensor) -> KernelFactor:
        return KernelFactor(values.reshape(len(values), -1, self.places, self.channels))

    def _ordered(self, vectors: torch.Tensor) -> torch.Tensor:
        """Reorder vectors (..., units * width) of the order of ``values`` to that of the parameter."""
        shape = (*vectors.shape[:-1], -1, self.places, self.channels)
        return vectors.reshape(shape).transpose(-1, -2).flatten(-3)

    def explicit(self, part: slice) -> torch.Tensor:
        return self._ordered(self._stored(part))

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        return self.values @ vector.view(-1, self.channels, self.places).transpose(1, 2).reshape(-1)

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(self._ordered(torch.mv(self.values.T, weights)))

    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        found = torch.empty_like(out)
        super().weighted_sum_by_block(on_units, elsewhere, units, found)
        out.copy_(self._ordered(found))

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        return self._ordered(super().column_scores(weights))

    def entries(self, unit: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        channel, at = place // self.places, place % self.places
        return self.values[:, unit * self.width + at * self.channels + channel]
