"""Tables and breakdown curves of rules against workers that collude, from results/workers.csv into docs."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from paper.report import DOCS, write
from workers import ATTACKS, HONEST, RESULTS, RULES

from skbgmd.inspection import RobustnessCurveDisplay

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


def by_share(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy without an attack, under the worst one that a rule, and that each rule, was trained under, by share."""
    frame = frame.assign(accuracy=frame["accuracy"].where(frame["remark"] != "diverged", DIVERGED))
    frame = frame[frame["rule"] != HONEST]
    lines = []
    for (workers, percent), some in frame.groupby(["workers", "percent"]):
        scores = some.pivot_table(index="rule", columns="attack", values="accuracy")
        attacked = scores.drop(columns="none")
        common = attacked.dropna(axis=1)
        lines.append(
            pd.DataFrame(
                {
                    "workers": workers,
                    "liars, %": percent,
                    "rule": scores.index,
                    "no attack": scores["none"].round(1),
                    "worst": attacked.min(axis=1).round(1),
                    "by": attacked.idxmin(axis=1),
                    "attacks": attacked.count(axis=1),
                    "worst of common ones": common.min(axis=1).round(1),
                    "common ones": common.shape[1],
                }
            )
        )
    return pd.concat(lines, ignore_index=True)


def curves(lines: pd.DataFrame) -> Figure:
    """Breakdown curves: accuracy under the worst attack over the share of liars, from the lines of by_share."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (workers, some) in zip(axes, lines.groupby("workers"), strict=True):
        for rule, own in some.groupby("rule"):
            own = own.sort_values("liars, %")
            scores = [own["no attack"].iloc[0], *own["worst"]]
            RobustnessCurveDisplay(
                fractions=pd.Series([0.0, *own["liars, %"] / 100.0]).to_numpy(),
                train_scores=pd.DataFrame(scores).to_numpy(),
                test_scores=pd.DataFrame(scores).to_numpy(),
                score_name="Test accuracy under the worst attack, %",
                corruption_name="Workers that lie",
                name=rule,
            ).plot(ax, std_display_style=None, line_kw={"marker": "o"})
        ax.set_title(f"Workers with {workers} data")
    axes[1].set_ylabel("")
    axes[1].get_legend().remove()
    return figure


def main() -> None:
    frame = pd.read_csv(RESULTS)
    digits = frame[(frame["data"] == "digits") & (frame["workers"] != "fresh") & (frame["seed"] == 0)]
    cases = ["workers", "rule"]
    few = digits[(digits["percent"] != 40) & (digits["rule"] != HONEST)]
    lines = by_share(digits.merge(few[cases].drop_duplicates(), on=cases))
    write(lines, "workers_digits_by_share", DOCS)
    # Rules of ByzFL were trained under few attacks at the smaller shares: a worst one of these compares with no other.
    ours = lines[~lines["rule"].str.startswith("ByzFL")]
    curves(ours).savefig(DOCS.parent / "images" / "workers_by_share.png", dpi=100)
    for (data, workers), some in frame[frame["percent"] == 40].groupby(["data", "workers"], sort=False):
        write(table(some), f"workers_{data}_{workers}".replace("-", "_"), DOCS)


if __name__ == "__main__":
    main()
