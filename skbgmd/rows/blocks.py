"""Blocks of columns: runs of adjacent ones, or whole units such as the weights of one output of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.transfer import on_device


@dataclass(frozen=True)
class CoordinateBlock:
    """Block of columns: runs of ``length`` adjacent columns that start at multiples of ``length``.

    Attributes
    ----------
    runs : tensor of shape (r,), int64
        Numbers of the runs, ascending; run ``q`` begins at column ``q * length``.
    length : int
        Number of columns in a run; the last run of the matrix ends with the matrix.
    total : int
        Number of columns of the matrix.
    """

    runs: torch.Tensor
    length: int
    total: int

    @classmethod
    @lru_cache(maxsize=16)
    def all(cls, total: int, device: torch.device) -> CoordinateBlock:
        """All columns, as one run: a list of them would take longer to write than some steps."""
        return cls(torch.zeros(1, dtype=torch.int64, device=device), total, total)

    @property
    def device(self) -> torch.device:
        return self.runs.device

    @property
    def indices(self) -> torch.Tensor:
        """The columns, ascending."""
        if self.length == 1:
            return self.runs
        offsets = torch.arange(self.length, device=self.runs.device)
        columns = (self.runs[:, None] * self.length + offsets).flatten()
        return columns[: len(self)]

    @property
    def off_block(self) -> CoordinateBlock:
        """The other columns."""
        return _others(self)

    def __len__(self) -> int:
        if self.length >= self.total and len(self.runs):
            return self.total  # without a look at the run: it may be on another device
        full = len(self.runs) * self.length
        return full - (-self.total % self.length) if self._ends_early else full

    @property
    def _ends_early(self) -> bool:
        """The last run is the matrix's last, shorter one."""
        return self.length > 1 and (int(self.runs[-1]) + 1) * self.length > self.total


@dataclass(frozen=True)
class ParameterBlock:
    """Block of units, such as slices of a parameter, out of all units of the columns.

    Attributes
    ----------
    starts : ndarray of shape (u,), int64
        First column of each unit, ascending; a unit ends where the next one begins.
    total : int
        Number of columns in all.
    chosen : ndarray of shape (c,), int64
        Numbers of the chosen units, ascending.
    device : torch.device
        Device of the columns.
    """

    starts: NDArray[np.int64]
    total: int
    chosen: NDArray[np.int64]
    device: torch.device

    @classmethod
    def of(cls, parameters: Iterable[torch.Tensor]) -> ParameterBlock:
        """All units of parameters, one after another: slices along the first axis, and single elements of vectors."""
        starts, begin, device = [], 0, torch.device("cpu")
        for parameter in parameters:
            width = parameter.shape[1:].numel()
            starts.append(np.arange(begin, begin + parameter.numel(), max(1, width)))
            begin, device = begin + parameter.numel(), parameter.device
        found = np.concatenate(starts).astype(np.int64)
        return cls(found, begin, np.arange(len(found)), device)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Columns of each unit, chosen or not."""
        return np.diff(self.starts, append=self.total)

    @cached_property
    def _widths(self) -> NDArray[Any]:
        """The sizes as numbers to divide by, in as short a dtype as has them: of integers that takes longer."""
        return self.sizes.astype(np.float32 if self.sizes.max(initial=0) < 1 << 24 else np.float64)

    @cached_property
    def indices(self) -> torch.Tensor:
        """The columns of the chosen units, ascending."""
        starts, sizes = self.starts[self.chosen], self.sizes[self.chosen]
        ends = np.cumsum(sizes)
        columns = np.arange(len(self)) + np.repeat(starts - (ends - sizes), sizes)
        return on_device(columns, self.device)

    @cached_property
    def _stops(self) -> NDArray[np.int64]:
        """Zero, and the ends of the chosen units among their own columns."""
        return np.append(0, np.cumsum(self.sizes[self.chosen]))

    @property
    def off_block(self) -> ParameterBlock:
        """The other units."""
        mask = np.ones(len(self.starts), dtype=bool)
        mask[self.chosen] = False
        return self._of(np.flatnonzero(mask))

    def __len__(self) -> int:
        return int(self._stops[-1])

    def at(self, column: int) -> int:
        """Find the unit that begins at a column, or the number of units at the end."""
        return int(self.starts.searchsorted(column))

    def before(self, column: int) -> int:
        """Count the chosen columns before a column at which a unit begins."""
        return int(self._stops[self.chosen.searchsorted(self.at(column))])

    def top(self, scores: NDArray[Any], k: int) -> ParameterBlock:
        """Choose the units whose columns have the largest mean scores; see :meth:`choose`."""
        return self.choose(scores / self._widths, k, limits.TIED_ULPS * _rounding(scores.dtype))

    def choose(self, keys: NDArray[Any], k: int, rounding: float = 0.0) -> ParameterBlock:
        """Choose the units with the largest keys, as many as it takes for k columns; among equal keys the first.

        Keys are equal that differ by no more than ``rounding``, relative to the last one that is chosen.
        """
        # An unstable sort is several times as fast for many units, and ties are broken below.
        order = (-keys).argsort()
        n_chosen = int(self.sizes.take(order).cumsum().searchsorted(k)) + 1
        found = order[:n_chosen]
        low, high = ties_with(keys.item(found.item(-1)), rounding)
        # Units are of different sizes: which of the ties come first makes a difference even where all of them are in.
        is_tied = n_chosen > 1 and keys.item(found.item(-2)) <= high
        if is_tied or (n_chosen < len(order) and keys.item(order.item(n_chosen)) >= low):
            chosen = keys > high
            ties = np.flatnonzero((keys >= low) & (keys <= high))
            missing = k - int(self.sizes[chosen].sum())
            chosen[ties[: int(np.searchsorted(np.cumsum(self.sizes[ties]), missing)) + 1]] = True
            found = np.flatnonzero(chosen)
        else:
            found.sort()
        return self._of(found)

    def _of(self, chosen: NDArray[np.int64]) -> ParameterBlock:
        """A block of the same units, of which others are chosen."""
        # In a fraction of the time that a frozen dataclass takes to be made anew.
        block = object.__new__(ParameterBlock)
        vars(block).update(starts=self.starts, total=self.total, chosen=chosen, device=self.device, sizes=self.sizes)
        return block

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sum values of the columns (total,) over each unit, chosen or not."""
        if values.device.type == "cpu":
            # Several times as fast as torch's.
            return torch.from_numpy(np.add.reduceat(values.numpy(), self.starts))
        lengths = on_device(self.sizes, values.device)
        # Its checks of lengths, which are known to be good, would wait for the device.
        return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)

    def within(self, start: int, stop: int) -> NDArray[np.int64]:
        """Select the chosen units within the columns from ``start`` to ``stop``, counted from there."""
        first, last = self.at(start), self.at(stop)
        low, high = self.chosen.searchsorted((first, last)).tolist()
        return self.chosen[low:high] - first


@cache
def _rounding(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps)


def ties_with(key: float, rounding: float) -> tuple[float, float]:
    """Least and largest key that equal one, up to a relative difference that rounding may make.

    A choice by keys that are equal in exact arithmetic must not depend on the order in which a machine adds up.
    """
    slack = rounding * abs(key) if math.isfinite(key) else 0.0
    return key - slack, key + slack


def largest(keys: torch.Tensor, k: int, rounding: float = 0.0) -> torch.Tensor:
    """Indices of the k largest keys, ascending; among equal keys, see :func:`ties_with`, the first.

    A partition, never a sort.
    """
    if keys.device.type != "cpu":
        low, high = ties_with(float(torch.topk(keys, k, sorted=False).values.min()), rounding)
        mask = keys > high
        equal = ((keys >= low) & (keys <= high)).nonzero().flatten()
        mask[equal[: k - int(mask.sum())]] = True
        return mask.nonzero().flatten()
    values = keys.numpy()
    likely = _likely(values, k, rounding)
    some = values if likely is None else values[likely]
    low, high = ties_with(float(np.partition(some, len(some) - k)[len(some) - k]), rounding)
    chosen = some > high
    ties = np.flatnonzero((some >= low) & (some <= high))
    chosen[ties[: k - np.count_nonzero(chosen)]] = True
    return torch.from_numpy(np.flatnonzero(chosen) if likely is None else likely[chosen])


def _likely(values: NDArray[Any], k: int, rounding: float) -> NDArray[np.intp] | None:
    """Indices of at least the k largest of many values and their ties, by a sample; None: that makes them no fewer."""
    sample = values[:: max(1, len(values) // limits.THRESHOLD_SAMPLE)]
    # Three standard deviations of a share in a sample more than wanted.
    share = k / len(values)
    wanted = int(len(sample) * (share + 3.0 * (share / len(sample)) ** 0.5)) + 1
    if len(values) < 2 * limits.THRESHOLD_SAMPLE or 2 * wanted > len(sample):
        return None
    threshold = float(np.partition(sample, len(sample) - wanted)[len(sample) - wanted])
    likely = np.flatnonzero(values >= ties_with(threshold, rounding)[0])
    return likely if np.count_nonzero(values[likely] >= threshold) >= k else None


def _others(block: CoordinateBlock) -> CoordinateBlock:
    mask = torch.ones(block.total, dtype=torch.bool, device=block.device)
    mask[block.indices] = False
    return CoordinateBlock(mask.nonzero().flatten(), 1, block.total)


def sums_of_runs(values: torch.Tensor, length: int) -> torch.Tensor:
    """Sum over runs of ``length`` adjacent numbers, of which the last may be shorter.

    Examples
    --------
    >>> sums_of_runs(torch.arange(5.0), 2)
    tensor([1., 5., 4.])
    """
    return torch.nn.functional.pad(values, (0, -len(values) % length)).view(-1, length).sum(dim=1)
