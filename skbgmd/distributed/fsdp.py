"""Robust aggregation in FSDP2: exchange, weights and a weighted mean in place of the reduce-scatter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregator
from skbgmd.distributed.rank_aggregator import RankAggregator
from skbgmd.distributed.rows import ShardedRows


class RobustReduceScatter(RankAggregator):
    """Robust aggregation in place of the reduce-scatter of one of FSDP2's parameter groups.

    :func:`robust_fully_sharded` installs one in every group; ``module.set_custom_reduce_scatter`` takes one by hand.
    FSDP2 hands over this rank's gradients, sorted by the rank that holds them: these are exchanged as they are, the
    rule is called on the ranks' rows, and its columns here are this rank's shard of the aggregate. That sends as many
    bytes as the reduce-scatter.

    Parameters
    ----------
    rule, group, transport_dtype, random_state, history_size, on_step, non_finite
        As in :class:`~skbgmd.distributed.RobustHook`. ``group`` must be None: FSDP2 says over which ranks it shards.

    Attributes
    ----------
    weights_, history, n_steps_, exchange_
        As in :class:`~skbgmd.distributed.RobustHook`.

    Raises
    ------
    TypeError, ValueError
        A parameter that is wrong; a rule that wants a block of units, for FSDP2 doesn't tell where they are.

    Examples
    --------
    >>> RobustReduceScatter("krum").n_steps_
    0
    """

    def __init__(self, rule: str | Aggregator = "geometric_median", **settings: Any) -> None:
        super().__init__(rule, **settings)
        if self.group is not None:
            raise ValueError(f"group must be None, as FSDP2 says over which ranks it shards; found {self.group!r}.")
        if "unit" in [value for name, value in self.rule.get_params().items() if name.split("__")[-1] == "block"]:
            raise ValueError(f"rule must choose coordinates, as FSDP2 doesn't tell units; found {self.rule!r}.")

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Memory for gradients, from torch's allocator."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: Any,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Aggregate what FSDP2 would reduce.

        Raises
        ------
        ValueError
            A gradient divide factor that torch multiplies in on the way.
        """
        if op not in (dist.ReduceOp.AVG, dist.ReduceOp.SUM):
            raise ValueError(f"FSDP2 must ask for an average or a sum; found {op} (set_gradient_divide_factor).")
        exchange = self._ready(group)
        shard = exchange.to_shards(input_tensor[None]).wait()
        aggregate = self._aggregate(ShardedRows(shard, input_tensor.numel(), exchange))
        # Of a sum FSDP2 makes an average itself, in two steps where half precision might overflow.
        output_tensor.copy_(aggregate.vector if op == dist.ReduceOp.AVG else aggregate.vector * exchange.size)
        self._record(aggregate)


def robust_fully_sharded(
    model: torch.nn.Module,
    rule: str | Aggregator = "geometric_median",
    *,
    transport_dtype: torch.dtype | None = None,
    random_state: int | None = None,
    history_size: int = 1000,
    on_step: Callable[[FloatArray | None], Any] | None = None,
    non_finite: str = "raise",
) -> dict[str, RobustReduceScatter]:
    """Byzantine-robust gradient aggregation for FSDP2: models that ``fully_shard`` has sharded.

    FSDP2 reduces the gradients of one parameter group after the other, one for each module that ``fully_shard`` was
    called on. The rule is called on each of them, so that every group has its own rows and its own weights: it is a
    blockwise rule. A rank may be trusted in one layer and not in another, and what keeps the majority right does so
    layer by layer. A model that is sharded as one group has one set of weights for all of it.

    Parameters
    ----------
    model : Module
        After ``fully_shard``, before its first backward pass.
    rule, transport_dtype, random_state, history_size, on_step, non_finite
        As in :class:`~skbgmd.distributed.RobustHook`. ``on_step`` is called after each group.

    Returns
    -------
    dict of str to RobustReduceScatter
        What aggregates, by the name of the module of each group, with its ``weights_``, ``history`` and
        ``state_dict()``. With one rank FSDP2 doesn't call it.

    Raises
    ------
    TypeError, ValueError
        A parameter that is wrong; a model that isn't sharded, or is replicated as well (HSDP).
    RuntimeError
        A version of torch whose FSDP2 can't have another reduce-scatter.

    Examples
    --------
    On each rank::

        for layer in model.layers:
            fully_shard(layer)
        fully_shard(model)
        groups = robust_fully_sharded(model, "geometric_median")
        ...
        groups["layers.0"].weights_
    """
    modules = _sharded_modules(model)
    settings = {
        "transport_dtype": transport_dtype,
        "random_state": random_state,
        "history_size": history_size,
        "on_step": on_step,
        "non_finite": non_finite,
    }
    groups = {name: RobustReduceScatter(rule, **settings) for name in modules}
    for name, module in modules.items():
        module.set_custom_reduce_scatter(groups[name])
    return groups


def _sharded_modules(model: torch.nn.Module) -> dict[str, Any]:
    """List the modules that ``fully_shard`` was called on, by name, all of which can have another reduce-scatter."""
    try:
        from torch.distributed.fsdp import FSDPModule
    except ImportError:
        raise RuntimeError(f"FSDP2 needs torch 2.6 or newer; found {torch.__version__}.") from None
    if not hasattr(FSDPModule, "set_custom_reduce_scatter"):
        raise RuntimeError(
            f"A robust FSDP2 needs a torch with FSDPModule.set_custom_reduce_scatter; found {torch.__version__}."
        )
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a Module; found {type(model).__name__}.")
    modules = {name: module for name, module in model.named_modules() if isinstance(module, FSDPModule)}
    if not modules:
        raise ValueError("model must have been sharded by fully_shard; found no module that was.")
    # Modules that were sharded together have one state.
    own = {id(module._get_fsdp_state()): (name, module) for name, module in reversed(modules.items())}
    modules = dict(reversed(own.values()))
    for name, parameter in model.named_parameters():
        placements = getattr(parameter, "placements", ())
        if any(placement.is_replicate() for placement in placements):
            raise ValueError(f"model must be sharded over one mesh dimension; found {name} replicated as well (HSDP).")
    return modules
