"""Tables of clean and dirty data from results/dirty.csv into docs/results, and which setting a default may be.

The rule by which one of our settings may be a default: on no clean set more than 0.5 points (0.005 of R^2) behind the
best plain training, in the mean of the seeds; and among those that pass the best mean over the dirt.

Scores are in points, hundredths of balanced accuracy or of R^2. R^2 is clipped at -1 before any mean is taken, so that
one training that diverges doesn't decide a table; one that fails counts as 0, or as -1 of R^2. Means are over seeds
first, then over sets, then over kinds of dirt. A method that lacks some of plain training's sets says how many it has,
and isn't chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from paper.report import DOCS, write

from dirty import methods
from dirty.data import CLASSES
from dirty.dirt import NONE
from dirty.methods import PLAIN
from dirty.run import RESULTS

#: Points by which a default may be behind the best plain training on a clean set.
ALLOWED = 0.5
KEY = ["data", "dirt", "seed"]


def points(frame: pd.DataFrame, *, of_classes: bool) -> pd.DataFrame:
    """Scores in points of one of the two tasks: a line for each set, dirt and seed, a column for each method."""
    rows = frame[frame["data"].isin(list(CLASSES)) == of_classes]
    lowest = 0.0 if of_classes else -1.0
    rows = rows.assign(score=100.0 * rows["score"].fillna(lowest).clip(lower=lowest))
    known = methods.OF_CLASSES if of_classes else methods.OF_TARGETS
    table = rows.pivot_table(index=KEY, columns="method", values="score", sort=False)
    return table[[method for method in known if method in table]]


def clean(scores: pd.DataFrame) -> pd.DataFrame:
    """Plain training's points on clean data, and how far the other methods are from it with the same seeds, by set."""
    scores = scores.xs(NONE, level="dirt")
    lines = [{"method": PLAIN, **scores[PLAIN].groupby("data", sort=False).mean().map("{:.1f}".format)}]
    for method in scores.columns.drop(PLAIN):
        differences = (scores[method] - scores[PLAIN]).dropna().groupby("data", sort=False)
        lines.append({"method": method, **differences.agg(with_error)})
    return pd.DataFrame(lines)


def with_error(values: pd.Series) -> str:
    """Mean and its standard error, where there is more than one value."""
    return f"{values.mean():+.2f}" + (f" ± {values.sem():.2f}" if len(values) > 1 else "")


def dirty(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over sets, by method and kind of dirt."""
    kinds = scores.index.get_level_values("dirt").unique()
    lines = []
    for method in scores.columns:
        seeds = scores[method].dropna().index.get_level_values("seed").nunique()
        cells = {kind: _cell(scores, method, kind) for kind in kinds}
        lines.append({"method": method, "seeds": seeds, **cells})
    return pd.DataFrame(lines)


def _cell(scores: pd.DataFrame, method: str, kind: str) -> str:
    rows = scores.xs(kind, level="dirt").groupby("data").mean()
    found, all_sets = rows[method].dropna(), rows[PLAIN].dropna()
    if found.empty:
        return ""
    return f"{found.mean():.1f}" + (f" ({len(found)} of {len(all_sets)})" if len(found) < len(all_sets) else "")


def decision(scores: pd.DataFrame, plain: tuple[str, ...]) -> pd.DataFrame:
    """Each method's worst clean set against the best ``plain`` training, whether it passes, and its mean over dirt."""
    on_clean = scores.xs(NONE, level="dirt")
    is_dirty = scores.index.get_level_values("dirt") != NONE
    by_kind = scores[is_dirty].groupby(["dirt", "data"], sort=False).mean().groupby("dirt", sort=False).mean()
    rivals = [name for name in plain if name in scores]
    lines = []
    for method in scores.columns:
        behind = pd.concat(
            [(on_clean[method] - on_clean[rival]).groupby("data", sort=False).mean() for rival in rivals], axis=1
        ).min(axis=1)
        line = {"method": method, "worst clean set": "", "against the best plain": "", "passes": "yes"}
        if behind.notna().any():
            line |= {"worst clean set": behind.idxmin(), "against the best plain": f"{behind.min():+.2f}"}
        if behind.min() < -ALLOWED - 1e-9:
            line["passes"] = "no"
        elif scores.loc[scores[PLAIN].notna(), method].isna().any():
            line["passes"] = "incomplete"
        lines.append({**line, "mean over dirt": round(float(by_kind[method].mean()), 2)})
    table = pd.DataFrame(lines)
    order = pd.Categorical(table["passes"], ["yes", "incomplete", "no"], ordered=True)
    return table.assign(passes=order).sort_values(["passes", "mean over dirt"], ascending=[True, False])


def by_dirt(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means of another column over sets and seeds, by method and kind of dirt."""
    table = frame.pivot_table(index="method", columns="dirt", values=column, sort=False)
    return table.round(2).reset_index()


def seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """Process time of a fit, means over dirt and seeds, by method and set."""
    return frame.pivot_table(index="method", columns="data", values="seconds", sort=False).round(2).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dirty.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, default=DOCS)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    frame = pd.read_csv(arguments.results)
    tasks = (
        ("classes", True, methods.PLAIN_OF_CLASSES, methods.OURS_OF_CLASSES),
        ("targets", False, methods.PLAIN_OF_TARGETS, methods.OURS_OF_TARGETS),
    )
    for name, of_classes, plain, ours in tasks:
        rows = frame[frame["data"].isin(list(CLASSES)) == of_classes]
        if rows.empty:
            continue
        scores = points(frame, of_classes=of_classes)
        tables = {
            "clean": clean(scores),
            "dirt": dirty(scores),
            "decision": decision(scores, plain),
            "trust": by_dirt(rows, "trust AUROC"),
            "seconds": seconds(rows),
        }
        for table, content in tables.items():
            write(content, f"dirty_{name}_{table}", arguments.output)
        table = tables["decision"]
        passed = table.loc[(table["passes"] == "yes") & table["method"].isin(list(ours)), "method"]
        print(table.to_string(index=False), f"\nDefault for {name}: {next(iter(passed), 'none passes')}")


if __name__ == "__main__":
    main()
