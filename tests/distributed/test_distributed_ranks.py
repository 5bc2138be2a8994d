"""Agreement of ranks: messages of any length, tensors, robust means, and errors of one that reach all."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
import torch

from processes import on_ranks
from skbgmd._utils import limits
from skbgmd.aggregators import (
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    HuberMean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    Zeno,
)
from skbgmd.distributed import Exchange, RankDivergedError, RankFailedError
from skbgmd.distributed.ranks import DistributedRanks, seeded_rule, seeds_of, settings_of


def ranks_by(across: Any = None) -> DistributedRanks:
    return DistributedRanks(Exchange(), GeometricMedian() if across is None else across)


def made_equal(rank: int, size: int) -> Any:
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)
    tensors = [torch.full((2, 3), rank, dtype=dtype) for dtype in dtypes]
    tensors += [torch.zeros(0), torch.tensor(float(rank)), torch.full((3, 2), float(rank)).t()]
    tensors.append(torch.nn.Parameter(torch.full((2,), float(rank))))
    ranks_by().make_equal(tensors)
    return [tensor.detach().double().sum().item() for tensor in tensors]


def test_tensors_are_those_of_the_first_rank():
    assert on_ranks(made_equal, 2) == [[0.0] * 9] * 2


def combined(rank: int, size: int) -> Any:
    vector = torch.tensor([1.0, 2.0, 3.0]) + 0.01 * rank
    if rank == 2:
        vector = torch.tensor([1e9, torch.nan, -1e9])
    rules = (
        GeometricMedian(),
        CoordinatewiseMedian(),
        # The seed of each rank is another one, and the first rank's counts.
        BlockGeometricMedian(0.4, complement="memory", selection="uniform", random_state=rank),
        BlockGeometricMedian(0.4, complement="zero", selection="uniform"),
    )
    return [ranks_by(rule).combine(vector).numpy() for rule in rules]


def test_combined_vectors_are_robust_and_the_same_on_all_ranks():
    first, *others = on_ranks(combined, 4)
    for each in other_pairs(first, others):
        np.testing.assert_array_equal(*each)
    for vector in first:
        np.testing.assert_allclose(vector, [1.0, 2.0, 3.0], atol=0.04)


def other_pairs(first: Any, others: Any) -> list[Any]:
    return [pair for other in others for pair in zip(first, other, strict=True)]


def with_failure(rank: int, size: int, error: type[BaseException], text: str) -> Any:
    ranks = ranks_by()
    ranks.gather(rank, "before")
    start = time.perf_counter()
    if rank == 1:
        ranks.report(error(text))
        return None
    try:
        ranks.gather("x" * 5000, "after")
    except RankFailedError as found:
        return type(found), str(found), time.perf_counter() - start
    return "no error"


@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        (ValueError, "X must be finite.", RankFailedError),
        (KeyboardInterrupt, "", RankFailedError),
        (NonFiniteRowsError, "It diverged.", RankDivergedError),
        (OSError, "ü" * 5000, RankFailedError),
    ],
    ids=["error", "interrupt", "diverged", "long"],
)
def test_an_error_of_one_rank_reaches_all(error, text, kind):
    for found in (found for found in on_ranks(with_failure, 3, error, text) if found is not None):
        assert found[0] is kind
        assert ": ".join(filter(None, ("rank 1", error.__name__, text[:500]))) in found[1]
        assert len(found[1]) < 2 * limits.FAILURE_MESSAGE
        assert found[2] < 1.0


def at_other_places(rank: int, size: int) -> Any:
    try:
        ranks_by().gather(None, "a step" if rank != 1 else "the end")
    except RankFailedError as error:
        return str(error)
    return "no error"


def test_ranks_at_other_places_are_told_where_all_are():
    expected = "found rank 0 at 'a step', rank 1 at 'the end', rank 2 at 'a step'."
    assert all(expected in found for found in on_ranks(at_other_places, 3))


def test_rules_get_the_seeds_that_were_agreed_on():
    rule = BlockGeometricMedian(0.5, random_state=None)
    assert list(seeds_of(rule)) == ["random_state"]
    assert seeded_rule(rule, [5]).random_state == 5
    assert rule.random_state is None
    plain = GeometricMedian()
    assert seeded_rule(plain, []) is plain


def test_settings_are_plain_and_without_seeds():
    rule = NearestNeighborMixing(BlockGeometricMedian(np.float64(0.5), HuberMean(c=np.float32(2.0)), random_state=7))
    found = settings_of(rule, "rule")
    assert json.loads(json.dumps(found)) == found
    assert found["rule"] == "NearestNeighborMixing"
    assert found["rule__aggregator of NearestNeighborMixing"] == "BlockGeometricMedian"
    assert found["rule__aggregator__beta of NearestNeighborMixing"] == 0.5
    assert found["rule__aggregator__location__c of NearestNeighborMixing"] == 2.0
    assert not any("random_state" in name for name in found)
    other = settings_of(Zeno(trusted=(np.ones((2, 2)), torch.ones(2)), lr=None), "rule")
    assert other["rule__trusted of Zeno"] == ["ndarray", "Tensor"]
    assert settings_of(Zeno(oracle=len, lr=0.1), "rule")["rule__oracle of Zeno"] == "builtin_function_or_method"
