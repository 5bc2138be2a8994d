"""Visualization of robustness curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skbgmd._utils.checks import check_choice
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.corruption import LabelCorruption
from skbgmd.corruption.gradients import GradientCorruption
from skbgmd.inspection._plotting import (
    DIVERGED,
    NOTE,
    add_legend,
    axes_to_draw_on,
    foreground,
    is_labeled,
    make_room,
    next_style,
    with_given,
)
from skbgmd.inspection.curve import FRACTIONS, robustness_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORE_TYPES = ("test", "train", "both")
STD_STYLES = ("fill_between", "errorbar")
FAILED = "diverged or failed, not in the mean"


class RobustnessCurveDisplay:
    """Robustness curve visualization: scores over the share of corrupt training rows.

    Make one by :meth:`from_estimator`, or from the arrays that :func:`robustness_curve` returns. To draw several
    estimators in one picture, pass the first display's ``ax_`` to the others.

    Runs that diverged or failed have no finite score. They are left out of means and standard deviations, and marks at
    the lower edge give their number.

    Parameters
    ----------
    fractions : ndarray of shape (n_fractions,)
        Shares of corrupt rows.
    train_scores, test_scores : ndarray of shape (n_fractions, n_folds)
        Scores on the clean training rows, and on the test rows; NaN for a run that failed.
    score_name : str, default=None
        Label of the vertical axis. None: "Score".
    corruption_name : str, default="Corrupt training samples"
        Label of the horizontal axis, to which the unit is added.
    name : str, default=None
        Name of the estimator in the legend. None: the type of score, "Test" or "Train".

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last plot.
    figure_ : matplotlib Figure
        Figure of the last plot.
    lines_ : list of matplotlib Line2D or None
        Lines of mean scores; None for the style "errorbar".
    fill_between_ : list of matplotlib PolyCollection or None
        Bands of standard deviations, for the style "fill_between".
    errorbar_ : list of matplotlib ErrorbarContainer or None
        Lines with bars, for the style "errorbar".
    diverged_ : list of matplotlib Line2D or None
        Marks of the fractions where runs diverged or failed; None where all scores are finite.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skbgmd.corruption import GaussianNoise
    >>> from skbgmd.inspection import RobustnessCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> options = {"corruption": GaussianNoise(std=10.0), "fractions": [0.0, 0.2, 0.4], "random_state": 0}
    >>> first = RobustnessCurveDisplay.from_estimator(GaussianNB(), X, y, **options)
    >>> second = RobustnessCurveDisplay.from_estimator(
    ...     LogisticRegression(max_iter=1000), X, y, **options, ax=first.ax_, name="logistic")
    >>> [text.get_text() for text in second.ax_.get_legend().get_texts()]
    ['GaussianNB', 'logistic', '± 1 std. dev. over 5 folds']
    >>> second.ax_.get_xlabel()
    'Training samples with corrupt features, %'
    """

    ax_: Axes
    figure_: Any
    lines_: list[Any] | None
    fill_between_: list[Any] | None
    errorbar_: list[Any] | None
    diverged_: list[Any] | None

    def __init__(
        self,
        *,
        fractions: FloatArray,
        train_scores: FloatArray,
        test_scores: FloatArray,
        score_name: str | None = None,
        corruption_name: str = "Corrupt training samples",
        name: str | None = None,
    ) -> None:
        self.fractions, self.train_scores, self.test_scores = fractions, train_scores, test_scores
        self.score_name, self.corruption_name, self.name = score_name, corruption_name, name

    def plot(
        self,
        ax: Axes | None = None,
        *,
        score_name: str | None = None,
        score_type: str = "test",
        std_display_style: str | None = "fill_between",
        line_kw: dict[str, Any] | None = None,
        fill_between_kw: dict[str, Any] | None = None,
        errorbar_kw: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> Self:
        """Draw mean scores over the fractions, and their standard deviations over the folds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        score_name : str, default=None
            Label of the vertical axis. None: the display's label.
        score_type : {"test", "train", "both"}, default="test"
            Scores to draw.
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            Style of the standard deviations: a band, bars, or none.
        line_kw, fill_between_kw, errorbar_kw : dict, default=None
            Arguments for matplotlib's ``plot`` (not for the style "errorbar"), ``fill_between`` and ``errorbar``. If
            both types of score are drawn, the type is added to a label.
        name : str, default=None
            Name of the estimator in the legend. None: the display's name.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        TypeError
            If ``ax`` isn't an axes.
        ValueError
            If ``score_type`` or ``std_display_style`` is unknown.
        """
        check_choice(score_type, "score_type", SCORE_TYPES)
        if std_display_style is not None:
            check_choice(std_display_style, "std_display_style", STD_STYLES)
        ax = axes_to_draw_on(ax, f"{type(self).__name__}.plot")
        bars = std_display_style == "errorbar"
        name = name or self.name
        lines, bands, errorbars, diverged = [], [], [], []
        for kind, scores in self._curves(score_type):
            ended = np.ma.masked_invalid(scores)
            mean, std = (np.ma.filled(values, np.nan) for values in (ended.mean(axis=1), ended.std(axis=1)))
            style = with_given(next_style(ax), errorbar_kw if bars else line_kw)
            label = style.get("label", name)
            extended = f"{label}, {kind}" if score_type == "both" else label
            style["label"] = kind.capitalize() if label is None else extended
            if bars:
                errorbars.append(ax.errorbar(self.fractions, mean, std, **{"capsize": 3.0, **style}))
                color = errorbars[-1].lines[0].get_color()
            else:
                lines += ax.plot(self.fractions, mean, **style)
                color = lines[-1].get_color()
            if std_display_style == "fill_between":
                band = {"alpha": 0.25, "color": color, "linewidth": 0.0} | (fill_between_kw or {})
                bands.append(ax.fill_between(self.fractions, mean - std, mean + std, **band))
            diverged += _mark_diverged(ax, self.fractions, ~np.isfinite(scores), color)
        self.lines_, self.errorbar_ = lines or None, errorbars or None
        self.fill_between_, self.diverged_ = bands or None, diverged or None
        self._add_notes(ax, std_display_style)
        _make_room(ax, add_legend(ax, loc="lower left", ncols=2))
        ax.xaxis.set_major_formatter(_percent)
        ax.set_xlabel(f"{self.corruption_name}, %")
        ax.set_ylabel(score_name or self.score_name or "Score")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _add_notes(self, ax: Axes, std_display_style: str | None) -> None:
        """Add what is of all curves to what a legend has entries of."""
        n_folds = self.test_scores.shape[1]
        deviation = f"± 1 std. dev. over {n_folds} fold{'s' * (n_folds != 1)}"
        look = {"color": foreground(ax), "gid": NOTE}
        if std_display_style == "fill_between" and not is_labeled(ax, deviation):
            ax.fill_between([], [], alpha=0.25, linewidth=0.0, label=deviation, **look)
        if std_display_style == "errorbar" and not is_labeled(ax, deviation):
            ax.plot([], [], marker="|", markersize=9.0, linestyle="none", label=deviation, **look)
        if self.diverged_ is not None and not is_labeled(ax, FAILED):
            ax.plot([], [], marker="x", linestyle="none", markeredgewidth=1.8, label=FAILED, **look)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        corruption: Any,
        fractions: ArrayLike = FRACTIONS,
        groups: ArrayLike | None = None,
        cv: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        error_score: float | str = np.nan,
        verbose: int = 0,
        params: dict[str, Any] | None = None,
        ax: Axes | None = None,
        score_name: str | None = None,
        score_type: str = "test",
        std_display_style: str | None = "fill_between",
        line_kw: dict[str, Any] | None = None,
        fill_between_kw: dict[str, Any] | None = None,
        errorbar_kw: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> Self:
        """Compute a robustness curve and draw it.

        Parameters
        ----------
        estimator, X, y, corruption, fractions, groups, cv, scoring, n_jobs, random_state, error_score, verbose, params
            As for :func:`robustness_curve`.
        ax, score_type, std_display_style, line_kw, fill_between_kw, errorbar_kw
            As for :meth:`plot`.
        score_name : str, default=None
            Label of the vertical axis. None: the name of ``scoring``.
        name : str, default=None
            Name of the estimator in the legend. None: the name of its class.

        Returns
        -------
        display : RobustnessCurveDisplay

        Raises
        ------
        ImportError, TypeError, ValueError
            As for :func:`robustness_curve` and :meth:`plot`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        shares, train_scores, test_scores = robustness_curve(
            estimator,
            X,
            y,
            corruption=corruption,
            fractions=fractions,
            groups=groups,
            cv=cv,
            scoring=scoring,
            n_jobs=n_jobs,
            random_state=random_state,
            error_score=error_score,
            verbose=verbose,
            params=params,
        )
        display = cls(
            fractions=shares,
            train_scores=train_scores,
            test_scores=test_scores,
            score_name=score_name or _score_name(scoring),
            corruption_name=_corruption_name(corruption),
            name=name or type(estimator).__name__,
        )
        return display.plot(
            ax,
            score_type=score_type,
            std_display_style=std_display_style,
            line_kw=line_kw,
            fill_between_kw=fill_between_kw,
            errorbar_kw=errorbar_kw,
        )

    def _curves(self, score_type: str) -> Iterable[tuple[str, FloatArray]]:
        if score_type in ("train", "both"):
            yield "train", self.train_scores
        if score_type in ("test", "both"):
            yield "test", self.test_scores


def _percent(share: float, _: float) -> str:
    return f"{100.0 * share:g}"


def _mark_diverged(ax: Axes, fractions: FloatArray, diverged: BoolArray, color: Any) -> list[Any]:
    """Mark fractions where runs diverged, and say how many of them: a row for each curve."""
    counts = diverged.sum(axis=1)
    if not counts.any():
        return []
    gid = f"{DIVERGED} {len(_rows_of_diverged(ax))}"
    some, edge = np.flatnonzero(counts), ax.get_xaxis_transform()
    cross: dict[str, Any] = {"marker": "x", "linestyle": "none", "markeredgewidth": 1.8, "color": color, "gid": gid}
    marks = ax.plot(fractions[some], np.zeros(len(some)), transform=edge, **cross)
    beside: dict[str, Any] = {"xycoords": edge, "xytext": (0.0, 5.0), "textcoords": "offset points", "ha": "center"}
    for place in some:
        text = f"{counts[place]} of {diverged.shape[1]}"
        ax.annotate(text, (fractions[place], 0.0), fontsize="x-small", color=color, gid=gid, **beside)
    return list(marks)


def _rows_of_diverged(ax: Axes) -> list[Any]:
    return [line for line in ax.lines if str(line.get_gid()).startswith(DIVERGED)]


def _make_room(ax: Axes, legend: float) -> None:
    """Put the rows of runs that diverged above the legend, and all curves above these."""
    rows = _rows_of_diverged(ax)
    texts: list[Any] = list(ax.texts)
    # A mark and its number are as high, whatever the height of the axes.
    height = max(22.0 / 72.0 * ax.figure.dpi / ax.get_window_extent().height, 0.12)
    for n, row in enumerate(rows):
        at = legend + height * (n + 0.25)
        row.set_ydata(np.full(len(row.get_xdata()), at))
        for text in texts:
            if text.get_gid() == row.get_gid():
                text.xy = (text.xy[0], at)
    make_room(ax, below=min(legend + height * len(rows), 0.7))


def _score_name(scoring: Any) -> str | None:
    if scoring is None:
        return None
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", type(scoring).__name__)
    if name.startswith("neg_"):
        name = f"negative {name[4:]}"
    return name.replace("_", " ").capitalize()


def _corruption_name(corruption: Any) -> str:
    """Say what a corruption corrupts, for an axis."""
    if isinstance(corruption, (str, GradientCorruption)):
        return "Corrupt gradients"
    if isinstance(corruption, LabelCorruption):
        return "Corrupt training labels"
    is_sampler = hasattr(corruption, "fit_resample")
    return "Corrupt training samples" if is_sampler else "Training samples with corrupt features"
