"""Exchange of gradients that come bucket by bucket, in an order of the columns that buckets don't change."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import accumulate, pairwise, starmap
from typing import Any, NoReturn, Protocol

import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import listed
from skbgmd.aggregators import Aggregate, Aggregator
from skbgmd.distributed.block_exchange import BlockExchange
from skbgmd.distributed.exchange import Exchange, Pending
from skbgmd.distributed.rows import ShardedRows
from skbgmd.rows import DenseRows, ParameterBlock


class BucketExchange(Protocol):
    """Seam between an engine that hands over gradients in buckets, and a way to aggregate them over the ranks.

    A step is one ``add`` for each bucket, then ``finish``. ``reset`` gives up a step that went wrong.
    """

    def add(self, gradient: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Start to exchange a bucket: this rank's gradient (d,), and the parameters that it is of, in turn."""

    def finish(self, aggregate: Callable[[DenseRows], Aggregate]) -> tuple[Aggregate, Iterator[torch.Tensor]]:
        """Aggregate all buckets by one call on the rows of all ranks, and give the aggregate of each, (d,), in turn."""

    def reset(self) -> None:
        """Forget the buckets of this step."""

    def state_dict(self) -> dict[str, Any]:
        """Get what this rank keeps from step to step, as plain containers and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave on this rank."""


class ColumnOrder:
    """Order of the columns: that of the first step's buckets from the last to the first, whatever buckets come later.

    It outlasts a state that is loaded, as DDP's buckets are rebuilt after its first step and stay so. A copy of the
    model, all of whose parameters are others of the same shapes and dtypes, has the order of its own first buckets.

    Attributes
    ----------
    parameters : list of tensors
        The parameters in their order; none before the first step.
    """

    def __init__(self) -> None:
        self.parameters: list[torch.Tensor] = []
        #: What a state that was loaded is of, until the next step.
        self._expected: list[str] = []

    @property
    def sizes(self) -> list[int]:
        """Columns of each parameter."""
        return _sizes(self.parameters)

    @property
    def units(self) -> ParameterBlock:
        """Units of the parameters; the real and imaginary part of a complex number belong together."""
        return ParameterBlock.of(map(as_real, self.parameters))

    def settle(self, buckets: Sequence[Sequence[torch.Tensor]]) -> bool:
        """Take note of a step's buckets, and say whether the parameters are others than before.

        Raises
        ------
        ValueError
            Parameters that are neither those of before nor a copy of them, or of which a loaded state isn't.
        """
        order = [parameter for parameters in reversed(buckets) for parameter in parameters]
        is_same = set(self.parameters) == set(order)
        if is_same:
            order = self.parameters
        found, before = list(map(described, order)), list(map(described, self.parameters))
        if self._expected:
            if found != self._expected:
                _refuse("that the state is of", *_differences(self._expected, found))
        elif known := set(self.parameters) & set(order):
            if not is_same:
                new = [parameter for parameter in order if parameter not in known]
                gone = [parameter for parameter in self.parameters if parameter not in known]
                _refuse("that it had in the first step", list(map(described, gone)), list(map(described, new)))
        elif before and found != before:
            _refuse("that it had in the first step", *_differences(before, found))
        self.parameters, self._expected = order, []
        return not is_same

    def state_dict(self) -> list[str]:
        """Shapes and dtypes of the parameters in their order: buckets don't tell their names."""
        return self._expected or list(map(described, self.parameters))

    def load_state_dict(self, state: Sequence[str]) -> None:
        """Expect parameters of these shapes and dtypes in the next step; none: any."""
        self._expected = list(state)


class ShardedBuckets:
    """Exact exchange: every rank gets its columns of the rows of all ranks, while further buckets are on their way.

    Each parameter is spread over the ranks on its own, and columns have one order (:class:`ColumnOrder`). So rows,
    blocks and a rule's state are the same however parameters are grouped: buckets may be rebuilt after the first step.

    Parameters
    ----------
    exchange : Exchange
        The ranks.

    Raises
    ------
    ValueError
        In :meth:`finish`, other parameters than in the first step.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._order = ColumnOrder()
        #: This rank's columns of each parameter, among all that it holds.
        self._held: dict[torch.Tensor, slice] = {}
        #: Its columns of the rows of all ranks, in memory that lasts from step to step.
        self._rows = torch.empty(0, 0, device="cpu")
        self.reset()

    def reset(self) -> None:
        """Forget the buckets of this step."""
        self._buckets: list[tuple[torch.dtype, Sequence[torch.Tensor]]] = []
        self._coming: deque[tuple[Sequence[torch.Tensor], Pending]] = deque()
        self._come: list[tuple[Sequence[torch.Tensor], torch.Tensor]] = []

    def add(self, gradient: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Start to exchange a bucket, and take in those that have come, or that are too far back to wait longer."""
        while self._coming and (self._coming[0][1].is_there or len(self._coming) > limits.BUCKETS_AHEAD):
            self._take_in()
        gradient = as_real(gradient).flatten()
        self._buckets.append((gradient.dtype, parameters))
        self._coming.append((parameters, self.exchange.to_shards(gradient[None], _sizes(parameters))))

    def finish(self, aggregate: Callable[[DenseRows], Aggregate]) -> tuple[Aggregate, Iterator[torch.Tensor]]:
        """Aggregate all buckets by one call on the rows of all ranks, and give the aggregate of each in turn."""
        self._settle()
        while self._come:
            self._place(*self._come.pop())
        while self._coming:
            self._take_in()
        found = aggregate(ShardedRows(self._rows, self._order.sizes, self.exchange, units=self._units))
        return found, self._returned(found.vector)

    def _returned(self, vector: torch.Tensor) -> Iterator[torch.Tensor]:
        """Join the aggregate of each bucket, while the next ones are on their way."""
        ahead: deque[Pending] = deque()
        for dtype, parameters in self._buckets:
            own = torch.cat([vector[self._held[parameter]] for parameter in parameters])
            ahead.append(self.exchange.from_shards(own.to(dtype), _sizes(parameters)))
            if len(ahead) > limits.BUCKETS_AHEAD:
                yield ahead.popleft().wait()
        yield from (pending.wait() for pending in ahead)

    def state_dict(self) -> dict[str, Any]:
        """Get what the columns are of; nothing else lasts but memory to work in."""
        return {"parameters": self._order.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Expect the parameters of a state."""
        self._order.load_state_dict(state.get("parameters", ()))

    def _settle(self) -> None:
        """Fix the order of the columns, in the first step, or the first one with a copy of the model."""
        if not self._order.settle([parameters for _, parameters in self._buckets]):
            return
        order = self._order.parameters
        held = self.exchange.shards(self._order.sizes).held(self.exchange.rank)
        ends = list(accumulate((part.stop - part.start for part in held), initial=0))
        self._held = dict(zip(order, starmap(slice, pairwise(ends)), strict=True))
        self._units = self._order.units
        dtype = reduce(torch.promote_types, (dtype for dtype, _ in self._buckets))
        self._rows = torch.empty((self.exchange.size, ends[-1]), dtype=dtype, device=order[0].device)

    def _take_in(self) -> None:
        """Wait for the first bucket on its way."""
        parameters, pending = self._coming.popleft()
        shard = pending.wait()
        if self._held.keys() >= set(parameters):
            self._place(parameters, shard)
        else:
            self._come.append((parameters, shard))

    def _place(self, parameters: Sequence[torch.Tensor], shard: torch.Tensor) -> None:
        """Put the columns of a bucket where they belong."""
        start = 0
        for parameter in parameters:
            here = self._held[parameter]
            stop = start + here.stop - here.start
            self._rows[:, here] = shard[:, start:stop]
            start = stop


class BlockBuckets:
    """Exchange of a block: once all buckets are there, a share of the coordinates travels, and the rest stays here.

    Parameters
    ----------
    exchange : Exchange
        The ranks.
    beta : float
        Share of the coordinates that is sent, see :class:`~skbgmd.distributed.BlockExchange`.

    Raises
    ------
    ValueError
        In :meth:`finish`, other parameters than in the first step.
    """

    def __init__(self, exchange: Exchange, beta: float) -> None:
        self._called = _Called()
        self._block = BlockExchange(self._called, beta, exchange=exchange)
        self._order = ColumnOrder()
        self.reset()

    def reset(self) -> None:
        """Forget the buckets of this step."""
        self._buckets: list[tuple[torch.Tensor, Sequence[torch.Tensor]]] = []

    def add(self, gradient: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Keep a bucket: only all of them say which block is to travel."""
        self._buckets.append((as_real(gradient).flatten(), parameters))

    def finish(self, aggregate: Callable[[DenseRows], Aggregate]) -> tuple[Aggregate, Iterator[torch.Tensor]]:
        """Exchange the block of all buckets, and give the aggregate of each in turn, zero off the block."""
        self._order.settle([parameters for _, parameters in self._buckets])
        order = self._order.parameters
        pieces = {
            parameter: piece
            for gradient, parameters in self._buckets
            for parameter, piece in zip(parameters, torch.split(gradient, _sizes(parameters)), strict=True)
        }
        dtype = reduce(torch.promote_types, (gradient.dtype for gradient, _ in self._buckets))
        self._called.aggregate = aggregate
        vector = self._block(torch.cat([pieces[parameter].to(dtype) for parameter in order]))
        found = dict(zip(order, torch.split(vector, self._order.sizes), strict=True))
        joined = (torch.cat([found[parameter] for parameter in parameters]) for _, parameters in self._buckets)
        return self._called.found, joined

    def state_dict(self) -> dict[str, Any]:
        """Get this rank's remainder, and what its columns are of."""
        return {"parameters": self._order.state_dict(), "parts": self._block.state_dict()["parts"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a remainder."""
        self._block.load_state_dict({"parts": state.get("parts", ())})
        self._order.load_state_dict(state.get("parameters", ()))


class _Called(Aggregator):
    """Rule that has the engine aggregate the rows of all ranks, and keeps what it found; the state is the engine's."""

    aggregate: Callable[[DenseRows], Aggregate]
    found: Aggregate

    def __call__(self, rows: Any, state: Any = None) -> tuple[Aggregate, Any]:
        self.found = self.aggregate(rows)
        return self.found, None

    def check_parameters(self) -> None:
        """Nothing: the engine checks its rule."""


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, or the real and imaginary parts of a complex one along a last axis, in the same memory."""
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def described(parameter: torch.Tensor) -> str:
    """Shape and dtype of a parameter.

    Examples
    --------
    >>> described(torch.zeros(3, 2))
    '(3, 2) float32'
    """
    return f"{tuple(parameter.shape)} {str(parameter.dtype).removeprefix('torch.')}"


def _sizes(parameters: Sequence[torch.Tensor]) -> list[int]:
    return [parameter.numel() * (1 + parameter.is_complex()) for parameter in parameters]


def _differences(before: list[str], found: list[str]) -> tuple[list[str], list[str]]:
    """List descriptions of before that are missing, and those that are new."""
    gone, new = Counter(before) - Counter(found), Counter(found) - Counter(before)
    return list(gone.elements()), list(new.elements())


def _refuse(which: str, gone: list[str], new: list[str]) -> NoReturn:
    changes = "; ".join(f"{what}: {listed(some)}" for some, what in ((new, "new"), (gone, "missing")) if some)
    raise ValueError(
        f"A model must have the parameters {which}; found {changes or 'them in another order'}. After layers were "
        "frozen or unfrozen, and for another model, take a new RobustHook with the new DistributedDataParallel: what "
        "the rule remembers begins anew."
    )
