"""Messages between ranks: of any length, and with errors and places of all."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch

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


class Silent(Exception):
    """An error whose message can't be made."""

    def __str__(self) -> str:
        raise AttributeError("no message")


#: Errors that text can't hold as they are, and what others are told of them.
ODD: dict[str, tuple[BaseException, str]] = {
    "a file's name": (FileNotFoundError("no file b\udcff.npy"), r"rank 1: FileNotFoundError: no file b\udcff.npy"),
    "no message": (Silent(), "rank 1: Silent: a message that can't be made, by a AttributeError"),
}


def report_odd(rank: int, size: int, name: str) -> str:
    exchange, error = Exchange(), ODD[name][0]
    if rank == 1:
        report(exchange, error)
        return ""
    with pytest.raises(RankFailedError) as caught:
        gathered(exchange, 1, "value")
    return str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_an_error_whose_message_is_no_text_reaches_all(name):
    assert on_ranks(report_odd, 2, name)[0].endswith(ODD[name][1])


def test_values_and_places_may_be_text_that_utf8_cannot_hold():
    class Alone:
        size, device = 2, torch.device("cpu")

        def gather(self, values: torch.Tensor, purpose: str = "") -> torch.Tensor:
            return torch.stack([values, values])

    assert gathered(Alone(), {"name": "\udcff"}, "a place \udcff") == [{"name": "\udcff"}] * 2


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
