"""Adjacent slices: batches of a dataset, groups of a batch, pieces of a group."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray


class Slices(tuple[slice, ...]):
    """Adjacent slices, with lengths and tables that are computed once.

    Examples
    --------
    >>> Slices([slice(0, 3), slice(3, 5)]).lengths
    array([3, 2])
    """

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([part.stop - part.start for part in self], dtype=np.int64)

    @cached_property
    def shortest(self) -> int:
        return int(self.lengths.min())

    @cached_property
    def longest(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def table(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Indices of each slice, a line each (s, longest), padded with the last one; and a mask without the padding.

        Examples
        --------
        >>> index, used = Slices([slice(0, 3), slice(3, 5)]).table
        >>> index.tolist(), used.tolist()
        ([[0, 1, 2], [3, 4, 4]], [[True, True, True], [True, True, False]])
        """
        lengths, places = self.lengths[:, None], np.arange(self.longest)
        starts = np.array([[part.start] for part in self])
        return starts + np.minimum(places, lengths - 1), places < lengths


@lru_cache(maxsize=64)
def even_slices(n: int, parts: int) -> Slices:
    """Cut ``range(n)`` into slices whose lengths differ by one at most, longer ones first."""
    length, longer = divmod(n, parts)
    stops = np.cumsum([length + (part < longer) for part in range(parts)]).tolist()
    return Slices(slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))
