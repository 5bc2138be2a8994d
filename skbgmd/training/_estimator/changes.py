"""Parameters that were changed between two calls of which the second goes on from the first."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from skbgmd._utils.checks import brief, listed

#: Parameters whose changes take effect where a training goes on.
IN_EFFECT = frozenset({"class_weight", "max_epochs", "verbose", "warm_start"})
#: Types of values that can be compared.
_PLAIN = (bool, int, float, str, type, type(None))


def warn_of_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn of parameters that have other values than when the training began, which it doesn't see.

    Only numbers, texts, classes and sequences of them are compared.
    """
    changed = [
        f"{name}={brief(value)} ({brief(before[name])} before)"
        for name, value in now.items()
        if name in before and name not in IN_EFFECT and _differ(before[name], value)
    ]
    if changed:
        warnings.warn(
            f"A training that goes on keeps the parameters that it began with; found {listed(changed)}. Changes of "
            f"{', '.join(sorted(IN_EFFECT - {'warm_start'}))} take effect; for others fit anew, with warm_start=False.",
            stacklevel=4,
        )


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) != len(other) or any(map(_differ, one, other))
    return isinstance(one, _PLAIN) and isinstance(other, _PLAIN) and one != other
