"""Standard streams that may be closed, full, or no longer read."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, Any


def discard(stream: IO[str]) -> None:
    """Discard whatever is still buffered in a stream: Python would try to write it once more at exit, and complain."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class LenientStream:
    """A stream whose errors are ignored: after the first one, nothing more is written to it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.failed = stream, False

    def write(self, text: str) -> None:
        """Write and flush."""
        if self.failed:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self.failed = True
            discard(self.stream)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
