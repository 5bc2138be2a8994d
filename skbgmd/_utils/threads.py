"""Threads of torch's operations, and of NumPy's products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[None]:
    """Let torch's operations on a CPU take one thread for a while.

    Among several a small operation takes a multiple of the time: they wait for one another.
    """
    before = torch.get_num_threads()
    return nullcontext() if before == 1 else _one_of(before)


@contextmanager
def _one_of(before: int) -> Iterator[None]:
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_of_products() -> AbstractContextManager[Any]:
    """Let NumPy's products take one thread for a while.

    On a machine that is busy, two threads for a product of 200 x 30 and 30 x 100 numbers take hundreds of times as
    long.
    """
    controller = _controller()
    # To limit them takes a tenth of a millisecond.
    if all(library.num_threads == 1 for library in controller.lib_controllers if library.user_api == "blas"):
        return nullcontext()
    limited: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return limited


@cache
def _controller() -> ThreadpoolController:
    # It looks through all libraries that are loaded, among them NumPy's.
    return ThreadpoolController()
