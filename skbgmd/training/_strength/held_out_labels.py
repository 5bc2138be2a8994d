"""Labels of held-out samples: how many are wrong, and how far ahead on them a strength must be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray


class HeldOutLabels(NamedTuple):
    """Labels of the samples that were held out of the choice, beside those predicted; NaN of the others.

    Attributes
    ----------
    predicted : ndarray of shape (n,)
        Number of the class that is predicted.
    probability : ndarray of shape (n,)
        Its probability, the mean of all candidates' after ``limits.CHOICE_EPOCHS`` of the epochs: later they have
        learnt wrong labels by heart.
    differs : ndarray of shape (n,)
        1 where the given label is another one, 0 where it isn't.
    gentle_likelihood : ndarray of shape (n,)
        Of the samples that candidates were trained on, the mean likelihood over the first visits of the gentlest one.
    """

    predicted: FloatArray
    probability: FloatArray
    differs: FloatArray
    gentle_likelihood: FloatArray


def held_out_labels(
    probabilities: FloatArray,
    given: NDArray[np.intp],
    places: NDArray[np.intp],
    others: NDArray[np.intp],
    gentle: FloatArray,
    n: int,
) -> HeldOutLabels:
    """Compare given labels with those predicted.

    Parameters
    ----------
    probabilities : ndarray of shape (m, n_classes)
        Of the held-out samples.
    given : ndarray of shape (m,)
        Numbers of their given classes.
    places, others : ndarrays of shapes (m,) and (k,)
        Places of the held-out samples among all, and of those that candidates were trained on.
    gentle : ndarray of shape (k,)
        Likelihoods of the latter by the gentlest candidate.
    n : int
        Number of all samples; those without weight may be neither.
    """
    predicted = probabilities.argmax(axis=1)
    found = np.full((4, n), np.nan)
    found[:3, places] = predicted, probabilities.max(axis=1), predicted != given
    found[3, others] = gentle
    return HeldOutLabels(*found)


def wrong_labels_in(held_out: HeldOutLabels) -> tuple[float, float]:
    r"""Bound the share of wrong labels by those of the held-out samples that are most surely predicted.

    If wrong labels occur anywhere, a share e of all samples, then a share of at least e differs from whatever is
    predicted with certainty, and where classes don't overlap and the network is right no more do: such samples are
    anchor points [1]_, [2]_. Of each predicted class the most probable ``limits.SURELY_PREDICTED`` are looked at, and
    ``limits.SURE_ERRORS`` standard errors are left to chance.

    Parameters
    ----------
    held_out : HeldOutLabels
        Of n samples.

    Returns
    -------
    least, most : float
        Bounds: 0 and 1 where nothing is known. They are of labels that are wrong irrespective of the features; those
        that are wrong near the boundary alone can't be told from classes that overlap.

    References
    ----------
    .. [1] Liu and Tao (2016). Classification with noisy labels by importance reweighting. IEEE Transactions on Pattern
       Analysis and Machine Intelligence 38 (3).
    .. [2] Scott (2015). A rate of convergence for mixture proportion estimation, with application to learning from
       noisy labels. AISTATS.
    """
    sure = surely_predicted(held_out, 0.0, limits.SURELY_PREDICTED)
    if not len(sure):
        return 0.0, 1.0
    share, error = share_of(held_out.differs[sure])
    return max(share - error, 0.0), min(share + error, 1.0)


def errors_ahead_of_classes(held_out: HeldOutLabels | None) -> float:
    """Standard errors by which a strength for classes must be ahead of the gentlest, by the labels of held-out samples.

    Wrong labels dilute what is ahead: where two of five are those of the next class, thirty points on clean data are
    one or two of agreement. And a strength that is there for them is likely to be of use. So
    ``limits.CLEAR_GAIN_OF_WRONG`` is enough where the labels of the most surely predicted samples prove more than
    ``limits.FEW_WRONG`` of wrong ones. Elsewhere one that is ahead by chance gives up what is hard for nothing:
    ``limits.CLEAR_GAIN``.

    Parameters
    ----------
    held_out : HeldOutLabels or None
        None: nothing is known of them.
    """
    least = 0.0 if held_out is None else wrong_labels_in(held_out)[0]
    return limits.CLEAR_GAIN_OF_WRONG if least > limits.FEW_WRONG else limits.CLEAR_GAIN


def surely_predicted(held_out: HeldOutLabels, first: float, last: float) -> NDArray[np.intp]:
    """Places of the held-out samples of each predicted class between two shares, in order of falling probability."""
    found = [np.zeros(0, dtype=np.intp)]
    for label in np.unique(held_out.predicted[np.isfinite(held_out.predicted)]):
        members = np.flatnonzero(held_out.predicted == label)
        most_probable = members[np.argsort(-held_out.probability[members], kind="stable")]
        found.append(most_probable[int(np.ceil(first * len(members))) : int(np.ceil(last * len(members)))])
    return np.concatenate(found)


def share_of(is_wrong: FloatArray | BoolArray) -> tuple[float, float]:
    """Share of wrong ones, and how much of it is left to chance; all of it where there are none to count."""
    n = len(is_wrong)
    if not n:
        return 0.0, 1.0
    share = float(is_wrong.mean())
    # As if one of them had come out otherwise, at least: few that are alike prove nothing.
    return share, limits.SURE_ERRORS * float(np.sqrt(max(share * (1.0 - share), 1.0 / n) / n))
