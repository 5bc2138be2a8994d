"""The rule within and across ranks: its aggregates, weights, state and parameters, with one rank and with several."""

from __future__ import annotations

import copy
import pickle
import re
import time
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from naming import without_address
from processes import on_ranks
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import (
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    HuberMean,
    Krum,
    MajorityVote,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    Zeno,
    get_aggregator,
)
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.distributed import AcrossRanks, RankFailedError, RobustHook
from skbgmd.distributed.across_ranks import AcrossRanksState
from skbgmd.rows import DenseRows
from skbgmd.training._strength.defaults import default_rule

RULES: dict[str, Any] = {
    "default": AcrossRanks(),
    "named": AcrossRanks("huber_mean", "coordinate_median"),
    "mean of means": AcrossRanks("mean", "mean"),
    "no weights within": AcrossRanks(CoordinatewiseMedian(), Krum()),
    "memory": AcrossRanks(
        BlockGeometricMedian(0.5, complement="memory"),
        BlockGeometricMedian(0.5, complement="memory", selection="uniform"),
    ),
}


def rows_of(rank: int, step: int) -> torch.Tensor:
    rng = np.random.default_rng([rank, step])
    rows = rng.normal(size=(4 + rank, 11)) + 1.0
    return torch.from_numpy(-20.0 * rows if rank == 3 else rows).float()


def aggregated(rank: int, size: int) -> Any:
    found = {}
    for name, rule in RULES.items():
        state, steps = None, []
        for step in range(3):
            aggregate, state = rule(DenseRows(rows_of(rank, step)), state)
            state = unpack_state(pack_state(state))
            steps.append((aggregate.vector.numpy(), aggregate.weights, aggregate.record))
        found[name] = steps
    half, _ = AcrossRanks("mean", "mean", transport_dtype=torch.bfloat16)(DenseRows(rows_of(rank, 0)))
    return found, half.vector.numpy()


def test_aggregates_are_those_of_one_process_and_the_same_on_all_ranks():
    size = 4
    ranks = on_ranks(aggregated, size)
    for name, rule in RULES.items():
        within = get_aggregator(rule.within) if rule.within != "auto" else default_rule(huber=16.0, of_samples=True)
        across = get_aggregator(rule.across)
        states: list[Any] = [None] * size
        state = None
        for step in range(3):
            vectors, weights = [], []
            for rank in range(size):
                aggregate, states[rank] = within(DenseRows(rows_of(rank, step)), states[rank])
                vectors.append(aggregate.vector)
                weights.append(aggregate.weights)
            seen = [ranks[rank][0][name][step] for rank in range(size)]
            for vector, *_ in seen[1:]:
                np.testing.assert_array_equal(vector, seen[0][0], err_msg=name)
            if name == "memory":
                # What it draws, it draws of a seed that the ranks agreed on.
                continue
            expected, state = across(DenseRows(torch.stack(vectors)), state)
            np.testing.assert_allclose(seen[0][0], expected.vector, rtol=1e-4, atol=1e-4, err_msg=name)
            for rank, (_, found, record) in enumerate(seen):
                if expected.weights is None:
                    assert "rank_weights" not in record
                    continue
                np.testing.assert_allclose(record["rank_weights"], expected.weights, atol=1e-5)
                if weights[rank] is not None:
                    np.testing.assert_allclose(found, weights[rank] * expected.weights[rank] * size, atol=1e-4)
    plain = ranks[0][0]["mean of means"][0][0]
    np.testing.assert_allclose(ranks[0][1], plain, rtol=2.0**-6)
    np.testing.assert_array_equal(ranks[0][1], ranks[3][1])


def test_weights_are_those_of_a_mean_where_all_ranks_count_alike():
    for rank, (found, _) in enumerate(on_ranks(aggregated, 2)):
        _, weights, record = found["mean of means"][0]
        assert record["rank_weights"] == [0.5, 0.5]
        np.testing.assert_allclose(weights, np.full(4 + rank, 1.0 / (4 + rank)))


def test_one_rank_is_the_rule_within():
    matrix = rows_of(0, 0)
    for within in (HuberMean(), Mean(), CoordinatewiseMedian()):
        rule = AcrossRanks(within)
        aggregate, state = rule(DenseRows(matrix))
        expected, inner = within(DenseRows(matrix))
        assert torch.equal(aggregate.vector, expected.vector)
        assert (aggregate.weights is None) == (expected.weights is None)
        assert state == AcrossRanksState(within=inner)
        assert aggregate.record["rank_weights"] == [1.0]
        rule(DenseRows(matrix), state)
    assert AcrossRanks().ranks().size == 1


def test_parameters_are_scikit_learns():
    rule = AcrossRanks("huber_mean", data="split", transport_dtype=torch.bfloat16)
    rule.set_params(across__tol=0.5, within__c=3.0)
    assert rule.across == rule.get_params()["across"]
    assert rule.get_params()["across__tol"] == 0.5
    assert rule.get_params()["within__c"] == 3.0
    rule.set_params(within="huber_mean", within__c=1.5)
    assert rule.within.c == 1.5
    for twin in (clone(rule), copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert repr(twin) == repr(rule)
        assert twin.transport_dtype is torch.bfloat16
    with pytest.raises(ValueError, match="Invalid parameter"):
        rule.set_params(across__nonsense=1)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"within": "nonsense"}, ValueError, "aggregator must be"),
        ({"across": "nonsense"}, ValueError, "aggregator must be"),
        ({"data": "mine"}, ValueError, "data must be"),
        ({"transport_dtype": torch.int64}, TypeError, "transport_dtype must be a floating-point torch.dtype"),
        ({"transport_dtype": "bfloat16"}, TypeError, "found 'bfloat16'"),
    ],
)
def test_parameters_are_checked(params, error, message):
    rule = AcrossRanks(**params)
    with pytest.raises(error, match=message):
        rule(DenseRows(rows_of(0, 0)))
    with pytest.raises(error, match=message):
        rule.ranks().begin()
    with pytest.raises(error, match=message):
        rule.check_parameters()


def in_groups(rank: int, size: int) -> Any:
    """Two groups of two ranks and three, without the first rank, that train at once, and a rank in neither."""
    members = [[1, 2], [3, 4, 5]]
    groups = [dist.new_group(ranks, timeout=timedelta(seconds=20.0)) for ranks in members]
    found: list[Any] = []
    for number, group in enumerate(groups):
        rule = AcrossRanks("mean", "mean", group=group)
        if rank not in members[number]:
            with pytest.raises(ValueError, match=f"group must have this rank in it, rank {rank} of all; found one"):
                rule(DenseRows(rows_of(0, 0)))
            with pytest.raises(ValueError, match="Ranks outside of a group take no part in what it does"):
                BlockGMDClassifier(aggregator=rule).fit(np.eye(4), [0, 1, 0, 1])
            continue
        twins = (rule, clone(rule), copy.copy(rule), copy.deepcopy(rule), AcrossRanks().set_params(**rule.get_params()))
        assert all(twin.group is group for twin in twins)
        assert {twin.ranks().size for twin in twins} == {len(members[number])}
        aggregate, _ = clone(rule)(DenseRows(torch.full((2, 3), float(rank))))
        model = BlockGMDClassifier(hidden_layer_sizes=(4,), max_epochs=2, strength=None, random_state=rank)
        rng = np.random.default_rng(rank)
        X = rng.normal(size=(30, 2))
        model = clone(model.set_params(aggregator=rule)).fit(X, (X[:, 0] > 0.0).astype(int))
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        with pytest.raises(ValueError, match=r"group must be given to a rule that comes of a pickle, by set_params"):
            again.fit(X, X[:, 0] > 0.0)
        again.set_params(aggregator__group=group).partial_fit(X, X[:, 0] > 0.0)
        bits = b"".join(value.numpy().tobytes() for value in again.net_.module_.state_dict().values())
        found = [number, aggregate.vector.numpy(), aggregate.record["rank_weights"], bits]
    with pytest.raises(TypeError, match=r"group must be a torch.distributed.ProcessGroup or None; found 'all'"):
        AcrossRanks(group="all")(DenseRows(rows_of(0, 0)))
    return found


def test_a_group_of_some_ranks_trains_by_itself():
    alone, *members = on_ranks(in_groups, 6)
    assert alone == []
    for ranks in (members[:2], members[2:]):
        _, vector, weights, bits = ranks[0]
        np.testing.assert_allclose(vector, np.full(3, 1.5 if len(ranks) == 2 else 4.0))
        np.testing.assert_allclose(weights, np.full(len(ranks), 1.0 / len(ranks)))
        assert all(each[3] == bits for each in ranks)


def test_without_torch_distributed_a_group_is_one_rank():
    rule = pickle.loads(pickle.dumps(AcrossRanks(group="of another process")))
    assert repr(rule) == "AcrossRanks(group=<a process group, which isn't pickled>)"
    assert rule.ranks().size == 1
    assert pickle.loads(pickle.dumps(AcrossRanks())).group is None


def test_the_default_rule_of_a_step_called_by_itself():
    matrix = rows_of(0, 0)
    aggregate, _ = AcrossRanks()(DenseRows(matrix))
    expected, _ = default_rule(huber=16.0, of_samples=True)(DenseRows(matrix))
    assert torch.equal(aggregate.vector, expected.vector)
    assert isinstance(AcrossRanks().across, str)
    assert isinstance(get_aggregator(AcrossRanks().across), GeometricMedian)


def checks_of_estimators() -> list[Any]:
    handful = {
        "check_estimators_pickle",
        "check_fit_idempotent",
        "check_dict_unchanged",
        "check_do_not_raise_errors_in_init_or_set_param",
        "check_estimator_sparse_tag",
        "check_sample_weights_shape",
    }
    pairs = [
        pair
        for estimator in (BlockGMDClassifier(aggregator=AcrossRanks()), BlockGMDRegressor(aggregator=AcrossRanks()))
        for pair in estimator_checks_generator(estimator)
    ]
    return [(estimator, check) for estimator, check in pairs if getattr(check, "func", check).__name__ in handful]


@pytest.mark.parametrize(("estimator", "check"), checks_of_estimators(), ids=without_address)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "rule",
    [
        AcrossRanks(AcrossRanks()),
        AcrossRanks("mean", AcrossRanks("mean")),
        AcrossRanks(NearestNeighborMixing(AcrossRanks())),
        AcrossRanks(across=NearestNeighborMixing(AcrossRanks())),
    ],
)
def test_rules_of_ranks_are_not_nested(rule):
    for refuse in (lambda: rule(DenseRows(rows_of(0, 0))), rule.check_parameters, rule.ranks().begin):
        with pytest.raises(ValueError, match=r"(within|across) must be a rule for rows, .* found (Across|Nearest)"):
            refuse()
    with pytest.raises(ValueError, match=r"(within|across) must be a rule for rows"):
        BlockGMDClassifier(aggregator=rule).fit([[0.0], [1.0]] * 4, [0, 1] * 4)
    with pytest.raises(ValueError, match="rule must be a rule for rows"):
        RobustHook(rule)


@pytest.mark.parametrize(
    "rule",
    [NearestNeighborMixing("auto"), Zeno(trusted=(np.ones((3, 2)), np.ones(3))), MajorityVote(3), Krum(fraction=0.3)],
)
def test_what_only_a_training_has_is_not_asked_for_before(rule):
    rule = AcrossRanks(rule, rule)
    rule.check_parameters()
    rule.ranks().begin()


ODD: dict[str, tuple[Any, str]] = {
    "rule": (
        lambda: AcrossRanks(across="krum"),
        r"\(across\) must be .*'Krum' on rank 0; 'GeometricMedian' on ranks",
    ),
    "parameter": (
        lambda: AcrossRanks(across=GeometricMedian(rejection=5.0)),
        r"\(across__rejection of GeometricMedian\) must be .* found 5.0 on rank 0; None on ranks 1, 2",
    ),
    "transport_dtype": (
        lambda: AcrossRanks(transport_dtype=torch.bfloat16),
        r"\(transport_dtype\) must be .* 'torch.bfloat16' on rank 0; 'None' on ranks 1, 2",
    ),
    "data": (lambda: AcrossRanks(data="split"), r"\(data\) must be .* 'split' on rank 0; 'own' on ranks 1, 2"),
    "wrong rule": (lambda: AcrossRanks(across="nonsense"), "aggregator must be one of .*'geometric_median'"),
    "wrong parameter": (lambda: AcrossRanks(across=GeometricMedian(rejection=0.5)), "rejection.* must be .* found 0.5"),
    "wrong within": (lambda: AcrossRanks("nonsense"), "aggregator must be one of"),
    "wrong data": (lambda: AcrossRanks(data="mine"), "data must be one of 'own', 'split'; found 'mine'"),
    "wrong transport": (lambda: AcrossRanks(transport_dtype=torch.int8), "transport_dtype must be .* found torch.int8"),
    "nested": (lambda: AcrossRanks(AcrossRanks()), "within must be a rule for rows"),
}


def odd_rules(rank: int, size: int) -> Any:
    X = np.random.default_rng(rank).normal(size=(40, 2)).astype(np.float32)
    y = (X[:, 0] > 0.0).astype(np.int64)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softmax(dim=-1))
    found = {}

    def note(name: str, function: Any) -> None:
        start = time.monotonic()
        with pytest.raises((TypeError, ValueError, RankFailedError)) as caught:
            function()
        found[name] = str(caught.value), type(caught.value).__name__, time.monotonic() - start

    for name, (make, _) in ODD.items():
        rule = AcrossRanks() if rank else make()
        note(f"estimator, {name}", lambda rule=rule: BlockGMDClassifier(aggregator=rule, max_epochs=1).fit(X, y))
        note(f"net, {name}", lambda rule=rule: RobustNeuralNetClassifier(module, aggregator=rule, verbose=0).fit(X, y))
        note(f"step, {name}", lambda rule=rule: rule(DenseRows(rows_of(rank, 0))))
    return found


def test_odd_parameters_of_one_rank_are_errors_of_all_before_anything_is_exchanged():
    for rank, found in enumerate(on_ranks(odd_rules, 3)):
        for name, (message, kind, seconds) in found.items():
            case = name.partition(", ")[2]
            assert re.search(ODD[case][1], message), (rank, name, message)
            # A step by itself compares before it looks closer.
            is_told = ("wrong" in case and name != "step, wrong parameter") or case == "nested"
            assert (kind == "RankFailedError") == (is_told and rank > 0), (rank, name, message)
            assert ("by an error on rank 0: " in message) == (is_told and rank > 0)
            assert seconds < 5.0


def different_steps(rank: int, size: int) -> Any:
    """What isn't the same in a later step only; what needn't be the same; other vectors."""
    rule = AcrossRanks("mean" if rank else "huber_mean", BlockGeometricMedian(0.5, random_state=rank))
    rows = DenseRows(rows_of(rank, 0))
    first, state = rule(rows)
    later = AcrossRanks(rule.within, BlockGeometricMedian(0.25 if rank else 0.5))
    with pytest.raises(ValueError, match=r"across__beta of BlockGeometricMedian\) must be .* 0.5 on rank 0; 0.25 on"):
        later(rows, state)
    with pytest.raises(ValueError, match=r"Vectors \(length\) must be .* found 10 on rank 0; 11 on ranks 1, 2"):
        rule(DenseRows(rows_of(rank, 0)[:, : 11 if rank else 10].contiguous()))
    with pytest.raises(ValueError, match=r"Vectors \(dtype\) must be .* found 'torch.float64' on rank 0"):
        rule(DenseRows(rows_of(rank, 0) if rank else rows_of(rank, 0).double()))
    # A state that one rank alone begins anew with, or goes back to.
    with pytest.raises(
        ValueError, match=r"States of AcrossRanks.*\(seeds\) must .* found \[\d+\] on ranks 0, 2; None on rank 1"
    ):
        rule(rows, None if rank == 1 else state)
    _, third = rule(rows, state)
    with pytest.raises(
        ValueError, match=r"\(steps\) must be the same on all ranks; found 2 on ranks 0, 2; 1 on rank 1"
    ):
        rule(rows, state if rank == 1 else third)
    # An error within is one of all.
    with pytest.raises((ValueError, RankFailedError), match="no rule for these"):
        AcrossRanks("mean" if rank else Refusing())(rows)
    second, _ = rule(rows, state)
    return first.vector.tolist(), second.vector.tolist()


class Refusing(Mean):
    """A rule that won't have the rows."""

    def __call__(self, rows: Any, state: Any = None) -> Any:
        raise ValueError("no rule for these")


def without_a_vector(rank: int, size: int) -> Any:
    found: dict[str, Any] = {}
    for name, rule in RULES.items():
        # Most rows of rank 2 hold NaN or inf in the second step, and all of them do in the third.
        steps, state = [], None
        for step in range(4):
            matrix = rows_of(rank, step)
            if rank == 2 and step in (1, 2):
                matrix[: None if step == 2 else 5, 3] = torch.inf
            aggregate, state = rule(DenseRows(matrix), state)
            weights = aggregate.weights
            steps.append((aggregate.vector.numpy(), None if weights is None else weights.tolist(), aggregate.record))
        found[name] = steps
    with pytest.raises(NonFiniteRowsError, match="found 2 of 4 rows that hold NaN or inf"):
        AcrossRanks()(DenseRows(rows_of(rank, 0) * (1.0 if rank < 2 else torch.nan)))
    return found


def test_a_rank_without_finite_rows_has_no_weight():
    ranks = on_ranks(without_a_vector, 4)
    for name in RULES:
        for step in range(4):
            vectors, weights, records = zip(*(found[name][step] for found in ranks), strict=True)
            for vector in vectors:
                assert np.isfinite(vector).all(), name
                np.testing.assert_array_equal(vector, vectors[0], err_msg=name)
            if step in (1, 2):
                assert records[2].get("rank_weights", [0.0] * 3)[2] == 0.0, name
                assert not any(weights[2]), name


def test_steps_by_themselves_are_compared():
    first, *others = on_ranks(different_steps, 3)
    assert all(other == first for other in others)
