"""Inputs of estimators: arrays, sparse matrices, several of them, and samples one by one, all addressed by index."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.validation import _num_samples
from skorch.dataset import Dataset
from skorch.helper import SliceDataset
from skorch.utils import multi_indexing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from skbgmd._utils.checks import as_numpy, listed
from skbgmd._utils.columns import naming_columns, numbers_of
from skbgmd._utils.frames import as_frame

#: The rule for samples of different shapes.
COLLATED = (
    "iterator_train__collate_fn and iterator_valid__collate_fn must be functions that make a batch (X, y) of a list of "
    "pairs (X, y)"
)


class SeveralInputs(list[Any]):
    """Arrays with an axis of the same samples each, which a module gets as a list."""


@dataclass(frozen=True, eq=False)
class Items:
    """Samples that are had one by one: those of a dataset, or sequences of different lengths.

    Attributes
    ----------
    source : object
        What the samples are had from.
    read : callable
        Makes of the source and a place the sample there.
    index : ndarray of shape (n,), int64
        Places of the samples.
    dtype : NumPy dtype or None
        Floating point dtype that arrays and tensors of such a dtype are cast to.
    """

    source: Any
    read: Callable[[Any, int], Any] = field(repr=False)
    index: NDArray[np.int64]
    dtype: np.dtype[Any] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Any) -> Any:
        if not isinstance(which, (int, np.integer)):
            return replace(self, index=self.index[which])
        sample = self.read(self.source, int(self.index[which]))
        if self.dtype is None:
            return sample
        tensors = torch.from_numpy(np.empty(0, self.dtype)).dtype
        sample = tree_map_only(torch.Tensor, lambda part: _cast_floats(part, part.is_floating_point(), tensors), sample)
        return tree_map_only(np.ndarray, lambda part: _cast_floats(part, part.dtype.kind == "f", self.dtype), sample)

    def copy(self) -> Items:
        """Return the samples themselves: they are read, never written."""
        return self

    def targets(self) -> NDArray[Any]:
        """Targets of all samples of a dataset, which are read for it once.

        Raises
        ------
        ValueError
            An item is no pair (X, y).
        """
        found = []
        for place in self.index.tolist():
            item = self.source[place]
            if not _is_pair(item):
                raise ValueError(
                    f"X must be a dataset of pairs (X, y) where y is None, for y to be read from it; found an item "
                    f"that is a {type(item).__name__}."
                )
            found.append(as_numpy(item[1]))
        return np.asarray(found)


# ---- what X is -------------------------------------------------------------------------------------------------------


def unpacked(X: Any, y: Any = None, *, reads_targets: bool = False) -> tuple[Any, Any]:
    """X without the dataset around it, and y; a dataset's own, if ``reads_targets`` and there are none.

    Arrays that a dataset only holds are taken from it; samples of others are had one by one.

    Raises
    ------
    TypeError
        A DataLoader, or a dataset without an index.
    ValueError
        Items that are no pairs (X, y), where targets are to be read from them.
    """
    own: Any = None
    if isinstance(X, DataLoader):
        raise TypeError(
            "X must be data or a dataset, of which batches are made by batch_size and iterator_train__...; found a "
            "DataLoader. Give its dataset, loader.dataset."
        )
    if isinstance(X, IterableDataset):
        raise TypeError(f"X must be a map-style dataset, with a length and an index; found {type(X).__name__}.")
    if isinstance(X, torch.utils.data.Dataset):
        held = _arrays_in(X)
        if held is not None:
            X, own = held
        else:
            X = Items(X, _of_dataset, np.arange(len(X)))  # type: ignore[arg-type]
            own = X.targets() if reads_targets and y is None else None
    elif isinstance(X, SliceDataset):
        X = Items(X, _of_slices, np.arange(len(X)))
    # Such a matrix is a dict as well.
    X, y = (each.tocsr() if isinstance(each, (sparse.dok_array, sparse.dok_matrix)) else each for each in (X, y))
    if isinstance(y, SliceDataset):
        y = np.asarray([as_numpy(y[place], "y") for place in range(len(y))])
    return X, own if reads_targets and y is None else y


def as_inputs(X: Any, n: int | None, *, fitted: Any = None, collates: bool) -> Any:
    """Inputs of a module, checked: an array-like as it is, a dict, :class:`SeveralInputs`, or :class:`Items`.

    Parameters
    ----------
    X : object
        What the user gave.
    n : int or None
        Number of samples, by which a list of inputs is told from a list of samples. None: by ``fitted``.
    fitted : object, default=None
        :func:`structure` of the data in ``fit``.
    collates : bool
        Whether batches are made of single samples by something of the user's own.

    Raises
    ------
    ValueError
        Inputs of different numbers of samples, others than in ``fit``, not finite, or samples of different shapes that
        nothing makes batches of.
    """
    if is_sparse(X):
        # One of them is a mapping.
        return _as_rows(X, "X")
    if isinstance(X, Mapping):
        X = {key: _checked(value, f"X[{key!r}]", collates) for key, value in X.items()}
    elif isinstance(X, (list, tuple)) and not isinstance(X, SeveralInputs) and _are_inputs(X, n, fitted):
        X = SeveralInputs(_checked(value, f"X[{place}]", collates) for place, value in enumerate(X))
    elif _are_sequences(X, collates):
        X = _sequences(X, "X")
    if isinstance(X, (Mapping, list)) and is_structured(X):
        lengths = {name: n_samples(part) for name, part in _named(X)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"X must have inputs, with as many samples each; found {lengths}.")
        if any(isinstance(part, Items) for _, part in _named(X)):
            X = Items(X, _of_container, np.arange(n_samples(X)))
    return X


def is_sparse(X: Any) -> bool:
    """True for a sparse matrix or array of SciPy's."""
    return sparse.issparse(X)


def sparse_width(X: Any) -> int:
    """Count the numbers of a sample that are sparse, and dense in a batch, in all of its inputs."""
    if isinstance(X, (Mapping, SeveralInputs)):
        return sum(sparse_width(part) for _, part in _named(X))
    if isinstance(X, Items):
        return sparse_width(X.source) if X.read is _of_container else 0
    return int(X.shape[1]) if is_sparse(X) else 0


@contextmanager
def noted_if_sparse(X: Any) -> Iterator[None]:
    """Say in an error of a module's what it was given, where X is sparse."""
    try:
        yield
    except RuntimeError as error:
        if is_sparse(X):
            error.add_note(f"X is sparse: the module gets dense batches of shape (n_samples, {X.shape[1]}).")
        raise


def is_structured(X: Any) -> bool:
    """True for several inputs, and for samples that are had one by one: what is no array-like."""
    return isinstance(X, (Mapping, SeveralInputs, Items))


def structure(X: Any) -> Any:
    """The names of inputs, or their number; None: there is one, or samples are had one by one."""
    source = X.source if isinstance(X, Items) and X.read is _of_container else X
    if isinstance(source, Mapping):
        return sorted(map(str, source))
    return len(source) if isinstance(source, SeveralInputs) else None


def column_names(X: Any) -> dict[Any, list[str]]:
    """Names of the columns of each data frame among several inputs, by the input's name or place."""
    parts = X.items() if isinstance(X, Mapping) else enumerate(X) if isinstance(X, (list, tuple)) else ()
    named = {key: frame.names for key, part in parts if (frame := as_frame(part)) is not None}
    return {key: labels for key, labels in named.items() if labels and all(isinstance(each, str) for each in labels)}


def refuse_other_columns(found: Mapping[Any, list[str]], of_fit: Mapping[Any, list[str]]) -> None:
    """Raise an error where a data frame among several inputs has other columns than in ``fit``.

    Raises
    ------
    ValueError
    """
    for key, labels in found.items():
        if labels != of_fit.get(key, labels):
            raise ValueError(
                f"X[{key!r}] must have the columns that it had in fit, {listed(of_fit[key])}; found {listed(labels)}."
            )


def described(X: Any) -> str:
    """Say what X is, for an error."""
    if isinstance(X, Mapping):
        return f"a dict of {', '.join(structure(X))}"
    if isinstance(X, SeveralInputs):
        return f"a list of {len(X)}"
    if isinstance(X, Items):
        kind = type(X.source).__name__
        return f"samples of a {kind}" if X.read in (_of_dataset, _of_slices) else "sequences"
    return "one array"


def shapes(X: Any) -> Any:
    """Shapes of a sample, made of what JSON can hold; None where they may be different."""
    if isinstance(X, Items):
        return None
    return {name: shapes(part) for name, part in _named(X)} if is_structured(X) else list(X.shape[1:])


def checksums(X: Any) -> Any:
    """Checksum of each input by its bytes, shape and dtype, of samples in a list all together; None of other data.

    Samples of a Dataset have none: what makes them may draw numbers, so that they differ each time.
    """
    if isinstance(X, Items) and X.read in (_of_dataset, _of_slices):
        return None
    if isinstance(X, Items):
        held = X.read is _of_container
        return checksums(take(X.source, X.index) if held else [X[place] for place in range(len(X))])
    if isinstance(X, (Mapping, SeveralInputs)):
        return {str(name): checksums(part) for name, part in _named(X)}
    if isinstance(X, (list, tuple)):
        leaves, shape = tree_flatten(X)
        found = [checksums(leaf) if hasattr(leaf, "shape") else leaf for leaf in leaves]
        are_known = all(isinstance(each, (str, int, float)) for each in found)
        return zlib.crc32(repr((found, shape)).encode()) if are_known else None
    if sparse.issparse(X):
        given: Any = X
        # Of equal matrices parts may be in another order, until they are sorted.
        matrix = given.tocsr()
        matrix = matrix if matrix.has_canonical_format else matrix.copy()
        matrix.sum_duplicates()
        parts = [matrix.data, matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)]
    elif isinstance(X, torch.Tensor) and X.layout == torch.strided:
        parts = [X.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()]
    elif isinstance(X, (np.ndarray, np.generic)):
        parts = [np.asarray(X)]
    else:
        return None
    crc = zlib.crc32(f"{tuple(X.shape)} {X.dtype}".encode())
    for part in parts:
        own = repr(part.tolist()).encode() if part.dtype.kind == "O" else np.ascontiguousarray(part).tobytes()
        crc = zlib.crc32(own, crc)
    return crc


# ---- samples of it ---------------------------------------------------------------------------------------------------


def n_samples(X: Any) -> int:
    """Count the samples."""
    if isinstance(X, (Mapping, SeveralInputs)):
        return n_samples(next(iter(_named(X)))[1]) if X else 0
    # A sparse matrix has no len.
    return int(X.shape[0]) if hasattr(X, "shape") else int(_num_samples(X))


def mapped(X: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to each input."""
    if isinstance(X, Mapping):
        return {key: mapped(value, function) for key, value in X.items()}
    if isinstance(X, SeveralInputs):
        return SeveralInputs(mapped(value, function) for value in X)
    return function(X)


def arrays_of(X: Any) -> list[Any]:
    """Arrays and sparse matrices among the inputs; samples that are had one by one have none."""
    found = [value for _, value in _named(X)] if isinstance(X, (Mapping, SeveralInputs)) else [X]
    return [part for part in found if not isinstance(part, Items)]


def take(X: Any, index: Any) -> Any:
    """Take the samples of an index: an array of places, a mask, or a slice."""
    return mapped(X, lambda part: part[index])


def cast_to(X: Any, dtype: np.dtype[Any], *, keeps_integers: bool) -> Any:
    """X in a floating point dtype; of several inputs, and of samples had one by one, integers stay what they are.

    Raises
    ------
    ValueError
        Numbers that overflow in it.
    """
    structured = is_structured(X)

    def cast(part: Any) -> Any:
        if isinstance(part, Items):
            return replace(part, dtype=dtype)
        if part.dtype == dtype or (part.dtype.kind in "iub" and (keeps_integers or structured)):
            return part
        with np.errstate(over="ignore"):
            cast = part.astype(dtype)
        numbers, given = (cast.data, part.data) if is_sparse(cast) else (cast, part)
        finite = np.isfinite(numbers)
        if not finite.all():
            raise ValueError(f"X must be finite in the network's dtype, {dtype}; found {given[~finite][0]}.")
        return cast

    return mapped(X, cast)


# ---- details ---------------------------------------------------------------------------------------------------------


def _named(X: Any) -> list[tuple[Any, Any]]:
    return list(X.items()) if isinstance(X, Mapping) else list(enumerate(X))


def _cast_floats(part: Any, is_float: bool, dtype: Any) -> Any:
    if not is_float:
        return part
    return part.to(dtype) if isinstance(part, torch.Tensor) else part.astype(dtype, copy=False)


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _of_dataset(dataset: Any, place: int) -> Any:
    """X of an item, which is a pair (X, y) or X alone."""
    item = dataset[place]
    if isinstance(item, tuple) and len(item) != 2:
        raise ValueError(f"X must be a dataset of pairs (X, y), or of X alone; found an item of {len(item)} values.")
    return item[0] if _is_pair(item) else item


def _of_slices(slices: Any, place: int) -> Any:
    return slices[place]


def _of_sequence(sequence: Any, place: int) -> Any:
    """A sample of some in memory; lists of numbers are arrays."""
    sample = as_numpy(sequence[place]) if not isinstance(sequence[place], torch.Tensor) else sequence[place]
    if isinstance(sample, (list, tuple)) and sample and all(isinstance(each, (int, float)) for each in sample):
        return np.asarray(sample)
    return sample


def _of_container(container: Any, place: int) -> Any:
    """A sample of several inputs."""

    def of(part: Any) -> Any:
        sample = part[place]
        return sample.toarray().reshape(-1) if is_sparse(sample) else sample

    made = mapped(container, of)
    return list(made) if isinstance(made, SeveralInputs) else made


def _arrays_in(dataset: Any) -> tuple[Any, Any] | None:
    """X and y of a dataset that does nothing but hold them; None of y: it has none. None: it may do something."""
    if type(dataset) is Subset:
        held, index = _arrays_in(dataset.dataset), np.asarray(dataset.indices, dtype=np.int64)
        if held is None:
            return None
        X, y = (None if part is None else multi_indexing(part, index) for part in held)
        return X, y
    if type(dataset) is TensorDataset and len(dataset.tensors) <= 2:
        return dataset.tensors[0], dataset.tensors[1] if len(dataset.tensors) == 2 else None
    return (dataset.X, dataset.y) if type(dataset) is Dataset else None


def _is_array(value: Any) -> bool:
    return is_sparse(value) or hasattr(value, "iloc") or (hasattr(value, "shape") and len(value.shape) > 0)


def _as_rows(X: Any, name: str) -> Any:
    if X.ndim != 2:
        raise ValueError(f"{name} must have two dimensions where it is sparse; found {X.ndim}.")
    return X.tocsr()


def _are_inputs(X: Sequence[Any], n: int | None, fitted: Any) -> bool:
    """True for a list of inputs; False for one of samples."""
    if not X or not all(map(_is_array, X)):
        return False
    if n is None:
        return isinstance(fitted, int)
    lengths = [n_samples(value) for value in X]
    if len(X) != n and set(lengths) != {n}:
        raise ValueError(
            f"X must be a list of inputs with as many samples each as y has, {n}, or a list of so many samples; found "
            f"{len(X)} arrays, of lengths {', '.join(map(str, dict.fromkeys(lengths)))}."
        )
    return len(X) != n


def _are_sequences(X: Any, collates: bool) -> bool:
    """True for samples in a list, or in an array of objects or texts, that something makes batches of.

    Raises
    ------
    ValueError
        They are of different shapes, and nothing does.
    """
    dtype = getattr(X, "dtype", None)
    has_dtype = dtype is not None and not isinstance(X, torch.Tensor)
    of_objects = has_dtype and getattr(X, "ndim", 0) == 1 and getattr(dtype, "kind", "O") in "OUST"
    if not isinstance(X, (list, tuple)) and not of_objects:
        return False
    if isinstance(X, SeveralInputs) or not len(X) or collates:
        return not isinstance(X, SeveralInputs) and len(X) > 0
    found = {
        tuple(getattr(each, "shape", ())) or (len(each),)
        for each in X
        if hasattr(each, "__len__") and not isinstance(each, (str, Mapping))
    }
    if len(found) > 1:
        first, second, *_ = sorted(found)
        raise ValueError(f"X must have samples of one shape, or {COLLATED}; found shapes {first} and {second}.")
    return False


def _sequences(X: Any, name: str) -> Items:
    """Samples in memory, checked as far as they are numbers."""
    held = list(X)
    for place, sample in enumerate(held):
        numbers = as_numpy(sample)
        numbers = numbers.data if is_sparse(numbers) else numbers
        is_float = isinstance(numbers, np.ndarray) and numbers.dtype.kind == "f"
        if (is_float and not np.isfinite(numbers).all()) or (isinstance(sample, float) and not np.isfinite(sample)):
            raise ValueError(f"{name} must be finite; found NaN or inf in sample {place}.")
    return Items(held, _of_sequence, np.arange(len(held)))


def _checked(value: Any, name: str, collates: bool) -> Any:
    """One of several inputs."""
    if isinstance(value, Items):
        return value
    if is_sparse(value):
        value = _as_rows(value, name)
    if isinstance(value, Mapping):
        return {key: _checked(part, f"{name}[{key!r}]", collates) for key, part in value.items()}
    if _are_sequences(value, collates):
        return _sequences(value, name)
    with naming_columns(value, name):
        checked = check_array(
            as_numpy(value, name), accept_sparse="csr", dtype="numeric", ensure_2d=False, allow_nd=True, input_name=name
        )
        return numbers_of(checked, name)
