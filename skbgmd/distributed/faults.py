"""Errors that name the ranks which stopped answering, or are in another collective than the others."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_group, _get_process_group_store

from skbgmd._utils import limits
from skbgmd.training._ranks import named, training_of


class RankLostError(RuntimeError):
    """Error: a collective failed because of a rank that is gone, is in another collective, or raised an error alone.

    Its cause is the error of ``torch.distributed``. The group can't be used any more. The process must end, and all
    ranks must start again (:func:`skbgmd.distributed.init_from_env`).

    Attributes
    ----------
    collective : str
        Name of the collective that failed.
    number : int
        Number of that collective among those of the group, from 1 on.
    missing : tuple of int
        Ranks of the group that didn't answer a roll call. Empty if all did, or if the store didn't answer either.
    waited : float
        Seconds from the beginning of the collective to its failure.
    """

    def __init__(self, message: str, collective: str, number: int, missing: tuple[int, ...], waited: float) -> None:
        super().__init__(message)
        self.collective, self.number, self.missing, self.waited = collective, number, missing, waited


class Begun(NamedTuple):
    """A collective that a rank began, as it is recorded.

    Attributes
    ----------
    name : str
    size : str
        Of what this rank sends, the same on all ranks, or nothing.
    purpose : str
        For messages.
    number : int
        Among those of the group, from 1 on.
    when : float
        Seconds since the epoch.
    """

    name: str
    size: str
    purpose: str
    number: int
    when: float

    @classmethod
    def read(cls, text: str) -> Begun:
        """Read a record."""
        name, size, purpose, number, when = text.split("\t")
        return cls(name, size, purpose, int(number), float(when))

    def __str__(self) -> str:
        purpose = f" ({self.purpose})" if self.purpose else ""
        return f"{self.name}{self.size}{purpose}, number {self.number}"

    def is_like(self, other: Begun) -> bool:
        """True if both can be parts of one collective."""
        return (self.name, self.size, self.number) == (other.name, other.size, other.number)


class Watch:
    """Record of the collectives that this rank began, kept in the group's store for the others to read.

    Before a collective a rank writes its name, size, number and time (some microseconds with a ``TCPStore``). When one
    fails, a rank closes its connections, so that no other waits for it in the collective; in a ring, only two are
    connected to the one that is lost. Each rank that is still there answers a roll call in the store, which needs no
    connections of the group, until for a second no other has answered.

    A rank that has waited for more than a second reads the records of the others: where one began another collective
    as the same number, it lets its own fail at once, as all ranks would wait until the time limit. A rank that raises
    an error between two collectives tells of it in the store, before it closes its connections.

    Parameters
    ----------
    group : ProcessGroup, default=None
        None: all ranks.
    """

    _calling: Thread | None = None

    def __init__(self, group: Any = None) -> None:
        group = group or _get_default_group()
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.store, self.n_begun = _get_process_group_store(group), 0
        # Threads of a group end with the last who holds it.
        self._group = ref(group)
        self._called: RollCall | None = None
        self._key = f"skbgmd/begun/{self.rank}"
        #: Records of the last collectives that this rank began, by number, and since when it waits for one.
        self._own: dict[int, str] = {}
        self.waits_since: float | None = None
        self._has_warned = False
        if self.size > 1:
            self._forget_earlier()
            Thread(target=_look_out, args=(ref(self),), daemon=True, name="skbgmd-watch").start()

    def begin(self, name: str, n_bytes: int | None = None, purpose: str = "") -> Collective:
        """Record that this rank begins a collective; issue it, and wait for it, within what this returns."""
        self.n_begun += 1
        collective = Collective(self, name, self.n_begun)
        if self._called is None:
            size = "" if n_bytes is None else f" of {n_bytes} bytes"
            record = f"{name}\t{size}\t{purpose}\t{self.n_begun}\t{time.time()}"
            self._own[self.n_begun] = record
            self._own.pop(self.n_begun - limits.REMEMBERED_COLLECTIVES, None)
            with collective:
                self.store.set(self._key, record)
        return collective

    def meet(self) -> None:
        """Wait until all ranks have begun the collective that this one has, and raise an error if some began another.

        It is for what is seldom sent, before it is: backends end processes that get more bytes than they expect. A rank
        that is late is waited for in the collective itself.
        """
        end, pause, others = time.monotonic() + limits.MEETING_SECONDS, 1e-3, set(range(self.size)) - {self.rank}
        while others and self._called is None and time.monotonic() < end:
            begun = self._begun(others)
            if self._apart(begun):
                raise RuntimeError("Nothing was sent.")
            others -= {rank for rank, theirs in begun.items() if theirs.number >= self.n_begun}
            if others:
                time.sleep(pause)
                pause = min(2.0 * pause, 0.05)

    def look(self) -> None:
        """Let the collective that this rank waits for fail, if others are in another one; warn of those that train."""
        since = self.waits_since
        waited = 0.0 if since is None else time.monotonic() - since
        if waited < limits.APART_SECONDS or self._called is not None:
            return
        # A warning may be an error, too; here it would end the thread.
        with suppress(RuntimeError, ValueError, RuntimeWarning):
            begun = self._begun(range(self.size))
            if apart := self._apart(begun):
                self.roll_call(RuntimeError(apart))
            elif waited >= limits.LATE_SECONDS and not self._has_warned:
                self._has_warned = True
                late = [rank for rank in range(self.size) if rank not in begun or begun[rank].number < self.n_begun]
                if lines := self._trainings(late):
                    waiting = (
                        f"Rank {self.rank} has waited for {waited:.0f} s in {Begun.read(self._own[self.n_begun])}."
                    )
                    warnings.warn(" ".join((waiting, *lines)), RuntimeWarning, stacklevel=2)

    def fail(self, error: BaseException) -> None:
        """Tell the others of an error of this rank between two collectives, unless all have one at the same place.

        Ranks that all raise after the same collective leave nobody waiting, and may go on together.
        """
        if self.size == 1 or self._called is not None:
            return
        place, others = str(self.n_begun), set(range(self.size)) - {self.rank}
        # A store that doesn't answer is noticed in the roll call.
        with suppress(RuntimeError):
            self.store.set(f"skbgmd/error/{self.rank}", place)
            end = time.monotonic() + limits.ROLL_CALL_SECONDS
            while others and time.monotonic() < end:
                keys = {rank: f"skbgmd/error/{rank}" for rank in others}
                others -= {rank for rank, key in keys.items() if self.store.check([key]) and self._value(key) == place}
                time.sleep(0.01 if others else 0.0)
        if others:
            self.roll_call(error, is_own=True)

    def _value(self, key: str) -> str:
        return str(self.store.get(key).decode())

    def _forget_earlier(self) -> None:
        """Delete what this rank wrote as one of an earlier group with the same store."""
        # A store that can't is left as it is.
        with suppress(RuntimeError):
            for kind in ("begun", "present", "error"):
                self.store.delete_key(f"skbgmd/{kind}/{self.rank}")
            if self.store.check([_FAILED]) and self._value(_FAILED).startswith(f"{self.rank},"):
                self.store.delete_key(_FAILED)

    def roll_call(self, error: BaseException, *, is_own: bool = False) -> RollCall:
        """Close this rank's connections, answer, and list the ranks that don't; once, as the group is lost with it.

        The error is that of a collective, or one of this rank's own, which the others are told of.
        """
        own = said(error) if is_own else message_of(error)
        with _CALLING:
            if self._called is None or self._calling is None:
                self._called = RollCall()
                # A store on a rank that was stopped answers never, and its client waits without a limit.
                self._calling = Thread(target=self._call, args=(self._called, own, is_own), daemon=True)
                self._calling.start()
        self._calling.join(limits.ROLL_CALL_LIMIT + limits.ROLL_CALL_SECONDS)
        return self._called

    def _call(self, call: RollCall, error: str, is_own: bool) -> None:
        try:
            # Before this rank's connections break, and with them the collective of others.
            first = self.store.compare_set(_FAILED, "", f"{self.rank},{int(is_own)},{error}").decode()
            close_connections(self._group(), self.rank, self.size)
            self.store.set(f"skbgmd/present/{self.rank}", "")
            missing = set(range(self.size)) - {self.rank}
            begin = heard = time.monotonic()
            while missing and time.monotonic() < min(heard + limits.ROLL_CALL_SECONDS, begin + limits.ROLL_CALL_LIMIT):
                time.sleep(0.01)
                answered = {rank for rank in missing if self.store.check([f"skbgmd/present/{rank}"])}
                if answered:
                    missing, heard = missing - answered, time.monotonic()
            begun = self._begun(range(self.size))
            call.last_begun = {rank: begun.get(rank) for rank in sorted(missing)}
            call.apart = self._apart(begun)
            call.trainings = self._trainings(sorted(missing))
        except (RuntimeError, ValueError):
            return
        number, is_own_of_first, cause = first.split(",", 2)
        if int(number) != self.rank:
            what = "failed by an error of its own" if int(is_own_of_first) else "was the first on which it failed"
            call.first, call.is_failure = f"Rank {number} {what}: {cause}", bool(int(is_own_of_first))
        call.missing = tuple(sorted(missing))

    def _begun(self, ranks: Any) -> dict[int, Begun]:
        """The last collective that each of some ranks began, if any."""
        keys = {rank: f"skbgmd/begun/{rank}" for rank in ranks}
        return {rank: Begun.read(self.store.get(key).decode()) for rank, key in keys.items() if self.store.check([key])}

    def _apart(self, begun: Mapping[int, Begun]) -> str:
        """Say in which collectives the ranks are, if one began another than this rank did as the same number."""
        own = {number: Begun.read(record) for number, record in self._own.copy().items()}
        odd = [theirs.number for theirs in begun.values() if not theirs.is_like(own.get(theirs.number, theirs))]
        if not odd:
            return ""
        places: dict[str, list[int]] = {}
        for rank in range(self.size):
            here = own[odd[0]] if rank == self.rank else begun.get(rank)
            places.setdefault("none" if here is None else str(here), []).append(rank)
        found = "; ".join(f"{place}, on {named(ranks)}" for place, ranks in places.items())
        return f"All ranks must take part in the same collectives; found {found}."

    def _trainings(self, late: Any) -> list[str]:
        """Say of late ranks what they train by themselves, as far as it is known."""
        group: Any = self._group()
        found = []
        for rank in late if group is not None else ():
            training = training_of(dist.get_global_rank(group, rank))
            if training is not None:
                found.append(f"Rank {rank} began, {training}")
        return found


def _look_out(watched: ref[Watch]) -> None:
    """Look now and then, as long as a group lasts, whether its ranks are in one collective."""
    while True:
        time.sleep(0.5 * limits.APART_SECONDS)
        if (watch := watched()) is None:
            return
        watch.look()
        del watch


_CALLING = Lock()


@dataclass
class RollCall:
    """Ranks that don't answer, None where the store doesn't; what they had recorded; the error of whom it met first."""

    missing: tuple[int, ...] | None = None
    first: str = ""
    #: The first error is one of that rank's own, between two collectives.
    is_failure: bool = False
    last_begun: dict[int, Begun | None] = field(default_factory=dict)
    #: In which collectives the ranks are, where they aren't in the same one.
    apart: str = ""
    #: What ranks that don't answer train by themselves.
    trainings: list[str] = field(default_factory=list)

    def report(self, size: int) -> str:
        """Say what was found, in sentences."""
        seconds = limits.ROLL_CALL_SECONDS
        if self.missing is None:
            return "the store of the group doesn't answer: the rank or the agent that holds it is lost."
        if not self.missing:
            return f"all {size} ranks answer a roll call: one was late, failed itself, or a connection broke."
        lines = [f"ranks {list(self.missing)} of {size} don't answer a roll call within {seconds:g} s."]
        for rank, begun in self.last_begun.items():
            ago = f"{begun.name} (number {begun.number}) {time.time() - begun.when:.1f} s ago" if begun else "none"
            lines.append(f"Last collective that rank {rank} began: {ago}.")
        return " ".join([*lines, *self.trainings, *([self.apart] if self.apart else [])])


class Collective:
    """A collective under way: errors of ``torch.distributed`` in it become a :class:`RankLostError`.

    Entered once where it is issued and once where it is waited for.
    """

    def __init__(self, watch: Watch, name: str, number: int) -> None:
        self.watch, self.name, self.number, self.begin = watch, name, number, time.monotonic()

    def __enter__(self) -> Collective:
        self.watch.waits_since = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watch.waits_since = None
        # Gloo's errors are plain RuntimeErrors; classes derived from it are of other faults, such as too little memory.
        if error is None or not (kind is RuntimeError or isinstance(error, dist.DistError)):
            return
        waited = time.monotonic() - self.begin
        call = self.watch.roll_call(error)
        failed = (
            f"{self.name} (number {self.number} of its group) failed on rank {self.watch.rank} after {waited:.1f} s"
        )
        message = f"Every rank must answer in a collective; {failed}, and {call.report(self.watch.size)} Cause: {error}"
        if call.is_failure:
            report = f", and {call.report(self.watch.size)}" if call.missing else "."
            message = f"{call.first}. So {failed}{report} Cause: {error}"
        elif call.apart and not call.missing:
            message = f"{call.apart} So {failed}. Cause: {error}"
        elif call.first and not call.apart:
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
            group.recv([torch.empty(1, device="cpu")], other % size, _UNUSED_TAG).wait(timedelta(milliseconds=1))


#: Tag of messages that nobody sends.
_UNUSED_TAG = 2**31 - 1

#: The first rank that failed, whether by an error of its own, and the error.
_FAILED = "skbgmd/failed"

_WATCHES: WeakKeyDictionary[Any, Watch] = WeakKeyDictionary()


def watch_of(group: Any = None) -> Watch:
    """The record of collectives of a group, or of all ranks."""
    group = group or _get_default_group()
    if group not in _WATCHES:
        _WATCHES[group] = Watch(group)
    return _WATCHES[group]


@contextmanager
def telling_others(group: Any = None) -> Iterator[None]:
    """Tell the other ranks of an error in what all ranks do together; of those of a collective they know.

    Parameters
    ----------
    group : ProcessGroup, default=None
        None: all ranks.
    """
    try:
        yield
    except RankLostError:
        raise
    except BaseException as error:
        if dist.is_available() and dist.is_initialized():
            watch_of(group).fail(error)
        raise


def said(error: BaseException) -> str:
    """Class and message of an error, as text that UTF-8 can hold.

    Examples
    --------
    >>> said(ValueError("too large"))
    'ValueError: too large'
    """
    name, message = type(error).__name__, message_of(error)
    return f"{name}: {message}" if message else name


def message_of(error: BaseException) -> str:
    r"""Message of an error, whatever its ``__str__`` does, as text that UTF-8 can hold: names of files may have bytes.

    Examples
    --------
    >>> message_of(OSError("no file \udcff"))
    'no file \\udcff'
    """
    try:
        text = str(error)
    except Exception as other:
        text = f"a message that can't be made, by a {type(other).__name__}"
    return text.encode(errors="backslashreplace").decode()


def begin_collective(name: str, group: Any = None, n_bytes: int | None = None, purpose: str = "") -> Collective:
    """Name lost ranks in the errors of a collective: issue it, and wait for it, in a ``with`` block.

    Use it for collectives of your own. :class:`skbgmd.distributed.Exchange` uses it for its collectives.

    Parameters
    ----------
    name : str
        Name of the collective for messages, the same on all ranks, without tabs.
    group : ProcessGroup, default=None
        Group of the collective. None: all ranks.
    n_bytes : int, default=None
        Number of bytes that this rank sends, if it is the same on all ranks.
    purpose : str, default=""
        What the collective is for; used only in messages.

    Examples
    --------
    >>> import torch, torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> with begin_collective("barrier"):
    ...     dist.barrier()
    >>> dist.destroy_process_group()
    """
    return watch_of(group).begin(name, n_bytes, purpose)
