"""Restarts: fresh prefixes whatever earlier attempts left, one step on all ranks, and torchrun itself."""

from __future__ import annotations

import os
import random
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import skbgmd
from processes import on_ranks
from skbgmd.aggregators.memory import Scale
from skbgmd.distributed import Checkpoints, random_states, set_random_states
from skbgmd.distributed.restarts import agree_on_prefix

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "restart.py"
LONG, SHORT = timedelta(seconds=20), timedelta(seconds=0.3)


def attempt(store: dist.Store, size: int) -> set[str]:
    with ThreadPoolExecutor(size) as pool:
        return set(pool.map(lambda rank: agree_on_prefix(store, rank, size, LONG), range(size)))


def cut_short(store: dist.Store, size: int, ranks: list[int]) -> None:
    """Some of the ranks start, and give up."""
    with ThreadPoolExecutor(size) as pool:
        for each in [pool.submit(agree_on_prefix, store, rank, size, SHORT) for rank in ranks]:
            with pytest.raises(TimeoutError, match=rf"All {size} ranks must start within"):
                each.result()


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("before", [[], ["all"], [[0]], [[1]], [[1, 3], [0], "all", [0, 2, 3]]], ids=str)
def test_no_attempt_follows_what_another_left(size, before):
    store, used = dist.HashStore(), set()
    for ranks in before:
        if ranks == "all":
            used |= attempt(store, size)
        elif started := [rank for rank in ranks if rank < size and size > 1]:
            cut_short(store, size, started)
            used |= {store.get("skbgmd/attempt").decode()} if store.check(["skbgmd/attempt"]) else set()
    prefixes = attempt(store, size)
    assert len(prefixes) == 1
    assert not prefixes & used


def save_and_load(rank: int, size: int, folder: str, ends: list[int], lost: list[int]) -> Any:
    checkpoints = Checkpoints(folder)
    for step in range(1, ends[rank] + 1):
        state = {"memory": torch.full((2,), 10.0 * rank + step), "rule": Scale(float(step), (1.0,)), "random": (1, [2])}
        checkpoints.save(step, state)
    if rank in lost:
        for path in Path(folder).glob(f"rank-{rank}-*"):
            path.unlink()
    # Of a rank that was killed while it wrote.
    (Path(folder) / f"rank-{rank}-step-99.pt.part").write_bytes(b"half")
    dist.barrier()
    try:
        found = checkpoints.load()
    except ValueError as error:
        return str(error)
    return found and (found[0], found[1]["memory"].tolist(), found[1]["rule"], found[1]["random"])


@pytest.mark.parametrize(("ends", "expected"), [([3, 3], 3), ([4, 3], 3), ([5, 6], 5), ([0, 0], None), ([1, 0], None)])
def test_all_ranks_resume_the_last_step_that_all_have(tmp_path, ends, expected):
    for rank, found in enumerate(on_ranks(save_and_load, 2, str(tmp_path), ends, [])):
        if expected is None:
            assert found is None
        else:
            assert found == (expected, [10.0 * rank + expected] * 2, Scale(float(expected), (1.0,)), (1, [2]))
    assert len(list(tmp_path.glob("*.pt"))) == sum(min(end, 2) for end in ends)


def test_lost_files_are_no_new_beginning(tmp_path):
    for found in on_ranks(save_and_load, 2, str(tmp_path), [4, 4], [1]):
        assert re.search(
            r"All ranks must have a checkpoint of the same step in .*; found \[\[3, 4\], \[-1, -1\]\]", found
        )


def load_only(rank: int, size: int, folder: str) -> Any:
    with pytest.raises(ValueError, match="The number of ranks must be that of the checkpoint, 3; found 2"):
        Checkpoints(folder).load()


def test_other_numbers_of_ranks_are_refused(tmp_path):
    on_ranks(save_and_load, 3, str(tmp_path), [2, 2, 2], [])
    on_ranks(load_only, 2, str(tmp_path))


def test_random_states_come_back_from_a_file(tmp_path):
    def draw() -> list[float]:
        return [torch.rand(()).item(), np.random.random(), random.random(), np.random.normal()]

    before = random_states()
    try:
        np.random.normal()  # leaves another one for the next call
        torch.save(random_states(), tmp_path / "states.pt")
        first = draw()
        assert draw() != first
        set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
        assert draw() == first
    finally:
        set_random_states(before)


def run_script(rank: int, size: int, folder: str, port: int) -> str:
    """What the example prints, on a rank that isn't disturbed."""
    dist.destroy_process_group()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = [str(SCRIPT), folder]
    with redirect_stdout(StringIO()) as printed:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/end", size), rank=rank, world_size=size)
    return printed.getvalue()


@pytest.mark.slow
def test_training_restarted_by_torchrun_comes_to_the_same_bits(tmp_path):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    del store
    undisturbed = "".join(on_ranks(run_script, 2, str(tmp_path / "undisturbed"), port))
    assert re.findall(r"begins with step (\d)", undisturbed) == ["1", "1"]
    ends = set(re.findall(r"ends with (\w{16})", undisturbed))
    assert len(ends) == 1

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", str(SCRIPT), str(tmp_path / "killed"), "--kill-at", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(skbgmd.__file__).parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert "exitcode: -9" in run.stderr
    assert re.findall(r"begins with step (\d)", run.stdout) == ["1", "1", "3", "3"]
    assert set(re.findall(r"ends with (\w{16})", run.stdout)) == ends
