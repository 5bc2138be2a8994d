"""Sources of random numbers from what a caller hands in; never the global ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state


def random_source(random_state: Any) -> np.random.RandomState:
    """A source of random numbers that is never the global one.

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
    source: np.random.RandomState = check_random_state(random_state)
    return source


def torch_generator(random_state: Any, device: torch.device) -> torch.Generator:
    """A torch generator from a seed or a NumPy generator; None: seeded afresh, never from the global state."""
    if isinstance(random_state, np.random.RandomState):
        seed = int(random_state.randint(0, 2**31))
    else:
        seed = int(np.random.default_rng(random_state).integers(0, 2**63))
    return torch.Generator(device=device).manual_seed(seed)
