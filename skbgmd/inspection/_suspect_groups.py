"""Groups of suspicious samples in what a training noted about its samples, as pure functions of arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.training._step.trust import SampleRecord
from skbgmd.training._strength.held_out_labels import HeldOutLabels, share_of, surely_predicted, wrong_labels_in


class Group(NamedTuple):
    """Samples on one side of a threshold.

    Attributes
    ----------
    n : int
        Number of suspects among them.
    low, high : int
        Bounds of that number.
    threshold : float
        The threshold.
    """

    n: int
    low: int
    high: int
    threshold: float


#: No suspects.
NOBODY = Group(0, 0, 0, float("nan"))


class Confirmed(NamedTuple):
    """Wrong labels among held-out samples that the training on all samples confirms.

    Attributes
    ----------
    share, least : float
        Their share of all samples, and the least that it may be; 0 where it isn't known.
    least_of_surest : float
        The least that it may be among the most surely predicted.
    is_sure, is_flat : bool
        Whether the network is certain of these; and whether the share is no larger where it is less so, as that of
        labels that are wrong irrespective of the features.
    """

    share: float
    least: float
    least_of_surest: float
    is_sure: bool
    is_flat: bool


#: Nothing is confirmed.
UNCONFIRMED = Confirmed(0.0, 0.0, 0.0, is_sure=False, is_flat=False)


class Suspects(NamedTuple):
    """Suspicious samples.

    Attributes
    ----------
    chosen : ndarray of shape (n,), bool
        Which samples they are.
    estimate : tuple
        Entries of a :class:`skbgmd.inspection.SuspectEstimate`.
    likelihood : ndarray of shape (n,)
        The likelihoods that badly fitted ones were looked for in.
    """

    chosen: BoolArray
    estimate: tuple[int, int, int, int, int, float]
    likelihood: FloatArray


def suspects_in(record: SampleRecord, *, fits_all: bool = False, held_out: HeldOutLabels | None = None) -> Suspects:
    """Find groups of suspicious samples in the record of a training.

    Badly fitted samples are looked for in their mean likelihood over as few first visits as show a group. Early on that
    may be a class that is yet to be learnt, which is no such group. Their number is what the labels of held-out samples
    allow, see :func:`agreed`.

    Parameters
    ----------
    record : SampleRecord
        Of n samples, all known.
    fits_all : bool, default=False
        As for :func:`badly_fitted`.
    held_out : HeldOutLabels, or None
        Of these samples; None: nothing is known of them.
    """
    inputs = with_unusual_inputs(record.likelihood[-1], record.input_norm)
    chosen = record.input_norm >= inputs.threshold if inputs.n else np.zeros(len(record.trust), dtype=bool)
    rest = np.flatnonzero(~chosen)
    strata = np.unique(record.target_class[rest], return_inverse=True)[1]
    known = [likelihood for likelihood in record.likelihood if np.isfinite(likelihood).all()]
    is_long = len(known) == len(record.likelihood)
    group, looked_at, early = NOBODY, record.likelihood[-1], False
    for likelihood in known:
        found = badly_fitted(likelihood[rest], fits_all=fits_all)
        may_overrule = is_long and likelihood is known[-1]
        if found.n and (may_overrule or not overrules_a_class(lowest(likelihood[rest], found.n), strata)):
            group, looked_at, early = found, likelihood, likelihood is not known[-1]
            break
    fits = group
    if held_out is not None:
        of_rest = HeldOutLabels(*(of[rest] for of in held_out))
        gentle = looked_at[rest] if fits_all and early else of_rest.gentle_likelihood
        bounds = wrong_labels_in(of_rest), confirmed_by(known[min(1, len(known) - 1)][rest], of_rest)
        # Samples of most of which a network that hasn't seen them predicts the labels are yet to be learnt.
        differing = sum(share_of(of_rest.differs[np.isfinite(of_rest.differs)]))
        contradicts = group.n <= differing * len(rest) and shows_a_group(gentle, strata)
        fits = agreed(group, *bounds, looked_at[rest], contradicts=contradicts)
    chosen[rest[lowest(looked_at[rest], fits.n)]] = True
    low, high = inputs.low + fits.low, min(inputs.high + fits.high, len(record.trust))
    return Suspects(chosen, (inputs.n + fits.n, low, high, fits.n, inputs.n, fits.threshold), looked_at)


def agreed(
    group: Group,
    wrong: tuple[float, float],
    confirmed: Confirmed,
    likelihood: FloatArray,
    *,
    contradicts: bool = False,
) -> Group:
    """Bring the number of badly fitted samples to what held-out samples say of wrong labels.

    Where the share that is confirmed is of a network that is certain, is flat and surely more than
    ``limits.FEW_CONFIRMED``, it counts: of the group hard samples may be a part, and wrong labels that have been learnt
    by heart are none. Only a larger group stays that a gentle training has as well, for then it is of labels that are
    wrong near boundaries, too; or that is within the bounds where the share is below: most were learnt by heart.

    Elsewhere the group counts unless it is larger than the bounds allow, and is of hard samples as well, or of nothing
    else, as where classes overlap: then the middle of the bounds counts if they prove more than ``limits.FEW_WRONG`` of
    wrong labels, else nothing, unless a gentle training has it.

    Where there are many, all may have been learnt by heart: if the bounds prove more than ``limits.MANY_WRONG``, and
    ``limits.CONFIRMED`` of that is confirmed, the least counts, for a network that is surely wrong raises both.

    Parameters
    ----------
    group : Group
        Badly fitted samples; of none, ``NOBODY``.
    wrong : tuple of float
        Least and largest share of wrong labels, see :func:`wrong_labels_in`.
    confirmed : Confirmed
        See :func:`confirmed_by`.
    likelihood : ndarray of shape (n,)
        Mean likelihoods.
    contradicts : bool, default=False
        Whether overlap can't explain the group, see :func:`shows_a_group`.

    Returns
    -------
    Group
        Of which the bounds hold what either says: that none is counted isn't to say that there are none.
    """
    total = len(likelihood)
    least, most = (round(share * total) for share in wrong)
    low = min(group.low, round(confirmed.least * total))
    if group.n <= most and wrong[0] > limits.MANY_WRONG and confirmed.least_of_surest > limits.CONFIRMED * wrong[0]:
        n, low = max(group.n, least), least
    elif confirmed.is_sure and confirmed.is_flat and confirmed.least > limits.FEW_CONFIRMED:
        # Of more samples than the bounds are of, but no more than these allow.
        n, low = (min(round(share * total), most) for share in (confirmed.share, confirmed.least))
        is_learnt = n < least <= group.n <= most
        n = max(n, group.n) if contradicts or is_learnt else n
    elif group.n <= most or (contradicts and wrong[0] <= limits.FEW_WRONG):
        n = group.n
    elif wrong[0] > limits.FEW_WRONG:
        n, low = round((least + most) / 2), least
    else:
        n, low = 0, 0
    threshold = group.threshold
    if n != group.n:
        threshold = float(np.sort(likelihood)[min(n, total - 1)]) if n else NOBODY.threshold
    return Group(n, low, max(group.high, most), threshold)


def shows_a_group(likelihood: FloatArray, strata: NDArray[np.intp]) -> bool:
    r"""True if the first visits of a gentle training show a group of badly fitted samples that isn't overlap.

    To held-out samples, labels that are wrong near the boundary alone are what overlap is: both differ where little is
    predicted with certainty. But overlap hardly makes a group where likelihoods are as they should be: if a share g(p)
    of the samples is predicted with probability p to be of a class, and p of them are, :math:`p\,g(p)` have the
    likelihood p, which has a second peak only where g has, for classes that lie apart. Two normal classes have one from
    3.9 standard deviations on, where 2.5 % overlap; up to ``limits.FEW_WRONG`` it counts for nothing. Strengths that
    distrust samples make predictions sharper than that, and have a group in overlap too; a gentle training makes them
    so late, as it learns by heart.

    Parameters
    ----------
    likelihood : ndarray of shape (n,)
        Mean likelihoods over the first visits; NaN where they aren't known.
    strata : ndarray of shape (n,)
        Classes of the samples.
    """
    known = np.isfinite(likelihood)
    values = likelihood[known]
    group = badly_fitted(values, fits_all=True)
    is_many = group.n > limits.FEW_WRONG * len(values)
    return bool(is_many and not overrules_a_class(lowest(values, group.n), strata[known]))


def lowest(values: FloatArray, n: int) -> BoolArray:
    """Mark the n lowest values."""
    marked = np.zeros(len(values), dtype=bool)
    marked[np.argsort(values, kind="stable")[:n]] = True
    return marked


def confirmed_by(likelihood: FloatArray, held_out: HeldOutLabels) -> Confirmed:
    """Count wrong labels among held-out samples that the training on all samples confirms: it fits them badly, too.

    A network that was trained on a third may be surely wrong, and is right about more samples when it was trained on
    all; hard samples are mostly fitted before wrong labels are learnt by heart. Labels that are wrong irrespective of
    the features are a share of the samples that is the same however surely these are predicted. Where classes overlap
    it rises: then they are counted among half as many, of which fewer are near other classes, if it doesn't rise there.

    Parameters
    ----------
    likelihood : ndarray of shape (n,)
        Mean likelihoods over the first visits of the training on all samples.
    held_out : HeldOutLabels
        Of n samples.

    Returns
    -------
    Confirmed
    """
    is_wrong = (held_out.differs == 1.0) & (likelihood < 0.5)
    surest = surely_predicted(held_out, 0.0, limits.SURELY_PREDICTED)
    if not len(surest):
        return UNCONFIRMED
    for scale, errors in limits.CONFIRMED_WITHIN:
        edges = (0.0, *(scale * edge for edge in limits.NEAR_AND_FAR))
        near, far = (share_of(is_wrong[surely_predicted(held_out, *between)]) for between in pairwise(edges))
        is_flat = bool(far[0] - near[0] <= errors * np.hypot(near[1], far[1]))
        share, error = share_of(is_wrong[surely_predicted(held_out, 0.0, scale * limits.CONFIRMED_AMONG)])
        if is_flat:
            break
    of_surest = share_of(is_wrong[surest])
    return Confirmed(
        share,
        max(share - error, 0.0),
        max(of_surest[0] - of_surest[1], 0.0),
        is_sure=bool(1.0 - held_out.probability[surest].mean() <= limits.LEFT_TO_OTHERS),
        is_flat=is_flat,
    )


def quality_of(likelihood: FloatArray, input_norm: FloatArray) -> FloatArray:
    r"""Rank samples by their likelihood and the size of their inputs.

    :math:`p / (1 + (r / 2)^4)` for a mean likelihood p and inputs r times as long as the median. Samples with huge
    inputs are right by chance, and with confidence: their likelihood alone says nothing.

    Parameters
    ----------
    likelihood, input_norm : ndarray of shape (n,)
        Of a :class:`skbgmd.training.SampleRecord`; NaN where the norms aren't known.

    Returns
    -------
    quality : ndarray of shape (n,)
        Within [0, 1], the lower the more suspicious.
    """
    typical = np.nanmedian(input_norm) if np.isfinite(input_norm).any() else 0.0
    if typical <= 0.0:
        return likelihood
    # Of those that overflow the fourth power would, too.
    ratio = np.minimum(np.nan_to_num(input_norm / typical), 1e70)
    ranked: FloatArray = likelihood / (1.0 + (ratio / limits.LARGE_INPUTS) ** 4)
    return ranked


def badly_fitted(likelihood: FloatArray, *, fits_all: bool = False) -> Group:
    r"""Count samples of a separate group with small likelihoods, such as mislabeled ones.

    The threshold t is the lowest valley of the density f of the likelihoods between two of its peaks. Where the lower
    peak doesn't stand out there is no such group: of clean samples the hard ones are the fewer the harder they are. Of
    those below, :math:`n t f(t) / 4` are taken to be clean, which is a tail that falls off as a cubic.

    Parameters
    ----------
    likelihood : ndarray of shape (n,)
        Mean likelihoods, within [0, 1].
    fits_all : bool, default=False
        Whether the training comes to fit most samples, wrong ones included: those that it fitted early are above the
        threshold, and make up for clean ones below.
    """
    bins = limits.LIKELIHOOD_BINS
    counts = np.histogram(likelihood, bins, (0.0, 1.0))[0].astype(np.float64)
    width = limits.LIKELIHOOD_BANDWIDTH * bins
    density = gaussian_filter1d(counts, width, mode="reflect")
    peak = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    depth = np.divide(density, peak, out=np.ones(bins), where=peak > 1e-9)
    at = int(depth.argmin())
    # Variance of a count that is smoothed, as a share of its mean.
    share = 1.0 / (2.0 * np.sqrt(np.pi) * width)
    standard_error = float(np.sqrt(share * (peak[at] + density[at])))
    if depth[at] > limits.VALLEY_DEPTH or peak[at] - density[at] < limits.VALLEY_ERRORS * standard_error:
        return NOBODY
    threshold = at / bins
    in_valley = density <= (density[at] + peak[at]) / 2.0
    first = at - int(in_valley[: at + 1][::-1].argmin()) + 1 if not in_valley[: at + 1].all() else 0
    last = at + int(in_valley[at:].argmin()) if not in_valley[at:].all() else bins
    below = [int((likelihood < edge / bins).sum()) for edge in (first, at, last)]
    tail = 0.0 if fits_all else density[at] * at / 4.0
    n = max(0, round(below[1] - tail))
    return Group(n, max(0, round(min(below[0], n) - np.sqrt(n))), round(max(below[2], n) + np.sqrt(n)), threshold)


def overrules_a_class(suspects: BoolArray, strata: NDArray[np.intp]) -> bool:
    """True if most samples of a class are suspects: a class that is yet to be learnt looks like that."""
    return bool((np.bincount(strata, suspects) > 0.5 * np.bincount(strata)).any())


def with_unusual_inputs(likelihood: FloatArray, input_norm: FloatArray) -> Group:
    """Count samples with large inputs that are fitted worse than the others, such as ones with wrong features.

    The threshold is the change point of the share of badly fitted samples over the input norm, by likelihood.

    Parameters
    ----------
    likelihood, input_norm : ndarray of shape (n,)
        Of a :class:`skbgmd.training.SampleRecord`.
    """
    # Those that overflow are the most unusual ones.
    input_norm = np.where(input_norm == np.inf, np.finfo(np.float64).max, input_norm)
    if not (np.isfinite(input_norm).all() and (input_norm > 0.0).all()):
        return NOBODY
    sizes = np.log(input_norm)
    order = np.argsort(-sizes, kind="stable")
    n, wrong = len(order), np.cumsum(likelihood[order] < 0.5, dtype=np.int64)
    taken = np.arange(1, n)
    k, total = wrong[:-1], wrong[-1]
    gain = _binomial(k, taken) + _binomial(total - k, n - taken) - _binomial(total, np.array(n))
    center, scale = _shortest_half(sizes)
    is_large = sizes[order][:-1] > center + max(limits.LARGE_INPUT_SCALES * scale, np.log(limits.LEAST_LARGE_INPUT))
    gain[~is_large | (k * (n - taken) <= limits.WRONG_RATIO * (total - k) * taken)] = -np.inf
    at = int(gain.argmax()) if n > 1 else 0
    if n < 2 or gain[at] < limits.CHANGE_GAIN:
        return NOBODY
    # Of twice the logarithm, 3.84 is the 95 % quantile of its distribution.
    near = taken[gain >= gain[at] - 1.92]
    found, error = int(taken[at]), np.sqrt(taken[at])
    return Group(
        found, max(0, round(near.min() - error)), min(n, round(near.max() + error)), float(input_norm[order[at]])
    )


def _binomial(k: NDArray[np.int64], n: NDArray[np.int64]) -> FloatArray:
    """Largest log-likelihood of k of n."""
    share = np.clip(k / n, 1e-12, 1.0 - 1e-12)
    found: FloatArray = k * np.log(share) + (n - k) * np.log1p(-share)
    return found


def _shortest_half(values: FloatArray) -> tuple[float, float]:
    """Middle of the shortest interval with half of the values, and the standard deviation that normal ones have."""
    ordered, half = np.sort(values), len(values) // 2
    widths = ordered[half:] - ordered[: len(values) - half]
    at = int(widths.argmin())
    return float(ordered[at] + widths[at] / 2.0), float(widths[at] / 2.0 / 0.6745)
