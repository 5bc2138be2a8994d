"""Block coordinate geometric median: block selection, the median on the block, and memory (the step of BGMD)."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skbgmd._utils import limits
from skbgmd._utils.arrays import as_matrix, as_real_array, as_weights
from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.checks import check_choice, check_integer, check_number, not_finite, refuse_masks_and_dates
from skbgmd._utils.random import torch_generator
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.location.median import Solved, solve, vector_norm, warn_if_not_proved
from skbgmd.location.rejection import weights_within_median_distance
from skbgmd.location.spectral import median_spectral_weights
from skbgmd.rows import DenseRows, Rows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock, largest, sums_of_runs
from skbgmd.rows.chunked import in_range, means
from skbgmd.rows.gram import clip_factors, lower_weighted_median
from skbgmd.rows.layout import IN_ONE_PROCESS, ColumnLayout
from skbgmd.rows.scaled import ScaledRows

SELECTIONS = ("top", "sample", "uniform")
BLOCKS = ("coordinate", "unit")
OFF_BLOCK_RULES = ("weighted", "filtered", "zero", "memory")
MEMORY_RULES = ("weighted", "mean")
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
    before = _as_memory(memory, complement, rows)
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
        _check_range(step)
    warn_if_not_proved(solved.gap, tol, solved.n_iter)
    if not return_result:
        return caller.convert(step)
    if after is not None:
        after = caller.rounded(after)
        _check_range(after)
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


def _check_range(values: torch.Tensor, layout: ColumnLayout = IN_ONE_PROCESS) -> None:
    """Raise an error where the sum with a memory overflows, wherever its columns are."""
    # A finite sum has finite terms.
    is_beyond = not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all())
    if layout.is_anywhere(is_beyond, values.device):
        raise ValueError(
            f"memory must have a number in {values.dtype} after it is added to the rows; found one beyond "
            f"{torch.finfo(values.dtype).max:.2g}. Divide both by a constant, or begin with no memory."
        )


def take_norms(rows: Rows, selection: str, run_length: int, memory: torch.Tensor | None) -> None:
    """Compute the rows' norms, which tell finite rows, and those of runs if :func:`select_block` needs them."""
    rows.norms(run_length if selection != "uniform" and memory is None else 1)


def select_block(
    rows: Rows,
    beta: float,
    *,
    selection: str = "top",
    clip: bool = True,
    run_length: int = 1,
    units: ParameterBlock | None = None,
    memory: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> CoordinateBlock | ParameterBlock:
    """Select columns by their scores. Parameters as in :func:`block_geometric_median`.

    With ``units`` whole ones are selected, by the mean score of their columns. ``generator`` is needed unless
    ``selection="top"``; every row is finite.
    """
    d = rows.n_columns
    k = max(1, math.ceil(beta * d))
    if k == d:
        return rows.layout.held(CoordinateBlock.all(d, rows.device))
    if selection == "uniform":
        n = d if units is None else len(units.starts)
        scores = torch.ones(n, dtype=torch.float64, device=rows.device)
        scores = scores if units is not None or run_length == 1 else sums_of_runs(scores, run_length)
    else:
        norms = rows.norms(run_length)
        scale = _score_factors(norms, rows.weights) if clip else np.ones(rows.n_rows)
        furthest = None if memory is None else rows.layout.maximum(_largest_number(memory))
        scale, memory = _of_unit_size(scale * (rows.weights > 0.0), norms, memory, furthest)
        if units is not None:
            scores = rows.unit_scores(units, scale, memory)
        elif run_length > 1:
            scores = rows.run_scores(run_length, scale, memory)
        else:
            scores = rows.column_scores(scale, memory)
    if units is not None:
        if selection == "top":
            return rows.layout.held(units.top(scores.cpu().numpy(), k))
        return rows.layout.held(units.choose(_keys(scores, generator).cpu().numpy(), k))
    keys, rounding = scores, limits.TIED_ULPS * torch.finfo(scores.dtype).eps
    if selection != "top":
        # What is drawn has no ties.
        keys, rounding = _keys(scores, generator), 0.0
    wanted = min(len(keys), -(-k // run_length))
    block = CoordinateBlock(largest(keys, wanted, rounding), run_length, d)
    # The last run of columns may be short.
    if len(block) < k:
        block = CoordinateBlock(largest(keys, wanted + 1, rounding), run_length, d)
    return rows.layout.held(block)


def _of_unit_size(
    scale: FloatArray, norms: FloatArray, memory: torch.Tensor | None, furthest: torch.Tensor | None
) -> tuple[FloatArray, torch.Tensor | None]:
    """Scale factors of the rows, and a memory, so that scores of huge or tiny rows don't over- or underflow.

    Only ratios of scores matter; a power of two changes no digit of them. ``furthest`` is the memory's largest number.
    """
    largest = float((scale * norms).max())
    if furthest is not None:
        largest = max(largest, float(furthest))
    low, high = limits.SQUARED_RANGE[torch.float32]  # in which the scores of any rows may be
    if largest == 0.0 or low <= largest <= high:
        return scale, memory
    factor = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000))
    return scale * factor, None if memory is None else memory.double() * factor


@dataclass(frozen=True)
class BlockPart:
    """A block with the rows on it, and their weights there.

    Attributes
    ----------
    columns : CoordinateBlock or ParameterBlock
        The block.
    rows : Rows
        The rows on it.
    weights : ndarray of shape (n,)
        Weights of the rows, which add up to one.
    off_block : ndarray of shape (n,), or None
        Weights of the rows on the other columns; None: by :func:`cap_weights`.
    """

    columns: CoordinateBlock | ParameterBlock
    rows: Rows
    weights: FloatArray
    off_block: FloatArray | None = None


def block_step(
    rows: Rows,
    part: BlockPart,
    *,
    off_block: str = "weighted",
    memory_rule: str = "weighted",
    memory: torch.Tensor | None = None,
    off_block_limit: float | None = None,
    norms: FloatArray | None = None,
    memory_lengths: float = math.inf,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Step (d,) and new memory (d,), or None, from the weights that rows have on a block.

    ``off_block`` is the ``complement`` of :func:`block_geometric_median`, and ``off_block_limit`` the norm that the
    rows' off-block parts are clipped to; None: their (lower, weighted) median. ``norms`` (n,) are those of these parts,
    if they are known. A weighted memory is scaled to at most ``memory_lengths`` times that limit.
    """
    if len(part.columns) == rows.n_columns and memory is None:
        step = means(part.rows, part.weights)
        return step, torch.zeros_like(step) if off_block == "memory" else None
    if off_block == "zero":
        on_block = means(part.rows, part.weights)
        return on_block.new_zeros(rows.n_held).index_copy_(0, part.columns.indices, on_block), None
    is_published = off_block == "memory" and memory_rule == "mean"
    limit = 0.0
    if len(part.columns) == rows.n_columns:
        moved = means(part.rows, part.weights)
    else:
        if is_published:
            elsewhere = rows.weights / rows.weights.sum()
        else:
            norms = off_block_norms(rows, part) if norms is None else norms
            limit = lower_weighted_median(norms, rows.weights) if off_block_limit is None else off_block_limit
            carried = cap_weights(part.weights, part.rows.weights) if part.off_block is None else part.off_block
            if off_block == "filtered" and rows.n_rows <= limits.FILTERED_ROWS:
                carried = filter_off_block(rows, part, carried > 0.0, norms, limit)
            elsewhere = carried * clip_factors(limit, norms)
        moved = rows.weighted_sum_by_block(part.weights, elsewhere, part.columns)
        if not math.isfinite(float(moved.sum())):
            on_block = in_range(part.rows, moved[part.columns.indices], part.weights)
            moved = in_range(rows, moved, elsewhere).index_copy_(0, part.columns.indices, on_block)
    if off_block != "memory":
        return moved, None
    if memory is not None:
        moved += memory
        _check_range(moved, rows.layout)
    index = part.columns.indices
    step = torch.zeros_like(moved).index_copy_(0, index, moved[index])
    # A copy, as the memory lasts: the vector may be a view of something larger.
    kept = moved.index_fill(0, index, 0.0)
    return step, kept if is_published else _limit_memory(kept, memory_lengths * limit, rows.layout)


def _limit_memory(memory: torch.Tensor, limit: float, layout: ColumnLayout) -> torch.Tensor:
    """Scale a memory, wherever its columns are, to at most a norm; a limit of zero is none, as nothing is added."""
    here = torch.full((), vector_norm(memory), dtype=torch.float64, device=memory.device)
    largest = float(layout.maximum(here))
    if limit in (0.0, math.inf) or largest == 0.0:
        return memory
    norm = largest * float(layout.add_up((here / largest) ** 2)) ** 0.5
    return memory * (limit / norm) if norm > limit else memory


def median_clip_factors(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Factors that scale each row to at most the weighted median norm.

    It is the lower one: rows of less than half of the weight can't raise it above the norm of every other row.
    """
    return clip_factors(lower_weighted_median(norms, weights), norms)


def _score_factors(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Clip as :func:`median_clip_factors`, but never to zero by a majority of zero rows, which have no scores."""
    factors = median_clip_factors(norms, weights)
    if factors[norms > 0.0].any():
        return factors
    return median_clip_factors(norms, weights * (norms > 0.0)) if norms.any() else factors


def cap_weights(weights: FloatArray, shares: FloatArray) -> FloatArray:
    """Cap the weights of a block before they are carried to columns that it doesn't see.

    No row counts for more, relative to its share, than the (weighted) median row does, and so none for more than twice
    its share. Weights of a geometric median off the rows become Huber's for the median distance. Where rows of less
    than half of the shares have weight, that is the rule's decision, and the weights are left as they are.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Weights, non-negative and adding up to one.
    shares : ndarray of shape (n,)
        The rows' own weights, one of them positive.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one.

    Examples
    --------
    >>> cap_weights(np.array([0.9, 0.04, 0.04, 0.02]), np.ones(4))
    array([0.28571429, 0.28571429, 0.28571429, 0.14285714])
    """
    shares = shares / shares.sum()
    multiples = weights / np.where(shares > 0.0, shares, 1.0)
    # The upper median: rows of half of the shares have as much.
    typical = -lower_weighted_median(-multiples, shares)
    if typical == 0.0 or multiples.max() <= typical:
        return weights
    capped: FloatArray = shares * np.minimum(multiples, typical)
    capped /= capped.sum()
    return capped


def filter_off_block(rows: Rows, part: BlockPart, kept: BoolArray, norms: FloatArray, limit: float) -> FloatArray:
    """Weights off a block by the spectrum of the clipped off-block parts, however near rows are on it.

    Parameters
    ----------
    rows, part
        All columns, and the block.
    kept : ndarray of shape (n,), bool
        Rows that have weight on the block; others have none off it.
    norms : ndarray of shape (n,)
        Norms of the off-block parts.
    limit : float
        Norm that they are clipped to.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one.
    """
    used, weights = np.flatnonzero(kept), np.zeros(rows.n_rows)
    weights[used] = median_spectral_weights(
        _clipped_products(rows, part, used, norms[used], limit),
        rows.weights[used],
        limits.FILTERED_SHARE,
        limits.STANDING_OUT,
    )
    return weights


def _clipped_products(
    rows: Rows, part: BlockPart, used: NDArray[np.intp], norms: FloatArray, limit: float
) -> FloatArray:
    """Inner products of some rows' clipped off-block parts: those of all columns without those on the block."""
    factors, whole, inside = clip_factors(limit, norms), rows.gram(), part.rows.gram()
    in_range = whole.unit == inside.unit == 1.0 and whole.shrinkage is None and inside.shrinkage is None
    lengths = np.maximum(whole.known_lengths, inside.known_lengths)[used]
    root = np.sqrt(factors)
    reach = float((np.add.outer(lengths, lengths) * root * root[:, None]).max())
    rounding = max(whole.rounding, inside.rounding)
    # Parts that are short beside their rows, or beside another, lose their digits in differences of squared distances.
    if not in_range or reach * math.sqrt(rounding / limits.CANCELLED_SHARE) > limit:
        return ScaledRows(rows.subset(used).block(part.columns.off_block), factors).gram().products
    between = (whole.squared_distances() - inside.squared_distances())[np.ix_(used, used)]
    squares = norms**2
    products: FloatArray = 0.5 * (squares[:, None] + squares - between) * factors[:, None] * factors
    return products


def off_block_norms(rows: Rows, part: BlockPart) -> FloatArray:
    """Norms of the rows' off-block parts."""
    whole = rows.norms()
    share = part.rows.norms() / np.where(whole > 0.0, whole, 1.0)
    off_block = whole * np.sqrt(np.maximum(1.0 - share * share, 0.0))
    # With nearly all of a row in the block, the difference has lost its digits.
    if share.max(initial=0.0) > 0.999:
        lost = np.flatnonzero((share > 0.999) & (whole > 0.0))
        off_block[lost] = rows.subset(lost).block(part.columns.off_block).norms()
    return off_block


def _keys(scores: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Keys whose k largest are a sample without replacement, with probabilities proportional to the scores.

    Efraimidis and Spirakis (2006): the smallest of E / s with E exponential; the logarithm is the Gumbel form.
    """
    waits = torch.empty(len(scores), dtype=torch.float64, device=scores.device).exponential_(generator=generator)
    return scores.double().log_() - waits.log_()


def _largest_number(values: torch.Tensor) -> torch.Tensor:
    return values.abs().max() if len(values) else values.new_zeros(())


def _as_memory(memory: Any, complement: str, rows: DenseRows) -> torch.Tensor | None:
    if memory is None:
        return None
    if complement != "memory":
        raise ValueError(f'memory is only used with complement="memory"; found complement={complement!r}.')
    refuse_masks_and_dates(memory, "memory")
    if np.ndim(memory) != 1 or len(memory) != rows.n_columns:
        raise ValueError(f"memory must have shape ({rows.n_columns},); found shape {tuple(np.shape(memory))}.")
    given = as_matrix(memory[None] if isinstance(memory, torch.Tensor) else as_real_array(memory, "memory")[None])[0][0]
    kept = given.to(dtype=rows.work_dtype, device=rows.matrix.device)
    if not bool(torch.isfinite(kept).all()):
        found = float(given[~torch.isfinite(kept).to(given.device)][0])
        raise ValueError(f"memory must be finite and have a number in {rows.work_dtype}; found {found}.")
    return kept
