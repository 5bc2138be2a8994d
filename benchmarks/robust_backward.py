"""Steps of a plain PyTorch loop with ``robust_backward`` in the place of ``backward``: against plain steps.

Rows of results/robust_backward.csv, and a table in docs/results: medians over rounds in which all variants take turns,
and of the ratios to the plain step of the same round; with one thread in processor time. Each variant trains a copy of
the network on the same batch of 256, so that the default's scale is that of a training; the comparisons of a recorder's
first steps are in the rounds.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import environment, ratio
from paper.report import DOCS, write
from torch import nn

from ghost import BY_VMAP, MODULES, data
from skbgmd import robust_backward
from skbgmd.ghost import GradientRecorder

RESULTS = Path(__file__).resolve().parent / "results" / "robust_backward.csv"
RECORDERS = ("auto", "geometric_median")
#: Rounds, besides the first, of what takes a pass for each sample.
ROUNDS_OF_PASSES = 1


def stepper(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], variant: str) -> Callable[[], None]:
    """A step of a variant: "plain", a rule with a recorder, or a rule with the parameters."""
    net = copy.deepcopy(module)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    recorder, state, (X, y) = GradientRecorder(net), None, batch
    rule, _, way = variant.partition(", ")

    def step() -> None:
        nonlocal state, recorder
        optimizer.zero_grad()
        if way == "a recorder for each step":
            recorder = GradientRecorder(net)
        if way.startswith("a recorder"):
            with recorder:
                losses = nn.functional.cross_entropy(net(X), y, reduction="none")
        else:
            losses = nn.functional.cross_entropy(net(X), y, reduction="none")
        if rule == "plain":
            losses.mean().backward()
        else:
            _, state = robust_backward(
                losses, recorder if way.startswith("a recorder") else net.parameters(), rule, state
            )
        optimizer.step()

    return step


def times(name: str, rounds: int) -> list[dict[str, object]]:
    """Times of the steps of one network, all variants in turn."""
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module, batch = make(), data(shape)
    by_passes = "auto, net.parameters()"
    variants = ["plain", *(f"{rule}, a recorder" for rule in RECORDERS), "auto, a recorder for each step", by_passes]
    steps = {variant: stepper(module, batch, variant) for variant in variants}
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(rounds + 1):
        for variant, step in steps.items():
            if variant == by_passes and number > ROUNDS_OF_PASSES:
                continue
            start = time.process_time()
            step()
            seconds[variant].append(time.process_time() - start)
    # The first round warms up.
    return [
        {"case": name, "variant": variant, "ms": 1e3 * float(np.median(values[1:]))}
        | {"ratio": ratio(values[1:], seconds["plain"][1 : len(values)])}
        for variant, values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [{**row, **environment()} for name in BY_VMAP for row in times(name, arguments.rounds)]
    frame = pd.DataFrame(rows).assign(
        **{key: lambda f, key=key: f[key].map("{:.4g}".format) for key in ("ms", "ratio")}
    )
    frame.to_csv(arguments.output, index=False)
    if arguments.output == RESULTS:
        write(frame[["case", "variant", "ms", "ratio"]], "robust_backward", DOCS)


if __name__ == "__main__":
    main()
