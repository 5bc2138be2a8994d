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
    ids : tuple of ints or strings
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

    ids: tuple[Any, ...] = ()
    products: torch.Tensor | None = None
    visits: torch.Tensor | None = None

    def update(self, ids: tuple[Any, ...], products: FloatArray, decay: float) -> Self:
        """Add a step.

        Parameters
        ----------
        ids : tuple of k ints or strings
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
        before, visits_before = self._arrays()
        if ids == self.ids and len(before):
            return self._holding(ids, decay * before + products, decay * visits_before + 1.0)
        everyone = tuple(dict.fromkeys((*self.ids, *ids)))
        sums, visits = np.zeros((2, len(everyone), len(everyone)))
        m = len(before)
        sums[:m, :m], visits[:m, :m] = decay * before, decay * visits_before
        place = {worker: at for at, worker in enumerate(everyone)}
        at = np.ix_(*[[place[worker] for worker in ids]] * 2)
        sums[at] += products
        visits[at] += 1.0
        kept = np.flatnonzero(np.diagonal(visits) > limits.FORGOTTEN_VISITS)
        here = np.ix_(kept, kept)
        return self._holding(tuple(everyone[i] for i in kept), sums[here], visits[here])

    def of_most_visits(self, n: int) -> Self:
        """The memory of the n workers that were there most, or of all where they are no more."""
        if len(self.ids) <= n:
            return self
        products, visits = self._arrays()
        kept = np.sort(np.argsort(-np.diagonal(visits), kind="stable")[:n])
        here = np.ix_(kept, kept)
        return self._holding(tuple(self.ids[i] for i in kept), products[here], visits[here])

    def means(self, ids: tuple[Any, ...]) -> FloatArray:
        """Mean products of some workers (k, k); zero for two that never shared a step."""
        means, known = np.zeros((len(ids), len(ids))), self._known(ids)
        here, at = self._places(ids, known)
        products, visits = self._arrays()
        means[here] = products[at] / np.where(visits[at] > 0.0, visits[at], 1.0)
        return means

    def met(self, ids: tuple[Any, ...]) -> BoolArray:
        """Pairs of some workers (k, k) that shared a step, as bools."""
        met, known = np.zeros((len(ids), len(ids)), dtype=bool), self._known(ids)
        here, at = self._places(ids, known)
        met[here] = self._arrays()[1][at] > 0.0
        return met

    def visits_of(self, ids: tuple[Any, ...]) -> FloatArray:
        """Decayed numbers of steps (k,) that each worker was there."""
        own = dict(zip(self.ids, self._arrays()[1].diagonal().tolist(), strict=True))
        return np.array([own.get(worker, 0.0) for worker in ids])

    def _arrays(self) -> tuple[FloatArray, FloatArray]:
        """Products and visits, from whatever device they were loaded to."""
        self._check()
        if self.products is None or self.visits is None:
            return np.zeros((0, 0)), np.zeros((0, 0))
        return self.products.cpu().numpy(), self.visits.cpu().numpy()

    def _check(self) -> None:
        """Raise a ValueError for sums that aren't of the ids, as in a state that was put together by hand."""
        shape = (len(self.ids), len(self.ids))
        for name, sums in (("products", self.products), ("visits", self.visits)):
            found = None if sums is None else tuple(getattr(sums, "shape", ()))
            if found != shape and (found is not None or len(self.ids)):
                raise ValueError(f"{name} of {len(self.ids)} ids must be a tensor of shape {shape}; found {found}.")

    def _holding(self, ids: tuple[Any, ...], products: FloatArray, visits: FloatArray) -> Self:
        return replace(self, ids=ids, products=torch.from_numpy(products), visits=torch.from_numpy(visits))

    def _known(self, ids: tuple[Any, ...]) -> list[int]:
        remembered = set(self.ids)
        return [i for i, worker in enumerate(ids) if worker in remembered]

    def _places(
        self, ids: tuple[Any, ...], known: list[int]
    ) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        place = {worker: at for at, worker in enumerate(self.ids)}
        of_known = np.array(known, dtype=np.intp)
        return np.ix_(of_known, of_known), np.ix_(*[np.array([place[ids[i]] for i in known], dtype=np.intp)] * 2)
