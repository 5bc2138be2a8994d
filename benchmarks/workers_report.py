"""Tables of rules against workers that collude, from results/workers.csv into docs/results."""

from __future__ import annotations

import pandas as pd
from paper.report import DOCS, write
from workers import ATTACKS, HONEST, RESULTS, RULES

#: Accuracy of a training that diverged: that of one class.
DIVERGED = 10.0


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by attack and rule: means over the seeds that all rules of a line have, the worst line, the spread."""
    frame = frame.assign(accuracy=frame["accuracy"].where(frame["remark"] != "diverged", DIVERGED))
    honest = frame[frame["rule"] == HONEST]["accuracy"]
    frame = frame[frame["rule"] != HONEST]
    rules = [rule for rule in RULES if rule in set(frame["rule"])]
    scores = frame.pivot_table(index=["attack", "seed"], columns="rule", values="accuracy")[rules]
    order = [attack for attack in ("none", *ATTACKS) if attack in scores.index.get_level_values("attack")]
    by_attack = scores.groupby("attack")
    means, seeds = by_attack.mean().loc[order], by_attack.count().loc[order]
    lines = means.round(1).astype(str).replace("nan", "")
    lines.loc["worst of the lines that all rules have"] = means.dropna().min().round(1).astype(str)
    lines.loc["largest standard deviation of a line"] = by_attack.std().max().round(1).astype(str).replace("nan", "")
    spans = [
        f"{low}" if low == high else f"{low} to {high}"
        for low, high in zip(seeds.min(axis=1), seeds.max(axis=1), strict=True)
    ]
    lines.insert(0, "seeds", [*spans, "", ""])
    if len(honest):
        lines.loc[HONEST] = [str(len(honest)), f"{honest.mean():.1f}", *[""] * (len(rules) - 1)]
    return lines.reset_index(names="attack")


def main() -> None:
    frame = pd.read_csv(RESULTS)
    for (data, workers, percent), some in frame.groupby(["data", "workers", "percent"], sort=False):
        suffix = "" if percent == 40 else f"_{percent}"
        write(table(some), f"workers_{data}_{workers}{suffix}".replace("-", "_"), DOCS)


if __name__ == "__main__":
    main()
