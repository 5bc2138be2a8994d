"""Ranks of a process group that train one network together: agreement, and errors of one that reach all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from skbgmd.aggregators import Aggregator, Mean, get_aggregator
from skbgmd.distributed.exchange import Exchange, as_bytes, await_release, exchange_of_messages
from skbgmd.distributed.faults import begin_collective
from skbgmd.distributed.messages import gathered, report, uninterrupted
from skbgmd.distributed.rows import ShardedRows
from skbgmd.training._ranks import Ranks, spans_ranks


class DistributedRanks(Ranks):
    """Ranks of a process group.

    What they tell each other are messages (:mod:`skbgmd.distributed.messages`).

    Parameters
    ----------
    exchange : Exchange
        The ranks.
    across : str or Aggregator
        Rule for vectors of the ranks.
    splits_data : bool, default=False
        All ranks are given the same data, of which each is to take its share.
    agree : callable, default=None
        Called with these ranks when a training begins, to check what they are made of: its errors reach all ranks.
    """

    def __init__(
        self,
        exchange: Exchange,
        across: str | Aggregator,
        *,
        splits_data: bool = False,
        agree: Callable[[DistributedRanks], None] | None = None,
    ) -> None:
        self.exchange, self.across, self.splits_data, self._agree = exchange, across, splits_data, agree
        # This rank's numbers shadow those of the class, which are of one process.
        self.rank, self.size = exchange.rank, exchange.size

    def gather(self, value: Any, what: str) -> list[Any]:
        return gathered(self.exchange, value, what)

    def make_equal(self, tensors: Sequence[torch.Tensor]) -> None:
        self.gather(None, "tensors of the first rank")
        group = self.exchange.group
        # Torch numbers the first rank among all.
        first = 0 if group is None else dist.get_global_rank(group, 0)
        with uninterrupted():
            for tensor in tensors:
                if tensor.numel():
                    moved = tensor.detach().to(self.exchange.device).contiguous()
                    sent = [as_bytes(moved)]
                    with begin_collective("broadcast", group, moved.nbytes):
                        dist.broadcast(sent[0], first, group=group)
                    await_release(sent)
                    with torch.no_grad():
                        tensor.copy_(moved)

    def begin(self) -> None:
        if self._agree is not None:
            self._agree(self)

    @torch.no_grad()
    def combine(self, vector: torch.Tensor) -> torch.Tensor:
        rule = seeded_rule(get_aggregator(self.across), self.agreed_seeds("vectors of the ranks"))
        with uninterrupted():
            rows = ShardedRows(self.exchange.to_shards(vector[None]).wait(), len(vector), self.exchange)
            aggregate, _ = rule(rows)
            # A rule that leaves columns to later steps still says how far it trusts each rank.
            found = aggregate.vector if aggregate.weights is None else rows.weighted_sum(aggregate.weights)
            return self.exchange.from_shards(found.to(vector.dtype), len(vector)).wait()

    def report(self, error: BaseException) -> None:
        # Where the group is broken there is nobody to tell.
        with suppress(RuntimeError):
            report(self.exchange, error)

    def agreed_seeds(self, what: str) -> tuple[int, ...]:
        """Seeds for the rule across ranks, those of the first rank, in the order of their names."""
        given = seeds_of(get_aggregator(self.across)).values()
        fresh = np.random.default_rng()
        own = [int(seed) if isinstance(seed, Integral) else int(fresh.integers(2**31)) for seed in given]
        return tuple(self.gather(own, what)[0])


def plain_ranks(group: Any = None) -> DistributedRanks:
    """Ranks of a group, for messages that are counted nowhere."""
    return DistributedRanks(exchange_of_messages(group), Mean())


def seeds_of(rule: Aggregator) -> dict[str, Any]:
    """Seeds of a rule and those in it, by their names, sorted."""
    params = rule.get_params()
    return {name: params[name] for name in sorted(params) if name.split("__")[-1] == "random_state"}


def seeded_rule(rule: Aggregator, seeds: Sequence[int]) -> Aggregator:
    """A copy of a rule with other seeds, in the order of :func:`seeds_of`; itself where it draws nothing."""
    names = list(seeds_of(rule))
    if not names:
        return rule
    twin = copy.deepcopy(rule)
    twin.set_params(**dict(zip(names, seeds, strict=True)))
    return twin


def settings_of(rule: Aggregator, name: str, *, with_seeds: bool = False) -> dict[str, Any]:
    """Class of a rule, and its numbers, names and switches, for ranks to compare; of other parameters their classes.

    Parameters
    ----------
    rule : Aggregator
    name : str
        Parameter that the rule is given as.
    with_seeds : bool, default=False
        Whether seeds are among them. They needn't be where those of the first rank are taken.

    Returns
    -------
    dict
        Of what JSON can hold.

    Examples
    --------
    >>> from skbgmd.aggregators import TrimmedMean
    >>> settings_of(TrimmedMean(0.2), "across")
    {'across': 'TrimmedMean', 'across__fraction of TrimmedMean': 0.2}
    """
    kind, seeds = type(rule).__qualname__, {} if with_seeds else seeds_of(rule)
    params = rule.get_params(deep=True).items()
    return {
        name: kind,
        **{f"{name}__{key} of {kind}": _plain(value) for key, value in sorted(params) if key not in seeds},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__qualname__


def refuse_ranks(rule: Any, name: str) -> None:
    """Refuse a rule that aggregates over ranks itself.

    Raises
    ------
    ValueError
    """
    if isinstance(rule, Aggregator) and spans_ranks(rule):
        raise ValueError(
            f"{name} must be a rule for rows, which doesn't aggregate over ranks itself as AcrossRanks does; found "
            f"{rule!r}."
        )
