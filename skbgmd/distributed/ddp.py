"""Robust aggregation in DistributedDataParallel: a communication hook in place of its all-reduce."""

# Annotations stay what they are: DDP compares those of a hook with its own.

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from skbgmd._utils.checks import check_number, listed
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregator
from skbgmd.distributed.block_exchange import refuse_columns
from skbgmd.distributed.buckets import BlockBuckets, BucketExchange, ShardedBuckets, as_real
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.faults import telling_others
from skbgmd.distributed.messages import gathered
from skbgmd.distributed.rank_aggregator import RankAggregator
from skbgmd.distributed.static_graph import StepOfBuckets, delayed_parameters, sparse_layers
from skbgmd.rows import DenseRows


class RobustHook(RankAggregator):
    """Byzantine-robust gradient aggregation for DistributedDataParallel, as the state of its communication hook.

    Register it with :func:`robust_hook`. It replaces DDP's average of gradients by an aggregation rule over the ranks.

    1. Each bucket is exchanged as soon as it is ready, while the backward pass goes on. Every rank gets its share of
       the columns of all ranks' gradients, for as many bytes as half of a ring all-reduce.
    2. Once the last bucket is there, the rule is called once, on all columns.
    3. The aggregate is sent back, for the other half of the bytes.

    The weights are always those of the current step, and all ranks have the same bits.

    With a hook DDP doesn't divide by the number of ranks; the rule's weighted mean takes the place of DDP's average. It
    takes more than two ranks to outvote one.

    Parameters
    ----------
    rule : str or Aggregator, default="geometric_median"
        A key of :data:`skbgmd.aggregators.AGGREGATORS`, or an aggregator. Pass the same on all ranks.
    beta : float, default=1.0
        Share of the coordinates that travels in each step, in (0, 1]. 1: all of them, exactly. Less than 1: a block of
        the coordinates, such as a tenth for an eighth of the bytes. The rest stays with its rank as a remainder that is
        added to the next gradient, see :class:`BlockExchange`. Nothing is then sent before the last bucket is there.
    group : ProcessGroup, default=None
        Ranks to aggregate over. None: the ``process_group`` of the model's ``DistributedDataParallel``. Any other group
        must be of the same ranks, such as one with a time limit of its own.
    transport_dtype : torch.dtype, default=None
        Dtype in which gradients travel, such as ``torch.bfloat16``, for half the bytes of float32. None: their own
        dtype.
    random_state : int or None, default=None
        Seed for the random draws of a rule that has no seed of its own. All ranks take the first rank's seed; if that
        is None, the first rank picks one.
    history_size : int, default=1000
        Number of steps whose weights ``history`` keeps.
    on_step : callable, default=None
        Called as ``on_step(weights)`` after each step, on every rank, with ``weights_``.
    non_finite : {"raise", "propagate"}, default="raise"
        What happens if half of the ranks or more have NaN or inf in their gradients. Fewer such ranks get weight zero.

        - "raise": all ranks raise :class:`~skbgmd.aggregators.NonFiniteRowsError`.
        - "propagate": the aggregate is NaN on all ranks, as after an all-reduce. ``torch.amp.GradScaler`` relies on
          this to skip a step. It is refused with ``beta`` less than 1.

    Attributes
    ----------
    weights_ : ndarray of shape (n_ranks,), or None
        Weights of the ranks in the last step, float64, non-negative and adding up to one. None before the first step,
        and if the rule has no weights, as the coordinate-wise median.
    history : deque of ndarray
        The weights of the last steps, the newest last.
    n_steps_ : int
        Number of steps so far.
    exchange_ : Exchange
        Sends gradients and counts bytes; it exists from the first step on.

    Raises
    ------
    TypeError, ValueError
        If a parameter, or a parameter of the rule, is wrong. In the first step: if the rule differs between ranks, if
        gradients are sparse on some rank, if the group has other ranks than the model's, or if the model has
        parameters that ``DistributedDataParallel`` averages itself (``delay_all_reduce_named_params``).
    RankLostError
        On the other ranks, if one rank alone raises an error, such as one in ``on_step``. That rank ends with its own
        error.

    Notes
    -----
    Columns are in the order of the first step's buckets from the last to the first. That is the order of the model's
    parameters unless dtypes take turns. So a block, and what a rule remembers of the columns, stay valid when DDP
    rebuilds its buckets and when a state is loaded under the same wrapper. The real and imaginary parts of complex
    parameters are columns of their own. A state tells parameters apart by their shapes and dtypes alone.

    Gradients of several dtypes are judged in the widest of them. With ``beta`` less than 1 and
    ``find_unused_parameters``, what a block sends of a parameter that no rank uses in this step is lost.

    DDP's ``mixed_precision`` doesn't work with it, because it is a hook of its own, and DDP takes only one;
    ``torch.autocast`` works. A pickled hook is without its group.

    Examples
    --------
    >>> hook = RobustHook("geometric_median")
    >>> hook.weights_ is None
    True

    With a process group that is set up, on each rank::

        ddp = DistributedDataParallel(model)
        ddp.register_comm_hook(hook, robust_hook)
    """

    _buckets: BucketExchange | None = None
    _step: StepOfBuckets | None = None

    def __init__(
        self,
        rule: str | Aggregator = "geometric_median",
        *,
        beta: float = 1.0,
        group: Any = None,
        transport_dtype: torch.dtype | None = None,
        random_state: int | None = None,
        history_size: int = 1000,
        on_step: Callable[[FloatArray | None], Any] | None = None,
        non_finite: str = "raise",
    ) -> None:
        super().__init__(
            rule,
            group=group,
            transport_dtype=transport_dtype,
            random_state=random_state,
            history_size=history_size,
            on_step=on_step,
            non_finite=non_finite,
        )
        self.beta = check_number(beta, "beta", at_most=1.0)
        if self.beta < 1.0:
            refuse_columns(self.rule)
            if non_finite != "raise":
                raise ValueError(
                    "non_finite must be 'raise' with beta less than 1: remainders keep the scale of their steps, which "
                    f"torch.amp.GradScaler changes, and gradients of steps that it skips; found {non_finite!r}."
                )
        #: What buckets kept, where they aren't made yet.
        self._kept: dict[str, Any] = {}

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        kept = self._kept if self._buckets is None else self._buckets.state_dict()
        return {**super().state_dict(), "beta": self.beta, "buckets": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = {"beta", "buckets"}
        if not isinstance(state, Mapping) or not own <= set(state):
            found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must be what state_dict() of a RobustHook gave; found {found}.")
        if state["beta"] != self.beta:
            raise ValueError(f"state must be of a hook with beta={self.beta}; found one of beta={state['beta']}.")
        kept = state["buckets"]
        if not isinstance(kept, Mapping) or not set(kept) <= {"parameters", "parts"}:
            raise ValueError(f"state must be what state_dict() of a RobustHook gave; found buckets={kept!r}.")
        super().load_state_dict({name: value for name, value in state.items() if name not in own})
        self._kept = dict(kept)
        if self._buckets is not None:
            # The order of the columns stays: those of a live model's buckets have been rebuilt.
            self._buckets.load_state_dict(kept)

    def _saved_model(self) -> tuple[Any, ...]:
        kept = {} if self._loaded is None else self._kept
        return *super()._saved_model(), kept.get("parameters") or None

    def _width(self, rows: DenseRows) -> int | None:
        # The last run of a block is shorter than others.
        return super()._width(rows) if self.beta == 1.0 else None

    def __getstate__(self) -> dict[str, Any]:
        kept = self.state_dict()
        return {**super().__getstate__(), "_buckets": None, "_step": None, "_waiting": [], "_kept": kept["buckets"]}

    def _make_buckets(self) -> BucketExchange:
        exchange = self._ready()
        buckets = ShardedBuckets(exchange) if self.beta == 1.0 else BlockBuckets(exchange, self.beta)
        if self._kept:
            buckets.load_state_dict(self._kept)
        return buckets

    def _add(self, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        if self._step is None:
            self._step = StepOfBuckets()
        if self.exchange_ is None:
            # The group is the model's until it is known that the hook's is of the same ranks.
            wrapper = self._step.wrapper_of(bucket.parameters()[0])
            model_group = None if wrapper is None else wrapper.process_group
            with telling_others(self.group if wrapper is None else model_group):
                self._ready(_group_of(self.group, model_group))
        exchange = self._ready()
        with telling_others(exchange.group):
            return self._take(bucket, self._step, exchange)

    def _take(self, bucket: Any, step: StepOfBuckets, exchange: Exchange) -> torch.futures.Future[torch.Tensor]:
        gradient = bucket.buffer()
        if bucket.index() == 0 and self._seeded is None:
            # The first step, or the first one after a state was loaded: before anything else is exchanged.
            self._agree(_refusal(gradient, step.wrapper_of(bucket.parameters()[0])))
        if gradient.is_sparse:
            raise TypeError(f"{_refusal(gradient, None)}.")
        if self._buckets is None:
            self._buckets = self._make_buckets()
        if step.begins(bucket):
            # A step that raised has left some.
            self._buckets.reset()
            self._waiting: list[tuple[torch.Tensor, torch.futures.Future[torch.Tensor]]] = []
        # On a device, completion is an event on its stream; nothing here waits for it but what reads numbers.
        devices = [gradient.device] if gradient.device.type == "cuda" else []
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future(devices=devices)
        self._buckets.add(gradient, bucket.parameters())
        self._waiting.append((gradient, future))
        if step.ends(bucket):
            self._finish(exchange)
        return future

    def _finish(self, exchange: Exchange) -> None:
        assert self._buckets is not None
        aggregate, found = self._buckets.finish(self._aggregate)
        for (gradient, future), vector in zip(self._waiting, found, strict=True):
            # In the bucket's own memory, as DDP's hooks do.
            as_real(gradient).flatten().copy_(vector)
            future.set_result(gradient)
        self._buckets.reset()
        self._waiting = []
        self._record(aggregate)
        if self.n_steps_ == 1:
            # DDP rebuilds its buckets now, together with ranks that it knows nothing of.
            gathered(Exchange(exchange.group), None, "the end of the first step")


def _group_of(own: Any, model_group: Any) -> Any:
    """The hook's group, or the model's where it has none; of a model without a wrapper that can be found, its own.

    Raises
    ------
    ValueError
        They are of different ranks: others would be aggregated than those that train the model.
    """
    if own is None:
        # That of all ranks goes without its name: nobody shall hold it longer than the model does.
        return None if model_group is dist.group.WORLD else model_group
    if model_group is None:
        return own
    ranks, of_model = dist.get_process_group_ranks(own), dist.get_process_group_ranks(model_group)
    if ranks != of_model:
        raise ValueError(
            f"group must be of the ranks that train the model, {of_model} by its process_group; found one of {ranks}."
        )
    return own


def _refusal(gradient: torch.Tensor, wrapper: Any) -> str:
    """Sentence on gradients of a model that can't be aggregated, by one of its buckets; empty where all can."""
    if wrapper is not None and (delayed := delayed_parameters(wrapper)):
        return (
            f"All parameters must be reduced by the hook; found {listed(delayed)} in delay_all_reduce_named_params, "
            "which DistributedDataParallel averages itself"
        )
    layers = [] if wrapper is None else sparse_layers(wrapper)
    if not (layers or gradient.is_sparse):
        return ""
    named = f" of layers {listed(layers)}" if layers else ""
    return f"Gradients must be dense for a robust hook; found sparse ones{named} (an embedding's sparse=True)"


def robust_hook(
    state: RobustHook,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Aggregate a bucket of gradients robustly over the ranks: a communication hook for DistributedDataParallel.

    Parameters
    ----------
    state : RobustHook
        The rule and what it remembers. Make one for each model.
    bucket : torch.distributed.GradBucket
        Gradients of some parameters.

    Returns
    -------
    Future
        Future of the bucket's aggregate, complete once the last bucket is there.

    Examples
    --------
    ``ddp.register_comm_hook(RobustHook("geometric_median"), robust_hook)``
    """
    if not isinstance(state, RobustHook):
        raise TypeError(f"The state of robust_hook must be a RobustHook; found {state!r}.")
    if not isinstance(bucket, dist.GradBucket):  # type: ignore[attr-defined]
        raise TypeError(
            "robust_hook must be given the buckets of DistributedDataParallel, which torch.compile's python_reducer "
            f"doesn't make, nor the older FullyShardedDataParallel; found {type(bucket).__name__}."
        )
    return state._add(bucket)
