"""Ctrl-C while a program starts: no traceback, however far its imports have come. Imports next to nothing itself."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: The demonstration's command, as it was called: by the name of its script, or as a module.
PROGRAM = "skbgmd" if os.path.splitext(os.path.basename(sys.argv[0]))[0] == "skbgmd" else "python -m skbgmd"
#: Exit code of a process that SIGINT ended, as shells have it.
INTERRUPTED = 130
#: Its message.
MESSAGE = f"{PROGRAM}: interrupted.\n"


def leave_when_interrupted() -> None:
    """Exit at once on interrupts from now on, instead of raising KeyboardInterrupt.

    An exception wouldn't do: extensions that are being imported make others of it, or lose it.
    """
    # A shell that starts a program in the background has it ignore interrupts.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_when_interrupted() -> None:
    """Raise KeyboardInterrupt on interrupts again, after :func:`leave_when_interrupted`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Hold back interrupts until the end of a block; other threads than the main one, and Windows, can't."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # They may still reach another thread, whose handler this is as well.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in held[:1]:
            signal.raise_signal(number)


def _leave(*_: Any) -> None:
    # Without a standard error the descriptor may be that of another file.
    if sys.stderr is not None:
        with suppress(OSError):
            os.write(2, MESSAGE.encode())
    os._exit(INTERRUPTED)
