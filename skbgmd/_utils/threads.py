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


@contextmanager
def one_thread_of_products() -> Iterator[None]:
    """Let NumPy's products take one thread for a while; as a decorator, for the time of a call.

    Its threads and those of torch, which stay awake after an operation, fight over the cores: eigenvectors of 34 rows
    take thirty times as long then. On a busy machine so does a product of 200 x 30 and 30 x 100 numbers.
    """
    limited = [(library, n) for library in _blas() if (n := library.num_threads) != 1]
    for library, _ in limited:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, n in limited:
            library.set_num_threads(n)


@cache
def _blas() -> list[Any]:
    # It looks through all libraries that are loaded, NumPy's and SciPy's among them.
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]
