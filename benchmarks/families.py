"""What is measured: for each family a function that turns a case into rows of its CSV file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from cases import (
    RUN_LENGTHS,
    Case,
    NamedCase,
    StepCase,
    gradient_cases,
    median_cases,
    memory_cases,
    path_cases,
    step_cases,
)
from measure import REST, in_turns, peak_extra_memory, proved_gap, ratio

import skbgmd.location.paths.choice
from skbgmd import block_geometric_median, geometric_median
from skbgmd.rows import DenseRows

Row = dict[str, Any]

TOL = 1e-6
#: Where a call takes longer than a second, so many rounds are enough.
SLOW, SLOW_REPEATS = 1.0, 3
#: Processes whose median a peak of memory is; it varies less than times do.
MEMORY_REPEATS = 3


@dataclass(frozen=True)
class Options:
    """What holds for all cases; ``limit``: seconds a peer's call may take."""

    seed: int
    repeats: int
    limit: float


@dataclass(frozen=True)
class Family:
    """Columns of the CSV file, the cases (quick or not), and what measures one of them."""

    columns: tuple[str, ...]
    cases: Callable[[bool], list[Any]]
    measure: Callable[[Any, Options], list[Row]]


def against_peers(case: Case, options: Options) -> list[Row]:
    """Time of every solver at equal proved accuracy."""
    from peers import least_steps, peers  # the other families need no peers to be installed

    X = case.matrix(options.seed)
    result = geometric_median(X, tol=TOL, return_result=True)
    solvers = peers(X)
    found = {name: least_steps(solve, X, TOL, options.limit) for name, solve in solvers.items()}
    reached = [name for name, outcome in found.items() if outcome.steps is not None]
    calls: dict[str, Callable[[], Any]] = {"skbgmd": lambda: geometric_median(X, tol=TOL)}
    calls |= {name: lambda name=name: solvers[name](found[name].steps) for name in reached}
    slow = max((found[name].seconds for name in reached), default=0.0) > SLOW
    repeats = min(options.repeats, SLOW_REPEATS) if slow else options.repeats
    # Looking for the number of steps has warmed up the slow ones.
    times = in_turns(calls, repeats, warm_up=not slow, rest=REST)
    best = min(reached, key=lambda name: median(times[name]), default=None)
    ours: Row = {
        "case": case.name,
        "solver": "skbgmd",
        "milliseconds": _milliseconds(times["skbgmd"]),
        "steps": result.n_iter,
        "proved gap": f"{proved_gap(X, result.median):.1e}",
        "own gap": f"{result.gap:.1e}",
        "best peer / ours": "" if best is None else round(ratio(times[best], times["skbgmd"]), 2),
        "remark": "no peer got there" if best is None else f"best peer: {best}",
        "repeats": repeats,
    }
    rows = [ours]
    for name, outcome in found.items():
        row: Row = {"case": case.name, "solver": name, "proved gap": f"{outcome.gap:.1e}", "repeats": repeats}
        if outcome.steps is None:
            row["remark"] = f"not reached: the last call took {outcome.seconds:.1f} s"
        else:
            row |= {"milliseconds": _milliseconds(times[name]), "steps": outcome.steps}
            row["time / ours"] = round(ratio(times[name], times["skbgmd"]), 2)
        rows.append(row)
    return rows


def paths(case: Case, options: Options) -> list[Row]:
    """Time of the two ways to a geometric median, in the Gram matrix of the rows and in R^d."""
    X = case.matrix(options.seed)
    calls: dict[str, Callable[[], Any]] = {
        "Gram matrix": lambda: _on_path(X, gram=True),
        "R^d": lambda: _on_path(X, gram=False),
    }
    times = in_turns(calls, options.repeats, rest=REST)
    taken = "Gram matrix" if skbgmd.location.paths.choice.takes_gram_path(case.n, case.d) else "R^d"
    return [
        {
            "case": case.name,
            "call": name,
            "milliseconds": _milliseconds(times[name]),
            "of the other": round(ratio(times[name], times[other]), 3),
            "taken": "yes" if name == taken else "",
            "repeats": options.repeats,
        }
        for name, other in zip(calls, reversed(calls), strict=True)
    ]


def aggregators(case: Case, options: Options) -> list[Row]:
    """Time of aggregators and block steps, in column sums: one pass over the matrix."""
    X = case.matrix(options.seed)
    calls: dict[str, Callable[[], Any]] = {
        "column sum": lambda: X.sum(0),
        "geometric_median()": lambda: geometric_median(X),
    }
    for length in RUN_LENGTHS:
        calls[f"block_geometric_median(run_length={length})"] = lambda length=length: block_geometric_median(
            X, beta=0.1, run_length=length
        )
    if case.n == 32:
        # Rows remember their Gram matrix: fresh ones for each call.
        calls |= {name: lambda rule=rule: rule(DenseRows(X), None) for name, rule in _rules(options.seed).items()}
    times = in_turns(calls, options.repeats)
    return [
        {
            "case": case.name,
            "call": name,
            "milliseconds": _milliseconds(times[name]),
            "column sums": round(ratio(times[name], times["column sum"]), 2),
            "of the full median": round(ratio(times[name], times["geometric_median()"]), 3),
            "repeats": options.repeats,
        }
        for name in calls
    ]


def memory(case: Case, options: Options) -> list[Row]:
    """Peak memory that a call adds, as a share of the matrix."""
    calls = {"geometric_median()": "geometric_median(X)"}
    if case.kind == "shifted":
        calls |= {
            f"block_geometric_median(run_length={k})": f"block_geometric_median(X, run_length={k})" for k in RUN_LENGTHS
        }
    else:
        calls["Weiszfeld"] = "peers._weiszfeld(X, 2)"
    repeats = min(options.repeats, MEMORY_REPEATS)
    rows = []
    for name, code in calls.items():
        snippet = (
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import peers\nfrom cases import Case\n"
            "from skbgmd import geometric_median, block_geometric_median\n"
            f"X = torch.as_tensor({case!r}.matrix({options.seed}))\n"
            f"call = lambda X: {code}"
        )
        measured = [peak_extra_memory(snippet) for _ in range(repeats)]
        row: Row = {"case": case.name, "call": name, "repeats": repeats}
        skipped = [outcome for outcome in measured if isinstance(outcome, str)]
        if skipped:
            row["remark"] = skipped[0]
        else:
            extra, size = median(outcome[0] for outcome in measured), measured[0][1]
            row |= {"extra MB": round(extra / 1e6, 1), "share": round(extra / size, 3)}
        rows.append(row)
    return rows


def _rules(seed: int) -> dict[str, Any]:
    """Every aggregator by its name, and mixings of rows before it."""
    from skbgmd.aggregators import (
        AGGREGATORS,
        BlockGeometricMedian,
        Bucketing,
        GeometricMedian,
        NearestNeighborMixing,
        get_aggregator,
    )

    return {name: get_aggregator(name) for name in AGGREGATORS} | {
        "nearest neighbours + geometric_median": NearestNeighborMixing(GeometricMedian()),
        "nearest neighbours + block_geometric_median": NearestNeighborMixing(BlockGeometricMedian()),
        "buckets + geometric_median": Bucketing(GeometricMedian(), random_state=seed),
    }


def _on_path(X: Any, *, gram: bool) -> None:
    path = {"takes_gram_path": gram, "weiszfeld_pays": False}
    with mock.patch.multiple(
        skbgmd.location.paths.choice, **{name: mock.Mock(return_value=it) for name, it in path.items()}
    ):
        geometric_median(X)


def _milliseconds(times: list[float]) -> float:
    return float(f"{1e3 * median(times):.4g}")


def steps(case: StepCase, options: Options) -> list[Row]:
    """Time of a training step by rule, relative to the mean of the same micro-batches."""
    from training import step_times  # the other families need not import skorch

    times = step_times(case.network, case.rows, case.samples, options.repeats, options.seed)
    return _relative_rows(case.name, "rule", times, "of the mean", "mean", options)


def fits(case: NamedCase, options: Options) -> list[Row]:
    """Time of a whole fit on digits against scikit-learn's perceptron."""
    from training import fit_times

    times = fit_times(options.repeats, options.seed)
    return _relative_rows(case.name, "estimator", times, "of MLPClassifier", "MLPClassifier", options)


def _relative_rows(
    case: str, kind: str, times: dict[str, list[float]], ratio_name: str, to: str, options: Options
) -> list[Row]:
    """A row for each name in ``times``: milliseconds, and the median of the ratios to another's time in each round."""
    return [
        {
            "case": case,
            kind: name,
            "milliseconds": _milliseconds(seconds),
            ratio_name: round(ratio(seconds, times[to]), 3),
            "repeats": options.repeats,
        }
        for name, seconds in times.items()
    ]


FAMILIES = {
    "median": Family(
        (
            "case",
            "solver",
            "milliseconds",
            "time / ours",
            "best peer / ours",
            "steps",
            "proved gap",
            "own gap",
            "remark",
            "repeats",
        ),
        median_cases,
        against_peers,
    ),
    "paths": Family(("case", "call", "milliseconds", "of the other", "taken", "repeats"), path_cases, paths),
    "aggregators": Family(
        ("case", "call", "milliseconds", "column sums", "of the full median", "repeats"), gradient_cases, aggregators
    ),
    "steps": Family(
        ("case", "rule", "milliseconds", "of the mean", "repeats"),
        step_cases,
        steps,
    ),
    "fits": Family(
        ("case", "estimator", "milliseconds", "of MLPClassifier", "repeats"),
        lambda quick: [NamedCase("digits, 10 epochs, batches of 256")],
        fits,
    ),
    "memory": Family(("case", "call", "extra MB", "share", "remark", "repeats"), memory_cases, memory),
}
