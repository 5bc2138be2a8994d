"""Byzantine-robust training on many machines: rows across the ranks of a process group.

Each rank has a gradient; every rule of :mod:`skbgmd.aggregators` runs across ranks, over ``torch.distributed``.
"""

from skbgmd.distributed.audit import AuditedExchange, AuditReport, audit_ranks, shared_seed
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.faults import RankLostError
from skbgmd.distributed.restarts import Checkpoints, init_from_env, random_states, set_random_states
from skbgmd.distributed.rows import ShardedRows

__all__ = [
    "AuditReport",
    "AuditedExchange",
    "Checkpoints",
    "Exchange",
    "RankLostError",
    "ShardedRows",
    "audit_ranks",
    "init_from_env",
    "random_states",
    "set_random_states",
    "shared_seed",
]
