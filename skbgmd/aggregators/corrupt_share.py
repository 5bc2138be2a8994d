"""Estimate of the share of corrupt rows, from their distances and norms alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import check_rows
from skbgmd.rows import Rows


class CorruptShare(NamedTuple):
    """Estimated share of corrupt rows: by number or by weight, whichever share is larger.

    Attributes
    ----------
    estimate : float
        Share of the rows that are far, tied or opposed. It is less than a half, except for rows that hold NaN or inf.
    low, high : float
        Bounds for the visible share. They differ because one row of each tied group may be honest, and rows nearly at
        right angles to the others may be on either side. If opposed rows can't be told, ``high`` is the largest share
        below a half.
    far : float
        Share of rows far from most others, including those that hold NaN or inf.
    tied : float
        Share of rows in groups much tighter than the others; less than a half.
    opposed : float
        Share of rows that point away from most others; NaN if the rows have no common direction to tell by.
    """

    estimate: float
    low: float
    high: float
    far: float
    tied: float
    opposed: float


def estimate_corrupt_share(rows: Rows) -> CorruptShare:
    r"""Estimate the share of corrupt rows in one step, with bounds, from their distances and norms.

    The function looks for three kinds of corrupt rows, in this order, each among the rows that are left:

    - *far*: let :math:`r_i` be the median distance of row i to the others, in ascending order, and :math:`r_m` their
      lower median. The first gap above it with
      :math:`\log(r_{(j+1)} / r_{(j)}) > \max(\log 2, \tfrac{3}{2} \log(r_m / r_{(1)}))` is the limit; all rows beyond
      it are far. Scaled bit flips, noise, and rows with NaN or inf are far.
    - *tied*: distances relative to the longer row,
      :math:`\rho_{ij} = d_{ij} / \max(\lVert x_i \rVert, \lVert x_j \rVert)`, link rows if they are below a quarter of
      the upper quartile of all rows' smallest. Linked groups of fewer than half of the rows are tied. Colluding rows
      that are all equal are tied, whatever their length, unless three quarters of the rows have copies.
    - *opposed*: rows on the lesser side of the top eigenvector of the m cosines about zero are opposed, if its
      eigenvalue stands out by :math:`\lambda_1 - 1 \ge 2 \max(\lambda_2 - 1, 1 - \lambda_m)`. That is twice the value
      that noise and the spread of the rows give to the other eigenvalues. Flipped signs are opposed, as long as honest
      rows have a direction in common.

    The last test finds camps in the spectrum as for spiked matrices: Baik, Ben Arous & Péché (2005). The thresholds
    were set by measurement, on rows with Gaussian noise and gradients of a perceptron; see :doc:`/corrupt_share`.

    No rule can count rows that hide in the spread of the honest rows. ``estimate`` counts only the rows that show.

    Parameters
    ----------
    rows : Rows
        n vectors; those of weight zero don't count.

    Returns
    -------
    CorruptShare
        The same for permuted and scaled rows. All zero if all rows are equal.

    Raises
    ------
    TypeError
        If an array or a tensor is given in place of rows.

    Examples
    --------
    Two of ten rows have their signs flipped, another one is a hundred times as long.

    >>> import torch
    >>> from skbgmd.aggregators import estimate_corrupt_share
    >>> from skbgmd.rows import DenseRows
    >>> X = 1.0 + torch.randn(10, 200, generator=torch.Generator().manual_seed(0))
    >>> X[:2] *= -1.0
    >>> X[2] *= 100.0
    >>> share = estimate_corrupt_share(DenseRows(X))
    >>> share.estimate, share.far, share.opposed
    (0.3, 0.1, 0.2)
    """
    check_rows(rows)
    gram, norms, weighs = rows.gram(), rows.norms(), rows.weights > 0.0
    usable = np.flatnonzero(gram.finite & weighs)
    some = gram if len(usable) == rows.n_rows else gram.subset(usable)
    resolution = some.resolution if usable.size else 0.0
    weights = rows.weights[usable]
    looks = Looks.of(np.sqrt(some.squared_distances()), norms[usable] / gram.unit, weights, resolution)
    n, n_usable = int(weighs.sum()), len(usable)
    # Fewer than half of the rows that are left can be told from the others.
    lost = max(1.0 - n_usable / max(n, 1), 1.0 - float(weights.sum()) / max(float(rows.weights.sum()), 1e-300))
    most = max(0, (n_usable - 1) // 2) / max(n_usable, 1)

    def share(mask: BoolArray) -> float:
        return max(float(mask.mean()), float(weights[mask].sum() / weights.sum())) if mask.any() else 0.0

    def of_all(found: float) -> float:
        return lost + (1.0 - lost) * min(found, most)

    return CorruptShare(
        of_all(share(looks.far | looks.tied | looks.opposed)),
        of_all(share(looks.least)),
        of_all(most if looks.is_blind else share(looks.most)),
        of_all(share(looks.far)),
        min(share(looks.tied), most) * (1.0 - lost),
        float("nan") if looks.is_blind else share(looks.opposed) * (1.0 - lost),
    )


class Looks(NamedTuple):
    """Rows that look corrupt, each by what it looks like.

    Attributes
    ----------
    far, tied, opposed : ndarray of shape (n,), bool
        No row is two of them.
    least, most : ndarray of shape (n,), bool
        Those that are without doubt, and those that may be.
    is_blind : bool
        True where opposed rows can't be told.
    """

    far: BoolArray
    tied: BoolArray
    opposed: BoolArray
    least: BoolArray
    most: BoolArray
    is_blind: bool

    @classmethod
    def of(cls, distances: FloatArray, norms: FloatArray, weights: FloatArray, resolution: float = 0.0) -> Looks:
        """Look at rows by their distances (n, n) and norms (n,), of which those below a resolution count as equal.

        Weights (n,) decide where numbers of rows don't.
        """
        n = len(norms)
        if n and float(distances.max()) <= resolution:
            # Rows that are all equal, or all zero, point away from none.
            nowhere = np.zeros(n, dtype=bool)
            return cls(nowhere, nowhere, nowhere, nowhere, nowhere, is_blind=False)
        far = far_rows(distances, resolution)
        left = np.flatnonzero(~far)
        groups = tied_groups(distances[np.ix_(left, left)], norms[left], resolution)
        tied, spared = np.zeros((2, n), dtype=bool)
        tied[left] = groups >= 0
        # Of rows that copy an honest one it is honest itself: the heaviest one, for a lower bound.
        by_weight = np.argsort(-weights[left], kind="stable")
        _, first = np.unique(groups[by_weight], return_index=True)
        spared[left[by_weight[first]]] = True
        left = np.flatnonzero(~(far | tied))
        found = opposed_rows(distances[np.ix_(left, left)], norms[left], weights[left])
        opposed, least, most = np.zeros((3, n), dtype=bool)
        if found is not None:
            for mask, part in zip((opposed, least, most), found, strict=True):
                mask[left] = part
        shown = far | tied
        return cls(far, tied, opposed, far | (tied & ~spared) | least, shown | most, found is None)


def far_rows(distances: FloatArray, resolution: float = 0.0) -> BoolArray:
    """Mask of the rows beyond the first large gap among the rows' median distances to the others."""
    n = len(distances)
    far = np.zeros(n, dtype=bool)
    if n < 3:
        return far
    # A row itself is among the distances, so that this is the lower median of the others.
    typical = np.partition(distances, n // 2, axis=1)[:, n // 2]
    order = np.argsort(typical, kind="stable")
    sizes = np.log(np.maximum(typical[order], max(resolution, 1e-300)))
    median = (n - 1) // 2
    gap = max(limits.FAR_GAP, limits.FAR_GAP_SPREADS * (sizes[median] - sizes[0]))
    # A gap of just so much is none, whatever logarithms are rounded to.
    gaps = np.flatnonzero(np.diff(sizes[median:]) > gap + limits.LEAST_STRENGTH)
    if gaps.size:
        far[order[median + 1 + gaps[0] :]] = True
    return far


def tied_groups(distances: FloatArray, norms: FloatArray, resolution: float = 0.0) -> FloatArray:
    """Number of the tight group that each row is in, or -1: of fewer than half of the rows, and of several.

    Distances below a resolution are those of copies. Where so many rows have one that honest ones have, none is tied.
    """
    n = len(norms)
    if n < 3:
        return np.full(n, -1)
    longer = np.maximum(norms[:, None], norms)
    # What is left of rounding isn't a difference.
    apart = np.where(distances > resolution, distances, 0.0)
    apart = np.divide(apart, longer, out=np.zeros((n, n)), where=longer > 0.0)
    np.fill_diagonal(apart, np.inf)
    # Fewer than half are corrupt: this is a distance between honest rows.
    nearest = np.sort(apart.min(axis=1))[3 * (n - 1) // 4]
    groups = connected_components(apart < limits.TIGHT * nearest, directed=False)[1]
    sizes = np.bincount(groups)[groups]
    return np.where((sizes > 1) & (2 * sizes < n), groups, -1)


@one_thread_of_products()
def opposed_rows(
    distances: FloatArray, norms: FloatArray, weights: FloatArray
) -> tuple[BoolArray, BoolArray, BoolArray] | None:
    """Masks of the rows that point away from most: by sign, beyond rounding by noise, and up to it; None if none can.

    Of two halves it is that of less weight.

    The cosines about zero follow from distances and norms,
    :math:`2 c_{ij} = (n_i^2 + n_j^2 - d_{ij}^2) / (n_i n_j)`.
    """
    n = len(norms)
    if n < limits.CAMP_ROWS:
        return None
    with np.errstate(all="ignore"):  # of norms out of range, or zero, which have no direction
        ratio = norms[:, None] / norms
        doubled = ratio + ratio.T - (distances / norms) * (distances / norms[:, None])
    cosines = np.clip(0.5 * np.nan_to_num(doubled), -1.0, 1.0)
    np.fill_diagonal(cosines, 1.0)
    values, vectors = np.linalg.eigh(cosines)
    strength = values[-1] - 1.0
    if strength <= 0.0 or strength < limits.DIRECTION_GAP * max(values[-2] - 1.0, 1.0 - values[0]):
        return None
    along = vectors[:, -1]
    # What is left of rounding is on neither side.
    along = np.where(np.abs(along) > limits.LEAST_STRENGTH, along, 0.0)
    along = along if _is_most(along, weights) else -along
    rest = cosines - strength * np.outer(along, along)
    # A row's entry is a sum of its cosines, whose errors are as large as what the eigenvector leaves of them.
    noise = 2.0 * float(np.sqrt(np.mean(rest[np.triu_indices(n, 1)] ** 2))) / strength
    return along < 0.0, along < -noise, along < noise


def _is_most(along: FloatArray, weights: FloatArray) -> bool:
    """True if more rows are positive than negative; of as many, if more weight is; of as much, by their sum."""
    side, other = along > 0.0, along < 0.0
    if side.sum() != other.sum():
        return bool(side.sum() > other.sum())
    weight, weight_other = float(weights[side].sum()), float(weights[other].sum())
    # Sums of weights differ by their order.
    if abs(weight - weight_other) > limits.LEAST_STRENGTH * (weight + weight_other):
        return weight > weight_other
    return float(along.sum()) > 0.0
