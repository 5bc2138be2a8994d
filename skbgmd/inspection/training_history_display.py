"""Visualization of a training by epoch: losses, weights of the least trusted rows, and the price of aggregation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.history import History

from skbgmd._utils.typing import FloatArray
from skbgmd.inspection._plotting import (
    CURVE,
    NOTE,
    add_legend,
    foreground,
    make_room,
    next_style,
    panels_to_draw_on,
    with_given,
)
from skbgmd.inspection._training_samples import robust_estimator_in
from skbgmd.training._lifecycle.stopping import mean_loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class TrainingHistoryDisplay:
    """Training history visualization: losses, weights of the least trusted rows, and the time that aggregation takes.

    Make one by :meth:`from_estimator`. To draw several trainings in one picture, pass the first display's ``axes_`` to
    the others, and a name to each. It has three panels over the epochs:

    - On the left, the mean loss of training and of validation samples.
    - In the middle, the weight in the aggregate of the lower half of a step's rows, those with the least weight. It is
      0.5, the dotted line, if all rows count alike, and near 0 if half of the rows are left out.
    - On the right, the share of an epoch's duration that aggregation takes.

    A panel says so if the training recorded nothing for it. A rule that isn't a weighted mean of the rows records no
    weights, plain training no aggregation, and ``callbacks="disable"`` no durations.

    Parameters
    ----------
    train_loss, valid_loss : ndarray of shape (n_epochs,)
        Mean losses in each epoch; NaN where there are none.
    lower_half_weight : ndarray of shape (n_epochs,)
        Mean weight of the lower half of the rows over the steps of each epoch; NaN where there is none.
    aggregation_share : ndarray of shape (n_epochs,)
        Time of the aggregation divided by that of the epoch, validation included, in [0, 1]; NaN where it isn't known.
    name : str, default=None
        Name of the training in the legend. None: no name.

    Attributes
    ----------
    axes_ : ndarray of three matplotlib Axes
        Axes of the losses, the weights and the shares, in the last plot.
    figure_ : matplotlib Figure
        Figure of the last plot.
    lines_ : list of matplotlib Line2D
        The curves, from left to right.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection import TrainingHistoryDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=20, random_state=0).fit(X, y)
    >>> display = TrainingHistoryDisplay.from_estimator(model)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'weight of the lower half', 'aggregation, % of time']
    """

    axes_: NDArray[Any]
    figure_: Figure
    lines_: list[Any]

    def __init__(
        self,
        *,
        train_loss: FloatArray,
        valid_loss: FloatArray,
        lower_half_weight: FloatArray,
        aggregation_share: FloatArray,
        name: str | None = None,
    ) -> None:
        self.train_loss, self.valid_loss = train_loss, valid_loss
        self.lower_half_weight, self.aggregation_share = lower_half_weight, aggregation_share
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, name: str | None = None, line_kw: dict[str, Any] | None = None
    ) -> Self:
        """Draw the history of an estimator's or a net's training.

        Parameters
        ----------
        estimator : BlockGMDClassifier, BlockGMDRegressor, or a skorch net such as RobustNeuralNet
            A fitted estimator, a pipeline that ends with one, or a search for its parameters.
        ax, name, line_kw
            As for :meth:`plot`.

        Returns
        -------
        TrainingHistoryDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If it is no estimator, or one without a history.
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        ValueError
            If ``ax`` is neither one axes nor three.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        history = _history_of(robust_estimator_in(estimator))
        seconds, durations = (_by_epoch(history, entry) for entry in ("aggregation_time", "dur"))
        display = cls(
            train_loss=_losses(history, "train"),
            valid_loss=_losses(history, "valid"),
            lower_half_weight=_by_epoch(history, "lower_half_weight"),
            aggregation_share=np.divide(seconds, durations, out=np.full(len(history), np.nan), where=durations > 0.0),
        )
        return display.plot(ax, name=name, line_kw=line_kw)

    def plot(self, ax: Any = None, *, name: str | None = None, line_kw: dict[str, Any] | None = None) -> Self:
        """Draw the three panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of three of them, default=None
            Three axes to draw on, or one, within whose bounds the panels are made. None: a new figure.
        name : str, default=None
            Name of the training in the legend. None: the display's name.
        line_kw : dict, default=None
            Arguments for matplotlib's ``plot``, the same for all curves.

        Returns
        -------
        TrainingHistoryDisplay

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        ValueError
            If ``ax`` is neither one axes nor three.
        """
        caller = f"{type(self).__name__}.plot"
        axes = panels_to_draw_on(ax, 3, caller, width_ratios=(1.8, 1.0, 1.0), figsize=(9.0, 3.0)).ravel()
        # Only now is it certain that matplotlib is installed.
        from matplotlib.ticker import MaxNLocator

        name = name or self.name
        loss, weight, share = axes
        style = next_style(*axes) | {"linestyle": "-", "markevery": max(1, len(self.train_loss) // 8)}
        held_out = style | {"linestyle": "--", "markerfacecolor": "none"}
        curves = (
            (loss, self.train_loss, "train", style),
            (loss, self.valid_loss, "validation", held_out),
            (weight, self.lower_half_weight, None, style),
            (share, 100.0 * self.aggregation_share, None, style),
        )
        self.lines_ = []
        for panel, values, kind, look in curves:
            if np.isfinite(values).any():
                label = ", ".join(filter(None, (name, kind)))
                given = with_given({**look, "label": label}, line_kw)
                self.lines_ += panel.plot(np.arange(1, len(values) + 1), values, **given)
        for panel, label in zip(axes, ("loss", "weight of the lower half", "aggregation, % of time"), strict=True):
            panel.set(xlabel="epoch", ylabel=label)
            panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
            _say_if_empty(panel)
        highest = max([0.5, *(np.nanmax(line.get_ydata()) for line in weight.lines)])
        if not any(line.get_gid() == NOTE for line in weight.lines):
            weight.axhline(0.5, color=foreground(weight), linestyle=":", linewidth=0.8, gid=NOTE)
        weight.set_ylim(0.0, 1.1 * highest)
        share.set_ylim(0.0, 100.0)
        if loss.lines:
            make_room(
                loss, above=add_legend(loss, loc="upper right", handlelength=1.4, handletextpad=0.5, borderaxespad=0.3)
            )
        self.axes_, self.figure_ = axes, loss.figure
        return self


def _say_if_empty(panel: Axes) -> None:
    """Write that nothing was recorded into a panel without curves, and take it back where there are some by now."""
    for text in [text for text in panel.texts if text.get_gid() == NOTE]:
        text.remove()
    if not any(str(line.get_gid()).startswith(CURVE) for line in panel.lines):
        text = panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", va="center")
        text.set(fontsize="small", gid=NOTE)


def _history_of(estimator: Any) -> Any:
    """The history of a fitted estimator or a net."""
    if isinstance(estimator, BaseEstimator) and not isinstance(estimator, NeuralNet):
        check_is_fitted(estimator)
    history = getattr(estimator, "history_", None)
    if isinstance(estimator, NeuralNet) and not history:
        raise NotFittedError(f"estimator must be fitted to have a history; found {type(estimator).__name__} without.")
    if not isinstance(history, History):
        raise TypeError(
            f"estimator must be a BlockGMDClassifier, a BlockGMDRegressor or a skorch net; found {type(estimator)}."
        )
    return history


def _by_epoch(history: Any, entry: str) -> FloatArray:
    return np.array([epoch.get(entry, np.nan) for epoch in history], dtype=np.float64)


def _losses(history: Any, part: str) -> FloatArray:
    """Mean losses of a part of the data, be they recorded of epochs or of batches only."""
    return np.array([mean_loss(epoch, part) for epoch in history], dtype=np.float64)
