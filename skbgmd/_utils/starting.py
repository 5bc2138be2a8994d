"""Ctrl-C while a program starts: no traceback, however far its imports have come. Imports next to nothing itself."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
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


def _leave(*_: Any) -> None:
    # Without a standard error the descriptor may be that of another file.
    if sys.stderr is not None:
        with suppress(OSError):
            os.write(2, MESSAGE.encode())
    os._exit(INTERRUPTED)
