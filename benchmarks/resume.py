"""Trainings whose rows are written as each is over; run again, what is missing is trained."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from measure import environment
from tqdm import tqdm


def add_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """Options of :func:`train_missing`, which wants ``--epochs`` as well."""
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--share", default="0/1", help="i/n: every n-th training, from the i-th on")


def train_missing(
    runs: Iterable[Sequence[Any]],
    train: Callable[..., dict[str, Any]],
    columns: Sequence[str],
    arguments: argparse.Namespace,
) -> None:
    """Train what has no row yet; the first columns of a row are the run that it is of."""
    output: Path = arguments.output
    work = list(runs)
    if not work:
        return
    names = columns[: len(work[0])]
    done: set[tuple[str, ...]] = set()
    if output.exists():
        with output.open(newline="") as file:
            done = {tuple(row[name] for name in names) for row in csv.DictReader(file)}
    own, of = map(int, arguments.share.split("/"))
    around = environment()
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *around])
        if not done:
            writer.writeheader()
        for run in tqdm([run for run in work if tuple(map(str, run)) not in done][own::of]):
            writer.writerow({**dict(zip(names, run, strict=True)), **train(*run, arguments.epochs), **around})
            file.flush()
