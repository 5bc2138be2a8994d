"""Audit of ranks by random columns: who computed what its rows don't give, and who sent what it later denies.

A rank holds columns of all rows, and the others rely on its share of the products and of the aggregate. In an audit
all ranks draw random columns after everything was said, have them sent once more, and compute them anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.checks import check_integer
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.distributed.exchange import Exchange, Pending
from skbgmd.rows import DenseRows
from skbgmd.rows.gram import low_median


class AuditedExchange(Exchange):
    """Exchange for audits: every rank knows the others' terms of a sum, so that they can be held to them.

    Terms are gathered and added up in the order of the ranks. That takes ``size / 2`` times the bytes of an all-reduce,
    which for (n, n) products is little compared with the rows.

    Attributes
    ----------
    products : list of tensor of shape (size, n, n)
        Products of rows on each rank's columns, about some point, since rows were last sent.

    Examples
    --------
    >>> import torch
    >>> AuditedExchange().add_up(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    def __init__(self, group: Any = None, transport_dtype: torch.dtype | None = None) -> None:
        super().__init__(group, transport_dtype)
        self.products: list[torch.Tensor] = []

    def to_shards(self, rows: torch.Tensor, sizes: Sequence[int] | None = None) -> Pending:
        self.products = []
        return super().to_shards(rows, sizes)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        terms = self.gather(values)
        if values.dim() == 2 and values.shape[0] == values.shape[1]:
            self.products.append(terms)
        return terms.sum(dim=0)


@dataclass(frozen=True)
class AuditReport:
    """Findings of an audit, the same on all ranks.

    Attributes
    ----------
    size : int
        Number of ranks.
    wrong_products, wrong_aggregate : tuple of int
        Ranks whose products, or whose part of the aggregate, don't match the columns that they themselves showed.
    disputes : tuple of (int, int)
        Pairs of a sender and a holder that show different numbers: one of the two lies.
    sent : int
        Number of bytes that this rank sent for the audit.
    """

    size: int
    wrong_products: tuple[int, ...] = ()
    wrong_aggregate: tuple[int, ...] = ()
    disputes: tuple[tuple[int, int], ...] = ()
    sent: int = 0

    @property
    def liars(self) -> tuple[int, ...]:
        """Ranks that lie for sure, if fewer than half do: they contradict themselves, or more ranks than can lie."""
        opponents: dict[int, set[int]] = {rank: set() for rank in range(self.size)}
        for sender, holder in self.disputes:
            opponents[sender].add(holder)
            opponents[holder].add(sender)
        n_hostile = max((self.size - 1) // 2, 1)
        outnumbered = {rank for rank, others in opponents.items() if len(others) > n_hostile}
        return tuple(sorted(outnumbered | {*self.wrong_products, *self.wrong_aggregate}))

    @property
    def is_clean(self) -> bool:
        """Nothing was found."""
        return not (self.wrong_products or self.wrong_aggregate or self.disputes)


class CommitmentError(RuntimeError):
    """A rank revealed another number than it had committed to."""


def shared_seed(exchange: Exchange, nonce: bytes | None = None, device: torch.device | str = "cpu") -> int:
    """Draw a common random seed that no rank can know in advance or choose, by committing and revealing.

    Each rank sends a hash of 32 random bytes, and once all hashes are there, the bytes themselves. The seed is a hash
    of all the bytes. It is random if one rank is honest, because the others committed before they saw that rank's
    bytes.

    Parameters
    ----------
    exchange : Exchange
        The ranks.
    nonce : bytes of length 32, default=None
        This rank's bytes, to repeat a draw. None: random bytes from the operating system.
    device : device, default="cpu"
        Device from which the ranks' backend takes tensors; "cuda" with NCCL.

    Raises
    ------
    CommitmentError
        If a rank's bytes don't match its hash; the error names the ranks.

    Examples
    --------
    >>> shared_seed(Exchange(), bytes(32)) == shared_seed(Exchange(), bytes(32))
    True
    """
    nonce = nonce or secrets.token_bytes(32)
    committed = _gather_bytes(exchange, _commitment(exchange.rank, nonce), device)
    revealed = _gather_bytes(exchange, nonce, device)
    false = [rank for rank, own in enumerate(revealed) if _commitment(rank, own) != committed[rank]]
    if false:
        raise CommitmentError(f"Ranks must reveal the numbers that they committed to; found others from ranks {false}.")
    return int.from_bytes(sha256(b"".join(revealed)).digest(), "big")


def _commitment(rank: int, nonce: bytes) -> bytes:
    # With the rank's number, no rank can commit to another's bytes.
    return sha256(rank.to_bytes(4, "big") + nonce).digest()


def _gather_bytes(exchange: Exchange, own: bytes, device: torch.device | str) -> list[bytes]:
    gathered = exchange.gather(torch.tensor(list(own), dtype=torch.uint8, device=device))
    return [bytes(line) for line in gathered.tolist()]


def contrasts(rng: np.random.Generator, used: BoolArray, near: BoolArray) -> FloatArray:
    """Random weights (2, n) that add up to zero, of used rows and of near ones.

    Products of rows about any point give the same forms of them. Far rows, which one rank may send and another lie
    about, would hide any lie about near ones behind their rounding.
    """
    v = np.zeros((2, len(used)))
    for line, some in zip(v, (used, near), strict=True):
        line[some] = rng.normal(size=int(some.sum()))
        line[some] -= line[some].mean()
    return v


def run_squares(columns: torch.Tensor, v: FloatArray, run_length: int, n_runs: int) -> torch.Tensor:
    """Sums over runs of columns (n, k) of the squares of ``v @ columns``, float64 (2, n_runs); zero where none is."""
    sums = DenseRows(columns).weighted_sum(v, torch.float64)
    padded = torch.nn.functional.pad(sums, (0, n_runs * run_length - sums.shape[1]))
    return padded.square_().view(len(v), n_runs, run_length).sum(dim=2)


def audit_ranks(
    exchange: AuditedExchange,
    rows: torch.Tensor,
    shard: torch.Tensor,
    vector: torch.Tensor,
    weights: FloatArray | None,
    *,
    n_runs: int = 4,
    run_length: int = 64,
    nonce: bytes | None = None,
) -> AuditReport:
    r"""Audit ranks: check random columns of every rank's shard against what the senders of the rows send once more.

    It is a collective: call it on all ranks, once the aggregate has been joined.

    1. The ranks draw a random vector v whose entries add up to zero. Each holder h sends
       :math:`e_c = \sum_{j \in c} (v^T X_j)^2` for every run c of its columns. These must add up to
       :math:`v^T G_h v`, for the products :math:`G_h` that the holder gave the rule.
    2. The ranks draw some runs. Senders and holders show their columns of these runs, and all ranks compute
       :math:`e_c` and the aggregate there.

    A lie on a share q of the runs is found by m runs of the shard with probability :math:`1 - (1 - q)^m` or more.

    Parameters
    ----------
    exchange : AuditedExchange
        The ranks; the rule ran on it.
    rows : tensor of shape (m, d)
        This rank's rows, as they were sent.
    shard : tensor of shape (n, k)
        This rank's columns of all rows.
    vector : tensor of shape (d,)
        The aggregate.
    weights : ndarray of shape (n,)
        Weights of the rows: the aggregate is ``weights @ rows``.
    n_runs, run_length : int
        Number of runs of each shard to check, and number of adjacent columns in a run.
    nonce : bytes, default=None
        As in :func:`shared_seed`.

    Returns
    -------
    AuditReport

    Raises
    ------
    ValueError
        If the rule gave no weights; if it used no products of all rows on this exchange, for example because it drops
        rows before; if most ranks' numbers aren't of the rows, because the rule replaces them by others; or if float64
        doesn't hold the squares of rows.
    CommitmentError
        If a rank cheats in a draw.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import GeometricMedian
    >>> from skbgmd.distributed import ShardedRows
    >>> exchange = AuditedExchange()
    >>> rows = torch.tensor([[1.0, 2.0], [1.5, 2.0], [9.0, 9.0]])
    >>> shard = exchange.to_shards(rows).wait()
    >>> aggregate, _ = GeometricMedian()(ShardedRows(shard, 2, exchange))
    >>> vector = exchange.from_shards(aggregate.vector, 2).wait()
    >>> audit_ranks(exchange, rows, shard, vector, aggregate.weights).is_clean
    True
    """
    check_integer(n_runs, "n_runs")
    check_integer(run_length, "run_length")
    n, d, size, device = len(shard), rows.shape[1], exchange.size, shard.device
    products = [each.double().cpu() for each in exchange.products]
    whole = [each for each in products if each.shape[1] == n]
    if weights is None or not whole:
        raise ValueError(
            "The rule must weigh the rows by their products on this exchange, as the geometric median does; found "
            f"{'no' if weights is None else 'its'} weights, and products of {[each.shape[1] for each in products]} "
            f"rows where {n} were sent."
        )
    squares = whole[-1].sum(dim=0).diagonal().numpy()
    used = np.isfinite(squares)
    if any(each.shape[1] not in (n, used.sum()) for each in products):
        raise ValueError("The rule must use products of the rows themselves, not of means of them.")
    before = exchange.traffic.sent
    shards = [slice(min(h * exchange.width(d), d), min((h + 1) * exchange.width(d), d)) for h in range(size)]
    norms = _norms_in_shards(exchange, rows, shards)
    disputed = _are_disputed(norms, whole[-1])

    near = used & (squares <= limits.AUDIT_NEAR**2 * low_median(squares[used]))
    v = contrasts(np.random.default_rng(shared_seed(exchange, nonce, device)), used, near)
    claimed = exchange.gather(run_squares(shard, v, run_length, -(-exchange.width(d) // run_length))).cpu()
    typical = np.median(norms[used], axis=0)
    is_wrong = np.zeros(size, dtype=bool)
    for each in products:
        forms = v if each.shape[1] == n else v[:, used]
        is_wrong |= ~_agree(claimed.sum(dim=2).numpy(), each.numpy(), forms, typical)
        # What rules make of products that aren't finite, such as those of scaled rows, doesn't follow from the rows.
        if each.shape[1] == n and _are_disputed(norms, each).any():
            break

    rng = np.random.default_rng(shared_seed(exchange, nonce, device))
    # In their order, as the last run may be shorter.
    picks = [np.sort(rng.permutation(-(-(part.stop - part.start) // run_length))[:n_runs]) for part in shards]
    columns = [_columns_of(runs, run_length, part) for runs, part in zip(picks, shards, strict=True)]
    width, transport = n_runs * run_length, exchange.transport_dtype or rows.dtype
    shown = exchange.gather(_padded(shard, columns[exchange.rank] - shards[exchange.rank].start, width)).cpu()
    own = torch.stack([_padded(rows, index, width) for index in columns], dim=1)
    resent = exchange.gather(own.to(transport)).to(shard.dtype).flatten(0, 1).cpu()
    wrong_aggregate = np.zeros(size, dtype=bool)
    for holder, (runs, index) in enumerate(zip(picks, columns, strict=True)):
        numbers = shown[holder]
        disputed[:, holder] |= ~torch.isclose(numbers, resent[:, holder], 0.0, 0.0, equal_nan=True).all(dim=1).numpy()
        is_wrong[holder] |= not _repeated(claimed[holder][:, runs], numbers, v, run_length)
        wrong_aggregate[holder] = not _is_mean(vector[index].cpu(), numbers[:, : len(index)], weights, transport)
    n_wrong, n_holders = int((is_wrong | wrong_aggregate).sum()), sum(part.stop > part.start for part in shards)
    if 2 * n_wrong > n_holders:
        raise ValueError(
            "The rule must weigh the rows as they were sent, rather than blocks, momenta or mixtures of them; found "
            f"{n_wrong} of {n_holders} ranks whose numbers aren't of the rows, which are too many to lie."
        )
    return AuditReport(
        size,
        tuple(np.flatnonzero(is_wrong).tolist()),
        tuple(np.flatnonzero(wrong_aggregate).tolist()),
        tuple(sorted({(int(row) * size // n, int(holder)) for row, holder in np.argwhere(disputed)})),
        exchange.traffic.sent - before,
    )


def _norms_in_shards(exchange: Exchange, rows: torch.Tensor, shards: list[slice]) -> FloatArray:
    """Norms of all rows in the columns of each rank (n, size), by their senders."""
    own = [torch.linalg.vector_norm(rows[:, part], dim=1, dtype=torch.float64) for part in shards]
    # The largest number of each as well: norms of huge ones overflow.
    own.append(rows.abs().amax(dim=1).double())
    found: FloatArray = exchange.gather(torch.stack(own, dim=1)).flatten(0, 1).cpu().numpy()
    norms, largest = found[:, :-1], found[:, -1]
    low, high = limits.SQUARED_RANGE[torch.float64]
    odd = ((largest > high) & (largest < np.inf)) | ((largest > 0.0) & (largest < low))
    if odd.any():
        raise ValueError(f"Numbers of audited rows must be zero or in [{low:g}, {high:g}]; found {largest.tolist()}.")
    return norms


def _are_disputed(norms: FloatArray, products: torch.Tensor) -> BoolArray:
    """Tell which rows (n, size) are finite by their senders and not by the products (size, n, n), or the reverse."""
    are_disputed: BoolArray = np.isfinite(norms) != products.diagonal(dim1=1, dim2=2).isfinite().numpy().T
    return are_disputed


def _agree(claimed: FloatArray, products: FloatArray, v: FloatArray, typical: FloatArray) -> BoolArray:
    """Tell which ranks' sums of squares (size, 2) are the forms of v by their products (size, n, n).

    ``typical`` (size,) are norms of rows in each shard, of which ``v @ rows`` has the rounding.
    """
    agrees = np.ones(len(products), dtype=bool)
    for sums, line in zip(claimed.T, v, strict=True):
        some = line != 0.0
        part, factors = products[:, some][:, :, some], line[some]
        lengths = np.sqrt(np.maximum(np.diagonal(part, axis1=1, axis2=2), 0.0))
        bound = limits.AUDIT_ROUNDING * (lengths @ np.abs(factors)) ** 2
        bound += (limits.AUDIT_REPEATED * np.abs(factors).sum() * typical) ** 2
        # Comparisons with NaN are false: whoever has NaN in products of finite rows doesn't agree.
        with np.errstate(invalid="ignore"):
            agrees &= np.abs(sums - factors @ part @ factors) <= bound
    return agrees


def _repeated(said: torch.Tensor, columns: torch.Tensor, v: FloatArray, run_length: int) -> bool:
    """Tell whether sums of squares of runs (2, m) are those of the columns (n, k)."""
    n_runs = columns.shape[1] // run_length
    found, bound = (
        run_squares(columns, v, run_length, n_runs),
        run_squares(columns.abs(), np.abs(v), run_length, n_runs),
    )
    m = said.shape[1]
    # Norms differ by no more than the norm of the rounding.
    return bool(((said.sqrt() - found[:, :m].sqrt()).abs() <= limits.AUDIT_REPEATED * bound[:, :m].sqrt()).all())


def _is_mean(vector: torch.Tensor, columns: torch.Tensor, weights: FloatArray, transport: torch.dtype) -> bool:
    """Tell whether an aggregate (k,) that has travelled in a dtype is ``weights @ columns``."""
    used = np.flatnonzero(weights)
    factors, numbers = torch.from_numpy(weights[used]), columns[used].double()
    eps = max(torch.finfo(vector.dtype).eps, torch.finfo(transport).eps)
    error = (vector.double() - factors @ numbers).abs()
    # A sum of n terms has n roundings; the least normal number stands for those that underflow.
    bound = (len(used) + 8) * eps * (factors @ numbers.abs()) + torch.finfo(transport).tiny
    return bool((error <= bound).all())


def _columns_of(runs: NDArray[np.intp], run_length: int, part: slice) -> torch.Tensor:
    """Columns of runs that are counted from the begin of a shard, out of all columns."""
    index = torch.from_numpy(part.start + runs[:, None] * run_length + np.arange(run_length)).flatten()
    return index[index < part.stop]


def _padded(values: torch.Tensor, index: torch.Tensor, width: int) -> torch.Tensor:
    """Select columns, and add columns of zeros."""
    some = values.index_select(1, index.to(values.device))
    return torch.nn.functional.pad(some, (0, width - some.shape[1]))
