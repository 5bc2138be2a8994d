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


def are_predicted(of_long: Sequence[Skill], of_others: Sequence[Skill], as_well: float) -> bool:
    """Tell whether samples with long inputs are predicted clearly, and as well as is to be expected.

    Wrong features predict no target. A network that doesn't know of lengths predicts wild numbers there, worse than a
    constant. Classes it may predict somewhat better, by what is left of the right features, but far from as well as
    those of the others.

    Parameters
    ----------
    of_long, of_others : sequences of Skill
        By each score; all must say it.
    as_well : float
        Share of the others' skill.
    """
    return all(
        long.value - limits.CLEAR_GAIN * long.standard_error > as_well * max(others.value, 0.0)
        for long, others in zip(of_long, of_others, strict=True)
    )
