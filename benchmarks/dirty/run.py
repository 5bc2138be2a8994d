"""Train every method on every set with every kind of dirt; each finished training is a row of results/dirty.csv.

Scores are balanced accuracies, or R^2, on clean test data; seconds are process time of the fit. Run again it goes on
where it was. Lists are separated by commas, and may hold patterns: --dirt "none,pair*". ``python -m dirty.report``
makes tables of it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from resume import add_options, train_missing

from dirty import dirt, methods
from dirty.data import CLASSES, IMAGES, NAMES
from dirty.training import COLUMNS, train

RESULTS = Path(__file__).resolve().parents[1] / "results" / "dirty.csv"
DIRT = list(dirt.OF_CLASSES | dirt.OF_TARGETS)
METHODS = list(methods.OF_CLASSES | methods.OF_TARGETS)


def chosen(patterns: str, names: Sequence[str]) -> list[str]:
    """Names that match one of the patterns, separated by commas."""
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise argparse.ArgumentTypeError(f"{pattern!r} is none of {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]


def trainings(
    seeds: Sequence[int], data: Sequence[str] = NAMES, kinds: Sequence[str] = DIRT, compared: Sequence[str] = METHODS
) -> Iterator[tuple[str, str, str, int]]:
    """All trainings, one seed after the other."""
    for seed in seeds:
        for name in data:
            of_classes = name in CLASSES
            for kind in dirt.OF_CLASSES if of_classes else dirt.OF_TARGETS:
                for method in methods.OF_CLASSES if of_classes else methods.OF_TARGETS:
                    if kind in kinds and method in compared:
                        yield name, kind, method, seed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dirty.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, RESULTS)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    for option, names in (("data", NAMES), ("dirt", DIRT), ("methods", METHODS)):
        parser.add_argument(f"--{option}", type=lambda text, names=names: chosen(text, names), default=names)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="see that all runs: two small sets, to a temporary file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.epochs, arguments.data = [0], 2, ["iris", "diabetes"]
        arguments.output = Path(tempfile.mkdtemp()) / "dirty.csv"
    if IMAGES not in NAMES:
        print(f"{IMAGES} is skipped: its files aren't there.")
    runs = trainings(arguments.seeds, arguments.data, arguments.dirt, arguments.methods)
    train_missing(runs, train, COLUMNS, arguments)
    print(arguments.output)


if __name__ == "__main__":
    main()
