"""An aggregator and what it carries from batch to batch, as a part of a net."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch

from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.typing import AttackContext
from skbgmd.aggregators import Aggregate, Aggregator
from skbgmd.aggregators.base import aggregated, pack_state, unpack_state
from skbgmd.rows import DenseRows, Rows
from skbgmd.training._ranks import with_group_of


class StatefulAggregator:
    """An aggregator with its state, saved and loaded like a module: ``net.save_params(f_aggregator=...)``.

    A state counts once a batch, however often an optimizer evaluates the batch: the first evaluation's is kept.

    Parameters
    ----------
    aggregator : Aggregator
        The rule, which is not changed.
    seed : int
        Seed of what draws and has no seed of its own.
    provisional : bool, default=False
        The rule is that of nets whose data aren't known yet, which may make it another one.
    """

    def __init__(self, aggregator: Aggregator, seed: int, *, provisional: bool = False) -> None:
        self.aggregator, self.seed, self.provisional = aggregator, seed, provisional
        self.state: Any = None
        self.n_batches = 0
        self._after: tuple[Any] | None = None
        self._loaded: Mapping[str, Any] | None = None
        # What has no seed of its own gets one: a training that is resumed must draw as before.
        drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        self._given = _seeds_of(aggregator)
        seeds = {name: int(drawn.integers(2**31)) if own is None else own for name, own in self._given.items()}
        self._seed_rule(seeds)

    def _seed_rule(self, seeds: dict[str, Any]) -> None:
        self._seeds, self._rule = seeds, self.aggregator
        if seeds != self._given:
            self._rule = copy.deepcopy(self.aggregator)
            self._rule.set_params(**seeds)

    @without_autocast
    def __call__(self, rows: Rows) -> Aggregate:
        aggregate, after = aggregated(self._rule, rows, self.state)
        self.advance(after)
        return aggregate

    def join(self, aggregator: Any) -> None:
        """Train with the processes of another rule, with the same state and seeds."""
        self.aggregator, self._rule = (with_group_of(rule, aggregator) for rule in (self.aggregator, self._rule))

    @property
    def rule(self) -> Aggregator:
        """The rule, with the seeds that it was given."""
        return self._rule

    def advance(self, after: Any) -> None:
        """Note the state that the rule left in this batch, if it is the batch's first evaluation."""
        if self._after is None:
            self._after = (after,)

    def attack_context(self, rows: DenseRows, workers: tuple[int, ...] | None = None) -> AttackContext:
        """Tell an attack on rows like these, of these workers, of the rule in its present state, which stays as it is.

        Of ranks each may ask as often as it likes: it is asked of the rule within the rank.
        """
        rule, state = self._rule.in_process(self.state)

        @without_autocast
        def aggregate(matrix: torch.Tensor) -> torch.Tensor:
            return rule(rows.hold(matrix), state)[0].vector

        @without_autocast
        def block(matrix: torch.Tensor) -> torch.Tensor | None:
            return rule.looked_at(rows.hold(matrix), state)

        return AttackContext(aggregate, self.n_batches, block, workers)

    def random_state(self) -> np.random.RandomState:
        """A generator for the present batch: each evaluation of it draws the same."""
        return np.random.RandomState(np.random.SeedSequence([self.seed, self.n_batches]).generate_state(4))

    def commit(self) -> None:
        """The batch is over: what its first evaluation left is the state."""
        if self._after is not None:
            (self.state,) = self._after
            self._after = None
            self.n_batches += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as plain containers and tensors."""
        return {
            "rule": rule_name(self.aggregator),
            "state": pack_state(self.state),
            "n_batches": self.n_batches,
            "seed": self.seed,
            "seeds": {name: int(seed) for name, seed in self._seeds.items()},
        }

    def hand_over(self) -> Mapping[str, Any] | None:
        """Hand over, once, a state that was loaded and that no batch came after, for another rule to go on with."""
        loaded, self._loaded = self._loaded, None
        return loaded if loaded is not None and loaded["n_batches"] == self.n_batches else None

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned; of another rule's only the number of batches and the seed."""
        rule, seeds = state_dict.get("rule"), state_dict.get("seeds", {})
        known = rule is None or rule == rule_name(self.aggregator)
        if not known and not self.provisional:
            warnings.warn(
                f"The aggregator must be the one whose state was saved, {rule}, for the training to go on as it was; "
                f"found {rule_name(self.aggregator)}, which begins anew.",
                stacklevel=2,
            )
        self.state = unpack_state(state_dict["state"]) if known else None
        self.n_batches, self.seed = state_dict["n_batches"], state_dict["seed"]
        self._after, self._loaded = None, state_dict
        if known:
            self._seed_rule({name: seeds.get(name, seed) for name, seed in self._seeds.items()})


def _seeds_of(aggregator: Aggregator) -> dict[str, Any]:
    """Seeds that an aggregator and those in it have, or None where they have none."""
    return {
        name: value
        for name, value in sorted(aggregator.get_params().items())
        if name.split("__")[-1] == "random_state" and (value is None or isinstance(value, Integral))
    }


def rule_name(aggregator: Aggregator) -> str:
    """The rule's name, with those of the rules in it."""
    inner = [rule_name(part) for _, part in sorted(vars(aggregator).items()) if isinstance(part, Aggregator)]
    return f"{type(aggregator).__name__}({', '.join(inner)})" if inner else type(aggregator).__name__
