"""The kernels of ``DenseRows`` that save time or memory, each against its removal: calls timed in turns.

``python benchmarks/kernels.py`` writes results/kernels.csv: for each kernel and each case that uses it, the median
time with it, the median ratio of the times without and with it, and the peak memory of a call either way. Rows of
kernels that were removed since stay in the table. With OMP_WAIT_POLICY=passive a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from measure import environment, in_turns, peak_extra_memory, ratio

from skbgmd import block_geometric_median, geometric_median
from skbgmd._utils import limits
from skbgmd.rows import chunked, dense

HERE = Path(__file__).resolve().parent
COLUMNS = ("kernel", "case", "with, ms", "without / with", "with, MB", "without, MB", "rounds")
SHAPES = (
    *("100x2", "10000x2", "1000x100"),  # in double precision, as from NumPy; the others in single precision
    *("32x2000", "512x5000", "32x116000", "64x116000", "32x1160000", "256x41000", "1024x41000"),
)
CALLS: dict[str, Callable[[Any], Any]] = {
    "median": geometric_median,
    "block": block_geometric_median,
    "block, runs of 64": lambda X: block_geometric_median(X, run_length=64),
}


def without_override(*names: str) -> Callable[[], Any]:
    return lambda: patch.multiple(dense.DenseRows, **{name: getattr(chunked.ChunkedRows, name) for name in names})


#: For each kernel: a method or function that a call enters where it is used, and the patch that removes it.
KERNELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "norms of runs kept for scores": ("_measure_runs", without_override("norms", "run_scores")),
    "norms in one call": ("distances", without_override("distances")),
    "sample without an index": ("_sample", without_override("_sample")),
    "products of pieces in one call": ("_sum_of_products", without_override("_products")),
    "symmetric products in halves": (
        "_sum_of_products",
        lambda: patch.object(limits, "HALVED_PRODUCT_ROWS", sys.maxsize),
    ),
    "weighted sums in one call": ("weighted_sum", without_override("weighted_sum")),
    "squares by the layer norm's gradient": ("_sums_of_squares", without_override("_sums_of_squares")),
    "runs gathered as lines": ("_gather_runs", lambda: patch.object(limits, "GATHERED_RUN", sys.maxsize)),
    "columns gathered to memory at hand": (
        "_gather",
        lambda: patch.object(dense, "_gather", lambda matrix, index, memory: matrix.index_select(1, index)),
    ),
}


def data(shape: str) -> torch.Tensor:
    n, d = map(int, shape.split("x"))
    X = np.random.default_rng(0).standard_normal((n, d)).astype(np.float64 if d <= 100 else np.float32)
    X[: 3 * n // 10] += 100.0
    return torch.from_numpy(X)


def entered(call: Callable[[], Any]) -> set[str]:
    """Names of the functions of dense.py that a call enters."""
    found = set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename == dense.__file__:
            found.add(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def patched(remove: Callable[[], Any], call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with remove():
            return call()

    return run


def memory(shape: str, call: str, kernel: str | None, processes: int) -> float | str:
    """Peak memory of a call, in MB, beyond what was held before: the median over some processes."""
    snippet = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import kernels
torch.set_num_threads({torch.get_num_threads()})
X = kernels.data({shape!r})
call = kernels.CALLS[{call!r}]
""" + (f"kernels.KERNELS[{kernel!r}][1]().start()" if kernel else "")
    found = [peak_extra_memory(snippet) for _ in range(processes)]
    return median(1e-6 * one[0] for one in found) if not isinstance(found[0], str) else found[0]


def measured(shape: str, call_name: str, seconds: float, wanted: str, processes: int) -> Iterator[dict[str, Any]]:
    X = data(shape)

    def call() -> Any:
        return CALLS[call_name](X)

    names = entered(call)
    used = {name: remove for name, (enters, remove) in KERNELS.items() if enters in names and wanted in name}
    if not used:
        return
    calls = {"": call, **{name: patched(remove, call) for name, remove in used.items()}}
    once = sum(times[0] for times in in_turns(calls, 1).values())
    rounds = int(np.clip(seconds / max(once, 0.02 * len(calls)), 7, 41))
    times = in_turns(calls, rounds)
    large = processes > 0 and X.numel() >= 1 << 21
    base = memory(shape, call_name, None, processes) if large else ""
    for name in used:
        without = memory(shape, call_name, name, processes) if large else ""
        values = (name, f"{call_name} {shape}", 1e3 * median(times[""]), ratio(times[name], times[""]), base, without)
        yield dict(zip(COLUMNS, (*(f"{v:.4g}" if isinstance(v, float) else v for v in values), rounds), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for the rounds of a case")
    parser.add_argument("--processes", type=int, default=3, help="that measure memory")
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--kernel", default="", help="only kernels whose name holds this")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "kernels.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    around = environment()
    removed = []
    if arguments.output.exists():
        with arguments.output.open(newline="") as file:
            removed = [row for row in csv.DictReader(file) if row["kernel"] not in KERNELS]
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        writer.writeheader()
        writer.writerows(removed)
        for shape in SHAPES:
            for call in CALLS if int(shape.split("x")[1]) >= 100 else ["median"]:
                if arguments.case in f"{call} {shape}":
                    for row in measured(shape, call, arguments.seconds, arguments.kernel, arguments.processes):
                        writer.writerow({**row, **around})
                        file.flush()
                        print(*row.values(), sep="\t", flush=True)


if __name__ == "__main__":
    main()
