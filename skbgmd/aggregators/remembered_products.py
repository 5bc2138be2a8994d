"""Remembered inner products of workers: means over the steps that two of them shared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import AggregatorState


@dataclass(frozen=True)
class RememberedProducts(AggregatorState):
    """Remember inner products of workers' rows, as means with decay over the steps that two workers shared.

    Honest noise averages out over steps; what an attack adds in each of them does not. It takes two times
    :math:`m^2` numbers for m workers, where a momentum of each worker takes m times the size of the model.

    Attributes
    ----------
    ids : tuple of int
        Ids of the workers that are remembered.
    products : tensor of shape (m, m), float64, or None
        Decayed sums of the products.
    visits : tensor of shape (m, m), float64, or None
        Decayed numbers of steps that two workers shared.

    Examples
    --------
    >>> memory = RememberedProducts()
    >>> memory = memory.update((7, 8), np.array([[1.0, 0.5], [0.5, 1.0]]), decay=0.9)
    >>> memory = memory.update((8, 9), np.array([[1.0, 0.2], [0.2, 1.0]]), decay=0.9)
    >>> memory.means((9, 8, 7)).round(2)
    array([[1. , 0.2, 0. ],
           [0.2, 1. , 0.5],
           [0. , 0.5, 1. ]])
    """

    ids: tuple[int, ...] = ()
    products: torch.Tensor | None = None
    visits: torch.Tensor | None = None

    def update(self, ids: tuple[int, ...], products: FloatArray, decay: float) -> Self:
        """Add a step.

        Parameters
        ----------
        ids : tuple of k ints
            Ids of the workers of this step, each of them once.
        products : ndarray of shape (k, k)
            Products of their rows, in a unit that makes steps comparable.
        decay : float
            Factor of what is remembered, for each step.

        Returns
        -------
        RememberedProducts
            Workers that weren't there for long are forgotten.
        """
        if ids == self.ids and self.products is not None and self.visits is not None:
            new = torch.from_numpy(products)
            return replace(self, products=decay * self.products + new, visits=decay * self.visits + 1.0)
        everyone = tuple(dict.fromkeys((*self.ids, *ids)))
        sums, visits = np.zeros((2, len(everyone), len(everyone)))
        if self.products is not None and self.visits is not None:
            m = len(self.ids)
            sums[:m, :m], visits[:m, :m] = decay * self.products.numpy(), decay * self.visits.numpy()
        place = {worker: at for at, worker in enumerate(everyone)}
        at = np.ix_(*[[place[worker] for worker in ids]] * 2)
        sums[at] += products
        visits[at] += 1.0
        kept = np.flatnonzero(np.diagonal(visits) > limits.FORGOTTEN_VISITS)
        here = np.ix_(kept, kept)
        return replace(
            self,
            ids=tuple(everyone[i] for i in kept),
            products=torch.from_numpy(sums[here]),
            visits=torch.from_numpy(visits[here]),
        )

    def means(self, ids: tuple[int, ...]) -> FloatArray:
        """Mean products of some workers (k, k); zero for two that never shared a step."""
        means, known = np.zeros((len(ids), len(ids))), self._known(ids)
        if known and self.products is not None and self.visits is not None:
            here, at = self._places(ids, known)
            visits = self.visits.numpy()[at]
            means[here] = self.products.numpy()[at] / np.where(visits > 0.0, visits, 1.0)
        return means

    def met(self, ids: tuple[int, ...]) -> BoolArray:
        """Pairs of some workers (k, k) that shared a step, as bools."""
        met, known = np.zeros((len(ids), len(ids)), dtype=bool), self._known(ids)
        if known and self.visits is not None:
            here, at = self._places(ids, known)
            met[here] = self.visits.numpy()[at] > 0.0
        return met

    def visits_of(self, ids: tuple[int, ...]) -> FloatArray:
        """Decayed numbers of steps (k,) that each worker was there."""
        if self.visits is None:
            return np.zeros(len(ids))
        own = dict(zip(self.ids, self.visits.diagonal().tolist(), strict=True))
        return np.array([own.get(worker, 0.0) for worker in ids])

    def _known(self, ids: tuple[int, ...]) -> list[int]:
        remembered = set(self.ids)
        return [i for i, worker in enumerate(ids) if worker in remembered]

    def _places(
        self, ids: tuple[int, ...], known: list[int]
    ) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        place = {worker: at for at, worker in enumerate(self.ids)}
        return np.ix_(known, known), np.ix_(*[[place[ids[i]] for i in known]] * 2)
