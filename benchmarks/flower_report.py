"""Tables of federated averaging, from results/flower.csv, flower_long.csv and flower_sizes.csv into docs/results."""

from __future__ import annotations

from pathlib import Path

import flower
import flower_long
import flower_sizes
import pandas as pd
from paper.report import DOCS, write

RESULTS = Path(__file__).resolve().parent / "results"
#: Columns of flower_long.csv, as the table of sleepers calls them.
AT = {"before": "before", "lowest": "worst", "end": "accuracy"}


def read(name: str) -> pd.DataFrame:
    """Results, in which "NaN" is the name of an attack."""
    return pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values={"accuracy": [""]})


def cell(accuracy: pd.Series) -> str:
    """Mean over seeds, with the standard deviation; a training that stopped or diverged has no accuracy."""
    if accuracy.isna().any():
        return f"stopped in {int(accuracy.isna().sum())} of {len(accuracy)}"
    return f"{accuracy.mean():.1f} ± {accuracy.std():.1f}"


def attacks(frame: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    """A line for each strategy, a column for each attack."""
    lines = []
    for strategy, rows in frame.groupby("strategy", sort=False):
        line = {"strategy": strategy}
        for (split, attack), some in rows[rows["split"].isin(splits)].groupby(["split", "attack"], sort=False):
            line["clean, two populations" if split == "two populations" else attack] = cell(some["accuracy"])
        lines.append(line)
    return pd.DataFrame(lines)


def decision(frame: pd.DataFrame) -> pd.DataFrame:
    """How far each candidate's worst column is behind the best of that column, and its mean over all columns."""
    means = frame.assign(accuracy=frame["accuracy"].fillna(0.0)).pivot_table(
        index="strategy", columns=["split", "attack"], values="accuracy", sort=False
    )
    behind = means.max() - means
    ours = [name for name in means.index if name in flower.OURS]
    return pd.DataFrame(
        {
            "candidate": ours,
            "worst column": [", ".join(behind.loc[name].idxmax()) for name in ours],
            "points behind": [f"{behind.loc[name].max():.1f}" for name in ours],
            "mean of all columns": [f"{means.loc[name].mean():.1f}" for name in ours],
        }
    )


def sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """The hostile client's share, and accuracy by rule and cap of claims."""
    lines = []
    for hostile, rows in frame.groupby("hostile", sort=False):
        line = {"hostile": hostile if hostile == "none" else f"{int(hostile):,}"}
        for claims in flower_sizes.CLAIMS:
            some = rows[rows["claims"] == claims]
            line[f"{claims}: share"] = f"{some['share'].iloc[0]:.1f}"
            for rule in flower_sizes.RULES:
                line[f"{claims}: {rule}"] = cell(some[some["rule"] == rule]["accuracy"])
        lines.append(line)
    return pd.DataFrame(lines)


def long_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by memory after all rounds, and how many honest clients have no weight in the last ones."""
    lines = []
    for (data, clients, split, attack), rows in frame.groupby(["data", "clients", "split", "attack"], sort=False):
        line = {"data": data, "clients": clients, "split": split, "attack": attack}
        memories = {memory: rows[rows["memory"] == memory] for memory in flower_long.MEMORIES}
        line |= {f"memory: {memory}": cell(some["accuracy"]) for memory, some in memories.items()}
        line |= {
            f"honest ones left out: {memory}": f"{some['honest_out'].mean():.1f}"
            for memory, some in memories.items()
            if memory != "none"
        }
        lines.append(line)
    return pd.DataFrame(lines)


def sleepers(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy before sleepers wake up, the lowest after that, and that at the end."""
    lines = []
    for (data, split), rows in frame[frame["attack"] == "sleepers"].groupby(["data", "split"], sort=False):
        line = {"data": data, "split": split}
        for memory in flower_long.MEMORIES:
            some = rows[rows["memory"] == memory]
            line |= {f"memory: {memory}: {at}": cell(some[column]) for at, column in AT.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    frame = read("flower")
    write(attacks(frame, ["even"]), "flower_even", DOCS)
    write(attacks(frame, ["Dirichlet 0.5", "two populations"]), "flower_dirichlet", DOCS)
    write(decision(frame), "flower_decision", DOCS)
    write(sizes(read("flower_sizes")), "flower_sizes", DOCS)
    long = read("flower_long")
    write(long_trainings(long), "flower_long", DOCS)
    write(sleepers(long), "flower_sleepers", DOCS)


if __name__ == "__main__":
    main()
