"""Restarts: fresh prefixes whatever earlier attempts left, one step on all ranks, and torchrun itself."""

from __future__ import annotations

import os
import random
import re
import runpy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import skbgmd
from processes import on_ranks
from skbgmd._utils.random import seeded
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


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "step", [True, 2.5, "3", None, np.float64(2.0), torch.tensor(2), -1, np.int64(-7), 2**63, 10**20]
)
def test_a_step_must_be_a_number_that_load_finds(tmp_path, step):
    with pytest.raises((TypeError, ValueError), match=r"step must be .*; found "):
        Checkpoints(tmp_path / "new").save(step, {"weight": torch.ones(1)})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("step", [0, np.int64(5), 2**63 - 1])
def test_every_step_that_is_saved_is_found(tmp_path, step):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(step, {})
    assert checkpoints.load() == (int(step), {})


def test_steps_of_another_training_are_not_taken_for_later_ones(tmp_path):
    for step in (99, 100):
        Checkpoints(tmp_path).save(step, {"weight": torch.full((1,), float(step))})
    before = files(tmp_path)
    for step in (1, 99, 100):
        with pytest.raises(ValueError, match=f"later than the last one, 100, in .*another folder; found {step}"):
            Checkpoints(tmp_path).save(step, {"weight": torch.zeros(1)})
    again = Checkpoints(tmp_path)
    again.save(101, {})
    for step in (3, 101):
        with pytest.raises(ValueError, match=f"later than the last one, 101; found {step}"):
            again.save(step, {})
    assert files(tmp_path) == [before[0], "rank-0-step-101.pt"]  # 100 and 101


def go_back(rank: int, size: int, folder: str) -> Any:
    """Rank 0 comes to a step that rank 1 doesn't; then steps are saved at other intervals."""
    for step in (1, 2, 3)[: 3 - rank]:
        Checkpoints(folder).save(step, {})
    dist.barrier()
    checkpoints = Checkpoints(folder)
    assert checkpoints.load() == (2, {})
    if rank == 0:
        checkpoints.save(5, {"again": 1})  # and rank 1 is killed
    dist.barrier()
    return Checkpoints(folder).load()


def test_a_step_that_others_did_not_come_to_is_forgotten(tmp_path):
    assert on_ranks(go_back, 2, str(tmp_path)) == [(2, {}), (2, {})]
    assert files(tmp_path) == [f"rank-{rank}-step-{step}.pt" for rank, step in [(0, 2), (0, 5), (1, 1), (1, 2)]]


class Own:
    """A class of a user's."""


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"loss": np.float64(1.0)}, r"state\['loss'\] of type numpy.float64"),
        ({"n": np.int64(1)}, r"state\['n'\] of type numpy.int64"),
        ({"is": np.bool_(True)}, r"state\['is'\] of type numpy.bool"),
        ({"rows": np.ones(2)}, r"state\['rows'\] of type numpy.ndarray"),
        ({"optimizer": {"groups": [{"lr": 0.1}, {"lr": np.float32(0.1)}]}}, r"\['groups'\]\[1\]\['lr'\] of type numpy"),
        ({"pair": (1, np.ones(1))}, r"state\['pair'\]\[1\] of type numpy"),
        ({"own": Own()}, r"state\['own'\] of type .*Own"),
        ({"folder": Path("x")}, r"state\['folder'\] of type pathlib"),
        ({"function": lambda: None}, r"state\['function'\] of type builtins.function"),
        ({"dates": {1, timedelta(1)}}, r"state\['dates'\] of type builtins.set"),
        ({"whole": torch.nn.Identity()}, r"state\['whole'\] of type torch.nn.modules.linear.Identity"),
        ([1, 2], "state must be a mapping; found list"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:20],
)
def test_what_could_not_be_loaded_is_refused_before_it_is_saved(tmp_path, state, where):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"weight": torch.ones(1)})
    with pytest.raises(TypeError, match=where):
        checkpoints.save(2, state)
    assert files(tmp_path) == ["rank-0-step-1.pt"]
    checkpoints.save(2, {})  # the same step, without it
    assert checkpoints.load() == (2, {})


def test_what_can_be_loaded_is_saved(tmp_path):
    with seeded(0, "cpu"):
        model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    plain = {
        1: 2,
        "none": None,
        "set": {1, 2},
        "text": "x",
        "pairs": [(1, 2.5)],
        "bytes": b"x",
        "empty": torch.empty(0),
    }
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random_states(), **plain}
    Checkpoints(tmp_path).save(1, state)
    step, found = Checkpoints(tmp_path).load()
    assert step == 1
    assert found.keys() == state.keys()
    torch.testing.assert_close(found["optimizer"]["state"], optimizer.state_dict()["state"])
    assert all(found[name] == value for name, value in plain.items() if name != "empty")


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    other = BytesIO()
    torch.save([1], other)
    kinds = {"empty": b"", "junk": b"junk", "half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}
    path.write_bytes({**kinds, "of another kind": other.getvalue()}[how])


@pytest.mark.parametrize("how", ["empty", "junk", "half", "zeros", "of another kind"])
def test_a_damaged_file_is_named_and_the_one_before_is_read(tmp_path, how):
    for step in (1, 2):
        Checkpoints(tmp_path).save(step, {"weight": torch.full((9,), float(step))})
    damage(tmp_path / "rank-0-step-2.pt", how)
    checkpoints = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match=r"All ranks resume step 1; damaged: .*rank-0-step-2\.pt: "):
        step, state = checkpoints.load()
    assert (step, state["weight"].tolist()) == (1, [1.0] * 9)
    checkpoints.save(2, {})
    assert checkpoints.load() == (2, {})
    for each in tmp_path.iterdir():
        damage(each, how)
    with pytest.raises(ValueError, match=r"that can be read; damaged: .*-step-2\.pt: .*-step-1\.pt: "):
        Checkpoints(tmp_path).load()


def load_damaged(rank: int, size: int, folder: str) -> Any:
    for step in (1, 2):
        Checkpoints(folder).save(step, {"rank": rank})
    if rank == 1:
        damage(Path(folder) / "rank-1-step-2.pt", "half")
    dist.barrier()
    with pytest.warns(UserWarning, match="All ranks resume step 1") as caught:
        found = Checkpoints(folder).load()
    return found, str(caught[0].message)


def test_all_ranks_go_back_where_one_has_a_damaged_file(tmp_path):
    (first, said), (second, named) = on_ranks(load_damaged, 2, str(tmp_path))
    assert (first, second) == ((1, {"rank": 0}), (1, {"rank": 1}))
    assert said.endswith("damaged: step 2 on ranks [1].")
    assert "rank-1-step-2.pt: " in named


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


def with_odd_files(rank: int, size: int, folder: str, content: Any, steps: Any) -> Any:
    checkpoints = Checkpoints(folder)
    for step in steps[rank]:
        checkpoints.save(step, {"a": step})
    if rank == 1 and content is not None:
        torch.save(content, Path(folder) / f"rank-1-step-{steps[rank][-1]}.pt")
    dist.barrier()
    try:
        with warnings.catch_warnings():
            # Of damage, where there is any.
            warnings.simplefilter("ignore")
            return Checkpoints(folder).load()
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("content", "steps", "expected"),
    [
        ({"size": 2, "state": [1]}, [[1, 2], [1, 2]], (1, {"a": 1})),
        ({"size": "two", "state": {}}, [[1, 2], [1, 2]], (1, {"a": 1})),
        ({"size": 2, "state": {"a": {"kind": "x", "values": {}}}}, [[1, 2], [1, 2]], (1, {"a": 1})),
        ({"size": 3, "state": {}}, [[1], [1]], "number of ranks must be that of the checkpoint, 3; found 2"),
        ({"size": 3, "state": {}}, [[], [1]], "number of ranks must be that of the checkpoint, 3; found 2"),
        (None, [[1], [2]], "All ranks must have a checkpoint of the same step"),
    ],
    ids=["state", "size", "kind", "of more ranks", "of more ranks, one new", "other steps"],
)
def test_what_one_rank_has_in_its_file_is_known_to_all(tmp_path, content, steps, expected):
    for found in on_ranks(with_odd_files, 2, str(tmp_path), content, steps):
        assert found == expected if isinstance(expected, tuple) else expected in found
