"""Sums of factors of one parameter, which a module uses several times."""

from __future__ import annotations

import torch

from skbgmd.ghost.factors.base import Factor
from skbgmd.ghost.factors.dense import DenseFactor
from skbgmd.ghost.factors.embedding import EmbeddingFactor
from skbgmd.ghost.factors.outer_product import OuterProductFactor


def overlap(found: dict[int, list[Factor]]) -> bool:
    """Tell whether factors, by the units at which they begin, have some units in common but not all."""
    stop = 0
    for unit, factors in sorted(found.items()):
        ends = {unit + factor.n_units for factor in factors}
        if unit < stop or len(ends) > 1:
            return True
        (stop,) = ends
    return False


def written_out(found: dict[int, list[Factor]], n_units: int) -> DenseFactor:
    """Sum factors of a parameter whose units overlap, such as in self- and in cross-attention, written out."""
    first = next(iter(found.values()))[0]
    total = torch.zeros((first.n_rows, n_units, first.width), dtype=first.dtype, device=first.device)
    for unit, factors in found.items():
        for factor in factors:
            written = factor.explicit(slice(0, factor.n_units))
            total[:, unit : unit + factor.n_units] += written.view(factor.n_rows, factor.n_units, factor.width)
    return DenseFactor(total)


def merged(factors: list[Factor]) -> Factor:
    """Sum the factors of all uses of a parameter."""
    first, *others = factors
    if not others:
        return first
    if all(isinstance(factor, OuterProductFactor) for factor in factors):
        outer = [factor for factor in factors if isinstance(factor, OuterProductFactor)]
        return OuterProductFactor(torch.cat([f.left for f in outer], dim=1), torch.cat([f.right for f in outer], dim=1))
    if all(isinstance(factor, EmbeddingFactor) for factor in factors):
        found = [factor for factor in factors if isinstance(factor, EmbeddingFactor)]
        row, unit, values = (torch.cat([getattr(f, name) for f in found]) for name in ("row", "unit", "values"))
        return EmbeddingFactor.of(row, unit, values, first.n_rows, first.n_units)
    everything = slice(0, first.n_units)
    total = sum((factor.explicit(everything) for factor in others), first.explicit(everything))
    return DenseFactor(total.reshape(first.n_rows, first.n_units, first.width))
