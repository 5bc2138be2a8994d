"""Corrupt features: transformers that corrupt training rows and leave test rows as they are."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skbgmd._utils.checks import as_numpy, check_number, refuse_masks_and_dates
from skbgmd._utils.columns import naming_columns
from skbgmd._utils.doc_link import DocumentationLink
from skbgmd._utils.random import random_source
from skbgmd.corruption.base import draw_rows, n_corrupted, warn_at_breakdown_point


def add_gaussian_noise(rows: NDArray[Any], std: float, rng: np.random.RandomState) -> NDArray[Any]:
    r"""Add independent Gaussian noise to every entry: :math:`x + \sigma z`, :math:`z \sim N(0, 1)`.

    Parameters
    ----------
    rows : ndarray of shape (n, ...)
        Of a floating dtype, which is that of the result.
    std : float
        Standard deviation σ, in units of the features.
    rng : RandomState
        Source of the noise.
    """
    noisy: NDArray[Any] = (rows + std * rng.standard_normal(rows.shape)).astype(rows.dtype, copy=False)
    return noisy


def salt_and_pepper(
    rows: NDArray[Any], amount: float, low: ArrayLike, high: ArrayLike, rng: np.random.RandomState
) -> NDArray[Any]:
    """Replace entries with probability ``amount`` by their lowest or highest value, at even odds.

    Parameters
    ----------
    rows : ndarray of shape (n, ...)
        Of a floating dtype, which is that of the result.
    amount : float
        Probability, in [0, 1].
    low, high : array-like
        Lowest and highest value; they broadcast to a row.
    rng : RandomState
        Source of the draws.
    """
    draw = rng.random_sample(rows.shape)
    noisy = np.where(draw < 0.5 * amount, np.asarray(low, rows.dtype), rows)
    return np.where((draw >= 0.5 * amount) & (draw < amount), np.asarray(high, rows.dtype), noisy)


class FeatureCorruption(DocumentationLink, OneToOneFeatureMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of transformers that corrupt training rows; inherit from it and write ``_corrupt``.

    ``fit_transform`` corrupts the rows, and ``transform`` returns them unchanged. A pipeline therefore trains on
    corrupt rows and predicts on clean ones.
    """

    fraction: float
    random_state: Any

    def fit(self, X: ArrayLike, y: Any = None) -> FeatureCorruption:
        """Learn the shape and the range of the features, and corrupt nothing.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features, ...)
            Clean training rows, finite.
        y : object, default=None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter is of the wrong kind or out of its range, or if X is empty, sparse, masked, of dates or not
            finite.
        """
        self._learn(X)
        return self

    def fit_transform(self, X: ArrayLike, y: Any = None) -> NDArray[Any]:
        r"""Corrupt :math:`\lfloor \psi n \rfloor` rows of X, drawn at random.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features, ...)
            Clean training rows, finite.
        y : object, default=None
            Ignored.

        Returns
        -------
        X_corrupt : ndarray of the shape of X
            A corrupted copy, float32 for float32 input and float64 for any other. ``corrupted_`` marks the corrupt
            rows; the other rows are unchanged, bit by bit.

        Raises
        ------
        TypeError, ValueError
            As for ``fit``.
        """
        result = self._learn(X).copy()
        # One level is scikit-learn's, which wraps the method for set_output.
        warn_at_breakdown_point(float(self.fraction), stacklevel=4)
        rng = random_source(self.random_state)
        n = len(result)
        rows = draw_rows(np.arange(n), n_corrupted(float(self.fraction), n), rng)
        if len(rows):
            result[rows] = self._corrupt(result[rows], rng)
            self.corrupted_[rows] = True
        return result

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return X unchanged, after a check of its shape.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features, ...)
            Rows, finite.

        Returns
        -------
        X : ndarray of the same shape
            The rows; not a copy if X is already a float32 or float64 array.

        Raises
        ------
        NotFittedError
            Before ``fit`` or ``fit_transform``.
        TypeError, ValueError
            If X is empty, sparse, masked, of dates or not finite, or if its rows have another shape than in ``fit``.
        """
        check_is_fitted(self)
        array = self._validated(X, reset=False)
        if array.shape[1:] != self._row_shape:
            raise ValueError(f"X must have rows of shape {self._row_shape}, as in fit; found {array.shape[1:]}.")
        return array

    def _learn(self, X: ArrayLike) -> NDArray[Any]:
        check_number(self.fraction, "fraction", at_least=0.0, at_most=1.0)
        self._check_parameters()
        array = self._validated(X, reset=True)
        self._row_shape = array.shape[1:]
        self._learn_range(array)
        self.corrupted_ = np.zeros(len(array), dtype=bool)
        return array

    def _validated(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        refuse_masks_and_dates(X, "X")
        X = as_numpy(X)
        with naming_columns(X):
            array: NDArray[Any] = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], allow_nd=True)
        return array

    def _learn_range(self, X: NDArray[Any]) -> None:
        """Learn ranges of the clean rows that ``_corrupt`` needs."""

    @abstractmethod
    def _check_parameters(self) -> None:
        """Check the parameters other than ``fraction``."""

    @abstractmethod
    def _corrupt(self, rows: NDArray[Any], rng: np.random.RandomState) -> NDArray[Any]:
        """Corrupt copies of the rows that were drawn."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class GaussianNoise(FeatureCorruption):
    r"""Add Gaussian noise to every feature of some training rows.

    Use it as a step of a pipeline: it corrupts the rows in ``fit_transform`` and leaves them alone in ``transform``.

    A corrupt row becomes :math:`x + \sigma z` with :math:`z \sim N(0, I)`. This is the additive feature corruption of
    Acharya et al. (2022), after Hendrycks & Dietterich (2018), where :math:`\sigma^2 = 100`.

    Parameters
    ----------
    fraction : float, default=0.0
        Share ψ of the rows to corrupt, in [0, 1]: :math:`\lfloor \psi n \rfloor` rows. A share of 0.5 or more raises a
        warning.
    std : float, default=10.0
        Standard deviation σ, in units of the features.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows and the noise. None: a fresh one each time; NumPy's global state is never
        used.

    Attributes
    ----------
    corrupted_ : ndarray of shape (n_samples,), bool
        Mask of the rows that the last ``fit_transform`` corrupted; all False after ``fit``.
    n_features_in_ : int
        Number of features; for images of shape (n, channels, height, width), the number of channels.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all of them are strings.

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd.corruption import GaussianNoise
    >>> noise = GaussianNoise(fraction=0.4, random_state=0)
    >>> X = np.zeros((5, 3))
    >>> bool(np.abs(noise.fit_transform(X)).max() > 3), noise.corrupted_
    (True, array([ True, False,  True, False, False]))
    >>> float(np.abs(noise.transform(X)).max())
    0.0
    """

    def __init__(self, fraction: float = 0.0, std: float = 10.0, random_state: Any = None) -> None:
        self.fraction, self.std, self.random_state = fraction, std, random_state

    def _check_parameters(self) -> None:
        check_number(self.std, "std")

    def _corrupt(self, rows: NDArray[Any], rng: np.random.RandomState) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            noisy = add_gaussian_noise(rows, self.std, rng)
        if not np.isfinite(noisy).all():
            raise ValueError(f"std must leave X finite, which is {rows.dtype}; found {self.std!r}.")
        return noisy


class ImpulseNoise(FeatureCorruption):
    r"""Add impulse noise (salt and pepper): set most features of some training rows to their lowest or highest value.

    Use it as a step of a pipeline: it corrupts the rows in ``fit_transform`` and leaves them alone in ``transform``.

    Each feature of a corrupt row is replaced with probability ``amount``. The new value is the minimum or the maximum
    of the data, each with the same probability. The impulse corruption of Acharya et al. (2022), after Hendrycks &
    Dietterich (2018), sets 90 % of the pixels to 0 or 1: ``amount=0.9, value_range=(0, 1)``.

    Parameters
    ----------
    fraction : float, default=0.0
        Share ψ of the rows to corrupt, in [0, 1]: :math:`\lfloor \psi n \rfloor` rows. A share of 0.5 or more raises a
        warning.
    amount : float, default=0.9
        Probability that a feature of a corrupt row is replaced, in [0, 1].
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows and the values. None: a fresh one each time; NumPy's global state is never
        used.
    value_range : pair of floats or None, default=None
        Lowest and highest value, the same for all features. None: each feature's own minimum and maximum, learned
        in ``fit``. Set it for images: otherwise a pixel that is black in all of them stays black.

    Attributes
    ----------
    corrupted_ : ndarray of shape (n_samples,), bool
        Mask of the rows that the last ``fit_transform`` corrupted; all False after ``fit``.
    data_min_, data_max_ : ndarray of shape (n_features, ...)
        Values of pepper and salt for each feature.
    n_features_in_ : int
        Number of features; for images of shape (n, channels, height, width), the number of channels.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all of them are strings.

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd.corruption import ImpulseNoise
    >>> X = np.full((4, 6), 0.5)
    >>> noise = ImpulseNoise(fraction=0.25, amount=1.0, value_range=(0, 1), random_state=3)
    >>> noise.fit_transform(X)[noise.corrupted_]
    array([[1., 0., 1., 0., 0., 0.]])
    """

    def __init__(
        self,
        fraction: float = 0.0,
        amount: float = 0.9,
        random_state: Any = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.fraction, self.amount, self.random_state = fraction, amount, random_state
        self.value_range = value_range

    def _check_parameters(self) -> None:
        check_number(self.amount, "amount", at_least=0.0, at_most=1.0)
        if self.value_range is None:
            return
        refuse_masks_and_dates(self.value_range, "value_range")
        try:
            limits = np.asarray(self.value_range, dtype=np.float64)
        except (TypeError, ValueError):
            # No numbers.
            limits = np.empty(0)
        if limits.shape != (2,) or not np.isfinite(limits).all() or limits[0] > limits[1]:
            raise ValueError(
                f"value_range must be None or two finite numbers in ascending order; found {self.value_range!r}."
            )

    def _learn_range(self, X: NDArray[Any]) -> None:
        if self.value_range is None:
            self.data_min_, self.data_max_ = X.min(axis=0), X.max(axis=0)
        else:
            with np.errstate(over="ignore"):
                low, high = np.asarray(self.value_range).astype(X.dtype)
            if not np.isfinite([low, high]).all():
                raise ValueError(f"value_range must be finite in X's dtype {X.dtype}; found {self.value_range!r}.")
            self.data_min_, self.data_max_ = np.full(X.shape[1:], low), np.full(X.shape[1:], high)

    def _corrupt(self, rows: NDArray[Any], rng: np.random.RandomState) -> NDArray[Any]:
        return salt_and_pepper(rows, self.amount, self.data_min_, self.data_max_, rng)
