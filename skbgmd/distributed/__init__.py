"""Byzantine-robust training on many machines: rows across the ranks of a process group, and federated clients.

Each rank has a gradient; every rule of :mod:`skbgmd.aggregators` runs across ranks, over ``torch.distributed``.
:class:`skbgmd.distributed.flower.RobustFedAvg` needs Flower and is imported from its module; nothing here imports it.
"""

# Its functions have the default group among their defaults, from when it is imported: after init_process_group that
# group would never end, and its threads, left running at the end of the process, abort it now and then.
import torch.distributed.nn.functional  # noqa: F401

from skbgmd.distributed.across_ranks import AcrossRanks
from skbgmd.distributed.audit import AuditedExchange, AuditReport, audit_ranks, shared_seed
from skbgmd.distributed.block_exchange import BlockExchange
from skbgmd.distributed.bridge import Bridge
from skbgmd.distributed.client_weights import cap_claims, read_claim
from skbgmd.distributed.ddp import RobustHook, robust_hook
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.faults import RankLostError
from skbgmd.distributed.fsdp import RobustReduceScatter, robust_fully_sharded
from skbgmd.distributed.model_updates import GlobalModel
from skbgmd.distributed.redundancy import redundant_sampler
from skbgmd.distributed.restarts import Checkpoints, init_from_env, random_states, set_random_states
from skbgmd.distributed.rows import ShardedRows
from skbgmd.distributed.rsa import RSA
from skbgmd.training._ranks import RankDivergedError, RankFailedError

__all__ = [
    "RSA",
    "AcrossRanks",
    "AuditReport",
    "AuditedExchange",
    "BlockExchange",
    "Bridge",
    "Checkpoints",
    "Exchange",
    "GlobalModel",
    "RankDivergedError",
    "RankFailedError",
    "RankLostError",
    "RobustHook",
    "RobustReduceScatter",
    "ShardedRows",
    "audit_ranks",
    "cap_claims",
    "init_from_env",
    "random_states",
    "read_claim",
    "redundant_sampler",
    "robust_fully_sharded",
    "robust_hook",
    "set_random_states",
    "shared_seed",
]
