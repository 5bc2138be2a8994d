"""Types that several rooms share: names of kinds of arrays, and what an attack is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class AttackContext:
    """Knowledge of an attack on gradients beyond the gradients: the rule that it attacks, and the time.

    Attributes
    ----------
    aggregate : callable, default=None
        Takes a matrix of the gradients' shape (b, d) and returns the vector (d,) that the rule in its present state
        makes of these rows; asking changes no state. Of a rule across ranks it is that within the rank. None: the rule
        isn't known.
    step : int, default=0
        Number of steps before this one.
    block : callable, default=None
        Takes a matrix of the same shape and returns the columns (k,), int64, that the rule would look at, or None for
        all. None: not known.
    workers : sequence of b ints, default=None
        Number of the worker that each row is of, which it has at all steps; None: its place among the rows.

    Examples
    --------
    >>> import torch
    >>> from skbgmd import geometric_median
    >>> from skbgmd.corruption import AttackContext
    >>> context = AttackContext(geometric_median, step=3)
    >>> context.aggregate(torch.tensor([[0.0], [0.0], [9.0]]))
    tensor([0.])
    """

    aggregate: Callable[[torch.Tensor], torch.Tensor] | None = None
    step: int = 0
    block: Callable[[torch.Tensor], torch.Tensor | None] | None = None
    workers: Sequence[int] | None = None
