"""A typical distance that is remembered from step to step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skbgmd._utils import limits
from skbgmd.aggregators.base import AggregatorState


@dataclass(frozen=True)
class Scale(AggregatorState):
    """The median of the last five steps' typical distances or, if that is larger, an earlier such one, which fades.

    The distances of gradients of single samples shrink as a network learns, but for those of the samples that are yet
    to be learnt: seen from the others of the same step these look like outliers, seen from earlier steps they don't.
    In a small batch more than half of the samples may be corrupt by chance; such a step has no say, as long as
    there are not three of them among five, or two among the first three.

    Attributes
    ----------
    value : float
        The scale; 0 before the first step.
    recent : tuple of float
        Typical distances of the last steps, five at most.

    Examples
    --------
    >>> scale = Scale()
    >>> for distance in (2.0, 2.0, 90.0, 2.0, 1.0, 1.0, 1.0):
    ...     scale = scale.after(distance)
    >>> scale.value
    1.998
    """

    value: float = 0.0
    recent: tuple[float, ...] = ()

    @property
    def faded(self) -> float:
        """What is left of it after a step that doesn't raise it."""
        return limits.SCALE_DECAY * self.value

    @property
    def is_new(self) -> bool:
        """True as long as too few steps were seen to be compared with."""
        return len(self.recent) < limits.SCALE_ENOUGH

    @property
    def is_rising(self) -> bool:
        """Whether it is what the last steps made it, rather than what is left of an earlier one."""
        return self.is_new or self.value == _middle(self.recent)

    def after(self, now: float) -> Scale:
        """The scale after a step."""
        if now == 0.0:
            # Most rows coincide: that says nothing of how far others may be.
            return replace(self, value=self.faded)
        recent = (*self.recent, now)[-limits.SCALE_WINDOW :]
        middle = _middle(recent)
        # Two steps don't tell which of them is the bad one.
        value = middle if len(recent) < limits.SCALE_ENOUGH else max(middle, self.faded)
        return Scale(value, recent)


def _middle(distances: tuple[float, ...]) -> float:
    return sorted(distances)[(len(distances) - 1) // 2]
