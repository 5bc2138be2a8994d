"""Robust aggregation of what several machines send: clients of federated learning.

:class:`skbgmd.distributed.flower.RobustFedAvg` needs Flower and is imported from its module; nothing here imports it.
"""

from __future__ import annotations

from skbgmd.distributed.client_weights import cap_claims, read_claim
from skbgmd.distributed.model_updates import GlobalModel

__all__ = ["GlobalModel", "cap_claims", "read_claim"]
