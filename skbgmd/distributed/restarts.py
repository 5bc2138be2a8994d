"""Restarts of a training by torchrun: a fresh process group, and the last checkpoint that all ranks have."""

from __future__ import annotations

import random
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import timedelta
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from skbgmd._utils.checks import check_integer
from skbgmd._utils.saving import written_whole
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.messages import gathered


def init_from_env(backend: str | None = None, timeout: timedelta = default_pg_timeout) -> None:
    """Set up ``torch.distributed`` under torchrun, after a restart of the ranks as well.

    Call it in place of ``init_process_group``. Torchrun's store outlives the ranks: after a restart
    ``init_process_group`` finds addresses of processes that are gone, and waits for them. With this function the ranks
    of an attempt first agree on a prefix that no attempt has used before. The environment's count of restarts can't be
    that prefix, because each machine counts its own restarts.

    Parameters
    ----------
    backend : str, default=None
        As in ``init_process_group``.
    timeout : timedelta, default=30 minutes
        Longest wait for the ranks to start, and in every collective. After it a rank that hangs is given up.

    Raises
    ------
    TimeoutError
        If ranks don't start in time; rank 0 names the first of them.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    prefix = agree_on_prefix(store, rank, size, timeout)
    dist.init_process_group(backend, store=PrefixStore(prefix, store), rank=rank, world_size=size, timeout=timeout)


def agree_on_prefix(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """Agree on a prefix of keys that no earlier attempt used, among ranks that start.

    Rank 0 publishes a token of its own, the others answer it with theirs, and it confirms each. So none follows what
    an earlier attempt left behind: its confirmations are of other tokens.
    """
    own, end = uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank == 0:
        store.set("skbgmd/attempt", own)
        for other in range(1, size):
            try:
                store.wait([f"{own}/{other}"], timeout)
            except RuntimeError as error:
                raise TimeoutError(f"All {size} ranks must start within {timeout}; rank {other} hasn't.") from error
            store.set(f"{own}/confirmed/{store.get(f'{own}/{other}').decode()}", "")
        return own
    answered = ""
    while time.monotonic() < end:
        token = store.get("skbgmd/attempt").decode() if store.check(["skbgmd/attempt"]) else ""
        if token != answered:
            store.set(f"{token}/{rank}", own)
            answered = token
        if token and store.check([f"{token}/confirmed/{own}"]):
            return token
        time.sleep(0.01)
    raise TimeoutError(f"All {size} ranks must start within {timeout}; rank {rank} heard nothing of rank 0.")


class _OnDevice(Exchange):
    """Collectives of tensors on a given device."""

    meets = True

    def __init__(self, group: Any, device: torch.device | str) -> None:
        super().__init__(group)
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device


class Checkpoints:
    """Checkpoints of a training on many ranks: each writes its own files, and all resume the same step.

    A file gets its name only when it is complete and has been read once, so a rank that is killed leaves no partial
    file. The last two files are kept. Ranks that meet in a collective in every step are at most one step apart, so the
    last step that all ranks have is among these.

    Use a folder for one training only. A new training needs a folder of its own, or an empty one.

    Parameters
    ----------
    folder : path
        A folder that outlasts a restart, either shared by the ranks or local to each machine. It is made if it is
        missing.
    exchange : Exchange, default=None
        The ranks. None: all of them.
    device : device, default="cpu"
        Device from which the ranks' backend takes tensors; "cuda" with NCCL.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     print(checkpoints.load())
    ...     checkpoints.save(1, {"weight": torch.ones(2)})
    ...     print(checkpoints.load())
    None
    (1, {'weight': tensor([1., 1.])})
    """

    #: Files of a rank that are kept.
    N_KEPT = 2

    def __init__(
        self, folder: str | PathLike[str], exchange: Exchange | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.folder, self.exchange, self.device = Path(folder), exchange or Exchange(), device
        #: The last step that was saved or loaded; None: neither so far.
        self._last: int | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write this rank's state after a step, without waiting for other ranks.

        Parameters
        ----------
        step : int
            Number of the step, from 0 on. It must be larger than in the last call, and than the step that :meth:`load`
            returned. Files of later steps, which other ranks didn't come to, are deleted after a :meth:`load`.
        state : mapping
            States of the model, the optimizer (``state_dict()``), the rule, random generators
            (:func:`random_states`), and anything that ``torch.load`` reads with ``weights_only=True``: tensors, plain
            numbers, strings and containers, nothing of NumPy.

        Raises
        ------
        TypeError
            If the step isn't an integer, or if the state couldn't be loaded again; no file of it is left.
        ValueError
            If the step isn't later than the last one, or, before a :meth:`load`, than those in the folder.
        OSError
            If the file can't be written.
        """
        step = check_integer(step, "step", at_least=0)
        found = self._steps()
        last = self._last if self._last is not None else max(found, default=-1)
        if step <= last:
            hint = "" if self._last is not None else f", in {self.folder}: load it, or begin in another folder"
            raise ValueError(f"step must be later than the last one, {last}{hint}; found {step}.")
        if step > _LAST_STEP:
            raise ValueError(f"step must be at most {_LAST_STEP}; found {step}.")
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping; found {type(state).__name__}.")
        packed = {name: pack_state(value) for name, value in state.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole({"checkpoint": self._path(step)}) as targets:
            try:
                torch.save({"size": self.exchange.size, "state": packed}, targets["checkpoint"])
                _read(targets["checkpoint"], mmap=True)  # tensors stay where they are
            except OSError:
                raise
            except Exception as error:
                if (odd := _unreadable(packed, "state")) is None:
                    raise
                raise TypeError(
                    f"state must hold tensors, plain numbers, strings and containers; found {odd}."
                ) from error
            for later in [old for old in found if old > last]:
                self._path(later).unlink()
        self._last = step
        for old in self._steps()[: -self.N_KEPT]:
            self._path(old).unlink()

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Read the last step that all ranks have, and this rank's state after it; None if there is none yet.

        It is a collective: all ranks must call it. If a rank can't read its file, all ranks go back to the step before,
        with a warning.

        Raises
        ------
        ValueError
            If a rank has lost its files or can't read them, or if the files are of another number of ranks.
        """
        own = ([-1] * self.N_KEPT + self._steps())[-self.N_KEPT :]
        found = self._gathered(own)
        common = set.intersection(*map(set, found)) - {-1}
        if not common:
            content = self._attempt(own[-1])[0] if own[-1] >= 0 else None
            self._check_size(None if content is None else content["size"])
            # A rank that was killed before its first checkpoint has none; the others have one at most.
            if any(-1 not in steps for steps in found) or all(steps[-1] >= 0 for steps in found):
                raise ValueError(f"All ranks must have a checkpoint of the same step in {self.folder}; found {found}.")
            self._last = -1
            return None
        damage = []
        for step in sorted(common, reverse=True):
            content, error = self._attempt(step)
            whole = self._gathered(error is None)
            if content is not None and all(whole):
                break
            ranks = [rank for rank, is_whole in enumerate(whole) if not is_whole]
            damage.append(f"{self._path(step)}: {error}" if error else f"step {step} on ranks {ranks}")
        else:
            raise ValueError(f"All ranks must have a checkpoint that can be read; damaged: {'; '.join(damage)}.")
        self._check_size(content["size"])
        if damage:
            warnings.warn(f"All ranks resume step {step}; damaged: {'; '.join(damage)}.", UserWarning, stacklevel=2)
        self._last = step
        return step, content["state"]

    def _check_size(self, size: int | None) -> None:
        """Check, on all ranks, that files of all of them are of as many ranks; None: there is none to tell."""
        every = self._gathered(size)
        if odd := [rank for rank, each in enumerate(every) if each not in (None, self.exchange.size)]:
            raise ValueError(
                f"The number of ranks must be that of the checkpoint, {every[odd[0]]}; found {self.exchange.size}. "
                f"Files of ranks {odd} say so."
            )

    def _gathered(self, value: Any) -> list[Any]:
        """List the values of all ranks."""
        return gathered(_OnDevice(self.exchange.group, self.device), value, "Checkpoints.load")

    def _attempt(self, step: int) -> tuple[dict[str, Any] | None, str | None]:
        """Read a file: its content, or what is wrong with it."""
        try:
            content = _read(self._path(step))
            return {**content, "state": {name: unpack_state(each) for name, each in content["state"].items()}}, None
        except Exception as error:  # of pickle, zipfile, struct or torch, by where the damage is
            return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"

    def _path(self, step: int) -> Path:
        return self.folder / f"rank-{self.exchange.rank}-step-{step}.pt"

    def _steps(self) -> list[int]:
        names = (re.fullmatch(r"rank-(\d+)-step-(\d+)\.pt", path.name) for path in self.folder.glob("*.pt"))
        return sorted(int(name[2]) for name in names if name and int(name[1]) == self.exchange.rank)


#: Steps travel as 64-bit integers.
_LAST_STEP = 2**63 - 1


def _read(file: Any, **settings: Any) -> dict[str, Any]:
    """Read a checkpoint, and check that it is one."""
    content = torch.load(file, weights_only=True, map_location="cpu", **settings)
    if not (isinstance(content, dict) and set(content) == {"size", "state"}):
        raise ValueError("not a checkpoint")
    if not isinstance(content["size"], int) or content["size"] < 1:
        raise ValueError(f"size must be a number of ranks; found {content['size']!r}")
    if not isinstance(content["state"], dict):
        raise ValueError(f"state must be a dict; found {type(content['state']).__name__}")
    return content


def _unreadable(value: Any, name: str) -> str | None:
    """Describe the innermost value that torch can't write, or not read with ``weights_only=True``; None: it can."""
    file = BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True, map_location="cpu")
    except Exception:  # whatever a class raises when it is pickled
        parts: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            parts = value.items()
        elif isinstance(value, (list, tuple)):
            parts = enumerate(value)
        inner = (_unreadable(part, f"{name}[{key!r}]") for key, part in parts)
        return next((each for each in inner if each), f"{name} of type {type(value).__module__}.{type(value).__name__}")
    return None


def random_states() -> dict[str, Any]:
    """Get the states of the global random generators of torch (all devices), NumPy and Python, to save them."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set the global random generators to the states that :func:`random_states` returned."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
