"""Inner product manipulation, of the strength that does the most harm to the rule at hand."""

from __future__ import annotations

from typing import Any

from skbgmd.corruption.gradients.inner_product import InnerProduct
from skbgmd.corruption.gradients.searched import Searched


class SearchedInnerProduct(Searched, InnerProduct):
    r"""Line-searched inner product manipulation: :math:`g \to -\epsilon \mu`, with the most harmful ε for the rule.

    The search is that of :class:`skbgmd.corruption.SearchedALittleIsEnough`; the attack follows Xie, Koyejo & Gupta
    (2020). It is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    objective : {"progress", "deviation"}, default="progress"
        Harm to maximize: the lost progress or the deviation.
    weakest, strongest : float, default=0.1, 100.0
        Bounds of ε, positive.
    aggregator : callable, default=None
        Rule to search against, a function from a matrix (b, d) to a vector (d,). None: the rule in the context.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the rows, unless a call passes its own. None: a fresh one each time; the global state
        is never used.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call; ``fraction`` is then ignored. None: each call draws rows anew.
    own : bool, default=False
        True: shift each corrupt row's own gradient. False: shift the honest mean, which all corrupt rows send.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import SearchedInnerProduct
    >>> def mean(rows):
    ...     return rows.mean(dim=0)
    >>> attack = SearchedInnerProduct(fraction=0.4, aggregator=mean, random_state=0)
    >>> attack(torch.tensor([[0.0], [2.0], [9.0]]))  # nothing limits the harm to a mean
    tensor([[   0.],
            [   2.],
            [-100.]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        objective: str = "progress",
        weakest: float = 0.1,
        strongest: float = 100.0,
        aggregator: Any = None,
        random_state: Any = None,
        corrupt: Any = None,
        own: bool = False,
    ) -> None:
        self.fraction, self.objective, self.aggregator = fraction, objective, aggregator
        self.weakest, self.strongest = weakest, strongest
        self.random_state, self.corrupt, self.own = random_state, corrupt, own
