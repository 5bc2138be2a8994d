"""Aggregation within a rank and across ranks: samples by one rule, the ranks' vectors by another."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from sklearn.base import clone

from skbgmd._utils.checks import check_choice
from skbgmd.aggregators import Aggregate, Aggregator, AggregatorState, NonFiniteRowsError, get_aggregator
from skbgmd.aggregators.base import state_of
from skbgmd.aggregators.zeno import LossOracle, with_sample_loss
from skbgmd.distributed.exchange import Exchange, check_transport, is_transport
from skbgmd.distributed.messages import uninterrupted
from skbgmd.distributed.ranks import DistributedRanks, refuse_ranks, seeded_rule, settings_of
from skbgmd.distributed.rows import ShardedRows
from skbgmd.rows import Rows
from skbgmd.training._ranks import current_ranks, tell
from skbgmd.training._strength.defaults import AUTO, HUBER_OF_CLASSES, default_rule, with_default

_PARAMETERS = "The parameters of AcrossRanks"
#: What new_group gives ranks outside of the group.
_NO_MEMBER = dist.GroupMember.NON_GROUP_MEMBER if dist.is_available() else None


@dataclass(frozen=True)
class AcrossRanksState(AggregatorState):
    """State of both rules, the seeds of the one across ranks, None before its first step, and its number of steps."""

    within: Any = None
    across: Any = None
    seeds: tuple[int, ...] | None = None
    n_steps: int = 0


class LostGroup:
    """In the place of a process group that was given to a rule before it was pickled."""

    def __repr__(self) -> str:
        return "<a process group, which isn't pickled>"


class _Flat:
    """Loss that is the same everywhere, for checks of rules that a training will offer its own."""

    lr = 1.0

    def on(self, samples: tuple[Any, Any], index: NDArray[np.intp]) -> LossOracle:
        return lambda displacement: displacement.new_zeros(())


class AcrossRanks(Aggregator):
    """Distributed aggregation of gradients under ``torchrun``: rows within each rank, then vectors across ranks.

    Pass it as ``aggregator`` of an estimator or a robust net, which then trains in all processes of a process group
    together, see :doc:`/distributed_estimators`. Each rank aggregates the rows of its own batch by ``within``. The
    resulting vectors, one for each rank, are the rows that ``across`` aggregates, to the same bits on all ranks.

    - All ranks count alike, however many samples a rank has: no rank can claim a weight.
    - If half or more of a rank's rows, by weight, hold NaN or inf, the rank doesn't count in that step, as long as
      fewer than half of the ranks have such rows.
    - If ``torch.distributed`` isn't set up, there is one rank.

    ``across``, ``data`` and ``transport_dtype`` must be the same on all ranks, and so must the parameters of
    ``across``, except for seeds. The ranks compare them before a training and before each step; if they differ, all
    ranks raise an error. ``within`` may differ from rank to rank.

    Parameters
    ----------
    within : str or Aggregator, default="auto"
        Rule for the rows of a rank. "auto": the rule that the estimator or the net would use without ranks, by its
        parameters ``huber``, ``beta``, ``strength`` and so on. Called outside of a training, "auto" is
        ``HuberMean(c=16.0, rejection=10.0, remember=True, tol=0.0001)``.
    across : str or Aggregator, default="geometric_median"
        Rule for the ranks' vectors. With two ranks no rule can tell which one is wrong.
    data : {"own", "split"}, default="own"
        "own": each rank is given data of its own. "split": all ranks are given the same data, and each trains on a
        random share of them, with their weights, groups and ids. Shares differ by one sample at most.
    transport_dtype : torch.dtype, default=None
        Floating-point dtype in which vectors travel, such as ``torch.bfloat16``. None: their own dtype.
    group : ProcessGroup, default=None
        Ranks that train together, as ``torch.distributed.new_group`` returned it on each of them. If the group has a
        time limit of its own, it applies. Ranks are numbered within the group. None: all ranks.

    Raises
    ------
    TypeError, ValueError
        In a training or a call: if a parameter is wrong or differs between ranks; or, on a rank that isn't in
        ``group``, because only the group's ranks may call it.

    Notes
    -----
    The ``weights`` of an aggregate are those of this rank's rows. They add up to the weight of the rank times the
    number of ranks, which is one if all ranks count alike. So a trust of one in a sample means that it counts as in a
    plain mean of all ranks' samples, whatever rank it is on. If ``across`` doesn't weigh rows, the weights add up to
    one. The aggregate's ``record`` has ``rank_weights``, the weights of the ranks of shape (size,), which add up to
    one.

    Copies and clones have the same group. A group can't be pickled: after unpickling, give a rule that had one a group
    by ``set_params(group=...)`` before it trains, if ``torch.distributed`` is set up. Fitted estimators predict without
    a group.

    Neither ``within`` nor ``across`` may be, or contain, another rule across ranks.

    See Also
    --------
    ShardedRows : Rows of all ranks, for a rule of your own.

    Examples
    --------
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.distributed import AcrossRanks
    >>> model = BlockGMDClassifier(aggregator=AcrossRanks("huber_mean", "geometric_median"))
    >>> _ = model.set_params(aggregator__across__rejection=5.0)
    >>> model.aggregator
    AcrossRanks(across=GeometricMedian(rejection=5.0), within='huber_mean')
    """

    def __init__(
        self,
        within: str | Aggregator = AUTO,
        across: str | Aggregator = "geometric_median",
        data: str = "own",
        transport_dtype: torch.dtype | None = None,
        group: Any = None,
    ) -> None:
        self.within, self.across, self.data, self.transport_dtype = within, across, data, transport_dtype
        self.group = group

    def __copy__(self) -> Self:
        return self._copied(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copied(lambda value: copy.deepcopy(value, memo))

    def __sklearn_clone__(self) -> Self:
        params = self.get_params(deep=False)
        return type(self)(**{name: self._kept(name, value, _cloned) for name, value in params.items()})

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "group": None if self.group is None else LostGroup()}

    def _copied(self, function: Callable[[Any], Any]) -> Self:
        twin = type(self).__new__(type(self))
        for name, value in vars(self).items():
            setattr(twin, name, self._kept(name, value, function))
        return twin

    @staticmethod
    def _kept(name: str, value: Any, function: Callable[[Any], Any]) -> Any:
        """A process group itself, and a copy of anything else."""
        return value if name == "group" else function(value)

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``within__x`` and ``across__x`` set those of the rules, named ones too."""
        for place in ("within", "across"):
            nested = any(name.startswith(f"{place}__") for name in params)
            if nested and isinstance(params.get(place, getattr(self, place)), str):
                setattr(self, place, _rule(params.pop(place, getattr(self, place))))
        super().set_params(**params)
        return self

    def ranks(self) -> DistributedRanks:
        """Get the ranks, for a training that aggregates by this rule; as it begins, they compare its parameters.

        A wrong parameter raises an error only then, on all ranks. A wrong ``group``, or one without this rank, raises
        an error at once.
        """
        dtype = self.transport_dtype
        exchange = Exchange(self._checked_group(), dtype if is_transport(dtype) else None)
        # Lengths and dtypes of vectors are compared by messages.
        exchange.compares = False
        split = isinstance(self.data, str) and self.data == "split"
        return DistributedRanks(exchange, self.across, splits_data=split, agree=self._agree)

    def _checked_group(self) -> Any:
        """The group, where there is more than this process."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        if isinstance(self.group, LostGroup):
            raise ValueError(
                "group must be given to a rule that comes of a pickle, by set_params(group=...), as it isn't pickled; "
                f"found {self.group!r}."
            )
        if not (self.group is None or isinstance(self.group, dist.ProcessGroup) or self.group == _NO_MEMBER):
            raise TypeError(f"group must be a torch.distributed.ProcessGroup or None; found {self.group!r}.")
        return self.group

    def check_parameters(self) -> None:
        self._validate()
        with with_sample_loss(_Flat()):
            _filled(self.within).check_parameters()
            _filled(self.across).check_parameters()

    def in_process(self, state: AcrossRanksState | None) -> tuple[Aggregator, Any]:
        return _rule(self.within), None if state is None else state.within

    def __call__(self, rows: Rows, state: AcrossRanksState | None = None) -> tuple[Aggregate, AcrossRanksState]:
        ranks = self.ranks()
        try:
            before = state_of(self, state, AcrossRanksState) or AcrossRanksState()
            self._validate(nested=state is None)
            own, within = self._judge_own(rows, before.within, alone=ranks.size == 1)
        except BaseException as error:
            # A training tells of its errors itself.
            if current_ranks().size == 1:
                tell(ranks, error)
            raise
        if ranks.size == 1:
            alone = Aggregate(own.vector, own.weights, own.block, own.mass, {**own.record, "rank_weights": [1.0]})
            return alone, replace(before, within=within)
        exchange, d = ranks.exchange, len(own.vector)
        place = {"seeds": None if before.seeds is None else list(before.seeds), "steps": before.n_steps}
        self._compare(ranks, {"length": d, "dtype": str(own.vector.dtype)}, place)
        seeds = ranks.agreed_seeds("the first step across ranks") if before.seeds is None else before.seeds
        with uninterrupted():
            # Nothing here fails on some of the ranks only.
            shard = exchange.to_shards(own.vector[None]).wait()
            vectors = ShardedRows(shard, d, exchange, units=rows.units)
            found, across = seeded_rule(get_aggregator(self.across), seeds)(vectors, before.across)
            vector = exchange.from_shards(found.vector, d).wait()
        weights, record = own.weights, dict(own.record)
        if found.weights is not None:
            record["rank_weights"] = found.weights.tolist()
            if weights is not None:
                weights = weights * (found.weights[ranks.rank] * ranks.size)
        mass = own.mass if found.mass is None else found.mass
        after = AcrossRanksState(within, across, seeds, before.n_steps + 1)
        return Aggregate(vector, weights, own.block, mass, record), after

    def _judge_own(self, rows: Rows, state: Any, *, alone: bool) -> tuple[Aggregate, Any]:
        """Aggregate this rank's rows; where most of them aren't finite nor is its vector, which others then outvote."""
        try:
            return _rule(self.within)(rows, state)
        except NonFiniteRowsError:
            if alone or rows.finite.all():
                raise
        nothing = np.zeros(rows.n_rows)
        return Aggregate(torch.full_like(rows.weighted_sum(nothing), torch.nan), nothing), state

    def _validate(self, *, nested: bool = True) -> None:
        for name, rule in (("within", _rule(self.within)), ("across", get_aggregator(self.across))):
            if nested:
                refuse_ranks(rule, name)
        check_choice(self.data, "data", ("own", "split"))
        check_transport(self.transport_dtype)

    def _agree(self, ranks: DistributedRanks) -> None:
        """Check the parameters, and that those which aren't of one rank alone are the same on all."""
        self._validate()
        # That within a rank may be wrong for the rows at hand only, and tells of it in the first step.
        with with_sample_loss(_Flat()):
            _filled(self.across).check_parameters()
        ranks.check_same(self._settings(), _PARAMETERS)

    def _settings(self) -> dict[str, Any]:
        """Parameters that must be the same on all ranks; how a rank judges its own rows is its own affair."""
        rule = settings_of(get_aggregator(self.across), "across")
        return {**rule, "data": self.data, "transport_dtype": str(self.transport_dtype)}

    def _compare(self, ranks: DistributedRanks, vector: dict[str, Any], place: dict[str, Any]) -> None:
        """Compare parameters, the kind of vector and the state before a step, in a message that is sent anyway."""
        settings = self._settings()
        prints = [zlib.crc32(repr(sorted(found.items())).encode()) for found in (settings, vector, place)]
        every = ranks.gather(prints, "a step across ranks")
        if any(found != every[0] for found in every):
            ranks.check_same(settings, _PARAMETERS)
            ranks.check_same(vector, "Vectors")
            ranks.check_same(place, "States of AcrossRanks, which all ranks load or none,")


def _cloned(value: Any) -> Any:
    return clone(value, safe=False)


def _rule(rule: str | Aggregator) -> Aggregator:
    return _default() if isinstance(rule, str) and rule == AUTO else get_aggregator(rule)


def _filled(rule: str | Aggregator) -> Aggregator:
    """A rule with the default where it leaves a place to the training."""
    return with_default(_rule(rule), _default())


def _default() -> Aggregator:
    return default_rule(huber=HUBER_OF_CLASSES, of_samples=True)
