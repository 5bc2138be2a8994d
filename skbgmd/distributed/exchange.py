"""Exchange of rows between the ranks of a process group: shards of columns of all rows, and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist

from skbgmd._utils import limits
from skbgmd.distributed.column_shards import ColumnShards
from skbgmd.distributed.faults import Collective, begin_collective
from skbgmd.distributed.messages import gathered
from skbgmd.training._ranks import refuse_differences


@dataclass
class Traffic:
    """Bytes that this rank has sent to others, and collectives that it took part in.

    Collectives count as rings send them: all-to-all and all-gather each number once to those who need it, all-reduce
    twice ``(p - 1) / p`` of the numbers.
    """

    sent: int = 0
    n_collectives: int = 0


class Exchange:
    """Collectives of a process group for rows and their aggregate; it counts the bytes that this rank sends.

    If a collective fails because a rank is gone or hangs, a :class:`RankLostError` names that rank. Before rows of a
    new shape or dtype travel, the ranks compare shapes and dtypes, once. If these differ, all ranks raise an error.

    If ``torch.distributed`` isn't set up, there is one rank, which keeps its rows.

    Parameters
    ----------
    group : ProcessGroup, default=None
        Ranks that take part. None: all of them.
    transport_dtype : torch.dtype, default=None
        Floating-point dtype in which rows and their aggregate travel, such as ``torch.bfloat16``, which halves the
        bytes of float32 and keeps 8 binary digits. None: their own dtype.

    Attributes
    ----------
    rank, size : int
        Number of this rank in the group, and number of ranks.
    traffic : Traffic
        Bytes and collectives so far, without the comparisons between ranks.

    Raises
    ------
    TypeError, ValueError
        If ``transport_dtype`` is a dtype of integers or truth values, or if this rank isn't in the group. In
        :meth:`to_shards` and :meth:`from_shards`: if the shape or dtype of what is sent differs between ranks.

    Examples
    --------
    >>> import torch
    >>> exchange = Exchange()
    >>> exchange.size, exchange.to_shards(torch.tensor([[1.0, 2.0]])).wait()
    (1, tensor([[1., 2.]]))
    """

    #: Whether ranks compare what they send: not where they have done so.
    compares = True
    #: Whether all must be about to gather the same before this rank sends anything: where it is seldom done, and others
    #: may be elsewhere.
    meets = False

    def __init__(self, group: Any = None, transport_dtype: torch.dtype | None = None) -> None:
        check_transport(transport_dtype)
        self.group, self.transport_dtype = group, transport_dtype
        is_alone = not (dist.is_available() and dist.is_initialized())
        self.rank, self.size = (0, 1) if is_alone else (dist.get_rank(group), dist.get_world_size(group))
        if self.rank < 0:
            raise ValueError(
                f"group must have this rank in it, rank {dist.get_rank()} of all; found one that hasn't. Ranks outside "
                "of a group take no part in what it does."
            )
        self.traffic = Traffic()
        self._compared: set[Any] = set()

    def width(self, n_columns: int) -> int:
        """Columns of a shard; those of the last ranks may be padded."""
        return self.shards(n_columns).width

    def held(self, n_columns: int) -> slice:
        """Columns that this rank holds of so many."""
        return self.shards(n_columns).held(self.rank)[0]

    def shards(self, columns: int | Sequence[int]) -> ColumnShards:
        """Divide a number of columns among the ranks, or each of several parts of so many columns."""
        return ColumnShards.of(columns, self.size)

    def to_shards(self, rows: torch.Tensor, sizes: Sequence[int] | None = None) -> Pending:
        """Send each rank its columns of this rank's rows (m, d), the same number of rows on all ranks.

        Parameters
        ----------
        rows : tensor of shape (m, d)
            Rows of this rank.
        sizes : sequence of int, default=None
            Numbers of columns of each part, if every rank holds a piece of each part. None: one part.

        Returns
        -------
        Pending
            Its ``wait`` returns a tensor of shape (size * m, k): the columns that this rank holds of the rows of all
            ranks, in the order of the ranks.
        """
        if not isinstance(rows, torch.Tensor) or rows.layout != torch.strided:
            found = f"layout {rows.layout}" if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise TypeError(f"rows must be a dense tensor; found {found}.")
        if rows.ndim != 2:
            raise ValueError(f"rows must have shape (m, d); found shape {tuple(rows.shape)}.")
        m, d = rows.shape
        if self.size == 1:
            return Pending(rows)
        shards = self.shards(d if sizes is None else sizes)
        self._compare(shards, rows.dtype, m)
        sent = shards.split(rows, self.transport_dtype)
        received = torch.empty_like(sent)
        moved = [as_bytes(received), as_bytes(sent)]
        with begin_collective("to_shards", self.group, sent.nbytes) as collective:
            work = dist.all_to_all_single(moved[0], moved[1], group=self.group, async_op=True)
        self._count(sent.nbytes * (self.size - 1) // self.size)
        shape, dtype = (self.size * m, shards.width), rows.dtype
        return Pending(
            received, work, lambda: shards.unpad(received.view(shape), self.rank).to(dtype), collective, moved
        )

    def from_shards(self, vector: torch.Tensor, columns: int | Sequence[int], *, narrows: bool = True) -> Pending:
        """Join the parts of a vector that the ranks have for the columns that they hold.

        Parameters
        ----------
        vector : tensor of shape (k,)
            Part of the vector for this rank's columns.
        columns : int or sequence of int
            Number of columns of all ranks, d, or numbers of columns of each part.
        narrows : bool, default=True
            Send in ``transport_dtype``. False: send in the vector's own dtype.

        Returns
        -------
        Pending
            Its ``wait`` returns a tensor of shape (d,), the same bits on all ranks.
        """
        if self.size == 1:
            return Pending(vector)
        shards = self.shards(columns)
        self._compare(shards, vector.dtype)
        sent = shards.pad(vector, self.rank, self.transport_dtype if narrows else None)
        received = sent.new_empty((self.size, shards.width))
        moved = [as_bytes(received), as_bytes(sent)]
        with begin_collective("from_shards", self.group, sent.nbytes) as collective:
            work = _all_gather(moved[0], moved[1], group=self.group, async_op=True)
        self._count(sent.nbytes * (self.size - 1))
        return Pending(received, work, lambda: shards.join(received).to(vector.dtype), collective, moved)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, the same bits on each; the tensor may be overwritten."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Largest over all ranks, element by element; NaN, of which libraries make what they like, counts as inf."""
        return self._reduced(torch.where(values.isnan(), torch.inf, values), dist.ReduceOp.MAX)

    def _reduced(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.size > 1:
            values = values.contiguous()
            moved = [alias(values)]
            with begin_collective("all_reduce", self.group, values.nbytes):
                dist.all_reduce(moved[0], operation, group=self.group)
            await_release(moved)
            self._count(2 * values.nbytes * (self.size - 1) // self.size)
        return values

    def gather(self, values: torch.Tensor, purpose: str = "") -> torch.Tensor:
        """Stack the tensors of all ranks, which are of one shape, (size, ...); messages may tell what for."""
        values = values.contiguous()
        if self.size == 1:
            return values[None]
        stacked = values.new_empty((self.size, *values.shape))
        moved = [as_bytes(stacked), as_bytes(values)]
        with begin_collective("gather", self.group, values.nbytes, purpose) as collective:
            # What has no purpose belongs to what was gathered before.
            if self.meets and purpose:
                collective.watch.meet()
            _all_gather(moved[0], moved[1], group=self.group)
        await_release(moved)
        self._count(values.nbytes * (self.size - 1))
        return stacked

    def swap(self, values: torch.Tensor, sources: Sequence[int], targets: Sequence[int]) -> torch.Tensor:
        """Send a tensor to some of the other ranks, and receive those of some, directly.

        Parameters
        ----------
        values : tensor of shape (...)
            Of this rank; of one shape and dtype on all ranks.
        sources, targets : sequence of int
            Ranks to receive from, of each of which this rank is a target; and ranks to send to.

        Returns
        -------
        tensor of shape (len(sources), ...)
            What the sources sent, in their order.
        """
        sent = values.contiguous()
        received = sent.new_empty((len(sources), *sent.shape))
        peer = dist.get_global_rank if self.group is not None else (lambda _, rank: rank)
        steps: list[tuple[Any, torch.Tensor, int]]
        steps = [(dist.irecv, line, source) for line, source in zip(received, sources, strict=True)]
        steps += [(dist.isend, sent, target) for target in targets]
        # Messages with other tags wait for each other, and where sizes differ they must not meet.
        tag = sent.nbytes % _TAGS
        with begin_collective("swap", self.group, sent.nbytes):
            operations = [
                dist.P2POp(do, as_bytes(part), peer(self.group, at), self.group, tag) for do, part, at in steps
            ]
            for work in dist.batch_isend_irecv(operations) if operations else ():
                work.wait()
        self._count(sent.nbytes * len(targets))
        return received

    def _compare(self, shards: ColumnShards, dtype: torch.dtype, n_rows: int | None = None) -> None:
        """Compare what is about to be sent with that of the other ranks, the first time."""
        seen = (shards.sizes, dtype, n_rows, self.transport_dtype)
        if not self.compares or seen in self._compared:
            return
        parts = {} if len(shards.sizes) == 1 else {"columns of the parts": list(shards.sizes)}
        found = {
            "rows": n_rows,
            "columns": shards.n_columns,
            **parts,
            "dtype": str(dtype),
            "transport_dtype": str(self.transport_dtype),
        }
        name = "Vectors to be joined" if n_rows is None else "Rows to be exchanged"
        self._check_same(found, name)
        self._compared.add(seen)

    def _check_same(self, values: dict[str, Any], name: str) -> None:
        """Check that values, made of what JSON can hold, are the same on all ranks; what that sends isn't counted."""
        every = gathered(exchange_of_messages(self.group), {name: values}, "what ranks exchange for the first time")
        refuse_differences([next(iter(each)) for each in every], "What ranks send")
        refuse_differences([each[name] for each in every], name)

    @property
    def device(self) -> torch.device:
        """Device from which the group's backend takes tensors."""
        # Such as "cuda:nccl", of "nccl" as well.
        kind = "cpu:" if self.size == 1 else str(dist.get_backend_config(self.group))
        return torch.device("cpu") if "cpu:" in kind else torch.device("cuda", torch.cuda.current_device())

    def _count(self, sent: int) -> None:
        self.traffic.sent += sent
        self.traffic.n_collectives += 1


def exchange_of_messages(group: Any = None) -> Exchange:
    """An exchange for what is seldom sent, which is counted nowhere."""
    exchange = Exchange(group)
    exchange.meets = True
    return exchange


def is_transport(dtype: Any) -> bool:
    """Tell whether numbers can travel in a dtype, or in their own where it is None."""
    return dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)


def check_transport(dtype: Any) -> None:
    """Check a dtype in which numbers are to travel."""
    if not is_transport(dtype):
        raise TypeError(f"transport_dtype must be a floating-point torch.dtype or None; found {dtype!r}.")


class Pending:
    """A tensor that is on its way."""

    def __init__(
        self,
        value: torch.Tensor,
        work: Any = None,
        finish: Any = None,
        collective: Collective | None = None,
        moved: list[torch.Tensor] | None = None,
    ) -> None:
        self._value, self._work, self._finish, self._collective = value, work, finish, collective
        self._moved = [] if moved is None else moved

    @property
    def is_there(self) -> bool:
        """It has come, so that nobody would wait for it."""
        return self._work is None or bool(self._work.is_completed())

    def wait(self) -> torch.Tensor:
        """Wait until it is there."""
        if self._work is not None and self._collective is not None:
            with self._collective:
                self._work.wait()
            self._work = None
            await_release(self._moved)
            self._value, self._finish, self._collective = self._finish(), None, None
        return self._value


#: Tags of messages from rank to rank are less than this.
_TAGS = 2**31 - 1

#: The older name is deprecated since torch 2.13.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def alias(values: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Share the memory of a contiguous tensor, as a vector that is no view of it.

    Views keep what they are views of, and a backend makes views of what it is given: it shall hold nothing but that.
    """
    dtype = values.dtype if dtype is None else dtype
    start = values.storage_offset() * values.element_size() // dtype.itemsize
    shape = (values.nbytes // dtype.itemsize,)
    return torch.empty(0, dtype=dtype, device=values.device).set_(values.untyped_storage(), start, shape, (1,))


def as_bytes(values: torch.Tensor) -> torch.Tensor:
    """Share the memory of a contiguous tensor as bytes, which every backend can move whatever the dtype."""
    return alias(values, torch.uint8)


def await_release(moved: list[torch.Tensor]) -> None:
    """Give up the tensors of a complete collective, and wait until the backend's threads have done so, too.

    A thread of Gloo says that a collective is complete before it drops the tensors, for which it takes the global
    interpreter lock. ``DistributedDataParallel``, where it is the last to hold its process group, ends the group with
    that lock held, and waits for its threads: forever, if one of them still has tensors to drop. A process that ends
    while one does may abort.

    Parameters
    ----------
    moved : list of tensor
        Made for the collective by :func:`alias` or :func:`as_bytes`, held by nothing but this list and the backend;
        it is emptied. Counts of references don't tell: a thread lowers them first, and then waits for the lock.
    """
    # Work on a device is not over when it has been waited for, and its threads drop it whenever they like.
    held: list[Any] = [ref(tensor) for tensor in moved if tensor.device.type == "cpu"]
    moved.clear()
    if any(tensor() is not None for tensor in held):
        _RELEASES.wait(held)


class Releases:
    """Patience with the backend: half of it after each wait in vain, so that one that keeps tensors costs two waits."""

    def __init__(self) -> None:
        self.patience = 1.0

    def wait(self, held: Sequence[Callable[[], Any]]) -> None:
        """Wait until weakly referenced tensors are gone, for ``limits.RELEASE_SECONDS`` times the patience."""
        end, pause = time.monotonic() + self.patience * limits.RELEASE_SECONDS, 1e-5
        while any(tensor() is not None for tensor in held):
            if time.monotonic() >= end:
                self.patience *= 0.5
                return
            time.sleep(pause)
            # Who wakes too soon takes the lock again before another thread has woken to take it.
            pause = min(2.0 * pause, limits.RELEASE_PAUSE)
        self.patience = 1.0


_RELEASES = Releases()
