"""Line-searched attacks: known attacks of the strength that does the most harm to the rule at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_choice, check_number
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.base import exponent_of, multiply_add, times_power
from skbgmd.corruption.gradients.omniscient import ALittleIsEnough, AlongLine, InnerProduct

OBJECTIVES = ("progress", "deviation")


class _Searched(AlongLine):
    """Attack along a line, as far as harms most."""

    uses_context = True

    aggregator: Callable[[torch.Tensor], torch.Tensor] | None
    objective: str
    weakest: float
    strongest: float

    def _check_parameters(self) -> None:
        check_choice(self.objective, "objective", OBJECTIVES)
        check_number(self.weakest, "weakest")
        check_number(self.strongest, "strongest", at_least=float(self.weakest))
        if self.aggregator is not None and not callable(self.aggregator):
            raise TypeError(f"aggregator must be None or a function of a matrix; found {self.aggregator!r}.")

    def _replace(
        self,
        gradients: torch.Tensor,
        corrupt: torch.Tensor,
        honest: torch.Tensor,
        rng: np.random.RandomState,
        context: AttackContext | None = None,
    ) -> torch.Tensor:
        aggregate = self.aggregator or (None if context is None else context.aggregate)
        if aggregate is None:
            raise ValueError(
                "aggregator must be a function from a matrix to a vector where no context tells the rule, as that of "
                "a training does; found None."
            )
        mean, start, direction = self._line(gradients, corrupt, honest)
        attacked = gradients.clone()

        def rows(strength: float) -> torch.Tensor:
            made = multiply_add(direction, strength, start.clone()).to(gradients.dtype)
            return self._representable(made, gradients)

        def harm(strength: float) -> float:
            attacked[corrupt] = rows(strength)
            return harm_of(aggregate(attacked), mean, self.objective)

        return rows(strongest_harm(harm, float(self.weakest), float(self.strongest)))


class SearchedALittleIsEnough(_Searched, ALittleIsEnough):
    r"""Line-searched ALIE (optimized ALIE): :math:`g \to \mu - z \sigma`, with the most harmful z for the rule.

    z is searched anew in each call, against the rule and its present state, as known from the context of a training:

    .. math:: z = \arg\max_z \; -\frac{\langle A(z), \mu \rangle}{\lVert \mu \rVert^2}
        \quad\text{or}\quad \arg\max_z \; \lVert A(z) - \mu \rVert ,

    where A(z) is the aggregate and :math:`\mu` the honest mean: the lost progress, or the deviation of Shejwalkar &
    Houmansadr (2021) and Allouah et al. (2023). A geometric grid of nine strengths, then two refinements about the
    best: 13 aggregates a call. Baruch et al. (2019) for the attack. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    objective : {"progress", "deviation"}, default="progress"
        Harm to maximize.
    weakest, strongest : float, default=0.1, 100.0
        Bounds of z, positive.
    aggregator : callable, default=None
        Rule to search against, a function from a matrix (b, d) to a vector (d,); None: that of the context.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.
    own : bool, default=False
        Whether to shift each corrupt row's own gradient, rather than the honest mean, which all send.

    Examples
    --------
    >>> import torch
    >>> from skbgmd import geometric_median
    >>> from skbgmd.corruption import ALittleIsEnough, SearchedALittleIsEnough
    >>> gradients = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) + 0.3
    >>> def progress(attack):
    ...     return float(geometric_median(attack(gradients)).mean() / 0.3)
    >>> searched = SearchedALittleIsEnough(fraction=0.4, aggregator=geometric_median, random_state=0)
    >>> progress(searched) < progress(ALittleIsEnough(fraction=0.4, random_state=0))
    True
    """

    def __init__(
        self,
        fraction: float = 0.2,
        objective: str = "progress",
        weakest: float = 0.1,
        strongest: float = 100.0,
        aggregator: Any = None,
        random_state: Any = None,
        corrupt: Any = None,
        own: bool = False,
    ) -> None:
        self.fraction, self.objective, self.aggregator = fraction, objective, aggregator
        self.weakest, self.strongest = weakest, strongest
        self.random_state, self.corrupt, self.own = random_state, corrupt, own


class SearchedInnerProduct(_Searched, InnerProduct):
    r"""Line-searched inner product manipulation: :math:`g \to -\epsilon \mu`, with the most harmful ε for the rule.

    As :class:`SearchedALittleIsEnough`, after Xie, Koyejo & Gupta (2020). Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    objective : {"progress", "deviation"}, default="progress"
        Harm to maximize.
    weakest, strongest : float, default=0.1, 100.0
        Bounds of ε, positive.
    aggregator : callable, default=None
        Rule to search against, a function from a matrix (b, d) to a vector (d,); None: that of the context.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.
    own : bool, default=False
        Whether to shift each corrupt row's own gradient, rather than the honest mean, which all send.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import SearchedInnerProduct
    >>> def mean(rows):
    ...     return rows.mean(dim=0)
    >>> attack = SearchedInnerProduct(fraction=0.4, aggregator=mean, random_state=0)
    >>> attack(torch.tensor([[0.0], [2.0], [9.0]]))  # nothing limits the harm to a mean
    tensor([[   0.],
            [   2.],
            [-100.]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        objective: str = "progress",
        weakest: float = 0.1,
        strongest: float = 100.0,
        aggregator: Any = None,
        random_state: Any = None,
        corrupt: Any = None,
        own: bool = False,
    ) -> None:
        self.fraction, self.objective, self.aggregator = fraction, objective, aggregator
        self.weakest, self.strongest = weakest, strongest
        self.random_state, self.corrupt, self.own = random_state, corrupt, own


def harm_of(aggregate: torch.Tensor, mean: torch.Tensor, objective: str) -> float:
    r"""Harm that an aggregate does: lost progress, or deviation from the honest mean in lengths of the mean.

    Without a mean to make progress along, the harm is the deviation.
    """
    largest = float(mean.abs().max())
    exponent = exponent_of(largest if largest > 0.0 else float(aggregate.abs().max()))
    if largest == 0.0:
        length = torch.linalg.vector_norm(times_power(aggregate.double(), -exponent))
        return float(times_power(length, exponent))
    mean = times_power(mean.double(), -exponent)
    aggregate = times_power(aggregate.double(), -exponent)
    square = float(mean @ mean)
    if objective == "progress":
        return -float(aggregate @ mean) / square
    return float(torch.linalg.vector_norm(aggregate - mean)) / math.sqrt(square)


def strongest_harm(harm: Callable[[float], float], weakest: float, strongest: float) -> float:
    """Search the strength of the most harm: on a geometric grid, then twice on a finer one about the best.

    Parameters
    ----------
    harm : callable
        Harm of a strength; what isn't a number does none.
    weakest, strongest : float
        Bounds, positive.
    """
    ratio = math.pow(strongest / weakest, 1.0 / (limits.SEARCHED_STRENGTHS - 1))
    strengths = [weakest * ratio**k for k in range(limits.SEARCHED_STRENGTHS - 1)] + [strongest]
    best, most = weakest, -math.inf
    for refinement in range(limits.SEARCH_REFINEMENTS + 1):
        if refinement:
            ratio = math.sqrt(ratio)
            strengths = [best / ratio, best * ratio]
        for strength in strengths:
            if weakest <= strength <= strongest:
                found = harm(strength)
                if found > most:
                    best, most = strength, found
    return best
