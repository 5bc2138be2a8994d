"""State of a training that a file can be read of without executing anything."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only


def plain_numbers(value: Any) -> Any:
    """Make Python's numbers of NumPy's, in whatever containers; other values stay as they are."""
    return tree_map_only(np.generic, lambda number: number.item(), value)


def plain(value: Any) -> Any:
    """A value made of what ``torch.load`` reads without executing anything; a TypeError where it can't be."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor):
        return value
    if type(value) in (dict, OrderedDict, Counter):
        return type(value)({plain(key): plain(item) for key, item in value.items()})
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    raise TypeError(
        f"The state of a training, such as its aggregator's, must be made of tensors, numbers, text, None and "
        f"containers of these to be saved; found {type(value)}."
    )
