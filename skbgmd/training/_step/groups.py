"""A batch and its groups of samples: their weights, shares of losses, and sums over them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import get_len, unpack_data
from skorch.utils import multi_indexing
from torch.utils._pytree import tree_leaves

from skbgmd._utils import limits
from skbgmd._utils.slices import Slices, even_slices
from skbgmd._utils.transfer import on_device
from skbgmd.training._losses import mean_weight, of_samples, target_weights


class GroupedBatch:
    """A batch whose samples are in groups, each of which gives a row.

    Parameters
    ----------
    batch : tuple
        Samples and targets. One of :class:`skbgmd.training.ArrayLoader` may have groups of its own, the clients'.
    group_size : int or None
        Otherwise groups hold at most so many samples, and are of sizes as equal as can be; None: one group.
    criterion : loss, default=None
        The loss that is trained by.

    Attributes
    ----------
    X, y : tensors, or tensors in containers
        Samples and targets.
    weight : tensor of shape (n,), or None
        Weights of the samples.
    positions : ndarray of shape (n,), or None
        Their places in the dataset.
    slices : Slices
        The samples of each of g groups.
    n_samples : int
        Samples in the batch.
    has_clients : bool
        Groups are those that came with the batch.
    clients : tuple, or None
        Client of each group, where that is known.
    summed : bool
        The criterion adds losses up, rather than to take their mean.
    divisor : tensor, or None
        Mean weight of the targets by the criterion, which all losses are divided by; None: one.
    prior, tilted : ndarray of shape (g,), or None
        Factors of the groups' weights in the rule, by what is remembered of them and by their losses; None: one.
    """

    def __init__(self, batch: Any, group_size: int | None, criterion: Any = None) -> None:
        self.X, self.y = unpack_data(batch)
        self.weight: torch.Tensor | None = getattr(batch, "weight", None)
        self.positions: NDArray[np.int64] | None = getattr(batch, "positions", None)
        given: list[slice] | None = getattr(batch, "slices", None)
        self.has_clients = given is not None
        self.clients: tuple[Any, ...] | None = getattr(batch, "clients", None)
        self._items, self._collate = getattr(batch, "items", None), getattr(batch, "collate", None)
        if given is None:
            n = _count(self.X, self.y) if self.positions is None else len(self.positions)
            self.slices = even_slices(n, 1 if group_size is None else -(-n // group_size))
        else:
            self.slices = Slices(given)
        self.n_samples = int(self.slices[-1].stop)
        self.prior: NDArray[np.float64] | None = None
        self.tilted: NDArray[np.float64] | None = None
        self.summed = getattr(criterion, "reduction", "mean") == "sum"
        self.take_targets(self.y, criterion)

    def take_targets(self, y: Any, criterion: Any) -> None:
        """Go on with these targets, and the weights that the criterion gives them."""
        self.y, self._target_weights = y, target_weights(criterion, y)
        self.divisor = None if self.summed else mean_weight(self._target_weights, self.weight)

    def inputs(self, part: slice) -> Any:
        """X of some of the samples; made of them again where only a function of the user's own knows where they are."""
        if self._items is None or self._collate is None:
            if self.positions is None:
                self._refuse_other_axes()
            return multi_indexing(self.X, part)
        return self._collate(self._items[part])[0]

    def _refuse_other_axes(self) -> None:
        """Refuse inputs that samples can't be taken of by their first axis."""
        shapes = [tuple(part.shape) for part in tree_leaves(self.X) if isinstance(part, torch.Tensor)]
        if any(shape[:1] != (self.n_samples,) for shape in shapes):
            raise ValueError(
                f"X must have the samples of a batch along the first axis of each input (batch_first=True), where each "
                f"group has a pass of its own; found shapes {', '.join(map(str, shapes))} for {self.n_samples} samples."
            )

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Summed weights of the samples of each group, (g,); their number, where they have none."""
        if self.weight is None:
            return self.slices.lengths.astype(np.float64)
        of_sample = self.weight.cpu().numpy().astype(np.float64)
        return np.array([of_sample[part].sum() for part in self.slices])

    @property
    def are_equal(self) -> bool:
        """Groups are known to have equal weights: of as many samples, which have none of their own."""
        return self.weight is None and self.slices.shortest == self.slices.longest

    @property
    def counts(self) -> bool:
        """Some of the samples have weight."""
        return self.weight is None or bool(self.weights.any())

    @cached_property
    def relative_weights(self) -> NDArray[np.float64]:
        """Weights of the groups (g,), the largest of them one; all zero where none has weight."""
        weights = np.ones(len(self.slices)) if self.are_equal else self.weights
        return relative_weights(weights, self.prior, self.tilted)

    def tilt(self, losses: torch.Tensor, tilt: float) -> None:
        """Let groups weigh by their mean losses (g,), see :func:`tilted_weights`."""
        if tilt != 0.0:
            self.tilted = tilted_weights(self.unweighted(losses), tilt)

    def unweighted(self, losses: torch.Tensor) -> torch.Tensor:
        """Mean losses (g,) of the groups without the weights of their targets, for one output.

        NaN where no target of a group counts: that its loss is zero says nothing of it.
        """
        values = losses.detach()
        if self.divisor is not None:
            values = values.double() * self.divisor.to(values.device)
        if self._target_weights is not None:
            means = self._target_weights.view(self.n_samples, -1).mean(dim=1).to(values.device)
            of_group = self.sums(means) / on_device(self.slices.lengths, values.device)
            values = values.double() / torch.where(of_group > 0.0, of_group, torch.nan)
        elif self.summed and isinstance(self.y, torch.Tensor) and self.y.is_floating_point():
            values = values.double() / (self.y.numel() / self.n_samples)
        return values

    def shares(self, losses: torch.Tensor) -> torch.Tensor:
        """Share of each sample's losses, of losses (n, ...), in its group's mean, (n,)."""
        losses = of_samples(losses, self.n_samples, summed=self.summed)
        factors = self._share_factors(losses)
        return losses if factors is None else losses * factors

    def shared(self, gradient: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Gradient of the summed shares, from the gradient (n, ...) of summed losses (n, ...)."""
        parts, factors = 1 if self.summed else losses.numel() // self.n_samples, self._share_factors(losses)
        gradient = gradient if parts == 1 else gradient / parts
        return gradient if factors is None else gradient * factors.view(-1, *[1] * (gradient.ndim - 1))

    def _share_factors(self, like: torch.Tensor) -> torch.Tensor | None:
        """Factors (n,), or (1,), by which losses of samples become shares of their groups' means; None: all are one."""
        inverse = None if self.divisor is None else 1.0 / self.divisor.to(like)
        if self.weight is None and self.slices.longest == 1:
            return None if inverse is None else inverse.view(1)
        factors = self._relative_to_groups
        if (factors.device, factors.dtype) != (like.device, like.dtype):
            factors = self._relative_to_groups = on_device(factors, like.device, like.dtype)
        return factors if inverse is None else factors * inverse

    @cached_property
    def _relative_to_groups(self) -> torch.Tensor:
        """Weights of the samples in shares of their groups' (n,); of the dtype and on the device they were last for."""
        lengths = self.slices.lengths
        equal = 1.0 / np.repeat(lengths, lengths)
        if self.weight is None:
            return torch.from_numpy(equal)
        of_group, of_sample = np.repeat(self.weights, lengths), self.weight.cpu().numpy().astype(np.float64)
        # A group without weight has its own mean all the same: it is the rule that it doesn't count for.
        return torch.from_numpy(np.divide(of_sample, of_group, out=equal, where=of_group > 0.0))

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums of values (n,) over each group, (g,)."""
        if self.slices.longest == 1:
            return values
        if self.slices.shortest == self.slices.longest:
            return values.view(len(self.slices), -1).sum(dim=1)
        return torch.stack([values[part].sum() for part in self.slices])

    def mean(self, losses: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the groups' losses (g,)."""
        if self.are_equal or self.weights.min() == self.weights.max():
            return losses.mean()
        return losses @ torch.from_numpy(self.weights / self.weights.sum()).to(losses)


def tilted_weights(losses: torch.Tensor, tilt: float) -> NDArray[np.float64] | None:
    r"""Weights :math:`e^{-tilt \cdot loss}` by losses (g,), the largest weight one; None where no loss is a number.

    The gradient of a tilted loss [1]_, and for minus a log-probability p that of generalized cross-entropy [2]_,
    whose weight is :math:`p^{tilt}`. A loss that isn't a number says nothing.

    References
    ----------
    .. [1] Li, Beirami, Sanjabi and Smith (2021). Tilted empirical risk minimization. ICLR.
    .. [2] Zhang and Sabuncu (2018). Generalized cross entropy loss for training deep neural networks with noisy
       labels. NeurIPS.
    """
    values = losses.double().cpu().numpy()
    known = np.isfinite(values)
    if not known.any():
        return None
    with np.errstate(under="ignore"):
        weights = np.exp(-tilt * (np.where(known, values, values[known].min()) - values[known].min()))
    tilted: NDArray[np.float64] = np.maximum(weights, limits.LEAST_PRIOR)
    return tilted


def relative_weights(weights: NDArray[np.float64], *factors: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Weights (g,) times factors (g,), where there are any, the largest of them one; all zero where they are."""
    for factor in factors:
        weights = weights if factor is None else weights * factor
    largest = weights.max()
    relative: NDArray[np.float64] = weights / largest if largest > 0.0 else np.zeros_like(weights)
    return relative


def _count(X: Any, y: Any) -> int:
    """Samples of a batch: its targets, where they are a tensor; X may have other axes first, such as time."""
    return len(y) if isinstance(y, torch.Tensor) and y.ndim else int(get_len(X))


def pieces(part: slice, parts: int) -> list[slice]:
    """A group cut into so many parts, as equal as can be."""
    n = part.stop - part.start
    return [slice(part.start + piece.start, part.start + piece.stop) for piece in even_slices(n, min(parts, n))]


def is_sorted(y: Any, group_size: int, *, binary: bool = False) -> bool:
    """True if targets (n,) of a batch are sorted by class, with each class in a group of its own.

    Shuffled ones are hardly ever: of the orders of 16 samples and more, with four of a class at least, less than one
    in 900 is. Numbers, (n,) or (n, 1), are classes where the loss is ``binary``, of two classes by one output.
    """
    if not isinstance(y, torch.Tensor) or y.ndim == 0 or len(y) < 16:
        return False
    if binary and y.is_floating_point() and y.numel() == len(y):
        y = y.flatten() > 0.5
    if y.is_floating_point() or y.ndim != 1:
        return False
    classes, counts = torch.unique(y, return_counts=True)
    runs = 1 + int((y[1:] != y[:-1]).sum())
    return 1 < len(classes) == runs and int(counts.min()) >= max(group_size, 4)
