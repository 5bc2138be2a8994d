"""Byzantine-robust training on many machines: rows across the ranks of a process group.

Each rank has a gradient; every rule of :mod:`skbgmd.aggregators` runs across ranks, over ``torch.distributed``.
"""

from skbgmd.distributed.block_exchange import BlockExchange
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.rows import ShardedRows

__all__ = ["BlockExchange", "Exchange", "ShardedRows"]
