"""Strengths, settings by name of how much a training distrusts its samples, and evidence of held-out ones for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray


class Strength(NamedTuple):
    """Settings of an estimator that say how strongly it distrusts samples."""

    huber: float | None
    beta: float | None = None
    trust_power: float = 0.0
    tilt: float = 0.0

    def written(self) -> str:
        """The settings, but for those that do nothing."""
        beta = "" if self.beta is None else f", beta={self.beta}"
        power = "" if self.trust_power == 0.0 else f", trust_power={self.trust_power}"
        tilt = "" if self.tilt == 0.0 else f", tilt={self.tilt}"
        return f"huber={self.huber}{beta}{power}{tilt}"


#: By name, the gentle one first.
STRENGTHS_OF_CLASSES = {
    "mild": Strength(3.0),
    "firm": Strength(3.0, tilt=0.7),
    "strict": Strength(1.0, beta=0.1, trust_power=3.0),
}
STRENGTHS_OF_NUMBERS = {"mild": Strength(8.0), "firm": Strength(8.0, tilt=2.0)}


def described(strengths: Mapping[str, Strength]) -> str:
    """List strengths with their settings, for a docstring."""
    return "; ".join(f'"{name}", {setting.written()}' for name, setting in strengths.items())


#: Utilities of held-out samples (n,) by strength, the larger the better a sample is predicted.
Utilities = Mapping[str, FloatArray]


class Evidence(NamedTuple):
    r"""Evidence that held-out samples give for a strength.

    Attributes
    ----------
    score : float
        Mean over the classes of the share of held-out samples that are predicted; for numbers, minus their mean
        absolute error, in units of the targets' median deviation.
    gain : float
        By how much the score is larger than that of the gentle strength.
    standard_error : float
        Of the gain, which is of the same samples.
    """

    score: float
    gain: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """True if the gain is more than its standard error."""
        return self.gain > max(limits.CLEAR_GAIN * self.standard_error, limits.LEAST_GAIN)

    @property
    def is_behind(self) -> bool:
        """True if a longer training will hardly make up for it."""
        return self.gain < -limits.FAR_BEHIND * self.standard_error


def stratified_mean(values: FloatArray, strata: NDArray[np.intp], weight: FloatArray) -> tuple[float, float]:
    """Mean over the strata of their weighted means, with its standard error.

    Parameters
    ----------
    values : ndarray of shape (n,)
    strata : ndarray of shape (n,)
        Stratum of each value.
    weight : ndarray of shape (n,)
        Positive weights within the strata.
    """
    means, variances = [], []
    for stratum in np.unique(strata):
        chosen = strata == stratum
        share = weight[chosen] / weight[chosen].sum()
        mean = float(share @ values[chosen])
        means.append(mean)
        # As if one of them had come out otherwise: few that are alike prove nothing.
        least = float(share @ share) ** 2 * float(np.abs(values[chosen]).max()) ** 2
        variances.append(float(share**2 @ (values[chosen] - mean) ** 2) + least)
    return float(np.mean(means)), float(np.sqrt(np.sum(variances)) / len(means))


def evidence_for(utilities: Utilities, strata: NDArray[np.intp], weight: FloatArray) -> dict[str, Evidence]:
    """Compare strengths by held-out samples, each with the first.

    Parameters
    ----------
    utilities : mapping of names to ndarrays of shape (n,)
    strata, weight
        As for :func:`stratified_mean`.
    """
    gentlest = next(iter(utilities.values()))
    return {
        name: Evidence(stratified_mean(values, strata, weight)[0], *stratified_mean(values - gentlest, strata, weight))
        for name, values in utilities.items()
    }


def choose(
    names: Sequence[str],
    predict: Callable[[str, int], Any],
    utilities: Callable[[Mapping[str, Any]], Utilities],
    strata: NDArray[np.intp],
    weight: FloatArray,
    *,
    epochs: int,
    agree: Callable[[dict[str, Evidence]], dict[str, Evidence]] = dict,
) -> tuple[str, dict[str, Evidence]]:
    """Choose among settings by held-out samples.

    After some of the epochs those that are far behind the gentle one are dropped, as on clean data all others may be.
    The rest are trained to the end: wrong labels are learnt by heart late.

    Parameters
    ----------
    names : sequence of str
        The gentle one first.
    predict : callable
        Trains by one of them for so many epochs more and predicts the held-out samples; None where it diverges.
    utilities : callable
        Makes utilities of such predictions by name.
    strata, weight
        Of the held-out samples, as for :func:`stratified_mean`.
    epochs : int
        Epochs of a whole training.
    agree : callable, default=dict
        Makes of this process's evidence that of all processes that train together.

    Returns
    -------
    name : str
        The choice.
    evidence : dict
        Evidence for each of them, as of the epoch to which it was trained.
    """
    first = math.ceil(limits.CHOICE_EPOCHS * epochs)
    evidence: dict[str, Evidence] = {}
    for more in (first, epochs - first):
        predicted = {name: predict(name, more) for name in names}
        # One that diverges is none to train by.
        known = {name: found for name, found in predicted.items() if found is not None}
        if not known:
            break
        evidence |= agree(evidence_for(utilities(known), strata, weight))
        gentle, *others = known
        names = [gentle, *(name for name in others if not evidence[name].is_behind)]
        if len(names) == 1:
            return gentle, evidence
    clear = [name for name in names[1:] if name in evidence and evidence[name].is_clear]
    return max(clear, key=lambda name: evidence[name].gain, default=names[0]), evidence


def hold_out(strata: NDArray[np.intp], share: float, rng: np.random.RandomState) -> NDArray[np.bool_]:
    """Draw a share of each stratum, rounded down; a mask (n,)."""
    mask = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        mask[rng.permutation(members)[: int(share * len(members))]] = True
    return mask


def absolute_scores(residuals: Mapping[str, ArrayLike], y: FloatArray) -> dict[str, FloatArray]:
    r"""Score predictions of numbers by minus their absolute errors, in units of the targets' median deviation.

    Only differences between predictions of the same samples are looked at, and :math:`\bigl| |y - a| - |y - b| \bigr|
    \le |a - b|`: however gross the error of a target is, it counts for no more than the predictions differ. Errors of a
    few samples that the predictions differ much in, such as those of a long tail or a subgroup, count for all of that.

    Parameters
    ----------
    residuals : mapping of names to array-likes of shape (n, k)
        Residuals of held-out samples, by who predicted them.
    y : ndarray of shape (n, k)
        Their targets.
    """
    deviations = np.abs(y - np.median(y, axis=0))
    # Where most targets are one value, that of the others.
    units = np.array([np.median(column[column > 0.0]) if column.any() else 1.0 for column in deviations.T])
    return {
        name: -(np.abs(np.asarray(array, dtype=np.float64)) / units).mean(axis=1) for name, array in residuals.items()
    }
