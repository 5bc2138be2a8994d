"""Audit of ranks: honest ones pass whatever the rows, lies of each kind are found as often as the formula says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import skbgmd.distributed.audit as module
from processes import on_ranks
from skbgmd.aggregators import (
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    Krum,
    NearestNeighborMixing,
)
from skbgmd.distributed import AuditedExchange, AuditReport, Exchange, ShardedRows, audit_ranks, shared_seed
from skbgmd.distributed.audit import CommitmentError
from skbgmd.distributed.exchange import Pending

pytestmark = pytest.mark.slow  # many processes start

RUN, RUNS = 8, 16  # adjacent columns of a run, and runs of a shard


def kinds(n: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(n)
    normal = torch.from_numpy(rng.normal(size=(n, 301)) + 0.3)
    corrupt, far, nan, infinite = (normal.clone() for _ in range(4))
    corrupt[0] *= -40.0
    far[0] *= 1e30
    nan[0, 5] = torch.nan
    infinite[1, :] = torch.inf
    return {
        "normal": normal.float(),
        "float64": normal,
        "half": normal.half(),
        "bfloat16": normal.bfloat16(),
        "corrupt": corrupt.float(),
        "far": far.float(),
        "nan": nan.float(),
        "nan, offset": nan + 1e4,
        "inf": infinite.float(),
        "offset": normal.float() + 1e4,
        "huge": (normal * 1e30).float(),
        "tiny": (normal * 1e-30).float(),
        "subnormal": (normal * 1e-42).float(),
        "equal": normal[:1].repeat(n, 1).float(),
        "zero": torch.zeros(n, 301),
        "few columns": normal[:, :3].float(),
        "one column": normal[:, :1].float(),
        "long": torch.from_numpy(rng.normal(size=(n, 300_001)) + 2.0).float(),
    }


def step(exchange: AuditedExchange, rows: torch.Tensor, rule: Any, **options: Any) -> AuditReport:
    shard = exchange.to_shards(rows).wait()
    aggregate, _ = rule(ShardedRows(shard, rows.shape[1], exchange))
    vector = exchange.from_shards(aggregate.vector, rows.shape[1]).wait()
    return audit_ranks(exchange, rows, shard, vector, aggregate.weights, **options)


def honest(rank: int, size: int, transport: torch.dtype | None) -> Any:
    found = {}
    for kind, rows in kinds(2 * size).items():
        for rule in (GeometricMedian(), Krum()):
            own = rows[2 * rank : 2 * rank + 2]
            report = step(AuditedExchange(transport_dtype=transport), own, rule, n_runs=3, run_length=RUN)
            found[kind, type(rule).__name__] = report
    return found


@pytest.mark.parametrize(("size", "transport"), [(2, None), (4, None), (2, torch.bfloat16)])
def test_honest_ranks_are_found_honest(size, transport):
    for reports in on_ranks(honest, size, transport):
        assert not {key: report for key, report in reports.items() if not report.is_clean}


class Liar(AuditedExchange):
    """Rank that lies on a share of its runs about the columns, its products or its part of the aggregate."""

    def __init__(self, lie: str, share: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.lie = lie
        self.runs = rng.permutation(RUNS)[: round(share * RUNS)]
        self.columns = torch.from_numpy((self.runs[:, None] * RUN + np.arange(RUN)).flatten())

    def to_shards(self, rows: torch.Tensor) -> Pending:
        shard = super().to_shards(rows).wait()
        if self.lie == "columns":
            shard[:-2, self.columns] *= -1.0
        return Pending(shard)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        is_square = values.dim() == 2 and values.shape[0] == values.shape[1]
        return super().add_up(values * 1.5 if self.lie.startswith("products") and is_square else values)

    def from_shards(self, vector: torch.Tensor, n_columns: int) -> Pending:
        if self.lie == "aggregate":
            vector = vector.clone()
            vector[self.columns] += 0.01
        return super().from_shards(vector, n_columns)

    def claim(self, columns: torch.Tensor, v: Any, run_length: int, n_runs: int) -> torch.Tensor:
        """Claim squares that add up to the false products, which is seen in the lie's runs alone."""
        squares = module_run_squares(columns, v, run_length, n_runs)
        if self.lie == "products, adapted" and n_runs == RUNS:
            own = self.products[-1][self.rank].numpy()
            missing = [line @ own @ line - float(sums.sum()) for line, sums in zip(v, squares, strict=True)]
            squares[:, self.runs] += torch.tensor(missing)[:, None] / len(self.runs)
        return squares


module_run_squares = module.run_squares


def audited(rank: int, size: int, lie: str, share: float, n_runs: int, trials: int) -> list[AuditReport]:
    reports = []
    for trial in range(trials):
        rng = np.random.default_rng([trial, rank])
        exchange = Liar(lie, share, rng) if rank == 1 else AuditedExchange()
        module.run_squares = exchange.claim if isinstance(exchange, Liar) else module_run_squares
        rows = torch.from_numpy(rng.normal(size=(2, size * RUN * RUNS)).astype(np.float32))
        nonce = rng.bytes(32)
        reports.append(step(exchange, rows, GeometricMedian(), n_runs=n_runs, run_length=RUN, nonce=nonce))
    return reports


@pytest.mark.parametrize("lie", ["columns", "aggregate", "products, adapted"])
@pytest.mark.parametrize(("share", "n_runs"), [(0.25, 2), (1.0, 1)])
def test_lies_are_found_as_often_as_the_formula_says(lie, share, n_runs):
    trials = 40
    reports, *others = on_ranks(audited, 3, lie, share, n_runs, trials)
    assert all(other == reports or other[0].liars == reports[0].liars for other in others)
    rate = np.mean([1 in report.liars for report in reports])
    formula = 1.0 - (1.0 - share) ** n_runs
    assert abs(rate - formula) < 3.5 * np.sqrt(formula * (1.0 - formula) / trials) + 0.05
    for report in reports:
        assert set(report.liars) <= {1}
        assert all(1 in pair for pair in report.disputes)
        if lie != "columns" and report.liars:
            assert report.wrong_aggregate == ((1,) if lie == "aggregate" else ())
            assert report.wrong_products == ((1,) if lie != "aggregate" else ())


def test_products_that_their_own_claims_contradict_are_always_found():
    for reports in on_ranks(audited, 3, "products", 0.25, 1, 10):
        assert all(report.liars == report.wrong_products == (1,) for report in reports)


def denying(rank: int, size: int) -> AuditReport:
    exchange = AuditedExchange()
    rows = torch.from_numpy(np.random.default_rng(rank).normal(size=(1, 64 * size)).astype(np.float32))
    sent = -rows if rank == 2 else rows
    shard = exchange.to_shards(sent).wait()
    aggregate, _ = GeometricMedian()(ShardedRows(shard, rows.shape[1], exchange))
    vector = exchange.from_shards(aggregate.vector, rows.shape[1]).wait()
    return audit_ranks(exchange, rows, shard, vector, aggregate.weights, n_runs=1, run_length=4)


def test_a_sender_that_denies_its_rows_is_outnumbered():
    for report in on_ranks(denying, 4):
        assert report.liars == (2,)
        assert report.disputes == ((2, 0), (2, 1), (2, 2), (2, 3))


def test_with_two_ranks_none_is_outnumbered():
    assert AuditReport(2, disputes=((0, 1),)).liars == ()
    assert not AuditReport(2, disputes=((0, 1),)).is_clean
    assert AuditReport(5, disputes=((0, 1), (2, 1))).liars == ()
    assert AuditReport(5, disputes=((0, 1), (2, 1), (1, 4))).liars == (1,)


class HidesNaN(AuditedExchange):
    """Rank that drops a row from the rule, with products that aren't finite."""

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        if values.dim() == 2:
            values[0, :] = torch.nan
        return super().add_up(values)


def hiding(rank: int, size: int) -> AuditReport:
    rows = torch.from_numpy(np.random.default_rng(rank).normal(size=(1, 64 * size)).astype(np.float32))
    return step(HidesNaN() if rank == 1 else AuditedExchange(), rows, GeometricMedian(), n_runs=1, run_length=4)


def test_rows_that_a_holder_makes_disappear_are_missed_by_their_sender():
    for report in on_ranks(hiding, 3):
        assert (0, 1) in report.disputes
        assert report.liars == ()  # a dispute of two


def cheating(rank: int, size: int) -> Any:
    seeds = [shared_seed(Exchange(), bytes([draw, rank] * 16)) for draw in (1, 1, 2)]
    if rank == 1:
        module._commitment = lambda number, nonce: bytes(32)
    with pytest.raises(CommitmentError, match=r"from ranks \[1\]") if rank != 1 else pytest.raises(CommitmentError):
        shared_seed(Exchange())
    return seeds


def test_draws_are_of_all_ranks_and_can_not_be_chosen():
    first, *others = on_ranks(cheating, 3)
    assert all(other == first for other in others)
    assert first[0] == first[1] != first[2]


def test_what_can_not_be_audited_is_refused():
    rows = torch.eye(5)
    with pytest.raises(ValueError, match="The rule must weigh the rows by their products on this exchange"):
        step(AuditedExchange(), rows, CoordinatewiseMedian())
    exchange = AuditedExchange()
    exchange.add_up(torch.eye(5))
    exchange.add_up(torch.eye(2))
    with pytest.raises(ValueError, match="The rule must use products of the rows themselves"):
        audit_ranks(exchange, rows, rows, rows.mean(dim=0), np.full(5, 0.2))
    for rule in (NearestNeighborMixing(GeometricMedian()), BlockGeometricMedian(0.5)):
        with pytest.raises(ValueError, match=r"must weigh the rows as they were sent.* found 1 of 1 ranks"):
            step(AuditedExchange(), torch.randn(3, 40, generator=torch.Generator().manual_seed(0)), rule)
    with pytest.raises(ValueError, match="Numbers of audited rows must be zero or in"):
        step(AuditedExchange(), rows.double() * 1e200, GeometricMedian())
    with pytest.raises(ValueError, match="n_runs"):
        step(AuditedExchange(), rows, GeometricMedian(), n_runs=0)


def traffic(rank: int, size: int) -> Any:
    exchange = AuditedExchange()
    report = step(exchange, torch.ones(1, 1 << 16), GeometricMedian(), n_runs=2, run_length=64)
    return report.sent, exchange.traffic.sent


def test_bytes_of_an_audit_are_few():
    n, size, runs = 4, 4, (1 << 16) // 4 // 64
    for sent, total in on_ranks(traffic, size):
        draws, norms, claims, columns = 2 * 64, 8 * (size + 1), 2 * 8 * runs, 4 * 128 * (n + size)
        assert sent == (size - 1) * (draws + norms + claims + columns)
        assert sent < 0.2 * (total - sent)
