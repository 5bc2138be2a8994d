"""Messages between ranks: of any length, and with errors and places of all."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from processes import on_ranks
from skbgmd._utils import limits
from skbgmd.distributed import Checkpoints, Exchange, RankFailedError, RobustHook
from skbgmd.distributed.messages import gathered, report, uninterrupted

INLINE = limits.INLINE_MESSAGE


def values(rank: int) -> list[Any]:
    return [
        None,
        rank,
        0.1 * rank,
        float("inf"),
        {"a": [rank, "é" * rank]},
        "x" * (INLINE * rank),
        "y" * (INLINE - 2),
        "z" * (INLINE - 1),
        [1e300] * (1000 * (1 - rank)),
        "\0 in it",
    ]


def gather_all(rank: int, size: int) -> Any:
    exchange = Exchange()
    return [gathered(exchange, value, f"value {number}") for number, value in enumerate(values(rank))]


def test_values_of_any_length_are_gathered():
    expected = [list(pair) for pair in zip(values(0), values(1), strict=True)]
    assert on_ranks(gather_all, 2) == [expected, expected]


def at_different_places(rank: int, size: int, folder: str) -> Any:
    """What isn't done in every step, of other kinds and sizes on rank 1, and an error of it."""
    exchange, checkpoints, hook = Exchange(), Checkpoints(folder), RobustHook()
    own = (checkpoints.load, lambda: report(exchange, ValueError("own error")))
    found = []
    for step in own if rank == 1 else (hook._agree, checkpoints.load):
        try:
            step()
            found.append("told")
        except RankFailedError as error:
            found.append(str(error))
    return found


def test_ranks_at_different_places_are_told_where_all_are(tmp_path):
    first, second, third = on_ranks(at_different_places, 3, str(tmp_path))
    assert first[0] == second[0] == third[0]
    agreement = "the agreement before a first step, or after load_state_dict"
    assert f"found rank 0 at '{agreement}', rank 1 at 'Checkpoints.load', rank 2 at '{agreement}'." in first[0]
    assert second[1] == "told"
    for found in (first, third):
        assert "rank 1: ValueError: own error" in found[1]


def interrupt(done: list[bool]) -> None:
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append(True)


def test_ctrl_c_waits():
    done: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt(done)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
