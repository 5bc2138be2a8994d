"""Spectral filter: the mean after filtering along the direction of largest variance."""

from __future__ import annotations

from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.assumed_share import Fraction, FractionWeighting
from skbgmd.location.spectral import spectral_weights
from skbgmd.rows import Rows


class SpectralFilter(FractionWeighting):
    r"""Spectral filter: mean after repeated filtering along the direction of largest variance.

    This is the iterative filter of Diakonikolas et al. (2017), as used by Sever (2019) and, with a breakdown point of
    1/4, by Data and Diggavi (2020). In each round it multiplies the weight of a row by
    :math:`1 - \tau_i / \max_j \tau_j`. Here :math:`\tau_i` is the squared projection of the centered row on the top
    eigenvector of the weighted covariance, which comes from the Gram matrix. The filter stops when the share
    ``fraction`` of the weight is gone.

    Parameters
    ----------
    fraction : float or "auto", default=0.2
        Share of the weight to remove, in [0, 0.5). "auto": one row more than the largest estimate of the last steps
        (see :func:`estimate_corrupt_share`), or 0 if that estimate is zero. "auto" is blind to rows that hide in the
        spread of the others.
    threshold : float, default=None
        Stop earlier, once the direction of largest variance has no more than ``threshold`` / √r of all variance, where
        r is the number of directions with any; positive. Clean rows then keep most of their weight. Without a
        threshold, corrupt rows that lie close together may outlive honest ones, once the directions of large variance
        are those of honest rows. None: never stop earlier.
    """

    def __init__(self, fraction: Fraction = 0.2, threshold: float | None = None) -> None:
        self.fraction, self.threshold = fraction, threshold

    def _validate(self) -> None:
        super()._validate()
        if self.threshold is not None:
            check_number(self.threshold, "threshold")

    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        return spectral_weights(rows.gram().products, rows.weights, fraction, self.threshold)
