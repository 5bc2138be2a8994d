"""Visualization of how a strength was chosen by held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from skbgmd._utils import limits
from skbgmd.inspection._plotting import BLUE, ORANGE, axes_to_draw_on, foreground
from skbgmd.inspection._training_samples import robust_estimator_in
from skbgmd.training._strength.evidence import STRENGTHS_OF_CLASSES, Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class StrengthDisplay:
    """Visualization of the choice of a strength: the gain of each candidate on held-out samples.

    Make one by :meth:`from_estimator`.

    Each point is a candidate's gain: its score minus that of the gentlest candidate. The bar to either side is as many
    standard errors long as the candidate must be ahead by. Only a candidate whose whole bar is to the right of zero may
    be chosen; among these the one with the largest gain is. If far targets are predicted, the gentlest candidate is
    chosen whatever the gain, and bars are one standard error long.

    Gains are those of the last epoch that a candidate was trained for, which may be after a third of the epochs.
    Candidates that weren't tried aren't drawn.

    Parameters
    ----------
    evidence : mapping of str to Evidence
        The estimator's ``strength_scores_``.
    chosen : str
        The estimator's ``strength_``.
    score_name : str, default="score"
        Name of the score, with its unit.
    scale : float, default=1.0
        Factor that scores are multiplied by in the picture, such as 100 for percent.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last plot.
    figure_ : matplotlib Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.corruption import corrupt_labels
    >>> from skbgmd.inspection import StrengthDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> y, _ = corrupt_labels(y, fraction=0.4, random_state=0)
    >>> model = BlockGMDClassifier(strength="auto", max_epochs=20, random_state=0).fit(X / 16.0, y)
    >>> display = StrengthDisplay.from_estimator(model)
    >>> print(display.ax_.get_xlabel())
    gain over mild on held-out samples
    (balanced accuracy, percentage points)
    """

    ax_: Axes
    figure_: Figure

    def __init__(
        self, evidence: Mapping[str, Evidence], chosen: str, *, score_name: str = "score", scale: float = 1.0
    ) -> None:
        self.evidence, self.chosen, self.score_name, self.scale = evidence, chosen, score_name, scale

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> Self:
        """Draw how an estimator's strength was chosen.

        Parameters
        ----------
        estimator : BlockGMDClassifier or BlockGMDRegressor
            An estimator fitted with ``strength="auto"``, a pipeline that ends with one, or a search for its parameters.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        StrengthDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If it is no such estimator, or if ``ax`` isn't an axes.
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        ValueError
            If no strength was chosen, because one was given, or because there were too few samples or epochs for a
            choice.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        inner = robust_estimator_in(estimator)
        check_is_fitted(inner, "strength_scores_")
        if not inner.strength_scores_:
            raise ValueError(
                f'strength must be "auto", and chosen by held-out samples, to be drawn; found '
                f"strength={inner.strength!r} without a choice. There is none with fewer than {limits.CHOICE_SAMPLES} "
                f"samples or {limits.CHOICE_LEAST_EPOCHS} epochs, in partial_fit, for clients or groups of samples, "
                f"nor where huber, beta, trust_power, tilt or an aggregator is given."
            )
        if hasattr(inner, "classes_"):
            name, scale = "balanced accuracy, percentage points", 100.0
        else:
            name, scale = "minus absolute or clipped squared error, standardized", 1.0
        return cls(inner.strength_scores_, inner.strength_, score_name=name, scale=scale).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the gains of the candidates.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        StrengthDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If ``ax`` isn't an axes.
        """
        ax = axes_to_draw_on(ax, f"{type(self).__name__}.plot", figsize=(5.0, 1.6 + 0.4 * len(self.evidence)))
        # The gentlest first, in whatever order they were tried.
        names = sorted(self.evidence, key=[*STRENGTHS_OF_CLASSES, *self.evidence].index)
        ahead = next(iter(self.evidence.values())).errors_ahead
        # None is clear where no number of errors is enough.
        bar = ahead if np.isfinite(ahead) else 1.0
        for row, name in enumerate(names):
            gain, error = (self.scale * value for value in self.evidence[name][1:3])
            color, marker = (ORANGE, "D") if name == self.chosen else (BLUE, "o")
            # A gain is clear where its bar ends to the right of zero.
            ax.errorbar(gain, row, xerr=bar * error, fmt=marker, color=color, capsize=3.0, markersize=6.0)
        ax.axvline(0.0, color=foreground(ax), linewidth=0.8, linestyle=":")
        ax.set_yticks(range(len(names)), [f"{name} (chosen)" if name == self.chosen else name for name in names])
        ax.set(ylim=(len(names) - 0.5, -0.5), xlabel=f"gain over {names[0]} on held-out samples\n({self.score_name})")
        errors = f"{bar:g} standard error{'s' * (bar != 1.0)}"
        rule = "clear if all to the right of 0" if bar == ahead else f"{names[0]}, as far targets are predicted"
        ax.set_title(f"bars: {errors}; {rule}", fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self
