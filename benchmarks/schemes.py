"""Centered clipping, trimmed losses, RSA and BRIDGE: what their papers show, measured with ours, and what they cost.

A row of results/schemes.csv is a number: of a scheme, a case, a rule and a seed. Run again it goes on where it was.
Costs are process times of one thread, in ms, medians of calls in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from digits import digits
from paper.report import DOCS, write
from resume import add_options, train_missing

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import Aggregator, CenteredClipping, CoordinatewiseMedian, GeometricMedian, Krum, Mean
from skbgmd.corruption import corrupt_labels
from skbgmd.distributed.bridge import bridge_step, screen
from skbgmd.distributed.rsa import master_step, rsa_step, signs, worker_step
from skbgmd.rows import DenseRows
from skbgmd.training import TrimmedLoss

RESULTS = Path(__file__).resolve().parent / "results" / "schemes.csv"
COLUMNS = ("scheme", "case", "rule", "seed", "value", "seconds")
SEEDS, ROUNDS = 3, 5


def draws(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Centered clipping: skewed noise, and liars within its spread.

CLIPPED: dict[str, Callable[[], Aggregator]] = {
    "coordinate-wise median": CoordinatewiseMedian,
    "geometric median": GeometricMedian,
    "Krum": lambda: Krum(0.2),
    "centered clipping, radius 1": lambda: CenteredClipping(1.0),
    "centered clipping": CenteredClipping,
}
MOMENTA = {"gradients": 0.0, "momenta": 0.99}


def clipping(case: str, rule: str, seed: int) -> float:
    """Where ten workers end on (x - 1)^2 / 2, two of which lie: the mean of the last half of 800 steps."""
    rng, aggregate = np.random.default_rng(seed), CLIPPED[rule]()
    x, state, sent, found, momentum = 0.0, None, np.zeros(8), [], MOMENTA[case]
    for _ in range(800):
        noise = np.where(rng.random(8) < 0.1, 9.0, -1.0)
        sent = momentum * sent + (1.0 - momentum) * (x - 1.0 + noise)
        every = np.append(sent, np.full(2, sent.mean() - 0.5 * sent.std()))
        made, state = aggregate(DenseRows(torch.from_numpy(every[:, None])), state)
        x -= 0.02 * float(made.vector)
        found.append(x)
    return float(np.mean(found[400:]))


# Iterative trimmed loss: digits with wrong labels.

LABELS: dict[str, tuple[float, str]] = {
    "40 % uniformly wrong": (0.4, "uniform"),
    "20 % of the next class": (0.2, "pair"),
    "40 % of the next class": (0.4, "pair"),
    "clean": (0.0, "uniform"),
}
TRIMMED: dict[str, int | None] = {"plain training": None, "warm_up=3": 3, "warm_up=10": 10}


def trimming(case: str, rule: str, seed: int) -> float:
    """Test accuracy after 200 epochs."""
    X, X_test, y, y_test = digits(seed)
    share, kind = LABELS[case]
    y, _ = corrupt_labels(y, fraction=share, kind=kind, random_state=seed)
    warm_up = TRIMMED[rule]
    callbacks = [] if warm_up is None else [TrimmedLoss(share or 0.2, warm_up=warm_up)]
    model = BlockGMDClassifier(
        aggregator="mean", group_size=None, strength=None, max_epochs=200, callbacks=callbacks, random_state=seed
    )
    return 100.0 * float(model.fit(X, y).score(X_test, y_test))


# RSA: quadratic losses, and softmax regression.

RSA_ATTACKS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "nan": lambda master, honest: torch.full_like(master, torch.nan),
    "inf": lambda master, honest: torch.full_like(master, torch.inf),
    "far": lambda master, honest: torch.full_like(master, -1e30),
    "against": lambda master, honest: 2.0 * master - honest.mean(dim=0),
    "near": lambda master, honest: master - 1e-6,
    "silent": lambda master, honest: master.clone(),
}
PENALTY, N_WORKERS, N_HOSTILE = 0.5, 9, 3
SOFTMAX = {"mean": None, "geometric median": None, "RSA, 0.005": 0.005, "RSA, 0.02": 0.02, "RSA, 0.1": 0.1}
SPLITS = ("alike, none", "alike, three", "sorted, none", "sorted, three")


def rsa_quadratic(case: str, rule: str, seed: int) -> float:
    """Largest distance of a coordinate from the optimum, eight honest workers and four hostile ones."""
    aims = 2.0 + 0.1 * draws(8, 5, seed)
    master, workers = torch.zeros(5, dtype=torch.float64), torch.zeros(8, 5, dtype=torch.float64)
    for step in range(3000):
        every = torch.cat([workers, RSA_ATTACKS[case](master, workers).expand(4, -1)])
        gradients = torch.cat([workers - aims, torch.zeros(4, 5, dtype=torch.float64)])
        every, master = rsa_step(every, master, gradients, lr=2.0 / (20.0 + step), penalty=PENALTY)
        workers = every[:8]
    return float((master - aims.mean(dim=0)).abs().max())


def softmax(case: str, rule: str, seed: int) -> float:
    """Test accuracy of softmax regression on digits by nine workers, 600 steps with a rate that falls to zero."""
    X, X_test, y, y_test = digits(seed)
    X, X_test, y = torch.from_numpy(X), torch.from_numpy(X_test), torch.from_numpy(y)
    rng = np.random.default_rng(seed)
    split, hostile = case.split(", ")
    order = rng.permutation(len(y)) if split == "alike" else np.argsort(y.numpy(), kind="stable")
    shards, liars = np.array_split(order, N_WORKERS), range(N_WORKERS - N_HOSTILE * (hostile == "three"), N_WORKERS)
    penalty, master = SOFTMAX[rule], torch.zeros(650)
    workers, aggregate = torch.zeros(N_WORKERS, 650), {"mean": Mean, "geometric median": GeometricMedian}.get(rule)
    for step in range(600):
        lr, drawn = 0.5 * (1.0 - step / 600.0), np.stack([rng.choice(own, 32) for own in shards])
        models = (workers if aggregate is None else master.expand(N_WORKERS, -1)).clone().requires_grad_()
        W, b = models[:, :640].view(-1, 64, 10), models[:, 640:]
        scores = torch.baddbmm(b[:, None], X[drawn], W)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y[drawn].flatten(), reduction="sum") / 32.0
        (gradients,) = torch.autograd.grad(loss, models)
        if aggregate is None:
            workers[list(liars)] = -1e6
            workers, master = rsa_step(workers, master, gradients, lr=lr, penalty=penalty or 0.0)
        else:
            gradients[list(liars)] *= -10.0
            master = master - lr * aggregate()(DenseRows(gradients))[0].vector
    found = (X_test @ master[:640].view(64, 10) + master[640:]).argmax(dim=1).numpy()
    return 100.0 * float((found == y_test).mean())


# BRIDGE: three graphs.


def ring(n: int, *steps: int) -> list[list[int]]:
    return [sorted({(rank + sign * step) % n for step in steps for sign in (-1, 1)}) for rank in range(n)]


GRAPHS: dict[str, tuple[list[list[int]], int]] = {
    "ring of 9, chords": (ring(9, 1, 2), 1),
    "complete, 7": ([[other for other in range(7) if other != rank] for rank in range(7)], 2),
    "ring of 12, more chords": (ring(12, 1, 2, 3), 1),
}
BRIDGE_ATTACKS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "nan": lambda models, b: torch.full_like(models[0], torch.nan),
    "far": lambda models, b: torch.full_like(models[0], 1e30),
    "against": lambda models, b: -10.0 * models[b:].mean(dim=0),
    "a little": lambda models, b: models[b:].mean(dim=0) + 1.5 * models[b:].std(dim=0),
}
BRIDGE_FIGURES = ("one aim: off", "own aims: disagreement", "own aims: off", "own aims: spread")


def bridge(case: str, rule: str, seed: int) -> float:
    """How far honest nodes are from each other's mean, and from the optimum."""
    graph, b = GRAPHS[case.split(" | ")[0]]
    attack, steps = BRIDGE_ATTACKS[case.split(" | ")[1]], 150 if rule.startswith("one") else 500
    aims = draws(1, 4, seed).repeat(len(graph), 1) if rule.startswith("one") else 3.0 + draws(len(graph), 4, seed)
    models = 5.0 * draws(len(graph), 4, 9)
    for step in range(steps):
        models[:b] = attack(models, b)
        models = bridge_step(models, models - aims, graph, lr=3.0 / (10.0 + step), n_hostile=b)
    found, honest = models[b:], aims[b:]
    return {
        BRIDGE_FIGURES[0]: lambda: float((found - honest).abs().max()),
        BRIDGE_FIGURES[1]: lambda: float((found - found.mean(dim=0)).abs().max()),
        BRIDGE_FIGURES[2]: lambda: float((found.mean(dim=0) - honest.mean(dim=0)).norm()),
        BRIDGE_FIGURES[3]: lambda: float(honest.std(dim=0).norm()),
    }[rule]()


# Costs.

SHAPES = {"32 x 1,000,000": (32, 1_000_000), "256 x 100,000": (256, 100_000), "1024 x 41,000": (1024, 41_000)}
COSTS: dict[str, Callable[[], Aggregator]] = {
    "mean": Mean,
    "centered clipping": CenteredClipping,
    "geometric median": GeometricMedian,
    "Krum": lambda: Krum(0.2),
    "coordinate-wise median": CoordinatewiseMedian,
}


def cost(case: str, rule: str, seed: int) -> float:
    """Process time of a call after the first, ms: median of five."""
    if case in SHAPES:
        matrix = torch.randn(SHAPES[case], generator=torch.Generator().manual_seed(seed))
        aggregator, state = COSTS[rule](), None
        _, state = aggregator(DenseRows(matrix), state)
        return milliseconds(lambda: aggregator(DenseRows(matrix), state))
    d, n = 1_000_000, 4 if rule == "4" else 8
    models, own, gradient = torch.randn(n, d), torch.randn(d), torch.randn(d)
    if case == "BRIDGE, screening":
        return milliseconds(lambda: screen(own, models, 1))
    sent = signs(models, own)

    def step() -> None:
        signs(models[0], own)
        worker_step(models[0], own, gradient, lr=0.1, penalty=0.1)
        master_step(own, sent, lr=0.1, penalty=0.1, weight_decay=0.0)

    return milliseconds(step)


def milliseconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000.0 * float(np.median(times[1:]))


SCHEMES: dict[str, tuple[Callable[[str, str, int], float], Sequence[str], Sequence[str], int]] = {
    "centered clipping": (clipping, tuple(MOMENTA), tuple(CLIPPED), SEEDS),
    "RSA, quadratic": (rsa_quadratic, tuple(RSA_ATTACKS), ("RSA",), SEEDS),
    "RSA, softmax": (softmax, SPLITS, tuple(SOFTMAX), SEEDS),
    "BRIDGE": (bridge, [f"{g} | {a}" for g in GRAPHS for a in BRIDGE_ATTACKS], BRIDGE_FIGURES, SEEDS),
    "cost of exchange": (cost, ("BRIDGE, screening", "RSA, signs and steps"), ("4", "8"), 1),
    "cost": (cost, tuple(SHAPES), tuple(COSTS), 1),
    "trimmed loss": (trimming, tuple(LABELS), tuple(TRIMMED), SEEDS),
}


def measured(scheme: str, case: str, rule: str, seed: int) -> dict[str, Any]:
    """One row of the results."""
    start = time.process_time()
    value = SCHEMES[scheme][0](case, rule, seed)
    return {"value": f"{value:.6g}", "seconds": round(time.process_time() - start, 2)}


def numbers(schemes: Sequence[str]) -> Iterator[tuple[str, str, str, int]]:
    for scheme in schemes:
        _, cases, rules, seeds = SCHEMES[scheme]
        for case in cases:
            for rule in rules:
                for seed in range(seeds):
                    yield scheme, case, rule, seed


def table(frame: pd.DataFrame, scheme: str, digits: int) -> pd.DataFrame:
    """Cases by rules: means and standard deviations over the seeds."""
    _, cases, rules, _ = SCHEMES[scheme]
    some = frame[frame["scheme"] == scheme].groupby(["case", "rule"])["value"]
    mean, spread = some.mean().unstack(), some.std().unstack()
    shown = mean.map(lambda value: f"{value:.{digits}f}")
    if spread.notna().any(axis=None):
        shown = shown + " ± " + spread.map(lambda value: f"{value:.{digits}f}")
    return shown.reindex(index=list(cases), columns=list(rules)).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemes", default=",".join(SCHEMES).replace("RSA, ", "RSA: "))
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [name.replace("RSA: ", "RSA, ") for name in arguments.schemes.split(",")]
    train_missing(numbers(chosen), measured, COLUMNS, arguments)
    frame = pd.read_csv(arguments.output, keep_default_na=False)  # "nan" is the name of an attack
    for scheme, name, decimals in (
        ("centered clipping", "schemes_clipping", 2),
        ("trimmed loss", "schemes_trimmed", 1),
        ("RSA, softmax", "schemes_rsa", 1),
        ("cost", "schemes_cost", 0),
    ):
        if (frame["scheme"] == scheme).any():
            write(table(frame, scheme, decimals), name, DOCS)
    for scheme in ("RSA, quadratic", "BRIDGE", "cost of exchange"):
        some = frame[frame["scheme"] == scheme]
        print(some.groupby(["case", "rule"])["value"].agg(["min", "max"]))


if __name__ == "__main__":
    main()
