"""Krum and multi-Krum: the mean of the rows closest to their neighbors."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.checks import check_integer
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.assumed_share import Fraction, FractionWeighting
from skbgmd.aggregators.base import mean_of_selected, n_assumed_corrupt
from skbgmd.rows import Rows


class Krum(FractionWeighting):
    r"""Krum and multi-Krum: mean of the rows that lie closest to their neighbors. Blanchard et al. (2017).

    The score of a row is the sum of its squared distances to its :math:`n - f - 2` nearest other rows; the
    ``n_selected`` rows of least score are averaged. The row itself is no neighbor of its own; at least one neighbor
    counts, however few the rows. :math:`f = \lceil \psi n \rceil`, but no more than Krum's condition
    :math:`2 f + 2 < n` allows, :math:`\lfloor (n - 3) / 2 \rfloor`: with f larger, rows that equal each other would
    have no other neighbors, and win. So no minority of equal rows wins, wherever it is; what Krum's theorem says of the
    answer holds for as many corrupt rows as the condition allows.

    Parameters
    ----------
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of
        the last steps, see :func:`estimate_corrupt_share`, if that isn't zero; blind to what hides in the rows' spread.
    n_selected : int, default=1
        Rows to average: 1 is Krum, more is multi-Krum. At most :math:`n - f` are used.
    """

    def __init__(self, fraction: Fraction = 0.4, n_selected: int = 1) -> None:
        self.fraction, self.n_selected = fraction, n_selected

    def _validate(self) -> None:
        super()._validate()
        check_integer(self.n_selected, "n_selected")

    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        n = rows.n_rows
        if n == 1:
            return np.ones(1)
        f = max(0, min(n_assumed_corrupt(fraction, n), (n - 3) // 2))
        distances = rows.gram().squared_distances()
        np.fill_diagonal(distances, np.inf)
        neighbors = max(1, n - f - 2)
        # Divided first: the sum of the largest numbers overflows.
        scores = (np.partition(distances, neighbors - 1, axis=1)[:, :neighbors] / neighbors).sum(axis=1)
        selected = np.argsort(scores, kind="stable")[: min(self.n_selected, n - f)]
        return mean_of_selected(selected, rows)
