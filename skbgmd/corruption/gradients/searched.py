"""Line-searched attacks: known attacks of the strength that does the most harm to the rule at hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_choice, check_number
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.base import AlongLine, exponent_of, multiply_add, times_power

OBJECTIVES = ("progress", "deviation")


class Searched(AlongLine):
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
