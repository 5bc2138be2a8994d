"""Rows of perceptrons are those of the chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skbgmd._utils import limits
from skbgmd.aggregators.huber_active_set import huber_active_set
from skbgmd.aggregators.memory import Scale
from skbgmd.ghost import Chain, GhostRows
from skbgmd.ghost.perceptron import Perceptron
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.rows.few import ArrayRows
from skbgmd.training.networks import MLP

pytestmark = pytest.mark.usefixtures("forked")

ACTIVATIONS = [
    *(nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus()),
    *(nn.Hardtanh(), nn.ReLU6(), nn.Softmax(dim=1), nn.LogSoftmax(dim=-1)),
]
MODULES = {
    "no hidden layer": lambda: MLP(6, 4, ()),
    "one hidden layer": lambda: MLP(6, 4, (7,)),
    "a narrow one between": lambda: MLP(6, 4, (9, 1, 8)),
    "float64": lambda: MLP(6, 4, (7,), torch.float64),
    "two products in a row": lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)),
    "an activation last": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh()),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.SiLU()), nn.Sequential(nn.Linear(5, 4))),
    **{
        f"with {type(activation).__name__}": lambda activation=activation: nn.Sequential(
            nn.Linear(6, 5), activation, nn.Linear(5, 4)
        )
        for activation in ACTIVATIONS
    },
}


def parts_of(module: nn.Module, n: int, weights: np.ndarray | None = None):
    """The rows of a perceptron, and those of the chain that it is, for the same batch."""
    generator = torch.Generator().manual_seed(n)
    parameters = list(module.parameters())
    dtype, units = parameters[0].dtype, ParameterBlock.of(parameters)
    x = torch.randn((n, 6), dtype=dtype, generator=generator)
    gradient = torch.randn((n, 4), dtype=dtype, generator=generator)
    chain = Chain.of(module, parameters)
    went = chain.forward(x)
    weights = np.ones(n) if weights is None else weights
    expected = GhostRows(chain.factors(went, gradient), n, units.total, weights, units=units)
    perceptron = Perceptron.of(chain, units)
    output, given, back = perceptron.forward(x)
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(output, went.output, rtol=rtol, atol=rtol)
    return perceptron.rows(given, back, gradient, weights), expected, units, rtol


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("has_vecdot", [False, True])
def test_rows_are_those_of_the_chain(name: str, has_vecdot: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_vecdot:
        monkeypatch.setattr("skbgmd.ghost.layer_columns.VECDOT", None)
    torch.manual_seed(0)
    weights = np.random.default_rng(0).uniform(0.1, 1.0, size=11)
    rows, expected, _, rtol = parts_of(MODULES[name](), 11, weights)
    np.testing.assert_allclose(rows.norms(), expected.norms(), rtol=rtol)
    total = rows.weighted_sum(weights)
    torch.testing.assert_close(total, expected.weighted_sum(weights), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        rows.inner_products(total), expected.inner_products(total), rtol=10 * rtol, atol=10 * rtol
    )
    few, some = rows.few(np.array([2, 7, 9])), expected.few(np.array([2, 7, 9]))
    np.testing.assert_allclose(few.products(), some.products(), rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_allclose(
        few.inner_products(total, weights), some.inner_products(total, weights), rtol=10 * rtol, atol=10 * rtol
    )
    added = some.add_to(total.clone(), 0.5, np.array([1.0, -2.0, 3.0]))
    torch.testing.assert_close(
        few.add_to(total, 0.5, np.array([1.0, -2.0, 3.0])), added, rtol=10 * rtol, atol=10 * rtol
    )
    np.testing.assert_allclose(rows.gram().products, expected.gram().products, rtol=10 * rtol, atol=10 * rtol)
    assert rows.covers_all


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("beta", [0.05, 0.3, 0.7, 0.99])
def test_blocks_of_units_are_those_of_the_chain(name: str, beta: float) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    rows, expected, units, rtol = parts_of(MODULES[name](), 11, rng.uniform(0.1, 1.0, size=11))
    scale = rng.uniform(0.0, 1.0, size=11)
    scores = expected.unit_scores(units, scale)
    torch.testing.assert_close(rows.unit_scores(units, scale), scores, rtol=10 * rtol, atol=10 * rtol)
    block = units.choose(scores.numpy(), max(1, int(beta * units.total)))
    ours, theirs = rows.block(block), expected.block(block)
    assert ours.n_columns == theirs.n_columns == len(block)
    np.testing.assert_allclose(ours.norms(), theirs.norms(), rtol=10 * rtol, atol=10 * rtol)
    torch.testing.assert_close(ours.weighted_sum(scale), theirs.weighted_sum(scale), rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_allclose(ours.gram().products, theirs.gram().products, rtol=10 * rtol, atol=10 * rtol)
    few, some, total = ours.few(np.array([0, 4])), theirs.few(np.array([0, 4])), ours.weighted_sum(scale)
    np.testing.assert_allclose(few.products(), some.products(), rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_allclose(
        few.inner_products(total, scale), some.inner_products(total, scale), rtol=10 * rtol, atol=10 * rtol
    )
    weights = rng.uniform(size=11)
    torch.testing.assert_close(
        rows.weighted_sum_by_block(scale, weights, block),
        expected.weighted_sum_by_block(scale, weights, block),
        rtol=10 * rtol,
        atol=10 * rtol,
    )
    subset, other = ours.subset(np.array([1, 5])), theirs.subset(np.array([1, 5]))
    np.testing.assert_allclose(subset.norms(), other.norms(), rtol=10 * rtol)
    matrix = torch.cat([chunk.clone() for _, chunk in ours.column_chunks()], dim=1)
    torch.testing.assert_close(
        matrix, torch.cat([chunk.clone() for _, chunk in theirs.column_chunks()], dim=1), rtol=rtol, atol=rtol
    )


def chosen_units(units: ParameterBlock, kind: str, rng: np.random.Generator) -> ParameterBlock:
    """A block of units at random: of weights, of biases or of both, from all layers or from the last two parameters."""
    chosen = rng.random(len(units.starts)) < rng.choice([0.1, 0.5, 0.9])
    if "weights" in kind:
        chosen &= units.sizes > 1
    elif "biases" in kind:
        chosen &= units.sizes == 1
    if "last" in kind:
        chosen[: len(chosen) // 2] = False
    # One at least, of the kind that is wanted.
    chosen[-1] |= not chosen.any() and "weights" not in kind
    chosen[np.flatnonzero(units.sizes > 1)[-1]] |= not chosen.any()
    return units._of(np.flatnonzero(chosen))


@pytest.mark.parametrize("kind", ["units", "weights", "biases", "last units", "last weights", "last biases"])
@pytest.mark.parametrize("hidden", [(), (7,), (9, 2, 8)])
@pytest.mark.parametrize("seed", range(5))
def test_rows_on_units_are_the_columns_in_another_order(kind: str, hidden: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(seed)
    rows, expected, units, _ = parts_of(MLP(6, 4, hidden), 11, rng.uniform(0.1, 1.0, size=11))
    block = chosen_units(units, kind, rng)
    ours, matrix = rows.on_units(block), expected.columns(block.indices).double().numpy()
    assert ours.n_columns == matrix.shape[1] == len(block)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(ours.norms(), np.linalg.norm(matrix, axis=1), **close)
    np.testing.assert_allclose(ours.gram().products, matrix @ matrix.T, **close)
    on_block, elsewhere = rng.dirichlet(np.ones(11), size=2)
    total = ours.sum_for_few(on_block)
    np.testing.assert_allclose(np.sort(total), np.sort(on_block @ matrix), **close)
    np.testing.assert_allclose(ours.inner_products(torch.from_numpy(total)), matrix @ (on_block @ matrix), **close)
    index = np.array([1, 4, 10])
    few = ours.few(index)
    np.testing.assert_allclose(few.products(), matrix[index] @ matrix[index].T, **close)
    np.testing.assert_allclose(few.inner_products(total, on_block), matrix[index] @ (on_block @ matrix), **close)
    added = few.add_to(total, 0.5, np.array([1.0, -2.0, 3.0]))
    assert added is total
    sums = 0.5 * on_block @ matrix + np.array([1.0, -2.0, 3.0]) @ matrix[index]
    np.testing.assert_allclose(np.sort(added), np.sort(sums), **close)
    both = expected.weighted_sum(elsewhere).double()
    both[block.indices] = torch.from_numpy(on_block @ matrix)
    np.testing.assert_allclose(rows.sum_by_block(on_block, elsewhere, block).double(), both, **close)


def test_rows_that_are_not_finite_and_squares_out_of_range_are_the_chains() -> None:
    torch.manual_seed(0)
    rows, _, units, _ = parts_of(MLP(6, 4, (7,)), 11)
    for each in rows._parts:
        each.left[3] *= 1e25
        each.left[5] = np.nan
    again = GhostRows(rows._given, 11, units.total, units=units)
    for ours, theirs in ((rows, again), (rows.block(units.choose(np.arange(len(units.starts)), 9)),) * 2):
        np.testing.assert_array_equal(ours.finite, [number != 5 for number in range(11)])
        np.testing.assert_allclose(ours.norms(), theirs.norms(), rtol=1e-6)
    weights = np.where(np.arange(11) == 5, 0.0, 1.0)
    torch.testing.assert_close(rows.weighted_sum(weights), again.weighted_sum(weights), rtol=1e-5, atol=1e-5)


def test_huber_mean_by_active_set_is_that_of_the_chain() -> None:
    torch.manual_seed(0)
    rows, expected, *_ = parts_of(MLP(6, 4, (7,)), 40)
    state = Scale(float(np.sort(rows.norms())[-4]), (0.1,) * 5)
    ours, theirs = (huber_active_set(each, 1.0, 10.0, state, tol=1e-4, max_iter=100) for each in (rows, expected))
    assert ours is not None
    assert ours.few is not None, "rows are beyond the limit"
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-5)
    torch.testing.assert_close(ours.vector(), theirs.vector(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (7,), (40, 3), (3, 40)])
@pytest.mark.parametrize("n", [11, 90])
def test_products_are_those_of_the_gram_matrix_where_it_is_not_formed(hidden: tuple[int, ...], n: int) -> None:
    torch.manual_seed(0)
    rows, expected, units, _ = parts_of(MLP(6, 4, hidden), n)
    block = units.choose(np.arange(len(units.starts))[::-1].astype(float), units.total // 3)
    vector, products, n_passed = np.random.default_rng(0).uniform(size=n), expected.gram().products, 0
    for ours, theirs in ((rows, products), (rows.block(block), expected.block(block).gram().products)):
        product = ours.gram_product()
        n_passed += product is not None
        if product is not None:
            np.testing.assert_allclose(product(vector), vector @ theirs, rtol=1e-4, atol=1e-4)
        # Once it is formed, nothing is passed over.
        np.testing.assert_allclose(ours.gram().products, theirs, rtol=1e-4, atol=1e-4)
        assert ours.gram_product() is None
    assert n_passed == 0 or n == 90
    assert n_passed or n == 11


@pytest.mark.parametrize("elements", [0, 10**9])
def test_a_few_rows_may_be_written_out(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FEW_FACTORED_ELEMENTS", elements)
    torch.manual_seed(0)
    rows, expected, units, _ = parts_of(MLP(6, 4, (7,)), 11)
    index, weights = np.array([1, 4, 10]), np.linspace(0.1, 1.0, 11)
    block = units.choose(np.arange(len(units.starts)).astype(float), 30)
    for ours, theirs in ((rows, expected), (rows.block(block), expected.block(block))):
        few, some, total = ours.few(index), theirs.few(index), theirs.weighted_sum(weights)
        assert isinstance(few, ArrayRows) == bool(elements)
        np.testing.assert_allclose(few.products(), some.products(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            few.inner_products(total, weights), some.inner_products(total, weights), rtol=1e-4, atol=1e-5
        )
        added = some.add_to(total.clone(), 0.5, np.array([1.0, -2.0, 3.0]))
        torch.testing.assert_close(few.add_to(total, 0.5, np.array([1.0, -2.0, 3.0])), added, rtol=1e-4, atol=1e-5)
