"""Tables of training across ranks, from results/*.csv and from the formulas of costs, into docs/results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from paper.report import DOCS, write

from skbgmd.distributed.costs import Cost, all_gather, all_reduce, block, exact, hierarchy, probability_of_break

RESULTS = Path(__file__).resolve().parent / "results"
LENET, LARGE = 1_163_978, 10**9
#: Assumed of a network, not measured: seconds a message, and bytes a second.
LATENCY, BANDWIDTH = 5e-6, 25e9


def attacks(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by method under each attack: mean over seeds, and standard deviation."""
    groups = frame.groupby(["data", "ranks", "attack", "method"], sort=False)["accuracy"]
    cells = groups.mean().map("{:.1f}".format) + groups.std().map(" ± {:.1f}".format).where(groups.count() > 1, "")
    table = cells.unstack("method", sort=False).fillna("-")
    seeds = frame.groupby(["data", "ranks", "attack"], sort=False)["seed"].nunique()
    return table.assign(seeds=seeds).reset_index()


def rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by share of the coordinates and momentum, at learning rates relative to the best of the exact rule."""
    lines: list[dict[str, Any]] = []
    for (data, ranks, momentum), some in frame.groupby(["data", "ranks", "momentum"], sort=False):
        whole = some[some["beta"] == 1.0]
        best = whole.loc[whole["accuracy"].idxmax(), "lr"]
        for beta, rows in some.groupby("beta", sort=False):
            line = {"data": data, "ranks": ranks, "momentum": momentum, "exact rule's lr": best, "beta": beta}
            for lr, accuracy in sorted(zip(rows["lr"] / best, rows["accuracy"], strict=True), reverse=True):
                line[f"{lr:g} of it"] = f"{accuracy:.1f}"
            lines.append(line)
    table = pd.DataFrame(lines)
    first = [name for name in table.columns if not name.endswith(" of it")]
    others = sorted(
        (name for name in table.columns if name.endswith(" of it")),
        key=lambda name: -float(name.removesuffix(" of it")),
    )
    return table[[*first, *others]].fillna("-")


def processes(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on gloo ranks beside that of the simulation."""
    keys = ["data", "ranks", "attack", "method", "lr", "momentum", "seed"]
    simulated = _read(RESULTS / "ranks.csv")[[*keys, "accuracy"]].rename(columns={"accuracy": "simulated"})
    return frame[[*keys, "accuracy"]].merge(simulated, on=keys).rename(columns={"accuracy": "gloo ranks"})


def choices(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of the honest squares in the block, by score and attack."""
    frame = frame[(frame["lr"] == 0.1)]
    columns = ["share in the block", "largest remainder", "accuracy"]
    table = frame.groupby(["ranks", "attack", "choice"], sort=False)[columns].mean().reset_index()
    table["share in the block"] = table["share in the block"].map("{:.2f}".format)
    return table.round(1)


def divergence(frame: pd.DataFrame) -> pd.DataFrame:
    """Largest remainder at learning rates at which trainings diverge."""
    frame = frame[(frame["choice"] == "medians, 1/8 by turns") & (frame["ranks"] == 4) & (frame["attack"] == "none")]
    columns = ["largest remainder", "accuracy"]
    return frame.groupby(["lr", "limit"], sort=False)[columns].mean().round(1).reset_index()


def sketches(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["hostile", "sketch", "numbers", "error of distances", "error of the median"]
    return frame[columns].round(3)


def traffic() -> pd.DataFrame:
    """Bytes of each rank over those of a ring all-reduce of float32, for LeNet."""
    kinds = {
        "all-gather of all rows": lambda p: all_gather(p, LENET),
        "exact, by shards": lambda p: exact(p, LENET),
        "exact, bfloat16": lambda p: exact(p, LENET, 2),
        **{f"block, beta={beta}": lambda p, beta=beta: block(p, LENET, beta) for beta in (0.3, 0.1, 0.05)},
        "block, beta=0.1, bfloat16": lambda p: block(p, LENET, 0.1, 64, 2),
    }
    sizes = (2, 4, 8)
    return pd.DataFrame(
        {
            "exchange": name,
            **{f"{p} ranks": f"{cost(p).sent / all_reduce(p, LENET).sent:.3f}" for p in sizes},
            "collectives": cost(4).n_collectives,
        }
        for name, cost in kinds.items()
    )


def thousand() -> pd.DataFrame:
    """A thousand ranks and a thousand million parameters."""
    kinds: dict[str, Cost] = {
        "all-reduce (mean)": all_reduce(1000, LARGE),
        "all-gather of all rows": all_gather(1000, LARGE),
        "exact, by shards": exact(1000, LARGE),
        "exact, bfloat16": exact(1000, LARGE, 2),
        "block, beta=0.1": block(1000, LARGE, 0.1),
        "block, beta=0.1, bfloat16": block(1000, LARGE, 0.1, 64, 2),
        "25 groups of 40": hierarchy(25, 40, LARGE),
    }
    return pd.DataFrame(
        {
            "exchange": name,
            "GB sent": f"{cost.sent / 1e9:,.2f}",
            "messages": cost.n_messages,
            "operations, 1e9": f"{cost.operations / 1e9:,.0f}",
            "memory, GB": f"{cost.memory / 1e9:,.1f}",
            "seconds on the network": f"{cost.seconds(LATENCY, BANDWIDTH):,.3f}",
        }
        for name, cost in kinds.items()
    )


def buckets() -> pd.DataFrame:
    """Share of the network's time that is spent on bytes rather than on messages, by size of the bucket."""
    lines = []
    for megabytes in (25, 100, 400, 1600, 4000):
        d = megabytes * 10**6 // 4
        line: dict[str, Any] = {"bucket, MB": megabytes}
        kinds = {"exact": exact(1000, d), "25 groups of 40": hierarchy(25, 40, d), "block, beta=0.1": block(1000, d)}
        for name, cost in kinds.items():
            line[name] = f"{cost.sent / BANDWIDTH / cost.seconds(LATENCY, BANDWIDTH):.2f}"
        lines.append(line)
    return pd.DataFrame(lines)


def groups() -> pd.DataFrame:
    """Probability that random groups of a thousand ranks are broken, by the number of hostile ranks."""
    shapes = {"25 groups of 40": (25, 40), "40 groups of 25": (40, 25), "125 groups of 8": (125, 8)}
    return pd.DataFrame(
        {"hostile": n, **{name: _small(probability_of_break(*shape, n)) for name, shape in shapes.items()}}
        for n in (250, 300, 350, 400, 420, 440, 460, 480)
    )


def _read(path: Path) -> pd.DataFrame:
    # "nan" is the name of an attack.
    return pd.read_csv(path, keep_default_na=False)


def _small(probability: float) -> str:
    return f"{probability:.1g}" if probability > 1e-9 else "< 1e-9"


def main() -> None:
    tables = {
        "ranks": {"ranks_attacks": attacks},
        "ranks_grid": {"ranks_rates": rates},
        "ranks_gloo": {"ranks_processes": processes},
        "block_choice": {"block_choice": choices, "block_divergence": divergence},
        "sketches": {"sketches": sketches},
    }
    for name, made in tables.items():
        path = RESULTS / f"{name}.csv"
        if path.exists():
            for target, table in made.items():
                write(table(_read(path)), target, DOCS)
    for target, formula in {"traffic": traffic, "thousand": thousand, "buckets": buckets, "groups": groups}.items():
        write(formula(), f"ranks_{target}", DOCS)


if __name__ == "__main__":
    main()
