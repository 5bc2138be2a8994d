"""BRIDGE, Byzantine-resilient decentralized gradient descent: no master, each node screens its neighbors' models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from skbgmd._utils.checks import check_integer, check_number
from skbgmd.aggregators import Aggregator, TrimmedMean, get_aggregator
from skbgmd.distributed.buckets import described
from skbgmd.distributed.exchange import Exchange
from skbgmd.distributed.faults import telling_others
from skbgmd.distributed.ranks import plain_ranks, refuse_ranks, settings_of
from skbgmd.distributed.rsa import RankOptimizer, check_models
from skbgmd.rows import DenseRows


class Bridge(RankOptimizer):
    r"""Train on ranks that exchange models with their neighbors in a graph, some of them hostile: BRIDGE.

    It is decentralized: there is no master, and no collective after the first step. In each step a node j sends its
    model to its neighbors and screens theirs, coordinate by coordinate: it leaves out the b largest and the b smallest
    values of its :math:`n_j` neighbors. It averages the rest with its own model, and then follows its own gradient:

    .. math::
        x_j \leftarrow \frac{1}{n_j - 2b + 1} \Bigl(x_j + \sum_{i \in \text{kept}} x_i\Bigr) - \eta \nabla f_j(x_j)

    The method is that of Yang and Bajwa (2019), "BRIDGE: Byzantine-resilient decentralized gradient descent".

    Use it if no rank is trusted to coordinate, or if links are few.

    - Cost: each rank sends its parameters once to each neighbor, however many ranks there are, and holds :math:`n_j`
      models. An all-reduce sends the parameters twice in all, so more than two neighbors cost more than an all-reduce.
    - Agreement spreads along the graph: the larger its diameter, the later ranks agree. With a constant learning rate
      they agree only up to the size of steps.
    - If the ranks' data are unlike, they agree on a model near the minimizer of the mean loss rather than on the
      minimizer, because screening leaves out honest models as well.

    Parameters
    ----------
    params : iterable
        Parameters of this rank's model, of one dtype and in the same order on all ranks.
    neighbors : sequence of sequences of int
        For each rank, the ranks that it receives from, without itself; the same on all ranks.
    lr : float, default=0.01
        Learning rate η, which may differ between ranks; a scheduler of torch may change it. The authors' learning rate
        falls as 1 / step.
    n_hostile : int, default=1
        Number b of hostile neighbors to withstand. Each rank must have 2b + 1 neighbors or more.
    rule : str or Aggregator, default=None
        None: screening by the trimmed mean, as above (BRIDGE-T). Otherwise a rule without state that aggregates the
        neighbors' models and the rank's own model, which comes last; all of them count alike. "coordinate_median" is
        BRIDGE-M, "krum" is BRIDGE-K.
    group : ProcessGroup, default=None
        Ranks that take part. None: all of them.

    Attributes
    ----------
    exchange : Exchange
        The ranks. ``exchange.traffic.sent`` has the number of bytes that this rank has sent.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range, or if the graph isn't of as many ranks, has a rank with too few neighbors,
        or falls apart (:func:`check_graph`). In the first step, and after parameters were added, on all ranks: if
        shapes or dtypes of parameters, ``neighbors``, ``n_hostile`` or the rule differ between ranks.
    RankLostError
        In a step: if a rank doesn't answer, or has parameters that the others don't have.

    Notes
    -----
    2b + 1 neighbors are necessary, but not enough for all graphs: honest ranks must agree whichever b neighbors each
    of them leaves out. They do in complete graphs of 3b + 1 ranks or more, and in dense random graphs.

    A rank whose own model is no longer finite goes on from its neighbors' models. ``torch.amp.GradScaler`` doesn't work
    with it: it skips a step of one rank alone, for which the others wait.

    A deep copy has the same group. The group isn't pickled: an unpickled optimizer takes part in the default group,
    unless its ``exchange`` is set.

    Examples
    --------
    Each rank knows its neighbors and its own data; here a ring with chords, of seven ranks:

    >>> from skbgmd.distributed.bridge import check_graph
    >>> neighbors = [[(rank + step) % 7 for step in (-2, -1, 1, 2)] for rank in range(7)]
    >>> check_graph(neighbors, 7, n_hostile=1)

    .. code-block:: python

        optimizer = Bridge(model.parameters(), neighbors, lr=0.1, n_hostile=1)
        loss(model(X), y).backward()
        optimizer.step()
    """

    _kept = ("rule", "n_hostile", "sources", "targets", "_neighbors", "_compared")

    def __init__(
        self,
        params: Iterable[Any],
        neighbors: Sequence[Sequence[int]],
        lr: float = 0.01,
        n_hostile: int = 1,
        rule: str | Aggregator | None = None,
        group: Any = None,
    ) -> None:
        self.exchange = Exchange(group)
        with telling_others(self.exchange.group):
            check_number(lr, "lr")
            check_graph(neighbors, self.exchange.size, n_hostile)
            self.rule = None if rule is None else get_aggregator(rule)
            refuse_ranks(self.rule, "rule")
            super().__init__(params, {"lr": lr})
        own = self.exchange.rank
        self.n_hostile, self.sources = n_hostile, list(neighbors[own])
        self._neighbors = [sorted(map(int, theirs)) for theirs in neighbors]
        #: What the ranks have compared.
        self._compared: dict[str, Any] = {}
        self.targets = [rank for rank, theirs in enumerate(neighbors) if own in theirs]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with a learning rate of their own; on all ranks before the next step."""
        with telling_others(self.exchange.group):
            super().add_param_group(param_group)
            try:
                check_number(self.param_groups[-1]["lr"], "lr")
                dtypes = {parameter.dtype for parameter, _ in self._each()}
                if len(dtypes) > 1:
                    raise ValueError(f"params must have one dtype; found {', '.join(sorted(map(str, dtypes)))}.")
            except (TypeError, ValueError):
                self.param_groups.pop()
                raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step together with the neighbors.

        Parameters
        ----------
        closure : callable, default=None
            Computes the loss and its gradients, as for other optimizers of torch.
        """
        loss = self._loss_of(closure)
        parameters = [parameter for parameter, _ in self._each()]
        self._compare(parameters)
        own = torch.cat([parameter.detach().flatten() for parameter in parameters])
        received = self.exchange.swap(own, self.sources, self.targets)
        screened = screen(own, received, self.n_hostile, self.rule)
        parts = torch.split(screened, [parameter.numel() for parameter in parameters])
        for (parameter, lr), part in zip(self._each(), parts, strict=True):
            parameter.copy_(part.view_as(parameter))
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=lr)
        return loss

    def _compare(self, parameters: Sequence[torch.Tensor]) -> None:
        """Compare with all ranks what must be the same on them, in the first step and after it has changed."""
        found: dict[str, Any] = {
            "shapes of params": [described(parameter) for parameter in parameters],
            "neighbors": self._neighbors,
            "n_hostile": self.n_hostile,
            **({"rule": None} if self.rule is None else settings_of(self.rule, "rule")),
        }
        if found != self._compared:
            plain_ranks(self.exchange.group).check_same(found, "What is set in Bridge")
            self._compared = found

    def _each(self) -> list[tuple[torch.Tensor, float]]:
        return [(parameter, group["lr"]) for group in self.param_groups for parameter in group["params"]]


def bridge_step(
    models: torch.Tensor,
    gradients: torch.Tensor,
    neighbors: Sequence[Sequence[int]],
    *,
    lr: float,
    n_hostile: int = 1,
    rule: str | Aggregator | None = None,
) -> torch.Tensor:
    """Take a step of BRIDGE for all nodes in one process.

    Parameters
    ----------
    models : tensor of shape (n, d)
        Model of each node; those of hostile nodes may hold anything.
    gradients : tensor of shape (n, d)
        Gradient of each node's loss at its model.
    neighbors, lr, n_hostile, rule
        As in :class:`Bridge`.

    Returns
    -------
    models : tensor of shape (n, d)
        Model of each node after the step.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range; if gradients have another shape than the models; or if the graph isn't of as
        many nodes, has a node with too few neighbors, or falls apart (:func:`check_graph`).
    """
    check_number(lr, "lr")
    check_models(models, "models", gradients)
    check_graph(neighbors, len(models), n_hostile)
    aggregator = None if rule is None else get_aggregator(rule)
    refuse_ranks(aggregator, "rule")
    screened = [
        screen(own, models[list(theirs)], n_hostile, aggregator) for own, theirs in zip(models, neighbors, strict=True)
    ]
    return torch.stack(screened) - lr * gradients


def screen(own: torch.Tensor, received: torch.Tensor, n_hostile: int, rule: Aggregator | None = None) -> torch.Tensor:
    """Screen the models of neighbors, and average those that are left with a node's own.

    Models of neighbors with NaN or inf are left out, and count among the hostile ones. A node whose own model has them
    takes the average of its neighbors'.

    Parameters
    ----------
    own : tensor of shape (d,)
        Model of the node.
    received : tensor of shape (m, d)
        Models of its neighbors.
    n_hostile : int
        Number of values to leave out at either end of each coordinate.
    rule : Aggregator, default=None
        Rule that aggregates the neighbors' models and the node's own, which is the last row. None: the values that are
        left of the neighbors', averaged with the node's own.

    Returns
    -------
    tensor of shape (d,)
        The average.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.distributed.bridge import screen
    >>> screen(torch.tensor([2.0]), torch.tensor([[1.0], [3.0], [4.0], [1e9]]), n_hostile=1)
    tensor([3.])
    """
    if rule is not None:
        return rule(DenseRows(torch.cat([received, own[None]])))[0].vector.to(own.dtype)
    finite = received[torch.isfinite(received).all(dim=1)]
    n_left = max(0, n_hostile - (len(received) - len(finite)))
    n_kept = len(finite) - 2 * n_left
    if n_kept <= 0:
        return own.clone()
    kept = TrimmedMean(n_left / len(finite))(DenseRows(finite))[0].vector.to(own.dtype)
    # A node whose own step went wrong takes up its neighbors' models again.
    return torch.lerp(kept, own, 1.0 / (n_kept + 1)) if torch.isfinite(own).all() else kept


def check_graph(neighbors: Sequence[Sequence[int]], n_ranks: int, n_hostile: int) -> None:
    """Check a graph of ranks: each has enough neighbors to withstand hostile ones, and a path to all others.

    Parameters
    ----------
    neighbors : sequence of sequences of int
        For each rank, the ranks that it receives from.
    n_ranks, n_hostile : int
        Number of ranks, and number of hostile neighbors to withstand.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If the graph isn't of ``n_ranks`` ranks; if a neighbor is no other rank, or is listed twice; if a rank has fewer
        than ``2 * n_hostile + 1`` neighbors; or if ranks can't reach each other.
    """
    least = 2 * check_integer(n_hostile, "n_hostile", at_least=0) + 1
    if isinstance(neighbors, Mapping) or not all(hasattr(theirs, "__len__") for theirs in neighbors):
        raise TypeError(f"neighbors must be a sequence of sequences of integers; found {neighbors!r}.")
    if len(neighbors) != n_ranks:
        raise ValueError(f"neighbors must have a list for each of {n_ranks} ranks; found {len(neighbors)}.")
    for rank, theirs in enumerate(neighbors):
        others = {check_integer(other, "neighbors", at_least=0) for other in theirs}
        if len(others) < len(theirs) or rank in others or max(others, default=0) >= n_ranks:
            raise ValueError(f"neighbors must be other ranks, each once; found {list(theirs)} for rank {rank}.")
        if len(others) < least:
            raise ValueError(
                f"neighbors must be 2 * n_hostile + 1 = {least} ranks or more for each rank; found {len(others)} for "
                f"rank {rank}."
            )
    degrees = [len(theirs) for theirs in neighbors]
    indices = np.array([other for theirs in neighbors for other in theirs], dtype=np.int32)
    # Older csgraph takes nothing but int32, and loses the error.
    starts = np.cumsum([0, *degrees], dtype=np.int32)
    graph = csr_array((np.ones(len(indices)), indices, starts), shape=(n_ranks, n_ranks))
    n_parts, part = connected_components(graph, directed=True, connection="strong")
    if n_parts > 1:
        apart = np.flatnonzero(part == part[0]).tolist()
        raise ValueError(
            f"neighbors must connect all ranks with each other; found {n_parts} parts, of which one is {apart}."
        )
