"""The trust in samples: mean weights that a rule gave them in a training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skbgmd.training._groups import GroupedBatch


class SampleTrust:
    """Weights of samples, added up over the steps of a training by their places in the dataset.

    Parameters
    ----------
    sums : ndarray of shape (2, n), default=None
        Sums of weights, and how many they are of, as an earlier training left them.
    """

    def __init__(self, sums: NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros((2, 0)) if sums is None else sums
        #: Whether places are those in the data that the training was given.
        self.has_places = True

    def add(self, batch: GroupedBatch, of_group: NDArray[np.float64]) -> None:
        """Add the weights of the groups (g,), one as in a plain mean, to what their samples had."""
        if batch.positions is None or not self.has_places:
            return
        size = int(batch.positions.max()) + 1
        if self.sums.shape[1] < size:
            self.sums = np.pad(self.sums, ((0, 0), (0, 2 * size - self.sums.shape[1])))
        np.add.at(self.sums[0], batch.positions, np.repeat(of_group, batch.slices.lengths))
        np.add.at(self.sums[1], batch.positions, 1.0)

    def means(self, n: int) -> NDArray[np.float64]:
        """Mean weight of each of the first n samples; NaN where none is known."""
        sums = np.pad(self.sums, ((0, 0), (0, max(0, n - self.sums.shape[1]))))[:, :n]
        means: NDArray[np.float64] = np.where(sums[1] > 0.0, sums[0] / np.maximum(sums[1], 1.0), np.nan)
        return means
