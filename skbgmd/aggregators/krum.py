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

    The score of a row is the sum of its squared distances to its :math:`n - f - 2` nearest other rows. The rule
    averages the ``n_selected`` rows with the lowest scores. A row is no neighbor of its own, and at least one neighbor
    counts, however few the rows.

    The number of rows assumed corrupt is :math:`f = \lceil \psi n \rceil`, but at most
    :math:`\lfloor (n - 3) / 2 \rfloor`, as Krum's condition :math:`2 f + 2 < n` demands. With a larger f, rows that
    equal each other would have no other neighbors, and would win. With this limit no minority of equal rows wins,
    wherever it is. Krum's theorem holds for as many corrupt rows as the condition allows.

    Parameters
    ----------
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of the last steps
        (see :func:`estimate_corrupt_share`), or 0 if that estimate is zero. "auto" is blind to rows that hide in the
        spread of the others.
    n_selected : int, default=1
        Number of rows to average: 1 is Krum, more is multi-Krum. At most :math:`n - f` rows are used.
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
