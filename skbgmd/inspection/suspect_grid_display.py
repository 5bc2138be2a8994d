"""Visualization of the most suspicious training images, with their given and predicted labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skbgmd._utils.checks import as_numpy, as_targets, brief, check_integer
from skbgmd.inspection._plotting import ORANGE, foreground, panels_to_draw_on
from skbgmd.inspection._training_samples import check_training_samples, sample_trust
from skbgmd.inspection.suspects import find_suspects

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Characters of a label that there is room for above an image.
LONGEST = 7


class SuspectGridDisplay:
    """Visualization of the most suspicious training images: a grid, with given and predicted labels.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    images : ndarray of shape (n, height, width) or (n, height, width, channels)
        Images, the most suspicious first.
    indices : ndarray of shape (n,), int64
        Indices of the images in the training data.
    given, predicted : ndarray of shape (n,)
        Labels or numbers that the images came with, and those that the estimator predicts.
    trust : ndarray of shape (n,)
        Trust in each image.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (n_rows, n_columns)
        Axes of the last plot; those without an image are turned off.
    figure_ : matplotlib Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.corruption import corrupt_labels
    >>> from skbgmd.inspection import SuspectGridDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X, (y, wrong) = X[:500] / 16.0, corrupt_labels(y[:500], fraction=0.1, random_state=0)
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=40, random_state=0).fit(X, y)
    >>> display = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(8, 8), n=12)
    >>> display.axes_.shape, bool(wrong[display.indices].mean() > 0.8)
    ((2, 6), True)
    """

    axes_: NDArray[Any]
    figure_: Figure

    def __init__(
        self,
        images: NDArray[Any],
        indices: NDArray[np.int64],
        given: NDArray[Any],
        predicted: NDArray[Any],
        trust: NDArray[np.float64],
    ) -> None:
        self.images, self.indices, self.given, self.predicted, self.trust = images, indices, given, predicted, trust

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        image_shape: tuple[int, ...] | None = None,
        n: int = 24,
        n_columns: int = 6,
        ax: Any = None,
    ) -> Self:
        """Find the most suspicious training images and draw them.

        Parameters
        ----------
        estimator : BlockGMDClassifier or BlockGMDRegressor
            An estimator fitted on X and y, a pipeline that ends with one, or a search for its parameters.
        X : array-like or sparse matrix
            The training data, as they were passed to the estimator or the whole pipeline.
        y : array-like
            Labels or numbers of the training data.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) of a sample. None: the shape of a sample in X, if X isn't flat.
            Images of (1 or 3 channels, height, width), as networks of torch take them, are transposed.
        n : int, default=24
            Number of images.
        n_columns : int, default=6
            Number of images in a row of the grid.
        ax : matplotlib Axes or array-like of at least n of them, default=None
            Axes to draw on, or one, within whose bounds the grid is made. None: a new figure.

        Returns
        -------
        SuspectGridDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If it is no such estimator, or if ``image_shape`` is no sequence of integers.
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        ValueError
            If X and y aren't the training data, if samples aren't images of this shape, or if there are too few axes.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        trust = sample_trust(estimator)
        check_training_samples(len(trust), X=X, y=y)
        n = min(check_integer(n, "n"), len(trust))
        indices = find_suspects(estimator, n)
        shape = None if image_shape is None else _checked_shape(image_shape)
        X = as_numpy(X)
        some = _safe_indexing(X.tocsr() if issparse(X) else X, indices)
        images = _images(np.asarray(_dense(some)), shape)
        given, predicted = (np.asarray(_dense(values)) for values in (as_targets(y, "y"), estimator.predict(some)))
        display = cls(images, indices, given[indices], predicted, trust[indices])
        return display.plot(ax, n_columns=n_columns)

    def plot(self, ax: Any = None, *, n_columns: int = 6, cmap: str = "gray_r") -> Self:
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of at least n of them, default=None
            Axes to draw on, or one, within whose bounds the grid is made. None: a new figure.
        n_columns : int, default=6
            Number of images in a row of a new grid.
        cmap : str, default="gray_r"
            Colormap of images with one channel.

        Returns
        -------
        SuspectGridDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        ValueError
            If there are fewer axes than images.
        """
        n = len(self.images)
        n_columns = min(check_integer(n_columns, "n_columns"), n)
        size = (0.95 * n_columns, 1.35 * math.ceil(n / n_columns))
        caller = f"{type(self).__name__}.plot"
        grid = panels_to_draw_on(ax, n, caller, n_columns=n_columns, may_be_more=True, gap=(0.2, 0.42), figsize=size)
        for panel in grid.flat:
            panel.set_axis_off()
        for place, panel in enumerate(grid.flat[:n]):
            panel.imshow(self.images[place], cmap=cmap)
            agree = np.array_equal(self.given[place], self.predicted[place])
            title = f"#{self.indices[place]}\ngiven {_short(self.given[place])}\npred. {_short(self.predicted[place])}"
            color = foreground(panel) if agree else ORANGE
            # A label may hold dollar signs.
            panel.set_title(title, fontsize=7, color=color, pad=2.0, parse_math=False)
        self.axes_, self.figure_ = grid, grid.flat[0].figure
        return self


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, (float, np.floating)) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _dense(values: Any) -> Any:
    """Some samples, or their labels, that may be sparse."""
    # To its types, a sparse array isn't one that can be made dense.
    held: Any = values
    return held.toarray() if issparse(values) else values


def _checked_shape(given: Any) -> tuple[int, ...]:
    """The shape of an image: integers of at least one."""
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray)):
        raise TypeError(
            f"image_shape must be (height, width), (height, width, channels) or None; found {brief(given)}."
        )
    return tuple(check_integer(size, "Each number of image_shape") for size in given)


def _images(samples: NDArray[Any], shape: tuple[int, ...] | None) -> NDArray[Any]:
    """Samples (n, ...) as images (n, height, width) or (n, height, width, channels) in the range of imshow."""
    own = samples.shape[1:]
    if samples.dtype.kind not in "fiub":
        raise TypeError(f"X must hold the numbers of images; found dtype {samples.dtype}.")
    if shape is None and len(own) not in (2, 3):
        raise ValueError(
            f"image_shape must be given where samples of X aren't images, of shape (height, width) or (height, width, "
            f"channels); found image_shape=None with samples of shape {own}. Samples of a table are no images."
        )
    shape = own if shape is None else shape
    if len(shape) not in (2, 3) or math.prod(shape) != math.prod(own):
        raise ValueError(
            f"image_shape must be (height, width) or (height, width, channels) with as many numbers as a sample of X, "
            f"of shape {own}; found {shape}."
        )
    images = samples.reshape(-1, *shape)
    if len(shape) == 3:
        if shape[-1] not in (1, 3, 4) and shape[0] in (1, 3):
            images = np.moveaxis(images, 1, -1)
        if images.shape[-1] not in (1, 3, 4):
            raise ValueError(f"image_shape must have 1, 3 or 4 channels, the last; found {shape}.")
        if images.shape[-1] == 1:
            images = images[..., 0]
        elif images.dtype.kind == "f":
            # Colors outside of [0, 1] have no picture; standardised images have many.
            flat = images.reshape(len(images), -1)
            low, high = (edge.reshape(-1, 1, 1, 1) for edge in (flat.min(axis=1), flat.max(axis=1)))
            images = (images - low) / np.where(high > low, high - low, 1.0)
    return images
