"""Block coordinate geometric median descent between machines: the block travels, the remainder stays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.checks import check_integer, check_number
from skbgmd.aggregators import Aggregator, BlockGeometricMedian, Zeno, get_aggregator
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.distributed.exchange import Exchange, exchange_of_messages
from skbgmd.distributed.ranks import DistributedRanks, plain_ranks, refuse_ranks, seeded_rule, seeds_of, settings_of
from skbgmd.distributed.remainders import Part, regroup
from skbgmd.distributed.rows import ShardedRows
from skbgmd.rows.blocks import CoordinateBlock, sums_of_runs
from skbgmd.training._ranks import tell

#: Name of the one parameter of a vector without a layout.
UNNAMED = "vector"


def magnitudes_of_runs(vector: torch.Tensor, length: int) -> torch.Tensor:
    """Root mean squares over runs of ``length`` adjacent numbers, without overflow or underflow of the squares.

    Parameters
    ----------
    vector : tensor of shape (d,), float32 or float64
        The last run, if it is shorter, counts as if it ended with zeros.
    length : int

    Returns
    -------
    tensor of shape (ceil(d / length),)
        Of the vector's dtype, and not above its largest number; all NaN if a number is NaN or infinite.

    Examples
    --------
    >>> magnitudes_of_runs(torch.tensor([3e30, 3e30, 1e30]), 1)
    tensor([3.0000e+30, 3.0000e+30, 1.0000e+30])
    """
    largest = vector.abs().max()
    unit = torch.where(largest == 0.0, 1.0, torch.where(largest.isfinite(), largest, torch.nan))
    return (sums_of_runs((vector / unit).square(), length) / length).sqrt().clamp(max=1.0) * unit


def median_scores(magnitudes: torch.Tensor) -> torch.Tensor:
    """Lower median over the ranks of the magnitudes of each run, without the ranks that have NaN.

    With fewer than half of the ranks hostile every score lies between those of two honest ranks.

    Parameters
    ----------
    magnitudes : tensor of shape (n, r)
        Magnitude of each of r runs on each of n ranks.

    Returns
    -------
    tensor of shape (r,)
        0 where every rank has NaN.

    Examples
    --------
    >>> median_scores(torch.tensor([[1.0, 9.0], [2.0, 8.0], [torch.inf, torch.nan]]))
    tensor([2., 8.])
    """
    return magnitudes.nanmedian(dim=0).values.nan_to_num(nan=0.0)


def choose_runs(scores: torch.Tensor, n_chosen: int, step: int, round_robin: float) -> torch.Tensor:
    """Choose runs: some by turns, and the others by the largest scores; among equal scores the first.

    Parameters
    ----------
    scores : tensor of shape (r,)
    n_chosen : int
        Number of runs to choose.
    step : int
        Number of earlier choices, which had their turns.
    round_robin : float
        Share of the chosen runs whose turn it is, in [0, 1]; the number is rounded up.

    Returns
    -------
    tensor of shape (n_chosen,), int64
        Ascending.

    Examples
    --------
    >>> scores = torch.tensor([0.0, 9.0, 1.0, 8.0, 0.0, 7.0])
    >>> [choose_runs(scores, 3, step, 0.3).tolist() for step in (0, 1, 2)]
    [[0, 1, 3], [1, 3, 5], [1, 2, 3]]
    """
    n_turns = math.ceil(round_robin * n_chosen)
    turns = (step * n_turns + torch.arange(n_turns, device=scores.device)) % len(scores)
    keys = scores.index_fill(0, turns, torch.inf)
    # Stable: partitions may break ties in another way on another machine.
    return keys.argsort(descending=True, stable=True)[:n_chosen].sort().values


def limit_norm(vector: torch.Tensor, limit: float) -> torch.Tensor:
    """Scale a vector to at most a norm; a limit of 0, or that isn't finite, is none.

    Examples
    --------
    >>> limit_norm(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    """
    if not 0.0 < limit < math.inf:
        return vector
    norm = float(magnitudes_of_runs(vector, len(vector))[0]) * len(vector) ** 0.5
    return vector * (limit / norm) if norm > limit else vector


def refuse_columns(rule: Aggregator) -> None:
    """Refuse a rule that remembers columns, wants them in units or all at once: a block has others in each step.

    Raises
    ------
    ValueError
    """
    for each in (rule, *rule.get_params(deep=True).values()):
        if isinstance(each, BlockGeometricMedian) and (each.complement == "memory" or each.block == "unit"):
            raise ValueError(
                f"The rule must neither remember columns (complement='memory', as bgmd_paper does) nor choose units "
                f"where beta is less than 1: a block has other columns in each step, and remainders are its memory; "
                f"found {each!r}."
            )
        if isinstance(each, Zeno):
            raise ValueError(f"The rule must not need whole rows where beta is less than 1; found {each!r}.")


class BlockExchange:
    r"""Robust gradient aggregation across ranks that sends a block of the coordinates (BGMD between machines).

    Each rank adds its remainder :math:`r_i`, which it has not sent yet, to its gradient: :math:`p_i = g_i + r_i`. All
    ranks agree on a block :math:`B` of coordinates. The block travels, and the rest stays with the rank (error feedback
    [2]_, [3]_):

    .. math:: a_B = \operatorname{rule}(p_{1,B}, \dots, p_{n,B}), \quad a_{\bar B} = 0, \quad
        r_{i,B} \gets 0, \quad r_{i,\bar B} \gets p_{i,\bar B}.

    That is Algorithm 1 of [1]_ with a memory for each row in place of the mean memory, so no rank can change another
    rank's remainder.

    The block is made of runs of adjacent coordinates. The score of a run is the lower median over the ranks of its
    magnitude, so hostile ranks, fewer than half, can't decide it. A share of the runs is sent by turns, so hostile
    ranks can't keep a run from being sent either.

    Parameters
    ----------
    aggregator : str or Aggregator, default="geometric_median"
        Rule for the block.
    beta : float, default=0.1
        Share of the coordinates that is sent, in (0, 1]: whole runs with :math:`\lceil \beta d \rceil` coordinates or a
        few more. 1: the rule on all coordinates, and no remainder.
    run_length : int, default=64
        Number of adjacent coordinates in a run. A score is sent for each run, so about ``beta + 1 / run_length`` of an
        all-reduce is sent.
    round_robin : float, default=0.125
        Share of the block that is sent by turns, in [0, 1]. Each run is then sent within ``1 / (beta * round_robin)``
        steps at the latest, which bounds a remainder by as many gradients. 1: no scores are exchanged.
    remainder_limit : float or None, default=3.0
        Largest norm of a remainder, as a multiple of the median norm of the ranks' :math:`p_i`. A longer remainder is
        scaled to it, so that a gradient that is too large once isn't sent for many steps. None: no limit.
    exchange : Exchange, default=None
        The ranks, and the dtype in which numbers travel. None: all ranks, and the vector's dtype.

    Attributes
    ----------
    parts : list of Part
        Remainders and states of what was exchanged together so far.

    Notes
    -----
    The loss by rounding to ``transport_dtype`` goes into the remainder as well. A rank whose gradient isn't finite
    takes no part in the step and keeps its remainder. If a remainder, or its sum with the gradient, isn't finite, it is
    dropped with a warning, and the rank sends its gradient alone. An error of the rule, such as
    :class:`skbgmd.aggregators.NonFiniteRowsError`, leaves all remainders as they were.

    References
    ----------
    .. [1] Acharya et al. (2022). Robust Training in High Dimensions via Block Coordinate Geometric Median Descent.
    .. [2] Karimireddy, Rebjock, Stich and Jaggi (2019). Error Feedback Fixes SignSGD and other Gradient Compression
       Schemes.
    .. [3] Stich, Cordonnier and Jaggi (2018). Sparsified SGD with Memory.

    Examples
    --------
    Alone, without a process group; under ``torchrun`` every rank calls it with its own gradient:

    >>> import torch
    >>> from skbgmd.distributed import BlockExchange
    >>> exchange = BlockExchange(beta=0.5, run_length=2, round_robin=0.0)
    >>> exchange(torch.tensor([1.0, 1.0, 2.0, 2.0]))
    tensor([0., 0., 2., 2.])
    >>> exchange(torch.tensor([1.5, 1.5, 2.0, 2.0]))
    tensor([2.5000, 2.5000, 0.0000, 0.0000])
    """

    def __init__(
        self,
        aggregator: str | Aggregator = "geometric_median",
        beta: float = 0.1,
        *,
        run_length: int = 64,
        round_robin: float = 0.125,
        remainder_limit: float | None = 3.0,
        exchange: Exchange | None = None,
    ) -> None:
        self.aggregator = get_aggregator(aggregator)
        self.beta = check_number(beta, "beta", at_most=1.0)
        if self.beta < 1.0:
            refuse_columns(self.aggregator)
        self.run_length = check_integer(run_length, "run_length")
        self.round_robin = check_number(round_robin, "round_robin", at_least=0.0, at_most=1.0)
        self.remainder_limit = None if remainder_limit is None else check_number(remainder_limit, "remainder_limit")
        refuse_ranks(self.aggregator, "aggregator")
        self.aggregator.check_parameters()
        self.exchange = exchange or Exchange()
        self.parts: list[Part] = []
        #: Seeds of what draws in the rule, those of the first rank, and the rule with them; None: before a step.
        self._seeds: tuple[int, ...] | None = None
        self._rule: Aggregator | None = None
        #: Layouts and dtypes that the ranks have compared.
        self._compared: set[Any] = set()

    @without_autocast
    @torch.no_grad()
    def __call__(self, vector: torch.Tensor, layout: Mapping[str, int] | None = None) -> torch.Tensor:
        """Aggregate this rank's gradient with those of the other ranks.

        Parameters
        ----------
        vector : tensor of shape (d,), floating point
            This rank's gradient.
        layout : mapping of str to int, default=None
            Names of the parameters that the vector is made of and their numbers of elements, in its order; the same on
            all ranks. Remainders follow the names: from one bucket to another, and past steps in which a parameter is
            frozen. None: the vector is one parameter, always of one length.

        Returns
        -------
        tensor of shape (d,)
            The aggregate, zero off the block; the same bits on all ranks.

        Raises
        ------
        TypeError, ValueError
            A vector of another kind, or a layout that doesn't fit it or what was exchanged before. On all ranks, in
            the first step, the first after a state was loaded, or with a new layout: parameters, layouts or dtypes that
            differ between ranks.
        """
        try:
            layout = _checked(vector, layout)
            kept = vector.float() if vector.dtype in (torch.float16, torch.bfloat16) else vector
            part, others = regroup(self.parts, layout, kept)
        except (TypeError, ValueError) as error:
            if not self._compared and self.exchange.size > 1:
                # The others are about to compare what they have.
                tell(plain_ranks(self.exchange.group), error)
            raise
        self._agree(part, vector.dtype)
        part, row, is_usable = _added_up(part, kept)
        aggregate, remainder, state = self._exchanged(row, part, vector.dtype, is_usable)
        self.parts = [*others, Part(part.layout, remainder, part.step + 1, state)]
        return aggregate

    def _agree(self, part: Part, dtype: torch.dtype) -> None:
        """See that ranks that begin, have loaded a state or another layout, do the same, at the same step.

        By the number of the step turns are taken.
        """
        seen = (tuple(part.layout.items()), dtype)
        if self.exchange.size == 1 or seen in self._compared:
            return
        settings = {name: getattr(self, name) for name in ("beta", "run_length", "round_robin", "remainder_limit")}
        found = {
            **settings_of(self.aggregator, "aggregator"),
            **settings,
            "transport_dtype": str(self.exchange.transport_dtype),
            "dtype of the vector": str(dtype),
            **{f"elements of {name!r}": size for name, size in part.layout.items()},
            "order of the layout": list(part.layout),
            "seeds in the state": None if self._seeds is None else list(self._seeds),
            "steps; a state must be loaded on all ranks, on a new one with remainders=False": part.step,
        }
        plain_ranks(self.exchange.group).check_same(found, "BlockExchange")
        self._compared.add(seen)

    def _exchanged(
        self, row: torch.Tensor, part: Part, dtype: torch.dtype, is_usable: bool
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Aggregate, new remainder and state of the rule."""
        d = len(row)
        k = max(1, math.ceil(self.beta * d))
        n_chosen = -(-k // self.run_length)
        if not is_usable:
            row = torch.full_like(row, torch.nan)
        scores, limit = self._scores(row, n_chosen, dtype)
        index = self._block(scores, n_chosen, part.step, d)
        if len(index) < k:  # the last run may be short
            index = self._block(scores, n_chosen + 1, part.step, d)
        # What is beyond the range of a narrower dtype stays in the remainder.
        sent = self._in_range(row[index], dtype).to(dtype)
        rows = ShardedRows(self.exchange.to_shards(sent[None]).wait(), len(index), self.exchange)
        found, state = self._seeded()(rows, part.state)
        on_block = self.exchange.from_shards(found.vector, len(index)).wait()
        aggregate = row.new_zeros(d, dtype=dtype).index_copy_(0, index, on_block.to(dtype))
        if not is_usable:
            return aggregate, part.remainder, state
        remainder = row.index_add(0, index, self._arrived(sent).to(row.dtype), alpha=-1)
        return aggregate, limit_norm(remainder, limit), state

    def _seeded(self) -> Aggregator:
        """The rule, with one seed on all ranks for whatever draws."""
        if self._rule is None:
            if not seeds_of(self.aggregator):
                return self.aggregator
            if self._seeds is None:
                self._seeds = DistributedRanks(exchange_of_messages(self.exchange.group), self.aggregator).agreed_seeds(
                    "seeds of BlockExchange"
                )
            self._rule = seeded_rule(self.aggregator, self._seeds)
        return self._rule

    def _block(self, scores: torch.Tensor, n_chosen: int, step: int, d: int) -> torch.Tensor:
        runs = choose_runs(scores, n_chosen, step, self.round_robin)
        return CoordinateBlock(runs, self.run_length, d).indices

    def _in_range(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Clamp to what the dtypes of the gradient and of transport can hold."""
        largest = min(torch.finfo(each).max for each in (dtype, self.exchange.transport_dtype or dtype))
        return values.clamp(-largest, largest)

    def _scores(self, row: torch.Tensor, n_chosen: int, dtype: torch.dtype) -> tuple[torch.Tensor, float]:
        """Scores of all runs, and the limit of a remainder's norm; the same on all ranks."""
        n_runs = -(-len(row) // self.run_length)
        if n_chosen == n_runs or self.round_robin == 1.0:
            return row.new_zeros(n_runs), math.inf
        magnitudes = self._in_range(magnitudes_of_runs(row, self.run_length), dtype)
        shard = self.exchange.to_shards(magnitudes.to(dtype)[None]).wait()
        scores = self.exchange.from_shards(median_scores(shard), n_runs).wait()
        if self.remainder_limit is None:
            return scores, math.inf
        squares = self.exchange.add_up(shard.double().square().sum(dim=1)) * self.run_length
        return scores, self.remainder_limit * float(squares.nanmedian()) ** 0.5

    def _arrived(self, sent: torch.Tensor) -> torch.Tensor:
        """Round numbers that are sent as transport does."""
        transport = self.exchange.transport_dtype
        return sent if transport is None or self.exchange.size == 1 else sent.to(transport).to(sent.dtype)

    def state_dict(self) -> dict[str, Any]:
        """State to save, of plain containers and tensors: the remainders are this rank's own, so each rank saves it."""
        parts = [{**vars(part), "state": pack_state(part.state)} for part in self.parts]
        seeds = None if self._seeds is None else list(self._seeds)
        return {"parts": parts, "rule": self._rule_name(), "seeds": seeds}

    def load_state_dict(self, state: Mapping[str, Any], *, remainders: bool = True) -> None:
        """Load what :meth:`state_dict` returned on this rank, on all ranks before the next step.

        Parameters
        ----------
        state : dict
            The state.
        remainders : bool, default=True
            Load the remainders. False: begin with remainders of zero, on a new rank that loads another rank's state.

        Raises
        ------
        TypeError, ValueError
            If it is something else, or the state of another rule; nothing is changed then.
        """
        parts = _loaded(state, self._rule_name())
        if not remainders:
            parts = [replace(part, remainder=torch.zeros_like(part.remainder)) for part in parts]
        seeds, n_drawn = state.get("seeds"), len(seeds_of(self.aggregator))
        if seeds is not None and len(seeds) != n_drawn:
            raise ValueError(f"seeds in state must be {n_drawn} for {self.aggregator!r}; found {seeds!r}.")
        self.parts, self._seeds, self._rule = parts, None if seeds is None else tuple(seeds), None
        self._compared.clear()

    def _rule_name(self) -> str:
        """Names of the rule and those in it."""
        rules = sorted(
            (name, type(rule).__name__)
            for name, rule in self.aggregator.get_params().items()
            if isinstance(rule, Aggregator)
        )
        return ", ".join([type(self.aggregator).__name__, *(f"{name}={kind}" for name, kind in rules)])


def _added_up(part: Part, kept: torch.Tensor) -> tuple[Part, torch.Tensor, bool]:
    """A part, the sum of its remainder and a gradient, and whether that is finite; a remainder at fault is dropped."""
    row = kept + part.remainder
    if row.isfinite().all():
        return part, row, True
    is_usable = bool(kept.isfinite().all())
    if not is_usable and part.remainder.isfinite().all():
        return part, row, False
    warnings.warn(
        f"The remainder must be finite, and so must its sum with the gradient; found one of {', '.join(part.layout)} "
        f"that isn't. It is dropped.",
        RuntimeWarning,
        stacklevel=2,
    )
    return replace(part, remainder=torch.zeros_like(part.remainder)), kept, is_usable


def _loaded(state: Any, rule: str) -> list[Part]:
    """Parts of what ``state_dict()`` gave, checked.

    Raises
    ------
    TypeError, ValueError
        Something else, or the state of another rule.
    """
    if not isinstance(state, Mapping) or "parts" not in state or set(state) - {"parts", "rule", "seeds"}:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state must be what state_dict() gave, with parts, rule and seeds; found {found}.")
    if state.get("rule", rule) != rule:
        raise ValueError(f"state must be of the rule {rule}; found that of {state['rule']}.")
    seeds = state.get("seeds")
    if not (seeds is None or (isinstance(seeds, (list, tuple)) and all(isinstance(seed, int) for seed in seeds))):
        raise ValueError(f"seeds in state must be integers or None; found {seeds!r}.")
    if not isinstance(state["parts"], (list, tuple)):
        raise TypeError(f"parts in state must be a list; found {type(state['parts']).__name__}.")
    parts = [_loaded_part(part, f"parts[{i}]") for i, part in enumerate(state["parts"])]
    names = [name for part in parts for name in part.layout]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"parts in state must have each parameter once; found {', '.join(twice)} twice.")
    return parts


def _loaded_part(part: Any, name: str) -> Part:
    keys = [each.name for each in fields(Part)]
    if not isinstance(part, Mapping) or set(part) != set(keys):
        found = ", ".join(sorted(map(str, part))) if isinstance(part, Mapping) else type(part).__name__
        raise ValueError(f"{name} in state must have {', '.join(keys)}; found {found}.")
    layout, remainder = part["layout"], part["remainder"]
    if not isinstance(layout, Mapping):
        raise TypeError(f"{name} in state must have a dict as layout; found {type(layout).__name__}.")
    for size in layout.values():
        check_integer(size, f"layout of {name} in state", at_least=0)
    check_integer(part["step"], f"step of {name} in state", at_least=0)
    shape = (sum(layout.values()),)
    is_tensor = isinstance(remainder, torch.Tensor)
    if not is_tensor or remainder.shape != shape or not remainder.is_floating_point():
        found = f"shape {tuple(remainder.shape)} of {remainder.dtype}" if is_tensor else type(remainder).__name__
        raise ValueError(
            f"{name} in state must have a remainder of shape {shape} of floating-point numbers; found {found}."
        )
    return Part(dict(layout), remainder, part["step"], unpack_state(part["state"]))


def _checked(vector: Any, layout: Mapping[str, int] | None) -> dict[str, int]:
    """Layout of a vector; an error for one that isn't a floating-point tensor of shape (d,), or doesn't fit."""
    if not (isinstance(vector, torch.Tensor) and vector.is_floating_point()):
        found = vector.dtype if isinstance(vector, torch.Tensor) else type(vector).__name__
        raise TypeError(f"vector must be a tensor of floating-point numbers; found {found}.")
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"vector must have shape (d,) with d at least 1; found shape {tuple(vector.shape)}.")
    layout = {UNNAMED: len(vector)} if layout is None else dict(layout)
    if sum(layout.values()) != len(vector):
        raise ValueError(
            f"layout must have as many elements as the vector, {len(vector)}; found {sum(layout.values())}."
        )
    return layout
