"""The groups of a batch: which samples they hold, their weights, and sums over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import get_len, unpack_data

from skbgmd._utils.slices import Slices, even_slices
from skbgmd.training._losses import of_samples


def group_slices(batch: Any, group_size: int | None) -> Slices:
    """The samples of each group: as the batch says, or groups of at most so many, of sizes as equal as can be."""
    given: list[slice] | None = getattr(batch, "slices", None)
    if given is not None:
        return Slices(given)
    positions = getattr(batch, "positions", None)
    n = get_len(unpack_data(batch)[0]) if positions is None else len(positions)
    return even_slices(n, 1 if group_size is None else -(-n // group_size))


def pieces(part: slice, parts: int) -> list[slice]:
    """A group cut into so many parts, as equal as can be."""
    n = part.stop - part.start
    return [slice(part.start + piece.start, part.start + piece.stop) for piece in even_slices(n, min(parts, n))]


def group_weights(slices: Slices, weight: torch.Tensor | None) -> NDArray[np.float64]:
    """Summed weights of the samples of each group; their number, where they have none."""
    if weight is None:
        return slices.lengths.astype(np.float64)
    of_sample = weight.cpu().numpy().astype(np.float64)
    return np.array([of_sample[part].sum() for part in slices])


def loss_shares(
    losses: torch.Tensor, batch: Any, slices: Slices, weights: NDArray[np.float64], *, summed: bool
) -> torch.Tensor:
    """What each sample's loss, of losses (n, ...), adds to its group's mean, (n,); ``summed`` over a sample's parts."""
    each = of_samples(losses, slices[-1].stop, summed=summed)
    weight = getattr(batch, "weight", None)
    if weight is None and slices.longest == 1:
        return each
    of_group = slices.lengths if weight is None else np.maximum(weights, 1e-300)
    of_sample = np.ones(len(each)) if weight is None else weight.cpu().numpy()
    return each * torch.as_tensor(of_sample / np.repeat(of_group, slices.lengths)).to(each)


def group_sums(values: torch.Tensor, slices: Slices) -> torch.Tensor:
    """Sums of values (n,) over each group, (g,)."""
    if slices.longest == 1:
        return values
    if slices.shortest == slices.longest:
        return values.view(len(slices), -1).sum(dim=1)
    return torch.stack([values[part].sum() for part in slices])


def is_sorted(y: Any, group_size: int, *, binary: bool = False) -> bool:
    """Whether targets (n,) of a batch are sorted by class, with each class in a group of its own.

    Shuffled ones are hardly ever: of the orders of 16 samples and more, with four of a class at least, less than one
    in 900 is. Numbers, (n,) or (n, 1), are classes where the loss is ``binary``, of two classes by one output.
    """
    if not isinstance(y, torch.Tensor) or y.ndim == 0 or len(y) < 16:
        return False
    if binary and y.is_floating_point() and y.numel() == len(y):
        y = y.flatten() > 0.5
    if y.is_floating_point() or y.ndim != 1:
        return False
    classes, counts = torch.unique(y, return_counts=True)
    runs = 1 + int((y[1:] != y[:-1]).sum())
    return 1 < len(classes) == runs and int(counts.min()) >= max(group_size, 4)
