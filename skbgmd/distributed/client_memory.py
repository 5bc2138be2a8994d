"""Memory of clients: how alike their updates were over the rounds, and whether they fall into two camps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.remembered_products import RememberedProducts


@dataclass(frozen=True)
class ClientMemory(RememberedProducts):
    r"""Remember the cosines between clients' centred updates, averaged over the rounds that two clients shared.

    Of one round's Gram matrix K and the mean's weights a (adding up to one), the cosines

    .. math:: C = D^{-1/2} P D^{-1/2}, \quad P = (I - 1 a^T) K (I - a 1^T), \quad D = \operatorname{diag}(P)

    are added up with decay. Honest noise averages out over rounds; what an attack adds in each of them does not.

    Attributes
    ----------
    ids, products, visits
        As of :class:`skbgmd.aggregators.remembered_products.RememberedProducts`.

    Examples
    --------
    >>> gram = np.array([[1.0, 0.9, -1.0], [0.9, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    >>> memory = ClientMemory()
    >>> for _ in range(3):
    ...     memory = memory.add_round((7, 8, 9), gram, np.ones(3))
    >>> memory.similarities((9, 7)).round(2)
    array([[ 1.  , -0.95],
           [-0.95,  1.  ]])
    """

    def add_round(
        self, clients: tuple[int, ...], gram: FloatArray, weights: FloatArray, decay: float = 0.9
    ) -> ClientMemory:
        """Add a round.

        Parameters
        ----------
        clients : tuple of k ints
            Ids of the clients of this round.
        gram : ndarray of shape (k, k)
            Inner products of their updates.
        weights : ndarray of shape (k,)
            Weights of the mean that the updates are centred about.
        decay : float, default=0.9
            Factor of what is remembered, for each round.
        """
        return self.update(clients, _cosines(gram, weights), decay)

    def similarities(self, clients: tuple[int, ...]) -> FloatArray:
        """Mean cosines of some of the clients (k, k); zero for two that never shared a round, one on the diagonal."""
        similar = self.means(clients)
        np.fill_diagonal(similar, 1.0)
        return similar

    def trust(self, clients: tuple[int, ...], weights: FloatArray) -> FloatArray:
        """Trust in clients (k,): 0 for the lighter of two camps among those known for long enough, 1 for all others."""
        trust = np.ones(len(clients))
        known = np.flatnonzero(self.visits_of(clients) >= limits.CAMP_VISITS)
        if len(known) > 2:
            similar = self.similarities(tuple(clients[i] for i in known))
            trust[known] = larger_camp(similar, weights[known])
        return trust


def larger_camp(similarities: FloatArray, weights: FloatArray) -> FloatArray:
    """Find two camps by the signs of the top eigenvector, if its eigenvalue stands out.

    Parameters
    ----------
    similarities : ndarray of shape (k, k)
        Symmetric, k of at least 2.
    weights : ndarray of shape (k,)
        Weights of the clients.

    Returns
    -------
    members : ndarray of shape (k,)
        1 for members of the camp with more weight, 0 for those of the other; all 1 where there are no camps, and where
        both have the same weight.

    Examples
    --------
    >>> larger_camp(np.array([[1.0, 0.9, -0.8], [0.9, 1.0, -0.8], [-0.8, -0.8, 1.0]]), np.ones(3))
    array([1., 1., 0.])
    """
    values, vectors = np.linalg.eigh(similarities)
    side = vectors[:, -1] > 0.0
    heavier = float(weights[side].sum()) - 0.5 * float(weights.sum())
    if values[-1] < limits.CAMP_GAP * values[-2] or heavier == 0.0:
        return np.ones(len(weights))
    members: FloatArray = (side == (heavier > 0.0)).astype(np.float64)
    return members


def _cosines(gram: FloatArray, weights: FloatArray) -> FloatArray:
    """Cosines of rows about their weighted mean, zero for a row at the mean."""
    centring = np.eye(len(gram)) - weights / weights.sum()
    products = centring @ gram @ centring.T
    norms = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    inverse = np.divide(1.0, norms, out=np.zeros(len(gram)), where=norms > 0.0)
    cosines: FloatArray = np.clip(products * inverse * inverse[:, None], -1.0, 1.0)
    return cosines
