"""Suspicious training samples: the ones that an estimator trusts least, and a picture of their trust."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skbgmd._utils.checks import check_integer, check_number, check_targets, refuse_masks


def find_suspects(estimator: Any, n_suspects: int | None = None, *, fraction: float | None = None) -> NDArray[np.int64]:
    """Find suspicious training samples, such as mislabeled ones: those that an estimator trusts least.

    Parameters
    ----------
    estimator : BlockGMDClassifier or BlockGMDRegressor
        Fitted; or a pipeline that ends with one, or a search for its parameters. Only ``group_size=1`` tells single
        samples apart, best with ``huber=1.0``.
    n_suspects : int, default=None
        Number of samples to list.
    fraction : float, default=None
        Or their share, in (0, 1]; rounded up. One of the two must be given.

    Returns
    -------
    indices : ndarray of shape (n_suspects,), int64
        Indices of training samples, the least trusted first. Samples of unknown trust are left out.

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    ValueError
        Neither or both of the two are given, one is out of its range, or the trust is unknown: the aggregator doesn't
        weigh rows, or trusts all alike, as the mean does, and any rule with a single group.

    Notes
    -----
    Trust is the mean weight of a sample in training (``sample_trust_``): 1 as in a plain mean, 0 ignored. Samples with
    gradients far from the others' get little of it: mislabeled ones, ones with wrong features, and rare or hard ones.
    Inspect suspects before you drop them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection.suspects import find_suspects
    >>> X, y = load_iris(return_X_y=True)
    >>> wrong = np.arange(0, 150, 15)
    >>> y[wrong] = (y[wrong] + 1) % 3
    >>> model = BlockGMDClassifier(huber=1.0, random_state=0).fit(X, y)
    >>> found = find_suspects(model, fraction=0.1)
    >>> len(found), len(set(found) & set(wrong)) >= 8
    (15, True)
    """
    trust = _trust(estimator)
    if (n_suspects is None) == (fraction is None):
        raise ValueError(
            f"One of n_suspects and fraction must be given; found n_suspects={n_suspects!r}, fraction={fraction!r}."
        )
    known = np.flatnonzero(np.isfinite(trust))
    if not len(known):
        raise ValueError("sample_trust_ must be known; found only NaN: the aggregator doesn't weigh rows.")
    if fraction is not None:
        n = max(1, int(np.ceil(check_number(fraction, "fraction", at_most=1.0) * len(trust) - 1e-9)))
    else:
        n = check_integer(n_suspects, "n_suspects")
        if n > len(trust):
            raise ValueError(f"n_suspects must be at most the number of samples, {len(trust)}; found {n}.")
    # To list all samples is no choice.
    if n < len(known) and np.allclose(trust[known], trust[known[0]], rtol=1e-6, atol=0.0):
        raise ValueError(
            f"sample_trust_ must differ for samples to be suspects; found {trust[known[0]]:g} for all {len(known)} "
            f"that it is known of: the aggregator trusts all alike, or had nothing to compare, as in plain training, "
            f"with one group in each batch."
        )
    order = np.argsort(trust[known], kind="stable")
    suspects: NDArray[np.int64] = known[order[:n]].astype(np.int64)
    return suspects


def _trust(estimator: Any) -> NDArray[np.float64]:
    """Trust of the training samples, by an estimator or the one within a pipeline or a search."""
    inner = estimator
    while isinstance(inner, Pipeline) or hasattr(inner, "best_estimator_"):
        inner = inner[-1] if isinstance(inner, Pipeline) else inner.best_estimator_
    if not hasattr(inner, "fit"):
        raise TypeError(f"estimator must be a fitted BlockGMDClassifier or BlockGMDRegressor; found {type(inner)}.")
    check_is_fitted(inner, "sample_trust_")
    return np.asarray(inner.sample_trust_, dtype=np.float64)


class SampleTrustDisplay:
    """Visualization of the trust in training samples: its histogram, and trust against loss.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    trust : ndarray of shape (n_samples,)
        Trust in each sample.
    loss : ndarray of shape (n_samples,)
        Loss of each sample.
    known : ndarray of shape (n_samples,), bool, default=None
        Samples that are known to be corrupt, drawn apart.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
        Of the histogram, and of trust against loss.
    figure_ : matplotlib Figure
        Their figure.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BlockGMDClassifier(group_size=1, max_epochs=20, random_state=0).fit(X, y)
    >>> display = SampleTrustDisplay.from_estimator(model, X, y)
    >>> [axes.get_xlabel() for axes in display.axes_]
    ['trust', 'trust']
    """

    axes_: Any
    figure_: Any

    def __init__(
        self, trust: NDArray[np.float64], loss: NDArray[np.float64], known: NDArray[np.bool_] | None = None
    ) -> None:
        self.trust, self.loss, self.known = trust, loss, known

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, corrupted: ArrayLike | None = None, axes: Any = None
    ) -> Self:
        """Compute the losses of the training samples and draw the picture.

        Parameters
        ----------
        estimator : BlockGMDClassifier or BlockGMDRegressor
            Fitted on X and y; or a pipeline that ends with one, or a search for its parameters.
        X, y : array-like
            The training data, as the estimator, or the whole pipeline, was given them.
        corrupted : array-like of shape (n_samples,), bool, default=None
            Samples that are known to be corrupt.
        axes : sequence of two matplotlib Axes, default=None
            Axes to draw on; None: a new figure.

        Returns
        -------
        SampleTrustDisplay
        """
        trust = _trust(estimator)
        for name, given in (("X", X), ("y", y), ("corrupted", corrupted)):
            refuse_masks(given, name)
        known = None if corrupted is None else np.asarray(corrupted, dtype=bool)
        for name, value in (("X", X), ("y", y), ("corrupted", known)):
            if value is not None and len(np.asarray(value)) != len(trust):
                raise ValueError(
                    f"{name} must be of the {len(trust)} samples that the estimator was fitted on; found "
                    f"{len(np.asarray(value))}."
                )
        display = cls(trust, sample_losses(estimator, X, y), known)
        return display.plot(axes=axes)

    def plot(self, *, axes: Any = None, bins: int = 40) -> Self:
        """Draw the picture.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            Axes to draw on; None: a new figure.
        bins : int, default=40
            Bars of the histogram.

        Returns
        -------
        SampleTrustDisplay
        """
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        if np.size(axes) != 2:
            raise ValueError(f"axes must be two matplotlib Axes; found {axes!r}.")
        left, right = np.ravel(axes)
        known = np.zeros(len(self.trust), dtype=bool) if self.known is None else self.known
        finite = np.isfinite(self.trust)
        edges = np.histogram_bin_edges(self.trust[finite], bins=bins)
        kinds = [(~known, "#0b4f7d", "samples" if self.known is None else "clean")]
        if self.known is not None:
            kinds.append((known, "#d55e00", "corrupted"))
        for chosen, color, label in kinds:
            left.hist(self.trust[chosen & finite], bins=edges, color=color, alpha=0.7, label=label)
            right.plot(self.trust[chosen], self.loss[chosen], ".", color=color, markersize=4, alpha=0.6, label=label)
        left.set(xlabel="trust", ylabel="samples")
        right.set(xlabel="trust", ylabel="loss")
        if len(kinds) > 1:
            left.legend()
        self.axes_, self.figure_ = np.array([left, right]), left.figure
        return self


def sample_losses(estimator: Any, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Compute the loss of each sample: minus the log-probability of its label, or the squared error.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``, or regressor
        Fitted.
    X, y : array-like
        Samples and their targets.

    Returns
    -------
    losses : ndarray of shape (n_samples,)

    Raises
    ------
    TypeError
        Targets that are dates or durations.
    ValueError
        Labels that the classifier doesn't know, targets of another shape than the predictions, masked entries or
        missing targets.
    """
    refuse_masks(X, "X")
    check_targets(y)
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        unknown = np.setdiff1d(y, estimator.classes_)
        if len(unknown):
            raise ValueError(f"y must have labels among the classes {estimator.classes_}; found {unknown}.")
        place = np.searchsorted(estimator.classes_, np.asarray(y))
        chosen = probabilities[np.arange(len(place)), place]
        losses: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
        return losses
    predicted, targets = (np.asarray(values, dtype=np.float64) for values in (estimator.predict(X), y))
    columns = predicted.reshape(len(predicted), -1)
    if targets.reshape(len(targets), -1).shape != columns.shape:
        raise ValueError(f"y must have the shape of the predictions, {predicted.shape}; found {targets.shape}.")
    squares: NDArray[np.float64] = np.square(columns - targets.reshape(columns.shape)).mean(axis=1)
    return squares
