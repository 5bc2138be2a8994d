"""Products in the dtypes they are given, under autocast too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def _autocasts(kind: str) -> bool:
    """Check for autocast on a type of devices, in this version of torch."""
    try:
        torch.is_autocast_enabled(kind)
    except RuntimeError:
        return False
    return True


#: Types of devices on which torch may multiply in narrower dtypes.
AUTOCAST = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if _autocasts(kind))


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to multiply in the dtypes of its arguments, even under autocast.

    Proofs of medians, and products of factors, rest on single precision or better.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = [kind for kind in AUTOCAST if torch.is_autocast_enabled(kind)]
        if not enabled:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in enabled:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return wrapper
