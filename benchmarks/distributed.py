"""Bytes, step times and memory of DistributedDataParallel with a robust hook, beside plain DDP's in the same processes.

``python benchmarks/distributed.py`` starts 2, 4 and 8 gloo processes on this machine, one thread each. Bytes are those
that the hook counts, over a ring all-reduce's ``2 (p - 1) / p`` of the gradient's; as a check, those that went over the
loopback device in a step, of which other traffic on the machine is a part: the least of all rounds counts. Steps are
timed in turns, and ratios are medians of the ratios of each round. Peak memory is that of processes of their own.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import re
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from measure import environment, ratio
from paper.report import DOCS, write
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from skbgmd.distributed import RobustHook, robust_hook

RESULTS = Path(__file__).resolve().parent / "results" / "distributed.csv"
#: Layers by the number of parameters that they have, about.
NETS = {
    "10k": (64, 128, 10),
    "30k": (64, 384, 10),
    "100k": (128, 512, 64),
    "300k": (256, 768, 128),
    "1M": (256, 1024, 640, 128),
    "16M": (1024,) * 17,
}
#: The net of which memory is measured, in buckets of 4 MB: larger than what a process takes besides.
LARGE, LARGE_BUCKET = "16M", 4.0
METHODS: dict[str, dict[str, Any] | None] = {
    "DDP": None,
    "geometric_median": {},
    "geometric_median, bfloat16": {"transport_dtype": torch.bfloat16},
    "geometric_median, beta=0.1": {"beta": 0.1},
}
COLUMNS = (
    "ranks",
    "parameters",
    "method",
    "bytes per rank",
    "over ring all-reduce",
    "loopback bytes per rank",
    "loopback over DDP",
    "relative error",
    "step, ms",
    "step over DDP",
    "peak MB",
    "peak beyond DDP, gradients",
    "rounds",
    "seed",
)


def net_of(name: str, seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    sizes = NETS[name]
    layers = [(torch.nn.Linear(a, b), torch.nn.ReLU()) for a, b in pairwise(sizes)]
    return torch.nn.Sequential(*[part for pair in layers for part in pair][:-1])


def wrapped(name: str, method: str, seed: int, **more: Any) -> tuple[DistributedDataParallel, RobustHook | None]:
    ddp, settings = DistributedDataParallel(net_of(name, seed), **more), METHODS[method]
    hook = None if settings is None else RobustHook("geometric_median", **settings)
    if hook is not None:
        ddp.register_comm_hook(hook, robust_hook)
    return ddp, hook


def step(ddp: DistributedDataParallel, x: torch.Tensor) -> None:
    ddp.zero_grad()
    ddp(x).square().mean().backward()


def gradient_of(ddp: DistributedDataParallel) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in ddp.parameters()])


def loopback() -> int:
    """Bytes that the loopback device of this machine has sent."""
    return int(re.search(r"lo:\s*(\d+)", Path("/proc/net/dev").read_text())[1])


def compare(rank: int, size: int, name: str, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Bytes and times of all methods, in turns."""
    models = {method: wrapped(name, method, seed) for method in METHODS}
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    x = torch.randn(64, NETS[name][0], generator=generator)
    for ddp, _ in models.values():
        # DDP makes new buckets after the first step.
        for _ in range(2):
            step(ddp, x)
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    wires: dict[str, list[int]] = {method: [] for method in METHODS}
    counted: dict[str, int] = {}
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        x = torch.randn(64, NETS[name][0], generator=generator)
        for method, (ddp, hook) in models.items():
            before = 0 if hook is None else hook.exchange_.traffic.sent
            dist.barrier()
            wire = loopback()
            # Nobody begins before it is read, nor goes on before it is read again.
            dist.barrier()
            begin = time.perf_counter()
            step(ddp, x)
            dist.barrier()
            times[method].append(time.perf_counter() - begin)
            wires[method].append(loopback() - wire)
            dist.barrier()
            counted[method] = 0 if hook is None else hook.exchange_.traffic.sent - before
        exact = gradient_of(models["geometric_median"][0])
        for method, (ddp, _) in models.items():
            errors[method].append(float((gradient_of(ddp) - exact).norm() / exact.norm()))
    d = len(exact)
    ring = 2 * 4 * d * (size - 1) / size
    counted["DDP"] = round(ring)
    return [
        {
            "ranks": size,
            "parameters": d,
            "method": method,
            "bytes per rank": counted[method],
            "over ring all-reduce": round(counted[method] / ring, 4),
            "loopback bytes per rank": round(min(wires[method]) / size),
            "loopback over DDP": round(min(wires[method]) / min(wires["DDP"]), 4),
            # What a block leaves out isn't lost.
            "relative error": "" if method == "DDP" or "beta" in method else f"{median(errors[method]):.2e}",
            "step, ms": round(1000 * median(times[method]), 2),
            "step over DDP": round(ratio(times[method], times["DDP"]), 3),
            "rounds": rounds,
            "seed": seed,
        }
        for method in METHODS
    ]


def compare_all(rank: int, size: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    return [row for name in NETS if name != LARGE for row in compare(rank, size, name, rounds, seed)]


def peak(rank: int, size: int, name: str, method: str, seed: int) -> int:
    """Peak resident bytes of this process over some steps."""
    ddp, _ = wrapped(name, method, seed, bucket_cap_mb=LARGE_BUCKET)
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    for _ in range(5):
        step(ddp, torch.randn(64, NETS[name][0], generator=generator))
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def on_rank(function: Any, rank: int, size: int, where: str, queue: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", where, rank=rank, world_size=size)
    queue.put((rank, function(rank, size, *arguments)))
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(function: Any, size: int, *arguments: Any) -> list[Any]:
    """What a function gives on each rank."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        queue, where = context.Queue(), f"file://{folder}/store"
        processes = [
            context.Process(target=on_rank, args=(function, rank, size, where, queue, arguments), daemon=True)
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        found = dict(queue.get() for _ in processes)
        for process in processes:
            process.join()
    return [found[rank] for rank in range(size)]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of the documentation: a line for each number of ranks and parameters."""
    values = {"bytes": "over ring all-reduce", "step": "step over DDP", "error": "relative error"}
    lines = []
    for (size, d), rows in frame.groupby(["ranks", "parameters"], sort=False):
        exact, half, block = (rows.set_index("method").loc[method] for method in list(METHODS)[1:])
        line: dict[str, Any] = {"ranks": size, "parameters": f"{d:,}"}
        line |= {"bytes": exact[values["bytes"]], "bytes, bfloat16": half[values["bytes"]]}
        line |= {"bytes, beta=0.1": block[values["bytes"]], "step": exact[values["step"]]}
        line |= {"step, bfloat16": half[values["step"]], "step, beta=0.1": block[values["step"]]}
        line |= {"error, bfloat16": half[values["error"]], "memory": exact["peak beyond DDP, gradients"]}
        line |= {"memory, beta=0.1": block["peak beyond DDP, gradients"]}
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4,8")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sizes = list(map(int, arguments.ranks.split(",")))
    # The threads of a rank.
    torch.set_num_threads(1)
    around, seed = environment(), arguments.seed
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        writer.writeheader()
        d = sum(p.numel() for p in net_of(LARGE, seed).parameters())
        for size in tqdm(sizes):
            rows = on_ranks(compare_all, size, arguments.rounds, seed)[0]
            peaks = {method: median(on_ranks(peak, size, LARGE, method, seed)) for method in METHODS}
            for method, most in peaks.items():
                beyond = round((most - peaks["DDP"]) / (4 * d), 2)
                own = {"ranks": size, "parameters": d, "method": method, "rounds": 1, "seed": seed}
                rows.append({**own, "peak MB": round(most / 1e6, 1), "peak beyond DDP, gradients": beyond})
            writer.writerows({**row, **around} for row in rows)
            file.flush()
    if arguments.output == RESULTS:
        write(table(pd.read_csv(RESULTS)), "distributed", DOCS)


if __name__ == "__main__":
    main()
