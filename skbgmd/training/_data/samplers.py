"""Samplers of batches: of even sizes, of groups with equal shares of the classes, of clients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from skbgmd._utils.slices import even_slices


class SizedSampler(Protocol):
    """A sampler that knows how many batches it gives."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class KeptSamples(Sampler[int]):
    """Indices of a sampler without those of samples that are left out for a while.

    Parameters
    ----------
    order : Sampler
        Indices in the order to take them.

    Attributes
    ----------
    kept : ndarray of shape (n,), bool, or None
        Which samples are taken; None: all.
    """

    def __init__(self, order: RandomSampler | SequentialSampler) -> None:
        self.order = order
        self.kept: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.order) if self.kept is None else int(self.kept.sum())

    def __iter__(self) -> Iterator[int]:
        kept = self.kept
        return iter(self.order) if kept is None else (index for index in self.order if kept[index])

    def indices(self) -> NDArray[np.int64]:
        """All indices of an epoch, as an array."""
        drawn = _permutation(self.order) if draws_two_permutations() else np.fromiter(self.order, dtype=np.int64)
        return drawn if self.kept is None else drawn[self.kept[drawn]]


def _permutation(order: RandomSampler | SequentialSampler) -> NDArray[np.int64]:
    """Indices that a sampler of all samples gives, in less time than it takes to give them one by one."""
    n = len(order)
    if isinstance(order, SequentialSampler):
        return np.arange(n)
    generator = order.generator
    if generator is None:
        generator = torch.Generator()
        generator.manual_seed(int(torch.empty((), dtype=torch.int64, device="cpu").random_().item()))
    drawn: NDArray[np.int64] = torch.randperm(n, generator=generator, device="cpu").numpy()
    # torch draws the rest of another round, which is empty.
    torch.randperm(n, generator=generator, device="cpu")
    return drawn


@cache
def draws_two_permutations() -> bool:
    """Tell whether this version of torch draws as :func:`_permutation`: generators must be left in the same state."""
    order = RandomSampler(range(5), generator=torch.Generator().manual_seed(0))
    with torch.device("cpu"):  # that of the generator
        given, after = list(order), order.generator.get_state()
    order.generator.manual_seed(0)
    return given == _permutation(order).tolist() and torch.equal(after, order.generator.get_state())


class EvenBatchSampler(Sampler[NDArray[np.int64]]):
    """Batches of sizes that differ by one at most, and are as near to ``batch_size`` as that allows, or none larger.

    Parameters
    ----------
    order : KeptSamples
        Indices in the order to take them.
    batch_size : int
        The number of batches is ``n / batch_size``, rounded to the nearest, one at least; a batch holds up to half as
        many samples again.
    at_most : bool, default=False
        Round up: no batch is larger than ``batch_size``.
    """

    def __init__(self, order: KeptSamples, batch_size: int, *, at_most: bool = False) -> None:
        self.order, self.batch_size, self.at_most = order, batch_size, at_most

    def __len__(self) -> int:
        n = len(self.order)
        return max(1, -(-n // self.batch_size) if self.at_most else round(n / self.batch_size))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        indices = self.order.indices()
        for part in even_slices(len(indices), len(self)):
            yield indices[part]


class StratifiedGroups(Sampler[list[int]]):
    """The batches of a sampler, reordered so that groups of adjacent samples have equal shares of the classes.

    A median of groups overrules groups that are unlike the most: with a rare class in some groups only, it would be
    the rare class that is overruled.

    Parameters
    ----------
    batches : sampler of batches
        Indices of each batch.
    classes : ndarray of shape (n,)
        Class of each sample.
    group_size : int
        Samples in a group, at most.
    """

    def __init__(self, batches: SizedSampler, classes: NDArray[Any], group_size: int) -> None:
        self.batches, self.classes, self.group_size = batches, classes, group_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        if self.group_size == 1:
            # Single samples have no shares.
            yield from self.batches
            return
        for batch in self.batches:
            indices = np.asarray(batch)
            # Stable: within a class the order stays the drawn one.
            by_class = indices[np.argsort(self.classes[indices], kind="stable")]
            groups = -(-len(indices) // self.group_size)
            yield np.concatenate([by_class[group::groups] for group in range(groups)]).tolist()


class ClientSampler(Sampler[list[int]]):
    """Batches of so many samples from every client, one client after the other.

    An epoch is as long as the largest client needs; a client with fewer samples begins anew.

    Parameters
    ----------
    clients : ndarray of shape (n,)
        Whose sample it is.
    batch_size : int
        Samples from each client; from a client that has fewer, all of them.
    shuffle : bool
        Draw a new order of each client's samples whenever it begins.
    generator : torch.Generator, default=None
        Source of randomness.
    """

    def __init__(
        self, clients: NDArray[Any], batch_size: int, *, shuffle: bool, generator: torch.Generator | None = None
    ) -> None:
        _, codes = np.unique(clients, return_inverse=True)
        self.members = [np.flatnonzero(codes == client) for client in range(int(codes.max()) + 1)]
        self.batch_size, self.shuffle, self.generator = batch_size, shuffle, generator

    def __len__(self) -> int:
        return math.ceil(max(len(members) for members in self.members) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._stream(members) for members in self.members]
        for _ in range(len(self)):
            yield [int(index) for stream in streams for index in next(stream)]

    def _stream(self, members: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        size = min(self.batch_size, len(members))
        left = members[:0]
        while True:
            if len(left) < size:
                left = np.concatenate([left, self._shuffled(members) if self.shuffle else members])
            yield left[:size]
            left = left[size:]

    def _shuffled(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        order = torch.randperm(len(members), generator=self.generator, device="cpu")
        shuffled: NDArray[np.intp] = members[order.numpy()]
        return shuffled
