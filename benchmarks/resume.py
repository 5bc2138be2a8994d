"""Trainings whose rows are written as each is over; run again, what is missing is trained."""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, dump, load
from measure import environment
from tqdm import tqdm

from skbgmd.aggregators import NonFiniteRowsError


def add_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """Options of :func:`train_missing`."""
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--share", default="0/1", help="i/n: every n-th training, from the i-th on")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which spoils wall-clock times")


def add_report(parser: argparse.ArgumentParser) -> None:
    """An option to train nothing."""
    parser.add_argument("--report", action="store_true", help="make tables of the rows there are, and train nothing")


def parse_arguments(description: str | None, output: Path) -> argparse.Namespace:
    """Options of :func:`train_missing` and :func:`add_report`, as the command line has them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_report(parser)
    add_options(parser, output)
    return parser.parse_args()


def kept(folder: Path | None, name: str, fit: Callable[[], Any]) -> Any:
    """A fitted estimator from the folder's file of that name; if there is none it is fitted, and kept there."""
    path = folder / f"{name}.joblib" if folder else None
    if path is not None and path.exists():
        return load(path)
    model = fit()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        dump(model, path, compress=1)
    return model


def seconds_to_fit(
    model: Any, X: Any, y: Any, clock: Callable[[], float] = time.perf_counter, **fit_params: Any
) -> float | None:
    """Fit an estimator, whose steps may warn, and take the time; None where the training diverges."""
    start = clock()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a training that diverges says so at every step
            model.fit(X, y, **fit_params)
    except NonFiniteRowsError:
        return None
    return round(clock() - start, 2)


def read(path: Path) -> list[dict[str, str]]:
    """The rows there are; a line that was cut off when the run was killed is dropped from the file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), newline="")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train_missing(
    runs: Iterable[Sequence[Any]],
    train: Callable[..., dict[str, Any]],
    columns: Sequence[str],
    arguments: argparse.Namespace,
) -> None:
    """Train what has no row yet, for ``--epochs`` if there is such an option.

    The first columns of a row are the run that it is of.
    """
    output: Path = arguments.output
    work = list(runs)
    if not work:
        return
    names = columns[: len(work[0])]
    epochs = (arguments.epochs,) if "epochs" in arguments else ()
    done = {tuple(row[name] for name in names) for row in read(output)}
    own, of = map(int, arguments.share.split("/"))
    around = environment()
    # Shares of all runs, so that they stay what they are once some have rows.
    missing = [run for run in work[own::of] if tuple(map(str, run)) not in done]

    def row(run: Sequence[Any]) -> dict[str, Any]:
        return {**dict(zip(names, run, strict=True)), **train(*run, *epochs), **around}

    is_new = not output.exists() or output.stat().st_size == 0
    # One at a time, for each to be written when it is over.
    pool = Parallel(arguments.jobs, return_as="generator_unordered", batch_size=1)
    rows = pool(delayed(row)(run) for run in missing)
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *around])
        if is_new:
            writer.writeheader()
        for finished in tqdm(rows, total=len(missing)):
            writer.writerow(finished)
            file.flush()
