"""Block coordinate geometric median (BGMD): the median of the rows on a block of columns, carried over to all."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from skbgmd._utils.arrays import as_matrix, as_weights
from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.checks import check_choice, check_flag, check_integer, check_number, not_finite
from skbgmd._utils.random import check_random_source, torch_generator
from skbgmd._utils.typing import FloatArray
from skbgmd.location.block_memory import MEMORY_RULES, as_memory, check_range
from skbgmd.location.block_selection import SELECTIONS, select_block, take_norms
from skbgmd.location.median import warn_if_not_proved
from skbgmd.location.off_block import OFF_BLOCK_RULES, BlockPart, block_step
from skbgmd.location.paths.choice import solve
from skbgmd.location.rejection import weights_within_median_distance
from skbgmd.location.solved import Solved
from skbgmd.rows import DenseRows

ALGORITHMS = ("robust", "bgmd_paper")
#: The parameters of Algorithms 1 and 2 of the paper.
PUBLISHED: dict[str, Any] = {
    "selection": "sample",
    "complement": "memory",
    "memory_rule": "mean",
    "clip_scores": False,
    "run_length": 1,
}


@dataclass(frozen=True)
class BlockGeometricMedianResult:
    """Result of a block step: the vector, row weights, block, memory and a proof of accuracy.

    Attributes
    ----------
    median : array or tensor of shape (d,)
        On the block, the geometric median; off the block, the part that ``complement`` chooses.
    weights : array or tensor of shape (n,)
        Row weights in the geometric median on the block. For half-precision input they are float32, because
        half-precision weights would not add up to one.
    block : array or tensor of shape (k,), int64
        Indices of the selected columns, ascending.
    memory : array or tensor of shape (d,), or None
        Memory to pass to the next call; None unless ``complement="memory"``.
    gap : float
        Proved upper bound on the relative excess objective on the block. It holds for the median rounded to its dtype,
        before a memory is added.
    n_iter : int
        Number of steps.
    converged : bool
        True if ``gap <= tol``.
    """

    median: Any
    weights: Any
    block: Any
    memory: Any
    gap: float
    n_iter: int
    converged: bool


@without_autocast
def block_geometric_median(
    X: ArrayLike | torch.Tensor,
    *,
    algorithm: str = "robust",
    beta: float = 0.1,
    selection: str = "top",
    complement: str = "weighted",
    memory: ArrayLike | torch.Tensor | None = None,
    memory_rule: str = "weighted",
    clip_scores: bool = True,
    run_length: int = 1,
    sample_weight: ArrayLike | torch.Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    return_result: bool = False,
) -> Any:
    r"""Block coordinate geometric median (BGMD): the geometric median on a block of columns, carried over to all.

    The function selects a block of columns and computes the geometric median there. By default it takes the other
    columns from the rows' mean, weighted by the block's weights.

    With a memory :math:`m` (zero without one), it selects columns :math:`I` by their scores
    :math:`s_j = \sum_i a_i (c_i x_{ij} + m_j)^2`. The step on the block is

    .. math:: y_I = \operatorname{GM}_i(x_{i, I}) + m_I = \sum_i w_i x_{i, I} + m_I .

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        The rows, as in :func:`geometric_median`.
    algorithm : {"robust", "bgmd_paper"}, default="robust"
        "robust" follows the other parameters; their defaults withstand any rows in the minority. "bgmd_paper" is
        Algorithms 1 and 2 of [1]_ to the letter, which one corrupt row can lead anywhere. It equals
        ``selection="sample", complement="memory", memory_rule="mean", clip_scores=False, run_length=1``. Giving one of
        these parameters another value is then an error.
    beta : float, default=0.1
        Share of the columns in the block, in (0, 1]: :math:`k = \max(1, \lceil \beta d \rceil)`. With 1 the function
        equals :func:`geometric_median`.
    selection : {"top", "sample", "uniform"}, default="top"
        "top": the k columns with the highest scores. "sample": k columns drawn without replacement, with probabilities
        proportional to the scores (Algorithm 2 of [1]_). "uniform": any k columns, drawn at random.
    complement : {"weighted", "filtered", "zero", "memory"}, default="weighted"
        Off-block part of the step:

        - "weighted": the rows' mean by the block's weights, a full estimate of location.
        - "filtered": the rows' mean by weights that come from the off-block parts. It counters rows that agree to look
          honest on the block and are wrong elsewhere. It needs a Gram matrix of all columns and its eigenvectors; with
          more than 1,024 rows it falls back to "weighted".
        - "zero": zero.
        - "memory": zero in this step; the off-block part is kept for the next call (error feedback).
    memory : array-like or tensor of shape (d,), default=None
        The memory that the last call returned; it is added to every row. Only with ``complement="memory"``.
    memory_rule : {"weighted", "mean"}, default="weighted"
        Average of the rows' off-block parts that the memory keeps. "mean": the plain mean, as in Algorithm 1 of [1]_;
        one corrupt row can send it anywhere. "weighted": the mean by the block's weights, with each row clipped as in
        the Notes; the memory is scaled to at most 1 / beta times the length that rows are clipped to.
    clip_scores : bool, default=True
        Before scoring the columns, clip each row to the (weighted) median row norm M:
        :math:`c_i = \min(1, M / \lVert x_i \rVert)`. With False (:math:`c_i = 1`, the paper's rule), one corrupt row
        with huge entries in k columns makes up their whole score and decides the block at every step.
    run_length : int, default=1
        Length of runs of adjacent columns; runs are selected by their summed scores. 1 is the paper's rule. Longer runs
        make it cheaper to gather the block, and from 32 on norms and scores take a single pass. The block then holds
        whole runs: k columns or a few more.
    sample_weight : array-like or tensor of shape (n,), default=None
        Non-negative weights :math:`a_i` of the rows. None: all weights are one.
    tol, max_iter
        As in :func:`geometric_median`, on the block.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for "sample" and "uniform". None: a fresh one; the global state is never used.
    return_result : bool, default=False
        Return a :class:`BlockGeometricMedianResult` instead of the vector alone.

    Returns
    -------
    median : array or tensor of shape (d,)
        The step, as the caller's kind of array, with its dtype and on its device. With ``return_result=True``, a
        :class:`BlockGeometricMedianResult`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`geometric_median`. Also if a parameter is out of its range, if the memory has a wrong shape, or if
        a parameter contradicts ``algorithm="bgmd_paper"``.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        As for :func:`geometric_median`.

    Notes
    -----
    **Robustness off the block.** The block's weights don't depend on the other columns: a row that looks honest on the
    block may hold anything elsewhere. "weighted" (as ``complement`` or ``memory_rule``) therefore bounds each row in
    two ways:

    - It scales the row's off-block part to at most the median norm of these parts.
    - It weighs that part by :math:`a_i \min(1, M / d_i)`, where :math:`d_i` is the row's distance to the median on the
      block and :math:`M` is the median of these distances. The median's own weights, :math:`a_i / d_i`, have no bound.

    If less than half of the rows are corrupt, the median norm is at most the norm of an honest row. The honest rows
    then bound the answer on every column: the breakdown point is 1/2. Also, no row counts for more than twice its share
    off the block, so a few corrupt rows can't turn the answer around there, either.

    **The filter.** "filtered" uses only one fact from the block: which rows have no weight there. Let r be the number
    of directions in which the clipped off-block parts vary. If a direction has more than :math:`1 / \sqrt r` of their
    variance, rows far along it lose weight, up to 40 % of all. If no direction has, as with clean rows in many
    dimensions, the result is the mean of the clipped parts. A row that is far on the block therefore counts less only
    if the rule rejects such rows, as ``rejection`` of :class:`skbgmd.aggregators.GeometricMedian` does.

    **Centering.** Rows are clipped about zero, which gradients should be near. Center other data first if they have a
    large common offset.

    References
    ----------
    .. [1] Robust Training in High Dimensions via Block Coordinate Geometric Median Descent (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd import block_geometric_median
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(10, 1000)) + 1.0
    >>> X[:4] *= -100.0
    >>> bool(np.linalg.norm(block_geometric_median(X) - 1.0) < 0.8 * np.sqrt(1000))
    True

    The paper's algorithm keeps the off-block part and adds it to the next gradients:

    >>> step = block_geometric_median(X, algorithm="bgmd_paper", random_state=0, return_result=True)
    >>> int((step.median != 0).sum()), bool(np.allclose(step.memory[step.block], 0.0))
    (100, True)
    >>> step = block_geometric_median(
    ...     X, algorithm="bgmd_paper", memory=step.memory, random_state=1, return_result=True
    ... )
    """
    matrix, caller = as_matrix(X)
    weights = as_weights(sample_weight, len(matrix))
    beta = check_number(beta, "beta", at_most=1.0)
    check_choice(selection, "selection", SELECTIONS)
    check_choice(complement, "complement", OFF_BLOCK_RULES)
    check_choice(memory_rule, "memory_rule", MEMORY_RULES)
    run_length = check_integer(run_length, "run_length")
    tol = check_number(tol, "tol")
    max_iter = check_integer(max_iter, "max_iter")
    check_flag(return_result, "return_result")
    check_random_source(random_state)
    if check_choice(algorithm, "algorithm", ALGORITHMS) == "bgmd_paper":
        _check_published(
            selection=selection,
            complement=complement,
            memory_rule=memory_rule,
            clip_scores=clip_scores,
            run_length=run_length,
        )
        selection, complement, memory_rule, clip_scores, run_length = PUBLISHED.values()
    rows = DenseRows(matrix, weights)
    before = as_memory(memory, complement, rows)
    take_norms(rows, selection, run_length, before)
    if not rows.finite.all():
        raise not_finite("X", matrix)
    block = select_block(
        rows,
        beta,
        selection=selection,
        clip=clip_scores,
        run_length=run_length,
        memory=before,
        generator=torch_generator(random_state, matrix.device) if selection != "top" else None,
    )
    inside = rows if len(block) == rows.n_columns else rows.block(block)
    solved = solve(inside, tol=tol, max_iter=max_iter, dtype=caller.rounded_to, combines=True)
    if caller.difference is not None:
        solved = solved.of_rounded_rows(caller.lost(block.indices.cpu().numpy()), weights)
    part = BlockPart(block, inside, solved.weights, _off_block_weights(inside, solved))
    step, after = block_step(
        rows, part, off_block=complement, memory_rule=memory_rule, memory=before, memory_lengths=1.0 / beta
    )
    if solved.median is not None:
        on_block = solved.median.to(step.dtype)
        step.index_copy_(0, block.indices, on_block if before is None else on_block + before[block.indices])
    step = caller.rounded(step)
    if before is not None:
        check_range(step)
    warn_if_not_proved(solved.gap, tol, solved.n_iter)
    if not return_result:
        return caller.convert(step)
    if after is not None:
        after = caller.rounded(after)
        check_range(after)
    return BlockGeometricMedianResult(
        median=caller.convert(step),
        weights=caller.convert_weights(solved.weights, matrix.device),
        block=block.indices if isinstance(caller.dtype, torch.dtype) else block.indices.cpu().numpy(),
        memory=None if after is None else caller.convert(after),
        gap=solved.gap,
        n_iter=solved.n_iter,
        converged=bool(solved.gap <= tol),
    )


def _off_block_weights(rows: DenseRows, solved: Solved) -> FloatArray | None:
    """Weights off a block, where those on it don't tell how near rows are, as the median is a row; None otherwise."""
    if solved.median is None or (solved.weights > 0.0).all():
        return None
    return weights_within_median_distance(rows.weights, rows.distances(solved.median.double()))


def _check_published(**given: Any) -> None:
    """Raise an error for a parameter that isn't as the paper's algorithms fix it, nor left at its default."""
    defaults = inspect.signature(block_geometric_median).parameters
    for name, value in given.items():
        if value not in (PUBLISHED[name], defaults[name].default):
            raise ValueError(f"{name} must be {PUBLISHED[name]!r} with algorithm='bgmd_paper'; found {value!r}.")
