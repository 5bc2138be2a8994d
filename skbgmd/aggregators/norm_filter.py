"""Norm filter (comparative gradient elimination): the mean without the rows of largest norm."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.checks import check_flag
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.assumed_share import Fraction, FractionWeighting
from skbgmd.aggregators.base import mean_of_selected, n_assumed_corrupt
from skbgmd.rows import Rows


class NormFilter(FractionWeighting):
    r"""Norm filter (comparative gradient elimination): mean of the rows without those of largest norm.

    Drops :math:`f = \lceil \psi n \rceil` rows (less than half). Blind to a row of ordinary length that points the
    wrong way. Ghosh et al. (2019); Gupta et al. (2020), comparative gradient elimination.

    Parameters
    ----------
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of
        the last steps, see :func:`estimate_corrupt_share`, if that isn't zero; blind to what hides in the rows' spread.
    both_tails : bool, default=False
        Drop as many rows of the smallest norms too, which leaves the mean of those of middling length.
    """

    def __init__(self, fraction: Fraction = 0.4, both_tails: bool = False) -> None:
        self.fraction, self.both_tails = fraction, both_tails

    def _validate(self) -> None:
        super()._validate()
        check_flag(self.both_tails, "both_tails")

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        f = n_assumed_corrupt(fraction, rows.n_rows)
        kept = np.argsort(rows.norms(), kind="stable")[f if self.both_tails else 0 : rows.n_rows - f]
        return mean_of_selected(kept, rows)
