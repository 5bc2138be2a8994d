"""Coordinate-wise trimmed mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from skbgmd._utils.cumulated_weights import rounding
from skbgmd.aggregators.assumed_share import Fraction, assumed_share, check_fraction_or_auto, with_lost
from skbgmd.aggregators.base import Aggregate, check_rows, n_assumed_corrupt, state_of, usable_rows
from skbgmd.aggregators.coordinatewise import Coordinatewise
from skbgmd.aggregators.memory import ShareMemory
from skbgmd.rows import Rows


class TrimmedMean(Coordinatewise):
    r"""Coordinate-wise trimmed mean: the mean of each column without its extreme values. Yin et al. (2018).

    It trims :math:`f = \lceil \psi n \rceil` rows (less than half) at either end of each column, or that share of the
    weight.

    Parameters
    ----------
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of the last steps
        (see :func:`estimate_corrupt_share`), or 0 if that estimate is zero. "auto" is blind to rows that hide in the
        spread of the others.
    """

    def __init__(self, fraction: Fraction = 0.4) -> None:
        self.fraction = fraction

    def __call__(self, rows: Rows, state: ShareMemory | None = None) -> tuple[Aggregate, Any]:
        if not isinstance(self.fraction, str):
            # Estimates of "auto" aren't asked for.
            state_of(self, state, ShareMemory)
            return super().__call__(rows)
        self._validate()
        check_rows(rows)
        usable = usable_rows(rows, rows.finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        assumed = assumed_share(self.fraction, some, state_of(self, state, ShareMemory))
        aggregate, _ = TrimmedMean(assumed.fraction)(some)
        return replace(aggregate, record=with_lost(assumed.record, rows.finite)), assumed.memory

    def _validate(self) -> None:
        check_fraction_or_auto(self.fraction)

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        n = values.shape[1]
        f = n_assumed_corrupt(float(self.fraction), n)
        kept = values[:, f : n - f]
        mean = kept.mean(dim=1)
        if bool(torch.isfinite(mean.sum())):
            return mean
        # Sums of the largest numbers overflow, and so may the rounding of their mean.
        return (kept / kept.shape[1]).sum(dim=1).clamp(kept[:, 0], kept[:, -1])

    def _shares(self, mass: torch.Tensor, total: int) -> torch.Tensor:
        n = mass.shape[1]
        cut = int(total * (n_assumed_corrupt(float(self.fraction), n) / n))
        before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
        kept = mass.clamp_max(total - cut) - before.clamp_min(cut)
        # What rounding would keep of a trimmed value, however large, isn't kept.
        kept = kept.masked_fill_(kept <= rounding(total, n), 0).double()
        return kept / kept.sum(dim=1, keepdim=True)
