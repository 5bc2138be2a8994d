"""Norm filter (comparative gradient elimination): the mean without the rows of largest norm."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import RowWeighting, check_fraction, mean_of_selected, n_assumed_corrupt
from skbgmd.rows import Rows


class NormFilter(RowWeighting):
    r"""Norm filter (comparative gradient elimination): mean of the rows without those of largest norm.

    Drops :math:`f = \lceil \psi n \rceil` rows (less than half). Blind to a row of ordinary length that points the
    wrong way. Ghosh et al. (2019); Gupta et al. (2020), comparative gradient elimination.

    Parameters
    ----------
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).
    both_tails : bool, default=False
        Drop as many rows of the smallest norms too, which leaves the mean of those of middling length.
    """

    def __init__(self, fraction: float = 0.4, both_tails: bool = False) -> None:
        self.fraction, self.both_tails = fraction, both_tails

    def _validate(self) -> None:
        check_fraction(self.fraction)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows) -> FloatArray:
        f = n_assumed_corrupt(self.fraction, rows.n_rows)
        kept = np.argsort(rows.norms(), kind="stable")[f if self.both_tails else 0 : rows.n_rows - f]
        return mean_of_selected(kept, rows)
