"""What all aggregators have in common."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import pickle
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from aggregating import assert_convex, assert_within, dense
from sklearn.base import clone

from conftest import ZOO, extremes, halves, lines_with_far_rows, seeded_rule
from skbgmd import robust_backward
from skbgmd._utils.arrays import as_weights
from skbgmd.aggregators import (
    AGGREGATORS,
    AdaptiveClipping,
    Aggregate,
    Aggregator,
    BlockGeometricMedian,
    Bucketing,
    CenteredClipping,
    CoordinatewiseMedian,
    GeometricMedian,
    HuberMean,
    Krum,
    MajorityVote,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    NormFilter,
    SpectralFilter,
    TrimmedMean,
    WorkerMemory,
    WorkerMomentum,
    Zeno,
    get_aggregator,
)
from skbgmd.aggregators.base import (
    AggregatorState,
    aggregated,
    check_fraction,
    n_assumed_corrupt,
    pack_state,
    unpack_state,
    usable_rows,
)
from skbgmd.rows import DenseRows
from skbgmd.training._step.stateful import StatefulAggregator

#: Made once.
extremes_of, lines_of = lru_cache(extremes), lru_cache(lines_with_far_rows)


@contextmanager
def named_in_errors(name):
    """What fails says of which matrix."""
    try:
        yield
    except Exception as error:
        error.add_note(f"The matrix is: {name}")
        raise


def mean_of(displacement):
    return (displacement.double() / (2 * len(displacement))).sum()


EVERY = {name: seeded_rule(name) for name in AGGREGATORS} | {
    "sampled block": BlockGeometricMedian(selection="sample", complement="memory", random_state=0),
    "nearest neighbors": NearestNeighborMixing(),
    "nearest neighbors, mean": NearestNeighborMixing(Mean()),
    "nearest neighbors, median": NearestNeighborMixing(CoordinatewiseMedian()),
    "nearest neighbors, block": NearestNeighborMixing(BlockGeometricMedian(beta=0.5)),
    "trimmed mean, auto": TrimmedMean("auto"),
    "norm filter, auto": NormFilter("auto"),
    "krum, auto": Krum("auto"),
    "spectral filter, auto": SpectralFilter("auto"),
    "nearest neighbors, auto": NearestNeighborMixing(fraction="auto"),
    "block of krum, auto": BlockGeometricMedian(beta=0.5, location=Krum("auto")),
    "clipped": AdaptiveClipping(),
    "clipped, mean": AdaptiveClipping(Mean()),
    "clipped, median": AdaptiveClipping(CoordinatewiseMedian()),
    "clipped, block": AdaptiveClipping(BlockGeometricMedian(beta=0.5)),
    "clipped, nearest neighbors": AdaptiveClipping(NearestNeighborMixing()),
    "nearest neighbors, clipped": NearestNeighborMixing(AdaptiveClipping()),
    "buckets": Bucketing(random_state=0),
    "buckets of buckets": Bucketing(Bucketing(GeometricMedian(), random_state=1), random_state=0),
    # Linear, so that scores are in proportion to the rows.
    "zeno": Zeno(mean_of, lr=1.0, rho=0.0),
    "votes of one": MajorityVote(1, GeometricMedian()),
    "workers remembered, mean": WorkerMemory(Mean()),
    "workers remembered, block": WorkerMemory(BlockGeometricMedian(beta=0.5)),
    "worker momentum": WorkerMomentum(),
}
# Rules that hold their own against 30 % of rows anywhere.
ROBUST = [
    name for name in EVERY if name not in ("mean", "bgmd_paper", "nearest neighbors, mean") and "bucket" not in name
]

# The scores of this one are in proportion to the rows.
ON_LINES = [name for name in ROBUST if name != "zeno"]


@pytest.fixture(params=list(EVERY))
def aggregator(request):
    return EVERY[request.param]


def test_every_hard_matrix(aggregator):
    for name, X in ZOO.items():
        before = X.copy()
        with named_in_errors(name):
            aggregate, _ = aggregator(dense(X))
            assert aggregate.vector.shape == (X.shape[1],)
            assert torch.isfinite(aggregate.vector).all()
            np.testing.assert_array_equal(X, before)
            assert_convex(aggregate.weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_extreme_matrix(aggregator, dtype):
    """Denormal numbers, the largest ones, and both of them: finite answers, within what the rows span."""
    for name, X in extremes_of(dtype).items():
        for weights in (None, np.linspace(0.1, 1.0, len(X))):
            before = X.clone()
            with named_in_errors(f"{name}, {'no weights' if weights is None else 'weights'}"):
                aggregate, _ = aggregator(DenseRows(X, weights))
                assert_within(aggregate, X)
                assert torch.equal(X, before)
                assert_convex(aggregate.weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ON_LINES)
def test_far_rows_on_a_line_move_nothing_far(name, dtype):
    for kind, (X, n_far) in lines_of(dtype).items():
        aggregate, _ = EVERY[name](DenseRows(X))
        longest = float(X[n_far:].double().norm(dim=1).max())
        assert float(aggregate.vector.double().norm()) <= 20.0 * longest, kind


def test_equal_rows_give_that_row(aggregator):
    x = np.linspace(-1, 1, 20)
    state, total = None, np.zeros(20)
    aggregator = clone(aggregator)
    # With a memory of what is off the block it comes out bit by bit.
    bit_by_bit = "memory" in aggregator.get_params().values()
    n_steps = 40 if bit_by_bit else 4
    for _ in range(n_steps):
        aggregate, state = aggregator(dense(np.tile(x, (7, 1))), state)
        total += aggregate.vector.numpy() / n_steps
    np.testing.assert_allclose(total, x, atol=0.3 if bit_by_bit else 1e-12)


def test_one_row(aggregator):
    x = np.array([[1.0, -2.0, 3.0]])
    vector = aggregator(dense(x))[0].vector.numpy()
    moved = vector != 0
    np.testing.assert_allclose(vector[moved], x[0, moved], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_get_weight_zero(aggregator, bad, rng):
    X = rng.normal(size=(9, 30))
    X[[1, 4], [0, 29]] = bad
    good = np.delete(X, [1, 4], axis=0)
    for dtype in (np.float64, np.float32):
        aggregate, _ = aggregator(dense(X.astype(dtype)))
        assert torch.isfinite(aggregate.vector).all()
        if aggregate.weights is not None:
            assert aggregate.weights[[1, 4]].sum() == 0.0
        if not isinstance(aggregator, Bucketing):
            expected = aggregator(dense(good.astype(dtype)))[0].vector
            np.testing.assert_allclose(aggregate.vector, expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 50, 2999])
def test_a_fault_in_one_column_of_the_row_in_the_middle_leaves_that_row_out(aggregator, column, bad, rng):
    """Of wide rows some columns are looked at to find one in the middle, which the others are compared about."""
    X = (rng.normal(size=3000) + 0.5 * rng.normal(size=(9, 3000))).astype(np.float32)
    X[3] = X.mean(axis=0)
    X[3, column] = bad
    aggregate, _ = aggregator(dense(X))
    assert torch.isfinite(aggregate.vector).all()
    if aggregate.weights is not None:
        assert aggregate.weights[3] == 0.0
    if not isinstance(aggregator, Bucketing):
        expected = aggregator(dense(np.delete(X, 3, axis=0)))[0].vector
        np.testing.assert_allclose(aggregate.vector, expected, atol=1e-4)


# Others step on a part of the columns only, add up what a row was, or ask a loss.
@pytest.mark.parametrize("name", [name for name in ROBUST if name not in ("sampled block", "worker momentum", "zeno")])
@pytest.mark.parametrize("value", [1e9, 1e18, -1e30, 3e38])
def test_a_huge_number_in_one_column_of_the_row_in_the_middle_moves_nothing_far(name, value, rng):
    X = (rng.normal(size=3000) + 0.5 * rng.normal(size=(9, 3000))).astype(np.float32)
    X[3] = X.mean(axis=0)
    X[3, 50] = value
    honest = np.delete(X, 3, axis=0).astype(np.float64)
    found = EVERY[name](dense(X))[0].vector.double().numpy()
    reach = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) < 1.5 * reach


def test_half_of_the_rows_not_finite_is_an_error(aggregator):
    if isinstance(aggregator, Zeno):
        pytest.skip("needs no majority")
    X = np.ones((6, 4))
    X[:3, 1] = np.nan
    with pytest.raises(NonFiniteRowsError, match=r"More than half .* found 3 of 6 rows that hold NaN or inf"):
        aggregator(dense(X))


@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_weight_not_finite_is_an_error_whatever_the_rounding(seed):
    values, weights = halves(200, seed)
    X = torch.from_numpy(np.where(values == 0.0, np.nan, values))[:, None]
    rows = DenseRows(X, as_weights(weights, 200))
    with pytest.raises(NonFiniteRowsError, match="More than half"):
        usable_rows(rows, rows.finite)


def test_rows_of_weight_zero_do_not_count(aggregator, rng):
    X = rng.normal(size=(8, 12))
    X[3], X[6] = 1e9, np.nan
    weights = np.ones(8)
    weights[[3, 6]] = 0.0
    aggregate, _ = aggregator(dense(X, weights))
    if not isinstance(aggregator, Bucketing):
        expected = aggregator(dense(np.delete(X, [3, 6], axis=0)))[0].vector
        np.testing.assert_allclose(aggregate.vector, expected, atol=1e-9)
    assert aggregate.vector.norm() < 100


@pytest.mark.parametrize("name", ROBUST)
def test_thirty_percent_of_outliers(name, rng):
    X = rng.normal(size=(20, 50)) * 0.1 + 1.0
    X[:6] = X[:6] * -100.0
    state, total = None, torch.zeros(50, dtype=torch.float64)
    for _ in range(30):
        aggregate, state = EVERY[name](dense(X), state)
        total += aggregate.vector / 30
    # A block with memory keeps a part back; and a decoy in norm is still a unit vector to a geometric median.
    assert (total - 1.0).norm() < 0.75 * torch.ones(50).norm()


def test_permutation_of_rows(aggregator, rng):
    if isinstance(aggregator, Bucketing) or "sample" in aggregator.get_params().values():
        pytest.skip("draws at random")
    X, order = rng.normal(size=(9, 25)), rng.permutation(9)
    np.testing.assert_allclose(aggregator(dense(X))[0].vector, aggregator(dense(X[order]))[0].vector, atol=1e-9)


def test_scale_of_rows(aggregator, rng):
    X = rng.normal(size=(9, 25))
    once = aggregator(dense(X))[0].vector
    np.testing.assert_allclose(aggregator(dense(1e6 * X))[0].vector, 1e6 * once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_count_by_their_ratios(aggregator, dtype, rng):
    """However large or small all of them are: sums, squares and products of them, in the rows' dtype, have no range."""
    X, weights = (
        torch.tensor(rng.normal(size=(9, 25))).to(dtype),
        np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0, 2.0, 1.0, 1.0]),
    )
    X[:2] *= 30.0
    for given in (np.ones(9), weights):
        expected = aggregator(DenseRows(X, given))[0]
        for exponent in (-1072, -600, -300, -140, -40, 40, 127, 300, 600, 1022):
            found = aggregator(DenseRows(X, np.ldexp(given, exponent)))[0]
            torch.testing.assert_close(found.vector, expected.vector, msg=f"2**{exponent}")


def test_parameters_clone_and_repr(aggregator):
    twin = clone(aggregator)
    assert set(twin.get_params(deep=False)) == set(type(aggregator)._get_param_names())
    assert repr(twin) == repr(aggregator)
    for name, value in aggregator.get_params(deep=False).items():
        twin.set_params(**{name: value})


def test_a_call_changes_nothing_in_the_aggregator_or_its_state(aggregator, rng):
    X = rng.normal(size=(8, 30))
    before = repr(aggregator.get_params())
    _, state = aggregator(dense(X))
    first, _ = aggregator(dense(X), state)
    again, _ = aggregator(dense(X), state)
    assert torch.equal(first.vector, again.vector)
    assert repr(aggregator.get_params()) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(aggregator, dtype):
    X = torch.randn(8, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    vector = aggregator(DenseRows(X))[0].vector
    assert vector.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_cuda(aggregator, cuda):
    X = torch.randn(8, 4000, generator=torch.Generator().manual_seed(0))
    if "sample" in aggregator.get_params().values():
        pytest.skip("another device draws other numbers")
    vector = aggregator(DenseRows(X.to(cuda)))[0].vector
    assert vector.device.type == "cuda"
    assert torch.allclose(vector.cpu(), aggregator(DenseRows(X))[0].vector, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_row_or_no_column_is_named(aggregator, shape):
    with pytest.raises(ValueError, match=f"rows must hold a row and a column at least; found {shape[0]} x {shape[1]}"):
        aggregator(DenseRows(torch.zeros(shape)))


def test_no_row_of_any_weight_is_named(aggregator):
    with pytest.raises(ValueError, match="weights of the rows must have a positive entry; found only zeros"):
        aggregator(DenseRows(torch.ones(3, 2), np.zeros(3)))


@dataclass(frozen=True)
class OtherState(AggregatorState):
    other: int = 1


def test_the_state_of_another_rule_is_named(aggregator, rng):
    rows = dense(rng.normal(size=(7, 5)))
    state = aggregator(rows)[1]
    if state is None:
        with pytest.raises(TypeError, match=r"state must be (None, which|what) .*; found OtherState"):
            aggregator(rows, OtherState())
        return
    message = f"state must be what .* returned, of type {type(state).__name__}, or None; found OtherState"
    with pytest.raises(TypeError, match=message):
        aggregator(rows, OtherState())


def test_hyperparameters_are_checked_without_rows(aggregator):
    aggregator.check_parameters()
    twin = clone(aggregator)
    bad = {
        name: -1.0 for name in ("fraction", "tol", "bucket_size", "beta", "r", "selection") if name in twin.get_params()
    }
    if bad:
        twin.set_params(**bad)
        for rule in (twin, NearestNeighborMixing(twin), MajorityVote(3, twin)):
            with pytest.raises((TypeError, ValueError), match=f"({'|'.join(bad)}) must be"):
                rule.check_parameters()


def test_lookup():
    for name, make in AGGREGATORS.items():
        assert repr(get_aggregator(name)) == repr(make())
    mine = GeometricMedian(tol=1e-3)
    assert get_aggregator(mine) is mine
    with pytest.raises(ValueError, match=r"aggregator must be one of 'mean', .*; found 'median'"):
        get_aggregator("median")


def test_there_is_a_test_for_every_aggregator():
    def concrete(kind):
        return [
            c for sub in kind.__subclasses__() for c in ([sub] if not inspect.isabstract(sub) else []) + concrete(sub)
        ]

    library = {kind for kind in concrete(Aggregator) if kind.__module__.startswith("skbgmd.aggregators")}
    assert library == {type(a) for a in EVERY.values()}


def test_usable_rows():
    rows = DenseRows(torch.ones(4, 2), np.array([1.0, 0.0, 2.0, 1.0]))
    np.testing.assert_array_equal(usable_rows(rows, np.array([True, True, True, False])), [0, 2])
    with pytest.raises(ValueError, match="More than half"):
        usable_rows(rows, np.array([True, True, False, True]))


@pytest.mark.parametrize(
    ("fraction", "n", "count"), [(0.0, 10, 0), (0.2, 10, 2), (0.21, 10, 3), (0.4, 32, 13), (0.49, 3, 1)]
)
def test_corrupt_count(fraction, n, count):
    assert n_assumed_corrupt(fraction, n) == count


@pytest.mark.parametrize(
    ("value", "kind"), [(0.5, ValueError), (-0.1, ValueError), (0.7, ValueError), ("a", TypeError)]
)
def test_fraction_is_checked(value, kind):
    with pytest.raises(kind, match="fraction must be"):
        check_fraction(value)
    assert check_fraction(0) == 0.0


def test_states_are_saved_as_plain_containers(rng):
    rows = DenseRows(torch.from_numpy(rng.normal(size=(6, 20))))
    aggregator = NearestNeighborMixing(BlockGeometricMedian(complement="memory"))
    _, state = aggregator(rows)
    file = io.BytesIO()
    torch.save(pack_state(state), file)
    file.seek(0)
    again = unpack_state(torch.load(file, weights_only=True))
    assert type(again) is type(state)
    assert (again.step, again.inner.step) == (1, 1)
    assert torch.equal(again.inner.memory, state.inner.memory)
    assert torch.equal(aggregator(rows, again)[0].vector, aggregator(rows, state)[0].vector)
    assert unpack_state(pack_state(None)) is None
    assert unpack_state(pack_state({"own": 3})) == {"own": 3}
    with pytest.raises(ValueError, match=r"must be known; found 'elsewhere.State'"):
        unpack_state({"kind": "elsewhere.State", "values": {}})


@pytest.mark.parametrize("rule", [WorkerMemory(Mean()), WorkerMomentum(Mean(), momentum=0.5), NearestNeighborMixing()])
@pytest.mark.parametrize("of", [torch.tensor, np.array, pd.Series, list, lambda ids: list(np.array(ids))])
def test_ids_in_an_array_or_a_tensor_are_those_of_their_values(rule, of, rng):
    X = torch.from_numpy(rng.normal(size=(3, 4, 8)))
    state, expected = None, None
    for places in ([3, 1, 2, 5], [1, 2, 3, 5], [5, 3, 2, 1]):
        aggregate, state = rule(DenseRows(X[0], ids=of(places)), state)
        plain, expected = rule(DenseRows(X[0], ids=tuple(places)), expected)
        assert torch.equal(aggregate.vector, plain.vector)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)


def test_ids_of_a_tensor_are_known_in_a_subset():
    rows = DenseRows(torch.tensor([[0.0], [torch.nan], [1.0], [2.0]]), ids=torch.tensor([7, 8, 9, 3]))
    rule = NearestNeighborMixing(WorkerMomentum(Mean(), momentum=0.5))
    _, state = rule(rows)
    assert state.inner.ids == (7, 9, 3)


@pytest.mark.parametrize("ids", [(None, 1, 2), ((1, 2), 2, 3), ([1], 2, 3), (float("nan"), 1, 2), (1j, 2, 3)])
@pytest.mark.parametrize("rule", [WorkerMemory(), WorkerMomentum()])
def test_ids_that_are_no_numbers_or_strings_are_named(rule, ids):
    with pytest.raises(TypeError, match="ids must be numbers or strings; found "):
        rule(DenseRows(torch.ones(3, 4), ids=ids))


@pytest.mark.parametrize("ids", [{1, 2, 3}, "abc", {1: 0, 2: 0, 3: 0}])
def test_ids_without_an_order_are_named(ids):
    with pytest.raises(TypeError, match=f"ids must be a sequence .*; found {type(ids).__name__}"):
        WorkerMemory()(DenseRows(torch.ones(3, 4), ids=ids))


def test_ids_of_an_iterator_are_those_of_a_tuple(rng):
    X = torch.from_numpy(rng.normal(size=(3, 4)))
    _, expected = WorkerMemory()(DenseRows(X, ids=("a", 2, 3.5)))
    rows = DenseRows(X, ids=(id_ for id_ in ("a", 2, 3.5)))
    for _ in range(2):
        assert WorkerMemory()(rows)[1].memory.ids == expected.memory.ids == ("a", 2, 3.5)


PRE = [NearestNeighborMixing(Mean()), Bucketing(Mean()), WorkerMemory(Mean()), AdaptiveClipping(Mean())]


@pytest.mark.parametrize("rule", PRE, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("other", PRE, ids=lambda rule: type(rule).__name__)
def test_pre_aggregations_take_no_state_of_each_other(rule, other, rng):
    rows = dense(rng.normal(size=(6, 4)))
    _, state = other(rows)
    # Those of earlier versions don't say whose they are.
    before = dataclasses.replace(state, rule="", memory=None)
    assert rule(rows, before)[1].step == 2
    if type(rule) is type(other):
        assert rule(rows, state)[1].step == 2
        return
    with pytest.raises(TypeError, match=f"what {type(rule).__name__} returned, .* found one of {type(other).__name__}"):
        rule(rows, state)


def test_states_with_other_fields_are_named(rng):
    packed = pack_state(NearestNeighborMixing(Mean())(dense(rng.normal(size=(6, 4))))[1])
    packed["values"]["trust"] = 1.0
    with pytest.raises(ValueError, match=r"PreAggregationState must have no other fields than step, .*; found trust"):
        unpack_state(packed)


@pytest.mark.parametrize("ids", [(1, 1, 2), (1, 2), ("a", "b", "c", "d")])
@pytest.mark.parametrize("rule", [WorkerMemory(), WorkerMomentum(), NearestNeighborMixing(WorkerMomentum())])
def test_ids_must_be_one_for_each_row(rule, ids):
    with pytest.raises(ValueError, match=f"ids must be one for each row, each of them once; found {len(ids)}, "):
        rule(DenseRows(torch.ones(3, 4), ids=ids))


class Returning(Aggregator):
    """Rule that returns what a test gives."""

    def __init__(self, found=None):
        self.found = found

    def __call__(self, rows, state=None):
        return self.found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (torch.zeros(3), r"return an Aggregate and a state, in a tuple; found Tensor of shape \(3,\)"),
        ((torch.zeros(3), None), r"return an Aggregate and a state, in a tuple; found \(Tensor, NoneType\)"),
        ((Aggregate(np.zeros(3)), None), r"vector .* must be a tensor of shape \(3,\); found ndarray of shape \(3,\)"),
        (
            (Aggregate(torch.zeros(2)), None),
            r"vector .* must be a tensor of shape \(3,\); found Tensor of shape \(2,\)",
        ),
        ((Aggregate(torch.zeros(3), np.ones(1)), None), r"weights .* of shape \(4,\) or None; found ndarray .* \(1,\)"),
        ((Aggregate(torch.zeros(3), torch.ones(4)), None), r"weights .* of shape \(4,\) or None; found Tensor"),
        ((Aggregate(torch.zeros(3), [0.25] * 4), None), r"weights .* of shape \(4,\) or None; found list"),
    ],
)
def test_what_a_rule_of_ones_own_returns_is_checked(found, message):
    rule, rows = Returning(found), DenseRows(torch.eye(4, 3))
    weight = torch.ones(3, requires_grad=True)
    for call in (
        lambda: aggregated(rule, rows, None),
        lambda: AdaptiveClipping(rule)(rows),
        lambda: MajorityVote(1, rule)(rows),
        lambda: WorkerMomentum(rule)(rows),
        lambda: robust_backward(torch.eye(4, 3) @ weight, [weight], rule),
        lambda: StatefulAggregator(rule, 0)(rows),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    assert weight.grad is None


RULES_WITH_STATES = [
    *map(seeded_rule, AGGREGATORS),
    BlockGeometricMedian(0.5, complement="memory"),
    HuberMean(remember=True),
    WorkerMomentum(Mean()),
    NearestNeighborMixing(CenteredClipping()),
    MajorityVote(1, WorkerMomentum()),
]


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("rule", RULES_WITH_STATES, ids=str)
def test_gradients_may_be_changed_in_place(rule, n):
    X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    first, second = X[:n].clone(), X[:n] + 0.1
    aggregate, state = rule(DenseRows(first))
    again, _ = rule(DenseRows(second), state)
    expected = again.vector.clone()
    for vector in (aggregate.vector, again.vector):
        vector.fill_(1e6)
    assert torch.equal(first, X[:n])
    first.fill_(1e6)
    assert torch.equal(rule(DenseRows(second), state)[0].vector, expected)


@pytest.mark.parametrize("rule", RULES_WITH_STATES, ids=str)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))], ids=["copy", "pickle"]
)
def test_aggregates_and_states_can_be_copied_and_pickled(rule, copied):
    rows = DenseRows(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    aggregate, state = rule(rows)
    twin, twin_state = copied((aggregate, state))
    assert torch.equal(twin.vector, aggregate.vector)
    assert dict(twin.record) == dict(aggregate.record)
    assert torch.equal(rule(rows, twin_state)[0].vector, rule(rows, state)[0].vector)
