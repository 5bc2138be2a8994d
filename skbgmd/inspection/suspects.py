"""Suspicious training samples: which they are, and how many there are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils.checks import check_integer, check_number
from skbgmd._utils.shares import share_of
from skbgmd.inspection._suspect_groups import quality_of
from skbgmd.inspection._training_samples import known_of, robust_estimator_in, sample_trust, suspects_of
from skbgmd.inspection.losses import label_losses, sample_losses
from skbgmd.inspection.sample_trust_display import SampleTrustDisplay

#: All that is about suspects, which ``skbgmd.suspects`` is a second name of.
__all__ = [
    "SampleTrustDisplay",
    "SuspectEstimate",
    "estimate_n_suspects",
    "find_suspects",
    "label_losses",
    "sample_losses",
]


class SuspectEstimate(NamedTuple):
    """Estimate of the number of suspicious training samples.

    Attributes
    ----------
    n : int
        Number of suspects.
    low, high : int
        Bounds of that number. They allow for other places at which the two groups of samples may as well be told
        apart, and for a standard error of counting. Where held-out samples chose the strength, the bounds also hold as
        few and as many wrong labels as these samples allow, of labels that are wrong irrespective of the features. With
        ``n=0``, ``high`` says how many there may still be.
    n_badly_fitted : int
        Suspects that the training fitted badly, as it does mislabeled ones.
    n_unusual_inputs : int
        Suspects with unusually large inputs, as samples with wrong features have.
    threshold : float
        Likelihood below which a sample counts as badly fitted; NaN where none does.
    """

    n: int
    low: int
    high: int
    n_badly_fitted: int
    n_unusual_inputs: int
    threshold: float


def find_suspects(estimator: Any, n_suspects: int | None = None, *, fraction: float | None = None) -> NDArray[np.int64]:
    """Find training samples with wrong labels, targets or features, the most suspicious first.

    Parameters
    ----------
    estimator : BlockGMDClassifier or BlockGMDRegressor
        A fitted estimator, a pipeline that ends with one, or a search for its parameters. Only ``group_size=1`` tells
        single samples apart, best with ``strength="firm"``.
    n_suspects : int, default=None
        Number of samples to list. If neither this nor ``fraction`` is given, the number is estimated, see
        :func:`estimate_n_suspects`.
    fraction : float, default=None
        Share of the samples to list, in (0, 1]; their number is rounded up.

    Returns
    -------
    indices : ndarray of shape (n_suspects,), int64
        Indices of training samples, the most suspicious first. Samples of which nothing is known are left out. An empty
        array says that no group of suspects stands out, not that there are none. With few samples, or after a training
        that trusted all of them, give ``n_suspects`` to list the most suspicious ones nonetheless.

    Raises
    ------
    TypeError
        If it is no such estimator.
    sklearn.exceptions.NotFittedError
        If the estimator isn't fitted.
    ValueError
        If both ``n_suspects`` and ``fraction`` are given, if one is out of its range, or if the trust is unknown
        because the aggregator doesn't weigh rows. After a training by groups, or plain training, also if all samples
        are trusted alike or if the number is to be estimated.

    Notes
    -----
    Samples are ranked by their mean likelihood over the training, which with cross-entropy is the probability of the
    given label, and by the size of their inputs. A network is slow to fit wrong labels, and it fits samples with huge
    inputs by chance. After a training by groups, samples are ranked by trust, their mean weight in training
    (``sample_trust_``).

    Rare and hard samples are suspicious, too: inspect suspects before you drop them. A sample with several labels is
    judged as a whole, by their mean loss; :func:`label_losses` tells which of them looks wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection import find_suspects
    >>> X, y = load_digits(return_X_y=True)
    >>> X, wrong = X / 16.0, np.arange(0, len(X), 10)
    >>> clean = BlockGMDClassifier(strength="mild", max_epochs=50, random_state=0).fit(X, y)
    >>> len(find_suspects(clean))
    0
    >>> y[wrong] = (y[wrong] + 1) % 10
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X, y)
    >>> found = find_suspects(model)
    >>> 150 < len(found) < 210, len(set(found) & set(wrong)) > 150
    (True, True)
    >>> find_suspects(model, 5).tolist() == found[:5].tolist()
    True
    """
    inner = robust_estimator_in(estimator)
    trust = sample_trust(inner)
    if n_suspects is not None and fraction is not None:
        raise ValueError(
            f"One of n_suspects and fraction may be given; found n_suspects={n_suspects!r}, fraction={fraction!r}."
        )
    known = np.flatnonzero(np.isfinite(trust))
    if n_suspects is None and fraction is None:
        n = estimate_n_suspects(inner).n
    elif fraction is not None:
        n = max(1, math.ceil(share_of(check_number(fraction, "fraction", at_most=1.0), len(trust))))
    else:
        n = check_integer(n_suspects, "n_suspects")
        if n > len(trust):
            raise ValueError(f"n_suspects must be at most the number of samples, {len(trust)}; found {n}.")
    of_single = known_of(inner)
    # To list all samples is no choice.
    if of_single is None and n < len(known) and np.allclose(trust[known], trust[known[0]], rtol=1e-6, atol=0.0):
        raise ValueError(
            f"sample_trust_ must differ for samples to be suspects; found {trust[known[0]]:g} for all {len(known)} "
            f"that it is known of: the aggregator trusts all alike, or had nothing to compare, as in plain training, "
            f"with one group in each batch."
        )
    if of_single is None:
        order = known[np.argsort(trust[known], kind="stable")]
    else:
        record, known = of_single
        quality = quality_of(record.likelihood[-1], record.input_norm)
        # How many there are is no reason to rank others first.
        chosen = suspects_of(inner, of_single, by_groups=True).chosen
        order = known[np.lexsort((quality, ~chosen))]
    return order[:n].astype(np.int64)


def estimate_n_suspects(estimator: Any) -> SuspectEstimate:
    """Estimate the number of suspicious training samples, with bounds.

    Two kinds of suspects are counted:

    - samples in a separate group of small likelihoods, as mislabeled samples are;
    - samples with inputs so large that samples of this size or more are fitted worse than the others, as samples with
      wrong features are.

    If classes overlap, or if the network fits wrong labels early, neither kind stands out, and the estimate is zero.
    ``strength="firm"`` makes the network fit wrong labels later.

    If ``strength="auto"`` chose a strength by held-out samples, the labels of these samples say how many labels are
    wrong, and bound the estimate. A group of hard samples then isn't taken for one of wrong labels. Few wrong labels
    among overlapping classes are counted, and so are many that were learnt by heart. Labels that are wrong only near
    the boundary between classes can't be told from overlap, unless a gentle training tells them apart as well.

    :doc:`/samples` has measurements of how far the estimate is off.

    Parameters
    ----------
    estimator : BlockGMDClassifier or BlockGMDRegressor
        An estimator fitted with ``group_size=1``, a pipeline that ends with one, or a search for its parameters.

    Returns
    -------
    SuspectEstimate

    Raises
    ------
    TypeError
        If it is no such estimator.
    sklearn.exceptions.NotFittedError
        If the estimator isn't fitted.
    ValueError
        If nothing is known of single samples, because they were in groups, of clients for example, or because this is
        plain training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.corruption import corrupt_labels
    >>> from skbgmd.inspection import estimate_n_suspects
    >>> X, y = load_digits(return_X_y=True)
    >>> y, wrong = corrupt_labels(y, fraction=0.1, random_state=0)
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X / 16.0, y)
    >>> estimate = estimate_n_suspects(model)
    >>> estimate.low <= int(wrong.sum()) <= estimate.high
    True
    """
    inner = robust_estimator_in(estimator)
    sample_trust(inner)
    of_single = known_of(inner)
    if of_single is None:
        raise ValueError(
            "The number of suspects is estimated of single samples, by their losses; nothing is known of them where "
            "rows are groups or clients, or training is plain. Give n_suspects or fraction, or train with group_size=1."
        )
    return SuspectEstimate(*suspects_of(inner, of_single).estimate)
