"""Choice of the way to a geometric median: Weiszfeld steps, the Gram matrix of the rows, or Newton steps in R^d."""

from __future__ import annotations

from skbgmd._utils import limits


def takes_gram_path(n: int, d: int) -> bool:
    """Choose between the Gram matrix of the rows (True) and Newton steps in R^d, for a solution by either.

    The Gram matrix costs n^2 d multiplications, once; in R^d each of some five evaluations and Newton steps costs some
    ten passes of n d, and a copy in float64. Measured (``benchmarks/results/paths.md``), R^d is ahead up to 100 columns
    at any number of rows, and the two are level at 400 rows of 400 columns. From 1000 columns on the Gram matrix is
    ahead as long as there are at most half as many rows, by 1.3 to 3 times; the two are level at 2500 rows of 5000
    columns. With as many rows as columns R^d is ahead.
    """
    return d >= 1000 and 2 * n <= d


def weiszfeld_pays(n: int, d: int, steps: float) -> bool:
    """Choose so many Weiszfeld steps (True), predicted by their contraction, rather than a solution by another path.

    A step evaluates all rows once, by two products of the matrix with a vector. In such evaluations the Gram matrix
    costs a share of the rows, for it is bound by multiplications where they are bound by memory, and Newton steps in
    R^d with conjugate gradients a constant. Up to so few columns that a Newton step is one of them, it is always
    better: few columns are what makes Weiszfeld steps contract slowly.
    """
    if d <= limits.DIRECT_SOLVE_DIMENSION:
        return False
    return steps <= (n / limits.GRAM_EVALUATION_ROWS if takes_gram_path(n, d) else limits.NEWTON_EVALUATIONS)
