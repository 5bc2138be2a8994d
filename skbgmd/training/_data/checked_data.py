"""Checks of a skorch net's data: masks, dates, missing targets and samples that lose their weights are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset
from skorch.utils import is_dataset
from torch.utils.data import default_collate

from skbgmd._utils.checks import is_plain, refuse_masks, refuse_masks_and_dates
from skbgmd.training._data.loader import ArrayLoader, gives_batches, known_of_samples, refuse_in, source

#: Libraries of tables whose samples have no index.
OF_COLUMNS = ("polars", "pyarrow", "narwhals")


class CheckedDataNet(NeuralNet):
    """Refuses data that it would train on, or predict of, as if they were others."""

    # What is remembered of samples by their places.
    _trust_: Any

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        self._refuse(X, y)
        return super().get_dataset(X, y)

    def _refuse(self, X: Any, y: Any) -> None:
        """Refuse masked data, and such as torch makes no tensors of, where nothing of a user's own does."""
        if self.dataset is Dataset and _is_empty(X):
            raise ValueError("X must have at least one sample; found none.")
        if is_plain(X) and is_plain(y):
            return
        if self.dataset is Dataset:
            _refuse_tables(X, "X")
            _refuse_tables(y, "y")
        own = self.dataset is not Dataset or any(
            getattr(self, name) is not ArrayLoader or "collate_fn" in self.get_params_for(name)
            for name in ("iterator_train", "iterator_valid")
        )
        refuse = refuse_masks if own else refuse_masks_and_dates
        if is_dataset(X):
            refuse_in(X)
        else:
            refuse(X, "X")
        refuse(y, "y")

    def check_data(self, X: Any, y: Any = None) -> None:
        needs = isinstance(self, (NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor))
        # skorch asks this of its default loader only.
        if needs and y is None and not is_dataset(X) and self.iterator_train is ArrayLoader:
            raise ValueError(
                "No y-values are given (y=None). y must be given, or a Dataset that has it as X, or a loader of your "
                "own that makes it as iterator_train."
            )
        super().check_data(X, y)

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        train, valid = super().get_split_datasets(X, y, **fit_params)
        # What a split made itself has other places, and neither weights nor clients.
        has_places = not is_dataset(X) or source(train) is source(X)
        self._trust_.has_places = has_places
        lost = known_of_samples(X)
        if lost and not has_places:
            raise ValueError(
                f"train_split must give the training data or a subset of them, for samples to have "
                f"{' and '.join(lost)}; found {train!r}."
            )
        return train, valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        iterator = super().get_iterator(dataset, training=training)
        # All data come by here: those to train on, to validate by and to predict of.
        collates = getattr(iterator, "collate_fn", None) is default_collate
        if collates and getattr(type(source(dataset)), "transform", None) is Dataset.transform:
            # What torch itself makes tensors of; datasets and functions of a user's own may do so with dates.
            refuse_in(dataset, refuse_masks_and_dates)
        elif not isinstance(iterator, ArrayLoader):
            refuse_in(dataset)
        lost = known_of_samples(dataset) if training and not gives_batches(iterator) else []
        if lost:
            raise ValueError(
                f"iterator_train must be an ArrayLoader that takes whole batches of arrays, without a collate_fn, "
                f"sampler or batch_sampler, for samples to have {' and '.join(lost)}; found {iterator!r}."
            )
        return iterator


def _refuse_tables(values: Any, name: str) -> None:
    """Refuse tables and columns that skorch takes no samples of: those of other libraries than pandas."""
    parts = (
        values.values() if isinstance(values, Mapping) else values if isinstance(values, (list, tuple)) else [values]
    )
    for kind in dict.fromkeys(map(type, parts)):
        if kind.__module__.partition(".")[0] in OF_COLUMNS:
            raise TypeError(
                f"{name} must be arrays, tensors or of pandas for a net; found a {kind.__name__} of "
                f"{kind.__module__.partition('.')[0]}. Convert it, as by numpy.asarray."
            )


def _is_empty(X: Any) -> bool:
    """True for data without a sample; of several inputs, where none has any."""
    if is_dataset(X):
        return hasattr(X, "__len__") and len(X) == 0
    if isinstance(X, Mapping):
        X = list(X.values())
    if isinstance(X, (list, tuple)):
        return not X or all(getattr(part, "shape", None) is not None and _is_empty(part) for part in X)
    return tuple(getattr(X, "shape", ()))[:1] == (0,)
