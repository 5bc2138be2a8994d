"""Zeno: the mean of the rows that lower the loss on trusted samples most, even where most rows are corrupt."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.checks import check_integer, check_number
from skbgmd._utils.random import step_seed
from skbgmd._utils.shares import share_of
from skbgmd._utils.transfer import as_tensor
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    NonFiniteRowsError,
    check_rows,
    mean_of_selected,
    state_of,
)
from skbgmd.rows import Rows
from skbgmd.rows.means import means

#: From a displacement (d,) of the parameters to the loss there.
LossOracle = Callable[[torch.Tensor], torch.Tensor | float]


class SampleLoss(Protocol):
    """Loss of a network that is being trained on some samples, at displaced parameters."""

    @property
    def lr(self) -> float:
        """Learning rate of the training."""
        ...

    def on(self, samples: tuple[Any, Any], index: NDArray[np.intp]) -> LossOracle:
        """Mean loss on the samples of these indices, as a function of a displacement (d,)."""
        ...


_sample_loss: ContextVar[SampleLoss | None] = ContextVar("sample_loss", default=None)


@contextmanager
def with_sample_loss(loss: SampleLoss) -> Iterator[None]:
    """Offer the loss of the network that is being trained to the rules that a training step calls."""
    token = _sample_loss.set(loss)
    try:
        yield
    finally:
        _sample_loss.reset(token)


@dataclass(frozen=True)
class ZenoState(AggregatorState):
    """State of :class:`Zeno`: the number of calls so far; each call draws other trusted samples."""

    step: int = 0


class Zeno(Aggregator):
    r"""Zeno: mean of the rows that lower the loss on trusted samples most, even where most rows are corrupt.

    Use it if you have trusted samples, and half of the rows or more may be corrupt or attacks stay near the honest
    rows.

    The score of a row is the descent of a step along it, less a penalty for the row's length [1]_,

    .. math:: s_i = f(x) - f(x - \gamma g_i) - \rho \lVert g_i \rVert^2,

    where f is the mean loss on a few trusted samples, drawn afresh in each call. The rule averages the :math:`n - b`
    rows of highest score, with :math:`b = \lceil \psi n \rceil`, less than n. It compares rows with the trusted
    samples, not with each other. So it needs one honest row, not a majority, if it drops at least as many rows as are
    corrupt.

    Parameters
    ----------
    oracle : callable, default=None
        ``oracle(displacement)`` takes a tensor (d,) and returns the trusted loss at the parameters plus the
        displacement, as a number or a tensor of one. The rule calls it once for each row, with :math:`-\gamma g_i`. All
        calls for the same rows must use the same samples. None: a loss on ``trusted``.
    trusted : tuple (X, y), default=None
        Samples that are known to be good, with their targets, in place of an oracle. This works only in the training of
        an estimator or a net, which knows the loss on them. For an estimator, give targets as in ``fit``, and a data
        frame with the same columns in the same order.
    lr : float or None, default=None
        Length γ of the trial step. None: the learning rate of the training. With an ``oracle`` it must be given.
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 1).
    rho : float or None, default=None
        Weight ρ of the penalty. None: γ / 200, the ratio in the authors' experiments.
    n_trusted : int, default=32
        Number of trusted samples drawn in each call; all of them if there are fewer.
    random_state : int or None, default=None
        Seed of these draws. None: another seed in each call; a training sets one.

    Raises
    ------
    ValueError
        If both or neither of ``oracle`` and ``trusted`` are given, if ``trusted`` is used outside of a training, or if
        ``oracle`` comes without ``lr``.
    NonFiniteRowsError
        If no row is finite, or if the loss is finite after none of them: the training has diverged.

    Notes
    -----
    **Cost.** The rule takes a forward pass on ``n_trusted`` samples for each row. That is some two geometric medians
    for 34 rows of a perceptron with 100,000 parameters.

    **Limits.** The rule is as good as the trusted samples: if they lack a class, honest rows for that class are
    dropped. Rows whose loss isn't finite rank last, and rows that aren't finite get weight zero.

    **Side effects.** Copies share the oracle. For ``trusted``, networks are put into evaluation mode; afterwards
    parameters, buffers, modes and random generators are as they were.

    **Several ranks.** For rows across ranks, each rank forms all rows and evaluates the loss by itself. The ranks take
    the mean of the losses they find, so give all of them the same trusted samples. As the rule across ranks of an
    estimator, Zeno takes a network without floating-point buffers, such as those of batch normalization, on which ranks
    agree by the same rule.

    References
    ----------
    .. [1] Xie, Koyejo and Gupta (2019). Zeno: distributed stochastic gradient descent with suspicion-based
       fault-tolerance. ICML.

    Examples
    --------
    Three rows of five point uphill:

    >>> import torch
    >>> from skbgmd.aggregators import Zeno
    >>> from skbgmd.rows import DenseRows
    >>> x = torch.tensor([1.0, 2.0])  # the loss is 0.5 ||x||^2, its gradient x
    >>> rows = DenseRows(torch.stack([x, -x, -10.0 * x, 1.1 * x, -x]))
    >>> zeno = Zeno(lambda step: 0.5 * (x + step).square().sum(), lr=0.1, fraction=0.6)
    >>> aggregate, state = zeno(rows)
    >>> aggregate.vector, aggregate.weights
    (tensor([1.0500, 2.1000]), array([0.5, 0. , 0. , 0.5, 0. ]))

    In a training, with 20 samples that were checked by hand:

    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> zeno = Zeno(trusted=(X[::8], y[::8]), fraction=0.6)
    >>> model = BlockGMDClassifier(aggregator=zeno, group_size=8, random_state=0).fit(X, y)
    """

    def __init__(
        self,
        oracle: LossOracle | None = None,
        trusted: tuple[Any, Any] | None = None,
        lr: float | None = None,
        fraction: float = 0.4,
        rho: float | None = None,
        n_trusted: int = 32,
        random_state: int | None = None,
    ) -> None:
        self.oracle, self.trusted, self.lr, self.fraction = oracle, trusted, lr, fraction
        self.rho, self.n_trusted, self.random_state = rho, n_trusted, random_state

    def __call__(self, rows: Rows, state: ZenoState | None = None) -> tuple[Aggregate, ZenoState]:
        self.check_parameters()
        check_rows(rows)
        before = state_of(self, state, ZenoState)
        step = 0 if before is None else before.step
        oracle, lr = self._oracle(step)
        usable = np.flatnonzero(rows.finite & (rows.weights > 0.0))
        if not len(usable):
            raise NonFiniteRowsError(
                f"A row must be finite and of positive weight; found {int((~rows.finite).sum())} of {rows.n_rows} rows "
                f"that hold NaN or inf."
            )
        # Collectives of several ranks are in the order of the rows.
        found = [_number(oracle(-lr * _whole(rows, i))).to(rows.device) for i in usable.tolist()]
        total = rows.layout.add_up(torch.stack(found))
        losses = (total / rows.layout.n_parts).cpu().numpy()
        if not np.isfinite(losses).any():
            raise NonFiniteRowsError(
                f"The loss on trusted samples must be finite after a step along one of the rows; found NaN or inf for "
                f"all {len(usable)}."
            )
        scores = descent_scores(
            losses, rows.norms()[usable], lr / limits.ZENO_RHO_RATIO if self.rho is None else self.rho
        )
        n_dropped = min(math.ceil(share_of(self.fraction, len(usable))), len(usable) - 1)
        kept = usable[np.argsort(-scores, kind="stable")[: len(usable) - n_dropped]]
        weights = mean_of_selected(kept, rows)
        return Aggregate(means(rows, weights), weights), ZenoState(step + 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy of an oracle would look at a copy of the network, which nobody trains.
        memo[id(self.oracle)] = self.oracle
        return type(self)(**copy.deepcopy(self.get_params(deep=False), memo))

    def __sklearn_clone__(self) -> Self:
        return copy.deepcopy(self)

    def check_parameters(self) -> None:
        if (self.oracle is None) == (self.trusted is None):
            found = "neither" if self.oracle is None else "both"
            raise ValueError(f"One of oracle and trusted must be given; found {found}.")
        if self.oracle is None:
            check_trusted(self.trusted)
            if _sample_loss.get() is None:
                raise ValueError(
                    "trusted must be given to the rule of an estimator or a net, in whose training the loss is known; "
                    "found it in a call outside of a training step. Give an oracle."
                )
        elif not callable(self.oracle):
            raise TypeError(f"oracle must be callable or None; found {self.oracle!r}.")
        elif self.lr is None:
            raise ValueError("lr must be given with an oracle, which has no learning rate; found None.")
        if self.lr is not None:
            check_number(self.lr, "lr")
        if check_number(self.fraction, "fraction", at_least=0.0, at_most=1.0) == 1.0:
            raise ValueError("fraction must be less than 1: a row must be left to average; found 1.")
        if self.rho is not None:
            check_number(self.rho, "rho", at_least=0.0)
        check_integer(self.n_trusted, "n_trusted")

    def _oracle(self, step: int) -> tuple[LossOracle, float]:
        """The loss at displaced parameters, and the length of the step to try."""
        if self.oracle is not None:
            assert self.lr is not None
            return self.oracle, self.lr
        loss, trusted = _sample_loss.get(), check_trusted(self.trusted)
        assert loss is not None
        drawn = np.random.default_rng(step_seed(self.random_state, step)).permutation(len(trusted[1]))[: self.n_trusted]
        return loss.on(trusted, drawn), self.lr or loss.lr


def check_trusted(trusted: Any) -> tuple[Any, Any]:
    """Check trusted samples: a pair (X, y) of as many samples as targets, one at least."""
    parts = trusted if isinstance(trusted, (tuple, list)) else ()
    # Sparse matrices have no len.
    lengths = [part.shape[0] if hasattr(part, "shape") else len(part) for part in parts if hasattr(part, "__len__")]
    if len(lengths) != 2 or len(trusted) != 2:
        raise TypeError(f"trusted must be a pair (X, y) of samples and targets; found {type(trusted).__name__}.")
    # Tensors in containers have lengths of their own.
    if not lengths[1] or (hasattr(trusted[0], "shape") and lengths[0] != lengths[1]):
        raise ValueError(
            f"trusted must have as many samples as targets, one at least; found {lengths[0]} and {lengths[1]}."
        )
    return trusted[0], trusted[1]


def descent_scores(losses: FloatArray, norms: FloatArray, rho: float) -> FloatArray:
    r"""Scores :math:`-f(x - \gamma g_i) - \rho \lVert g_i \rVert^2` of rows; -inf for a loss that isn't finite.

    Without f(x), which all have in common.

    Parameters
    ----------
    losses, norms : ndarray of shape (n,)
        Losses after a step along each row, and norms of the rows.
    rho : float
        Weight ρ of the penalty.

    Examples
    --------
    >>> descent_scores(np.array([1.0, 1.0, np.nan]), np.array([0.0, 2.0, 0.0]), rho=0.1)
    array([-1. , -1.4, -inf])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scores: FloatArray = np.where(np.isfinite(losses), -losses - rho * norms * norms, -np.inf)
    return scores


def _number(loss: Any) -> torch.Tensor:
    """A loss as a tensor (), float64."""
    try:
        number = as_tensor(loss, torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"oracle must return a number, or a tensor of one; found {type(loss).__name__}.") from None
    if number.numel() != 1:
        raise ValueError(f"oracle must return a number, or a tensor of one; found shape {tuple(number.shape)}.")
    return number.reshape(())


def _whole(rows: Rows, index: int) -> torch.Tensor:
    """A row with the columns of all processes, in single precision at least."""
    row = rows.layout.gather(rows.row(index))
    return row.to(torch.promote_types(row.dtype, torch.float32))
