"""Trust in workers by the mean products of their rows: coordinates, votes, and means of nearest rows."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.huber_mean import HuberMean
from skbgmd.location.huber import huber_weights
from skbgmd.rows import DenseRows
from skbgmd.rows.gram import low_median, lower_weighted_median


def worker_coordinates(products: FloatArray, met: BoolArray | None = None) -> FloatArray:
    r"""Coordinates of workers by the eigenvectors of their mean products that stand out of the noise.

    Off the diagonal, products of independent noise are a random matrix, whose eigenvalues fill a semicircle of radius
    :math:`R = 2 s \sqrt n` [1]_. Eigenvalues :math:`\lambda` with :math:`|\lambda| > R` are kept, as
    :math:`\sqrt{\lambda^2 - R^2}`, the best guess of what they were without noise [2]_. R is the smaller of two
    estimates: by the median of :math:`|\lambda|`, which is 0.404 R and is left alone by camps of few dimensions; and by
    s from the median absolute deviations in the rows of the matrix, which fewer than half of the workers can't spoil.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        Symmetric; the diagonal isn't looked at.
    met : ndarray of shape (n, n), bool, default=None
        Pairs of which there are products; None: all.

    Returns
    -------
    coordinates : ndarray of shape (n, r)
        One row for each worker; r is at most n, and 0 where nothing stands out.

    References
    ----------
    .. [1] Wigner (1958). On the distribution of the roots of certain symmetric matrices. Annals of Mathematics.
    .. [2] Shabalin and Nobel (2013). Reconstruction of a low-rank matrix in the presence of Gaussian noise. Journal of
       Multivariate Analysis.

    Examples
    --------
    Two camps:

    >>> camp = np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    >>> noise = np.random.default_rng(0).normal(size=(6, 6)) / 20
    >>> worker_coordinates(np.outer(camp, camp) + noise + noise.T)[:, -1].round(1)
    array([-2.4, -2.5, -2.3, -2.4,  1.8,  1.8])
    """
    n = len(products)
    known = ~np.eye(n, dtype=bool) if met is None else met & ~np.eye(n, dtype=bool)
    if n < 3 or not known.any():
        return np.zeros((n, 0))
    # What isn't known is like the rest of its row, the diagonal too, or of all rows.
    has_known = known.any(axis=1)
    typical = np.full(n, np.median(products[known]))
    typical[has_known] = _row_medians(products, known)
    full = np.where(known, products, 0.5 * (typical[:, None] + typical))
    deviations = _row_medians(np.abs(products - typical[:, None]), known)
    by_rows = 2.0 * float(np.median(deviations)) / limits.NORMAL_MAD * np.sqrt(n)
    for _ in range(limits.COMPLETIONS):
        values, vectors = np.linalg.eigh(full)
        by_values = float(low_median(np.abs(values))) / limits.SEMICIRCLE_MEDIAN
        edge = min(by_values, by_rows)
        strength = np.sqrt(np.maximum(values**2 - edge**2, 0.0))
        # What is left of rounding isn't a difference.
        kept = strength > limits.LEAST_STRENGTH * float(np.abs(values).max())
        found = vectors[:, kept]
        # The diagonal is as the rest says that it should be.
        np.fill_diagonal(full, np.square(found) @ (np.sign(values[kept]) * strength[kept]))
    coordinates: FloatArray = found * strength[kept]
    # Workers that differ by rounding only are in one place.
    unit = np.ldexp(1.0, np.frexp(np.abs(coordinates).max(initial=0.0))[1])
    places: FloatArray = np.round(coordinates / unit, limits.TIED_DIGITS) * unit
    return places


def norm_in_honest_range(norms: FloatArray, weights: FloatArray, votes: FloatArray, kept: int) -> float:
    """Median norm by votes, but neither longer than all honest rows nor shorter, whatever the votes are.

    It is at least the median without votes, and at most ten of these and the `kept`-th smallest norm. Fewer than half
    of the rows can't make the median longer than all others or shorter, nor n - `kept` the `kept`-th smallest norm
    longer. By votes, which depend on what is remembered, they can. Votes are there for corrupt rows next to zero, which
    are half of all along with a few honest ones that have learned their samples.

    Parameters
    ----------
    norms, weights, votes : ndarray of shape (n,)
    kept : int
        Number n - f of rows that are honest at least.

    Returns
    -------
    norm : float
        0 where rows of half of the weight or more are zero.

    Examples
    --------
    Four of nine rows have most of the votes:

    >>> norms = np.array([1e9, 1e9, 1e9, 1e9, 1.0, 2.0, 3.0, 4.0, 5.0])
    >>> norm_in_honest_range(norms, np.ones(9), np.where(norms > 5.0, 1.0, 0.2), kept=5)
    5.0
    """
    median, by_votes = (lower_weighted_median(norms, each) for each in (weights, weights * votes))
    longest = min(limits.FAR_WORKER * median, float(np.sort(norms)[kept - 1]))
    return max(median, min(by_votes, longest))


def most_trusted(places: FloatArray, kept: int) -> BoolArray:
    """Choose the workers whose means of nearest rows have the largest weights in Huber's mean, all with a vote each.

    Parameters
    ----------
    places : ndarray of shape (n, r)
        Coordinates of the workers.
    kept : int
        Number n - f of workers that are honest at least: so many are chosen, and those that are trusted as much.

    Returns
    -------
    chosen : ndarray of shape (n,), bool

    Examples
    --------
    >>> most_trusted(np.array([[0.0], [0.1], [0.2], [9.0], [9.1]]), kept=3)
    array([ True,  True,  True, False, False])
    """
    equal = np.ones(len(places))
    trust = huber_trust(mean_of_nearest(places, equal, equal, kept) @ places, equal)
    # Less than what the solver leaves isn't a difference.
    chosen: BoolArray = trust >= np.sort(trust)[-kept] - limits.TRUST_TOL
    return chosen


@one_thread_of_products()
def worker_votes(
    products: FloatArray, kept: int, met: BoolArray | None = None, witnesses: BoolArray | None = None
) -> FloatArray:
    r"""Votes of workers: one each, but those that are copies of each other share one.

    Workers that send what was agreed upon have the same products with others, however unrelated their rows look to each
    other; honest workers with data of their own don't. With :math:`D_{ij}^2` the mean of
    :math:`(\bar K_{ik} - \bar K_{jk})^2` over the others k, and :math:`\delta` the median worker's distance from the
    nearest other, which is an honest one's or more as long as fewer than half are copies, worker i has :math:`c_i`
    copies within :math:`\delta / 2`, itself included, and

    .. math:: \min(1, \; c_{(n - f)} / c_i)

    votes, :math:`c_{(n - f)}` the (n - f)-th smallest of all: where most have copies, none is suspicious for that. If c
    corrupt workers share a vote, at most :math:`f - c + 1` votes are corrupt, and as many are left out of a mean over
    :math:`n - f`. Honest workers with the same data share one, too.

    Copies are so by all others, and by the ``witnesses`` among them alone. A corrupt worker that follows an honest one
    has a product with it that nobody else has: followed workers would look unlike each other, and the rest, being
    alike, like copies.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        Symmetric; the diagonal isn't looked at.
    kept : int
        Number n - f of workers that are honest at least.
    met : ndarray of shape (n, n), bool, default=None
        Pairs of which there are products; None: all.
    witnesses : ndarray of shape (n,), bool, default=None
        Workers that are trusted; None: all.

    Returns
    -------
    votes : ndarray of shape (n,)
        In (0, 1].

    Examples
    --------
    Three of seven workers are alike, and the others aren't:

    >>> own = np.random.default_rng(0).normal(size=(7, 100))
    >>> own[:3] = own[3:].mean(axis=0)
    >>> worker_votes(own @ own.T, kept=4).round(2)
    array([0.33, 0.33, 0.33, 1.  , 1.  , 1.  , 1.  ])
    """
    n = len(products)
    if not n:
        return np.ones(0)
    others = ~np.eye(n, dtype=bool) if met is None else met & ~np.eye(n, dtype=bool)
    alike = _alike(products, others)
    if witnesses is not None:
        alike &= _alike(products, others & witnesses)
    copies = 1.0 + alike.sum(axis=1)
    votes: FloatArray = np.minimum(1.0, np.sort(copies)[kept - 1] / copies)
    return votes


def mean_of_nearest(places: FloatArray, weights: FloatArray, votes: FloatArray, kept: int) -> FloatArray:
    """Matrix (m, m) of the means over the rows of the nearest workers, themselves included; lines add up to one.

    Each mean is over as many rows as have `kept` votes.
    """
    m, weights = len(places), weights * votes
    if not places.shape[1]:
        return np.broadcast_to(weights / weights.sum(), (m, m)).copy()
    distances = ((places[:, None] - places) ** 2).sum(axis=2)
    # Among workers that are as near, each begins with the next one: none is in more means than others.
    following = (np.arange(m)[:, None] + np.arange(m)) % m
    order = np.argsort(np.take_along_axis(distances, following, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(following, order, axis=1)
    before = np.cumsum(votes[nearest], axis=1) - votes[nearest]
    mixing = np.zeros((m, m))
    # Thirteen thirteenths are one but for rounding.
    np.put_along_axis(mixing, nearest, np.where(before < kept - limits.LEAST_STRENGTH, weights[nearest], 0.0), axis=1)
    # Where rows without weight are all that is near, it is the mean of all.
    mixing[~mixing.any(axis=1)] = weights
    result: FloatArray = mixing / mixing.sum(axis=1, keepdims=True)
    return result


def huber_trust(places: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights of the means by Huber's location of their coordinates: those of a minority are far from it."""
    if not places.shape[1]:
        return weights
    rows = DenseRows(torch.from_numpy(np.ascontiguousarray(places)), weights)
    line = _on_line(places)
    if line is None:
        trust: FloatArray = len(weights) * HuberMean(tol=limits.TRUST_TOL).weights(rows)
        return trust
    # With half of the weight on either side of a gap any point within is a median: which one is found is a matter of
    # the rows' order.
    gram = rows.gram(weights / weights.sum())
    distances = np.abs(line - _middle(line, weights)) / gram.unit
    limit = lower_weighted_median(distances, weights)
    trust = len(weights) * huber_weights(gram, weights, distances, limit, tol=limits.TRUST_TOL, max_iter=100)
    return trust


def merge_equal(lines: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Merge equal lines, which are the same mean: a median needs it once, and alone where it has most of the weight.

    Means of the same rows are no distance apart, which products of the rows tell only but for rounding.

    Parameters
    ----------
    lines : ndarray of shape (m, n)
    weights : ndarray of shape (m,)

    Returns
    -------
    distinct : ndarray of shape (k, n)
        One line, if its weight and that of its copies is more than half of all.
    total : ndarray of shape (k,)
        Weights of the distinct lines.

    Examples
    --------
    >>> lines = np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> merge_equal(lines, np.array([1.0, 2.0, 0.5, 1.0]))
    (array([[0. , 1. ],
           [0.5, 0.5],
           [1. , 0. ]]), array([1. , 1.5, 2. ]))
    >>> merge_equal(lines, np.array([1.0, 2.0, 1.5, 0.2]))
    (array([[0.5, 0.5]]), array([2.5]))
    """
    distinct, place = np.unique(lines, axis=0, return_inverse=True)
    total: FloatArray = np.bincount(place.ravel(), weights).astype(np.float64)
    most = int(total.argmax())
    # With just half of it, the median is anywhere between that mean and another.
    if total[most] > limits.MORE_THAN_HALF * total.sum():
        return distinct[[most]], total[[most]]
    return distinct, total


def _alike(products: FloatArray, others: BoolArray) -> BoolArray:
    """Pairs (n, n) of workers whose products with the others, a mask of each row, are the same."""
    shared = others.astype(np.float64)
    known = products * shared
    squares, counts = np.square(known) @ shared.T, shared @ shared.T
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = (squares + squares.T - 2.0 * known @ known.T) / counts
    # What is left of rounding isn't a difference; nothing is known of two that have met no third.
    distances[distances < limits.LEAST_STRENGTH * np.square(known).max(initial=0.0)] = 0.0
    distances[(counts == 0.0) | np.eye(len(products), dtype=bool)] = np.inf
    near = limits.COPY_DISTANCE**2 * low_median(distances.min(axis=1, initial=np.inf))
    alike: BoolArray = distances < near
    return alike


def _row_medians(values: FloatArray, known: BoolArray) -> FloatArray:
    """Medians of the known numbers of each row (n, m), of those rows that have any."""
    counts = known.sum(axis=1)
    some = counts > 0
    ascending, middle = np.sort(np.where(known, values, np.inf), axis=1), np.stack([counts - 1, counts], axis=1) // 2
    medians: FloatArray = np.take_along_axis(ascending[some], middle[some], axis=1).mean(axis=1)
    return medians


def _on_line(places: FloatArray) -> FloatArray | None:
    """Positions (n,) of places that differ along a line, None for others."""
    _, spread, directions = np.linalg.svd(places - places[0], full_matrices=False)
    if spread[0] == 0.0 or (len(spread) > 1 and spread[1] > limits.LEAST_STRENGTH * spread[0]):
        return None
    line: FloatArray = (places - places[0]) @ directions[0]
    return line


def _middle(values: FloatArray, weights: FloatArray) -> float:
    """Weighted median, the middle of all of them where there are several."""
    low, high = lower_weighted_median(values, weights), -lower_weighted_median(-values, weights)
    return 0.5 * low + 0.5 * high
