"""Sleeper: workers that are honest until they are trusted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from skbgmd._utils.checks import check_integer
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.base import Indices
from skbgmd.corruption.gradients.a_little_is_enough import ALittleIsEnough
from skbgmd.corruption.gradients.base import GradientCorruption


class Sleeper(GradientCorruption):
    r"""Sleeper: honest for a number of steps, then another attack.

    It targets rules that remember rows, workers or scales. They judge the attack by facts learned in honest steps,
    which no longer hold. Fixed workers (``corrupt``) have a past to be trusted for. A call without a context doesn't
    know the step, and attacks.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    attack : GradientCorruption, default=None
        Attack after the honest steps; its own ``fraction``, ``corrupt`` and ``random_state`` are ignored. None:
        :class:`ALittleIsEnough`.
    n_honest_steps : int, default=100
        Number of steps without an attack, at least 0.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import AttackContext, SignFlip, Sleeper
    >>> attack = Sleeper(attack=SignFlip(), n_honest_steps=10, corrupt=[1])
    >>> [attack(torch.ones(3, 1), context=AttackContext(step=step))[1].item() for step in (0, 9, 10, 11)]
    [1.0, 1.0, -1.0, -1.0]
    """

    omniscient = True
    uses_context = True

    def __init__(
        self,
        fraction: float = 0.2,
        attack: GradientCorruption | None = None,
        n_honest_steps: int = 100,
        random_state: Any = None,
        corrupt: Any = None,
    ) -> None:
        self.fraction, self.attack, self.n_honest_steps = fraction, attack, n_honest_steps
        self.random_state, self.corrupt = random_state, corrupt

    def _check_parameters(self) -> None:
        check_integer(self.n_honest_steps, "n_honest_steps", at_least=0)
        self._inner()._check_parameters()

    def _inner(self) -> GradientCorruption:
        attack = ALittleIsEnough() if self.attack is None else self.attack
        if not isinstance(attack, GradientCorruption) or attack.acts_on_targets:
            raise TypeError(f"attack must be None or a GradientCorruption that acts on gradients; found {attack!r}.")
        return attack

    def _eligible(self, n: int, workers: Indices | None = None) -> Indices:
        return self._inner()._eligible(n, workers)

    def absent(self, workers: Iterable[int]) -> list[int]:
        workers = set(workers)
        inner = clone(self._inner()).set_params(corrupt=None)
        return sorted({*super().absent(workers), *inner.absent(workers)})

    def _rows(self, n: int, rng: np.random.RandomState, context: AttackContext | None, stacklevel: int) -> Indices:
        if context is not None and context.step < self.n_honest_steps:
            return np.zeros(0, dtype=np.intp)
        return super()._rows(n, rng, context, stacklevel + 1)

    def _replace(
        self,
        gradients: torch.Tensor,
        corrupt: torch.Tensor,
        honest: torch.Tensor,
        rng: np.random.RandomState,
        context: AttackContext | None = None,
    ) -> torch.Tensor:
        return self._inner()._made(gradients, corrupt, honest, rng, context)

    def _representable(self, replacement: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        return replacement
