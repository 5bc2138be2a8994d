"""Tables and figures from the CSV files."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from defaults import FOR_GROUPS, PEER
from matplotlib.figure import Figure
from measure import PACKAGES

RESULTS = Path(__file__).resolve().parent / "results"
#: Columns that are said above the table where they are the same in every row.
AROUND = ["machine", "cores", "threads", "python", *PACKAGES, "seed", "repeats"]
TITLES = {
    "median": "Geometric median at equal proved accuracy (1e-6)",
    "paths": "Gram matrix against R^d",
    "aggregators": "Time of aggregators and block steps",
    "memory": "Peak memory beyond the matrix",
    "steps": "Time of a training step",
    "fits": "Time of a fit against scikit-learn's perceptron",
    "lenet": "LeNet on Fashion-MNIST, 32 rows of 64 samples a step",
    "defaults": "Which rule and group size: scores on clean test data",
}


def markdown(family: str, frame: pd.DataFrame) -> str:
    """A table with the machine and the versions above it."""
    same = [name for name in AROUND if name in frame and frame[name].nunique(dropna=False) == 1]
    shown = frame.drop(columns=same)
    lines = [f"# {TITLES[family]}", "", ", ".join(f"{name} {frame[name].iloc[0]}" for name in same) + ".", ""]
    return "\n".join(lines) + f"\n{_table(shown)}"


def _table(frame: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def median_figure(frame: pd.DataFrame) -> Figure:
    """Times of all solvers, a group of bars a case; a peer that doesn't get there has none."""
    cases, solvers = list(dict.fromkeys(frame["case"])), list(dict.fromkeys(frame["solver"]))
    figure = Figure(figsize=(11, 2 + 0.4 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for offset, solver in enumerate(solvers):
        # Of a case measured twice the last row counts.
        rows = frame[frame["solver"] == solver].drop_duplicates("case", keep="last")
        times = rows.set_index("case")["milliseconds"].reindex(cases)
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
    figure = Figure(figsize=(10, 1.5 + 0.35 * len(frame)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(rows) for _, rows in groups])[:, 0]
    for axes, (case, rows) in zip(panels, groups, strict=True):
        bars = axes.barh(rows["call"], rows[column].fillna(0.0))
        axes.bar_label(bars, labels=[_cell(value) for value in rows[column]], padding=3)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_title(case, fontsize="medium")
    panels[-1].set_xlabel(label)
    figure.suptitle(TITLES[family])
    return figure


def figure_of(family: str, frame: pd.DataFrame) -> Figure:
    if family == "median":
        return median_figure(frame)
    if family == "paths":
        return paths_figure(frame)
    if family == "aggregators":
        return bar_figure(family, frame, "column sums", "in column sums")
    if family == "steps":
        return bar_figure(family, frame.rename(columns={"rule": "call"}), "of the mean", "of the mean's step")
    if family == "fits":
        return bar_figure(family, frame.rename(columns={"estimator": "call"}), "of MLPClassifier", "of MLPClassifier")
    if family == "lenet":
        return bar_figure(
            family, frame.rename(columns={"rule": "call", "corruption": "case"}), "accuracy", "test accuracy in %"
        )
    return bar_figure(family, frame, "share", "share of the matrix")


def defaults_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean scores over the seeds in %, a line a rule; how many seeds that were is in the last column.

    Balanced accuracy, or R^2 for regression. Seeds that only clean data was trained with are left out.
    """
    frame = frame.assign(score=_score(frame), column=frame["data"] + ", " + frame["corruption"])
    frame = frame[frame["seed"] <= frame.loc[frame["corruption"] != "none", "seed"].max()]
    table = frame.pivot_table(index="rule", columns="column", values="score", sort=False).round(1)
    seeds = frame.groupby("rule", sort=False)["seed"].nunique()
    return table.assign(seeds=seeds).reset_index()


def clean_cost(frame: pd.DataFrame) -> pd.DataFrame:
    """What the rule for groups costs on clean data: less that of plain training with the same seed, in points."""
    clean = frame[frame["corruption"] == "none"].assign(score=_score)
    scores = clean.pivot_table(index=["data", "seed"], columns="rule", values="score", sort=False)[[PEER, FOR_GROUPS]]
    scores = scores.dropna()
    difference = (scores[FOR_GROUPS] - scores[PEER]).groupby("data", sort=False)
    table = scores.groupby("data", sort=False).mean().round(2)
    table["difference"] = difference.mean().round(2)
    table["standard error"] = difference.sem().round(2)
    table["seeds"] = difference.size()
    return table.reset_index()


def _score(frame: pd.DataFrame) -> pd.Series:
    return 100.0 * frame["balanced"].fillna(frame["score"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files (default: %(default)s)")
    folder = parser.parse_args().results
    for family in TITLES:
        path = folder / f"{family}.csv"
        frame = pd.read_csv(path) if path.exists() else pd.DataFrame()
        if frame.empty:
            print(f"No rows in {path}: run benchmarks/run.py --family {family} first.")
            continue
        if family == "defaults":
            around = {name: [frame[name].iloc[0]] * len(frame) for name in AROUND if name in frame and name != "seed"}
            table, clean = defaults_table(frame), clean_cost(frame)
            frame = table.assign(**{name: values[: len(table)] for name, values in around.items()})
            text = f"{markdown(family, frame)}\n## The rule for groups on clean data\n\n{_table(clean)}"
            (folder / f"{family}.md").write_text(text, encoding="utf-8")
            print(folder / f"{family}.md")
            continue
        (folder / f"{family}.md").write_text(markdown(family, frame), encoding="utf-8")
        figure_of(family, frame).savefig(folder / f"{family}.png", dpi=120)
        print(folder / f"{family}.md")


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
