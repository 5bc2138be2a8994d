"""Mimic: Byzantine workers that copy an honest one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_integer
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.base import Indices
from skbgmd.corruption.gradients.base import (
    GradientCorruption,
)


class Mimic(GradientCorruption):
    r"""Mimic: all corrupt rows copy one honest row, :math:`g \to g_t`, the same at every step.

    Karimireddy et al. (2022). No row is far from the others. But if the rows come from different distributions, the
    copied row counts for many. The attack is omniscient: the corrupt rows see another worker's gradient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    target : int, default=0
        The row t to copy, less than b. It is never drawn itself, so at most b - 1 rows are corrupt. In a training with
        clients it is the number of a client, as in ``corrupt``; a step without that client's row has no attack.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Mimic
    >>> Mimic(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    omniscient = True
    uses_context = True

    def __init__(self, fraction: float = 0.2, target: int = 0, random_state: Any = None, corrupt: Any = None) -> None:
        self.fraction, self.target, self.random_state, self.corrupt = fraction, target, random_state, corrupt

    def _check_parameters(self) -> None:
        check_integer(self.target, "target", at_least=0)

    def absent(self, workers: Iterable[int]) -> list[int]:
        workers = set(workers)
        return sorted({*super().absent(workers), *({int(self.target)} - workers)})

    def _eligible(self, n: int, workers: Indices | None = None) -> Indices:
        if workers is not None:
            return np.flatnonzero(workers != self.target) if self.target in workers else np.zeros(0, dtype=np.intp)
        if self.target >= n:
            raise ValueError(f"target must be less than the number of rows, {n}; found {self.target}.")
        return np.delete(np.arange(n), self.target)

    def _replace(
        self,
        gradients: torch.Tensor,
        corrupt: torch.Tensor,
        honest: torch.Tensor,
        rng: np.random.RandomState,
        context: AttackContext | None = None,
    ) -> torch.Tensor:
        workers = None if context is None else context.workers
        return gradients[self.target if workers is None else list(workers).index(self.target)].clone()
