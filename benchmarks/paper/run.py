"""Run the paper's experiments; each finished one is a row of a CSV file, and a killed run loses at most those begun.

Run again with the same output it goes on where it was. ``python -m paper.report`` makes tables and figures of it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measure import environment
from resume import read
from tqdm import tqdm

from paper import cases as trainings
from paper.aggregation import BREAKDOWN, COSTS, breakdown, cost
from paper.cases import PROTOCOLS, Protocol, Run
from paper.methods import PLAIN
from paper.theory import THEORY, theory
from paper.training import train

RESULTS = Path(__file__).resolve().parent.parent / "results" / "paper"
#: What identifies a training.
KEY = ("network", "width", "data", "images", "samples", "epochs", "corruption", "method", "beta", "lr", "seed")
OUTCOME = ("accuracy", "seconds", "aggregation ms", "steps", "n_train", "parameters", "remark", "curve")
TRAININGS: dict[str, Callable[[Protocol], list[Run]]] = {
    "grid": trainings.grid,
    "homogeneous": trainings.homogeneous,
    "heterogeneous": trainings.heterogeneous,
    "betas": trainings.betas,
    "speed": trainings.speed,
}
#: Experiments of many short measurements: their cases, what measures one, and the columns of what it gives.
MEASUREMENTS: dict[
    str, tuple[Callable[[Protocol], list[dict[str, Any]]], Callable[..., dict[str, Any]], tuple[str, ...]]
] = {
    "costs": (COSTS, cost, ("milliseconds",)),
    "breakdown": (BREAKDOWN, breakdown, ("error",)),
    "theory": (THEORY, theory, ("values",)),
}
EXPERIMENTS = (*TRAININGS, *MEASUREMENTS)


def key_of(run: Run) -> dict[str, str]:
    """What identifies a training, as text, as it is read from a file."""
    setting = run.setting
    values = (
        setting.network,
        setting.width,
        setting.data,
        setting.n_train,
        setting.samples,
        setting.epochs,
        run.corruption.name,
        run.method,
        run.beta,
        "best" if run.lr is None else run.lr,
        run.seed,
    )
    return dict(zip(KEY, map(str, values), strict=True))


def best_rates(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], float]:
    """The learning rate of the grid that is best on validation data, for each network, width and method."""
    scores: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["accuracy"]:
            key = row["network"], row["width"], row["method"]
            scores.setdefault(key, []).append((float(row["accuracy"]), float(row["lr"])))
    return {key: max(found)[1] for key, found in scores.items()}


def todo(
    experiment: str, protocol: Protocol, folder: Path, network: str | None = None
) -> list[tuple[dict[str, str], Any]]:
    """Cases that have no row yet, with what identifies them; trainings of one network only, if it is named."""
    rows = read(folder / f"{experiment}.csv")
    if experiment in MEASUREMENTS:
        wanted = [
            ({name: str(value) for name, value in case.items()}, case) for case in MEASUREMENTS[experiment][0](protocol)
        ]
    else:
        runs = [run for run in TRAININGS[experiment](protocol) if network in (None, run.setting.network)]
        wanted = [(key_of(run), run) for run in runs]
    done = {tuple(row[name] for name in key) for row in rows for key, _ in wanted[:1]}
    return [(key, case) for key, case in wanted if tuple(key.values()) not in done]


def measure(
    experiment: str, case: Any, protocol: Protocol, folder: Path | None, device: str, threads: int
) -> dict[str, Any]:
    """Measure one case, in a process of its own or in this one."""
    torch.set_num_threads(threads)
    if experiment in MEASUREMENTS:
        return {**MEASUREMENTS[experiment][1](device=device, **case), **environment(device)}
    return {**train(case, protocol, folder=folder, device=device), **environment(device)}


def with_rate(case: Any, rates: dict[tuple[str, str, str], float]) -> Any:
    """A training with its method's learning rate from the grid, where it has none of its own."""
    if not isinstance(case, Run) or case.lr is not None:
        return case
    # What has no grid of its own has that of its like.
    method = {"BGMD, no memory": "BGMD, paper", PLAIN: "SGD"}.get(case.method, case.method)
    key = case.setting.network, str(case.setting.width), method
    if key not in rates:
        raise SystemExit(f"No learning rate of {key}: run the experiment `grid` first.")
    return replace(case, lr=rates[key])


def outcomes(
    experiment: str, jobs: int, work: list[tuple[dict[str, str], Any]], *rest: Any
) -> Iterator[tuple[dict[str, str], Any, dict[str, Any]]]:
    """What came out, as it comes; times are comparable with one job only."""
    if jobs == 1:
        for key, case in work:
            yield key, case, measure(experiment, case, *rest)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: dict[Future[dict[str, Any]], tuple[dict[str, str], Any]] = {}
        left = iter(work)
        while True:
            for key, case in left:
                running[pool.submit(measure, experiment, case, *rest)] = (key, case)
                if len(running) > jobs:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, case = running.pop(future)
                yield key, case, future.result()


def run_experiment(experiment: str, arguments: argparse.Namespace) -> None:
    """Measure what is missing of one experiment and append it to its file."""
    protocol, folder = PROTOCOLS[arguments.protocol], arguments.output
    work = todo(experiment, protocol, folder, arguments.network)
    if not work:
        return
    grid_folder = folder if protocol.rates_of is None else RESULTS / protocol.rates_of
    rates = best_rates(read(grid_folder / "grid.csv"))
    work = [(key, with_rate(case, rates)) for key, case in work]
    path = folder / f"{experiment}.csv"
    names = OUTCOME if experiment in TRAININGS else MEASUREMENTS[experiment][2]
    columns = [*work[0][0], *(["learning rate"] if experiment in TRAININGS else []), *names, "protocol", *environment()]
    # What is timed side by side must not share the machine with others.
    jobs = arguments.jobs if experiment in TRAININGS and experiment != "speed" else 1
    new = not path.exists()
    with path.open("a", newline="") as file, tqdm(total=len(work), desc=experiment) as progress:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
            # A run that is killed in its first training goes on from here.
            file.flush()
        rest = (protocol, arguments.folder, arguments.device, max(1, torch.get_num_threads() // jobs))
        for key, case, row in outcomes(experiment, jobs, work, *rest):
            rate = {"learning rate": case.lr} if experiment in TRAININGS else {}
            writer.writerow({**key, **rate, **row, "protocol": arguments.protocol})
            file.flush()
            progress.update()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m paper.run", description=__doc__)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="short")
    parser.add_argument("--experiment", choices=EXPERIMENTS, action="append", help="may be repeated (default: all)")
    parser.add_argument("--network", choices=["LeNet", "ResNet-18"], help="trainings of this one only")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; more than one spoils their times")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where the binary version of CIFAR-10 is")
    parser.add_argument("--output", type=Path, help="folder of the CSV files")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = RESULTS / arguments.protocol
    arguments.output.mkdir(parents=True, exist_ok=True)
    for experiment in arguments.experiment or EXPERIMENTS:
        run_experiment(experiment, arguments)


if __name__ == "__main__":
    main()
