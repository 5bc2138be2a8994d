"""Lies that an audit of random columns finds, and the bytes that it costs, on the ranks of a process group.

python -m torch.distributed.run --standalone --nproc-per-node 4 benchmarks/audit.py
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from measure import environment

import skbgmd.distributed.audit as module
from skbgmd.aggregators import GeometricMedian
from skbgmd.distributed import AuditedExchange, AuditReport, ShardedRows, audit_ranks, init_from_env
from skbgmd.distributed.exchange import Pending

RUN, RUNS = 64, 64  # adjacent columns of a run, and runs of a shard
ROWS = 2  # of each rank
LIES = ("none", "columns", "aggregate", "products", "products, claims adapted")
SHARES = (1 / 64, 1 / 16, 1 / 4, 1.0)
AUDITED = (1, 4, 16)
COLUMNS = (
    "lie", "share", "runs_audited", "run_length", "runs", "ranks", "rows", "columns", "trials", "seed", "found",
    "formula", "honest_accused", "bytes_audit", "bytes_step", "bytes_over_all_reduce",
)  # fmt: skip
honest_squares = module.run_squares


class Liar(AuditedExchange):
    """Rank that lies about a share of its runs, of which it lets the others see as little as it can."""

    def __init__(self, lie: str, share: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.lie, self.runs = lie, rng.permutation(RUNS)[: round(share * RUNS)]
        self.chosen = torch.from_numpy((self.runs[:, None] * RUN + np.arange(RUN)).flatten())

    def to_shards(self, rows: torch.Tensor) -> Pending:
        shard = super().to_shards(rows).wait()
        if self.lie == "columns":
            shard[: len(shard) // 2, self.chosen] *= -1.0
        return Pending(shard)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        return super().add_up(values * 1.5 if self.lie.startswith("products") and values.dim() == 2 else values)

    def from_shards(self, vector: torch.Tensor, n_columns: int) -> Pending:
        if self.lie == "aggregate":
            vector = vector.index_add(0, self.chosen, torch.full((len(self.chosen),), 0.01))
        return super().from_shards(vector, n_columns)

    def claim(self, columns: torch.Tensor, v: Any, run_length: int, n_runs: int) -> torch.Tensor:
        """Put what is missing to the false products into the lie's runs."""
        squares = honest_squares(columns, v, run_length, n_runs)
        if self.lie == "products, claims adapted" and columns.shape[1] == RUN * RUNS:
            own = self.products[-1][self.rank].numpy()
            missing = [line @ own @ line - float(sums.sum()) for line, sums in zip(v, squares, strict=True)]
            squares[:, self.runs] += torch.tensor(missing)[:, None] / len(self.runs)
        return squares


def trial(lie: str, share: float, n_runs: int, seed: list[int]) -> tuple[AuditReport, int]:
    """An audited step; the last rank lies. The report, and the bytes that the step itself sent."""
    rank, size = dist.get_rank(), dist.get_world_size()
    rng = np.random.default_rng([*seed, rank])
    is_liar = rank == size - 1 and lie != "none"
    exchange = Liar(lie, share, rng) if is_liar else AuditedExchange()
    module.run_squares = exchange.claim if isinstance(exchange, Liar) else honest_squares
    rows = torch.from_numpy(rng.normal(size=(ROWS, size * RUN * RUNS)).astype(np.float32))
    shard = exchange.to_shards(rows).wait()
    aggregate, _ = GeometricMedian()(ShardedRows(shard, rows.shape[1], exchange))
    vector = exchange.from_shards(aggregate.vector, rows.shape[1]).wait()
    sent = exchange.traffic.sent
    nonce = rng.bytes(32)
    report = audit_ranks(exchange, rows, shard, vector, aggregate.weights, n_runs=n_runs, run_length=RUN, nonce=nonce)
    return report, sent


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """The table of the page on faults: a line for each lie and share, found (formula) by runs audited."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lie", "share of the runs", *(f"m = {m}" for m in AUDITED)])
        for some in (rows[at : at + len(AUDITED)] for at in range(0, len(rows), len(AUDITED))):
            cells = [f"{row['found']:.2f} ({row['formula']:.2f})" for row in some]
            writer.writerow([some[0]["lie"], f"{some[0]['share']:.3f}", *cells])
        writer.writerow(["bytes, of an all-reduce", "", *(f"{row['bytes_over_all_reduce']:.2f}" for row in rows[:3])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "audit.csv")
    table = Path(__file__).parent.parent / "docs" / "results" / "audit.csv"
    parser.add_argument("--table", type=Path, default=table)
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    init_from_env("gloo")
    size, around = dist.get_world_size(), environment()
    d, last = size * RUN * RUNS, size - 1
    rows = []
    for lie in LIES:
        for share in (0.0,) if lie == "none" else (1.0,) if lie == "products" else SHARES:
            for n_runs in AUDITED:
                # Settings have draws of their own: what is found under one says nothing of another.
                reports = [trial(lie, share, n_runs, [len(rows), each]) for each in range(arguments.trials)]
                found = [last in report.liars for report, _ in reports]
                accused = [any(rank != last for rank in report.liars) for report, _ in reports]
                audit, step = reports[0][0].sent, reports[0][1]
                values = (
                    lie, share, n_runs, RUN, RUNS, size, size * ROWS, d, arguments.trials, len(rows), np.mean(found),
                    1.0 - (1.0 - share) ** n_runs, np.mean(accused), audit, step, audit / (8 * d * (size - 1) / size),
                )  # fmt: skip
                rows.append({**dict(zip(COLUMNS, values, strict=True)), **around})
                if dist.get_rank() == 0:
                    print(*values[:3], *values[10:], flush=True)
    if dist.get_rank() == 0:
        with arguments.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*COLUMNS, *around])
            writer.writeheader()
            writer.writerows(rows)
        write_table(rows, arguments.table)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
