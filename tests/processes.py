"""Runs a function on several ranks of a process group, in processes of this machine.

The processes are forked from a server that has imported the package and run nothing: as quick as forks, and as clean as
fresh interpreters.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["skbgmd.distributed", "skbgmd", "sklearn.datasets", "torch.distributed", "torch._dynamo"]
)


def on_ranks(function: Callable[..., Any], size: int, *args: Any, timeout: float = 120.0, lost: set[int] = frozenset()):
    """Call ``function(rank, size, *args)`` on so many ranks with a gloo group, and list what they return.

    The function is one of a module; so are its arguments' types. An exception on a rank is raised here, with its
    traceback; ranks in ``lost`` may end in any way or not at all, and have None. Of ranks that still run after so many
    seconds, the error has the stacks.
    """
    with tempfile.TemporaryDirectory() as folder:
        queue = CONTEXT.SimpleQueue()
        processes = [
            CONTEXT.Process(
                target=_rank, args=(rank, size, folder, timeout, queue, function, args, not lost), daemon=True
            )
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        found: list[Any] = [None] * size
        failures: dict[int, str] = {}
        try:
            end = time.monotonic() + timeout
            # A process waits until what it returns is taken.
            while not queue.empty() or any(p.is_alive() for rank, p in enumerate(processes) if rank not in lost):
                if time.monotonic() > end:
                    raise AssertionError(f"still running after {timeout} s: {failures}\n{_stacks(processes, folder)}")
                if queue.empty():
                    time.sleep(0.005)
                    continue
                number, found[number], error = queue.get()
                if error:
                    failures[number] = error
            first = {rank: error for rank, error in failures.items() if rank not in lost}
            assert not first, "\n".join(f"rank {rank}:\n{error}" for rank, error in sorted(first.items()))
            bad = {r: p.exitcode for r, p in enumerate(processes) if p.exitcode != 0 and r not in lost}
            assert not bad, f"exit codes by rank: {bad}"
        finally:
            for process in processes:
                process.kill()
        return found


def _stacks(processes: list[Any], folder: str) -> str:
    """Stacks of the processes that run, which hold no interpreter lock for it."""
    running = {rank: process for rank, process in enumerate(processes) if process.is_alive()}
    for process in running.values():
        os.kill(process.pid, signal.SIGUSR1)
    time.sleep(1.0)
    return "\n".join(f"rank {rank}:\n{_stack_file(folder, rank).read_text()}" for rank in running)


def _stack_file(folder: str, rank: int) -> Path:
    return Path(folder) / f"stack {rank}"


def _rank(rank: int, size: int, folder: str, timeout: float, queue: Any, function: Any, args: Any, meets: bool) -> None:
    torch.set_num_threads(1)
    faulthandler.register(signal.SIGUSR1, _stack_file(folder, rank).open("w"))
    result, error = None, ""
    try:
        where = f"file://{Path(folder) / 'store'}"
        dist.init_process_group("gloo", where, timedelta(seconds=timeout), size, rank)
        result = function(rank, size, *args)
        if meets:
            dist.barrier()
    except BaseException:
        error = traceback.format_exc()
    # Numbers travel as arrays: torch would pass tensors through files that end with this process.
    queue.put((rank, result, error))
    if dist.is_initialized():
        dist.destroy_process_group()


def error_and_seconds(action: Callable[[], Any]) -> tuple[str, str, float]:
    """Class and message of the error that an action raises, and the seconds that it took."""
    begin = time.monotonic()
    try:
        action()
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic() - begin
    raise AssertionError("no error")


def check_all_know(found: list[tuple[str, str, float]], failing: int) -> None:
    """Check of :func:`error_and_seconds` by rank that all others soon know the own error of the failing one."""
    own = f"Rank {failing} failed by an error of its own: {found[failing][0]}: {found[failing][1]}"
    assert found[failing][0] in ("ValueError", "ZeroDivisionError")
    for kind, message, seconds in (each for rank, each in enumerate(found) if rank != failing):
        assert kind == "RankLostError"
        assert own in message
        assert seconds < 5.0
