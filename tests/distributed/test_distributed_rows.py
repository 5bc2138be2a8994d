"""Rules on rows across ranks: those of one process, and the same bits on every rank."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from processes import on_ranks
from skbgmd.aggregators import (
    AGGREGATORS,
    AdaptiveClipping,
    BlockGeometricMedian,
    Bucketing,
    Krum,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    TrimmedMean,
    WorkerMemory,
    WorkerMomentum,
    get_aggregator,
)
from skbgmd.aggregators.block_geometric_median import BlockState
from skbgmd.distributed import Exchange, ShardedRows
from skbgmd.rows import DenseRows, ParameterBlock

RULES: dict[str, Any] = {
    **{name: get_aggregator(name) for name in AGGREGATORS if name != "bgmd_paper"},
    "block of runs": BlockGeometricMedian(0.2, run_length=7),
    "block with memory": BlockGeometricMedian(0.2, complement="memory"),
    "all with memory": BlockGeometricMedian(1.0, complement="memory"),
    "block, off-block zero": BlockGeometricMedian(0.1, complement="zero"),
    "block of units": BlockGeometricMedian(0.3, block="unit"),
    "uniform block": BlockGeometricMedian(0.2, selection="uniform", random_state=0),
    "sampled block": BlockGeometricMedian(0.2, selection="sample", run_length=5, random_state=0),
    "bgmd_paper": BlockGeometricMedian.published(0.2, random_state=0),
    "clipping": AdaptiveClipping(BlockGeometricMedian(0.3)),
    "clipped mixing": AdaptiveClipping(NearestNeighborMixing(Krum())),
    "mixing": NearestNeighborMixing(BlockGeometricMedian(0.3)),
    "buckets": Bucketing(get_aggregator("coordinate_median"), random_state=0),
    "mixed krum": NearestNeighborMixing(Krum()),
    "workers remembered": WorkerMemory(BlockGeometricMedian(0.3)),
    "worker momentum": WorkerMomentum(),
    "krum, auto": Krum("auto"),
    "trimmed mean, auto": TrimmedMean("auto"),
    "mixing, auto": NearestNeighborMixing(fraction="auto"),
}
MODULE_SHAPES = [(7, 5), (7,), (3, 7), (3,)]


def matrices(n: int) -> dict[str, torch.Tensor]:
    """Rows of every kind that ranks may have."""
    rng = np.random.default_rng(n)
    normal = torch.from_numpy(rng.normal(size=(n, 66)) + 0.3)
    corrupt = normal.clone()
    corrupt[: (n - 1) // 3] *= -40.0
    nan = normal.clone()
    nan[0, 3], nan[-1, 60] = torch.nan, torch.nan if n > 4 else 0.0
    infinite = normal.clone()
    infinite[1, :] = torch.inf
    # Of a row in the middle of the others, where no sample of the columns sees it.
    hidden = torch.from_numpy(rng.normal(size=2999) + 0.3 * rng.normal(size=(n, 2999)))
    hidden[n // 2] = hidden.mean(dim=0)
    fault, far = hidden.clone(), hidden.clone()
    fault[n // 2, 50], far[n // 2, -50] = torch.nan, 1e30
    offset = normal + 1e4
    few = normal[:, :3].clone()
    return {
        "normal": normal.float(),
        "float64": normal,
        "corrupt": corrupt.float(),
        "nan": nan.float(),
        "inf": infinite.float(),
        "nan of the central row": fault.float(),
        "huge number of the central row": far.float(),
        "offset": offset.float(),
        "huge": normal.float() * 1e30,
        "beyond": normal * 1e250,
        "tiny": normal.float() * 1e-30,
        "equal": normal[:1].repeat(n, 1).float(),
        "zero": torch.zeros(n, 66),
        "few columns": few.float(),
        "one column": few[:, :1].float(),
        "half": normal.half(),
        "bfloat16": normal.bfloat16(),
        "long": torch.from_numpy(rng.normal(size=(n, 30_001))).float(),
        # Columns of which the first rank holds enough for a quick sample, and the last one not.
        "middling": torch.from_numpy(rng.normal(size=(n, 511)) + 0.3).float(),
    }


def units_of(d: int) -> ParameterBlock | None:
    return ParameterBlock.of([torch.zeros(shape) for shape in MODULE_SHAPES]) if d == 66 else None


def weights_of(kind: str, n: int) -> Any:
    return np.linspace(0.5, 1.5, n) if kind == "offset" else None


def aggregate_twice(rule: Any, rows: Any) -> tuple[Any, Any]:
    first, state = rule(rows())
    second, _ = rule(rows(), state)
    return first, second


#: With more ranks than cores each collective waits for its turn: there, some of the rows and rules.
SOME_KINDS = ("normal", "nan", "nan of the central row", "few columns", "beyond", "middling")
SOME_RULES = (
    "mean",
    "coordinate_median",
    "krum",
    "geometric_median",
    "block of runs",
    "block of units",
    "mixing",
    "bgmd_paper",
)


def cases(size: int, n: int) -> list[tuple[str, torch.Tensor, str]]:
    kinds, rules = (matrices(n), RULES) if size == 2 else (SOME_KINDS, SOME_RULES)
    return [(kind, matrix, rule) for kind, matrix in matrices(n).items() if kind in kinds for rule in rules]


def across(rank: int, size: int, per_rank: int) -> dict[tuple[str, str], Any]:
    exchange = Exchange()
    found: dict[tuple[str, str], Any] = {}
    for kind, matrix, name in cases(size, size * per_rank):
        d = matrix.shape[1]
        shard = exchange.to_shards(matrix[rank * per_rank : (rank + 1) * per_rank]).wait()
        make = partial(ShardedRows, shard, d, exchange, weights_of(kind, len(matrix)), units=units_of(d))
        pair = aggregate_twice(RULES[name], make)
        found[kind, name] = [
            (exchange.from_shards(each.vector, d).wait().numpy(), each.weights, each.mass) for each in pair
        ]
    return found


def in_one_process(size: int, n: int) -> dict[tuple[str, str], Any]:
    found = {}
    for kind, matrix, name in cases(size, n):
        make = partial(DenseRows, matrix, weights_of(kind, n), units=units_of(matrix.shape[1]))
        found[kind, name] = [
            (each.vector.numpy(), each.weights, each.mass) for each in aggregate_twice(RULES[name], make)
        ]
    return found


#: Two pairs of equal means of neighbors, each as near to the other: either is Krum's.
TIED = 2, "inf", "mixed krum"


@pytest.mark.parametrize(("size", "per_rank"), [(2, 3), (4, 2), pytest.param(8, 1, marks=pytest.mark.slow)])
def test_every_rule_is_that_of_one_process_and_the_same_on_all_ranks(size, per_rank):
    expected = in_one_process(size, size * per_rank)
    ranks = on_ranks(across, size, per_rank)
    for key, pair in expected.items():
        for step, (vector, weights, mass) in enumerate(pair):
            first = ranks[0][key][step]
            for other in ranks[1:]:
                np.testing.assert_array_equal(other[key][step][0], first[0], err_msg=str(key))
                np.testing.assert_array_equal(other[key][step][1], first[1], err_msg=str(key))
            if (size, *key) == TIED:
                continue
            scale = np.float64(max(float(np.abs(vector).max()), 1e-300))
            # A memory's median of means is as it is to four digits.
            atol = 1e-5 if key == ("huge number of the central row", "worker_memory") else 1e-6
            np.testing.assert_allclose(first[0] / scale, vector / scale, rtol=0, atol=atol, err_msg=f"{key}, {step}")
            if weights is not None:
                # Norms have seven digits, and so have rows that are clipped by them: of an offset, three of a distance.
                atol = 1e-3 if key[0] == "offset" and "clip" in key[1] else 1e-5
                np.testing.assert_allclose(first[1], weights, atol=atol, err_msg=str(key))
            assert (first[2] is None) == (mass is None)


#: What a single column of one rank's rows holds, of a mean that is finite elsewhere.
IN_A_COLUMN = (torch.nan, torch.inf, -torch.inf, 3.4e38)


def means_of(rank: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    exchange, found = Exchange(), []
    for value in IN_A_COLUMN:
        for column in (0, 65):
            row = torch.full((1, 66), float(rank))
            row[0, column] = value if rank == 1 or np.isfinite(value) else 1.0
            aggregate, _ = Mean()(ShardedRows(exchange.to_shards(row).wait(), 66, exchange))
            found.append((exchange.from_shards(aggregate.vector, 66).wait().numpy(), aggregate.weights))
    return found


def test_a_mean_that_is_no_number_in_some_columns_goes_the_same_way_on_all_ranks():
    """Each rank sums its own columns: where one alone looked for what isn't finite, it waited for the others."""
    first, *others = on_ranks(means_of, 3)
    for number, (vector, weights) in enumerate(first):
        value, column = IN_A_COLUMN[number // 2], (0, 65)[number % 2]
        expected = np.full(66, 1.0)
        expected[column] = value if np.isfinite(value) else 1.0
        np.testing.assert_allclose(vector, expected, rtol=1e-5)
        np.testing.assert_allclose(weights, [1 / 3] * 3 if np.isfinite(value) else [0.5, 0.0, 0.5])
        for other in others:
            np.testing.assert_array_equal(other[number][0], vector)
            np.testing.assert_array_equal(other[number][1], weights)


def overflowing(rank: int, size: int) -> int:
    exchange = Exchange()
    row = torch.ones(1, 6)
    row[0, 4] = 3e38  # a column of the last rank
    shard = exchange.to_shards(row).wait()
    state = BlockState(torch.full((2,), 3e38 if rank == size - 1 else 0.0))
    with pytest.raises(ValueError, match="memory must have a number"):
        BlockGeometricMedian(0.2, complement="memory")(ShardedRows(shard, 6, exchange), state)
    return rank


def test_an_error_of_one_rank_is_raised_on_all():
    """A rank that went on alone would wait for the others forever."""
    assert on_ranks(overflowing, 3) == [0, 1, 2]


def none_usable(rank: int, size: int) -> int:
    exchange = Exchange()
    shard = exchange.to_shards(torch.full((1, 5), torch.nan if rank < 2 else 1.0)).wait()
    for name in ("mean", "coordinate_median", "geometric_median", "block_geometric_median"):
        with pytest.raises(NonFiniteRowsError, match="found 2 of 3 rows"):
            get_aggregator(name)(ShardedRows(shard, 5, exchange))
    return 1


def test_too_few_finite_rows_are_an_error_on_all_ranks():
    assert on_ranks(none_usable, 3) == [1, 1, 1]


def other_columns(rank: int, size: int) -> list[list[float]]:
    """Columns that are added to the rows leave as many on some ranks, and more on others."""
    exchange, state, found = Exchange(), None, []
    for d in (7, 8, 7):
        row = torch.arange(1.0, d + 1)[None] * (rank + 1)
        aggregate, state = BlockGeometricMedian(0.3, complement="memory")(
            ShardedRows(exchange.to_shards(row).wait(), d, exchange), state
        )
        found.append(exchange.from_shards(aggregate.vector, d).wait().tolist())
    return found


def test_a_memory_of_other_columns_is_dropped_on_all_ranks():
    first, *others = on_ranks(other_columns, 3)
    assert all(other == first for other in others)


def narrow_scores(rank: int, size: int) -> list[int]:
    exchange = Exchange(transport_dtype=torch.float16)
    row = torch.full((1, 40), 300.0)
    row[0, 30:] = 600.0
    rows = ShardedRows(exchange.to_shards(row).wait(), 40, exchange)
    aggregate, _ = BlockGeometricMedian(0.25)(rows)
    start = exchange.held(40).start
    return (aggregate.block + start).tolist()


def test_scores_are_not_cut_off_by_the_dtype_that_rows_travel_in():
    assert sorted(each for found in on_ranks(narrow_scores, 2) for each in found) == list(range(30, 40))
