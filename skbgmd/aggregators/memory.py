"""Memory of rules: what lasts from step to step, the scale of distances and the share of corrupt rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skbgmd._utils import limits
from skbgmd.aggregators.base import AggregatorState


@dataclass(frozen=True)
class Scale(AggregatorState):
    """Typical distance of the rows over steps: the median of the last five, or a larger earlier one, which decays.

    Gradients of single samples shrink as the network learns those samples. Samples still to be learned keep long
    gradients: compared with others of the same step they look like outliers, compared with earlier steps they don't.
    In a small batch more than half of the samples may be corrupt by chance; such steps don't count unless they are
    three of the last five, or two of the first three.

    Attributes
    ----------
    value : float
        The scale; 0 before the first step.
    recent : tuple of float
        Typical distances of the last steps, five at most.
    largest : float
        The largest that five steps in a row have had, which doesn't decay; 0 before the fifth. What is far beside it
        is no sample that is still to be learned.

    Examples
    --------
    >>> scale = Scale()
    >>> for distance in (2.0, 2.0, 90.0, 2.0, 1.5, 1.0, 1.0, 1.0):
    ...     scale = scale.update(distance)
    >>> round(scale.value, 6), scale.largest
    (1.996002, 1.5)
    """

    value: float = 0.0
    recent: tuple[float, ...] = ()
    largest: float = 0.0

    @property
    def decayed(self) -> float:
        """The scale after a step that doesn't raise it."""
        return limits.SCALE_DECAY * self.value

    @property
    def is_new(self) -> bool:
        """True before there are enough steps to compare with."""
        return len(self.recent) < limits.SCALE_ENOUGH

    @property
    def is_rising(self) -> bool:
        """True where the last steps set the scale, rather than the decay of an earlier one."""
        return self.is_new or self.value == _low_median(self.recent)

    def update(self, now: float) -> Scale:
        """Scale after a step with a typical distance of ``now``."""
        if now == 0.0:
            # Most rows coincide, which says nothing of how far the others may be.
            return replace(self, value=self.decayed)
        recent = (*self.recent, now)[-limits.SCALE_WINDOW :]
        median = _low_median(recent)
        # Two steps don't tell which of them is the bad one.
        value = median if len(recent) < limits.SCALE_ENOUGH else max(median, self.decayed)
        # By chance more than half of a small batch are corrupt, but not five times in a row.
        lasting = min(recent) if len(recent) == limits.SCALE_WINDOW else 0.0
        return Scale(value, recent, max(self.largest, lasting))


@dataclass(frozen=True)
class ShareMemory(AggregatorState):
    """Share of corrupt rows over the last five steps: the largest estimate.

    Corrupt rows that show in one step hide in the next. A share that is too large costs a rule a little accuracy on
    clean data, one that is too small costs it its robustness.

    Attributes
    ----------
    recent : tuple of float
        Estimates of the last steps, five at most.

    Examples
    --------
    >>> memory = ShareMemory()
    >>> for share in (0.0, 0.3, 0.0, 0.1):
    ...     memory = memory.update(share)
    >>> memory.value
    0.3
    """

    recent: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """The share; 0 before the first step."""
        return max(self.recent, default=0.0)

    def update(self, now: float) -> ShareMemory:
        """Memory after a step whose estimate is ``now``."""
        return ShareMemory((*self.recent, now)[-limits.SHARE_WINDOW :])


def _low_median(values: tuple[float, ...]) -> float:
    """Lower median of a few numbers, in a fraction of the time that :mod:`statistics` takes."""
    return sorted(values)[(len(values) - 1) // 2]
