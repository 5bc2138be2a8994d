"""Base class of attacks on gradients, and moments and sizes of rows that attacks have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skbgmd._utils.checks import FLOATS, check_number, check_tensor, refuse_masks
from skbgmd._utils.doc_link import DocumentationLink
from skbgmd._utils.random import random_source
from skbgmd._utils.shares import share_of
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.base import Indices, draw_rows, n_corrupted, warn_at_breakdown_point


class GradientCorruption(DocumentationLink, BaseEstimator, ABC):
    r"""Base class of Byzantine attacks on the rows of a matrix of gradients; inherit and write ``_replace``.

    Each call draws :math:`\lfloor \psi b \rfloor` of the b rows afresh and replaces them. An attack holds parameters
    only: ``get_params``, ``set_params`` and ``sklearn.base.clone`` work, and a call changes nothing in it.

    With ``corrupt``, the same rows are corrupt in every call, and ``fraction`` is ignored. In a training with clients,
    these are numbers of clients: they follow a client, whichever clients a step has rows of (:doc:`/corruption`).
    Otherwise they are places of the groups in a batch. A call skips those that it has no row for, as in a last batch of
    fewer groups.

    If no row is honest, as with ``fraction=1``, an attack that needs honest rows takes all rows in their place. Entries
    beyond the largest number of the gradients' dtype become that number. Only :class:`NonFinite` turns finite rows into
    NaN or inf.
    """

    #: True for an attack that makes finite rows of finite rows.
    stays_finite: ClassVar[bool] = True
    #: True for Byzantine workers that know the honest rows; a worker that acts alone knows only its own.
    omniscient: ClassVar[bool] = False
    #: True for an attack whose ``_replace`` takes the context of a call as a fifth argument.
    uses_context: ClassVar[bool] = False
    #: True for an attack by ``corrupt_targets``, before there are gradients; a training leaves these as they are then.
    acts_on_targets: ClassVar[bool] = False

    fraction: float
    random_state: Any
    corrupt: Any = None

    def __call__(
        self, gradients: torch.Tensor, random_state: Any = None, context: AttackContext | None = None
    ) -> torch.Tensor:
        """Corrupt a copy of the gradients.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            A gradient in each row, of a floating dtype, on any device.
        random_state : int, RandomState, Generator or None, default=None
            Source of randomness, instead of the constructor's. To draw other rows at every step, pass the same source
            at all of them. None: the constructor's; if that is None too, a fresh one each time.
        context : AttackContext, default=None
            The workers that the rows belong to, by which the attack finds the rows of ``corrupt``. For attacks that ask
            for it (``uses_context``), also the attacked rule and the number of earlier steps.

        Returns
        -------
        corrupt : tensor of shape (b, d)
            The corrupted copy. Rows that weren't drawn are unchanged, bit by bit.

        Raises
        ------
        TypeError, ValueError
            If a parameter is of the wrong kind or out of its range, or if the gradients are masked or aren't a matrix
            of floating-point numbers.
        """
        self._check(gradients)
        copy = gradients.detach().clone()
        self._corrupt(copy, random_state, context)
        return copy

    def apply_(
        self, gradients: torch.Tensor, random_state: Any = None, context: AttackContext | None = None
    ) -> torch.Tensor:
        """Corrupt the gradients in place.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            As for a call; its rows are overwritten. Nothing is recorded for autograd.
        random_state : int, RandomState, Generator or None, default=None
            As for a call.
        context : AttackContext, default=None
            As for a call.

        Returns
        -------
        corrupted : tensor of shape (c,), int64
            Indices of the rows that were replaced, ascending; on the gradients' device.

        Raises
        ------
        TypeError, ValueError
            As for a call.
        """
        self._check(gradients)
        if shares_numbers(gradients):
            raise ValueError(
                "gradients must have numbers of their own in each row, to be overwritten; found rows that share "
                "memory, as expand makes them."
            )
        return self._corrupt(gradients, random_state, context)

    def corrupt_targets(
        self,
        targets: Any,
        groups: Sequence[slice],
        random_state: Any = None,
        context: AttackContext | None = None,
        *,
        kind: str | None = None,
        n_classes: int | None = None,
    ) -> Any:
        """Corrupt the targets of corrupt groups of samples, if the attack acts on targets; others change nothing.

        Parameters
        ----------
        targets : tensor of shape (n, ...), or tensors in containers
            Targets of the samples in a batch; an attack must not change them in place.
        groups : sequence of slices
            Samples of each group; each group gives a row.
        random_state : int, RandomState, Generator or None, default=None
            As for a call.
        context : AttackContext, default=None
            As for a call.
        kind : {"numbers", "classes", "binary", "signs"}, default=None
            Kind of the targets: numbers, indices or probabilities of classes, 0 and 1, or -1 and 1. None: unknown.
        n_classes : int, default=None
            Number of classes. None: unknown.

        Returns
        -------
        targets : tensor of shape (n, ...), or tensors in containers
            The targets, with those of corrupt groups replaced.
        """
        return targets

    def absent(self, workers: Iterable[int]) -> list[int]:
        """Numbers of the workers that the attack names, ascending, and that are none of these."""
        named = [] if self.corrupt is None else fixed_rows(self.corrupt).tolist()
        return sorted(set(named) - set(workers))

    def _check(self, gradients: torch.Tensor) -> None:
        self._check_own()
        if not isinstance(gradients, torch.Tensor) or not gradients.is_floating_point():
            found = gradients.dtype if isinstance(gradients, torch.Tensor) else type(gradients).__name__
            raise TypeError(f"gradients must be a tensor of a floating dtype; found {found}.")
        refuse_masks(gradients, "gradients")
        check_tensor(gradients, "gradients", FLOATS)
        if gradients.ndim != 2 or 0 in gradients.shape:
            raise ValueError(
                f"gradients must have shape (b, d), with b and d positive; found {tuple(gradients.shape)}."
            )

    def _check_own(self) -> None:
        check_number(self.fraction, "fraction", at_least=0.0, at_most=1.0)
        if self.corrupt is not None:
            fixed_rows(self.corrupt)
        self._check_parameters()

    def _corrupt(self, gradients: torch.Tensor, random_state: Any, context: AttackContext | None) -> torch.Tensor:
        device, n = gradients.device, len(gradients)
        rng = random_source(self.random_state if random_state is None else random_state)
        # Past this method, the public one and its caller.
        rows = self._rows(n, rng, context, stacklevel=4)
        corrupt = torch.from_numpy(rows).to(device)
        if len(rows):
            others = np.setdiff1d(np.arange(n), rows) if len(rows) < n else np.arange(n)
            with torch.no_grad():
                gradients[corrupt] = self._made(gradients, corrupt, torch.from_numpy(others).to(device), rng, context)
        return corrupt

    def _made(
        self,
        gradients: torch.Tensor,
        corrupt: torch.Tensor,
        honest: torch.Tensor,
        rng: np.random.RandomState,
        context: AttackContext | None,
    ) -> torch.Tensor:
        """Rows (c, d) or (d,) that replace the corrupt ones, checked, in the gradients' dtype."""
        known = {"context": context} if self.uses_context else {}
        replacement = self._replace(gradients, corrupt, honest, rng, **known)
        shape, d = getattr(replacement, "shape", None), gradients.shape[1]
        if not isinstance(replacement, torch.Tensor) or shape not in ((d,), (len(corrupt), d)):
            found = type(replacement).__name__ if shape is None else f"{type(replacement).__name__} of {tuple(shape)}"
            raise TypeError(
                f"{type(self).__name__}._replace must return a tensor of shape ({d},) or ({len(corrupt)}, {d}); found "
                f"{found}."
            )
        return self._representable(replacement.to(gradients), gradients)

    def _rows(self, n: int, rng: np.random.RandomState, context: AttackContext | None, stacklevel: int) -> Indices:
        """Indices of the corrupt rows of n, ascending; warn where they are too many."""
        workers = None if context is None or context.workers is None else np.asarray(context.workers, dtype=np.intp)
        if workers is not None and len(workers) != n:
            raise ValueError(f"workers of a context must be one for each of {n} rows; found {len(workers)}.")
        eligible = self._eligible(n, workers)
        if self.corrupt is None:
            fraction = float(self.fraction)
            warn_at_breakdown_point(fraction, stacklevel + 1)
            return draw_rows(eligible, n_corrupted(fraction, n), rng)
        named = fixed_rows(self.corrupt)
        rows = np.intersect1d(named if workers is None else np.flatnonzero(np.isin(workers, named)), eligible)
        warn_at_breakdown_point(len(rows) / n, stacklevel + 1, f"{len(rows)} corrupt rows of {n}")
        return rows

    def _representable(self, replacement: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Clamp a replacement to the largest numbers of the dtype."""
        # A finite sum has finite terms; only another sum needs a look at each number.
        if not self.stays_finite or bool(torch.isfinite(replacement.sum())):
            return replacement
        if not bool(torch.isfinite(gradients).all()):
            return replacement
        largest = torch.finfo(replacement.dtype).max
        return replacement.clamp(-largest, largest)

    def _check_parameters(self) -> None:
        """Check the parameters other than ``fraction``."""

    def _eligible(self, n: int, workers: Indices | None = None) -> Indices:
        """Indices of the rows, of n, that may be drawn; ``workers`` (n,) are theirs, None: known by their places."""
        return np.arange(n)

    @abstractmethod
    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        """Make the rows that replace the corrupt ones.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            All gradients before the attack; not to be changed.
        corrupt : tensor of shape (c,), int64
            Rows to replace, at least one.
        honest : tensor of shape (h,), int64
            The other rows; all rows if there are no others.
        rng : RandomState
            Source of whatever is random.

        Returns
        -------
        replacement : tensor of shape (c, d) or (d,)
            Not a view of the gradients. Converted to their dtype, on their device.
        """


class AlongLine(GradientCorruption):
    """Attack whose rows lie on a line that the honest rows give, each through a start of its own or all through one."""

    omniscient = True

    own: bool

    @abstractmethod
    def _line(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Honest mean; start (d,) or (c, d), and direction (d,); none of them a view of another."""


def shares_numbers(matrix: torch.Tensor) -> bool:
    """True where elements of a matrix have a place in memory in common."""
    (step, n), (stride, m) = sorted(zip(matrix.stride(), matrix.shape, strict=True))
    return (step == 0 and n > 1) or (stride <= (n - 1) * step and m > 1)


def fixed_rows(corrupt: Any) -> Indices:
    """Indices of fixed rows, of a sequence of integers of which none is negative."""
    try:
        rows = np.asarray(corrupt.cpu() if isinstance(corrupt, torch.Tensor) else corrupt)
    except ValueError:
        # Of sequences of several lengths.
        rows = np.empty((0, 0))
    is_of_integers = rows.ndim == 1 and (rows.dtype.kind in "iu" or not len(rows))
    if isinstance(corrupt, (str, bytes)) or not is_of_integers:
        raise TypeError(f"corrupt must be None or a sequence of integers, indices of rows; found {corrupt!r}.")
    if len(rows) and rows.min() < 0:
        raise ValueError(f"corrupt must hold indices of at least 0; found {int(rows.min())}.")
    return rows.astype(np.intp)


def mean_of_rows(gradients: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Mean of some rows, (d,), in single precision at least; they aren't copied."""
    mean = torch.zeros_like(gradients[0], dtype=torch.promote_types(gradients.dtype, torch.float32))
    for row in index.tolist():
        mean.add_(gradients[row], alpha=1.0 / len(index))
    # The mean of a dtype's largest numbers may overflow by rounding.
    largest = torch.finfo(mean.dtype).max
    return mean if bool(torch.isfinite(mean.sum())) else mean.clamp_(-largest, largest)


def std_of_rows(gradients: torch.Tensor, index: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the columns over some rows about their mean, divided by their number, (d,)."""
    # Reducing a gathered copy along its rows is several times slower than passing over the rows one by one.
    variance, difference = torch.zeros_like(mean), torch.empty_like(mean)
    for row in index.tolist():
        torch.sub(gradients[row], mean, out=difference)
        variance.addcmul_(difference, difference, value=1.0 / len(index))
    info = torch.finfo(mean.dtype)
    if info.tiny / info.eps <= float(variance.max()) <= info.max:
        return variance.sqrt_()
    # The squares over- or underflow.
    std, share = torch.zeros_like(mean), len(index) ** -0.5
    for row in index.tolist():
        std = torch.hypot(std, gradients[row] * share - mean * share)
    # That of finite rows may overflow by rounding, as their mean.
    return std.clamp_(max=info.max)


def scaled(values: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply by a factor, which may overflow the values' dtype; in place where it doesn't."""
    if abs(factor) <= torch.finfo(values.dtype).max:
        return values.mul_(factor)
    return (values.double() * factor).to(values.dtype)


def multiply_add(values: torch.Tensor, factor: float, to: torch.Tensor) -> torch.Tensor:
    """Multiply by a factor, which may overflow the values' dtype, and add others."""
    if abs(factor) <= torch.finfo(values.dtype).max:
        return to.add_(values, alpha=factor)
    return (values.double() * factor + to.double()).to(values.dtype)


def exponent_of(size: float) -> int:
    """Exponent of the least power of two above a size; zero for one that isn't finite."""
    return math.frexp(size)[1] if math.isfinite(size) else 0


def times_power(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Multiply by a power of two that may itself overflow."""
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def to_order_one(gradients: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Copy of the gradients in single precision at least, divided by a power of two so that none exceeds one.

    Then no square, product or distance overflows, and none that counts is lost.

    Returns
    -------
    rows : tensor of shape (b, d)
    exponent : int
        Of the power of two; rows that are multiplied by it by :func:`times_power` are the gradients.
    """
    exponent = exponent_of(float(gradients.abs().max()))
    return times_power(gradients.to(torch.promote_types(gradients.dtype, torch.float32)), -exponent), exponent


def clipped_scores(rows: torch.Tensor) -> torch.Tensor:
    r"""Scores (d,) of the columns by which a block is selected, of rows of order one.

    Sums of squares over the rows, each divided first by as much as its norm exceeds the rows' median norm.
    """
    norms = torch.linalg.vector_norm(rows, dim=1)
    clip = norms.median()
    factors = torch.where(norms > clip, clip / norms, 1.0)
    return factors.square() @ rows.square()


def block_size(share: float, d: int) -> int:
    """Number of columns in a share of d, rounded up."""
    return max(1, math.ceil(share_of(share, d)))
