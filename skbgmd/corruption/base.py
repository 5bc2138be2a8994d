"""Draws of corrupt rows that all corruptions share."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils.shares import share_of

Indices = NDArray[np.intp]


def warn_at_breakdown_point(fraction: float, stacklevel: int, found: str | None = None) -> None:
    """Warn where no rule could tell the corrupt rows from the honest ones; ``stacklevel`` counts from here."""
    if fraction >= 0.5:
        warnings.warn(
            f"No rule withstands {found or f'fraction={fraction:g}'}: with half of the rows or more corrupt, the "
            "breakdown point of 1/2 is reached.",
            UserWarning,
            stacklevel=stacklevel,
        )


def n_corrupted(fraction: float, n: int) -> int:
    r"""Number of corrupt rows among n, :math:`\lfloor \psi n \rfloor`."""
    return int(share_of(fraction, n))


def draw_rows(eligible: Indices, count: int, rng: np.random.RandomState) -> Indices:
    """Draw ``count`` of the eligible rows, in ascending order.

    Fewer rows drawn from an equal source are among those that are drawn when there are more.
    """
    return np.sort(rng.permutation(eligible)[:count])
