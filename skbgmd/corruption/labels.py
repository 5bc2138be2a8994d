"""Label noise: a function, and a sampler for pipelines."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from skbgmd._utils.checks import as_labels, as_numpy, check_choice, check_number, check_targets, is_missing
from skbgmd._utils.doc_link import DocumentationLink
from skbgmd._utils.frames import as_frame
from skbgmd._utils.label_dtypes import common_dtype, comparable
from skbgmd._utils.random import random_source
from skbgmd._utils.typing import BoolArray
from skbgmd.corruption.base import draw_rows, n_corrupted

KINDS = ("uniform", "pair", "backdoor")


def corrupt_labels(
    y: ArrayLike,
    *,
    fraction: float,
    kind: str = "uniform",
    classes: ArrayLike | None = None,
    target: Any = None,
    random_state: Any = None,
) -> tuple[Any, BoolArray]:
    r"""Corrupt labels: give a random share of them another class (label noise).

    Use it to test how well a classifier withstands wrong labels. The function draws :math:`\lfloor \psi m \rfloor` of
    the m eligible labels at random, and changes each of them. ``kind`` decides which labels are eligible and what they
    become:

    - ``"uniform"``: any label becomes one of the other classes, each with the same probability (symmetric label noise).
    - ``"pair"``: any label becomes the next class in sorted order; the last class becomes the first (pair flip).
    - ``"backdoor"``: any label other than ``target`` becomes ``target``. Acharya et al. (2022) draw from all labels
      instead; drawn labels that already are ``target`` stay as they are, so the expected number of changes is the same.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels of any type that can be sorted: integers, booleans, strings.
    fraction : float
        Share ψ of the eligible labels to corrupt, in [0, 1].
    kind : {"uniform", "pair", "backdoor"}, default="uniform"
        New label: any other class, the next class, or ``target``.
    classes : array-like of shape (n_classes,), default=None
        All classes there are. None: the classes found in y. With a single class there is no other, and nothing changes.
    target : label, default=None
        Class that a backdoor assigns; it must be one of the classes. For the other kinds it must be None.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness. None: a fresh one each time; NumPy's global state is never used.

    Returns
    -------
    y_corrupt : ndarray of shape (n,)
        A corrupted copy. For a pandas Series, Index or other column it is of the same kind, with the same dtype,
        categories, name and index.
    corrupted : ndarray of shape (n,), bool
        Mask of the labels that were changed.

    Raises
    ------
    TypeError
        If ``fraction`` isn't a number, or if the labels are dates or durations or can't be sorted.
    ValueError
        If ``fraction``, ``kind``, ``classes`` or ``target`` is out of range; if y has no classes (continuous, more than
        one column); if labels are masked or missing (None, NA, NaN); or if a label isn't in ``classes``.

    Examples
    --------
    >>> from skbgmd.corruption import corrupt_labels
    >>> y_corrupt, corrupted = corrupt_labels(
    ...     ["bag", "coat", "bag", "shirt"], fraction=0.5, kind="backdoor", target="bag", random_state=0)
    >>> y_corrupt.tolist(), corrupted
    (['bag', 'coat', 'bag', 'bag'], array([False, False, False,  True]))
    """
    share = check_number(fraction, "fraction", at_least=0.0, at_most=1.0)
    check_choice(kind, "kind", KINDS)
    labels = as_class_labels(y)
    known, codes = _classes(labels, classes)
    goal = _target_code(target, kind, known)
    n, n_classes = len(labels), len(known)
    corrupted = np.zeros(n, dtype=bool)
    if n_classes < 2:
        return _relabeled(y, labels, known, codes, np.arange(0), np.arange(0)), corrupted
    rng = random_source(random_state)
    eligible = np.flatnonzero(codes != goal) if goal is not None else np.arange(n)
    rows = draw_rows(eligible, n_corrupted(share, len(eligible)), rng)
    if goal is not None:
        new = np.full(len(rows), goal)
    else:
        step = 1 if kind == "pair" else rng.randint(1, n_classes, size=len(rows))
        new = (codes[rows] + step) % n_classes
    corrupted[rows] = True
    return _relabeled(y, labels, known, codes, rows, new), corrupted


def _relabeled(
    y: Any,
    labels: NDArray[Any],
    known: NDArray[Any],
    codes: NDArray[np.intp],
    rows: NDArray[np.intp],
    new: NDArray[np.intp],
) -> Any:
    """Replace some labels: in an array, or in a pandas column of the same kind and dtype."""
    if not _is_of_pandas(y):
        result = labels.astype(common_dtype(labels, known))
        result[rows] = known[new]
        return result
    import pandas as pd

    series = y.iloc[:, 0] if isinstance(y, pd.DataFrame) else pd.Series(y)
    # Taken from samples of these classes, so that nothing is converted; made up where there are none.
    place = np.full(len(known), -1)
    place[codes] = np.arange(len(codes))
    missing = np.setdiff1d(new, codes)
    place[missing] = len(codes) + np.arange(len(missing))
    source = np.arange(len(codes))
    source[rows] = place[new]
    result = (_extended(series, known[missing]) if len(missing) else series).take(source)
    if isinstance(y, pd.Index):
        return pd.Index(result, dtype=result.dtype, name=y.name)
    if not isinstance(y, (pd.Series, pd.DataFrame)):
        return result.array
    result = result.set_axis(series.index).rename(series.name)
    return result.to_frame() if isinstance(y, pd.DataFrame) else result


def _is_of_pandas(y: Any) -> bool:
    # It needn't be installed.
    pd = sys.modules.get("pandas")
    return pd is not None and isinstance(y, (pd.Series, pd.DataFrame, pd.Index, pd.api.extensions.ExtensionArray))


def _extended(series: Any, labels: NDArray[Any]) -> Any:
    """Append labels to a Series, in its dtype where that can hold them."""
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        unknown = [label for label in labels.tolist() if label not in series.cat.categories]
        dtype: Any = series.cat.add_categories(unknown).dtype
        return pd.concat([series.astype(dtype), pd.Series(labels).astype(dtype)])
    more = pd.Series(labels)
    of_extension = isinstance(series.dtype, pd.api.extensions.ExtensionDtype)
    return pd.concat([series, more.astype(series.dtype) if of_extension else more])


def is_column(y: Any) -> bool:
    """Check for a Series or another pandas column, which keeps its kind."""
    return _is_of_pandas(y) and getattr(y, "ndim", 1) == 1


def as_class_labels(y: ArrayLike, name: str = "y") -> NDArray[Any]:
    """Convert labels of classes to an array of shape (n,), checked."""
    check_targets(y, name)
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"{name} must have shape (n,); found shape {shape}. Of an indicator matrix corrupt each column by itself."
        )
    labels = as_labels(y, name, warn=True)
    assert_all_finite(labels, input_name=name)
    check_classification_targets(labels)
    return labels


def _has_features(X: Any) -> bool:
    """False for texts, dicts or sequences of several lengths, of which a pipeline has yet to make rows."""
    if getattr(X, "ndim", 1) != 1:
        return True
    try:
        samples = np.asarray(X)
    except ValueError:
        # Of several lengths.
        return False
    return samples.ndim != 1 or samples.dtype.kind not in "OUST"


def _classes(labels: NDArray[Any], classes: ArrayLike | None) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Sorted classes, and the position of each label among them."""
    found, codes = np.unique(labels, return_inverse=True)
    if classes is None:
        return found, codes
    known = np.unique(as_labels(classes, "classes"))
    asked, every = comparable(found, known)
    missing = found[~np.isin(asked, every)]
    if len(missing):
        raise ValueError(f"classes must hold every label of y; found {missing[0]!r} in y only.")
    return known, np.searchsorted(every, asked)[codes]


def _target_code(target: Any, kind: str, known: NDArray[Any]) -> int | None:
    if kind != "backdoor":
        if target is not None:
            raise ValueError(f"target must be None unless kind is 'backdoor'; found {target!r} with kind={kind!r}.")
        return None
    # Comparisons with NA are NA, and those with several labels are of one with each.
    position = np.flatnonzero([] if np.ndim(target) or is_missing(target) else known == target)
    if len(position) != 1:
        raise ValueError(f"target must be one of the classes {known.tolist()} for kind='backdoor'; found {target!r}.")
    return int(position[0])


class LabelCorruption(DocumentationLink, BaseEstimator):
    """Sampler that corrupts labels, for imbalanced-learn pipelines.

    It follows imbalanced-learn's protocol, ``fit_resample(X, y)``, and doesn't need that library installed. An
    ``imblearn.pipeline.Pipeline`` calls it in ``fit`` and skips it in ``predict`` and ``score``. In other pipelines,
    use :class:`CorruptedLabels`.

    Parameters
    ----------
    fraction : float, default=0.0
        Share ψ of the labels to corrupt, in [0, 1]; for a backdoor, the share of those that aren't ``target``.
    kind : {"uniform", "pair", "backdoor"}, default="uniform"
        New label: any other class, the next class, or ``target``; see :func:`corrupt_labels`.
    target : label, default=None
        Class that a backdoor assigns.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness. None: a fresh one each time; NumPy's global state is never used.

    Attributes
    ----------
    corrupted_ : ndarray of shape (n_samples,), bool
        Mask of the labels that the last ``fit_resample`` changed; all False after ``fit``.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all of them are strings.

    Examples
    --------
    >>> from skbgmd.corruption import LabelCorruption
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 1, 2, 0]
    >>> sampler = LabelCorruption(fraction=0.5, kind="pair", random_state=0)
    >>> sampler.fit_resample(X, y)
    ([[0.0], [1.0], [2.0], [3.0]], array([0, 1, 0, 1]))
    >>> sampler.corrupted_
    array([False, False,  True,  True])
    """

    def __init__(
        self, fraction: float = 0.0, kind: str = "uniform", target: Any = None, random_state: Any = None
    ) -> None:
        self.fraction, self.kind, self.target, self.random_state = fraction, kind, target, random_state

    def fit(self, X: Any, y: ArrayLike) -> LabelCorruption:
        """Check the parameters and the data, and corrupt nothing.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features, ...), or sequence of n_samples objects
            Training rows of any kind, texts and dicts included.
        y : array-like of shape (n_samples,)
            Clean labels.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter is of the wrong kind or out of its range, if y has no classes, or if X and y differ in
            length.
        """
        _, corrupted = self._corrupt(X, y)
        self.corrupted_ = np.zeros_like(corrupted)
        return self

    def fit_resample(self, X: Any, y: ArrayLike) -> tuple[Any, Any]:
        """Corrupt the labels and return them with the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features, ...), or sequence of n_samples objects
            Training rows of any kind, texts and dicts included.
        y : array-like of shape (n_samples,)
            Clean labels.

        Returns
        -------
        X : object
            The rows, unchanged.
        y_corrupt : ndarray of shape (n_samples,), or of the kind of y if y is a pandas object
            A corrupted copy.

        Raises
        ------
        TypeError, ValueError
            As for ``fit``.
        """
        y_corrupt, self.corrupted_ = self._corrupt(X, y)
        return X, y_corrupt

    def _corrupt(self, X: Any, y: ArrayLike) -> tuple[Any, BoolArray]:
        if y is None:
            raise ValueError("y must be given: LabelCorruption requires y to be passed, but the target y is None.")
        check_consistent_length(X, y)
        result = corrupt_labels(
            y, fraction=self.fraction, kind=self.kind, target=self.target, random_state=self.random_state
        )
        # Last, as it sets attributes learned from X.
        if not len(result[1]):
            raise ValueError("X must have at least one sample; found none.")
        # A data frame may hold what no array can.
        checked = as_frame(X) is None and _has_features(X)
        kind: dict[str, Any] = {"dtype": None, "accept_sparse": True, "ensure_all_finite": False, "allow_nd": True}
        validate_data(self, as_numpy(X), **(kind if checked else {"skip_check_array": True}))
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = tags.input_tags.allow_nan = True
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags
