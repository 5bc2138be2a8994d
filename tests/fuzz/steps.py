"""Steps of a training: rows by their factors or written out, one after the other, with a rule that remembers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from skbgmd.aggregators import BlockGeometricMedian, Bucketing, GeometricMedian, HuberMean, NearestNeighborMixing
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.ghost import DenseFactor, GhostRows, OuterProductFactor
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import ParameterBlock

from .matrices import KINDS, RANGES, Long, exact, matrix

#: Numbers whose squares, and those of their inverses, add up to numbers in float64.
SQUARED = 1e140
#: What becomes of the rows' sizes from step to step, as a network learns or diverges.
TRENDS = (1.0, 0.999, 0.9, 0.5, 1e-3, 2.0, 1e3)


def draw_rule(rng: np.random.Generator, n: int, d: int) -> dict[str, Any]:
    """A rule that is made for steps, and what they are to be like."""
    rejection, tol = [None, 1.5, 10.0][int(rng.integers(3))], float(rng.choice([1e-4, 1e-6]))
    c = [None, 0.5, 1.0, 2.0, 2.0, 20.0][int(rng.integers(6))]
    if c is None:
        location: Any = GeometricMedian(rejection, str(rng.choice(["median", "huber", "huber"])), tol=tol)
    else:
        location = HuberMean(c, rejection, remember=True, tol=tol)
    rule: Any = BlockGeometricMedian(
        float(rng.choice([0.1, 0.5, 1.0, 1.0, 1.0])),
        location,
        selection=str(rng.choice(["top", "sample"])),
        complement=str(rng.choice(["weighted", "weighted", "zero", "memory"])),
        memory_rule=str(rng.choice(["weighted", "mean"])),
        block=str(rng.choice(["unit", "coordinate"])),
        random_state=0,
    )
    wrapping = rng.random()
    if wrapping < 0.1:
        rule = NearestNeighborMixing(rule, 0.25)
    elif wrapping < 0.2:
        rule = Bucketing(rule, int(rng.integers(1, 4)), random_state=0)
    return {
        "rule": rule,
        "rows": str(rng.choice(["factors", "factors", "written out"])),
        "trend": float(rng.choice(TRENDS)),
        "repeats": float(rng.choice([0.0, 0.0, 0.2, 0.6])),
        "bad steps": float(rng.choice([0.0, 0.0, 0.3])),
        "n_steps": int(rng.integers(2, 9)),
        "n_units": int(rng.integers(1, 5)),
    }


class Step:
    """A layer's inputs (n, p) and what comes back to its outputs (n, q): of its weights and bias are the gradients."""

    def __init__(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        self.inputs, self.outputs = inputs, outputs
        q, p = outputs.shape[1], inputs.shape[1]
        self.units = ParameterBlock.of([torch.empty(q, p), torch.empty(q)])

    @property
    def whole(self) -> np.ndarray:
        """The rows, in extended precision."""
        left, right = exact(self.outputs), exact(self.inputs)
        return np.hstack([(left[:, :, None] * right[:, None, :]).reshape(len(left), -1), left])

    def rows(self, weights: np.ndarray, how: str) -> Any:
        """The rows as a rule is given them."""
        n, (q, p) = len(self.inputs), (self.outputs.shape[1], self.inputs.shape[1])
        if how == "written out":
            products = self.outputs[:, :, None] * self.inputs[:, None, :]
            return DenseRows(torch.cat([products.flatten(1), self.outputs], dim=1), weights.copy(), units=self.units)
        left = self.outputs[:, None, :].contiguous()
        factors = [(0, OuterProductFactor(left, self.inputs[:, None, :])), (q * p, DenseFactor(left[:, 0, :, None]))]
        return GhostRows(factors, n, q * p + q, weights.copy(), units=self.units)


def steps_of(case: Any) -> list[Step]:
    """The steps of a case: rows of one kind, whose sizes have a trend, some of them repeated, some steps all wrong."""
    rng, settings, first = np.random.default_rng([case.seed, 1]), case.parameters, case.X
    limit = RANGES[str(first.dtype).removeprefix("torch.")][2]
    if first.dtype == torch.float64:
        # What is beyond the range of squares is drawn in, whatever the scale; and factors' have none in any dtype.
        limit = min(limit, SQUARED)
        least = 1.0 / SQUARED if settings["rows"] == "factors" else 0.0
        largest = float(first.abs().max())
        first = first * (least / largest) if 0.0 < largest < least else first
    n, found = len(first), []
    for number in range(settings["n_steps"]):
        size = settings["trend"] ** number * (1e4 if rng.random() < settings["bad steps"] else 1.0)
        outputs, _ = matrix(rng, n, settings["n_units"], str(first.dtype), kinds=KINDS)
        outputs = outputs.double()
        outputs = outputs / max(float(outputs.abs().max()), 1e-300) * min(1.0, size)
        inputs = first.double() * torch.from_numpy(rng.uniform(0.5, 1.0, size=(n, 1)))
        inputs = (inputs * max(1.0, size)).clamp(-limit, limit)
        same = torch.from_numpy(rng.random(n) < settings["repeats"])
        inputs[same], outputs[same] = inputs[0].clone(), outputs[0].clone()
        found.append(Step(inputs.to(first.dtype), outputs.to(first.dtype)))
    return found


def answers(case: Any, steps: list[Step], a: np.ndarray, *, saved: bool = False) -> list[tuple[Any, Any]]:
    """What a rule answers to each step, and its state; ``saved`` and loaded from step to step."""
    state, found = None, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in steps:
            aggregate, state = case.parameters["rule"](step.rows(a, case.parameters["rows"]), state)
            state = unpack_state(pack_state(state)) if saved else state
            found.append((aggregate, state))
    return found


def check_huber(rule: Any, aggregate: Any, scale: Any, X: np.ndarray, a: np.ndarray) -> None:
    """Each row counts by its distance to the mean that they make: in full within the scale, by its direction beyond."""
    w = aggregate.weights.astype(Long)
    difference = X - w @ X
    distances = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    kept = w > 0
    limit = Long(rule.c) * scale.value
    # What lies as near as rounding, of products in single precision at worst, is at no distance; a scale that is
    # nothing compared with the step's distances is raised.
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
    if limit <= 1e-3 * lengths.max():
        return
    # From so far on rows by their factors are drawn in, and a scale may be between.
    if lengths.max() > 1e7 * lengths[lengths > 0].min(initial=np.inf):
        return
    expected = np.where(kept, a * limit / np.maximum(distances, limit), 0.0)
    off = np.abs(w - expected / expected.sum()).max()
    assert off <= 1e-2, f"weights are off those of their distances by {float(off):.1g}"
