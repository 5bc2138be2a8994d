"""Memory of clients: how alike their updates were over the rounds, and whether they fall into two camps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.remembered_products import RememberedProducts


@dataclass(frozen=True)
class ClientMemory(RememberedProducts):
    r"""Remember the cosines between clients' updates, averaged over the rounds that two clients shared.

    Of one round's Gram matrix K and the mean's weights a (adding up to one), the cosines of the centred updates

    .. math:: C = D^{-1/2} P D^{-1/2}, \quad P = (I - 1 a^T) K (I - a 1^T), \quad D = \operatorname{diag}(P)

    are added up with decay, and so are those about zero, with K in place of P. Honest noise averages out over rounds;
    what an attack adds in each round does not.

    If the updates of most clients are shorter than 0.6 times the longest update that each has sent, the round isn't
    added, and the memory stays as it is (:func:`has_converged`). Updates of honest clients get shorter as the network
    comes to fit their samples. What remains of the updates adds up to nothing, and of vectors that add up to zero any
    two halves are opposed. If camps pull in different directions, updates stay long. Clients that turn hostile later
    show in cosines about the mean of all rounds, which don't depend on the sum: if camps stand out of these, the round
    is added.

    A client is judged once the weights of its rounds add up to 2.5 (:meth:`trust`); the weight of a round decays the
    longer ago it was. For a client that takes part in every m-th round, the weights add up to at most
    :math:`1 / (1 - \lambda^m)` with the decay :math:`\lambda`. So with a decay of 0.6 or less no client is ever judged
    (:func:`can_judge`), and with 0.9 no client that takes part in every fifth round or more rarely.

    A client whose weights of rounds add up to less than 0.001 is forgotten. So are, of more than a thousand clients,
    those that took part least, if they are more than can be judged at once (:func:`n_remembered`).

    Attributes
    ----------
    ids, products, visits
        As of :class:`skbgmd.aggregators.remembered_products.RememberedProducts`.
    about_zero : RememberedProducts
        Cosines about zero.
    every_round : RememberedProducts
        Cosines about the mean, of all rounds.
    longest : dict of int to float
        Length of each client's longest update.

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

    about_zero: RememberedProducts = field(default_factory=RememberedProducts)
    every_round: RememberedProducts = field(default_factory=RememberedProducts)
    longest: dict[int, float] = field(default_factory=dict)

    def add_round(
        self,
        clients: tuple[int, ...],
        gram: FloatArray,
        weights: FloatArray,
        decay: float = 0.9,
        lengths: FloatArray | None = None,
    ) -> ClientMemory:
        """Add a round.

        Parameters
        ----------
        clients : tuple of k ints
            Ids of the clients of this round.
        gram : ndarray of shape (k, k)
            Inner products of their updates, about zero.
        weights : ndarray of shape (k,)
            Weights of the mean that the updates are centred about.
        decay : float, default=0.9
            Factor by which the memory decays in each round; clients are judged only if it is more than 0.6.
        lengths : ndarray of shape (k,), default=None
            Norms of the updates, in a unit that is the same in all rounds. None: every round is added.
        """
        about_mean, most = _cosines(_centered(gram, weights)), n_remembered(len(clients), decay)
        before = self if lengths is None else self._with_lengths(clients, lengths)
        every_round = self.every_round.update(clients, about_mean, decay)
        before = replace(before, every_round=every_round.of_most_visits(most))
        short = lengths is not None and has_converged(lengths, before.longest_of(clients), weights)
        if short and before._trust_by_every_round(clients, weights).all():
            return before
        after = before.update(clients, about_mean, decay).of_most_visits(most)
        about_zero = before.about_zero.update(clients, _cosines(gram), decay)
        return replace(after, about_zero=about_zero.of_most_visits(most))

    def longest_of(self, clients: tuple[int, ...]) -> FloatArray:
        """Lengths of the longest updates (k,) of some of the clients, zero for those that aren't known."""
        return np.array([self.longest.get(client, 0.0) for client in clients])

    def _with_lengths(self, clients: tuple[int, ...], lengths: FloatArray) -> ClientMemory:
        here = dict(zip(clients, np.maximum(self.longest_of(clients), lengths).tolist(), strict=True))
        known = {client: self.longest[client] for client in self.ids if client in self.longest}
        return replace(self, longest=known | here)

    def similarities(self, clients: tuple[int, ...]) -> FloatArray:
        """Mean cosines of some of the clients (k, k); zero for two that never shared a round, one on the diagonal."""
        return _with_unit_diagonal(self.means(clients))

    def trust(self, clients: tuple[int, ...], weights: FloatArray) -> FloatArray:
        """Trust in clients (k,): 0 for the smaller of two camps among those known for long enough, 1 for all others.

        Camps are the first that are found of

        1. those of :func:`larger_camp`;
        2. those of :func:`opposed_camps`, if the cosine between their means is below -0.3;
        3. those of :func:`larger_camp` in all rounds, by an eigenvalue of 2.5 times the second.

        Clients without weight are trusted.

        No client is left out unless the camp that stays has more than half of all k clients that have weight, known or
        not. The known clients alone would not do: clients that are in every round are known before others, and so may
        be most of the known ones. So

        - if fewer than half are hostile, and no camp has both hostile and honest clients, more than half of those that
          stay are honest: the camp that stays, of more than k / 2, is too large to be hostile;
        - if fewer than a quarter are hostile, more than half of those that stay are honest, whoever sides with whom:
          more than k / 2 clients stay.
        """
        trust = np.ones(len(clients))
        known, some, weight = _known_for_long(self, clients, weights)
        n_clients = int(np.count_nonzero(weights > 0.0))
        if len(known) > 2:
            members = larger_camp(self.similarities(some), n_clients)
            # A memory that was saved without cosines about zero has to learn them.
            if members.all() and self.about_zero.visits_of(some).min() >= limits.CAMP_VISITS:
                conflict, side = opposed_camps(_with_unit_diagonal(self.about_zero.means(some)), weight)
                members = majority(side, n_clients) if conflict < limits.CAMP_CONFLICT else members
            trust[known] = members
        return self._trust_by_every_round(clients, weights) if trust.all() else trust

    def _trust_by_every_round(self, clients: tuple[int, ...], weights: FloatArray) -> FloatArray:
        """Trust (k,) by cosines about the mean of all rounds."""
        trust = np.ones(len(clients))
        known, some, _ = _known_for_long(self.every_round, clients, weights)
        if len(known) > 2:
            means, n_clients = _with_unit_diagonal(self.every_round.means(some)), int(np.count_nonzero(weights > 0.0))
            trust[known] = larger_camp(means, n_clients, limits.LATE_CAMP_GAP)
        return trust


def can_judge(decay: float) -> bool:
    """Say whether rounds with a decay can add up to so many that clients are judged: more than 0.6 is needed.

    Examples
    --------
    >>> can_judge(0.6), can_judge(0.61)
    (False, True)
    """
    return decay > 1.0 - 1.0 / limits.CAMP_VISITS


def n_remembered(n_clients: int, decay: float) -> int:
    r"""Number of clients to remember, by the number n of those of a round: as many as can be judged at once.

    With the decay :math:`\lambda` the rounds of all clients add up to at most :math:`n / (1 - \lambda)`, and a client
    that is judged has 2.5 of them. Where a round has few of very many clients, most of them never come to that.

    Examples
    --------
    >>> n_remembered(10, 0.9), n_remembered(1000, 0.9)
    (1000, 4000)
    """
    return max(limits.REMEMBERED_CLIENTS, n_clients, round(n_clients / ((1.0 - decay) * limits.CAMP_VISITS)))


def has_converged(lengths: FloatArray, longest: FloatArray, weights: FloatArray) -> bool:
    """Say if the updates of more than half of the clients are shorter than 0.6 times each client's longest.

    Fewer than half of the clients can't bring this about alone, however short or long their updates are.

    Parameters
    ----------
    lengths, longest : ndarray of shape (k,)
        Norms of the updates of this round, and of the longest one that each client has sent.
    weights : ndarray of shape (k,)
        Clients without weight don't count; all others count alike.

    Examples
    --------
    >>> has_converged(np.array([0.5, 0.4, 2.0]), np.array([1.0, 1.0, 2.0]), np.ones(3))
    True
    """
    counted = weights > 0.0
    short = lengths[counted] < limits.SHORT_UPDATE * longest[counted]
    return bool(2 * short.sum() > counted.sum())


@one_thread_of_products()
def larger_camp(similarities: FloatArray, n_clients: int, gap: float = limits.CAMP_GAP) -> FloatArray:
    """Find two camps by the signs of the top eigenvector, if its eigenvalue stands out.

    Parameters
    ----------
    similarities : ndarray of shape (k, k)
        Symmetric, k of at least 2.
    n_clients : int
        Number of all clients, at least k.
    gap : float, default=2.0
        Ratio of the two largest eigenvalues from which the first stands out.

    Returns
    -------
    members : ndarray of shape (k,)
        1 for members of the larger camp (:func:`majority`), 0 for those of the other; all 1 where there are no camps,
        or where neither has more than half of all clients.

    Examples
    --------
    >>> similar = np.array([[1.0, 0.9, -0.8], [0.9, 1.0, -0.8], [-0.8, -0.8, 1.0]])
    >>> larger_camp(similar, 3), larger_camp(similar, 5)
    (array([1., 1., 0.]), array([1., 1., 1.]))
    """
    values, vectors = np.linalg.eigh(similarities)
    if values[-1] < gap * values[-2]:
        return np.ones(len(similarities))
    return majority(vectors[:, -1] > 0.0, n_clients)


@one_thread_of_products()
def opposed_camps(cosines: FloatArray, weights: FloatArray) -> tuple[float, BoolArray]:
    r"""Find the two camps, of at least two clients each, whose mean updates are most opposed.

    With the cosines C of updates of unit length, weights w and the means a and b over the two camps, it looks for the
    least

    .. math:: \frac{a^T C b}{\sqrt{a^T C a \; b^T C b}}.

    The camps begin as the signs of each of the top two eigenvectors of the cosines about the mean, and the client that
    lowers it most changes sides until none does. At most 2 k changes of O(k²) each follow the eigenvectors.

    Parameters
    ----------
    cosines : ndarray of shape (k, k)
        About zero, with ones on the diagonal.
    weights : ndarray of shape (k,)
        Positive weights of the clients.

    Returns
    -------
    conflict : float
        The cosine between the means; 1 for fewer than four clients.
    side : ndarray of shape (k,), bool
        Which clients are in the first camp.

    Examples
    --------
    Three clients, of which the last two differ, and three that send the opposite:

    >>> alike = np.array([[1.0, 0.6, 0.6], [0.6, 1.0, 0.0], [0.6, 0.0, 1.0]])
    >>> conflict, side = opposed_camps(np.kron(np.array([[1.0, -0.8], [-0.8, 1.0]]), alike), np.ones(6))
    >>> round(conflict, 2), len(set(side[:3].tolist())), bool(side[0] == side[3])
    (-0.8, 1, False)
    """
    n, share = len(weights), weights / weights.sum()
    deepest, camp = 1.0, np.ones(n, dtype=bool)
    if n < 2 * limits.LEAST_CAMP:
        return deepest, camp
    vectors = np.linalg.eigh(_cosines(_centered(cosines, weights)))[1]
    for vector in vectors[:, : -1 - limits.CAMP_STARTS : -1].T:
        side = vector > 0.0
        for _ in range(2 * n):
            conflict, *changed = _conflicts(cosines, share, side)
            if conflict < deepest:
                deepest, camp = conflict, side
            best = int(np.argmin(changed))
            # What is left of rounding isn't a difference.
            if changed[best] >= conflict - limits.LEAST_STRENGTH:
                break
            side = side ^ (np.arange(n) == best)
    return deepest, camp


def majority(side: BoolArray, n_clients: int) -> FloatArray:
    """Members of the camp with more than half of all clients, known or not, as ones and zeros (k,).

    All are ones where neither has as many: a camp of half of the clients or fewer may be hostile. Weights are what
    clients claim, and don't count: those that lie may have most of it while they are fewer than half.
    """
    for camp in (side, ~side):
        if 2 * camp.sum() > n_clients:
            return camp.astype(np.float64)
    return np.ones(len(side))


def _conflicts(cosines: FloatArray, share: FloatArray, side: BoolArray) -> list[float]:
    """Cosine between the means of two camps, and what it is once each client has changed sides; 1 for small camps."""
    within, beyond = np.where(side, share, 0.0), np.where(side, 0.0, share)
    to_camp, to_others = cosines @ within, cosines @ beyond
    moved, stay = np.where(side, share, -share), np.zeros(1)
    square = np.concatenate((stay, moved * moved * np.diagonal(cosines)))
    moved, to_camp, to_others = (np.concatenate((stay, each)) for each in (moved, to_camp, to_others))
    squares = within @ cosines @ within - 2.0 * moved * to_camp + square
    others = beyond @ cosines @ beyond + 2.0 * moved * to_others + square
    product = within @ cosines @ beyond + moved * (to_camp - to_others) - square
    conflicts = product / np.sqrt(np.maximum(squares * others, limits.LEAST_STRENGTH**2))
    # A camp without weight, or whose updates add up to nothing, is in conflict with nobody. Cosines of different rounds
    # may even give it a negative square.
    conflicts[np.minimum(squares, others) < limits.LEAST_STRENGTH**2] = 0.0
    size = side.sum() - np.concatenate((stay, np.where(side, 1, -1)))
    conflicts[np.minimum(size, len(side) - size) < limits.LEAST_CAMP] = 1.0
    return [float(conflict) for conflict in conflicts]


def _known_for_long(
    memory: RememberedProducts, clients: tuple[int, ...], weights: FloatArray
) -> tuple[NDArray[np.intp], tuple[int, ...], FloatArray]:
    """Places, ids and weights of those among clients with weight that were there in three rounds at least."""
    known = np.flatnonzero((memory.visits_of(clients) >= limits.CAMP_VISITS) & (weights > 0.0))
    return known, tuple(clients[i] for i in known), weights[known]


def _with_unit_diagonal(means: FloatArray) -> FloatArray:
    np.fill_diagonal(means, 1.0)
    return means


def _centered(products: FloatArray, weights: FloatArray) -> FloatArray:
    """Inner products of rows about their weighted mean."""
    centring = np.eye(len(products)) - weights / weights.sum()
    centered: FloatArray = centring @ products @ centring.T
    return centered


def _cosines(products: FloatArray) -> FloatArray:
    """Cosines of rows, zero for a row of no length."""
    norms = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    inverse = np.divide(1.0, norms, out=np.zeros(len(products)), where=norms > 0.0)
    cosines: FloatArray = np.clip(products * inverse * inverse[:, None], -1.0, 1.0)
    return cosines
