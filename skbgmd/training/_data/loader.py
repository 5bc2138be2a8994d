"""Batches of data that lies in memory, taken by indexing whole tensors rather than collated sample by sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch.utils._pytree import tree_map_only
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from skbgmd._utils import limits
from skbgmd._utils.checks import check_integer, plain_ids, refuse_masks
from skbgmd._utils.threads import one_thread
from skbgmd._utils.transfer import as_tensor
from skbgmd.training._data.inputs import COLLATED, Items, is_sparse
from skbgmd.training._data.samplers import ClientSampler, EvenBatchSampler, KeptSamples, StratifiedGroups


class Batch(tuple[Any, Any]):
    """A pair ``(X, y)``, as skorch wants it, that knows where its samples come from.

    Attributes
    ----------
    positions : ndarray of shape (n,), int64
        Where the samples are in the dataset.
    weight : tensor of shape (n,), or None
        Weights of the samples.
    slices : list of slice, or None
        Which of the samples make up a row of the gradient matrix; None: it is the net's choice.
    clients : tuple, or None
        Client of each slice; None: not known.
    items : list of (X, y), or None
        The samples one by one, where a function of the user's own made the batch of them.
    collate : callable, or None
        That function.
    """

    positions: NDArray[np.int64]
    weight: torch.Tensor | None
    slices: list[slice] | None
    clients: tuple[Any, ...] | None
    items: list[Any] | None
    collate: Callable[[list[Any]], Any] | None = None

    def __new__(
        cls,
        X: Any,
        y: Any,
        positions: NDArray[np.int64],
        weight: torch.Tensor | None = None,
        slices: list[slice] | None = None,
        clients: tuple[Any, ...] | None = None,
        items: list[Any] | None = None,
    ) -> Batch:
        batch = super().__new__(cls, (X, y))
        batch.positions, batch.weight, batch.slices, batch.clients = positions, weight, slices, clients
        batch.items = items
        return batch

    def __getnewargs__(self) -> tuple[Any, ...]:
        # For pickles, by which batches come from workers, and for copies.
        return (*self, self.positions, self.weight, self.slices, self.clients, self.items)

    def __getstate__(self) -> None:
        # A function may have no name to be pickled by.
        return None


class ArrayLoader(DataLoader[Any]):
    """A ``DataLoader`` that takes batches of arrays and tensors by one indexing call each.

    Sparse matrices become dense a batch at a time. Samples of :class:`~skbgmd.training._data.inputs.Items` are
    collated, and so are those of an estimator's datasets where there is a ``collate_fn``; they come with weights and
    clients as well.
    Whatever else it is given (another dataset, a ``collate_fn``, a ``batch_sampler``) it hands on to ``DataLoader``.
    The order of the samples is that of a ``DataLoader`` in the same state of the random number generators. Small
    batches are gathered together, up to a MiB: arrays that are changed in place may change batches from the next epoch
    on only.

    Parameters
    ----------
    dataset : Dataset
        A skorch dataset or a subset of one; its ``X`` and ``y`` may be arrays, tensors, or dicts and lists of them.
        Attributes ``sample_weight`` (n,) and ``clients`` (n,) of it come with the batches.
    batch_size : int, default=1
        Samples in a batch; from each client, where there are clients.
    shuffle : bool, default=False
        Draw a new order in each epoch.
    even : bool or "at_most", default=False
        Make the batches as equal in size as can be rather than leave a small one for the end, so that there is none
        for ``drop_last`` to drop. True: about ``batch_size`` samples each, up to half as many again; "at_most": none
        has more.
    stratify : int or None, default=None
        Size of the groups that a batch is to be split into. If given, the samples of each class are dealt out to all
        groups in turn, so that each group has the classes in the batch's proportions; ``y`` holds the classes, as
        integers, booleans or whole numbers. Of other targets, several labels among them, nothing is dealt out.
    generator : torch.Generator, default=None
        Source of randomness; None: torch's global generator.
    apart : bool, default=False
        Leave the global generator alone, from which a ``DataLoader`` draws whether it needs to or not: without a
        ``generator``, draw from one that always starts alike.
    **kwargs
        Other parameters of ``DataLoader``.

    Examples
    --------
    >>> loader = ArrayLoader(Dataset(np.arange(10.0)[:, None], np.arange(10)), batch_size=4)
    >>> [tuple(X.shape) for X, y in loader]
    [(4, 1), (4, 1), (2, 1)]
    >>> loader = ArrayLoader(Dataset(np.zeros((10, 1)), np.zeros(10)), batch_size=4, even=True)
    >>> [len(batch.positions) for batch in loader]
    [5, 5]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        even: bool | str = False,
        stratify: int | None = None,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        apart: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_in(dataset)
        if not (isinstance(even, bool) or even == "at_most"):
            raise ValueError(f'even must be True, False or "at_most"; found {even!r}.')
        if apart and generator is None:
            generator = torch.Generator()
        if batch_size is not None or "batch_sampler" not in kwargs:
            check_integer(batch_size, "batch_size")
        own_order = {"batch_sampler", "sampler"} & set(kwargs)
        whole = None if own_order else _whole(dataset, kwargs.get("collate_fn"))
        if whole is None:
            classes = None if stratify is None or own_order or batch_size is None else _classes(*_targets(dataset))
            if stratify is not None and classes is not None:
                each = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
                dealt = StratifiedGroups(BatchSampler(each, batch_size, drop_last), classes, stratify)
                super().__init__(dataset, batch_sampler=dealt, generator=generator, **kwargs)
                return
            super().__init__(
                dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, generator=generator, **kwargs
            )
            return
        kwargs.pop("collate_fn", None)
        # A batch is pinned as it is made: torch would make a list of it. In workers it can't be.
        pins = kwargs.pop("pin_memory", False) and torch.cuda.is_available() and not kwargs.get("num_workers", 0)
        whole.pins = bool(pins)
        order = KeptSamples(RandomSampler(whole, generator=generator) if shuffle else SequentialSampler(whole))
        sampler: Any
        if whole.clients is not None:
            sampler = ClientSampler(whole.clients, batch_size, shuffle=shuffle, generator=generator)
        elif even:
            sampler = EvenBatchSampler(order, batch_size, at_most=even == "at_most")
        else:
            sampler = BatchSampler(order, batch_size, drop_last)
        classes = None if stratify is None or whole.clients is not None else _classes(whole.y, whole.index)
        if stratify is not None and classes is not None:
            sampler = StratifiedGroups(sampler, classes, stratify)
        super().__init__(whole, batch_size=None, sampler=sampler, collate_fn=_as_it_is, generator=generator, **kwargs)
        self._order = None if whole.clients is not None else order

    def restrict(self, kept: NDArray[np.bool_] | None) -> None:
        """Give only some of the samples, from the next epoch on; None: all of them.

        Parameters
        ----------
        kept : ndarray of shape (n,), bool, or None
            Which of the samples to give, in the order of the dataset.

        Raises
        ------
        TypeError
            The loader doesn't take whole batches of arrays, or its samples have clients.
        """
        order = getattr(self, "_order", None)
        if order is None:
            found = "one with clients" if isinstance(self.dataset, _Whole) else f"one of {type(self.dataset).__name__}"
            raise TypeError(
                "iterator_train must be an ArrayLoader that takes whole batches of arrays without clients, for its "
                f"samples to be selected; found {found}."
            )
        order.kept = kept

    def __iter__(self) -> Any:
        whole = self.dataset
        if not isinstance(whole, _Whole):
            return super().__iter__()
        if self.num_workers:
            return map(whole.returned, super().__iter__())
        # What a DataLoader does around each batch takes longer than the batch. It draws a seed for workers, whether
        # there are any or not: the order of the samples depends on it.
        torch.empty((), dtype=torch.int64, device="cpu").random_(generator=self.generator)
        return self._batches(whole)

    def _batches(self, whole: _Whole) -> Iterator[Batch]:
        """Batches of the sampler, gathered many at a time where that takes little memory."""
        held: list[NDArray[np.int64]] = []
        n_held, at_once = 0, whole.gathered_at_once
        for chosen in self.sampler:
            held.append(np.asarray(chosen, dtype=np.int64))
            n_held += len(held[-1])
            if n_held >= at_once:
                yield from whole.batches(held)
                held, n_held = [], 0
        if held:
            yield from whole.batches(held)


class _Whole(torch.utils.data.Dataset[Batch]):
    """A dataset that is asked for many samples at once."""

    def __init__(self, X: Any, y: Any, index: NDArray[np.int64] | None, n: int, weight: Any, clients: Any) -> None:
        self.X, self.y, self.index, self.n = X, y, index, n
        self.weight = None if weight is None else as_tensor(weight)
        self.clients = clients if clients is None or index is None else clients[index]
        self.pins = False

    def __len__(self) -> int:
        return self.n

    @property
    def gathered_at_once(self) -> int:
        """Samples that are gathered at once, at least: of arrays without clients, so many that calls take no time."""
        plain = isinstance(self.X, torch.Tensor) and isinstance(self.y, torch.Tensor) and self.clients is None
        # Data that are learnt have a graph of each batch.
        if not plain or self.pins or not len(self.X) or self.X.requires_grad or self.y.requires_grad:
            return 1
        width: int = (self.X.numel() + self.y.numel()) // len(self.X)
        return max(1, limits.GATHERED_ELEMENTS // max(1, width))

    def batches(self, chosen: list[NDArray[np.int64]]) -> Iterator[Batch]:
        """Gather batches of samples, in one go."""
        if len(chosen) == 1:
            yield self[chosen[0]]
            return
        lengths = [len(positions) for positions in chosen]
        # Of so few numbers the second thread waits for longer than it copies.
        with one_thread():
            together = self[np.concatenate(chosen)]
        stops = list(accumulate(lengths))
        index = [together.positions[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]
        weights = repeat(None) if together.weight is None else torch.split(together.weight, lengths)
        # Modules may change their inputs in place, which autograd refuses of one of several views.
        X, y = (torch.unsafe_split_with_sizes(values, lengths) for values in together)
        for inputs, targets, places, weight in zip(X, y, index, weights, strict=False):
            yield Batch(inputs, targets, places, weight)

    def returned(self, batch: Any) -> Any:
        """A batch that comes back from a worker."""
        return batch

    def __getitem__(self, chosen: Any) -> Any:
        positions = np.asarray(chosen, dtype=np.int64)
        index = positions if self.index is None else self.index[positions]
        at = torch.from_numpy(index)
        # What a dataset without targets gives for each sample.
        y = torch.zeros(len(index), 1, device="cpu") if self.y is None else _take(self.y, at)
        return self._batch(_take(self.X, at), y, positions, index)

    def _batch(
        self, X: Any, y: Any, positions: NDArray[np.int64], index: NDArray[np.int64], items: list[Any] | None = None
    ) -> Batch:
        """Samples at some positions of a subset, and some places of the dataset, with their weights and clients."""
        weight = None if self.weight is None else self.weight[torch.from_numpy(index)]
        slices = clients = None
        if self.clients is not None:
            of_samples = self.clients[positions]
            slices = _runs(of_samples)
            clients = tuple(plain_ids(of_samples[[part.start for part in slices]]))
        if self.pins:
            X, y = tree_map_only(torch.Tensor, torch.Tensor.pin_memory, (X, y))
        return Batch(X, y, index, weight, slices, clients, items)


class _Collated(_Whole):
    """A dataset whose batches are made of its samples by a ``collate_fn``, torch's own or the user's."""

    def __init__(self, dataset: Dataset, collate: Callable[[list[Any]], Any] | None, *of_samples: Any) -> None:
        super().__init__(None, *of_samples)
        self.dataset, self.collate = dataset, collate

    def returned(self, batch: Any) -> Any:
        if isinstance(batch, Batch) and batch.items is not None:
            batch.collate = self.collate
        return batch

    def __getitem__(self, chosen: Any) -> Any:
        positions = np.asarray(chosen, dtype=np.int64)
        index = positions if self.index is None else self.index[positions]
        items = [self.dataset[place] for place in index.tolist()]
        if self.collate is None:
            try:
                collated = default_collate(items)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"X must have samples of one shape, or {COLLATED}. {error}") from error
        else:
            collated = self.collate(items)
        targets = self._targets(collated, index)
        if targets is None:
            if self.weight is None and self.clients is None:
                # It is trained on as it is, and nothing is known of its samples.
                return collated
            raise ValueError(
                f"iterator_train__collate_fn must give a pair (X, y) of the {len(index)} samples in their order, for "
                f"samples to have weights or clients; found another number of targets, or another order."
            )
        # A batch that torch collated can be sliced.
        return self.returned(self._batch(collated[0], targets, positions, index, items if self.collate else None))

    def _targets(self, collated: Any, index: NDArray[np.int64]) -> torch.Tensor | None:
        """Targets of a batch; None where it isn't of these samples, in their order, as far as targets tell."""
        y = collated[1] if isinstance(collated, (tuple, list)) and len(collated) == 2 else None
        if not isinstance(y, torch.Tensor) or not y.ndim or len(y) != len(index):
            return None
        own = None if self.y is None else _take(self.y, torch.from_numpy(index))
        if not isinstance(own, torch.Tensor) or own.numel() != y.numel():
            return y
        y = y.to(own.dtype)
        return y if torch.equal(y.flatten().cpu(), own.flatten().cpu()) else None


def _targets(dataset: Any) -> tuple[Any, NDArray[np.int64] | None]:
    """Targets of a dataset that has them at once, and which of them are those of a subset."""
    dataset, index = _origin(dataset)
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1], index
    y = dataset.y if isinstance(dataset, Dataset) else None
    return None if y is None else _as_tensors(y), index


def _classes(y: Any, index: NDArray[np.int64] | None) -> NDArray[Any] | None:
    """The class of each sample that is chosen; None where targets (n,) aren't classes."""
    if not isinstance(y, torch.Tensor) or y.numel() != len(y):
        return None
    y = y.detach().cpu().flatten()
    if y.is_floating_point():
        y = y.double()
        if not bool((y == y.round()).all()):
            return None
    classes: NDArray[Any] = y.numpy() if index is None else y.numpy()[index]
    return classes


def gives_batches(loader: Any) -> bool:
    """True if a loader's batches know their samples, with their weights and clients."""
    return isinstance(loader, ArrayLoader) and isinstance(loader.dataset, _Whole)


def has_no_target(loader: Any, value: int) -> bool:
    """True if targets of a loader's batches are known to be whole numbers, none of them a value."""
    held = getattr(loader, "dataset", None)
    y = held.y if type(held) is _Whole else None
    if not (isinstance(y, torch.Tensor) and y.device.type == "cpu" and y.dtype == torch.int64):
        return False
    return not bool((y.numpy() == value).any())


def source(dataset: Any) -> Any:
    """The dataset that one is a subset of, in however many steps; itself where it is none."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def known_of_samples(dataset: Any) -> list[str]:
    """Names of what the samples of a dataset, or of a subset, have besides data: "weights", "clients"."""
    names = {"sample_weight": "weights", "clients": "clients"}
    return [name for attribute, name in names.items() if getattr(source(dataset), attribute, None) is not None]


def refuse_in(dataset: Any, refuse: Callable[[Any, str], None] = refuse_masks) -> None:
    """Raise an error for masked entries in the arrays of a dataset, or for what else is refused.

    Raises
    ------
    TypeError, ValueError
    """
    held = source(dataset)
    if isinstance(held, Dataset):
        for name in ("X", "y", "sample_weight", "clients"):
            refuse(getattr(held, name, None), name)


def _origin(dataset: Any) -> tuple[Any, NDArray[np.int64] | None]:
    """The dataset that one is a subset of, and which of its samples these are; None: all."""
    index = None
    while isinstance(dataset, Subset):
        inner = np.asarray(dataset.indices, dtype=np.int64)
        index = inner if index is None else inner[index]
        dataset = dataset.dataset
    return dataset, index


def _whole(dataset: Any, collate: Callable[[list[Any]], Any] | None) -> _Whole | None:
    """The dataset for whole batches; None where it neither holds arrays nor samples that are known one by one."""
    dataset, index = _origin(dataset)
    if not isinstance(dataset, Dataset):
        return None
    is_plain = collate is None and type(dataset).transform is Dataset.transform
    X, y = _as_tensors(dataset.X) if is_plain else None, None if dataset.y is None else _as_tensors(dataset.y)
    if y is None and dataset.y is not None:
        return None
    n = len(dataset) if index is None else len(index)
    of_samples = y, index, n, getattr(dataset, "sample_weight", None), getattr(dataset, "clients", None)
    if X is not None:
        return _Whole(X, *of_samples)
    is_known = isinstance(dataset.X, Items) or getattr(dataset, "knows_samples", False)
    return _Collated(dataset, collate, *of_samples) if is_known else None


def _as_tensors(data: Any) -> Any:
    """Arrays as tensors, without a copy; None for anything that isn't made of numeric arrays and tensors.

    Sparse matrices stay what they are, in rows.
    """
    if isinstance(data, torch.Tensor):
        return None if data.is_sparse else data
    if isinstance(data, np.ndarray):
        return _as_tensor(data) if data.dtype.kind in "fiub" else None
    if is_sparse(data):
        return data.tocsr() if data.dtype.kind in "fiub" else None
    if isinstance(data, Mapping):
        parts = {key: _as_tensors(value) for key, value in data.items()}
        return None if any(part is None for part in parts.values()) else parts
    if isinstance(data, (list, tuple)) and data and not np.isscalar(data[0]):
        values = [_as_tensors(value) for value in data]
        # A list, as collating makes of any sequence.
        return None if any(value is None for value in values) else values
    return None


def _as_tensor(data: NDArray[Any]) -> torch.Tensor:
    if min(data.strides, default=0) < 0:
        return torch.from_numpy(data.copy())  # Torch has no negative strides.
    with warnings.catch_warnings():
        # It warns of arrays that can't be written to, such as memory maps: batches are copies, which can.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(data)


def _take(data: Any, index: torch.Tensor) -> Any:
    if isinstance(data, Mapping):
        return {key: _take(value, index) for key, value in data.items()}
    if isinstance(data, list):
        return [_take(value, index) for value in data]
    if is_sparse(data):
        return torch.from_numpy(data[index.numpy()].toarray())
    # Several times as fast as data[index].
    return data.index_select(0, index.to(data.device))


def _runs(values: NDArray[Any]) -> list[slice]:
    """Slices of adjacent equal values."""
    stops = [*(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _as_it_is(batch: Any) -> Any:
    return batch
