"""The demonstration: ``python -m skbgmd`` prints a table of robust means on corrupt data and draws a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from skbgmd import __version__, block_geometric_median, geometric_median
from skbgmd.gram import FloatArray

#: Shares of the rows that are corrupt.
FRACTIONS = (0.0, 0.2, 0.4)
CLOUD_ROWS, GRADIENT_ROWS, GRADIENT_COLUMNS = 200, 50, 10_000
#: Where the corrupt points of the cloud are; the clean ones are around zero, with standard deviation 1.
OUTLIERS_AT = (9.0, 5.0)
MEAN, COORDINATE_MEDIAN, MEDIAN, BLOCK = "mean", "coord. median", "geom. median", "block g. m."
#: Colour, marker and its size for each estimate in the picture; the larger ones lie below.
LOOKS = {MEAN: ("#d55e00", "o", 14.0), COORDINATE_MEDIAN: ("#e69f00", "s", 9.0), MEDIAN: ("#0072b2", "*", 12.0)}


@dataclass(frozen=True)
class Case:
    """Data with a known centre and what the estimators made of it.

    Attributes
    ----------
    rows : ndarray of shape (n, d)
        The data, corrupt rows first.
    n_corrupt : int
        Number of corrupt rows.
    centre : ndarray of shape (d,)
        What the estimators should find.
    estimates : dict of str to ndarray of shape (d,)
        Estimates by name.
    gap : float
        Proved bound on the relative excess objective of the geometric median.
    """

    rows: FloatArray
    n_corrupt: int
    centre: FloatArray
    estimates: dict[str, FloatArray]
    gap: float

    def errors(self) -> dict[str, float]:
        """Distance of each estimate to the true centre."""
        return {name: float(np.linalg.norm(estimate - self.centre)) for name, estimate in self.estimates.items()}


def contaminated_cloud(fraction: float, rng: np.random.Generator) -> Case:
    """A cloud of points around zero in the plane, some of them replaced by a far cluster.

    Parameters
    ----------
    fraction : float
        Share of the points to replace.
    rng : Generator
        Source of the points.

    Returns
    -------
    Case
    """
    rows = rng.normal(size=(CLOUD_ROWS, 2))
    n_corrupt = int(fraction * CLOUD_ROWS)
    rows[:n_corrupt] = np.array(OUTLIERS_AT) + 0.6 * rng.normal(size=(n_corrupt, 2))
    return _estimate(rows, n_corrupt, np.zeros(2))


def flipped_gradients(fraction: float, rng: np.random.Generator) -> Case:
    """Rows like the gradients of one network, some of them multiplied by -100.

    The true gradient has length 1, so that errors are relative to it. Like a network's, it has few large entries and
    many small ones; the noise of a column is proportional to its entry.

    Parameters
    ----------
    fraction : float
        Share of the rows to corrupt.
    rng : Generator
        Source of the rows.

    Returns
    -------
    Case
    """
    gradient = rng.lognormal(sigma=1.5, size=GRADIENT_COLUMNS) * rng.choice([-1.0, 1.0], size=GRADIENT_COLUMNS)
    gradient /= np.linalg.norm(gradient)
    rows = gradient * (1.0 + rng.normal(size=(GRADIENT_ROWS, GRADIENT_COLUMNS)))
    n_corrupt = int(fraction * GRADIENT_ROWS)
    rows[:n_corrupt] *= -100.0
    case = _estimate(rows, n_corrupt, gradient)
    case.estimates[BLOCK] = block_geometric_median(rows, beta=0.1)
    return case


def _estimate(rows: FloatArray, n_corrupt: int, centre: FloatArray) -> Case:
    result = geometric_median(rows, return_result=True)
    estimates: dict[str, FloatArray] = {
        MEAN: rows.mean(axis=0),
        COORDINATE_MEDIAN: np.median(rows, axis=0),
        MEDIAN: result.median,
    }
    return Case(rows, n_corrupt, centre, estimates, result.gap)


def table(cases: Sequence[Case]) -> str:
    """A line for each case: its corrupt share, the error of each estimate, the proved gap.

    Parameters
    ----------
    cases : sequence of Case
        Cases that hold the same estimates.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    names = list(cases[0].estimates)
    lines = ["  corrupt" + "".join(f"{name:>16}" for name in [*names, "proved gap"])]
    for case in cases:
        share = f"{case.n_corrupt / len(case.rows):.0%}"
        numbers = "".join(f"{error:16.3f}" for error in case.errors().values())
        lines.append(f"{share:>9}{numbers}{case.gap:16.1e}")
    return "\n".join(lines)


def draw(cases: Sequence[Case]) -> Figure:
    """Draw clouds side by side with the estimates of their centre.

    Parameters
    ----------
    cases : sequence of Case
        Cases in the plane.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(11.0, 3.9), layout="constrained")
    panels = figure.subplots(1, len(cases), sharex=True, sharey=True, squeeze=False)[0]
    for panel, case in zip(panels, cases, strict=True):
        _draw_case(panel, case)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10)
    return figure


def _draw_case(panel: Axes, case: Case) -> None:
    share = case.n_corrupt / len(case.rows)
    panel.set_title(f"{share:.0%} of the points corrupt" if share else "clean data", fontsize=11)
    clean, corrupt = case.rows[case.n_corrupt :], case.rows[: case.n_corrupt]
    panel.scatter(clean[:, 0], clean[:, 1], s=11, color="#7f8fa6", alpha=0.55, linewidths=0, label="clean")
    panel.scatter(
        corrupt[:, 0], corrupt[:, 1], s=16, color="#555555", alpha=0.7, marker="x", linewidths=0.8, label="corrupt"
    )
    panel.plot(*case.centre, "+", color="black", markersize=17, markeredgewidth=1.6, label="true centre", zorder=3)
    for name, (colour, marker, size) in LOOKS.items():
        panel.plot(
            *case.estimates[name],
            marker,
            color=colour,
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linestyle="none",
            label=name.replace("coord.", "coordinate-wise").replace("geom.", "geometric"),
            zorder=4,
        )
    panel.set_aspect("equal")
    panel.grid(color="#e5e5e5", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, length=0)
    panel.spines[:].set_visible(False)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; leave with a message where it can't be followed.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None: the process's own.

    Returns
    -------
    Namespace
        With ``output`` and ``seed``.
    """
    parser = argparse.ArgumentParser(
        prog="python -m skbgmd",
        description="Show what robust means do on corrupt data: print how far they are from the truth, for a cloud "
        "in the plane and for rows like gradients, and draw the cloud. Needs no data, no network and a few seconds.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("contaminated_cloud.png"),
        metavar="FILE",
        help="where to save the picture; the ending says the format (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random data, 0 or more (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"skbgmd {__version__}")
    arguments = parser.parse_args(argv)
    output: Path = arguments.output
    if not output.parent.is_dir():
        parser.error(f"argument --output: the folder must exist; found no folder {str(output.parent)!r}.")
    formats = FigureCanvasBase.get_supported_filetypes()
    if output.suffix[1:].lower() not in formats:
        parser.error(f"argument --output: the file must end in one of {', '.join(formats)}; found {str(output)!r}.")
    if arguments.seed < 0:
        parser.error(f"argument --seed: must be 0 or more; found {arguments.seed}.")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demonstration.

    Parameters
    ----------
    argv : sequence of str, default=None
        Command-line arguments; None: the process's own.
    """
    arguments = parse_arguments(argv)
    # The same draws for every share: only the corruption differs from line to line.
    clouds = [contaminated_cloud(fraction, np.random.default_rng(arguments.seed)) for fraction in FRACTIONS]
    gradients = [flipped_gradients(fraction, np.random.default_rng(arguments.seed)) for fraction in FRACTIONS]
    print(f"Points in the plane, {CLOUD_ROWS} rows; corrupt ones form a far cluster.")
    print(f"Distance to the true centre (the points' standard deviation is 1):\n{table(clouds)}\n")
    print(f"Like gradients, {GRADIENT_ROWS} rows of {GRADIENT_COLUMNS:,} columns; corrupt ones are multiplied by -100.")
    print(f"Distance to the true gradient, relative to its length:\n{table(gradients)}\n")
    draw(clouds).savefig(arguments.output, dpi=150)
    print(f"Picture saved to {arguments.output}")


if __name__ == "__main__":
    main()
