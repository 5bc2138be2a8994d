"""Table 1: what an aggregation costs, and how many corrupt rows it stands, both measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from measure import in_turns

from paper.cases import Protocol
from paper.methods import ALL, methods
from skbgmd.aggregators import Aggregator, BlockGeometricMedian, GeometricMedian
from skbgmd.corruption import AdditiveNoise, BitFlip, ConstantRows, DecoyBlock, GradientCorruption
from skbgmd.rows import DenseRows

#: Weiszfeld in R^d as the published code has it: until the objective changes by less than eps, or so many steps.
WEISZFELD_STEPS = 100
ROUNDS = 5
#: Rows, columns and steps that breakdown is looked for with.
BREAKDOWN_ROWS, BREAKDOWN_COLUMNS, BREAKDOWN_STEPS = 20, 400, 40
ATTACKS: dict[str, Callable[[float], GradientCorruption]] = {
    "bit flip": BitFlip,
    "additive": lambda fraction: AdditiveNoise(fraction, std=1e3),
    "huge block": ConstantRows,
    "decoys": DecoyBlock,
}


def COSTS(protocol: Protocol) -> list[dict[str, Any]]:
    """Cases of costs: one of b, d, k and eps at a time."""
    b, d, beta, eps = (32, 1_000_000, 0.1, 1e-5) if protocol.n_validation > 100 else (8, 5_000, 0.1, 1e-5)
    cases = [{"b": b, "d": d // 10**power, "beta": beta, "eps": eps} for power in (0, 1, 2)]
    cases += [{"b": rows, "d": d // 10, "beta": beta, "eps": eps} for rows in (b // 4, 4 * b)]
    cases += [{"b": b, "d": d, "beta": share, "eps": eps} for share in (0.001, 0.01, 0.3)]
    cases += [{"b": b, "d": d // 10, "beta": beta, "eps": accuracy} for accuracy in (1e-3, 1e-7)]
    return cases


def cost(b: int, d: int, beta: float, eps: float, *, device: str) -> dict[str, Any]:
    """Milliseconds of an aggregation by each rule, on the same matrix in turns: a mean, noise, 30 % of outliers."""
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(b, d, generator=generator) + 0.3 * torch.randn(d, generator=generator)
    G[: int(0.3 * b)] += 3.0
    G = G.to(device)
    with torch.no_grad():
        calls = {name: _call(_with(rule, eps), G) for name, rule in methods(beta=beta).items() if name in ALL}
        calls["GMD, Weiszfeld in R^d"] = lambda: weiszfeld(G, eps)
        times = in_turns(calls, ROUNDS)
    medians = {name: 1e3 * sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    return {"milliseconds": "; ".join(f"{name}:{value:.4g}" for name, value in medians.items())}


def _with(rule: Aggregator, eps: float) -> Aggregator:
    return rule.set_params(tol=eps) if isinstance(rule, GeometricMedian | BlockGeometricMedian) else rule


def _call(rule: Aggregator, G: torch.Tensor) -> Callable[[], Any]:
    return lambda: rule(DenseRows(G))


def weiszfeld(G: torch.Tensor, eps: float) -> torch.Tensor:
    """The published code's geometric median: from the mean, stopped by the change of the objective."""
    y, before = G.mean(0), float("inf")
    for _ in range(WEISZFELD_STEPS):
        distances = torch.linalg.vector_norm(G - y, dim=1).clamp_min(1e-10)
        objective = float(distances.sum())
        if abs(before - objective) < eps * objective:
            break
        before = objective
        weights = 1.0 / distances
        y = (weights / weights.sum()) @ G
    return y


def BREAKDOWN(protocol: Protocol) -> list[dict[str, Any]]:
    """Cases of breakdown: a rule, an attack, and a share of corrupt rows."""
    return [
        {"method": method, "attack": attack, "percent": percent}
        for method in ALL
        for attack in ATTACKS
        for percent in (0, 5, 10, 20, 30, 40, 45)
    ]


def breakdown(method: str, attack: str, percent: int, *, device: str) -> dict[str, Any]:
    """How far the steps lead from where the honest rows lead, in distances of an honest row from their mean.

    Many steps are added up, so that a rule with a memory has the time to give back what it kept.
    """
    generator = torch.Generator().manual_seed(percent)
    mean = torch.randn(BREAKDOWN_COLUMNS, generator=generator)
    rule, state, went = methods()[method], None, torch.zeros(BREAKDOWN_COLUMNS, dtype=torch.float64)
    for step in range(BREAKDOWN_STEPS):
        G = mean + torch.randn(BREAKDOWN_ROWS, BREAKDOWN_COLUMNS, generator=generator)
        if percent:
            G = ATTACKS[attack](percent / 100.0)(G, random_state=step)
        aggregate, state = rule(DenseRows(G.to(device)), state)
        went += aggregate.vector.double().cpu()
    error = float(torch.linalg.vector_norm(went / BREAKDOWN_STEPS - mean))
    return {"error": f"{error / BREAKDOWN_COLUMNS**0.5:.3g}"}
