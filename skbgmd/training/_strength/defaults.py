"""The rule that trainings use where none is given: the estimators' and the nets' are the same."""

from __future__ import annotations

import copy
from typing import Any

from skbgmd._utils.checks import check_choice
from skbgmd.aggregators import (
    AGGREGATORS,
    Aggregator,
    BlockGeometricMedian,
    GeometricMedian,
    HuberMean,
    LocationRule,
    Mean,
    get_aggregator,
)

#: The name of :func:`default_rule` among rules.
AUTO = "auto"
#: Proved accuracy of a step's median. Gradients are noise to far more than this, and no digit more makes them better.
TOL = 1e-4
#: Median distances within which rows of single samples count in full; for classes, as "mild" has it, and for numbers.
HUBER_OF_CLASSES, HUBER_OF_NUMBERS = 16.0, None
#: Median distances beyond which rows are left out.
REJECTION = 10.0


def default_rule(
    *,
    huber: float | None,
    of_samples: bool,
    beta: float | None = None,
    selection: str = "top",
    block: str = "unit",
    memory: str | None = None,
    rejection: float | None = REJECTION,
    random_state: int | None = None,
) -> Aggregator:
    """The rule of training steps, written out as an aggregator.

    Parameters
    ----------
    huber : float or None
        ``c`` of Huber's mean, where rows are of single samples; means of groups and of clients are much more alike.
        None: the geometric median.
    of_samples : bool
        Whether rows are of single samples.
    beta, selection, block, memory, rejection
        As in :class:`skbgmd.BlockGMDClassifier`; without ``beta`` rows are judged by all coordinates.
    random_state : int or None, default=None
        Seed of what ``selection`` draws.

    Returns
    -------
    Aggregator

    Examples
    --------
    >>> default_rule(huber=16.0, of_samples=True)
    HuberMean(c=16.0, rejection=10.0, remember=True, tol=0.0001)
    >>> default_rule(huber=16.0, of_samples=False, beta=0.1)
    BlockGeometricMedian(block='unit', complement='filtered',
                         location=GeometricMedian(rejection=10.0, tol=0.0001))
    """
    location: LocationRule
    if of_samples and huber is not None:
        location = HuberMean(huber, rejection=rejection, remember=True, tol=TOL)
    else:
        location = GeometricMedian(rejection, ties="huber" if of_samples else "median", tol=TOL)
    if beta is None or beta == 1.0:
        return location
    return BlockGeometricMedian(
        beta,
        location,
        selection=selection,
        block=block,
        complement="memory" if memory is not None else "weighted" if of_samples else "filtered",
        memory_rule=memory or "weighted",
        random_state=random_state,
    )


def has_default(aggregator: str | Aggregator) -> bool:
    """True if a rule is the default one, "auto", or has it in a place, as a parameter that is "auto"."""
    return is_auto(aggregator) or (isinstance(aggregator, Aggregator) and bool(_places(aggregator)))


def with_default(aggregator: str | Aggregator, default: Aggregator) -> Aggregator:
    """Put the default rule where a rule has "auto", in a copy."""
    if is_auto(aggregator) or isinstance(aggregator, str):
        return default
    filled = copy.deepcopy(aggregator)
    filled.set_params(**dict.fromkeys(_places(aggregator), default))
    return filled


def _places(aggregator: Aggregator) -> list[str]:
    """Parameters that are "auto" in the place of a rule; an assumed share of corrupt rows may be as well."""
    params = aggregator.get_params()
    return [name for name, value in params.items() if is_auto(value) and name.split("__")[-1] != "fraction"]


def is_auto(value: Any) -> bool:
    """True for "auto", whatever else a parameter may be."""
    return isinstance(value, str) and value == AUTO


def named_rule(aggregator: str | Aggregator) -> Aggregator:
    """Look up a rule of an estimator or a net that isn't "auto"."""
    if isinstance(aggregator, str):
        check_choice(aggregator, "aggregator", (AUTO, *AGGREGATORS))
    return get_aggregator(aggregator)


def ignored_parameters(aggregator: str | Aggregator, beta: float | None, *, of_samples: bool) -> set[str]:
    """Parameters of an estimator that don't matter to its rule.

    Parameters
    ----------
    aggregator, beta
        As in :class:`skbgmd.BlockGMDClassifier`.
    of_samples : bool
        Whether rows are of single samples.

    Examples
    --------
    >>> sorted(ignored_parameters("auto", 0.1, of_samples=False))
    ['huber']
    """
    if has_default(aggregator):
        ignored = set() if of_samples else {"huber"}
        return ignored if beta is not None and beta < 1.0 else {*ignored, "selection", "block", "memory"}
    rule = named_rule(aggregator)
    ignored = {"selection", "block", "memory", "huber", "rejection"}
    if not isinstance(aggregator, str) or "beta" not in rule.get_params():
        ignored.add("beta")
    return {*ignored, "pre_aggregation"} if isinstance(rule, Mean) else ignored
