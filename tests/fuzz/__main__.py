"""Run random cases: ``python -m tests.fuzz --seed 0 --cases 30000``; one again: ``--seed N --cases 1``."""

from __future__ import annotations

import argparse
import collections
import time
import traceback

import torch

from .checks import check, draw


def main() -> int:
    """Run the cases, print each failure with its seed, and count them."""
    parser = argparse.ArgumentParser(description="Random cases of every magnitude, dtype and layout.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the others count on")
    parser.add_argument("--cases", type=int, default=30_000)
    parser.add_argument("--only", help="only those of a target: geometric median, block, rule, attack or steps")
    parser.add_argument("--trace", action="store_true", help="print where a failure comes from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failures: collections.Counter[str] = collections.Counter()
    start, n_run = time.perf_counter(), 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        case = draw(seed)
        if arguments.only not in (None, case.target):
            continue
        n_run += 1
        try:
            check(case)
        except Exception as error:  # whatever goes wrong is what is looked for
            failures[case.target] += 1
            print(f"{case}\n    {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
            if arguments.trace:
                traceback.print_exc()
    spent = time.perf_counter() - start
    print(f"{n_run} cases from seed {arguments.seed}: {sum(failures.values())} failures in {spent:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
