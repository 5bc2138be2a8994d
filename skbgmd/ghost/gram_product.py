"""Choice of the factors whose Gram matrices cost more than a few products with them."""

from __future__ import annotations

from collections.abc import Sequence

from skbgmd._utils import limits
from skbgmd.ghost.factors import DenseFactor, Factor

Placed = list[tuple[int, Factor]]


def split_by_cost(factors: Sequence[tuple[int, Factor]]) -> tuple[Placed, Placed]:
    """Split factors into those whose Gram matrices are to be formed, and those to be passed over for each product.

    Parameters
    ----------
    factors : sequence of (int, Factor)
        First columns and factors.

    Returns
    -------
    formed, passed : list of (int, Factor)
        The same factors, with the columns of each list next to one another. No factor is passed over where that
        wouldn't halve the time of the whole.
    """
    formed: Placed = []
    passed: Placed = []
    with_passes = 0
    for _, factor in factors:
        passes = limits.GRAM_PRODUCT_PASSES * factor.pass_multiplications
        # Small ones are formed together, in one call.
        is_small = isinstance(factor, DenseFactor) and factor.n_columns <= limits.ONE_PRODUCT_COLUMNS
        part = formed if is_small or factor.multiplications <= passes else passed
        part.append((part[-1][0] + part[-1][1].n_columns if part else 0, factor))
        with_passes += factor.multiplications if part is formed else passes
    if 2 * with_passes > sum(factor.multiplications for _, factor in factors):
        return list(factors), []
    return formed, passed
