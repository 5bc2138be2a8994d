"""Run the benchmarks: ``python benchmarks/run.py --help``. One CSV row as soon as it is measured."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from cases import RUN_LENGTHS, Case, gradient_cases, median_cases, path_cases
from measure import environment, in_turns, peak_extra_memory, proved_gap, ratio
from peers import PEERS, least_effort
from tqdm import tqdm

import skbgmd.median
from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import (
    AGGREGATORS,
    BlockGeometricMedian,
    Bucketing,
    GeometricMedian,
    NearestNeighborMixing,
    get_aggregator,
)
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).parent / "results"
TOL = 1e-6
Row = dict[str, Any]


def against_peers(case: Case, seed: int, repeats: int) -> Iterator[Row]:
    """Time of every solver at equal proved accuracy; ``speedup`` is the peer's time over ours."""
    X = case.matrix(seed)
    found = {name: least_effort(solver, X, TOL) for name, solver in PEERS.items()}
    result = geometric_median(X, return_result=True)
    calls = {"skbgmd": lambda: geometric_median(X)}
    for name, (effort, _, _) in found.items():
        if effort is not None:
            calls[name] = lambda name=name, effort=effort: PEERS[name](X, effort)
    slowest = max((seconds for effort, _, seconds in found.values() if effort is not None), default=0.0)
    times = in_turns(calls, 1 if slowest > 1.0 else repeats)
    for name in ["skbgmd", *PEERS]:
        reached = name in times
        yield {
            "case": case.name,
            "solver": name,
            "milliseconds": round(1e3 * median(times[name]), 4) if reached else "",
            "proved gap": f"{proved_gap(X, result.median) if name == 'skbgmd' else found[name][1]:.1e}",
            "own gap": f"{result.gap:.1e}" if name == "skbgmd" else "",
            "speedup": round(ratio(times[name], times["skbgmd"]), 2) if reached else "",
            "remark": "" if reached else f"not reached in {found[name][2]:.1f} s",
        }


def paths(case: Case, seed: int, repeats: int) -> Iterator[Row]:
    """Time of the two ways to a geometric median, in the Gram matrix of the rows and in R^d."""
    X = case.matrix(seed)
    calls = {
        "Gram matrix": lambda: _on_path(X, gram=True),
        "R^d": lambda: _on_path(X, gram=False),
    }
    times = in_turns(calls, repeats)
    for name, other in zip(calls, reversed(calls), strict=True):
        yield {
            "case": case.name,
            "call": name,
            "milliseconds": round(1e3 * median(times[name]), 3),
            "of the other": round(ratio(times[name], times[other]), 3),
            "taken": "yes" if skbgmd.median.takes_gram_path(case.n, case.d) == (name == "Gram matrix") else "",
        }


def _on_path(X: Any, *, gram: bool) -> None:
    with mock.patch.object(skbgmd.median, "takes_gram_path", return_value=gram):
        geometric_median(X)


def aggregators(case: Case, seed: int, repeats: int) -> Iterator[Row]:
    """Time of every aggregator and block step, in sums over the columns' entries (one pass over the matrix)."""
    X = case.matrix(seed)
    calls: dict[str, Any] = {"column sum": lambda: X.sum(0), "geometric_median()": lambda: geometric_median(X)}
    for length in RUN_LENGTHS:
        calls[f"block_geometric_median(run_length={length})"] = lambda length=length: block_geometric_median(
            X, run_length=length
        )
    if case.n == 32:
        rules: dict[str, Any] = {name: get_aggregator(name) for name in AGGREGATORS}
        rules["nearest neighbours + geometric_median"] = NearestNeighborMixing(GeometricMedian())
        rules["nearest neighbours + block_geometric_median"] = NearestNeighborMixing(BlockGeometricMedian())
        rules["buckets + geometric_median"] = Bucketing(GeometricMedian(), random_state=seed)
        # Rows remember their Gram matrix: fresh ones for each call.
        calls |= {name: lambda rule=rule: rule(DenseRows(X)) for name, rule in rules.items()}
    times = in_turns(calls, repeats)
    for name in calls:
        yield {
            "case": case.name,
            "call": name,
            "milliseconds": round(1e3 * median(times[name]), 2),
            "column sums": round(ratio(times[name], times["column sum"]), 2),
            "of the full median": round(ratio(times[name], times["geometric_median()"]), 3),
        }


def memory(case: Case, seed: int, repeats: int) -> Iterator[Row]:
    """Peak memory that a call adds, as a share of the matrix."""
    calls = {"geometric_median()": "geometric_median(X)"}
    calls |= {f"block_geometric_median(run_length={k})": f"block_geometric_median(X, run_length={k})" for k in (1, 16)}
    for name, code in calls.items():
        snippet = (
            "from skbgmd import geometric_median, block_geometric_median\n"
            f"X = torch.randn({case.n}, {case.d}, generator=torch.Generator().manual_seed({seed}))\n"
            f"call = lambda X: {code}"
        )
        measured = [peak_extra_memory(snippet) for _ in range(min(repeats, 3))]
        if None in measured:
            yield {"case": case.name, "call": name, "remark": "skipped: this system tells no peak memory"}
            continue
        extra, size = median(m[0] for m in measured), measured[0][1]
        yield {"case": case.name, "call": name, "extra MB": round(extra / 1e6, 1), "share": round(extra / size, 3)}


FAMILIES = {
    "median": (against_peers, median_cases),
    "paths": (paths, path_cases),
    "aggregators": (aggregators, gradient_cases),
    "memory": (memory, gradient_cases),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="default: all")
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small matrices, to see that all of it runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the CSV files (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    for family in arguments.family or FAMILIES:
        measure, list_cases = FAMILIES[family]
        cases = [case for case in list_cases(arguments.quick) if arguments.case in case.name]
        with (arguments.output / f"{family}.csv").open("w", newline="") as file:
            writer = None
            for case in tqdm(cases, desc=family):
                for row in measure(case, arguments.seed, arguments.repeats):
                    row |= {"seed": arguments.seed, "repeats": arguments.repeats, **environment()}
                    if writer is None:
                        writer = csv.DictWriter(file, list(row))
                        writer.writeheader()
                    writer.writerow(row)
                    file.flush()


if __name__ == "__main__":
    main()
