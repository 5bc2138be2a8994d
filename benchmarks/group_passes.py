"""Steps by one pass for all groups against steps by a pass for each group, over sizes of groups.

Rows of results/group_passes.csv: medians over rounds in which the two and a plain step take turns. What
``gradients="auto"`` takes rests on them. With ``--device cuda`` batches are larger, as they are there, and rows go to
results/group_passes_cuda.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import environment, in_turns, ratio
from torch import nn

from ghost import BATCH, MODULES, Recurrent, data, stepper

RESULTS = Path(__file__).resolve().parent / "results" / "group_passes.csv"
SIZES = {"cpu": (2, 4, 8, 16, 32, 64), "cuda": (8, 32, 64, 128, 256, 512)}
BATCHES = {"cpu": BATCH, "cuda": 2048}


class Convolutions(nn.Module):
    """A small network of two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(800, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second):
            x = torch.max_pool2d(torch.relu(layer(x)), 2)
        result: torch.Tensor = self.last(x.flatten(1))
        return result


def small_perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


class Unruled(nn.LSTM):
    """A recurrent layer for which there is no rule: what has a forward of its own may do anything."""

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        return super().forward(x, hx)


UNRULED = "LSTM (20, 16), no rule"
NETWORKS = MODULES | {
    UNRULED: (lambda: Recurrent(Unruled), (20, 16)),
    "two convolutions": (Convolutions, (1, 28, 28)),
    "MLP 64-100-10": (small_perceptron, (64,)),
}


def compare(name: str, size: int, rounds: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module, batch = make().to(device), data(shape, device, BATCHES[device])
    ways = ("one_pass", "micro_batches")
    runs = {way: stepper(module, batch, "geometric median", group_size=size, gradients=way) for way in ways}
    runs["plain"] = stepper(module, batch, "plain")
    times = in_turns({way: partial(finished, step, device) for way, step in runs.items()}, rounds)
    return {
        "network": name,
        "samples in a group": size,
        "one pass, of plain": ratio(times["one_pass"], times["plain"]),
        "micro-batches, of plain": ratio(times["micro_batches"], times["plain"]),
        "one pass, of micro-batches": ratio(times["one_pass"], times["micro_batches"]),
    }


def finished(step: Callable[[], Any], device: str) -> None:
    """Make a step, and wait for the device."""
    step()
    if device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    output = arguments.output or RESULTS.with_stem("group_passes" if device == "cpu" else "group_passes_cuda")
    with output.open("w", newline="") as file:
        writer = None
        # On a device torch can't differentiate its recurrent layers for each sample.
        for name in [name for name in NETWORKS if device == "cpu" or name != UNRULED]:
            for size in SIZES[device]:
                row = compare(name, size, arguments.rounds, device)
                rounded = {
                    key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in row.items()
                }
                writer = writer or _headed(file, [*rounded, "rounds", "seed", *environment(device)])
                writer.writerow({**rounded, "rounds": arguments.rounds, "seed": 0, **environment(device)})
                file.flush()
                print(rounded)


def _headed(file: Any, columns: list[str]) -> Any:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    return writer


if __name__ == "__main__":
    main()
