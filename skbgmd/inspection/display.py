"""Visualization of robustness curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from skbgmd._utils.checks import check_choice
from skbgmd._utils.typing import FloatArray
from skbgmd.inspection.curve import FRACTIONS, robustness_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORE_TYPES = ("test", "train", "both")
STD_STYLES = ("fill_between", "errorbar")


class RobustnessCurveDisplay:
    """Robustness curve visualization: scores over the share of corrupt training rows.

    Make one by :meth:`from_estimator`, or from the arrays that :func:`robustness_curve` gives. For several
    estimators in one picture, hand the first's ``ax_`` to the others, and a label to each.

    Parameters
    ----------
    fractions : ndarray of shape (n_fractions,)
        Shares of corrupt rows.
    train_scores, test_scores : ndarray of shape (n_fractions, n_folds)
        Scores on clean training rows, and on the other rows.
    score_name : str, default=None
        Label of the vertical axis; None: "Score".

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

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skbgmd.corruption import GaussianNoise
    >>> from skbgmd.inspection import RobustnessCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> options = {"corruption": GaussianNoise(std=10.0), "fractions": [0.0, 0.2, 0.4], "random_state": 0}
    >>> first = RobustnessCurveDisplay.from_estimator(GaussianNB(), X, y, **options, line_kw={"label": "Bayes"})
    >>> second = RobustnessCurveDisplay.from_estimator(
    ...     LogisticRegression(max_iter=1000), X, y, **options, ax=first.ax_, line_kw={"label": "logistic"})
    >>> [text.get_text() for text in second.ax_.get_legend().get_texts()]
    ['Bayes', 'logistic']
    """

    ax_: Axes
    figure_: Any
    lines_: list[Any] | None
    fill_between_: list[Any] | None
    errorbar_: list[Any] | None

    def __init__(
        self,
        *,
        fractions: FloatArray,
        train_scores: FloatArray,
        test_scores: FloatArray,
        score_name: str | None = None,
    ) -> None:
        self.fractions, self.train_scores, self.test_scores = fractions, train_scores, test_scores
        self.score_name = score_name

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
    ) -> RobustnessCurveDisplay:
        """Draw mean scores over the fractions, and their standard deviations over the folds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None: a new figure.
        score_name : str, default=None
            Label of the vertical axis; None: the display's.
        score_type : {"test", "train", "both"}, default="test"
            Scores to draw.
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            Style of the standard deviations: a band, bars, or none.
        line_kw, fill_between_kw, errorbar_kw : dict, default=None
            Arguments for matplotlib's ``plot`` (not for the style "errorbar"), ``fill_between`` and ``errorbar``. A
            label is extended by the type of score where both are drawn.

        Returns
        -------
        display : RobustnessCurveDisplay
            Itself.

        Raises
        ------
        ValueError
            An unknown ``score_type`` or ``std_display_style``.
        """
        check_choice(score_type, "score_type", SCORE_TYPES)
        if std_display_style is not None:
            check_choice(std_display_style, "std_display_style", STD_STYLES)
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        bars = std_display_style == "errorbar"
        lines, bands, errorbars = [], [], []
        for kind, scores in self._curves(score_type):
            mean, std = scores.mean(axis=1), scores.std(axis=1)
            given = (errorbar_kw if bars else line_kw) or {}
            label = given.get("label", kind.capitalize())
            style = given | {"label": f"{label}, {kind}" if "label" in given and score_type == "both" else label}
            if bars:
                errorbars.append(ax.errorbar(self.fractions, mean, std, **style))
                continue
            lines += ax.plot(self.fractions, mean, **style)
            if std_display_style == "fill_between":
                band = {"alpha": 0.3, "color": lines[-1].get_color(), "linewidth": 0.0} | (fill_between_kw or {})
                bands.append(ax.fill_between(self.fractions, mean - std, mean + std, **band))
        self.lines_, self.errorbar_ = lines or None, errorbars or None
        self.fill_between_ = bands or None
        ax.legend()
        ax.set_xlabel("Fraction of corrupt rows")
        ax.set_ylabel(score_name or self.score_name or "Score")
        self.ax_, self.figure_ = ax, ax.figure
        return self

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
    ) -> RobustnessCurveDisplay:
        """Compute a robustness curve and draw it.

        Parameters
        ----------
        estimator, X, y, corruption, fractions, groups, cv, scoring, n_jobs, random_state, error_score, verbose, params
            As for :func:`robustness_curve`.
        ax, score_type, std_display_style, line_kw, fill_between_kw, errorbar_kw
            As for :meth:`plot`.
        score_name : str, default=None
            Label of the vertical axis; None: the name of ``scoring``.

        Returns
        -------
        display : RobustnessCurveDisplay

        Raises
        ------
        TypeError, ValueError
            As for :func:`robustness_curve` and :meth:`plot`.
        """
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


def _score_name(scoring: Any) -> str | None:
    if scoring is None:
        return None
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", type(scoring).__name__)
    if name.startswith("neg_"):
        name = f"negative {name[4:]}"
    return name.replace("_", " ").capitalize()
