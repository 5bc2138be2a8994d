"""Tables and figures from the CSV files: ``python benchmarks/report.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
#: Columns that are the same in every row: said once, above the table.
CONSTANT = ["machine", "threads", "python", "numpy", "scipy", "scikit-learn", "torch", "geom-median", "skbgmd", "seed"]
TITLES = {
    "median": "Geometric median at equal proved accuracy (1e-6)",
    "paths": "Gram matrix against R^d",
    "aggregators": "Time of aggregators and block steps",
    "memory": "Peak memory beyond the matrix",
}


def markdown(family: str, frame: pd.DataFrame) -> str:
    """A table with the machine and the versions above it."""
    shown = frame.drop(columns=[c for c in [*CONSTANT, "repeats"] if c in frame])
    header = ", ".join(f"{name} {frame[name].iloc[0]}" for name in CONSTANT if name in frame)
    lines = [f"# {TITLES[family]}", "", f"{header}. Medians of {frame['repeats'].iloc[0]} interleaved rounds.", ""]
    lines.append("| " + " | ".join(shown.columns) + " |")
    lines.append("|" + "---|" * len(shown.columns))
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in shown.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return str(value)


def median_figure(frame: pd.DataFrame) -> Figure:
    """Times of all solvers, a group of bars a case; a peer that doesn't get there has none."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots()
    cases, solvers = list(dict.fromkeys(frame["case"])), list(dict.fromkeys(frame["solver"]))
    for offset, solver in enumerate(solvers):
        times = frame[frame["solver"] == solver].set_index("case")["milliseconds"].reindex(cases)
        axes.barh([i + 0.2 * offset for i in range(len(cases))], times, height=0.2, label=solver)
    axes.set_yticks([i + 0.3 for i in range(len(cases))], cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (log scale); no bar: accuracy not reached")
    axes.set_title(TITLES["median"])
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    return figure


def paths_figure(frame: pd.DataFrame) -> Figure:
    """Time in the Gram matrix over the time in R^d, against rows per column."""
    gram = frame[frame["call"] == "Gram matrix"]
    shape = gram["case"].str.extract(r"(\d+)x(\d+)").astype(int)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for columns, rows in shape.groupby(1).groups.items():
        axes.plot(shape.loc[rows, 0] / columns, gram.loc[rows, "of the other"], "o-", label=f"{columns} columns")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("rows per column")
    axes.set_ylabel("time in the Gram matrix / time in R^d")
    axes.set_title(TITLES["paths"])
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bar_figure(family: str, frame: pd.DataFrame, column: str, label: str) -> Figure:
    """One panel of bars a matrix."""
    groups = list(frame.groupby("case", sort=False))
    figure = Figure(figsize=(10, 1.5 + 0.28 * len(frame)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(rows) for _, rows in groups])[:, 0]
    for axes, (case, rows) in zip(panels, groups, strict=True):
        bars = axes.barh(rows["call"], rows[column])
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_title(case, fontsize="medium")
    panels[-1].set_xlabel(label)
    figure.suptitle(TITLES[family])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files (default: %(default)s)")
    folder = parser.parse_args().results
    for family in TITLES:
        path = folder / f"{family}.csv"
        if not path.exists():
            print(f"{path} doesn't exist: run benchmarks/run.py --family {family} first.")
            continue
        frame = pd.read_csv(path)
        (folder / f"{family}.md").write_text(markdown(family, frame))
        if family == "median":
            figure = median_figure(frame)
        elif family == "paths":
            figure = paths_figure(frame)
        elif family == "aggregators":
            figure = bar_figure(family, frame, "column sums", "in column sums")
        else:
            figure = bar_figure(family, frame, "share", "share of the matrix")
        figure.savefig(folder / f"{family}.png", dpi=120)


if __name__ == "__main__":
    main()
