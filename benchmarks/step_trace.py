"""The way of a default training step through the package: files entered, returns into another file, depth.

``python benchmarks/step_trace.py`` traces a steady step of ``BlockGMDClassifier`` and writes
results/step_trace.csv; with ``--returns`` it prints which functions return into another file.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment

import skbgmd
from skbgmd import BlockGMDClassifier

ROOT = Path(skbgmd.__file__).parent


class Trace:
    """A profile function that follows calls from file to file of the package."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.files: set[str] = set()
        self.returns: Counter[tuple[str, str]] = Counter()
        self.n_calls = self.depth = 0

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if ROOT not in path.parents or event not in ("call", "return"):
            return
        file = str(path.relative_to(ROOT))
        if event == "call":
            self.stack.append(file)
            self.files.add(file)
            self.n_calls += 1
            self.depth = max(self.depth, len(self.stack))
        elif self.stack:
            self.stack.pop()
            if self.stack and self.stack[-1] != file:
                self.returns[f"{file}: {frame.f_code.co_name}", self.stack[-1]] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--returns", action="store_true", help="list the returns into another file")
    arguments = parser.parse_args()
    X = np.random.default_rng(0).normal(size=(256, 20)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    net = BlockGMDClassifier(max_epochs=30, batch_size=256, random_state=0).fit(X, y).net_
    data = net.get_dataset(X, y)
    batch = next(iter(net.get_iterator(data, training=True)))
    net.notify("on_train_begin", X=data, y=None)
    net.notify("on_epoch_begin", dataset_train=data, dataset_valid=None)
    for _ in range(5):  # until nothing is set up any more
        net.train_step(batch)
        net.aggregator_.commit()
    trace = Trace()
    sys.setprofile(trace)
    net.train_step(batch)
    sys.setprofile(None)
    counts = {
        "files": len(trace.files),
        "calls": trace.n_calls,
        "returns into another file": trace.returns.total(),
        "depth": trace.depth,
    }
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    row = {**counts, **environment()}
    with (Path(__file__).parent / "results" / "step_trace.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    if arguments.returns:
        for (function, file), count in trace.returns.most_common():
            print(f"{count:3d}  {function} -> {file}")


if __name__ == "__main__":
    main()
