"""Random sources from seeds and generators, and states of the global ones."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.utils.data import Sampler

from skbgmd._utils.checks import check_integer


def random_source(random_state: Any) -> np.random.RandomState:
    """Make a source of random numbers, never the global one.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        A seed; a source, which is used up as it is drawn from; None: a new source, seeded afresh.

    Raises
    ------
    ValueError
        For anything else.
    """
    if random_state is None:
        # scikit-learn's None is the global source: nothing here may change what others draw from it.
        return np.random.RandomState()
    if isinstance(random_state, np.random.Generator):
        return np.random.RandomState(random_state.bit_generator)
    try:
        source: np.random.RandomState = check_random_state(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be an integer from 0 to 2**32 - 1, a RandomState, a Generator or None; found "
            f"{random_state!r}."
        ) from error
    return source


def check_random_source(random_state: Any) -> None:
    """Check what :func:`torch_generator` is to be made of, without drawing from it.

    Raises
    ------
    ValueError
    """
    # Of the operating system there is always something to draw.
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return
    try:
        np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be an integer of at least 0, a RandomState, a Generator or None; found "
            f"{random_state!r}."
        ) from error


def torch_generator(random_state: Any, device: torch.device) -> torch.Generator:
    """Make a torch generator from a seed or a NumPy generator; None: seeded afresh, never from the global state."""
    check_random_source(random_state)
    if isinstance(random_state, np.random.RandomState):
        seed = int(random_state.randint(0, 2**31))
    else:
        seed = int(np.random.default_rng(random_state).integers(0, 2**63))
    return torch.Generator(device=device).manual_seed(seed)


class _Turns:
    """Lock for threads that seed torch's global generators."""

    lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A thread that holds the lock doesn't survive a fork.
    os.register_at_fork(after_in_child=lambda: setattr(_Turns, "lock", threading.RLock()))


#: True once anything may have drawn on a CUDA device. Asking for a state would set CUDA up.
_cuda_draws: Callable[[], bool] = torch.cuda.is_initialized


@contextmanager
def seeded(seed: int, device: Any) -> Iterator[None]:
    """Seed torch's global generators for a while, then restore them; threads take turns."""
    on_cuda = torch.device(device).type == "cuda"
    with _Turns.lock, torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        # torch.manual_seed would also seed devices whose generators aren't restored.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def generator_states() -> dict[str, Any]:
    """Get the states of the global generators that a training may draw from, as plain containers and tensors."""
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if _cuda_draws():
        states["cuda"] = torch.cuda.get_rng_state_all()
    # The global one, by which any random_state=None draws.
    kind, key, *rest = check_random_state(None).get_state()
    if kind == "MT19937":
        states["numpy"] = (kind, torch.from_numpy(key.astype(np.int64)), *rest)
    return states


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Restore the global generators to the states that :func:`generator_states` gave.

    Tensors may have moved to a device since then.
    """
    torch.set_rng_state(states["torch"].cpu())
    random.setstate(states["python"])
    if _cuda_draws():
        for device, state in zip(range(torch.cuda.device_count()), states.get("cuda", ()), strict=False):
            torch.cuda.set_rng_state(state.cpu(), device)
    if "numpy" in states:
        kind, key, *rest = states["numpy"]
        check_random_state(None).set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))


def generators_of(loader: Any) -> list[torch.Generator]:
    """List the generators that a loader and its samplers own."""
    found: list[torch.Generator] = []
    parts = [loader]
    for part in parts:
        for value in getattr(part, "__dict__", {}).values():
            if isinstance(value, torch.Generator) and value is not torch.default_generator and value not in found:
                found.append(value)
            elif isinstance(value, Sampler) and not any(value is known for known in parts):
                parts.append(value)
    return found


def step_seed(random_state: Any, step: int) -> Any:
    """Derive a seed for each call from an aggregator's seed and the number of the call; None stays None."""
    if random_state is None:
        return None
    return np.random.default_rng([check_integer(random_state, "random_state", at_least=0), step])
