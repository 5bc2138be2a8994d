"""The demonstration's results as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skbgmd.inspection.demonstration import CLEAN, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Color, marker, its size and line of each rule in the picture: Okabe and Ito's colors, told apart by all.
LOOKS = {
    "SGD": ("#d55e00", "o", 7.0, "-"),
    "coordinate median": ("#009e73", "s", 6.5, ":"),
    "geometric median": ("#56b4e9", "D", 7.5, "-"),
    "BGMD, published": ("#cc79a7", "v", 7.0, "-"),
    "BGMD, groups": ("#e69f00", "P", 7.5, "--"),
    "BGMD": ("#0b4f7d", "^", 7.0, "-"),
}


def table(outcomes: Sequence[Outcome]) -> str:
    """Format accuracies as a table: a line for each corruption, a column for each rule, and a line of times.

    Parameters
    ----------
    outcomes : sequence of Outcome
        For each corruption, all rules.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    lines = [f"{'corrupt':<19}" + "".join(f"{method:>19}" for method in methods)]
    for kind, fraction in dict.fromkeys((outcome.kind, outcome.fraction) for outcome in outcomes):
        name = kind if kind == CLEAN else f"{fraction:.0%} of the {kind}".replace("%", " %")
        cells = [_cell(_only(outcomes, kind, fraction, method)) for method in methods]
        lines.append(f"{name:<23}" + cells[0].rjust(15) + "".join(cell.rjust(19) for cell in cells[1:]))
    seconds = [
        [outcome.seconds for outcome in outcomes if outcome.method == method and not outcome.diverged]
        for method in methods
    ]
    cells = [f"{np.mean(times):.1f} s" if times else "" for times in seconds]
    return "\n".join([*lines, f"{'one training':<19}" + "".join(cell.rjust(19) for cell in cells)])


def _only(outcomes: Sequence[Outcome], kind: str, fraction: float, method: str) -> Outcome:
    (found,) = (
        outcome for outcome in outcomes if (outcome.kind, outcome.fraction, outcome.method) == (kind, fraction, method)
    )
    return found


def _cell(outcome: Outcome) -> str:
    return "diverged" if outcome.diverged else f"{100 * outcome.accuracy:.1f}"


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Draw accuracy against the corrupt share, side by side for each kind of corruption.

    Parameters
    ----------
    outcomes : sequence of Outcome
        For each corruption, all rules; those on clean data belong to every kind.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    kinds = [kind for kind in dict.fromkeys(outcome.kind for outcome in outcomes) if kind != CLEAN]
    figure = Figure(figsize=(11.0, 4.8))
    figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.25, wspace=0.1)
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        _draw_kind(panel, kind, [outcome for outcome in outcomes if outcome.kind in (kind, CLEAN)])
    panels[0].set_ylabel("accuracy on clean test data, %")
    handles, labels = panels[0].get_legend_handles_labels()
    if any(outcome.diverged for outcome in outcomes):
        handles.append(Line2D([], [], marker="x", color="#444444", linestyle="none", markeredgewidth=1.8))
        labels.append("diverged")
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=10)
    return figure


def _draw_kind(panel: Axes, kind: str, outcomes: Sequence[Outcome]) -> None:
    for method, (color, marker, size, line) in LOOKS.items():
        own = [outcome for outcome in outcomes if outcome.method == method]
        shares = np.array([100 * outcome.fraction for outcome in own])
        # A network that diverged classifies at random.
        heights = np.array([0.0 if outcome.diverged else 100 * outcome.accuracy for outcome in own])
        lost = np.array([outcome.diverged for outcome in own])
        panel.plot(shares, heights, color=color, linestyle=line, linewidth=1.8, zorder=2)
        style: dict[str, Any] = {"color": color, "linestyle": "none", "clip_on": False, "zorder": 3}
        panel.plot(shares[lost], heights[lost], marker="x", markersize=9, markeredgewidth=2.2, **style)
        panel.plot(shares[~lost], heights[~lost], marker=marker, markersize=size, markeredgecolor="white", **style)
        # For the legend only: line and marker together.
        panel.plot([], [], color=color, linestyle=line, marker=marker, markersize=size, label=method)
    panel.set_title(f"corrupt {kind}", fontsize=12)
    panel.set_xlabel(f"corrupt {kind}, %")
    panel.set_xticks(sorted({100 * outcome.fraction for outcome in outcomes}))
    panel.set_ylim(0, 100)
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)
