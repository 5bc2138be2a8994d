"""The demonstration's results as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skbgmd.inspection.demonstration import CHANCE, CLEAN, METHODS, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Label, color, marker, its size and line of each method in the picture: Okabe and Ito's colors, told apart by all.
LOOKS: dict[str, tuple[str, str, str, float, str]] = {
    "plain training": ("plain training (mean)", "#d55e00", "o", 7.5, "-"),
    "geometric median": ("geometric median of groups", "#56b4e9", "D", 7.0, "--"),
    "paper's BGMD": ("paper's BGMD on groups", "#cc79a7", "v", 8.0, ":"),
    "skbgmd's default": ("skbgmd's BlockGMDClassifier()", "#0b4f7d", "^", 8.5, "-"),
}
#: Titles of the picture's panels, by kind of corruption.
TITLES = {"labels": "wrong labels", "features": "wrong features", "gradients": "wrong gradients"}


def table(outcomes: Sequence[Outcome]) -> str:
    """Format accuracies as a table: a line for each corruption, a column for each method, and a line of times.

    Parameters
    ----------
    outcomes : sequence of Outcome
        For each corruption, all methods with all seeds.

    Returns
    -------
    str
        Lines without a newline at the end. A cell is the mean in % and, of several seeds, the standard deviation; or
        how many of the trainings diverged, if any did.
    """
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    lines = [f"{'corrupt':<22}" + "".join(f"{method:>18}" for method in methods)]
    for kind, fraction in dict.fromkeys((outcome.kind, outcome.fraction) for outcome in outcomes):
        name = kind if kind == CLEAN else f"{fraction:.0%} of the {kind}".replace("%", " %")
        cells = [_cell(accuracies(outcomes, kind, fraction, method)) for method in methods]
        lines.append(f"{name:<22}" + "".join(f"{cell:>18}" for cell in cells))
    seconds = [
        [outcome.seconds for outcome in outcomes if outcome.method == method and not outcome.diverged]
        for method in methods
    ]
    cells = [f"{np.mean(times):.1f} s" if times else "" for times in seconds]
    return "\n".join([*lines, f"{'CPU time of a training':<22}" + "".join(f"{cell:>18}" for cell in cells)])


def legend() -> str:
    """Say what each column of the table is.

    Returns
    -------
    str
        A line for each, without a newline at the end.
    """
    return "\n".join(f"  {name + ':':<18}{method.meaning}" for name, method in METHODS.items())


def accuracies(outcomes: Sequence[Outcome], kind: str, fraction: float, method: str) -> NDArray[np.float64]:
    """Accuracies of a method under a corruption.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Outcomes, of other methods and corruptions too.
    kind : str
        Kind of corruption.
    fraction : float
        Corrupt share.
    method : str
        The method.

    Returns
    -------
    ndarray of shape (n_seeds,)
        NaN for trainings that diverged.
    """
    key = (kind, fraction, method)
    return np.array([one.accuracy for one in outcomes if (one.kind, one.fraction, one.method) == key])


def mean_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and sample standard deviation.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Values.

    Returns
    -------
    mean : float
    deviation : float
        0 for one value.
    """
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _cell(values: NDArray[np.float64]) -> str:
    lost = int(np.isnan(values).sum())
    if len(values) == 1:
        return "diverged" if lost else f"{100 * values[0]:.1f}"
    if lost:
        return f"diverged ({lost} of {len(values)})"
    mean, deviation = mean_and_deviation(100 * values)
    return f"{mean:.1f} ± {deviation:.1f}"


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Draw accuracy against the corrupt share, side by side for each kind of corruption.

    Lines are means over the seeds, bands their standard deviation. Where a training diverged, the line goes down to a
    cross at the bottom.

    Parameters
    ----------
    outcomes : sequence of Outcome
        For each corruption, all methods with all seeds; those on clean data belong to every kind.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = [kind for kind in dict.fromkeys(outcome.kind for outcome in outcomes) if kind != CLEAN]
    figure = Figure(figsize=(8.0, 4.8), facecolor="white")
    figure.subplots_adjust(left=0.095, right=0.97, top=0.92, bottom=0.345, wspace=0.12)
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        _draw_kind(panel, kind, [outcome for outcome in outcomes if outcome.kind in (kind, CLEAN)])
    panels[0].set_ylabel("accuracy on clean test data, %", fontsize=12)
    handles, labels = panels[0].get_legend_handles_labels()
    n_seeds = len({outcome.seed for outcome in outcomes})
    if n_seeds > 1:
        handles.append(Patch(color="#444444", alpha=0.2, linewidth=0))
        labels.append(f"± standard deviation of {n_seeds} seeds")
    handles.append(Line2D([], [], color="#777777", linewidth=1.0, linestyle=(0, (1, 2))))
    labels.append("guessing")
    if any(outcome.diverged for outcome in outcomes):
        handles.append(Line2D([], [], marker="x", color="#444444", linestyle="none", markeredgewidth=1.8))
        labels.append("diverged")
    figure.legend(
        handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=12, columnspacing=2.0, handlelength=2.6
    )
    return figure


def _draw_kind(panel: Axes, kind: str, outcomes: Sequence[Outcome]) -> None:
    panel.axhline(100 * CHANCE, color="#777777", linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
    for method, (label, color, marker, size, line) in LOOKS.items():
        cases = list(dict.fromkeys((one.kind, one.fraction) for one in outcomes if one.method == method))
        shares = np.array([100 * fraction for _, fraction in cases])
        values = [100 * accuracies(outcomes, *case, method) for case in cases]
        n_lost = np.array([np.isnan(one).sum() for one in values])
        # A mean of those that didn't diverge would hide those that did.
        lost = n_lost > 0
        heights, deviations = np.array([mean_and_deviation(one) for one in values]).T
        heights, deviations = np.where(lost, 0.0, heights), np.where(lost, 0.0, deviations)
        panel.fill_between(
            shares, heights - deviations, heights + deviations, color=color, alpha=0.2, linewidth=0, zorder=2
        )
        panel.plot(shares, heights, color=color, linestyle=line, linewidth=2.2, zorder=3)
        style: dict[str, Any] = {"color": color, "linestyle": "none", "clip_on": False, "zorder": 4}
        panel.plot(shares[lost], heights[lost], marker="x", markersize=9, markeredgewidth=2.2, **style)
        for share, n, one in zip(shares[lost], n_lost[lost], np.array(values)[lost], strict=True):
            if n < len(one):
                panel.annotate(f"{n} of {len(one)}", (share, 0.0), (0, 8), textcoords="offset points", ha="center")
        panel.plot(shares[~lost], heights[~lost], marker=marker, markersize=size, markeredgecolor="white", **style)
        # For the legend only: line and marker together.
        panel.plot([], [], color=color, linestyle=line, linewidth=2.2, marker=marker, markersize=size, label=label)
    panel.set_title(TITLES[kind], fontsize=13)
    panel.set_xlabel(f"corrupt {kind}, %", fontsize=12)
    panel.set_xticks(sorted({100 * outcome.fraction for outcome in outcomes}))
    panel.set_ylim(0, 100)
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=12)
    panel.spines[["top", "right", "left"]].set_visible(False)
