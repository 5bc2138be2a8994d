"""Handlers of interrupts while a program starts; processes that are interrupted are in test_main."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from skbgmd._utils import starting
from skbgmd._utils.starting import leave_when_interrupted, raise_when_interrupted


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_leaves_until_it_is_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(os, "write", lambda descriptor, text: left.append((descriptor, text)))
    leave_when_interrupted()
    os.kill(os.getpid(), signal.SIGINT)
    assert left == [(2, b"python -m skbgmd: interrupted.\n"), 130]
    monkeypatch.setattr(starting.sys, "stderr", None)
    os.kill(os.getpid(), signal.SIGINT)
    assert left[2:] == [130]
    raise_when_interrupted()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kept", [signal.SIG_IGN, lambda *_: None])
def test_handlers_of_others_stay(kept: Any) -> None:
    signal.signal(signal.SIGINT, kept)
    leave_when_interrupted()
    raise_when_interrupted()
    assert signal.getsignal(signal.SIGINT) is kept
