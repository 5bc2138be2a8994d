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
    """A block step with its weights, its block, its memory and its proof.

    Attributes
    ----------
    median : array or tensor of shape (d,)
        The geometric median on the block; off it, the part that ``complement`` chooses.
    weights : array or tensor of shape (n,)
        Weights of the rows in the geometric median of the block. In float32 for half precision, in which they would not
        add up to one.
    block : array or tensor of shape (k,), int64
        The selected columns, ascending.
    memory : array or tensor of shape (d,), or None
        To be handed in with the next call; None unless ``complement="memory"``.
    gap : float
        Proved upper bound on the relative excess objective, on the block, of the median rounded to its dtype; before a
        memory is added.
    n_iter : int
        Steps taken.
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
    r"""Block coordinate geometric median (BGMD): the median of the rows on a block of columns, carried over to all.

    With a memory :math:`m` (zero without one), columns :math:`I` are selected by their scores
    :math:`s_j = \sum_i a_i (c_i x_{ij} + m_j)^2`, and the step is

    .. math:: y_I = \operatorname{GM}_i(x_{i, I}) + m_I = \sum_i w_i x_{i, I} + m_I .

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        The rows, as in :func:`geometric_median`.
    algorithm : {"robust", "bgmd_paper"}, default="robust"
        "robust": as the other parameters say; their defaults withstand any rows in the minority. "bgmd_paper":
        Algorithms 1 and 2 of [1]_ to the letter, which one corrupt row can lead anywhere: the same as
        ``selection="sample", complement="memory", memory_rule="mean", clip_scores=False, run_length=1``, none of
        which may then be given otherwise.
    beta : float, default=0.1
        Share of the columns in the block, in (0, 1]: :math:`k = \max(1, \lceil \beta d \rceil)`. With 1 this is
        :func:`geometric_median`.
    selection : {"top", "sample", "uniform"}, default="top"
        "top": the k highest scores. "sample": without replacement, with probabilities proportional to the scores
        (Algorithm 2 of [1]_). "uniform": any k.
    complement : {"weighted", "filtered", "zero", "memory"}, default="weighted"
        Off-block part of the step. "weighted": the rows' mean by the block's weights, a full estimate of location.
        "filtered": the same by weights of their own, against rows that agree to be beyond reproach on the block and
        wrong elsewhere; it takes a Gram matrix of all columns, and eigenvectors of it: of more than 1,024 rows it is
        "weighted". "zero": nothing. "memory": nothing now; it is kept for the next call (error feedback).
    memory : array-like or tensor of shape (d,), default=None
        The memory that the last call returned, added to every row. Only with ``complement="memory"``.
    memory_rule : {"weighted", "mean"}, default="weighted"
        Average of the rows' off-block parts that is kept. "mean": the plain mean, as in Algorithm 1 of [1]_; one
        corrupt row can send it anywhere. "weighted": by the block's weights, each row clipped as below, and scaled to
        at most 1 / beta times that length.
    clip_scores : bool, default=True
        Score the columns after clipping each row to the (weighted) median row norm, :math:`c_i = \min(1, M / \lVert x_i
        \rVert)`. Without it (:math:`c_i = 1`, the paper's rule) one corrupt row with huge entries in k columns is
        all of their score and decides the block at every step.
    run_length : int, default=1
        Length of runs of adjacent columns, which are selected by their summed scores. 1 is the paper's rule. Longer
        runs make gathering the block cheaper, and from 32 on norms and scores take a single pass. The block then
        holds whole runs, k or a few more columns.
    sample_weight : array-like or tensor of shape (n,), default=None
        Non-negative weights :math:`a_i` of the rows.
    tol, max_iter
        As in :func:`geometric_median`, on the block.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for "sample" and "uniform". None: a fresh one; the global state is never used.
    return_result : bool, default=False
        Return a :class:`BlockGeometricMedianResult` instead of the vector alone.

    Returns
    -------
    median : array or tensor of shape (d,)
        In the caller's kind of array, dtype and device; or a :class:`BlockGeometricMedianResult`.

    Raises
    ------
    TypeError, ValueError
        As :func:`geometric_median`, and for a parameter out of its range, a memory of a wrong shape, or a parameter
        that contradicts ``algorithm="bgmd_paper"``.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        As :func:`geometric_median`.

    Notes
    -----
    The block's weights don't depend on the other columns: a row that looks honest on the block may hold anything
    elsewhere. "weighted" (complement or memory) therefore scales each row's off-block part to at most the median
    norm of these parts, and weighs it by :math:`a_i \min(1, M / d_i)`, with :math:`d_i` the distance to the median on
    the block and :math:`M` their median; the median's own weights :math:`a_i / d_i` have no bound. With less than half
    of the rows corrupt the median norm is at most the norm of an honest row, so the answer is bounded by the honest
    rows on every column: the breakdown point is 1/2. And no row counts for more than twice its share off the block,
    so that a few corrupt rows can't turn the answer around there, either.

    "filtered" takes nothing from the block but which rows have no weight there. Where a direction has more than
    :math:`1 / \sqrt r` of the variance of the clipped off-block parts, r the number of directions, rows far along it
    lose weight, up to 40 % of all. Where none has, as with clean rows in many dimensions, it is the mean of the clipped
    parts. That a row is far on the block counts only where such rows are rejected, as ``rejection`` of
    :class:`skbgmd.aggregators.GeometricMedian` does.

    The clip is about zero, which gradients should be near; center other data first if they have a large common
    offset.

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
