"""Inner product manipulation, of the strength that does the most harm to the rule at hand."""

from __future__ import annotations

from typing import Any

from skbgmd.corruption.gradients.inner_product import InnerProduct
from skbgmd.corruption.gradients.searched import Searched


class SearchedInnerProduct(Searched, InnerProduct):
    r"""Line-searched inner product manipulation: :math:`g \to -\epsilon \mu`, with the most harmful ε for the rule.

    As :class:`skbgmd.corruption.SearchedALittleIsEnough`, after Xie, Koyejo & Gupta (2020). Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    objective : {"progress", "deviation"}, default="progress"
        Harm to maximize.
    weakest, strongest : float, default=0.1, 100.0
        Bounds of ε, positive.
    aggregator : callable, default=None
        Rule to search against, a function from a matrix (b, d) to a vector (d,); None: that of the context.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.
    corrupt : sequence of int, default=None
        Rows that are corrupt in every call, instead of a fraction; None: drawn anew in each.
    own : bool, default=False
        Whether to shift each corrupt row's own gradient, rather than the honest mean, which all send.

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
