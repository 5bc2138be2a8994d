"""Handlers of interrupts while a program starts; processes that are interrupted are in test_main."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joblib.externals.loky.backend import resource_tracker

from skbgmd._utils import starting
from skbgmd._utils.starting import interrupts_held_back, leave_when_interrupted, raise_when_interrupted


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


def interrupt_while_held_back(reached: list[bool]) -> None:
    with interrupts_held_back():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        reached.append(True)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there are no masks of signals")
def test_an_interrupt_that_is_held_back_is_raised_later_whatever_thread_gets_it() -> None:
    over = threading.Event()
    reached: list[bool] = []
    threading.Thread(target=over.wait, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_while_held_back(reached)
    finally:
        over.set()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT}


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there are no masks of signals")
def test_processes_that_are_started_never_get_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_held_back():
        # What may let them through again has been started.
        resource_tracker.ensure_running()
        asked = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) == before
