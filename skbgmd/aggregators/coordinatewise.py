"""Aggregators that reduce each column by itself: median and trimmed mean."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from skbgmd._utils.cumulated_weights import in_units
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import Aggregate, Aggregator, check_rows, refuse_state, usable_rows
from skbgmd.rows import Rows


class Coordinatewise(Aggregator):
    """Base class of rules that reduce each sorted column by itself, a chunk of columns at a time; without state."""

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        self._validate()
        check_rows(rows)
        refuse_state(self, state)
        usable = usable_rows(rows, rows.finite)
        rows = rows if len(usable) == rows.n_rows else rows.subset(usable)
        equal = bool(np.all(rows.weights == rows.weights[0]))
        reduced = []
        for _, chunk in rows.column_chunks():
            dtype = torch.float64 if chunk.dtype == torch.float64 else torch.float32
            # A copy even where the transpose is contiguous: it is sorted in place.
            lines = chunk.to(dtype).T.clone(memory_format=torch.contiguous_format)
            reduced.append(self._reduce(_sorted(lines)) if equal else self._reduce_weighted(lines, rows.weights))
        return Aggregate(torch.cat(reduced)), None

    def _reduce_weighted(self, lines: torch.Tensor, weights: FloatArray) -> torch.Tensor:
        values, order = lines.sort(dim=1)
        units = in_units(weights)
        mass = on_device(units, lines.device)[order].cumsum(dim=1)
        return (
            (values * self._shares(mass, int(units.sum())).to(values.dtype))
            .sum(dim=1)
            .clamp(values[:, 0], values[:, -1])
        )

    def _validate(self) -> None:
        """Check the hyperparameters."""

    @abstractmethod
    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        """One number from each line of sorted values (m, n) of equal weight."""

    @abstractmethod
    def _shares(self, mass: torch.Tensor, total: int) -> torch.Tensor:
        """Weights (m, n) of sorted values from their cumulated weights and the total, in units; a line's sum is one."""


def _sorted(lines: torch.Tensor) -> torch.Tensor:
    if lines.device.type == "cpu":
        # NumPy sorts short lines with vector instructions, several times faster than torch.
        values = lines.numpy()
        values.sort(axis=1)
        return lines
    return lines.sort(dim=1).values
