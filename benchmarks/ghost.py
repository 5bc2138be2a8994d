"""Steps with a row for each sample: against plain steps, against Opacus and per-sample gradients by vmap.

Rows of results/ghost.csv: medians over rounds in which all variants take turns, and of the ratios to the plain step of
the same module, batch and round; with one thread in processor time, which other processes disturb less. Medians are as
accurate as the estimators'. Peak memory is above what plain steps left in use.

The default is measured with a scale that decays, as in most steps of a training, and with one that rises, as in the
first. With ``--device cuda`` rows go to results/ghost_cuda.csv, and say as well how often a step waits for the device.
Opacus (``pip install "opacus>=1.5"``, left out where it is missing) has its ghost clipping and layers of its own in the
place of recurrent layers and attention; it and torch.func end with a clipped mean.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, ratio
from threadpoolctl import threadpool_limits
from torch import nn
from torch.func import functional_call, grad, vmap

from skbgmd import RobustNeuralNetClassifier, geometric_median
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, Mean
from skbgmd.aggregators.memory import Scale
from skbgmd.training._strength.defaults import HUBER_OF_CLASSES, TOL, default_rule
from skbgmd.training.networks import LeNet

RESULTS = Path(__file__).resolve().parent / "results" / "ghost.csv"
BATCH = 256


class Encoder(nn.Module):
    """A transformer encoder of two layers, and a linear layer on the mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.encoder(x).mean(dim=1))
        return result


class Recurrent(nn.Module):
    """A recurrent layer, and a linear layer on where it ends."""

    def __init__(self, kind: type[nn.LSTM] = nn.LSTM) -> None:
        super().__init__()
        self.recurrent = kind(16, 32, batch_first=True)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.recurrent(x)[0][:, -1])
        return result


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP 784-512-256-10": (perceptron, (784,)),
    "LeNet": (LeNet, (1, 28, 28)),
    "transformer (32, 64)": (Encoder, (32, 64)),
    "LSTM (20, 16)": (Recurrent, (20, 16)),
}
BY_PASSES = "geometric median, a pass for each sample"
VARIANTS: dict[str, tuple[Any, int | None, str]] = {
    "plain": (Mean(), None, "auto"),
    "geometric median": (GeometricMedian(tol=TOL), 1, "one_pass"),
    "Huber, the default": (default_rule(huber=HUBER_OF_CLASSES, of_samples=True), 1, "one_pass"),
    "Huber, the scale rises": (default_rule(huber=HUBER_OF_CLASSES, of_samples=True), 1, "one_pass"),
    "block of units, beta=0.1": (BlockGeometricMedian(0.1, GeometricMedian(tol=TOL), block="unit"), 1, "one_pass"),
    "block of coordinates, beta=0.1": (BlockGeometricMedian(0.1, GeometricMedian(tol=TOL)), 1, "one_pass"),
    BY_PASSES: (GeometricMedian(tol=TOL), 1, "micro_batches"),
    "median, groups of 32, one pass": (GeometricMedian(tol=TOL), 32, "one_pass"),
    "median, groups of 32, micro-batches": (GeometricMedian(tol=TOL), 32, "micro_batches"),
}

#: Size of the remembered scale, in that of the step: larger once the network has learned something.
SCALES = {"Huber, the default": 1.5, "Huber, the scale rises": 1.0}
OPACUS, BY_FUNC = "Opacus, ghost clipping", "torch.func, clipped mean"

#: Networks whose gradients are also written out by vmap.
BY_VMAP = ("MLP 784-512-256-10", "LeNet")
WITH_RULES = (*BY_VMAP, "transformer (32, 64)")
SLOW = ("block of coordinates, beta=0.1", BY_PASSES, BY_FUNC, "vmap and median")


def data(shape: tuple[int, ...], device: str = "cpu", n: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn((n, *shape), generator=generator), torch.randint(10, (n,), generator=generator)
    return X.to(device), y.to(device)


def stepper(module: nn.Module, batch: Any, variant: str, **params: Any) -> Callable[[], Any]:
    """A training step; ``params`` of the net other than the variant's."""
    aggregator, group_size, gradients = VARIANTS[variant]
    net = RobustNeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        **{"aggregator": aggregator, "group_size": group_size, "gradients": gradients, **params},
        lr=0.01,
        device=batch[1].device,
        random_state=0,
        verbose=0,
    ).initialize()
    if variant in SCALES:
        for _ in range(5):
            net.train_step(batch)
            net.aggregator_.commit()
        found = net.aggregator_.state
        net.aggregator_.state = Scale(SCALES[variant] * found.value, found.recent)
    return lambda: net.train_step(batch)


def with_opacus(module: nn.Module, batch: Any) -> Callable[[], Any]:
    """A step of Opacus's with ghost clipping and without noise."""
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
    from opacus.validators import ModuleValidator

    own = ModuleValidator.fix(copy.deepcopy(module)).train()
    wrapped = GradSampleModuleFastGradientClipping(own, batch_first=True, max_grad_norm=1.0, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(wrapped.parameters(), lr=0.01),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        expected_batch_size=BATCH,
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss())

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def clipped_mean(rows: torch.Tensor) -> torch.Tensor:
    norms = torch.linalg.vector_norm(rows, dim=1)
    return (1.0 / norms.clamp_min(1.0)) @ rows / len(rows)


def by_vmap(module: nn.Module, batch: Any, location: Callable[..., Any]) -> Callable[[], Any]:
    """Per-sample gradients written out, and a location of them."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(module, values, (x[None],)), y[None])

    per_sample = vmap(grad(loss), (None, 0, 0), randomness="different")

    def step() -> Any:
        gradients = per_sample(parameters, *batch)
        return location(torch.cat([value.flatten(1) for value in gradients.values()], dim=1))

    return step


def has_recurrent(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.RNNBase) for layer in module.modules())


median_at_tol = partial(geometric_median, tol=TOL)


def clock_of(device: str) -> Callable[[], float]:
    """Seconds: of the processor where one thread does all, else of the wall, once the device is idle."""
    if device == "cpu":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def waits_of(step: Callable[[], Any]) -> int:
    """How often a step on a CUDA device waits for it."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def steps(rounds: int, names: list[str], device: str) -> list[dict[str, Any]]:
    """Times of steps, all variants in turn."""
    clock = clock_of(device)
    rows = []
    for name in names:
        make, shape = MODULES[name]
        torch.manual_seed(0)
        module, batch = make().to(device), data(shape, device)
        # Where there are rules, passes for each sample would only be slower than vmap, and take as much memory.
        variants = [variant for variant in VARIANTS if variant != BY_PASSES or name not in WITH_RULES]
        runs = {variant: stepper(module, batch, variant) for variant in variants}
        if find_spec("opacus") is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs[OPACUS] = with_opacus(module, batch)
        if device == "cpu" or not has_recurrent(module):  # on a device torch's recurrent layers can't be called so
            runs[BY_FUNC] = by_vmap(module, batch, clipped_mean)
        if name in BY_VMAP:
            runs["vmap and median"] = by_vmap(module, batch, median_at_tol)
        times: dict[str, list[float]] = {variant: [] for variant in runs}
        for _ in range(rounds):
            for variant, run in runs.items():
                # These would take most of the time, and are not what is compared closely.
                if variant in SLOW and len(times[variant]) >= 4:
                    continue
                start = clock()
                run()
                times[variant].append(clock() - start)
        for variant, values in times.items():
            of_plain = times["plain"][1 : len(values)]
            line = {"ms": 1e3 * float(np.median(values[1:])), "ratio": ratio(values[1:], of_plain)}
            if device != "cpu":
                line["waits"] = waits_of(runs[variant])
            rows.append({"case": name, "variant": variant, **line})
    return rows


def memory_of(name: str, variant: str, device: str) -> float:
    """Peak memory of two steps above what two plain ones left, in MB; of the processor's, in a process of its own."""
    torch.set_num_threads(1)
    make, shape = MODULES[name]
    module, batch = make().to(device), data(shape, device)
    plain = stepper(module, batch, "plain")
    plain()
    plain()
    before = torch.cuda.memory_allocated() / 1024.0 if device != "cpu" else _status("VmRSS")
    # The peak starts anew.
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats()
    by_func = variant == "vmap and median"
    run = by_vmap(module, batch, median_at_tol) if by_func else stepper(module, batch, variant)
    run()
    run()
    peak = torch.cuda.max_memory_allocated() / 1024.0 if device != "cpu" else _status("VmHWM")
    return (peak - before) / 1024.0


def _status(name: str) -> float:
    """A figure of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


def memories(names: list[str], device: str) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        for variant in (
            "plain",
            "geometric median",
            "Huber, the default",
            "block of units, beta=0.1",
            "vmap and median",
        ):
            with get_context("spawn").Pool(1) as pool:
                rows.append(
                    {"case": name, "variant": variant, "peak MB": pool.apply(memory_of, (name, variant, device))}
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="*", choices=MODULES, help="only these; other lines of the file stay")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, names = arguments.device, arguments.networks or list(MODULES)
    output = arguments.output or RESULTS.with_stem("ghost" if device == "cpu" else "ghost_cuda")
    known, columns = environment(device), ["case", "variant", "ms", "ratio", "peak MB"]
    if device != "cpu":
        columns.append("waits")
    others: list[dict[str, Any]] = []
    if arguments.networks and output.exists():
        with output.open(newline="") as file:
            others = [line for line in csv.DictReader(file) if line["case"] not in names]
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *known])
        writer.writeheader()
        writer.writerows(others)
        for name in names:
            # Threads of NumPy's products would wait for work, and processor time counts that.
            with threadpool_limits(arguments.threads):
                rows = [*steps(arguments.rounds, [name], device), *memories([name] if name in BY_VMAP else [], device)]
            for row in rows:
                rounded = {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in row.items()}
                writer.writerow({**rounded, **known})
            file.flush()


if __name__ == "__main__":
    main()
