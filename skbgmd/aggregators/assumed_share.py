"""Share of corrupt rows that a rule assumes: a number that it is told, or an estimate from the rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Judgement, LocationRule, check_fraction, state_of
from skbgmd.aggregators.corrupt_share import estimate_corrupt_share
from skbgmd.aggregators.memory import ShareMemory
from skbgmd.rows import Rows

#: A share in [0, 0.5), or "auto".
Fraction: TypeAlias = float | Literal["auto"]


def check_fraction_or_auto(value: Any) -> None:
    """Check an assumed share of corrupt rows: "auto", or a number in [0, 0.5)."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f'fraction must be "auto" or a number; found {value!r}.')
    else:
        check_fraction(value)


class AssumedShare(NamedTuple):
    """Share of corrupt rows that a rule assumes in a step.

    Attributes
    ----------
    fraction : float
        The share, in [0, 0.5).
    memory : ShareMemory or None
        For the next step; None where the share was told.
    record : mapping
        Entry of the history, ``corrupt_share``: the estimate of this step, or none where the share was told.
    """

    fraction: float
    memory: ShareMemory | None
    record: Mapping[str, Any]


def assumed_share(fraction: Fraction, rows: Rows, before: ShareMemory | None) -> AssumedShare:
    """Share of corrupt rows to assume: the one that is told, or a row more than the largest estimate of the last steps.

    Parameters
    ----------
    fraction : float or "auto"
        The parameter of a rule.
    rows : Rows
        The rows, all finite and of positive weight.
    before : ShareMemory or None
        Memory of the step before.
    """
    if not isinstance(fraction, str):
        return AssumedShare(fraction, None, {})
    found = estimate_corrupt_share(rows)
    memory = (before or ShareMemory()).update(found.estimate)
    n = rows.n_rows
    # Where weights fall little by little, to remove just the corrupt share leaves some of it.
    share = min(memory.value + 1.0 / n, (n - 1) / (2.0 * n)) if memory.value > 0.0 else 0.0
    return AssumedShare(share, memory, {"corrupt_share": found.estimate})


def with_lost(record: Mapping[str, Any], finite: BoolArray) -> Mapping[str, Any]:
    """Count rows that hold NaN or inf among the corrupt ones of a record."""
    if "corrupt_share" not in record or finite.all():
        return record
    lost = 1.0 - float(finite.mean())
    return {**record, "corrupt_share": lost + (1.0 - lost) * record["corrupt_share"]}


class FractionWeighting(LocationRule):
    """Aggregator that weighs rows by an assumed share of corrupt ones; the estimates of "auto" are its state."""

    fraction: Fraction

    def judge(self, rows: Rows, state: ShareMemory | None = None) -> Judgement:
        before = state_of(self, state, ShareMemory)
        assumed = assumed_share(self.fraction, rows, before if isinstance(self.fraction, str) else None)
        return Judgement(self._weigh(rows, assumed.fraction), assumed.memory, record=assumed.record)

    def _judge_usable(self, rows: Rows, state: Any) -> Judgement:
        judged = super()._judge_usable(rows, state)
        return judged._replace(record=with_lost(judged.record, self._finite(rows))) if judged.record else judged

    def _validate(self) -> None:
        check_fraction_or_auto(self.fraction)

    @abstractmethod
    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        """Weights of rows that are all finite and of positive weight, of which a share is corrupt."""
