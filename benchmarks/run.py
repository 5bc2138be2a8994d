"""Run the benchmarks; each case's rows are written to a CSV file as soon as they are measured."""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import torch
from families import FAMILIES, Options
from measure import environment
from tqdm import tqdm

RESULTS = Path(__file__).resolve().parent / "results"
QUICK_RESULTS = Path(tempfile.gettempdir()) / "skbgmd-benchmarks"


def finished(path: Path, columns: list[str], seed: int) -> set[str]:
    """Names of the cases that a CSV file holds for a seed."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise SystemExit(f"{path} has other columns than this version writes: run without --resume.")
        return {row["case"] for row in reader if row["seed"] == str(seed)}


def run_family(name: str, path: Path, options: Options, *, only: str, quick: bool, resume: bool) -> None:
    family, around = FAMILIES[name], environment()
    columns = [*family.columns, "seed", *around]
    done = finished(path, columns, options.seed) if resume else set()
    cases = [case for case in family.cases(quick) if only in case.name and case.name not in done]
    append = resume and path.exists()
    with path.open("a" if append else "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if not append:
            writer.writeheader()
        for case in (progress := tqdm(cases, desc=name)):
            progress.set_postfix_str(case.name)
            for row in family.measure(case, options):
                writer.writerow({**row, "seed": options.seed, **around})
                file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--case", default="", metavar="SUBSTRING", help="only cases whose name holds this")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data (default: %(default)s)")
    parser.add_argument("--limit", type=float, help="seconds a peer's call may take (default: 5; with --quick 0.5)")
    parser.add_argument("--quick", action="store_true", help="small matrices, to see that all of it runs")
    parser.add_argument("--resume", action="store_true", help="keep the rows there are, measure what is missing")
    parser.add_argument("--output", type=Path, help=f"folder of the CSV files (default: {RESULTS.name}/ beside this "
                        "file; with --quick one for temporary files, so that no results are lost)")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1; found {arguments.repeats}.")
    limit = arguments.limit if arguments.limit is not None else 0.5 if arguments.quick else 5.0
    folder = arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    options = Options(arguments.seed, arguments.repeats, limit)
    for name in arguments.family or FAMILIES:
        path = folder / f"{name}.csv"
        run_family(name, path, options, only=arguments.case, quick=arguments.quick, resume=arguments.resume)
        print(path)


if __name__ == "__main__":
    main()
