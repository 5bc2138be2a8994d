"""Axes, styles and legends that the displays have in common; matplotlib is imported where something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colors of Okabe and Ito that can be read on white and on black.
BLUE, ORANGE, GREEN, PURPLE = COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
#: Markers and lines tell curves apart in grey; the numbers have no common divisor, so that few curves look alike.
MARKERS = ("o", "s", "^", "D", "v")
LINES = ("-", "--", ":")
#: Share of the height between data and what they keep clear of.
MARGIN = 0.05
#: Group IDs of artists: curves, marks of runs that diverged, and entries of a legend that are of all curves.
CURVE, DIVERGED, NOTE = "curve", "diverged", "note"
#: Room in inches between panels, across and down, for the labels of an axis.
GAP = (0.65, 0.6)


def axes_to_draw_on(ax: Any, caller: str, **options: Any) -> Axes:
    """Take an axes, or that of a new figure.

    Parameters
    ----------
    ax : matplotlib Axes or None
        As a display was given it.
    caller : str
        Name of the method, for errors.
    **options
        Of a new figure.

    Raises
    ------
    ImportError
        matplotlib isn't installed.
    TypeError
        Something else than one axes.
    """
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        _, ax = plt.subplots(layout="constrained", **options)
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes or None; found {ax!r}.")
    return ax


def panels_to_draw_on(
    ax: Any,
    n: int,
    caller: str,
    *,
    n_columns: int | None = None,
    may_be_more: bool = False,
    gap: tuple[float, float] = GAP,
    width_ratios: Sequence[float] | None = None,
    **options: Any,
) -> NDArray[Any]:
    """Take a grid of axes: those given, new ones within the bounds of one, or those of a new figure.

    Parameters
    ----------
    ax : matplotlib Axes, array-like of n of them, or None
        As a display was given it. One axes is what scikit-learn calls a bounding axes: it is turned off.
    n : int
        Number of panels.
    caller : str
        Name of the method, for errors.
    n_columns : int, default=None
        Panels in a row of new ones; None: n.
    may_be_more : bool, default=False
        Whether more than n axes may be given.
    gap : tuple of two float, default=GAP
        Inches between new panels, across and down, on a figure without a layout engine.
    width_ratios : sequence of float, default=None
        Relative widths of the columns of new panels; None: all alike.
    **options
        Of a new figure.

    Returns
    -------
    axes : ndarray
        Of shape (n_rows, n_columns), or in the shape that they were given in.

    Raises
    ------
    ImportError
        matplotlib isn't installed.
    ValueError
        Neither one axes nor n; or one that holds panels already.
    """
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    n_columns = n_columns or n
    n_rows = -(-n // n_columns)
    if ax is None:
        options = {"layout": "constrained", "width_ratios": width_ratios, **options}
        grid: NDArray[Any] = plt.subplots(n_rows, n_columns, squeeze=False, **options)[1]
        return grid
    if isinstance(ax, Axes) and n > 1:
        if not ax.axison:
            raise ValueError("ax must be free to hold panels; found one that holds others: give the display's axes_.")
        return _within(ax, n_rows, n_columns, gap, width_ratios)
    axes = np.asarray(ax, dtype=object)
    enough = axes.size >= n if may_be_more else axes.size == n
    if not enough or not all(isinstance(each, Axes) for each in axes.flat):
        least = "at least " if may_be_more else ""
        raise ValueError(f"ax must be one matplotlib Axes, {least}{n} of them, or None; found {ax!r}.")
    return np.atleast_1d(axes)


def _within(ax: Axes, n_rows: int, n_columns: int, gap: tuple[float, float], width_ratios: Any) -> NDArray[Any]:
    """Make panels within the bounds of an axes, which is turned off."""
    ax.set_axis_off()
    figure, spec, box = ax.figure, ax.get_subplotspec(), ax.get_position()
    space = {"width_ratios": width_ratios}
    # A layout engine sees to the room for labels itself.
    if figure.get_layout_engine() is None:
        extent = ax.get_window_extent()
        lengths = ("wspace", extent.width, n_columns), ("hspace", extent.height, n_rows)
        for (side, length, n), inches in zip(lengths, gap, strict=True):
            panel = (length / figure.dpi - (n - 1) * inches) / n
            space[side] = inches / max(panel, 0.2)
    if spec is None:
        edges = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid: Any = figure.add_gridspec(n_rows, n_columns, **edges, **space)
    else:
        grid = spec.subgridspec(n_rows, n_columns, **space)
    panels: NDArray[Any] = grid.subplots(squeeze=False)
    return panels


def next_style(*axes: Axes) -> dict[str, Any]:
    """Color, marker and line of the next curve on axes that belong together, and a group ID by which it is counted."""
    drawn = {str(line.get_gid()) for ax in axes for line in ax.lines}
    n = sum(gid.startswith(CURVE) for gid in drawn)
    look = {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)], "linestyle": LINES[n % len(LINES)]}
    return {**look, "markersize": 4.5, "gid": f"{CURVE} {n}"}


def with_given(defaults: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments for a line: what is given, be it by matplotlib's short names, before the defaults."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return defaults | normalize_kwargs(given or {}, Line2D)


def foreground(ax: Axes) -> Any:
    """Color of an axes' labels, which can be read on its background."""
    return ax.xaxis.label.get_color()


def is_labeled(ax: Axes, label: str) -> bool:
    """True if an axes has an artist with this entry in a legend."""
    return label in ax.get_legend_handles_labels()[1]


def add_legend(ax: Axes, **options: Any) -> float:
    """Draw the legend, with what is of all curves at its end, and give the share of the height that it takes."""
    pairs = list(zip(*ax.get_legend_handles_labels(), strict=True))
    pairs.sort(key=lambda pair: getattr(pair[0], "get_gid", lambda: None)() == NOTE)
    legend = ax.legend(*zip(*pairs, strict=True), **{"fontsize": "x-small", **options})
    share = legend.get_window_extent().height / ax.get_window_extent().height
    return min(float(share) + MARGIN, 0.6)


def make_room(ax: Axes, *, above: float = 0.0, below: float = 0.0) -> None:
    """Leave shares of the height without data, above and below what is drawn."""
    # Where every run diverged no curve has a height.
    low, high = ax.dataLim.intervaly if np.isfinite(ax.dataLim.intervaly).all() else (0.0, 1.0)
    height = (high - low or 1.0) / (1.0 - above - below - 2.0 * MARGIN)
    ax.set_ylim(low - (below + MARGIN) * height, high + (above + MARGIN) * height)
