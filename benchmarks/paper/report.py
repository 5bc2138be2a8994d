"""Tables and figures of the paper's experiments, from the CSV files, into docs/results."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from paper import figures
from paper.cases import HOMOGENEOUS, PROTOCOLS
from paper.methods import ALL, PLAIN
from paper.run import RESULTS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "results"
#: Table 2 as printed, by the name of the row; what looks like a misprint is marked.
PRINTED = {
    ("LeNet", "clean"): ("89.39±0.28", "83.82±0.26", "89.25±0.19", "88.98±0.3"),
    ("LeNet", "gradient, bit flip, 20 %"): ("—", "84.20±0.02", "88.42±0.16", "88.07±0.05"),
    ("LeNet", "gradient, bit flip, 40 %"): ("—", "82.33±1.60", "85.67±0.09", "85.57±0.09"),
    ("LeNet", "gradient, additive, 20 %"): ("—", "72.55±0.16", "87.87±0.33", "87.24±0.16"),
    ("LeNet", "gradient, additive, 40 %"): ("—", "41.04±1.13", "88.29±0.01 (?)", "83.89±0.08"),
    ("LeNet", "feature, additive, 20 %"): ("—", "82.38±0.13", "86.76±0.03", "86.63±0.04"),
    ("LeNet", "feature, additive, 40 %"): ("—", "78.54±0.65", "82.27±0.06", "81.23±0.03"),
    ("LeNet", "feature, impulse, 20 %"): ("79.18±6.47", "82.59±0.60", "86.91±0.36", "86.23±0.03"),
    ("LeNet", "feature, impulse, 40 %"): ("—", "78.03±0.73", "78.03±0.73 (?)", "81.41±0.12"),
    ("LeNet", "label, backdoor, 20 %"): ("86.99±0.02", "76.38±0.13", "88.97±0.10", "88.26±0.04"),
    ("LeNet", "label, backdoor, 40 %"): ("73.01±0.68", "60.85±1.24", "84.69±0.31", "81.32±0.16"),
    ("ResNet-18", "clean"): ("82.29±1.32", "85.50±1.43", "84.82±0.76", "85.65±0.48"),
    ("ResNet-18", "gradient, bit flip, 20 %"): ("—", "80.87±0.21", "84.56±0.06", "88.07±0.05 (?)"),
    ("ResNet-18", "gradient, bit flip, 40 %"): ("—", "77.41±1.04", "82.66±0.31", "80.81±0.01"),
    ("ResNet-18", "gradient, additive, 20 %"): ("20.7±1.56", "54.75±0.38", "83.84±0.12", "82.40±0.90"),
    ("ResNet-18", "gradient, additive, 40 %"): ("—", "23.35±6.13", "82.79±0.68", "79.46±0.24"),
}
PRINTED_COLUMNS = ("SGD, printed", "CMD, printed", "BGMD, printed", "GMD, printed")
#: From this error on, in distances of an honest row from their mean, a rule counts as broken down.
BROKEN = 2.0
#: Accuracies that are to be reached.
LEVELS = (40, 50, 60)


def accuracy_table(frame: pd.DataFrame, width: int | None = None) -> pd.DataFrame:
    """Accuracy by row and method: the mean over seeds with a 95 % interval, and the figures as printed."""
    frame = frame if width is None else frame[(frame["network"] != "ResNet-18") | (frame["width"] == width)]
    lines = []
    for (network, corruption), rows in frame.groupby(["network", "corruption"], sort=False):
        cells = {method: _cell(rows[rows["method"] == method]) for method in ALL}
        lines.append({"network": network, "corruption": corruption, **cells, **_printed(network, corruption)})
    return pd.DataFrame(lines)


def range_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by row and method of the seeds that all of them have: means, and from the least to the largest."""
    cases = frame.groupby("seed").size()
    frame = frame[frame["seed"].isin(cases[cases == cases.max()].index)]
    frame = frame.assign(place=frame["corruption"].map([case.name for case in HOMOGENEOUS].index)).sort_values("place")
    lines = []
    for (network, corruption), rows in frame.groupby(["network", "corruption"], sort=False):
        cells = {m: _range(rows.loc[rows["method"] == m, "accuracy"]) for m in ALL if m in set(frame["method"])}
        lines.append({"corruption": corruption, **cells, **_printed(network, corruption)})
    return pd.DataFrame(lines)


def _range(scores: pd.Series) -> str:
    known = scores.dropna()
    if known.empty:
        return "diverged"
    text = f"{known.mean():.1f} ({known.min():.1f} to {known.max():.1f})"
    return text if len(known) == len(scores) else f"{text}, {len(scores) - len(known)} of {len(scores)} diverged"


def _printed(network: str, corruption: str) -> dict[str, str]:
    """Figures of the paper."""
    return dict(zip(PRINTED_COLUMNS, PRINTED.get((network, corruption), ("",) * 4), strict=True))


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    scores = rows["accuracy"].dropna()
    if scores.empty:
        return "diverged"
    text = f"{scores.mean():.1f}" + (f"±{interval(scores):.1f}" if len(scores) > 1 else "")
    lost = len(rows) - len(scores)
    return f"{text} ({lost} of {len(rows)} diverged)" if lost else text


def interval(scores: pd.Series) -> float:
    """Half of a 95 % interval of a mean, by Student's distribution."""
    return float(t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))


def rates_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on validation data by network, method and learning rate."""
    table = grid.pivot_table(index=["network", "method"], columns="lr", values="accuracy", sort=False)
    return table.round(1).add_prefix("lr ").reset_index()


def breakdown_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The largest share of corrupt rows up to which a rule stands each attack."""
    lines = []
    for method, rows in frame.groupby("method", sort=False):
        line = {"method": method}
        for attack, points in rows.groupby("attack", sort=False):
            broken = points.loc[~(points["error"] < BROKEN), "percent"]
            stood = points.loc[points["percent"] < broken.min(), "percent"] if len(broken) else points["percent"]
            line[attack] = f"{stood.max():.0f} %"
        worst = rows.groupby("attack")["error"].max()
        lines.append({**line, "largest error": f"{worst.max():.2g}"})
    return pd.DataFrame(lines)


def costs_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of an aggregation, a line for each case."""
    times = pd.DataFrame([figures.pairs(text) for text in frame["milliseconds"]])
    return pd.concat([frame[["b", "d", "beta", "eps"]], times.map(lambda value: float(f"{value:.3g}"))], axis=1)


def speed_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Seconds until test accuracies are reached, and their ratio to plain training's.

    They are means over the seeds with which all methods reach them.
    """
    timed = {f"{level} %": [seconds_to(level, figures.points(text)) for text in frame["curve"]] for level in LEVELS} | {
        "end": list(frame["seconds"])
    }
    lines: dict[str, dict[str, str]] = {method: {"method": method} for method in frame["method"].unique()}
    for column, seconds in timed.items():
        table = frame.assign(time=seconds).pivot(index="seed", columns="method", values="time").dropna()
        for method, line in lines.items():
            mean, plain = table[method].mean(), table[PLAIN].mean()
            line[f"{column}, {len(table)} seeds"] = f"{mean:.1f} s ({mean / plain:.2f})" if len(table) else ""
    for method, line in lines.items():
        line["accuracy by seed"] = ", ".join(f"{x:.1f}" for x in frame.loc[frame["method"] == method, "accuracy"])
    return pd.DataFrame(list(lines.values()))


def seconds_to(level: float, curve: list[tuple[float, float]]) -> float:
    """When a curve of accuracies first passes a level, between its points along a straight line."""
    before = (0.0, 10.0)
    for seconds, accuracy in curve:
        if accuracy >= level:
            share = (level - before[1]) / (accuracy - before[1])
            return before[0] + share * (seconds - before[0])
        before = (seconds, accuracy)
    return float("nan")


def write(table: pd.DataFrame, name: str, folder: Path) -> None:
    """A table as Markdown, to be read, and as CSV, for the pages of the documentation."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += [
        "| " + " | ".join("" if pd.isna(v) else str(v) for v in row) + " |" for row in table.itertuples(index=False)
    ]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table.to_csv(folder / f"{name}.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m paper.report", description=__doc__)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="short")
    parser.add_argument("--results", type=Path, help="folder of the CSV files")
    parser.add_argument("--output", type=Path, default=DOCS)
    arguments = parser.parse_args()
    source = arguments.results or RESULTS / arguments.protocol
    arguments.output.mkdir(parents=True, exist_ok=True)
    frames = {path.stem: pd.read_csv(path) for path in sorted(source.glob("*.csv"))}
    if arguments.protocol == "medium":
        write(range_table(frames["homogeneous"]), "homogeneous_medium", arguments.output)
        return
    width = PROTOCOLS[arguments.protocol].resnet.width
    tables = {
        "homogeneous": accuracy_table,
        "heterogeneous": lambda frame: accuracy_table(frame, width),
        "grid": rates_table,
        "breakdown": breakdown_table,
        "costs": costs_table,
        "speed": speed_table,
    }
    for name, frame in frames.items():
        if name in tables:
            write(tables[name](frame), name, arguments.output)
        for figure_name, draw in figures.FIGURES.get(name, {}).items():
            draw(frame).savefig(arguments.output / f"{figure_name}.png", dpi=110)
            print(arguments.output / f"{figure_name}.png")
    figures.toy().savefig(arguments.output / "figure2_toy.png", dpi=110)
    try:
        figures.corrupt_images().savefig(arguments.output / "figure2_images.png", dpi=110)
    except FileNotFoundError as error:
        print(error)


if __name__ == "__main__":
    main()
