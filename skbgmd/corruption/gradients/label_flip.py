"""Label flip: workers whose labels are wrong, and whose gradients are honest ones of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from skbgmd._utils.checks import check_integer
from skbgmd._utils.random import random_source
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.base import GradientCorruption


class LabelFlip(GradientCorruption):
    r"""Label flip: corrupt workers send gradients of flipped labels, :math:`y \to C - 1 - y` of C classes.

    This is the usual form of data poisoning in federated learning: Fang et al. (2020), Karimireddy et al. (2022).
    Regression targets become :math:`-y`, labels 0 and 1 of a binary loss become :math:`1 - y`, and probabilities of
    classes are reversed.

    A training calls :meth:`corrupt_targets` before it computes gradients. A matrix of gradients has no labels to flip,
    so a call with one raises an error.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    n_classes : int, default=None
        Number C of classes. None: that of the trained net, which a classifier knows.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import LabelFlip
    >>> groups = [slice(0, 2), slice(2, 4), slice(4, 6)]
    >>> LabelFlip(corrupt=[1], n_classes=10).corrupt_targets(torch.tensor([0, 1, 0, 1, 0, 1]), groups)
    tensor([0, 1, 9, 8, 0, 1])
    """

    acts_on_targets = True

    def __init__(
        self, fraction: float = 0.2, n_classes: int | None = None, random_state: Any = None, corrupt: Any = None
    ) -> None:
        self.fraction, self.n_classes, self.random_state, self.corrupt = fraction, n_classes, random_state, corrupt

    def _check_parameters(self) -> None:
        if self.n_classes is not None:
            check_integer(self.n_classes, "n_classes", at_least=2)

    def corrupt_targets(
        self,
        targets: Any,
        groups: Sequence[slice],
        random_state: Any = None,
        context: AttackContext | None = None,
        *,
        kind: str | None = None,
        n_classes: int | None = None,
    ) -> Any:
        self._check_own()
        rng = random_source(self.random_state if random_state is None else random_state)
        rows = self._rows(len(groups), rng, context, stacklevel=3)
        n_classes = n_classes if self.n_classes is None else int(self.n_classes)

        def flip(values: torch.Tensor) -> torch.Tensor:
            values = values.clone()
            for row in rows:
                values[groups[row]] = flipped(values[groups[row]], kind, n_classes)
            return values

        return tree_map_only(torch.Tensor, flip, targets)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        raise TypeError("LabelFlip must act on targets, as gradient_corruption of a training; found gradients.")


def flipped(targets: torch.Tensor, kind: str | None = None, n_classes: int | None = None) -> torch.Tensor:
    """Flip targets.

    Parameters
    ----------
    targets : tensor
        Indices of classes, probabilities of classes along the last axis, 0 and 1, -1 and 1, or numbers.
    kind : {"numbers", "classes", "binary", "signs"}, default=None
        What they are; None: classes if they are integers, otherwise numbers.
    n_classes : int, default=None
        Number of classes; needed for indices of them. Others, such as those to be ignored, stay.

    Raises
    ------
    ValueError
        Indices of an unknown number of classes.
    """
    if kind == "binary" or targets.dtype == torch.bool:
        return 1 - targets if targets.dtype != torch.bool else ~targets
    if kind in ("numbers", "signs") or (kind is None and targets.is_floating_point()):
        return -targets
    if targets.is_floating_point():
        return targets.flip(-1)
    if n_classes is None:
        raise ValueError("n_classes must be given where the net that is trained doesn't know it; found None.")
    return torch.where((targets >= 0) & (targets < n_classes), n_classes - 1 - targets, targets)
