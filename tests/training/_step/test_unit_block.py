"""Huber's mean on blocks of units of a perceptron: what the rule gives for the chain's rows, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean
from skbgmd.ghost import Chain, GhostRows
from skbgmd.ghost.perceptron import Perceptron
from skbgmd.ghost.perceptron_rows import PerceptronRows
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training._step.unit_block import is_of_units, unit_block_mean
from skbgmd.training.networks import MLP

pytestmark = pytest.mark.usefixtures("forked")

LAYERS: dict[str, tuple[int, ...]] = {"none": (), "one": (30,), "two": (12, 25), "a narrow one": (20, 1, 15)}


def rule_of(beta: float = 0.1, c: float = 2.0, rejection: float | None = 10.0, **more: Any) -> BlockGeometricMedian:
    location = HuberMean(c, rejection=rejection, remember=True, tol=1e-4)
    return BlockGeometricMedian(beta, location, block="unit", **more)


class Batches:
    """Rows of batches through a perceptron: those of NumPy's products, and those of the chain."""

    def __init__(self, hidden: tuple[int, ...], n: int = 200, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.module, self.n, self.dtype = MLP(8, 5, hidden, dtype), n, dtype
        self.generator, self.rng = torch.Generator().manual_seed(1), np.random.default_rng(2)

    def rows(
        self, scale: float = 1.0, *, far: int = 0, short: int = 0, weighted: bool = False
    ) -> tuple[PerceptronRows, GhostRows]:
        parameters = list(self.module.parameters())
        units, chain = ParameterBlock.of(parameters), Chain.of(self.module, parameters)
        x = torch.randn((self.n, 8), dtype=self.dtype, generator=self.generator)
        gradient = scale * torch.randn((self.n, 5), dtype=self.dtype, generator=self.generator)
        gradient[:far] *= 30.0
        gradient[:short] *= 1e-7
        weights = self.rng.uniform(0.1, 1.0, size=self.n) if weighted else np.ones(self.n)
        general = GhostRows(chain.factors(chain.forward(x), gradient), self.n, units.total, weights, units=units)
        perceptron = Perceptron.of(chain, units)
        _, given, back = perceptron.forward(x)
        return perceptron.rows(given, back, gradient, weights), general


def assert_same_steps(batches: Batches, rule: BlockGeometricMedian, scales: list[float], **more: Any) -> int:
    """Compare each step after the first, and its state; count those in which Huber's active set was enough."""
    state, n_quick = None, 0
    for scale in scales:
        rows, general = batches.rows(scale, **more)
        expected, after = rule(general, state)
        if state is not None:
            found, found_state = unit_block_mean(rows, rule, state)
            size = float(expected.vector.abs().max())
            torch.testing.assert_close(found.vector, expected.vector, rtol=1e-3, atol=1e-5 * size)
            np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-3, atol=1e-6)
            assert found.mass == pytest.approx(expected.mass, rel=1e-4)
            assert found_state.step == after.step
            assert (found_state.memory, found_state.n_columns) == (None, after.n_columns)
            for name in ("location", "off_block"):
                ours, theirs = getattr(found_state, name), getattr(after, name)
                assert ours.value == pytest.approx(theirs.value, rel=1e-4)
                np.testing.assert_allclose(ours.recent, theirs.recent, rtol=0.2)
            n_quick += found_state.location.value == pytest.approx(state.location.decayed)
        state = after
    return n_quick


#: Scales of the first steps, of gradients that grow, and of those that shrink as a network learns.
GROWING, SHRINKING = [1.0, 1.3, 1.7, 2.0, 2.5, 3.0], [3.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 0.9]


@pytest.mark.parametrize("hidden", LAYERS)
@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("weighted", [False, True])
def test_steps_are_those_of_the_rule(hidden: str, beta: float, weighted: bool) -> None:
    batches = Batches(LAYERS[hidden])
    n_quick = assert_same_steps(batches, rule_of(beta), GROWING + SHRINKING, weighted=weighted)
    assert n_quick >= 4


@pytest.mark.parametrize("far", [3, 30, 90])
@pytest.mark.parametrize("rejection", [None, 3.0, 10.0])
@pytest.mark.parametrize("c", [0.5, 2.0])
def test_far_rows_count_as_much_as_by_the_rule(far: int, rejection: float | None, c: float) -> None:
    assert_same_steps(Batches((30,)), rule_of(0.1, c, rejection), GROWING + SHRINKING, far=far)


@pytest.mark.parametrize("n", [7, 50, 300])
def test_batches_of_any_size(n: int) -> None:
    assert_same_steps(Batches((30,), n), rule_of(), GROWING + SHRINKING)


@pytest.mark.parametrize("n", [2, 6, 50])
def test_rows_of_rounding_are_half_of_a_batch(n: int) -> None:
    batches, rule = Batches((30,), n), rule_of()
    state = after_some_steps(batches, rule)
    found = []
    for _ in range(2):
        rows, general = batches.rows(short=n // 2)
        (expected, after), (aggregate, found_state) = rule(general, state), unit_block_mean(rows, rule, state)
        torch.testing.assert_close(aggregate.vector, expected.vector, rtol=1e-3, atol=1e-5)
        assert aggregate.mass == pytest.approx(expected.mass, rel=1e-4)
        assert found_state.step == after.step
        found.append(aggregate.mass)
    assert all(0.1 < mass < 0.9 for mass in found)


def test_doubles() -> None:
    assert_same_steps(Batches((30,), dtype=torch.float64), rule_of(), GROWING + SHRINKING)


def test_rows_that_are_nearly_all_on_the_block_keep_the_digits_of_the_rest() -> None:
    batches = Batches((30,))
    with torch.no_grad():
        # Of the inputs of the last layer, one outweighs all: its units have nearly all of the squares.
        batches.module[0].bias[3] = 3000.0
        batches.module[2].weight *= 1e-2
    assert_same_steps(batches, rule_of(0.6), GROWING + SHRINKING)


def after_some_steps(batches: Batches, rule: BlockGeometricMedian) -> Any:
    state = None
    for scale in SHRINKING:
        _, state = rule(batches.rows(scale)[1], state)
    return state


@pytest.mark.parametrize("change", ["zero", "tiny", "huge", "huge inputs"])
def test_rows_of_few_digits_are_for_the_rule(change: str) -> None:
    batches, rule = Batches((30,)), rule_of()
    state, (rows, _) = after_some_steps(batches, rule), batches.rows()
    first = rows._parts[0]
    for part in rows._parts:
        if change == "zero":
            part.left[: len(part.left) // 2 + 1] = 0.0
        part.left[:] *= np.float32({"tiny": 1e-20, "huge": 1e19}.get(change, 1.0))
    if change == "huge inputs":
        # Of a row that is zero: its norm has a number, and its inputs have no squares.
        first.left[0], first.right[0], first.right_squares[0] = 0.0, 1e20, np.inf
    assert unit_block_mean(rows, rule, state) is None
    aggregate, _ = rule(rows, state)
    assert bool(torch.isfinite(aggregate.vector).all())


def test_a_block_of_all_units_is_for_the_rule() -> None:
    batches, rule = Batches((30,)), rule_of(0.9999)
    state = after_some_steps(batches, rule)
    assert unit_block_mean(batches.rows()[0], rule, state) is None


def test_a_vector_has_the_bits_of_the_rule_on_the_same_rows() -> None:
    batches, rule = Batches((30,)), rule_of()
    state, (rows, _) = after_some_steps(batches, rule), batches.rows(0.8, far=9, weighted=True)
    (expected, after), (found, found_state) = rule(rows, state), unit_block_mean(rows, rule, state)
    assert torch.equal(found.vector, expected.vector)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert found_state == after


@pytest.mark.parametrize(
    "rule",
    [
        rule_of(1.0),
        rule_of(complement="memory"),
        rule_of(complement="zero"),
        rule_of(complement="filtered"),
        rule_of(selection="sample", random_state=0),
        rule_of(selection="uniform", random_state=0),
        rule_of(clip_scores=False),
        BlockGeometricMedian(0.1, HuberMean(2.0, remember=True)),
        BlockGeometricMedian(0.1, GeometricMedian(), block="unit"),
        BlockGeometricMedian(0.1, block="unit"),
    ],
    ids=repr,
)
def test_other_rules_are_none_of_these(rule: BlockGeometricMedian) -> None:
    assert is_of_units(rule_of())
    assert not is_of_units(rule)
