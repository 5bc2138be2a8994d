"""Squatter: corrupt rows beyond reproach on the block that a rule looks at, and wrong everywhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.base import (
    GradientCorruption,
    block_size,
    clipped_scores,
    times_power,
    to_order_one,
)
from skbgmd.corruption.gradients.searched import harm_of, strongest_harm


class Squatter(GradientCorruption):
    r"""Squatter on the block: the honest geometric median on the columns that a rule looks at, wrong on all others.

    It targets block methods that judge rows by a few columns. On the block B, corrupt rows are the geometric median of
    the honest rows on B, so no row has a larger weight. Off B they point against the honest mean, with the median norm
    that honest rows have there:

    .. math:: g_B \to \operatorname{GM}(G_B), \qquad
        g_{\bar B} \to -\operatorname{median}_i \lVert g_{i \bar B} \rVert \,
        \frac{\mu_{\bar B}}{\lVert \mu_{\bar B} \rVert} .

    The corrupt rows have a vote in the selection. So the attack selects the block again with them, until it stays as it
    is, and at most five times. In a training, B is the block of the attacked rule in its present state, if the rule has
    one. Otherwise B holds the columns with the largest scores of rows clipped to the median norm. The attack is
    omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    beta : float, default=0.1
        Share of the columns that the rule is supposed to look at, in (0, 1], if the context doesn't tell them.
    searched : bool, default=False
        Search the length off the block anew in each call, from a tenth of the median norm to twice that norm, for the
        least progress of the rule along the honest mean. Such a length is just what a rule lets pass that filters by
        directions of large variance. The context must supply the rule, as that of a training does.
    own : bool, default=False
        Let corrupt rows keep the noise of their own gradients off the block. They agree on a shift, and are drawn in to
        the median norm if they are longer.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Squatter
    >>> gradients = torch.tensor([[9.0, 1.0], [9.0, 1.0], [8.0, 2.0], [9.0, 1.0], [7.0, 3.0]])
    >>> Squatter(fraction=0.2, beta=0.5, random_state=0)(gradients)[2]
    tensor([ 9., -1.])
    """

    omniscient = True
    uses_context = True

    def __init__(
        self,
        fraction: float = 0.2,
        beta: float = 0.1,
        random_state: Any = None,
        corrupt: Any = None,
        searched: bool = False,
        own: bool = False,
    ) -> None:
        self.fraction, self.beta, self.random_state, self.corrupt = fraction, beta, random_state, corrupt
        self.searched, self.own = searched, own

    def _check_parameters(self) -> None:
        check_number(self.beta, "beta", at_most=1.0)

    def _replace(
        self,
        gradients: torch.Tensor,
        corrupt: torch.Tensor,
        honest: torch.Tensor,
        rng: np.random.RandomState,
        context: AttackContext | None = None,
    ) -> torch.Tensor:
        aggregate = None if context is None else context.aggregate
        if self.searched and aggregate is None:
            raise ValueError(
                "searched must be False where no context tells the rule, as that of a training does; found True."
            )
        others, exponent = to_order_one(gradients[honest])
        mean, k = others.mean(dim=0), block_size(self.beta, gradients.shape[1])
        noise = times_power(gradients[corrupt].to(others.dtype), -exponent) - mean if self.own else None
        rows, attacked = others.new_empty(gradients.shape), gradients.clone()
        rows[honest] = others

        def made(block: torch.Tensor, length: float = 1.0) -> torch.Tensor:
            found = squat(others, -mean, block, length=length, noise=noise)
            replacement = times_power(found, exponent).to(gradients.dtype)
            attacked[corrupt] = self._representable(replacement, gradients)
            return found

        ask = None if context is None else context.block
        block = None if ask is None else ask(attacked)
        if block is None:
            # Nothing is known of a block, or there is none.
            ask, block = None, clipped_scores(others).topk(k).indices
        for _ in range(limits.SQUATTER_SELECTIONS):
            rows[corrupt] = made(block)
            before, known = block, None if ask is None else ask(attacked)
            block = clipped_scores(rows).topk(k).indices if known is None else known
            if torch.equal(before.sort().values, block.sort().values):
                break
        if self.searched and aggregate is not None:
            honest_mean = gradients[honest].mean(dim=0)

            def harm(length: float) -> float:
                made(before, length)
                return harm_of(aggregate(attacked), honest_mean, "progress")

            made(before, strongest_harm(harm, *limits.SQUATTER_LENGTHS))
        return attacked[corrupt]


def squat(
    honest: torch.Tensor,
    wrong: torch.Tensor,
    block: torch.Tensor,
    *,
    length: float = 1.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Row (d,) at the honest rows' geometric median on a block, and along a direction at their median norm off it.

    Parameters
    ----------
    honest : tensor of shape (h, d)
        Rows of order one.
    wrong : tensor of shape (d,)
        The direction.
    block : tensor of shape (k,), int64
        Columns of the block.
    length : float, default=1.0
        Multiple of the median norm.
    noise : tensor of shape (d,) or (c, d), default=None
        Noise off the block, of one row or of several, which are then rows (c, d). Rows longer than the median norm and
        than the multiple are drawn in to that.
    """
    off = torch.ones(honest.shape[1], dtype=torch.bool, device=honest.device)
    off[block] = False
    norm = torch.linalg.vector_norm(wrong[off])
    size = torch.linalg.vector_norm(honest[:, off], dim=1).median()
    row = torch.where(off, wrong * torch.where(norm > 0.0, length * size / norm, 0.0), 0.0)
    if noise is not None:
        row = row + torch.where(off, noise, 0.0)
        norms = torch.linalg.vector_norm(row, dim=-1, keepdim=True)
        row = row * torch.where(norms > 0.0, max(1.0, length) * size / norms, 1.0).clamp(max=1.0)
    row[..., block] = weiszfeld(honest[:, block])
    return row


def weiszfeld(rows: torch.Tensor) -> torch.Tensor:
    """Geometric median of rows (h, k) of order one, to the accuracy of some steps of Weiszfeld's algorithm."""
    center = rows.mean(dim=0)
    for _ in range(limits.SQUATTER_STEPS):
        distances = torch.linalg.vector_norm(rows - center, dim=1)
        # A center at one of the rows would stay there: as good as the median for this.
        weights = 1.0 / distances.clamp(min=torch.finfo(rows.dtype).tiny ** 0.5)
        center = (weights / weights.sum()) @ rows
    return center
