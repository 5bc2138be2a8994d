"""Errors that name the ranks which stopped answering: killed, hanging, stopped, or cut off from the network."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Thread
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_group, _get_process_group_store

from skbgmd._utils import limits


class RankLostError(RuntimeError):
    """A collective failed because ranks stopped answering; the error of ``torch.distributed`` is its cause.

    The group can't be used any more: the process must end, and all ranks start again
    (:func:`skbgmd.distributed.init_from_env`).

    Attributes
    ----------
    collective : str
        Name of the collective that failed.
    number : int
        Its number among those of the group, from 1 on.
    missing : tuple of int
        Ranks of the group that didn't answer a roll call; empty where the store didn't answer either.
    waited : float
        Seconds from the begin of the collective to its failure.
    """

    def __init__(self, message: str, collective: str, number: int, missing: tuple[int, ...], waited: float) -> None:
        super().__init__(message)
        self.collective, self.number, self.missing, self.waited = collective, number, missing, waited


class Watch:
    """Record of the collectives that this rank began, kept in the group's store for the others to read.

    Before a collective a rank writes its name, number and time (some microseconds with a ``TCPStore``). When one
    fails, a rank closes its connections, so that no other waits for it in the collective; in a ring, only two are
    connected to the one that is lost. Each rank that is still there answers a roll call in the store, which needs no
    connections of the group, until for a second no other has answered.

    Parameters
    ----------
    group : ProcessGroup, default=None
        None: all ranks.
    """

    def __init__(self, group: Any = None) -> None:
        group = group or _get_default_group()
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.store, self.n_begun = _get_process_group_store(group), 0
        # Threads of a group end with the last who holds it.
        self._group = ref(group)
        self._called: RollCall | None = None

    def begin(self, name: str) -> Collective:
        """Record that this rank begins a collective; issue it, and wait for it, within what this returns."""
        self.n_begun += 1
        collective = Collective(self, name, self.n_begun)
        with collective:
            self.store.set(f"skbgmd/begun/{self.rank}", f"{name},{self.n_begun},{time.time()}")
        return collective

    def roll_call(self, error: BaseException) -> RollCall:
        """Close this rank's connections, answer, and list the ranks that don't; once, as the group is lost with it."""
        if self._called is None:
            self._called = RollCall()
            # A store on a rank that was stopped answers never, and its client waits without a limit.
            thread = Thread(target=self._call, args=(self._called, str(error)), daemon=True)
            thread.start()
            thread.join(limits.ROLL_CALL_LIMIT + limits.ROLL_CALL_SECONDS)
        return self._called

    def _call(self, call: RollCall, error: str) -> None:
        try:
            # Before this rank's connections break, and with them the collective of others.
            first = self.store.compare_set("skbgmd/failed", "", f"{self.rank},{error}").decode()
            close_connections(self._group(), self.rank, self.size)
            self.store.set(f"skbgmd/present/{self.rank}", "")
            missing = set(range(self.size)) - {self.rank}
            begin = heard = time.monotonic()
            while missing and time.monotonic() < min(heard + limits.ROLL_CALL_SECONDS, begin + limits.ROLL_CALL_LIMIT):
                time.sleep(0.01)
                answered = {rank for rank in missing if self.store.check([f"skbgmd/present/{rank}"])}
                if answered:
                    missing, heard = missing - answered, time.monotonic()
            for rank in sorted(missing):
                key = f"skbgmd/begun/{rank}"
                call.last_begun[rank] = self.store.get(key).decode() if self.store.check([key]) else ""
        except RuntimeError:
            return
        number, cause = first.split(",", 1)
        call.first = "" if int(number) == self.rank else f"Rank {number} was the first on which it failed: {cause}"
        call.missing = tuple(sorted(missing))


@dataclass
class RollCall:
    """Ranks that don't answer, None where the store doesn't; what they had recorded; the error of whom it met first."""

    missing: tuple[int, ...] | None = None
    first: str = ""
    last_begun: dict[int, str] = field(default_factory=dict)

    def report(self, size: int) -> str:
        """Say what was found, in sentences."""
        seconds = limits.ROLL_CALL_SECONDS
        if self.missing is None:
            return "the store of the group doesn't answer: the rank or the agent that holds it is lost."
        if not self.missing:
            return f"all {size} ranks answer a roll call: one was late, failed itself, or a connection broke."
        lines = [f"ranks {list(self.missing)} of {size} don't answer a roll call within {seconds:g} s."]
        for rank, begun in self.last_begun.items():
            name, number, when = begun.split(",") if begun else ("", "", "")
            ago = f"{name} (number {number}) {time.time() - float(when):.1f} s ago" if begun else "none"
            lines.append(f"Last collective that rank {rank} began: {ago}.")
        return " ".join(lines)


class Collective:
    """A collective under way: errors of ``torch.distributed`` in it become a :class:`RankLostError`.

    Entered once where it is issued and once where it is waited for.
    """

    def __init__(self, watch: Watch, name: str, number: int) -> None:
        self.watch, self.name, self.number, self.begin = watch, name, number, time.monotonic()

    def __enter__(self) -> Collective:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Gloo's errors are plain RuntimeErrors; classes derived from it are of other faults, such as too little memory.
        if error is None or not (kind is RuntimeError or isinstance(error, dist.DistError)):
            return
        waited = time.monotonic() - self.begin
        call = self.watch.roll_call(error)
        message = (
            f"Every rank must answer in a collective; {self.name} (number {self.number} of its group) failed on rank "
            f"{self.watch.rank} after {waited:.1f} s, and {call.report(self.watch.size)} Cause: {error}"
        )
        if call.first:
            message += f" {call.first}"
        raise RankLostError(message, self.name, self.number, call.missing or (), waited) from error


def close_connections(group: Any, rank: int, size: int) -> None:
    """Close this rank's connections of a gloo group, so that collectives which wait for it fail on all ranks at once.

    Gloo does so itself when a receive times out. It has no other call that does: ``abort()`` of torch 2.13 leaves the
    connections open.

    Parameters
    ----------
    group : ProcessGroup or None
        One without gloo is left as it is, and so is None.
    rank, size : int
        Of this rank, and of the group.
    """
    if group is None or "gloo" not in str(dist.get_backend_config(group)):
        return
    for other in range(rank + 1 - size, rank):
        # Receives from ranks that are lost fail, and don't time out.
        with suppress(RuntimeError):
            group.recv([torch.empty(1)], other % size, _UNUSED_TAG).wait(timedelta(milliseconds=1))


#: Tag of messages that nobody sends.
_UNUSED_TAG = 2**31 - 1

_WATCHES: WeakKeyDictionary[Any, Watch] = WeakKeyDictionary()


def begin_collective(name: str, group: Any = None) -> Collective:
    """Name lost ranks in errors of a collective: issue it, and wait for it, in a ``with`` block of what this returns.

    :class:`skbgmd.distributed.Exchange` does so for its own.

    Parameters
    ----------
    name : str
        For messages.
    group : ProcessGroup, default=None
        None: all ranks.

    Examples
    --------
    >>> import torch, torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> with begin_collective("barrier"):
    ...     dist.barrier()
    >>> dist.destroy_process_group()
    """
    group = group or _get_default_group()
    if group not in _WATCHES:
        _WATCHES[group] = Watch(group)
    return _WATCHES[group].begin(name)
