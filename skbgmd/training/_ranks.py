"""Processes that train one network together: what they agree on, and how errors of one reach the others."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from skorch.callbacks import Callback

from skbgmd._utils.label_dtypes import integers_of
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregator, NonFiniteRowsError


class RankFailedError(RuntimeError):
    """A training failed on another rank, and with it on this one."""


class RankDivergedError(RankFailedError, NonFiniteRowsError):
    """A training diverged on another rank, and failed with it on this one."""


class Ranks:
    """Processes that train one network together; here there is one, which agrees with itself.

    A subclass overrides the first five methods. All ranks must call the same methods in the same order; decisions that
    methods are called by must come from what methods have returned, which is the same on all ranks.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    splits_data : bool
        All were given the same data, of which :meth:`share` is still to give each its share.
    """

    rank, size = 0, 1
    splits_data = False
    #: Errors that others were told of, and those that were being handled when the training began.
    told: Sequence[BaseException] = ()
    earlier: Sequence[BaseException] = ()

    def gather(self, value: Any, what: str) -> list[Any]:
        """List the values of all ranks, made of what JSON can hold; ``what`` names them, the same on all ranks.

        Raises
        ------
        RankFailedError
            Another rank has failed, or is at another place of the training.
        """
        return [value]

    def make_equal(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors, of the same shapes on all ranks, by those of the first rank."""

    def combine(self, vector: torch.Tensor) -> torch.Tensor:
        """Robust mean of the vectors (k,) of all ranks."""
        return vector

    def report(self, error: BaseException) -> None:
        """Tell the other ranks of an error, which is to be raised afterwards."""

    def begin(self) -> None:
        """Check what the ranks are made of, and that it is the same on all; a training begins with it."""

    # ---- made of these ----------------------------------------------------------------------------------------------

    def median(self, values: ArrayLike, what: str) -> FloatArray:
        """Median over the ranks of numbers, element by element; NaN where half of the ranks or more have NaN.

        A rank with corrupt data can't move it far, as it can a mean.
        """
        own = np.asarray(values, dtype=np.float64)
        if self.size == 1:
            return own
        return median_of_known(np.array(self.gather(own.ravel().tolist(), what))).reshape(own.shape)

    def all(self, flag: Any, what: str) -> bool:
        """True if a flag is set on all ranks."""
        return all(self.gather(bool(flag), what))

    def any(self, flag: Any, what: str) -> bool:
        """True if a flag is set on some rank."""
        return any(self.gather(bool(flag), what))

    def check_same(self, value: Any, name: str) -> None:
        """Check that a value, made of what JSON can hold, is the same on all ranks.

        Raises
        ------
        ValueError
            It isn't; the message says which ranks have what.
        """
        refuse_differences(self.gather(value, name), name)

    def union(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Sorted labels that some rank has, of those (k,) of this rank, sorted as well."""
        if self.size == 1:
            return labels
        self.check_same(_kind_of(labels), "The kind of the labels in y")
        found = self.gather([labels.dtype.str, labels.tolist()], "labels")
        return joined([(np.dtype(dtype), each) for dtype, each in found])

    def share(self, n: int, seed: int, checksums: Any = None) -> NDArray[np.intp] | None:
        """Indices, sorted, of this rank's share of n samples that all ranks have; None: all, or it was asked before.

        ``checksums`` of the data are made of what JSON can hold, and must be the same on all ranks.
        Shares are disjoint, and of sizes that differ by one at most; the seed is that of the first rank.
        """
        if self.size == 1 or not self.splits_data:
            return None
        self.check_same(n, 'With data="split", the number of samples')
        self.check_same(checksums, 'With data="split", the checksums of the data')
        if n < self.size:
            raise ValueError(f'With data="split", X must have a sample for each of {self.size} ranks; found {n}.')
        self.splits_data = False
        order = np.random.default_rng(self.gather(seed, "seed of the shares")[0]).permutation(n)
        return np.sort(order[self.rank :: self.size])

    def seed(self, seed: int) -> int:
        """Seed of this rank, where all may have been given the same one; that of the first is unchanged."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0] >> 1)

    def in_step(self, batches: Any) -> Iterable[Any]:
        """Batches of an epoch, as many as the rank with most of them has; a rank with fewer begins again with its own.

        Raises
        ------
        ValueError
            A rank has none.
        """
        if self.size == 1:
            return batches  # type: ignore[no-any-return]
        lengths = self.gather(len(batches), "number of batches")
        if min(lengths) == 0:
            raise ValueError(f"All ranks must have a batch to train on; found none on rank {lengths.index(0)}.")
        return islice(chain.from_iterable(repeat(batches)), max(lengths))


#: What labels are, by the kinds of dtypes: text and integers are one, however they are stored.
_KINDS = {"O": "text", "U": "text", "i": "integers", "u": "integers", "b": "booleans", "f": "floats"}


def _kind_of(labels: NDArray[Any]) -> str:
    return _KINDS.get(labels.dtype.kind, str(labels.dtype))


def joined(found: Sequence[tuple[np.dtype[Any], list[Any]]]) -> NDArray[Any]:
    """Sorted labels of all ranks, of one kind, in a dtype that holds each of them as it is.

    Parameters
    ----------
    found : sequence of (dtype, list)
        Labels of each rank, and their dtype there.

    Raises
    ------
    ValueError
        No integer dtype holds all labels, or some differ by no more than the rounding of a rank's dtype.

    Examples
    --------
    >>> joined([(np.dtype("int8"), [0, 1]), (np.dtype("int64"), [0, 1000])])
    array([   0,    1, 1000])
    """
    every = sorted({label for _, labels in found for label in labels})
    dtypes = [dtype for dtype, _ in found]
    if any(dtype.kind == "O" for dtype in dtypes):
        return np.array(every, dtype=object)
    if all(dtype.kind == "U" for dtype in dtypes):
        return np.array(every)
    common = np.result_type(*dtypes)
    if common.kind == "f" and dtypes[0].kind in "iu":
        # None of NumPy's dtypes holds both int64 and uint64, but one may hold these labels.
        holding = integers_of(every)
        if holding is None:
            raise ValueError(
                f"An integer dtype must hold the labels in y of all ranks; found {every[0]} and {every[-1]}."
            )
        common = holding
    if common.kind == "f":
        narrowest = np.array(every, dtype=common).astype(min(dtypes, key=lambda dtype: dtype.itemsize))
        if len(np.unique(narrowest)) < len(every):
            raise ValueError(
                f"The labels in y must have one dtype on all ranks, where some differ by its rounding only; found "
                f"{', '.join(map(str, dtypes))}."
            )
    return np.array(every, dtype=common)


def median_of_known(every: NDArray[Any]) -> FloatArray:
    """Median over the lines of numbers (m, k) but for NaN; NaN where half of them or more are."""
    known = (~np.isnan(every)).sum(axis=0)
    # NaN come last.
    ordered = np.sort(every, axis=0)
    low, high = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (np.maximum(known - 1, 0) // 2, known // 2))
    with np.errstate(invalid="ignore"):
        middle = np.where(low == high, low, 0.5 * low + 0.5 * high)
    result: FloatArray = np.where(2 * known > len(every), middle, np.nan)
    return result


def refuse_differences(every: Sequence[Any], name: str) -> None:
    """Raise an error where the values of all ranks aren't the same; of mappings it names the first odd key.

    Raises
    ------
    ValueError
        The message says which ranks have what.
    """
    if all(each == every[0] for each in every):
        return
    if all(isinstance(each, Mapping) for each in every):
        keys = dict.fromkeys(key for each in every for key in each)
        odd = next(key for key in keys if any(each.get(key) != every[0].get(key) for each in every))
        name, every = f"{name} ({odd})", [each.get(odd) for each in every]
    found: dict[str, list[int]] = {}
    for rank, each in enumerate(every):
        found.setdefault(repr(each), []).append(rank)
    listed = "; ".join(f"{each} on {named(ranks)}" for each, ranks in found.items())
    raise ValueError(f"{name} must be the same on all ranks; found {listed}.")


def named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


#: One process.
ALONE = Ranks()
_current: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def current_ranks() -> Ranks:
    """The processes of the training that is going on."""
    return _current.get()


def ranks_of(aggregator: Any) -> Ranks:
    """The processes that a rule aggregates rows of: those that it, or a rule in it, has a method ``ranks`` for."""
    make = _maker(aggregator) if isinstance(aggregator, Aggregator) else None
    return ALONE if make is None else make()


def spans_ranks(aggregator: Aggregator) -> bool:
    """Tell whether a rule, or a rule in it, aggregates rows of several processes."""
    return _maker(aggregator) is not None


def _maker(aggregator: Aggregator) -> Callable[[], Ranks] | None:
    """Find the method that makes the processes, of a rule or of one in it; None: there is none."""
    makers = (getattr(rule, "ranks", None) for rule in (aggregator, *aggregator.get_params().values()))
    return next((make for make in makers if callable(make)), None)


def with_group_of(aggregator: Any, other: Any) -> Any:
    """A copy of a rule whose processes are the group of another rule's; itself where it has none, or the same."""
    own, given = _groups(aggregator), list(_groups(other).values())
    if not given or all(group is given[0] for group in own.values()):
        return aggregator
    twin = copy.deepcopy(aggregator)
    twin.set_params(**dict.fromkeys(own, given[0]))
    return twin


def _groups(aggregator: Any) -> dict[str, Any]:
    """Groups of processes of a rule, or of one in it, by the names of the parameters."""
    if not isinstance(aggregator, Aggregator):
        return {}
    params = aggregator.get_params()
    rules = {"": aggregator, **{f"{name}__": value for name, value in params.items()}}
    groups = {
        f"{name}group": getattr(rule, "group", None)
        for name, rule in rules.items()
        if callable(getattr(rule, "ranks", None))
    }
    return {name: group for name, group in groups.items() if name in params}


@contextmanager
def together(aggregator: Any) -> Iterator[Ranks]:
    """Train with the processes of a rule: all of them come to the end, or all of them to an error.

    Within a training of several processes this is one of the same processes.
    """
    ranks, outer = ranks_of(aggregator), current_ranks()
    is_within = ranks.size > 1 and outer.size > 1
    if is_within:
        ranks = outer
    elif ranks.size > 1:
        ranks.earlier = _causes(sys.exc_info()[1])
    token = _current.set(ranks)
    try:
        if outer.size == 1:
            _announce(aggregator, ranks)
        if not is_within:
            ranks.begin()
        yield ranks
        # What fails on others after their last step fails here, too.
        ranks.gather(None, "the end of the training")
    except BaseException as error:
        tell(ranks, error)
        raise
    finally:
        _current.reset(token)


def _announce(aggregator: Any, ranks: Ranks) -> None:
    """Write what this process trains by, for errors of others that wait for it; with a process group only."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    alone = f"a training without other ranks, by aggregator={aggregator!r:.100}; is it to be AcrossRanks there, too?"
    what = alone if ranks.size == 1 else "a training across ranks"
    # Nobody waits for it, and no training depends on it.
    with suppress(RuntimeError, UnicodeError):
        _store().set(f"skbgmd/training/{dist.get_rank()}", f"{time.time()},{what}")


def training_of(rank: int) -> str | None:
    """Tell what a rank of the default process group began to train last, and when; None: nothing."""
    key = f"skbgmd/training/{rank}"
    if not _store().check([key]):
        return None
    when, what = _store().get(key).decode().split(",", 1)
    return f"{time.time() - float(when):.1f} s ago, {what}"


def _store() -> Any:
    # There is none where torch was built without.
    from torch.distributed.distributed_c10d import _get_default_group, _get_process_group_store

    return _get_process_group_store(_get_default_group())


def tell(ranks: Ranks, error: BaseException) -> None:
    """Tell other ranks of an error, unless they know of it, or it came of one that they know of."""
    # One that is being handled may be raised once more.
    causes = [error, *_causes(error, ranks.earlier)]
    known = any(isinstance(one, RankFailedError) or any(one is other for other in ranks.told) for one in causes)
    if ranks.size > 1 and not known:
        # Beforehand: an interrupt while they are told must not have them told again.
        ranks.told = [*ranks.told, error]
        ranks.report(error)


def _causes(error: BaseException | None, but: Sequence[BaseException] = ()) -> list[BaseException]:
    """An error, and those while whose handling it was raised, but for some and what they came of."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and not any(one is other for other in (*found, *but)):
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


class ScoreAgreement(Callback):
    """Make a score the median over the ranks, after the callback that records it and before those that decide by it.

    Parameters
    ----------
    scoring : Callback
        One of skorch's that score.
    """

    def __init__(self, scoring: Any) -> None:
        self.scoring = scoring
        self.best_before = scoring.best_score_

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        scoring, row = self.scoring, net.history[-1]
        name = getattr(scoring, "name_", scoring.name)
        score = float(current_ranks().median([row.get(name, np.nan)], name)[0])
        if name not in row:
            return
        net.history.record(name, score)
        if scoring.lower_is_better is None:
            return
        is_best = score < self.best_before if scoring.lower_is_better else score > self.best_before
        net.history.record(f"{name}_best", bool(is_best))
        scoring.best_score_ = score if is_best else self.best_before


def scores_agreed(callbacks: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Callbacks of a net, each that scores followed by a :class:`ScoreAgreement`."""
    found: list[tuple[str, Any]] = []
    for name, callback in callbacks:
        found.append((name, callback))
        if hasattr(callback, "best_score_") and hasattr(callback, "lower_is_better"):
            found.append((f"{name}_agreement", ScoreAgreement(callback)))
    return found
