"""The same samples for r consecutive ranks, whose gradients a majority vote then compares."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from skbgmd._utils.checks import check_integer


def redundant_sampler(
    dataset: Dataset[Any], r: int = 3, *, size: int | None = None, rank: int | None = None, **kwargs: Any
) -> DistributedSampler[Any]:
    """Hand the same samples to r consecutive ranks: torch's ``DistributedSampler`` for redundant gradients (Draco).

    Use it with :class:`skbgmd.aggregators.MajorityVote` of the same r as the rule across ranks. Then fewer than r / 2
    of each r ranks may compute or send anything. Random draws in the module, such as those of dropout, must be the same
    within a group: seed them by ``rank // r``.

    Parameters
    ----------
    dataset : Dataset
        As in ``DistributedSampler``.
    r : int, default=3
        Number of ranks that are given the same samples.
    size, rank : int, default=None
        Number of ranks, and the rank to sample for. None: those of the default process group.
    **kwargs
        Other parameters of ``DistributedSampler``: ``shuffle``, ``seed``, ``drop_last``.

    Returns
    -------
    DistributedSampler
        The sampler of replica ``rank // r`` of ``size // r``.

    Raises
    ------
    ValueError
        If the number of ranks isn't a multiple of r, or the rank isn't less than it.

    Examples
    --------
    >>> [list(redundant_sampler(range(6), 3, size=6, rank=rank, shuffle=False)) for rank in range(6)]
    [[0, 2, 4], [0, 2, 4], [0, 2, 4], [1, 3, 5], [1, 3, 5], [1, 3, 5]]
    """
    check_integer(r, "r")
    size = dist.get_world_size() if size is None else check_integer(size, "size")
    rank = dist.get_rank() if rank is None else check_integer(rank, "rank", at_least=0)
    if size % r:
        raise ValueError(f"The number of ranks must be a multiple of r={r}; found {size}.")
    if rank >= size:
        raise ValueError(f"rank must be less than the number of ranks, {size}; found {rank}.")
    return DistributedSampler(dataset, num_replicas=size // r, rank=rank // r, **kwargs)
