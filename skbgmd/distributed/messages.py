"""Messages between ranks, each of which begins with the status of every rank: an error of one reaches all.

A rank that has failed takes part with its error, and one that is elsewhere with where it is, so that no other waits for
it. All messages begin with as many bytes: backends end processes that get more than they expect. Messages are JSON,
which runs nothing, whoever sends it.
"""

from __future__ import annotations

import json
import signal
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from skbgmd._utils import limits
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.distributed.faults import said
from skbgmd.training._ranks import RankDivergedError, RankFailedError

#: Of each rank: whether it is well, a checksum of where it is, and the length of what it sends.
_HEADER = struct.Struct("<BIQ")
_WELL, _FAILED, _DIVERGED = 0, 1, 2


class Gathers(Protocol):
    """A way to gather tensors of all ranks: an :class:`skbgmd.distributed.Exchange`."""

    size: int

    @property
    def device(self) -> torch.device:
        """Device from which it takes tensors."""

    def gather(self, values: torch.Tensor, purpose: str = "") -> torch.Tensor:
        """Stack the tensors of all ranks."""


def gathered(exchange: Gathers, value: Any, what: str) -> list[Any]:
    """List the values of all ranks, made of what JSON can hold; ``what`` names them, the same on all ranks.

    Raises
    ------
    RankFailedError
        Another rank has failed, or is at another place.
    """
    if exchange.size == 1:
        return [value]
    return [json.loads(text) for text in _round(exchange, _WELL, what, json.dumps(value))]


def report(exchange: Gathers, error: BaseException) -> None:
    """Tell the other ranks, who are about to gather values, of an error."""
    status = _DIVERGED if isinstance(error, NonFiniteRowsError) else _FAILED
    _round(exchange, status, "", said(error))


def _round(exchange: Gathers, status: int, what: str, text: str) -> list[str]:
    """Texts of all ranks; an error where one has failed, or is at another place, unless this one has."""
    payload = _encoded(text)
    with uninterrupted():
        header = _HEADER.pack(status, zlib.crc32(_encoded(what)), len(payload))
        start = header + payload[: limits.INLINE_MESSAGE]
        purpose = what if status == _WELL else "an error"
        heads = _gather_bytes(exchange, start, _HEADER.size + limits.INLINE_MESSAGE, purpose)
        found = [_HEADER.unpack_from(head) for head in heads]
        if any(status for status, _, _ in found) or len({place for _, place, _ in found}) > 1:
            place = payload if status != _WELL else _encoded(what)
            reasons = _gather_bytes(exchange, place[: limits.FAILURE_MESSAGE], limits.FAILURE_MESSAGE)
            if status != _WELL:
                return []
            raise _failure([each for each, _, _ in found], [_text(reason) for reason in reasons])
        parts = [head[_HEADER.size :] for head in heads]
        longest = max(length for _, _, length in found) - limits.INLINE_MESSAGE
        if longest > 0:
            rest = _gather_bytes(exchange, payload[limits.INLINE_MESSAGE :], longest)
            parts = [first + more for first, more in zip(parts, rest, strict=True)]
    return [part[:length].decode() for part, (_, _, length) in zip(parts, found, strict=True)]


def _gather_bytes(exchange: Gathers, own: bytes, width: int, purpose: str = "") -> list[bytes]:
    padded = torch.frombuffer(bytearray(own.ljust(width, b"\0")), dtype=torch.uint8)
    every = exchange.gather(padded.to(exchange.device), purpose)
    return [line.cpu().numpy().tobytes() for line in every]


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


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
