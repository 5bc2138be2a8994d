"""Ranks of a process group that train one network together: agreement, and errors of one that reach all."""

from __future__ import annotations

import copy
import json
import signal
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from skbgmd._utils import limits
from skbgmd.aggregators import Aggregator, Mean, NonFiniteRowsError, get_aggregator
from skbgmd.distributed.exchange import Exchange, as_bytes, await_release
from skbgmd.distributed.faults import begin_collective
from skbgmd.distributed.rows import ShardedRows
from skbgmd.training._ranks import RankDivergedError, RankFailedError, Ranks, spans_ranks

#: Of each rank: whether it is well, a checksum of where it is, and the length of what it sends.
_HEADER = struct.Struct("<BIQ")
_WELL, _FAILED, _DIVERGED = 0, 1, 2


class DistributedRanks(Ranks):
    """Ranks of a process group.

    Each round of messages begins with the status of every rank: a rank that has failed takes part in it with its error,
    so that no other waits for it. Messages are JSON, which runs nothing, whoever sends it.

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
        if self.size == 1:
            return [value]
        return [json.loads(text) for text in self._round(_WELL, what, json.dumps(value))]

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
        status = _DIVERGED if isinstance(error, NonFiniteRowsError) else _FAILED
        # Where the group is broken there is nobody to tell.
        with suppress(RuntimeError):
            self._round(status, "", f"{type(error).__name__}: {error}")

    def agreed_seeds(self, what: str) -> tuple[int, ...]:
        """Seeds for the rule across ranks, those of the first rank, in the order of their names."""
        given = seeds_of(get_aggregator(self.across)).values()
        fresh = np.random.default_rng()
        own = [int(seed) if isinstance(seed, Integral) else int(fresh.integers(2**31)) for seed in given]
        return tuple(self.gather(own, what)[0])

    # ---- messages ---------------------------------------------------------------------------------------------------

    def _round(self, status: int, what: str, text: str) -> list[str]:
        """Texts of all ranks; an error where one has failed, or is at another place, unless this one has."""
        payload = text.encode()
        with uninterrupted():
            header = _HEADER.pack(status, zlib.crc32(what.encode()), len(payload))
            start = header + payload[: limits.INLINE_MESSAGE]
            purpose = what if status == _WELL else "an error"
            heads = self._gather_bytes(start, _HEADER.size + limits.INLINE_MESSAGE, purpose)
            found = [_HEADER.unpack_from(head) for head in heads]
            if any(status for status, _, _ in found) or len({place for _, place, _ in found}) > 1:
                place = payload if status != _WELL else what.encode()
                reasons = self._gather_bytes(place[: limits.FAILURE_MESSAGE], limits.FAILURE_MESSAGE)
                if status != _WELL:
                    return []
                raise _failure([each for each, _, _ in found], [_text(reason) for reason in reasons])
            parts = [head[_HEADER.size :] for head in heads]
            longest = max(length for _, _, length in found) - limits.INLINE_MESSAGE
            if longest > 0:
                rest = self._gather_bytes(payload[limits.INLINE_MESSAGE :], longest)
                parts = [first + more for first, more in zip(parts, rest, strict=True)]
        return [part[:length].decode() for part, (_, _, length) in zip(parts, found, strict=True)]

    def _gather_bytes(self, own: bytes, width: int, purpose: str = "") -> list[bytes]:
        padded = torch.frombuffer(bytearray(own.ljust(width, b"\0")), dtype=torch.uint8)
        gathered = self.exchange.gather(padded.to(self.exchange.device), purpose)
        return [line.cpu().numpy().tobytes() for line in gathered]


def _text(reason: bytes) -> str:
    return reason.rstrip(b"\0").decode(errors="ignore")


def _failure(statuses: Sequence[int], reasons: Sequence[str]) -> RankFailedError:
    """The error of ranks that are well, by the statuses of all, and their errors or places."""
    failed = [rank for rank, status in enumerate(statuses) if status != _WELL]
    if not failed:
        places = ", ".join(f"rank {rank} at {place!r}" for rank, place in enumerate(reasons))
        return RankFailedError(f"All ranks must take the same steps of a training; found {places}.")
    named = "; ".join(f"rank {rank}: {reasons[rank].strip()}" for rank in failed)
    kind = RankDivergedError if all(statuses[rank] == _DIVERGED for rank in failed) else RankFailedError
    return kind(f"The training failed, on this rank as well, by an error on {named}")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of what all ranks must do together; only the main thread gets it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    caught: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *given: caught.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])


def plain_ranks(group: Any = None) -> DistributedRanks:
    """Ranks of a group, for messages that are counted nowhere."""
    return DistributedRanks(Exchange(group), Mean())


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


def settings_of(rule: Aggregator, name: str) -> dict[str, Any]:
    """Class of a rule, and its numbers, names and switches, for ranks to compare; of other parameters their classes.

    Seeds aren't among them: those of the first rank are taken.

    Parameters
    ----------
    rule : Aggregator
    name : str
        Parameter that the rule is given as.

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
    kind, seeds = type(rule).__qualname__, seeds_of(rule)
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
