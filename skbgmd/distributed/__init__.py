"""Byzantine-robust training on many machines: rows across the ranks of a process group.

Each rank has a gradient; every rule of :mod:`skbgmd.aggregators` runs across ranks, over ``torch.distributed``.
"""

from skbgmd.distributed.ddp import RobustHook, robust_hook
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.fsdp import RobustReduceScatter, robust_fully_sharded
from skbgmd.distributed.rows import ShardedRows

__all__ = ["Exchange", "RobustHook", "RobustReduceScatter", "ShardedRows", "robust_fully_sharded", "robust_hook"]
