"""Exchange of rows between ranks, and what it sends."""

from __future__ import annotations

import re
import time
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
import torch.distributed as dist

from processes import on_ranks
from skbgmd._utils import limits
from skbgmd.distributed import Exchange, RankLostError
from skbgmd.distributed.exchange import Releases, alias, as_bytes, await_release, exchange_of_messages
from skbgmd.distributed.messages import gathered


def there_and_back(rank: int, size: int, m: int, d: int, dtype: torch.dtype, transport: torch.dtype | None) -> Any:
    exchange = Exchange(transport_dtype=transport)
    rows = (torch.arange(m * d).view(m, d) + 1000.0 * rank).to(dtype)
    shard = exchange.to_shards(rows).wait()
    after_rows = exchange.traffic.sent
    back = [exchange.from_shards(line, d).wait() for line in shard]
    return (
        torch.stack(back).double().numpy(),
        shard.dtype == back[0].dtype == dtype,
        shard.shape[1],
        after_rows,
        (exchange.traffic.sent - after_rows) / len(back),
    )


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("m", "d"), [(1, 12), (2, 7), (3, 1)])
def test_rows_come_back_as_they_were(size, m, d):
    expected = np.vstack([np.arange(m * d).reshape(m, d) + 1000.0 * rank for rank in range(size)])
    ranks = on_ranks(there_and_back, size, m, d, torch.float32, None)
    for back, is_same_dtype, _, _, _ in ranks:
        np.testing.assert_array_equal(back, expected)
        assert is_same_dtype
    assert sum(rank[2] for rank in ranks) == d


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype):
    for back, is_same_dtype, *_ in on_ranks(there_and_back, 2, 1, 5, dtype, None):
        np.testing.assert_allclose(back[0], np.arange(5.0), rtol=1e-2)
        assert is_same_dtype


def test_bytes_are_those_of_an_all_reduce_and_half_in_bfloat16():
    d, size = 4096, 4
    ring = 2 * 4 * d * (size - 1) / size
    for transport, share in ((None, 1.0), (torch.bfloat16, 0.5)):
        for back, _, _, there, home in on_ranks(there_and_back, size, 1, d, torch.float32, transport):
            assert there + home == share * ring
            # Eight binary digits are kept each way.
            np.testing.assert_allclose(back, np.arange(d) + 1000.0 * np.arange(size)[:, None], rtol=2.0**-8, atol=1e-6)


def reduced(rank: int, size: int) -> Any:
    exchange = Exchange()
    odd = torch.tensor([float(rank), torch.nan if rank == 1 else 0.0, -torch.inf])
    return exchange.maximum(odd).tolist(), exchange.add_up(torch.full((3,), 0.1 * (rank + 1))).tolist(), odd[0].item()


def test_maxima_make_inf_of_nan():
    for maximum, total, own in on_ranks(reduced, 3):
        assert maximum == [2.0, np.inf, -np.inf]
        np.testing.assert_allclose(total, 0.6, rtol=1e-6)
        assert own < 3.0


def subgroup(rank: int, size: int) -> Any:
    group = torch.distributed.new_group([0, 2])
    if rank == 1:
        return None
    exchange = Exchange(group)
    return exchange.rank, exchange.size, exchange.to_shards(torch.full((1, 2), float(rank))).wait().flatten().tolist()


def test_some_of_the_ranks():
    assert on_ranks(subgroup, 3) == [(0, 2, [0.0, 2.0]), None, (1, 2, [0.0, 2.0])]


def swap(rank, size):
    """Some to some, in a ring of one direction, and within a group of the last ranks."""
    whole = Exchange()
    ahead = whole.swap(torch.tensor([10.0 * rank, 1.0]), [(rank - 1) % size], [(rank + 1) % size])
    group = dist.new_group([1, 2])
    inside = None
    if rank > 0:
        inside = Exchange(group).swap(torch.tensor(rank), [2 - rank], [2 - rank]).tolist()
    return ahead.tolist(), whole.traffic.sent, inside


def apart(rank, size, odd):
    exchange = Exchange()
    exchange.gather(torch.ones(1))
    begin = time.monotonic()

    def go_on():
        if odd == "swap":
            exchange.swap(torch.ones(2 if rank == 1 else 3), [(rank - 1) % size], [(rank + 1) % size])
        elif rank == 1:
            gathered(exchange_of_messages(), None, "a message")
        else:
            # One rank is early, and one late.
            time.sleep(0.4 * rank)
            exchange.gather(torch.ones(1000 if odd == "larger" else 2))

    with pytest.raises(RankLostError) as caught:
        go_on()
    return str(caught.value), time.monotonic() - begin


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ("swap", ("swap of 12 bytes, number 2, on ranks 0, 2", "swap of 8 bytes, number 2, on rank 1")),
        ("larger", ("gather of 4000 bytes, number 2, on", "(a message), number 2, on rank 1")),
        ("smaller", ("gather of 8 bytes, number 2, on", "(a message), number 2, on rank 1")),
    ],
)
def test_what_differs_in_size_waits_rather_than_ends_processes(odd, expected):
    # They can't meet afterwards, which "lost" says.
    for message, seconds in on_ranks(apart, 3, odd, lost={3}):
        assert message.startswith("All ranks must take part in the same collectives; found ")
        assert all(part in message for part in expected)
        assert seconds < 5.0


def test_a_swap_is_of_neighbors_only():
    found = on_ranks(swap, 3)
    assert found == [([[20.0, 1.0]], 8, None), ([[0.0, 1.0]], 8, [2]), ([[10.0, 1.0]], 8, [1])]


def held_by_a_thread(rank: int, size: int) -> Any:
    """Nobody waits for the collective itself, and the other rank takes its time."""
    found = []
    for seconds in (30.0, 0.05):
        limits.RELEASE_SECONDS = seconds
        dist.barrier()
        values = torch.ones(2)
        moved = [alias(values)]
        held = ref(moved[0])
        if rank == 1:
            time.sleep(0.5)
        work = dist.all_reduce(*moved, async_op=True)
        del work
        await_release(moved)
        found.append((values.tolist(), held() is None and not moved))
        time.sleep(0.6)
    return found


def test_tensors_are_released_when_a_collective_is_over_but_not_waited_for_without_end():
    first, last = on_ranks(held_by_a_thread, 2)
    assert first == [([2.0, 2.0], True), ([1.0, 1.0], False)]
    assert last[0] == ([2.0, 2.0], True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128, torch.int16])
def test_tensors_to_be_moved_are_views_of_nothing_so_that_views_of_them_hold_them(dtype, monkeypatch):
    values = torch.arange(12).to(dtype).view(3, 4)[1:]
    for made in (alias(values), as_bytes(values)):
        assert made._base is None
        assert made.data_ptr() == values.data_ptr()
    assert torch.equal(alias(values), values.view(-1))
    assert torch.equal(as_bytes(values), values.view(-1).view(torch.uint8))

    monkeypatch.setattr(limits, "RELEASE_SECONDS", 0.01)
    moved = [as_bytes(values)]
    held, parts = ref(moved[0]), moved[0].chunk(2)
    await_release(moved)
    assert held() is not None
    del parts
    assert held() is None


class Held:
    """A weak reference to a tensor that is gone after so many looks at it."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    def __call__(self) -> Any:
        self.looks -= 1
        return None if self.looks < 0 else self


def test_a_backend_that_keeps_tensors_costs_two_waits_and_one_that_was_late_gets_all_the_patience_again(monkeypatch):
    monkeypatch.setattr(limits, "RELEASE_SECONDS", 0.05)
    releases = Releases()
    start = time.monotonic()
    for number in range(1, 5):
        releases.wait([Held(np.inf)])
        assert releases.patience == 0.5**number
    assert time.monotonic() - start >= 0.05 * (1.0 + 0.5 + 0.25 + 0.125)
    releases.wait([Held(1)])
    assert releases.patience == 1.0
    for _ in range(1000):
        releases.wait([Held(np.inf)])
    assert time.monotonic() - start < 5.0  # a thousand times all the patience are 50


def test_who_waits_for_a_backend_lends_the_lock_for_longer_and_longer(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    Releases().wait([Held(20)])
    assert len(pauses) == 20
    np.testing.assert_allclose(np.divide(pauses[1:11], pauses[:10]), [2.0] * 9 + [limits.RELEASE_PAUSE / pauses[9]])
    assert max(pauses) == limits.RELEASE_PAUSE


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, "bfloat16", float])
def test_transport_is_of_floating_point_numbers(dtype):
    with pytest.raises(TypeError, match=r"transport_dtype must be a floating-point torch\.dtype or None; found"):
        Exchange(transport_dtype=dtype)


def test_rows_have_two_axes():
    for rows in (torch.ones(3), torch.ones(1, 2, 3)):
        with pytest.raises(ValueError, match=r"rows must have shape \(m, d\); found shape"):
            Exchange().to_shards(rows)


@pytest.mark.parametrize(
    ("rows", "found"), [([[1.0]], "list"), (torch.eye(2).to_sparse(), r"layout torch\.sparse_coo")], ids=str
)
def test_rows_are_a_dense_tensor(rows, found):
    with pytest.raises(TypeError, match=f"rows must be a dense tensor; found {found}"):
        Exchange().to_shards(rows)


def outside(rank: int, size: int) -> Any:
    group = dist.new_group([0, 1])
    if rank < 2:
        return Exchange(group).size
    with pytest.raises(ValueError, match=r"group must have this rank in it, rank . of all; found one that hasn't"):
        Exchange(group)
    return None


def test_a_group_without_this_rank_is_refused():
    assert on_ranks(outside, 3) == [2, 2, None]


#: What all ranks but the first send, and it.
UNLIKE: dict[str, tuple[Any, Any, str]] = {
    "columns": (torch.ones(1, 8), torch.ones(1, 9), r"\(columns\) must be .* found 9 on rank 0; 8 on ranks 1, 2"),
    "columns of one width": (torch.ones(1, 30), torch.ones(1, 29), r"\(columns\) must be .* found 29 on rank 0"),
    "rows": (torch.ones(1, 8), torch.ones(2, 8), r"\(rows\) must be .* found 2 on rank 0; 1 on ranks 1, 2"),
    "dtype": (torch.ones(1, 8), torch.ones(1, 8).double(), r"\(dtype\) must be .* found 'torch.float64' on rank 0"),
    "same bytes": (torch.ones(1, 8).half(), torch.ones(1, 8).bfloat16(), r"\(dtype\) must be"),
}


def unlike(rank: int, size: int) -> Any:
    found, exchange = {}, Exchange()
    # Of what they have sent before nothing is compared any more, and nothing is counted.
    for _ in range(2):
        exchange.to_shards(torch.ones(1, 8)).wait()
    sent, n_begun = exchange.traffic.sent, exchange.traffic.n_collectives
    for name, (usual, odd, _) in UNLIKE.items():
        with pytest.raises(ValueError, match="must be the same on all ranks") as caught:
            Exchange().to_shards(usual if rank else odd)
        found[name] = str(caught.value)
    with pytest.raises(ValueError, match=r"\(transport_dtype\) must be .* found 'torch.bfloat16' on rank 0; 'None' on"):
        Exchange(transport_dtype=None if rank else torch.bfloat16).to_shards(torch.ones(1, 8))
    with pytest.raises(ValueError, match=r"Vectors to be joined \(columns\) must be .* found 7 on rank 0; 8 on ranks"):
        exchange.from_shards(torch.ones((3, 3, 2)[rank]), 8 if rank else 7)
    with pytest.raises(ValueError, match=r"What ranks send must be .* 'Vectors to be joined' on rank 0; 'Rows"):
        exchange.to_shards(torch.ones(3, 3)) if rank else exchange.from_shards(torch.ones(4), 12)
    with pytest.raises(ValueError, match=r"\(columns of the parts\) must be .* found \[4, 5\] on rank 0; \[3, 6\] on"):
        exchange.to_shards(torch.ones(1, 9), (3, 6) if rank else (4, 5))
    return found, sent, n_begun, exchange.to_shards(torch.ones(1, 9)).wait().tolist()


def test_what_ranks_send_is_compared_before_it_travels():
    for found, sent, n_begun, shard in on_ranks(unlike, 3):
        for name, (_, _, message) in UNLIKE.items():
            assert re.search(message, found[name]), (name, found[name])
        assert (sent, n_begun) == (2 * 2 * 3 * 4, 2)
        assert shard == [[1.0] * 3] * 3


@pytest.mark.parametrize(
    ("backend", "device"),
    [("cuda:nccl", "cuda:3"), ("cpu:gloo,cuda:nccl", "cpu"), ("cpu:gloo,cuda:gloo", "cpu"), ("cpu:gloo", "cpu")],
)
def test_messages_are_tensors_of_a_device_that_the_backend_takes(backend, device, monkeypatch):
    exchange = Exchange()
    exchange.size = 2
    monkeypatch.setattr("torch.distributed.get_backend_config", lambda group: backend)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    assert exchange.device == torch.device(device)
