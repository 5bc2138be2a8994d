"""An aggregator and what it carries from batch to batch, as a part of a net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skbgmd.aggregators import Aggregate, Aggregator
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.arrays import without_autocast
from skbgmd.ghost import GhostRows
from skbgmd.rows import DenseRows


class StatefulAggregator:
    """An aggregator with its state, saved and loaded like a module: ``net.save_params(f_aggregator=...)``.

    A state counts once a batch, however often an optimizer evaluates the batch: the first evaluation's is kept.
    """

    def __init__(self, aggregator: Aggregator, seed: int) -> None:
        self.aggregator, self.seed = aggregator, seed
        self.state: Any = None
        self.n_batches = 0
        self._after: tuple[Any] | None = None

    @without_autocast
    def __call__(self, rows: DenseRows | GhostRows) -> Aggregate:
        aggregate, after = self.aggregator(rows, self.state)
        if self._after is None:
            self._after = (after,)
        return aggregate

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
        return {"state": pack_state(self.state), "n_batches": self.n_batches, "seed": self.seed}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        state = unpack_state(state_dict["state"])
        self.state, self.n_batches, self.seed = state, state_dict["n_batches"], state_dict["seed"]
        self._after = None
