"""Robust aggregation in FSDP2: exchange, weights and a weighted mean in place of the reduce-scatter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from skbgmd._utils.checks import listed
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregator
from skbgmd.distributed.faults import Collective, begin_collective, telling_others
from skbgmd.distributed.rank_aggregator import RankAggregator
from skbgmd.distributed.rows import ShardedRows


class RobustReduceScatter(RankAggregator):
    """Robust aggregation in place of the reduce-scatter of one of FSDP2's parameter groups.

    :func:`robust_fully_sharded` installs one in every group. To install one by hand, pass it to
    ``module.set_custom_reduce_scatter``.

    FSDP2 hands over this rank's gradients, sorted by the rank that holds them. They are exchanged as they are, and the
    rule is called on the ranks' rows. The columns that this rank holds of the result are its shard of the aggregate.
    This sends as many bytes as the reduce-scatter.

    Parameters
    ----------
    rule, group, transport_dtype, random_state, history_size, on_step, non_finite
        As in :class:`~skbgmd.distributed.RobustHook`. ``group`` must be None, because FSDP2 says over which ranks it
        shards.

    Attributes
    ----------
    weights_, history, n_steps_, exchange_
        As in :class:`~skbgmd.distributed.RobustHook`.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong, or if the rule wants a block of units, because FSDP2 doesn't tell where they are.

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
        with telling_others(group):
            if op not in (dist.ReduceOp.AVG, dist.ReduceOp.SUM):
                raise ValueError(f"FSDP2 must ask for an average or a sum; found {_described(op)}.")
            exchange = self._ready(group)
            # Before anything else is exchanged.
            self._agree()
            shard = exchange.to_shards(input_tensor[None]).wait()
            aggregate = self._aggregate(ShardedRows(shard, input_tensor.numel(), exchange))
            # Of a sum FSDP2 makes an average itself, in two steps where half precision might overflow.
            output_tensor.copy_(aggregate.vector if op == dist.ReduceOp.AVG else aggregate.vector * exchange.size)
            self._record(aggregate)


def _described(op: Any) -> str:
    """Name what FSDP2 asks for, with the factor that ``set_gradient_divide_factor`` was given."""
    name = getattr(getattr(op, "op", op), "name", str(op))
    factor = getattr(op, "factor", None)
    return f"{name} by {factor:g} (set_gradient_divide_factor({1 / factor:g}))" if factor else name


class NamedAllGather:
    """An all-gather of parameters of FSDP2 whose errors name lost ranks.

    Parameters
    ----------
    inner : AllGather
        The one that a parameter group had.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Memory for parameters, as the inner one's."""
        memory: torch.Tensor = self.inner.allocate(size, dtype=dtype, device=device)
        return memory

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any, async_op: bool = False
    ) -> Any:
        """Gather, with a record of it for the others to read."""
        with begin_collective("all_gather", group) as collective:
            work = self.inner(output_tensor=output_tensor, input_tensor=input_tensor, group=group, async_op=async_op)
        return None if work is None else _NamedWork(work, collective)


class _NamedWork(dist.Work):
    """Work whose errors name lost ranks where it is waited for."""

    def __init__(self, work: Any, collective: Collective) -> None:
        super().__init__()
        self.work, self.collective = work, collective

    def wait(self, *timeout: Any) -> bool:
        with self.collective:
            return bool(self.work.wait(*timeout))


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

    Call it after ``fully_shard`` and before the first backward pass.

    FSDP2 reduces the gradients of one parameter group after the other. There is one group for each module that
    ``fully_shard`` was called on. The rule is called on each group, so every group has its own rows and its own
    weights: the rule is blockwise. A rank may be trusted in one layer and not in another, and an honest majority
    protects the training layer by layer. A model that is sharded as one group has one set of weights for all of it.

    If a collective of the gradients or of the parameters fails, a :class:`~skbgmd.distributed.RankLostError` names the
    ranks that are gone.

    Parameters
    ----------
    model : Module
        Model after ``fully_shard``, before its first backward pass.
    rule, transport_dtype, random_state, history_size, on_step, non_finite
        As in :class:`~skbgmd.distributed.RobustHook`. ``on_step`` is called after each group.

    Returns
    -------
    dict of str to RobustReduceScatter
        The objects that aggregate, by the name of the module of each group, with their ``weights_``, ``history`` and
        ``state_dict()``. With one rank FSDP2 doesn't call them.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong, or if the model isn't sharded, or is replicated as well (HSDP).
    RuntimeError
        If FSDP2 of this version of torch doesn't allow another reduce-scatter.

    Warns
    -----
    UserWarning
        If the model has trainable parameters that no group has, which a rule never sees.

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
    # They are plain tensors, where those of groups are spread over the mesh.
    apart = [name for name, each in model.named_parameters() if each.requires_grad and not hasattr(each, "placements")]
    if apart:
        warnings.warn(
            f"All parameters must be of a module that fully_shard was called on before; found {listed(apart)} of none. "
            "They aren't reduced, or by a later fully_shard as a plain average.",
            UserWarning,
            stacklevel=2,
        )
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
        _name_lost_ranks(module)
    return groups


def _name_lost_ranks(module: Any) -> None:
    """Wrap the all-gather of a module's parameter group, where this torch lets another take its place."""
    state = module._get_fsdp_state()
    for group in getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]:
        inner = getattr(group, "_all_gather_comm", None)
        if inner is not None and not isinstance(inner, NamedAllGather):
            module.set_custom_all_gather(NamedAllGather(inner))


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
            raise ValueError(
                f"model must be sharded over all its mesh dimensions; found {name} replicated over one, as by HSDP or "
                "tensor parallelism."
            )
    return modules
