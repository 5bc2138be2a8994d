"""Evidence that samples with long inputs are right: a network that judges by gradients predicts held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.training._strength.evidence import Utilities, stratified_mean

#: Names of the utilities that a skill is made of.
CONSTANT, NETWORK, PERFECT = "constant", "network", "perfect"
#: What :func:`are_predicted` says where it can't say: between 0, no, and 1, yes.
UNCLEAR = 0.5


class Skill(NamedTuple):
    """Skill of predictions: 0 as by a constant, 1 perfect.

    Attributes
    ----------
    value : float
    standard_error : float
    """

    value: float
    standard_error: float


def skill(utilities: Utilities, strata: NDArray[np.intp], weight: FloatArray) -> Skill:
    """Skill of a network on some samples.

    Parameters
    ----------
    utilities : mapping of names to ndarrays of shape (n,)
        Of the best constant prediction, of the network's and of a perfect one.
    strata, weight
        As for :func:`skbgmd.training._strength.evidence.stratified_mean`.

    Examples
    --------
    >>> utilities = {"constant": np.zeros(4), "network": np.array([1.0, 1.0, 0.0, 1.0]), "perfect": np.ones(4)}
    >>> skill(utilities, np.zeros(4, dtype=int), np.ones(4)).value
    0.75
    """
    constant = utilities[CONSTANT]
    gain, error = stratified_mean(utilities[NETWORK] - constant, strata, weight)
    room, _ = stratified_mean(utilities[PERFECT] - constant, strata, weight)
    # Where a constant is perfect there is nothing to tell.
    return Skill(gain / room, error / room) if room > 0.0 else Skill(0.0, 0.0)


def are_predicted(of_long: Sequence[Skill], of_others: Sequence[Skill], as_well: float) -> float:
    """Tell whether samples with long inputs are predicted clearly, and as well as is to be expected: by 1, yes, or 0.

    Wrong features predict no target. A network that doesn't know of lengths predicts wild numbers there, worse than a
    constant. Classes it may predict somewhat better, by what is left of the right features, but far from as well as
    those of the others.

    Where samples are too few to tell it is ``UNCLEAR``.

    Parameters
    ----------
    of_long, of_others : sequences of Skill
        By each score; all must say that they are, one that they aren't.
    as_well : float
        Share of the others' skill.

    Examples
    --------
    >>> [are_predicted([Skill(value, 0.1)], [Skill(0.9, 0.1)], 0.0) for value in (-0.4, -0.1, 0.05, 0.2)]
    [0.0, 0.5, 0.5, 1.0]
    """
    ahead = [
        (long.value - as_well * max(others.value, 0.0), long.standard_error)
        for long, others in zip(of_long, of_others, strict=True)
    ]
    if all(value > limits.CLEAR_GAIN * error for value, error in ahead):
        return 1.0
    return 0.0 if any(value < -limits.FAR_BEHIND * error for value, error in ahead) else UNCLEAR


def lies_apart(are_long: NDArray[np.bool_], strata: NDArray[np.intp], weight: FloatArray) -> bool:
    """True if a class lies apart: clearly more than a quarter of its samples are long for all, and not for it.

    Parameters
    ----------
    are_long : ndarray of shape (n,)
        Samples whose inputs are long for all, and not for their class.
    strata : ndarray of shape (n,)
        Class of each sample.
    weight : ndarray of shape (n,)
        Non-negative weights.

    Examples
    --------
    >>> strata, are_long = np.repeat([0, 1], [90, 20]), np.arange(110) > 91
    >>> lies_apart(are_long, strata, np.ones(110)), lies_apart(are_long & (strata == 0), strata, np.ones(110))
    (True, False)
    """
    strata, values, weight = strata[weight > 0.0], are_long[weight > 0.0].astype(np.float64), weight[weight > 0.0]
    classes = np.unique(strata, return_inverse=True)[1]
    shares = weight / np.bincount(classes, weight)[classes]
    means = np.bincount(classes, shares * values)
    # As in stratified_mean, of all classes at once: few that are alike prove nothing.
    variances = np.bincount(classes, (shares * (values - means[classes])) ** 2) + np.bincount(classes, shares**2) ** 2
    return bool((means - limits.APART_ERRORS * np.sqrt(variances) > limits.APART).any())


def share_of_most(strata: NDArray[np.intp], weight: FloatArray) -> float:
    """Share of the weights that the largest class has; one where there are none.

    Parameters
    ----------
    strata, weight
        As for :func:`lies_apart`.

    Examples
    --------
    >>> share_of_most(np.array([0, 2, 2, 2]), np.array([1.0, 1.0, 1.0, 0.0]))
    0.6666666666666666
    """
    masses = np.bincount(strata, weight)
    total = float(masses.sum())
    return float(masses.max()) / total if total > 0.0 else 1.0
