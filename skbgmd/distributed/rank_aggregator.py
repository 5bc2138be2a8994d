"""Aggregation of one row from each rank, step after step, with the rule's state and a record of the weights."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from skbgmd._utils.checks import check_choice, check_integer
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregate, Aggregator, NonFiniteRowsError, get_aggregator
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.distributed.exchange import Exchange, check_transport, exchange_of_messages
from skbgmd.distributed.messages import gathered
from skbgmd.distributed.ranks import plain_ranks, refuse_ranks, seeded_rule, seeds_of, settings_of
from skbgmd.rows import DenseRows
from skbgmd.training._ranks import named

#: What becomes of a step in which half of the ranks or more have NaN or inf.
NON_FINITE = ("raise", "propagate")


class RankAggregator:
    """Robust aggregation of one row from each rank: a base for what plugs into an engine of distributed training.

    Parameters
    ----------
    rule, group, transport_dtype, random_state, history_size, on_step, non_finite
        As in :class:`~skbgmd.distributed.RobustHook`.

    Attributes
    ----------
    weights_, history, n_steps_, exchange_
        As in :class:`~skbgmd.distributed.RobustHook`.

    Raises
    ------
    TypeError, ValueError
        A parameter that is wrong; one of the rule's, too.
    """

    def __init__(
        self,
        rule: str | Aggregator = "geometric_median",
        *,
        group: Any = None,
        transport_dtype: torch.dtype | None = None,
        random_state: int | None = None,
        history_size: int = 1000,
        on_step: Callable[[FloatArray | None], Any] | None = None,
        non_finite: str = "raise",
    ) -> None:
        self.rule = _checked_rule(rule)
        check_transport(transport_dtype)
        if random_state is not None:
            random_state = check_integer(random_state, "random_state", at_least=0)
        if not (on_step is None or callable(on_step)):
            raise TypeError(f"on_step must be callable or None; found {on_step!r}.")
        self.group, self.transport_dtype, self.random_state = group, transport_dtype, random_state
        self.on_step, self.non_finite = on_step, check_choice(non_finite, "non_finite", NON_FINITE)
        self.weights_: FloatArray | None = None
        self.history: deque[FloatArray | None] = deque(maxlen=check_integer(history_size, "history_size"))
        self.n_steps_ = 0
        self.exchange_: Exchange | None = None
        self._seeded: Aggregator | None = None
        self._state: Any = None
        self._n_columns: int | None = None
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Get what the next step needs, as plain containers and tensors that ``torch.load`` reads without code.

        Each rank must save its own state, because a rule's memory of the columns is split over the ranks: each has that
        of the columns that it holds.
        """
        if self._loaded is not None:
            return dict(self._loaded)
        exchange = self.exchange_
        return {
            "n_steps": self.n_steps_,
            "random_state": self.random_state,
            "rule_state": pack_state(self._state),
            "rank": None if exchange is None else exchange.rank,
            "n_ranks": None if exchange is None else exchange.size,
            "n_columns": self._n_columns,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned on this rank.

        Raises
        ------
        ValueError
            If it is something else; or, in the next step, if it is the state of another rank, another number of ranks
            or another model.
        """
        keys = {"n_steps", "random_state", "rule_state", "rank", "n_ranks", "n_columns"}
        if not isinstance(state, Mapping) or set(state) != keys:
            found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must be what state_dict() gave; found {found}.")
        unpack_state(state["rule_state"])
        self.n_steps_, self.random_state = state["n_steps"], state["random_state"]
        self._seeded, self._loaded = None, dict(state)

    def __getstate__(self) -> dict[str, Any]:
        # Process groups can't be pickled: a copy takes part in the default one, unless its group is set.
        return {**vars(self), "_loaded": self.state_dict(), "group": None, "exchange_": None, "_state": None}

    def _ready(self, group: Any = None) -> Exchange:
        """Set up what sends, and agree on a seed, before the first step."""
        if self.exchange_ is None:
            self.exchange_ = Exchange(self.group if group is None else group, self.transport_dtype)
        return self.exchange_

    def _settings(self) -> dict[str, Any]:
        """Numbers and names that must be the same on all ranks, of what JSON can hold."""
        return {
            **settings_of(self.rule, "rule", with_seeds=True),
            "non_finite": self.non_finite,
            "transport_dtype": str(self.transport_dtype),
        }

    def _saved_model(self) -> tuple[Any, ...]:
        """Parts of a loaded state that tell its model."""
        return (None if self._loaded is None else self._loaded["n_columns"],)

    def _agree(self, refused: str = "") -> Aggregator:
        """Make the rule with the first rank's seed, after a look whether all ranks have the same settings and state.

        Whatever is odd is an error on all ranks: one that raised alone would leave the others waiting. So is what this
        rank can't aggregate, if it says so.
        """
        if self._seeded is None:
            exchange = self._ready()
            seed = np.random.default_rng().integers(2**31) if self.random_state is None else self.random_state
            saved = self._loaded or {"rank": None, "n_ranks": None, "n_columns": None}
            place = (saved["rank"], saved["n_ranks"])
            is_odd = place != (None, None) and place != (exchange.rank, exchange.size)
            state = (self.n_steps_, zlib.crc32(repr(self._saved_model()).encode()), int(is_odd))
            settings = self._settings()
            own = (int(seed), zlib.crc32(repr(sorted(settings.items())).encode()), *state, refused)
            what = "the agreement before a first step, or after load_state_dict"
            every = gathered(exchange_of_messages(exchange.group), own, what)
            seeds, prints, steps, widths, odd, refusals = zip(*every, strict=True)
            if any(refusals):
                ranks = [rank for rank, each in enumerate(refusals) if each]
                raise TypeError(f"{refusals[ranks[0]]} on {named(ranks)}.")
            if len(set(prints)) > 1:
                plain_ranks(exchange.group).check_same(settings, "What is set")
            if any(odd):
                raise ValueError(
                    f"state must be of the same rank of as many ranks, here rank {exchange.rank} of {exchange.size}; "
                    f"found that of rank {place[0]} of {place[1]}, and others on ranks {np.flatnonzero(odd).tolist()}."
                )
            self._check_same(steps, "state must be loaded on all ranks, of one step: n_steps_")
            self._check_same(widths, "state's model")
            self.random_state = seeds[0]
            own_or_drawn = [seeds[0] if given is None else given for given in seeds_of(self.rule).values()]
            self._seeded = seeded_rule(self.rule, own_or_drawn)
        return self._seeded

    @staticmethod
    def _check_same(values: Sequence[int], name: str) -> None:
        if odd := [rank for rank, value in enumerate(values) if value != values[0]]:
            raise ValueError(f"{name} must be the same on all ranks; found another than rank 0's on ranks {odd}.")

    def _aggregate(self, rows: DenseRows) -> Aggregate:
        """Aggregate the ranks' rows, and keep the rule's state; nothing is kept of a step that raises."""
        rule = self._agree()
        self._take_loaded(rows)
        self._n_columns = self._width(rows)
        try:
            aggregate, state = rule(rows, self._state)
        except NonFiniteRowsError:
            if self.non_finite == "raise":
                raise
            nothing = torch.full((rows.n_held,), torch.nan, dtype=rows.work_dtype, device=rows.device)
            aggregate, state = Aggregate(nothing), self._state
        self._state = state
        return aggregate

    def _width(self, rows: DenseRows) -> int | None:
        """Columns that rows have in every step, by which a state is known to be of the same model."""
        return rows.n_columns

    def _record(self, aggregate: Aggregate) -> None:
        """Keep the weights of a step that is over."""
        self.weights_ = aggregate.weights
        self.history.append(aggregate.weights)
        self.n_steps_ += 1
        if self.on_step is not None:
            self.on_step(aggregate.weights)

    def _take_loaded(self, rows: DenseRows) -> None:
        if self._loaded is None:
            return
        saved = self._loaded
        # The same on all ranks, by what they agreed on.
        if saved["n_columns"] not in (None, self._width(rows)):
            raise ValueError(
                f"state must be of a model with as many parameters, {self._width(rows)}; found one of "
                f"{saved['n_columns']}."
            )
        self._state, self._loaded = unpack_state(_moved(saved["rule_state"], rows.device)), None


def _checked_rule(rule: Any) -> Aggregator:
    """Look up a rule, and check its hyperparameters."""
    if not isinstance(rule, (str, Aggregator)):
        raise TypeError(f"rule must be the name of an aggregator or an Aggregator; found {rule!r}.")
    aggregator = get_aggregator(rule)
    refuse_ranks(aggregator, "rule")
    aggregator.check_parameters()
    return aggregator


def _moved(packed: Any, device: torch.device) -> Any:
    """Move the tensors of a packed state to a device."""
    if isinstance(packed, torch.Tensor):
        return packed.to(device)
    if isinstance(packed, dict):
        return {name: _moved(value, device) for name, value in packed.items()}
    if isinstance(packed, tuple):
        return tuple(_moved(value, device) for value in packed)
    return packed
