"""Division of columns among the ranks: each part of the columns is cut into as many pieces as there are ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class ColumnShards:
    """Division of columns, one part after another, of which every rank holds an adjacent piece of each.

    With one part a rank holds one range of the columns. With a part for each parameter, which rank holds what doesn't
    depend on how the parameters are grouped in buckets.

    Parameters
    ----------
    sizes : tuple of int
        Columns of each part.
    n_ranks : int
        Number of ranks.

    Examples
    --------
    >>> shards = ColumnShards((4, 3), 2)
    >>> shards.held(0), shards.held(1)
    ([slice(0, 2, None), slice(4, 6, None)], [slice(2, 4, None), slice(6, 7, None)])
    >>> shards.split(torch.arange(7)[None])
    tensor([[[0, 1, 4, 5]],
    <BLANKLINE>
            [[2, 3, 6, 0]]])
    """

    sizes: tuple[int, ...]
    n_ranks: int

    @classmethod
    def of(cls, columns: int | Sequence[int], n_ranks: int) -> ColumnShards:
        """Divide a number of columns, or parts of so many each."""
        return cls((columns,) if isinstance(columns, int) else tuple(columns), n_ranks)

    @property
    def n_columns(self) -> int:
        """Columns of all parts."""
        return sum(self.sizes)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Columns of a piece of each part; those of the last ranks may be padded."""
        return tuple(-(-size // self.n_ranks) for size in self.sizes)

    @property
    def width(self) -> int:
        """Columns of a shard, padding included."""
        return sum(self.widths)

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        """The first column of each part, and of its piece in a padded shard."""
        starts, offsets = (np.cumsum((0, *numbers)).tolist() for numbers in (self.sizes, self.widths))
        return list(zip(starts[:-1], offsets[:-1], strict=True))

    def held(self, rank: int) -> list[slice]:
        """Columns that a rank holds, a slice of each part."""
        parts = zip(self.sizes, self.widths, self._starts, strict=True)
        return [
            slice(start + min(rank * width, size), start + min((rank + 1) * width, size))
            for size, width, (start, _) in parts
        ]

    def split(self, rows: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Sort the columns of rows (m, d) by rank, padded with zeros, (n_ranks, m, width)."""
        padded = rows.new_zeros((self.n_ranks, len(rows), self.width), dtype=dtype or rows.dtype)
        for size, width, (start, offset) in zip(self.sizes, self.widths, self._starts, strict=True):
            whole, rest = divmod(size, max(1, width))
            if whole:
                pieces = rows[:, start : start + whole * width].reshape(len(rows), whole, width)
                padded[:whole, :, offset : offset + width] = pieces.transpose(0, 1)
            if rest:
                padded[whole, :, offset : offset + rest] = rows[:, start + size - rest : start + size]
        return padded

    def join(self, padded: torch.Tensor) -> torch.Tensor:
        """Put the shards of all ranks (n_ranks, width) together, (d,)."""
        if len(self.sizes) == 1:
            return padded.flatten()[: self.sizes[0]]
        joined = padded.new_empty(self.n_columns)
        for size, width, (start, offset) in zip(self.sizes, self.widths, self._starts, strict=True):
            whole, rest = divmod(size, max(1, width))
            if whole:
                pieces = joined[start : start + whole * width].view(whole, width)
                pieces.copy_(padded[:whole, offset : offset + width])
            if rest:
                joined[start + size - rest : start + size] = padded[whole, offset : offset + rest]
        return joined

    def unpad(self, shard: torch.Tensor, rank: int) -> torch.Tensor:
        """Drop the padding from a rank's shard (m, width), (m, k)."""
        held = self.held(rank)
        if len(held) == 1:
            return shard[:, : held[0].stop - held[0].start]
        if sum(part.stop - part.start for part in held) == self.width:
            return shard
        parts = zip(held, self._starts, strict=True)
        return torch.cat([shard[:, offset : offset + part.stop - part.start] for part, (_, offset) in parts], dim=1)

    def pad(self, shard: torch.Tensor, rank: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Pad a rank's shard (k,) with zeros, (width,)."""
        padded, at = shard.new_zeros(self.width, dtype=dtype or shard.dtype), 0
        for part, (_, offset) in zip(self.held(rank), self._starts, strict=True):
            size = part.stop - part.start
            padded[offset : offset + size] = shard[at : at + size]
            at += size
        return padded
