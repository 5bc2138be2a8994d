"""Streams that fail."""

from __future__ import annotations

import io
import os

import pytest

from skbgmd._utils.streams import LenientStream, discard


class Full(io.StringIO):
    """A stream that counts its writes, and takes one of them."""

    n_writes = 0

    def write(self, text: str) -> int:
        self.n_writes += 1
        if self.n_writes > 1:
            raise OSError("no space")
        return super().write(text)


def test_after_the_first_error_nothing_is_written():
    inner = Full()
    stream = LenientStream(inner)
    for word in ("one", "two", "three"):
        stream.write(word)
    stream.flush()
    assert (stream.failed, inner.n_writes, inner.getvalue()) == (True, 2, "one")
    assert stream.encoding is inner.encoding


def test_what_is_left_in_a_discarded_stream_goes_nowhere():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        stream.write("unread")
        with pytest.raises(BrokenPipeError):
            stream.flush()
        discard(stream)
