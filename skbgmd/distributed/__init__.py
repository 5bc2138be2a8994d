"""Byzantine-robust training on many machines: rows across the ranks of a process group.

Each rank has a gradient; every rule of :mod:`skbgmd.aggregators` runs across ranks, over ``torch.distributed``.
"""

from skbgmd.distributed.across_ranks import AcrossRanks
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.rows import ShardedRows
from skbgmd.training._ranks import RankDivergedError, RankFailedError

__all__ = ["AcrossRanks", "Exchange", "RankDivergedError", "RankFailedError", "ShardedRows"]
