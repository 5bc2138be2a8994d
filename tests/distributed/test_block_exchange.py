"""Exchange of blocks between ranks: what is sent, what stays, and what hostile ranks can't do."""

from __future__ import annotations

import io
import math
import re
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from processes import on_ranks
from skbgmd.aggregators import Bucketing, GeometricMedian, HuberMean, Mean, NonFiniteRowsError
from skbgmd.distributed import AcrossRanks, BlockExchange, Exchange, RankFailedError, ShardedRows
from skbgmd.distributed.block_exchange import choose_runs, limit_norm, magnitudes_of_runs, median_scores
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock


def gradients(n: int, d: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Gradients (steps, n, d) with a common part, and columns of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(d, generator=generator) ** 4 + 0.05
    common = torch.randn(d, generator=generator)
    return (common + torch.randn(steps, n, d, generator=generator)) * scale


def oracle(gradients: torch.Tensor, rule: Any, beta: float, length: int, turns: float, limit: float) -> Any:
    """Aggregates and remainders of all steps, in one process and spelled out."""
    steps, n, d = gradients.shape
    remainders, aggregates = torch.zeros(n, d), []
    for step in range(steps):
        rows = gradients[step] + remainders
        magnitudes = torch.stack([magnitudes_of_runs(row, length) for row in rows])
        k = math.ceil(math.ceil(beta * d) / length)
        runs = choose_runs(median_scores(magnitudes), k, step, turns)
        index = CoordinateBlock(runs, length, d).indices
        found = rule(DenseRows(rows[:, index]))[0].vector
        aggregates.append(torch.zeros(d).index_copy(0, index, found))
        norms = rows.double().norm(dim=1)
        remainders = rows.index_fill(1, index, 0.0)
        remainders = torch.stack([limit_norm(row, limit * float(norms.median())) for row in remainders])
    return torch.stack(aggregates).numpy(), remainders.numpy()


def train(rank: int, size: int, rows: torch.Tensor, options: dict[str, Any], transport: Any = None) -> Any:
    exchange = Exchange(transport_dtype=transport)
    block = BlockExchange(exchange=exchange, **options)
    aggregates = np.stack([block(row[rank]).double().numpy() for row in rows])
    return aggregates, block.parts[0].remainder.double().numpy(), exchange.traffic.sent


@pytest.mark.parametrize(("size", "d"), [(1, 1000), (2, 1000), (4, 1000), (3, 130), (3, 5), (2, 1)])
def test_steps_are_those_of_one_process_and_the_same_bits_on_all_ranks(size, d):
    rows = gradients(size, d, 6)
    expected, remainders = oracle(rows, GeometricMedian(), 0.2, 16, 0.125, 3.0)
    ranks = on_ranks(train, size, rows, {"beta": 0.2, "run_length": 16})
    for rank, (aggregates, remainder, _) in enumerate(ranks):
        np.testing.assert_array_equal(aggregates, ranks[0][0])
        np.testing.assert_allclose(aggregates, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(remainder, remainders[rank], rtol=1e-4, atol=1e-5)


def exact(rank: int, size: int, rows: torch.Tensor) -> Any:
    exchange, found = Exchange(), []
    for row in rows:
        mine = exchange.to_shards(row[rank][None]).wait()
        aggregate, _ = GeometricMedian()(ShardedRows(mine, rows.shape[2], exchange))
        found.append(exchange.from_shards(aggregate.vector, rows.shape[2]).wait().double().numpy())
    return np.stack(found)


def test_all_coordinates_are_the_exact_rule_and_leave_nothing():
    rows = gradients(4, 300, 3)
    expected = on_ranks(exact, 4, rows)
    for found, (aggregates, remainder, _) in zip(expected, on_ranks(train, 4, rows, {"beta": 1.0}), strict=True):
        np.testing.assert_array_equal(aggregates, found)
        assert not remainder.any()


@pytest.mark.parametrize("transport", [None, torch.bfloat16, torch.float16])
def test_nothing_is_lost(transport):
    """What was aggregated and what remains add up to the gradients, rounding for the transport included."""
    rows = gradients(2, 500, 12)
    options = {"aggregator": Mean(), "beta": 0.1, "run_length": 8, "remainder_limit": None}
    ranks = on_ranks(train, 2, rows, options, transport)
    total = ranks[0][0].sum(axis=0) + np.mean([remainder for _, remainder, _ in ranks], axis=0)
    # The way back is rounded as well, and that isn't made up for.
    rounding = 1e-5 if transport is None else 0.05 if transport is torch.bfloat16 else 0.01
    np.testing.assert_allclose(total, rows.sum(dim=0).mean(dim=0), atol=rounding)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_tenth_sends_less_than_a_seventh_of_an_all_reduce(size):
    d = 1_163_978
    rows = gradients(size, d, 1)
    ring = 2 * 4 * d * (size - 1) / size
    whole, half = (
        [rank[2] for rank in on_ranks(train, size, rows, {"beta": 0.1}, transport)]
        for transport in (None, torch.bfloat16)
    )
    assert max(whole) <= 0.15 * ring
    assert max(half) <= 0.075 * ring
    assert min(whole) > 0.1 * ring


def hostile(rank: int, size: int, rows: torch.Tensor, n_hostile: int, kind: str) -> Any:
    block = BlockExchange(beta=0.1, run_length=8)
    honest = rows[:, n_hostile:].double()
    inside = []
    for row in rows:
        mine = row[rank].clone()
        if rank < n_hostile:
            mine[:] = {"inf": torch.inf, "nan": torch.nan, "constant": 0.0, "flip": -100.0}[kind] * (
                1.0 if kind != "flip" else row[rank]
            )
            if kind == "constant":
                mine[-80:] = 1e6
        aggregate = block(mine)
        inside.append((aggregate != 0.0).numpy())
    own = block.parts[0].remainder.double().numpy()
    return np.stack(inside), own, honest.norm(dim=2).max().item()


@pytest.mark.parametrize(
    ("size", "n_hostile", "kind"),
    [(5, 2, "inf"), (4, 1, "nan"), (4, 1, "constant"), (5, 2, "constant"), (5, 2, "flip")],
)
def test_hostile_ranks_neither_decide_the_block_nor_enter_remainders(size, n_hostile, kind):
    rows = gradients(size, 800, 20)
    rows[:, :, -80:] *= 1e-3  # of no use to anyone
    ranks = on_ranks(hostile, size, rows, n_hostile, kind)
    for inside, own, longest in ranks[n_hostile:]:
        np.testing.assert_array_equal(inside, ranks[0][0])
        # By turns only.
        assert inside[:, -80:].sum() <= 0.15 * inside.sum()
        assert np.isfinite(own).all()
        assert np.linalg.norm(own) <= 20 * longest


def test_every_run_has_its_turn():
    scores = torch.arange(100.0)
    for share in (0.125, 0.5, 1.0):
        sent = torch.zeros(100)
        steps = math.ceil(100 / math.ceil(share * 10))
        for step in range(7, 7 + steps):
            chosen = choose_runs(scores, 10, step, share)
            assert len(chosen.unique()) == 10
            sent[chosen] += 1
        assert sent.min() >= 1
    assert choose_runs(scores, 10, 5, 0.0).tolist() == list(range(90, 100))
    assert choose_runs(torch.zeros(5), 5, 3, 0.5).tolist() == list(range(5))


def alone(rank: int, size: int, round_robin: float) -> Any:
    block = BlockExchange(Mean(), beta=0.2, run_length=10, round_robin=round_robin)
    mine = torch.ones(200)
    mine[:10] = 1.0 if rank == 0 else 0.0
    return torch.stack([block(mine)[:10] for _ in range(40)]).sum().item(), block.parts[0].remainder[:10].sum().item()


def test_a_run_that_one_rank_alone_has_is_sent_by_turns():
    (sent, kept), *_ = on_ranks(alone, 3, 0.25)
    assert sent == pytest.approx((400.0 - kept) / 3)
    assert kept <= 10 * 20
    (sent, kept), *_ = on_ranks(alone, 3, 0.0)
    assert sent == 0.0


@pytest.mark.parametrize("n_hostile", [1, 2])
def test_scores_stay_between_those_of_honest_ranks(n_hostile):
    generator = torch.Generator().manual_seed(0)
    honest = torch.rand(5 - n_hostile, 40, generator=generator)
    for value in (0.0, 1e30, torch.inf, torch.nan, -torch.inf, -5.0):
        scores = median_scores(torch.cat([torch.full((n_hostile, 40), value), honest]))
        assert bool(((honest.min(dim=0).values <= scores) & (scores <= honest.max(dim=0).values)).all())
    assert median_scores(torch.full((3, 2), torch.nan)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_magnitudes_of_every_size(scale):
    vector = torch.tensor([3.0, -4.0, 0.0, 1.0, 2.0]) / 4.0 * scale
    found = magnitudes_of_runs(vector, 2) / scale * 4.0
    np.testing.assert_allclose(found, np.sqrt([12.5, 0.5, 2.0]), rtol=1e-3)
    assert magnitudes_of_runs(vector, 2).max() <= vector.abs().max()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_magnitudes_of_a_bad_vector_are_none(bad):
    assert magnitudes_of_runs(torch.tensor([1.0, 2.0, bad, 0.0]), 1).isnan().all()
    assert not magnitudes_of_runs(torch.zeros(3), 2).any()


def test_limits():
    vector = torch.tensor([30.0, 40.0])
    for none in (0.0, math.inf, math.nan, 60.0):
        assert limit_norm(vector, none) is vector
    assert limit_norm(vector, 5.0).tolist() == [3.0, 4.0]
    huge = limit_norm(torch.tensor([3e38, 3e38]), 1.0)
    np.testing.assert_allclose(huge, [0.5**0.5] * 2, rtol=1e-5)


def spike(rank: int, size: int, rows: torch.Tensor, limit: float | None) -> Any:
    block = BlockExchange(beta=0.1, run_length=8, remainder_limit=limit)
    for step, row in enumerate(rows):
        block(row[rank] * (1e5 if step == 2 and rank == 0 else 1.0))
    return float(block.parts[0].remainder.norm())


def test_one_gradient_that_is_too_large_is_soon_forgotten():
    rows = gradients(4, 800, 10)
    limited, unlimited = (on_ranks(spike, 4, rows, limit) for limit in (3.0, None))
    assert limited[0] < 10 * max(limited[1:])
    assert unlimited[0] > 1000 * max(unlimited[1:])


def not_finite_once(rank: int, size: int, rows: torch.Tensor, lost: tuple[int, ...]) -> Any:
    block = BlockExchange(beta=0.2, run_length=8)
    for row in rows:
        block(row[rank])
    before = block.state_dict()["parts"][0]
    message = ""
    try:
        block(torch.full_like(rows[0, 0], torch.inf) if rank in lost else rows[0, rank])
    except NonFiniteRowsError as error:
        message = str(error)
    after = block.state_dict()["parts"][0]
    return message, torch.equal(before["remainder"], after["remainder"]), after["step"] - before["step"]


def test_a_step_without_a_finite_gradient_leaves_the_remainder():
    rows = gradients(3, 200, 3)
    (first, kept, steps), *others = on_ranks(not_finite_once, 3, rows, (0,))
    assert (first, kept, steps) == ("", True, 1)
    assert not any(kept for _, kept, _ in others)
    for message, kept, steps in on_ranks(not_finite_once, 3, rows, (0, 1)):
        assert message
        assert kept
        assert steps == 0


LAYOUT = {"a.weight": 300, "a.bias": 20, "b.weight": 180}


def rebuilt(rank: int, size: int, rows: torch.Tensor) -> Any:
    """Remainders with one bucket, which is then taken apart, reversed, frozen in part and put together again."""
    block, same = BlockExchange(beta=0.1, run_length=4), BlockExchange(beta=0.1, run_length=4)
    for row in rows:
        block(row[rank], LAYOUT)
        same(row[rank], LAYOUT)
    zero = {name: torch.zeros(length) for name, length in LAYOUT.items()}
    kept = dict(same.parts[0].pieces())
    sent = {}
    for bucket in (["b.weight", "a.bias"], ["a.weight"]):  # a.weight alone is as a bucket of its own
        found = block(torch.cat([zero[name] for name in bucket]), {name: LAYOUT[name] for name in bucket})
        sent |= dict(zip(bucket, found.split([LAYOUT[name] for name in bucket]), strict=True))
    after = {name: piece for part in block.parts for name, piece in part.pieces().items()}
    block(zero["a.bias"], {"a.bias": 20})  # all others are frozen
    n_frozen = sum(part.layout.keys() != {"a.bias"} for part in block.parts)
    thawed = block(torch.cat(list(zero.values())), LAYOUT)
    return [
        all(torch.equal(after[name], kept[name].masked_fill(sent[name] != 0.0, 0.0)) for name in LAYOUT),
        all(bool((sent[name] != 0.0).any()) for name in ("a.weight", "b.weight")),
        n_frozen,
        [list(part.layout) for part in block.parts],
        bool((thawed != 0.0).any()),
    ]


def test_remainders_survive_other_buckets_and_freezing():
    for found in on_ranks(rebuilt, 2, gradients(2, 500, 4)):
        assert found == [True, True, 2, [list(LAYOUT)], True]


def saved(rank: int, size: int, rows: torch.Tensor) -> Any:
    block = BlockExchange(HuberMean(), beta=0.1, run_length=8)
    for row in rows[:4]:
        block(row[rank])
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    other = BlockExchange(HuberMean(), beta=0.1, run_length=8)
    other.load_state_dict(torch.load(file, weights_only=True))
    return all(torch.equal(block(row[rank]), other(row[rank])) for row in rows[4:])


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_been():
    assert on_ranks(saved, 2, gradients(2, 400, 8)) == [True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    rows = gradients(3, 300, 5).to(dtype)
    ranks = on_ranks(train, 3, rows, {"beta": 0.2, "run_length": 8})
    expected, _ = oracle(rows.float(), GeometricMedian(), 0.2, 8, 0.125, 3.0)
    for aggregates, _, _ in ranks:
        np.testing.assert_array_equal(aggregates, ranks[0][0])
    # Other blocks by rounding are other steps; over all steps about the same is sent.
    np.testing.assert_allclose(ranks[0][0].sum(axis=0), expected.sum(axis=0), atol=0.6 if dtype.itemsize == 2 else 1e-3)


def test_half_precision_keeps_its_remainder_in_single():
    block = BlockExchange(beta=0.1)
    assert block(torch.ones(1000, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert block.parts[0].remainder.dtype == torch.float32


def test_the_vector_is_left_as_it_was():
    block, vector = BlockExchange(beta=0.1, run_length=2), gradients(1, 100, 1)[0, 0].requires_grad_()
    before = vector.detach().clone()
    assert not block(vector).requires_grad
    block(vector)
    assert torch.equal(vector, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta must be greater than 0 and at most 1; found 0.0"),
        ({"beta": 1.5}, ValueError, "beta must be"),
        ({"run_length": 0}, ValueError, "run_length must be at least 1; found 0"),
        ({"round_robin": -0.1}, ValueError, "round_robin must be at least 0 and at most 1; found -0.1"),
        ({"remainder_limit": 0.0}, ValueError, "remainder_limit must be greater than 0"),
        ({"aggregator": "median"}, ValueError, "aggregator must be one of"),
    ],
)
def test_parameters_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        BlockExchange(**options)


@pytest.mark.parametrize(
    ("vector", "layout", "error", "message"),
    [
        (torch.ones(3, dtype=torch.int64), None, TypeError, "vector must be a tensor of floating-point numbers; found"),
        (np.ones(3), None, TypeError, "vector must be a tensor of floating-point numbers; found ndarray"),
        (torch.ones(2, 2), None, ValueError, r"vector must have shape \(d,\) with d at least 1; found shape \(2, 2\)"),
        (torch.ones(0), None, ValueError, "vector must have shape"),
        (torch.ones(3), {"a": 2}, ValueError, "layout must have as many elements as the vector, 3; found 2"),
        (torch.ones(3), None, ValueError, "parameter 'vector' as many elements as before, 4; found 3"),
    ],
)
def test_vectors_that_dont_fit(vector, layout, error, message):
    block = BlockExchange()
    block(torch.ones(4))
    before = block.parts
    with pytest.raises(error, match=message):
        block(vector, layout)
    assert block.parts is before


def loading(rank: int, size: int) -> Any:
    generator = torch.Generator().manual_seed(rank)
    old = BlockExchange(beta=0.2, run_length=4)
    for _ in range(3):
        old(torch.randn(50, generator=generator))
    state = old.state_dict()
    odd, new = BlockExchange(beta=0.2, run_length=4), BlockExchange(beta=0.2, run_length=4)
    if rank:
        odd.load_state_dict(state)
    with pytest.raises(ValueError, match=r"a state must be loaded on all ranks.* found 0 on rank 0; 3 on ranks 1, 2"):
        odd(torch.ones(50))
    new.load_state_dict(state, remainders=rank > 0)
    assert bool(new.parts[0].remainder.any()) == (rank > 0)
    return new(torch.randn(50, generator=generator)).tolist()


def test_a_new_rank_takes_turns_with_the_others():
    first, *others = on_ranks(loading, 3)
    assert all(other == first for other in others)


def narrow(rank: int, size: int) -> Any:
    gradient = torch.full((300,), 10_000.0)
    block = BlockExchange("mean", beta=0.1, run_length=8, exchange=Exchange(transport_dtype=torch.float16))
    given = sum(block(gradient) for _ in range(30))
    return (given + block.parts[0].remainder).tolist(), bool(given.isfinite().all())


def test_what_a_narrow_dtype_cannot_hold_waits_in_the_remainder():
    for total, is_finite in on_ranks(narrow, 2):
        assert is_finite
        # The remainder is limited to three median norms, and so may give up a part; it never goes the other way.
        assert max(total) <= 30 * 10_000.0 * 1.001
        assert min(total) > 0.0


def test_a_short_last_run_is_made_up_for():
    vector = torch.zeros(70)
    vector[64:] = 1.0
    sent = BlockExchange(beta=0.4, round_robin=0.0)(vector + 1e-3)
    assert int((sent != 0.0).sum()) == 70


#: What is otherwise on the first of three ranks, and a part of the message of all; None: the first tells its own error.
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], Any, str]] = {
    "rule": ({"aggregator": "krum"}, {}, None, r"\(aggregator\) .* 'Krum' on rank 0; 'GeometricMedian' on ranks 1, 2"),
    "parameter of the rule": (
        {"aggregator": GeometricMedian(rejection=5.0)},
        {},
        None,
        r"\(aggregator__rejection of GeometricMedian\) must be .* found 5.0 on rank 0; None on ranks 1, 2",
    ),
    "beta": ({"beta": 0.3}, {}, None, r"\(beta\) must be .* found 0.3 on rank 0; 0.2 on ranks 1, 2"),
    "all of it": ({"beta": 1.0}, {}, None, r"\(beta\) must be"),
    "run_length": ({"run_length": 8}, {}, None, r"\(run_length\) must be .* found 8 on rank 0; 4 on ranks 1, 2"),
    "round_robin": ({"round_robin": 1.0}, {}, None, r"\(round_robin\) must be"),
    "remainder_limit": ({"remainder_limit": None}, {}, None, r"\(remainder_limit\) must be .* found None on rank 0"),
    "transport": (
        {},
        {"transport_dtype": torch.float16},
        None,
        r"\(transport_dtype\) must be .*'torch.float16' on rank",
    ),
    "length": ({}, {}, torch.ones(31), r"\(elements of 'vector'\) must be .* found 31 on rank 0; 30 on ranks 1, 2"),
    "dtype": ({}, {}, torch.ones(30).double(), r"\(dtype of the vector\) must be .*'torch.float64' on rank 0"),
    "integers": ({}, {}, torch.arange(30), "vector must be a tensor of floating-point numbers; found torch.int64"),
    "no numbers": ({}, {}, torch.ones(0), r"vector must have shape \(d,\)"),
}


def differing(rank: int, size: int) -> Any:
    found = {}
    for name, (options, transport, vector, _) in DIFFERENT.items():
        here, sends, row = (options, transport, vector) if rank == 0 else ({}, {}, None)
        block = BlockExchange(**{"beta": 0.2, "run_length": 4, "exchange": Exchange(**sends), **here})
        start = time.monotonic()
        with pytest.raises((TypeError, ValueError, RankFailedError)) as caught:
            block(torch.ones(30) if row is None else row)
        assert block.parts == []
        found[name] = str(caught.value), time.monotonic() - start
    block = BlockExchange(beta=0.2, run_length=4)
    vector = torch.ones(30)
    block(vector, {"a": 10, "b": 20})
    for layout in ({"a": 10, "b": 20}, {"b": 20, "a": 10}):
        with pytest.raises(ValueError, match=r"BlockExchange \(.* must be the same on all ranks"):
            BlockExchange(beta=0.2)(vector, layout if rank else {"a": 10, "c": 20})
    with pytest.raises(ValueError, match=r"\(elements of 'c'\) must be .* found 10 on rank 0; None on ranks"):
        block(vector, {"b": 20, "a": 10} if rank else {"b": 20, "c": 10})
    # They are still in step.
    return found, block(vector, {"a": 10, "b": 20}).tolist()


def test_what_differs_between_ranks_is_an_error_on_all():
    (first, vector), *others = on_ranks(differing, 3)
    for found, other in [(first, vector), *others]:
        for name, (_, _, _, message) in DIFFERENT.items():
            assert re.search(message, found[name][0]), (name, found[name])
            assert found[name][1] < 5.0
        assert other == vector


def test_rules_of_ranks_are_refused():
    with pytest.raises(ValueError, match="aggregator must be a rule for rows, which doesn't aggregate over ranks"):
        BlockExchange(AcrossRanks())
    with pytest.raises(ValueError, match="rejection must be"):
        BlockExchange(GeometricMedian(rejection=0.5))


def overflowing(rank: int, size: int, options: dict[str, Any], how: str) -> Any:
    """One rank's remainder overflows with its gradient, or is loaded as NaN; what it has weighed in the last step."""
    rows, weights = gradients(size, 200, 20), []
    block = BlockExchange(Spy(weights), beta=0.2, run_length=8, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, row in enumerate(rows):
            gradient = row[rank]
            if rank == 1 and how == "overflow" and step in (3, 4):
                gradient = gradient.sign() * 3e38
            if rank == 1 and how == "loaded" and step == 3:
                block.parts[0].remainder[7] = torch.nan
            block(gradient)
    return weights[-1], bool(block.parts[0].remainder.isfinite().all()), [str(each.message) for each in caught]


class Spy(GeometricMedian):
    """A geometric median that notes its weights."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.weights = weights

    def __call__(self, rows: Any, state: Any = None) -> Any:
        found = super().__call__(rows, state)
        self.weights.append(found[0].weights.tolist())
        return found


@pytest.mark.parametrize(
    "options", [{}, {"remainder_limit": None}, {"round_robin": 1.0}], ids=["", "no limit", "turns"]
)
@pytest.mark.parametrize("how", ["overflow", "loaded"])
def test_a_remainder_that_is_not_finite_is_dropped(options, how):
    for rank, (weights, is_finite, messages) in enumerate(on_ranks(overflowing, 3, options, how)):
        assert is_finite
        assert min(weights) > 0.0
        assert all("The remainder must be finite" in message for message in messages)
        assert len(messages) == int(rank == 1) or how == "overflow"
        assert not messages or rank == 1


STATE = {"layout": {"vector": 4}, "remainder": torch.zeros(4), "step": 1, "state": None}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, ValueError, "state must be what state_dict.. gave, with parts, rule and seeds; found NoneType"),
        ({"part": []}, ValueError, r"found \['part'\]"),
        ({"parts": 3}, TypeError, "parts in state must be a list; found int"),
        ({"parts": [3]}, ValueError, r"parts\[0\] in state must have layout, remainder, step, state; found int"),
        ({"parts": [{"layout": {}}]}, ValueError, "must have layout, remainder, step, state; found layout"),
        ({"parts": [{**STATE, "layout": 4}]}, TypeError, "must have a dict as layout; found int"),
        ({"parts": [{**STATE, "layout": {"a": 4.0}}]}, TypeError, "layout of parts.0. in state"),
        ({"parts": [{**STATE, "step": -1}]}, ValueError, "step of parts.0. in state"),
        ({"parts": [{**STATE, "remainder": torch.zeros(3)}]}, ValueError, r"shape \(4,\) .*; found shape \(3,\)"),
        ({"parts": [{**STATE, "remainder": [0.0] * 4}]}, ValueError, r"a remainder of shape \(4,\) .*; found list"),
        ({"parts": [{**STATE, "remainder": torch.zeros(4).int()}]}, ValueError, "found shape .* of torch.int32"),
        ({"parts": [STATE, STATE]}, ValueError, "each parameter once; found vector twice"),
        ({"parts": [], "rule": "Mean"}, ValueError, "state must be of the rule GeometricMedian; found that of Mean"),
        ({"parts": [], "seeds": "x"}, ValueError, "seeds in state must be integers or None; found 'x'"),
        ({"parts": [], "seeds": [1]}, ValueError, r"seeds in state must be 0 for GeometricMedian.*; found \[1\]"),
    ],
)
def test_a_state_is_checked_before_anything_is_changed(state, error, message):
    block = BlockExchange(beta=0.5, run_length=2)
    block(torch.arange(4.0))
    parts = block.parts
    with pytest.raises(error, match=message):
        block.load_state_dict(state)
    assert block.parts is parts


def drawing(rank: int, size: int, rows: torch.Tensor) -> Any:
    block = BlockExchange(Bucketing(GeometricMedian(), 2), beta=0.2, run_length=8)
    for row in rows[:3]:
        block(row[rank])
    other = BlockExchange(Bucketing(GeometricMedian(), 2), beta=0.2, run_length=8)
    other.load_state_dict(block.state_dict())
    found = [(block(row[rank]), other(row[rank])) for row in rows[3:]]
    assert all(torch.equal(one, two) for one, two in found)
    return [one.tolist() for one, _ in found]


def test_what_a_rule_draws_is_the_same_on_all_ranks_and_after_a_state_was_loaded():
    first, *others = on_ranks(drawing, 3, gradients(3, 200, 6))
    assert others == [first, first]
