"""Visualization of suspicious training samples: their likelihoods, and trust against loss."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skbgmd.inspection._plotting import BLUE, ORANGE, add_legend, foreground, panels_to_draw_on
from skbgmd.inspection._training_samples import (
    check_training_samples,
    known_of,
    mask_of_samples,
    robust_estimator_in,
    sample_trust,
    suspects_of,
)
from skbgmd.inspection.losses import sample_losses


class SampleTrustDisplay:
    """Visualization of suspicious training samples: how likely the training found them, and trust against loss.

    Make one by :meth:`from_estimator`. It has two panels:

    - On the left, the histogram of the samples' mean likelihoods in training, with counts on a logarithmic scale and
      the threshold that :func:`find_suspects` estimates. If nothing is known of single samples, it is the histogram of
      their mean weights, ``sample_trust_``.
    - On the right, trust against the loss under the trained estimator.

    Samples that are known to be corrupt are highlighted, or else the suspects.

    Parameters
    ----------
    trust : ndarray of shape (n_samples,)
        Trust in each sample.
    loss : ndarray of shape (n_samples,)
        Loss of each sample.
    known : ndarray of shape (n_samples,), bool, default=None
        Samples that are known to be corrupt, which are highlighted.
    likelihood : ndarray of shape (n_samples,), default=None
        Mean likelihood of each sample in training. None: the histogram is of the trust.
    suspects : ndarray of shape (n_samples,), bool, default=None
        Suspects, which are highlighted unless ``known`` is given.
    threshold : float, default=nan
        Likelihood below which badly fitted samples are suspects; NaN: none is drawn.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
        Axes of the histogram, and of trust against loss, in the last plot.
    figure_ : matplotlib Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BlockGMDClassifier(group_size=1, max_epochs=20, random_state=0).fit(X, y)
    >>> display = SampleTrustDisplay.from_estimator(model, X, y)
    >>> [axes.get_xlabel() for axes in display.axes_]
    ['mean likelihood in training', 'trust (mean weight)']
    """

    axes_: Any
    figure_: Any

    def __init__(
        self,
        trust: NDArray[np.float64],
        loss: NDArray[np.float64],
        known: NDArray[np.bool_] | None = None,
        *,
        likelihood: NDArray[np.float64] | None = None,
        suspects: NDArray[np.bool_] | None = None,
        threshold: float = float("nan"),
    ) -> None:
        self.trust, self.loss, self.known = trust, loss, known
        self.likelihood, self.suspects, self.threshold = likelihood, suspects, threshold

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, corrupted: ArrayLike | None = None, ax: Any = None
    ) -> Self:
        """Compute the losses of the training samples and draw the picture.

        Parameters
        ----------
        estimator : BlockGMDClassifier or BlockGMDRegressor
            An estimator fitted on X and y, a pipeline that ends with one, or a search for its parameters.
        X, y : array-like
            The training data, as they were passed to the estimator or the whole pipeline.
        corrupted : array-like of shape (n_samples,), bool, default=None
            Samples that are known to be corrupt, which are highlighted. None: suspects are highlighted.
        ax : matplotlib Axes or array-like of two of them, default=None
            Two axes to draw on, or one, within whose bounds both panels are made. None: a new figure.

        Returns
        -------
        SampleTrustDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If it is no such estimator.
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        ValueError
            If X and y aren't the training data, if ``corrupted`` isn't a mask of them, if the trust is unknown because
            the aggregator doesn't weigh rows, or if ``ax`` is neither one axes nor two.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        trust = sample_trust(estimator)
        check_training_samples(len(trust), X=X, y=y)
        known = None if corrupted is None else mask_of_samples(corrupted, "corrupted", len(trust))
        found: dict[str, Any] = {}
        inner = robust_estimator_in(estimator)
        of_single = known_of(inner)
        if of_single is not None:
            chosen, (*_, threshold), seen = suspects_of(inner, of_single)
            likelihood, suspects = np.full(len(trust), np.nan), np.zeros(len(trust), dtype=bool)
            likelihood[of_single.indices], suspects[of_single.indices] = seen, chosen
            found = {"likelihood": likelihood, "suspects": suspects, "threshold": threshold}
        return cls(trust, sample_losses(estimator, X, y), known, **found).plot(ax)

    def plot(self, ax: Any = None, *, bins: int = 40) -> Self:
        """Draw the two panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of two of them, default=None
            Two axes to draw on, or one, within whose bounds both panels are made. None: a new figure.
        bins : int, default=40
            Number of bars of the histogram.

        Returns
        -------
        SampleTrustDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        ValueError
            If ``ax`` is neither one axes nor two.
        """
        axes = panels_to_draw_on(ax, 2, f"{type(self).__name__}.plot", figsize=(9.0, 3.6)).ravel()
        left, right = axes
        shown = self.trust if self.likelihood is None else self.likelihood
        finite = np.isfinite(shown) & np.isfinite(self.trust)
        # Losses of samples that have been learnt differ by orders of magnitude, and some are zero.
        loss = np.maximum(self.loss, 1e-6)
        edges = np.histogram_bin_edges(shown[finite], bins=bins, range=None if self.likelihood is None else (0.0, 1.0))
        highest = 1.0
        for chosen, label, style in self._kinds():
            some = chosen & finite
            color, marker, hatch = style
            counts, *_ = left.hist(
                shown[some], bins=edges, color=color, alpha=0.7, hatch=hatch, label=f"{label} ({some.sum():,})"
            )
            right.plot(self.trust[some], loss[some], marker, color=color, markersize=4, alpha=0.7, label=label)
            highest = max(highest, counts.max())
        if np.isfinite(self.threshold):
            left.axvline(
                self.threshold,
                color=foreground(left),
                linestyle="--",
                linewidth=1.2,
                label=f"threshold {self.threshold:.2f}",
            )
        left.set(
            xlabel="trust (mean weight)" if self.likelihood is None else "mean likelihood in training",
            ylabel="number of samples",
            yscale="log",
        )
        # The legend has its place above the bars.
        left.set_ylim(0.7, highest * (highest / 0.7) ** 0.55)
        right.set(xlabel="trust (mean weight)", ylabel="loss after training", yscale="log")
        add_legend(left, loc="upper center")
        self.axes_, self.figure_ = axes, left.figure
        return self

    def _kinds(self) -> list[tuple[NDArray[np.bool_], str, tuple[str, str, str | None]]]:
        """Samples to be drawn apart, with their name, color, marker and hatch, the last in front."""
        many, few = (BLUE, ".", None), (ORANGE, "x", "////")
        if self.known is not None:
            return [(~self.known, "clean", many), (self.known, "corrupted", few)]
        if self.suspects is not None:
            return [(~self.suspects, "others", many), (self.suspects, "suspects", few)]
        return [(np.ones(len(self.trust), dtype=bool), "samples", many)]
