"""A little is enough, of the strength that does the most harm to the rule at hand."""

from __future__ import annotations

from typing import Any

from skbgmd.corruption.gradients.a_little_is_enough import ALittleIsEnough
from skbgmd.corruption.gradients.searched import Searched


class SearchedALittleIsEnough(Searched, ALittleIsEnough):
    r"""Line-searched ALIE (optimized ALIE): :math:`g \to \mu - z \sigma`, with the most harmful z for the rule.

    Each call searches z anew, against the rule in its present state, which the context of a training supplies:

    .. math:: z = \arg\max_z \; -\frac{\langle A(z), \mu \rangle}{\lVert \mu \rVert^2}
        \quad\text{or}\quad \arg\max_z \; \lVert A(z) - \mu \rVert ,

    where A(z) is the aggregate and :math:`\mu` the honest mean. The first objective is the lost progress; the second is
    the deviation of Shejwalkar & Houmansadr (2021) and Allouah et al. (2023). The search takes a geometric grid of nine
    strengths, then two refinements about the best: 13 aggregates a call. The attack itself is that of Baruch et al.
    (2019). It is omniscient: it knows the honest rows.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]. A share of 0.5 or more raises a warning.
    objective : {"progress", "deviation"}, default="progress"
        Harm to maximize: the lost progress or the deviation.
    weakest, strongest : float, default=0.1, 100.0
        Bounds of z, positive.
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
    >>> from skbgmd import geometric_median
    >>> from skbgmd.corruption import ALittleIsEnough, SearchedALittleIsEnough
    >>> gradients = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) + 0.3
    >>> def progress(attack):
    ...     return float(geometric_median(attack(gradients)).mean() / 0.3)
    >>> searched = SearchedALittleIsEnough(fraction=0.4, aggregator=geometric_median, random_state=0)
    >>> progress(searched) < progress(ALittleIsEnough(fraction=0.4, random_state=0))
    True
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
