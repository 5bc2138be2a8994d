"""Strengths, settings by name of how much a training distrusts its samples, and evidence of held-out ones for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.training._data.scaling import deviation_of_most, location_and_scale
from skbgmd.training._strength.defaults import REJECTION


class Strength(NamedTuple):
    """Settings of an estimator that say how strongly it distrusts samples.

    ``keeps_short``: its limit of rows is for wrong inputs alone, so that there is none where no input is long.
    """

    huber: float | None
    beta: float | None = None
    trust_power: float = 0.0
    tilt: float = 0.0
    rejection: float | None = REJECTION
    keeps_short: bool = False

    def written(self) -> str:
        """The settings, but for those that do nothing."""
        beta = "" if self.beta is None else f", beta={self.beta}"
        power = "" if self.trust_power == 0.0 else f", trust_power={self.trust_power}"
        tilt = "" if self.tilt == 0.0 else f", tilt={self.tilt}"
        rejection = "" if self.rejection == REJECTION else f", rejection={self.rejection}"
        return f"huber={self.huber}{beta}{power}{tilt}{rejection}"


#: Parameters that only a strength says where there is one; others than its own may be given beside it.
OF_STRENGTH = ("huber", "beta", "trust_power", "tilt")
#: By name, the gentle one first. Once most samples are learnt, rows of a rare class that is learnt last are long beside
#: theirs: a tighter limit, or leaving out what is long, gives it up (``benchmarks/results/rare.csv``).
STRENGTHS_OF_CLASSES = {
    "mild": Strength(16.0, keeps_short=True),
    "firm": Strength(3.0, tilt=0.7),
    "strict": Strength(1.0, beta=0.1, trust_power=3.0),
}
#: Tails are far from the median, and are none to leave out; samples whose inputs are long weigh less by themselves.
STRENGTHS_OF_NUMBERS = {
    "mild": Strength(16.0, rejection=20.0, keeps_short=True),
    "firm": Strength(16.0, tilt=2.0, rejection=20.0, keeps_short=True),
}


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
        absolute error or their mean clipped squared error, whichever is less in favour, with robust standard deviations
        of the targets as the unit of errors.
    gain : float
        By how much the score is larger than that of the gentle strength.
    standard_error : float
        Of the gain, which is of the same samples.
    errors_ahead : float
        Standard errors that the gain must be more than, see :func:`errors_ahead`.
    """

    score: float
    gain: float
    standard_error: float
    errors_ahead: float = limits.CLEAR_GAIN

    @property
    def margin(self) -> float:
        """By how much the gain is more than so many standard errors."""
        # Those of predictions that are all alike are none, however many are asked for.
        return self.gain - (self.errors_ahead * self.standard_error if self.standard_error > 0.0 else 0.0)

    @property
    def is_clear(self) -> bool:
        """True if the gain is more than so many standard errors."""
        return self.margin > 0.0 and self.gain > limits.LEAST_GAIN

    @property
    def is_behind(self) -> bool:
        """True if a longer training will hardly make up for it."""
        return self.gain < -limits.FAR_BEHIND * self.standard_error

    @property
    def is_far_ahead(self) -> bool:
        """True if the gentle strength will hardly make up for it in a longer training."""
        return self.is_clear and self.gain > limits.FAR_BEHIND * self.standard_error

    @property
    def is_needless(self) -> bool:
        """True if it isn't ahead where hardly anything is wrong.

        No targets are gross, so that more than ``limits.CLEAR_GAIN`` is asked for; or the gentle strength predicts
        nearly all labels, and none are surely wrong. Scores of numbers are negative.
        """
        predicts = self.score - self.gain > limits.NEARLY_ALL and self.errors_ahead >= limits.CLEAR_GAIN
        return self.gain <= 0.0 and (predicts or self.errors_ahead > limits.CLEAR_GAIN)


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


def evidence_for(
    utilities: Utilities, strata: NDArray[np.intp], weight: FloatArray, ahead: float = limits.CLEAR_GAIN
) -> dict[str, Evidence]:
    """Compare strengths by held-out samples, each with the first.

    Parameters
    ----------
    utilities : mapping of names to ndarrays of shape (n,)
    strata, weight
        As for :func:`stratified_mean`.
    ahead : float
        Standard errors that a gain must be more than.
    """
    gentlest = next(iter(utilities.values()))
    return {
        name: Evidence(
            stratified_mean(values, strata, weight)[0],
            *stratified_mean(values - gentlest, strata, weight),
            errors_ahead=ahead,
        )
        for name, values in utilities.items()
    }


def choose(
    names: Sequence[str],
    predict: Callable[[str, int], Any],
    utilities: Callable[[Mapping[str, Any]], Sequence[Utilities]],
    strata: NDArray[np.intp],
    weight: FloatArray,
    *,
    epochs: int,
    agree: Callable[[dict[str, Evidence]], dict[str, Evidence]] = dict,
    ahead: Callable[[Mapping[str, Any]], float] = lambda _: limits.CLEAR_GAIN,
    proof: float = limits.CLEAR_GAIN,
    objects: Callable[[Any], bool] = lambda _: False,
) -> tuple[str, dict[str, Evidence]]:
    """Choose among settings by held-out samples.

    One after the other is trained for some of the epochs, until nothing more can be chosen: no gain would be enough, or
    one isn't ahead where hardly anything can be wrong, and stronger ones won't be. Then those that are far behind
    another are dropped. A single one that is left and far ahead is chosen where something is surely wrong. Else the
    rest are trained to the end, for wrong labels are learnt by heart late, and what is rare is learnt late. Where there
    are several scores, all must say that a setting is behind, or ahead.

    Parameters
    ----------
    names : sequence of str
        The gentle one first, and the others from weak to strong.
    predict : callable
        Trains by one of them for so many epochs more and predicts the held-out samples; None where it diverges.
    utilities : callable
        Makes utilities of such predictions by name, those of each score.
    strata, weight
        Of the held-out samples, as for :func:`stratified_mean`.
    epochs : int
        Epochs of a whole training.
    agree : callable, default=dict
        Makes of this process's evidence that of all processes that train together.
    ahead : callable
        Standard errors by which another must be ahead of the gentle one, by such predictions.
    proof : float
        Standard errors that are asked for, or fewer, where something is surely wrong.
    objects : callable
        Called with the predictions of another that is to be chosen; True if it isn't to be, however far it is ahead.

    Returns
    -------
    name : str
        The choice.
    evidence : dict
        Evidence for each of them, as of the epoch to which it was trained and by the score that is least in favour.
    """
    first = math.ceil(limits.CHOICE_EPOCHS * epochs)
    evidence: dict[str, Evidence] = {}

    def compare(known: Mapping[str, Any]) -> list[dict[str, Evidence]]:
        """Evidence for settings beside the first of them, by each score."""
        asked = ahead(known)
        return [agree(evidence_for(each, strata, weight, asked)) for each in utilities(known)]

    def note(scores: Sequence[Mapping[str, Evidence]], others: Sequence[str]) -> None:
        """Note what the score says that is least in favour of others than the gentle one."""
        margins = [max((of[name].margin for name in others), default=0.0) for of in scores]
        evidence.update(scores[margins.index(min(margins))])

    def is_over(name: str, scores: Sequence[Mapping[str, Evidence]]) -> bool:
        """Tell whether no setting from this one on is to be chosen."""
        is_other = name != next(iter(known))
        return all(of[name].errors_ahead == math.inf or (is_other and of[name].is_needless) for of in scores)

    # One that diverges is none to train by.
    known: dict[str, Any] = {}
    for name in names:
        found = predict(name, first)
        if found is not None:
            known[name] = found
            scores = compare(known)
            if is_over(name, scores):
                break
    if not known:
        return names[0], evidence
    gentle, *others = known
    note(scores, others)
    others = [name for name in others if not (is_over(name, scores) or all(of[name].is_behind for of in scores))]
    if not others:
        return gentle, evidence
    best = max(others, key=lambda name: evidence[name].gain)
    if len(others) > 1:
        beside = compare({best: known[best], **{name: known[name] for name in others}})
        others = [name for name in others if not all(of[name].is_behind for of in beside)]
    is_decided = others == [best] and all(of[best].is_far_ahead and of[best].errors_ahead <= proof for of in scores)
    if is_decided and not objects(known[best]):
        return best, evidence
    known = {name: found for name in (gentle, *others) if (found := predict(name, epochs - first)) is not None}
    if not known:
        return gentle, evidence
    scores = compare(known)
    start, *others = known
    note(scores, others)
    clear = [name for name in others if all(of[name].is_clear for of in scores)]
    best = max(clear, key=lambda name: evidence[name].gain, default=start)
    if best != start and objects(known[best]):
        return start, {name: of._replace(errors_ahead=math.inf) for name, of in evidence.items()}
    return best, evidence


def hold_out(
    strata: NDArray[np.intp], share: float, rng: np.random.RandomState, first: NDArray[np.intp] | None = None
) -> NDArray[np.bool_]:
    """Draw a share of each stratum, rounded down, copies of a sample together; a mask (n,).

    Parameters
    ----------
    strata : ndarray of shape (n,)
    share : float
    rng : RandomState
    first : ndarray of shape (n,), default=None
        Place of the first copy of each sample, in its stratum; None: there are no copies.
    """
    first = np.arange(len(strata)) if first is None else first
    sizes, drawn = np.bincount(first, minlength=len(first)), np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        left = int(share * len(members))
        order = rng.permutation(members[first[members] == members])
        n_fit = int(np.searchsorted(np.cumsum(sizes[order]), left, side="right"))
        drawn[order[:n_fit]] = True
        left -= int(sizes[order[:n_fit]].sum())
        # What fits in, where the next ones have more copies than are left to draw.
        for place in order[n_fit:] if left else ():
            if sizes[place] <= left:
                drawn[place] = True
                left -= int(sizes[place])
    return drawn[first]


def error_scores(residuals: Mapping[str, ArrayLike], y: FloatArray) -> list[dict[str, FloatArray]]:
    r"""Score predictions of numbers by minus their absolute errors, and by minus their clipped squared errors.

    Only differences between predictions of the same samples are looked at. With absolute errors :math:`\bigl| |y - a| -
    |y - b| \bigr| \le |a - b|`: however gross the error of a target is, it counts for no more than the predictions
    differ. But they are least at medians, and a setting that gives up a subgroup or a tail may fit all others better by
    more. :math:`\min(|r|, c)^2` is least at means where errors are within c, as :math:`R^2` is, and a target that both
    predictions miss by more counts for nothing, on whichever side of them it is; of a tail beyond c it sees nothing.

    Parameters
    ----------
    residuals : mapping of names to array-likes of shape (n, k)
        Residuals of held-out samples, by who predicted them.
    y : ndarray of shape (n, k)
        Their targets.

    Returns
    -------
    absolute, squared : dict of str to ndarray of shape (n,)
        In units of :func:`deviation_of_most`, of which c is three.
    """
    units = np.array([deviation_of_most(column) for column in y.T])
    with np.errstate(over="ignore"):
        # Beyond, predictions that differ by a unit have the same residual.
        most = units / np.finfo(np.float64).eps
    sizes = {
        name: np.minimum(np.abs(np.asarray(array, dtype=np.float64)), most) / units for name, array in residuals.items()
    }
    return [
        {name: -each.mean(axis=1) for name, each in sizes.items()},
        {name: -(np.minimum(each, limits.MISSED_TARGET) ** 2).mean(axis=1) for name, each in sizes.items()},
    ]


def errors_ahead(predicted: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    """Standard errors by which a strength must be ahead of the gentlest for numbers, by what the latter predicts.

    Far from the median, by more than ``limits.MISSED_TARGET`` robust standard deviations, are gross targets, which
    strengths are there for, and tails, which they give up; and of both the scores see little.

    - Where hardly any target is missed, ``limits.HARDLY_ANY`` of them by more than ``limits.MISSED_AT_ALL`` deviations,
      none is wrong, and a strength that is ahead gives up what is hard: infinity.
    - Where nearly all that are far are predicted, to half of their distance, they are a tail, and nothing is enough
      either: no network predicts gross targets of samples that it hasn't seen.
    - Where nearly all that are far are on one side, as of amounts, few targets are missed by as much where a prediction
      near the median says that no tail is to be expected, and those that are missed mostly by no more than
      ``limits.MISSED_TAIL`` deviations, they are skewed: ``limits.CLEAR_GAIN_OF_SKEWED``. What a third of the samples
      is too few for, a strength seems to be good for.
    - Where more than ``limits.GROSS_SHARE`` are missed by as much, they are gross: ``limits.CLEAR_GAIN``.
    - Elsewhere a strength does little good, and one that is ahead by chance gives up samples for nothing:
      ``limits.CLEAR_GAIN_WITHOUT_GROSS``.

    Parameters
    ----------
    predicted : ndarray of shape (n, k)
        Predictions of held-out samples.
    y : ndarray of shape (n, k)
        Their targets.
    weight : ndarray of shape (n,)
        Weights of the samples.
    """
    center, unit = location_and_scale(y, weight)
    # What is no number is as far off as can be.
    predicted = np.where(np.isnan(predicted), np.inf, predicted)
    with np.errstate(over="ignore"):
        deviations, errors = (y - center) / unit, np.abs(predicted - y) / unit
    from_center = np.abs(predicted - center)
    sizes, signs = np.abs(deviations), np.sign(deviations)
    of_each = np.broadcast_to(weight[:, None], y.shape)
    are_far, are_missed = sizes > limits.MISSED_TARGET, errors > limits.MISSED_TARGET
    are_right = np.average(errors > limits.MISSED_AT_ALL, weights=of_each) < limits.HARDLY_ANY
    if are_right or _nearly_all(errors < 0.5 * sizes, are_far, of_each):
        return math.inf
    sides, count = np.sign((of_each * signs * are_far).sum(axis=0)), of_each > 0.0
    are_near, misses = (from_center <= np.median(from_center, axis=0)) & count, errors[are_missed & count]
    if (
        _nearly_all(signs == sides, are_far, of_each)
        and np.average(are_missed[are_near], weights=of_each[are_near]) < limits.GROSS_SHARE
        and not (misses.size and np.median(misses) > limits.MISSED_TAIL)
    ):
        return limits.CLEAR_GAIN_OF_SKEWED
    missed = np.average(are_missed, weights=of_each)
    return limits.CLEAR_GAIN if missed > limits.GROSS_SHARE else limits.CLEAR_GAIN_WITHOUT_GROSS


def look_gross(y: FloatArray, weight: FloatArray) -> bool:
    """True if targets themselves look gross, where no predictions say whether they are.

    At least ``limits.GROSS_SHARE`` of a column are more than ``limits.MISSED_TARGET`` robust standard deviations from
    the median. And of these at least ``limits.OTHER_SIDE`` are on either side, or half are farther than
    ``limits.FAR_OUT`` deviations: on one side and nearer they are a tail, or a mode.

    Parameters
    ----------
    y : ndarray of shape (n, k)
        Targets.
    weight : ndarray of shape (n,)
        Non-negative; samples without weight don't count.

    Examples
    --------
    >>> y = np.random.default_rng(0).normal(size=(200, 1))
    >>> tail, gross = y.copy(), y.copy()
    >>> tail[:20], gross[:10], gross[10:20] = 8.0, 8.0, -8.0
    >>> [look_gross(each, np.ones(200)) for each in (y, tail, gross, 5.0 * tail)]
    [False, False, True, False]
    """
    y, weight = y[weight > 0.0], weight[weight > 0.0]
    if not len(y):
        return False
    center, unit = location_and_scale(y, weight)
    with np.errstate(over="ignore"):
        deviations = (y - center) / unit
    for column in deviations.T:
        far = np.abs(column) > limits.MISSED_TARGET
        mass = float(weight[far].sum())
        if mass < limits.GROSS_SHARE * float(weight.sum()):
            continue
        above = float(weight[far & (column > 0.0)].sum())
        is_farther = float(weight[np.abs(column) > limits.FAR_OUT].sum()) >= 0.5 * mass
        if is_farther or min(above, mass - above) >= limits.OTHER_SIDE * mass:
            return True
    return False


def _nearly_all(have: NDArray[np.bool_], some: NDArray[np.bool_], weight: FloatArray) -> bool:
    """True if nearly all of some have a property, by a standard error."""
    some = some & (weight > 0.0)
    if not some.any():
        return False
    values = have[some].astype(np.float64)
    share, error = stratified_mean(values, np.zeros(len(values), dtype=np.intp), weight[some])
    return share - error > limits.NEARLY_ALL
