"""The trust in samples and clients: the weights that a rule gave them, remembered from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.checks import plain_ids
from skbgmd._utils.threads import one_thread
from skbgmd._utils.typing import FloatArray
from skbgmd.training._step.groups import GroupedBatch


def strata_of(targets: FloatArray, *, are_classes: bool) -> NDArray[np.intp]:
    """Split samples into strata that are compared among themselves: their classes, or quantiles of their targets.

    Parameters
    ----------
    targets : ndarray of shape (n,)
        Classes or numbers, finite.
    are_classes : bool
        True for classes.

    Returns
    -------
    strata : ndarray of shape (n,)
        Numbers from 0 on; those of one value are in one of them.
    """
    values, strata = np.unique(targets, return_inverse=True)
    if are_classes or len(values) <= 2:
        return strata.reshape(-1).astype(np.intp)
    n_strata = min(limits.TRUST_QUANTILES, len(targets) // limits.TRUST_QUANTILE_SAMPLES)
    edges = np.quantile(targets, np.arange(1, max(n_strata, 1)) / max(n_strata, 1))
    of_quantile: NDArray[np.intp] = np.searchsorted(np.unique(edges), targets, side="right")
    return of_quantile


def prior_weights(trust: FloatArray, strata: NDArray[np.intp], power: float) -> FloatArray:
    r"""Weigh samples by the trust that is remembered of them.

    :math:`\min(1, t_i / m_s)^p` for a trust of :math:`t_i` whose median in the stratum is :math:`m_s`: at least half of
    each stratum counts in full, so that a rare class is not taken for a corrupt one.

    Parameters
    ----------
    trust : ndarray of shape (n,)
        Remembered trust.
    strata : ndarray of shape (n,)
        Strata, numbers from 0 on.
    power : float
        The power p; 0 makes all weights one.

    Returns
    -------
    weights : ndarray of shape (n,)
        Within [``limits.LEAST_PRIOR``, 1].
    """
    weights = np.ones(len(trust))
    for stratum in range(int(strata.max(initial=-1)) + 1):
        chosen = np.flatnonzero(strata == stratum)
        median = float(np.median(trust[chosen])) if len(chosen) else 0.0
        if median > 0.0:
            weights[chosen] = np.minimum(trust[chosen] / median, 1.0) ** power
    return np.maximum(weights, limits.LEAST_PRIOR)


def earned_trust(
    weights: FloatArray, given: FloatArray, tilted: FloatArray | None, own: slice = slice(None)
) -> FloatArray:
    """Weights of rows in an aggregate in proportion to what they were given, one as in a plain mean.

    Parameters
    ----------
    weights, given : ndarray of shape (n,)
        Weights in the aggregate, and those that the rule was given.
    tilted : ndarray of shape (g,), or None
        Factors of the latter by losses, which are a part of the judgement.
    own : slice
        The g rows that are asked for.
    """
    if tilted is not None:
        given = given.copy()
        given[own] /= tilted
    trust: FloatArray = (weights * given.sum() / np.maximum(given, 1e-300))[own]
    return trust


class SampleRecord(NamedTuple):
    """Evidence of a training about its samples; NaN where nothing is known.

    Attributes
    ----------
    trust : ndarray of shape (n,)
        Mean weight of each sample, one as in a plain mean.
    likelihood : ndarray of shape (k, n)
        Mean of exp(-loss) over the first visits to each sample, as many as ``limits.LIKELIHOOD_VISITS`` says, NaN where
        there were fewer; and in the last row over all visits. With cross-entropy that is the mean probability of the
        given label.
    input_norm : ndarray of shape (n,)
        Mean norm of what all linear and convolutional layers were given, by which a sample's gradient is larger than
        its error.
    target_class : ndarray of shape (n,)
        Number of its class; 0 for targets that aren't classes.
    """

    trust: FloatArray
    likelihood: FloatArray
    input_norm: FloatArray
    target_class: FloatArray


class _Visit(NamedTuple):
    """Evidence of a step about samples, (n,) each; None where it isn't known.

    Attributes
    ----------
    positions : ndarray
        Their places.
    of_sample : ndarray, or None
        The weights that they had.
    targets, losses, input_squares : tensor, or None
        Their targets, their losses, and squared norms of all layers' inputs.
    """

    positions: NDArray[np.int64]
    of_sample: FloatArray | None
    targets: torch.Tensor | None
    losses: torch.Tensor | None
    input_squares: torch.Tensor | None


class SampleTrust:
    """Weights that a rule gave samples or clients, summed up and remembered from step to step.

    Kept by the training and changed in place rather than handed from step to step as a rule's state: it is as long as
    the data, and a step sees a batch of them.

    Attributes
    ----------
    ids : list, or None
        Ids of the samples or clients that are remembered; None: samples are known by their places.
    weights : ndarray, or None
        Prior weights of all that are remembered; None: all count alike.
    has_places : bool
        Whether batches have places in the data that the training was given.
    tells_rows_apart : bool
        Whether rows of known samples or clients were seen.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Remember nothing."""
        self.ids: list[Any] | None = None
        self.weights: FloatArray | None = None
        self.has_places, self.tells_rows_apart = True, False
        # Where each place of the data is remembered; None: at the same place.
        self._slots: NDArray[np.intp] | None = None
        self._n: int | None = None
        # Of each that is remembered: summed weights, visits, and both with those of earlier visits decayed.
        self._sums = np.zeros((0, 4))
        # Of each: visits, those with input norms, the norms, and likelihoods over all visits and over the first ones.
        self._fits = np.zeros((0, 4 + len(limits.LIKELIHOOD_VISITS)))
        self._targets = np.zeros(0)
        self._are_classes = self._are_clients = False
        # What steps have seen and wasn't added up yet.
        self._visits: list[_Visit] = []

    def begin(self, n: int | None, ids: Any, *, are_clients: bool) -> None:
        """Begin a training on n samples, or as many as there are, and forget what is remembered of other data.

        Parameters
        ----------
        n : int or None
            Number of samples; None: unknown.
        ids : array-like of shape (n,), or None
            Ids of the samples, or of their clients, by which they are remembered.
        are_clients : bool
            Whether ids are those of clients.
        """
        self.settle()
        known = self.ids is not None and ids is not None and self._are_clients == are_clients
        if not (known or (self.ids is None and ids is None and n is not None and n == self._n)):
            self.forget()
        self._n, self._are_clients = n, are_clients
        if ids is None:
            return
        slots = {id_: slot for slot, id_ in enumerate(self.ids or [])}
        self._slots = np.array([slots.setdefault(id_, len(slots)) for id_ in plain_ids(ids)], dtype=np.intp)
        self.ids = list(slots)

    def add(
        self,
        batch: GroupedBatch,
        of_group: FloatArray | None = None,
        losses: torch.Tensor | None = None,
        input_squares: torch.Tensor | None = None,
    ) -> None:
        """Add what a step saw to what is remembered of its samples.

        Parameters
        ----------
        batch : GroupedBatch
            The samples, of g groups.
        of_group : ndarray of shape (g,), or None
            Weights of the groups, one as in a plain mean; None: they had none.
        losses, input_squares : tensors of shape (g,), or None
            Losses, and squared norms of all layers' inputs, which count if groups are single samples.
        """
        if batch.positions is None or not self.has_places:
            return
        single, y = batch.slices.longest == 1, batch.y
        targets = None
        if of_group is not None:
            self.tells_rows_apart |= _is_of_known(batch)
            is_plain = isinstance(y, torch.Tensor) and y.numel() == len(batch.positions)
            targets = y if is_plain and not self._are_clients else None
            of_group = of_group if single else np.repeat(of_group, batch.slices.lengths)
        if not single or batch.has_clients:
            losses = input_squares = None
        self._hold(
            _Visit(batch.positions, of_group, targets, None if losses is None else losses.detach(), input_squares)
        )

    def add_samples(
        self,
        positions: NDArray[np.int64],
        of_sample: FloatArray | None,
        targets: torch.Tensor,
        losses: torch.Tensor,
        input_squares: torch.Tensor,
    ) -> None:
        """Add what a step saw of single samples at some places, which have no clients; parameters as in :meth:`add`."""
        if not self.has_places:
            return
        self.tells_rows_apart |= of_sample is not None
        has_one_each = of_sample is not None and targets.numel() == len(positions)
        self._hold(_Visit(positions, of_sample, targets if has_one_each else None, losses, input_squares))

    def _hold(self, visit: _Visit) -> None:
        self._visits.append(visit)
        if len(self._visits) >= limits.VISITS_HELD:
            self.settle()

    def settle(self) -> None:
        """Add up what was held back: of many steps at once it takes a fraction of the time."""
        visits, self._visits = self._visits, []
        with one_thread():
            for visit in self._joined(visits):
                slots = self._slots_at(visit.positions)
                if visit.of_sample is not None:
                    self._add(slots, visit.of_sample, visit.targets)
                if visit.losses is not None:
                    self._note(slots, visit.losses, visit.input_squares)

    def _joined(self, visits: list[_Visit]) -> list[_Visit]:
        """Join what was held back of several steps, unless a sample or a client is in more than one of them."""
        if len(visits) < 2 or len({tuple(value is None for value in visit) for visit in visits}) > 1:
            return visits
        positions, *others = zip(*visits, strict=True)
        together = np.concatenate(positions)
        if np.bincount(self._slots_at(together)).max() > 1:
            return visits
        return [_Visit(together, *map(_concatenated, others))]

    def _add(self, slots: NDArray[np.intp], of_sample: FloatArray, targets: torch.Tensor | None) -> None:
        # A line for each sample: lines are gathered and scattered faster than columns.
        sums = self._sums.take(slots, axis=0)
        is_new = sums[:, 1] == 0.0
        # A client's samples, or a sample that was drawn twice, count once.
        sums[:, 2:] *= limits.TRUST_DECAY
        sums[:, ::2] += of_sample[:, None]
        sums[:, 1::2] += 1.0
        self._sums[slots] = sums
        if targets is not None and is_new.any():
            self._are_classes = not targets.is_floating_point()
            self._targets[slots[is_new]] = targets.detach().flatten().double().cpu().numpy()[is_new]

    def _note(self, slots: NDArray[np.intp], losses: torch.Tensor, input_squares: torch.Tensor | None) -> None:
        fits = self._fits.take(slots, axis=0)
        visits = fits[:, 0]
        values = losses.double().cpu().numpy()
        # Of a sample whose target is to be ignored no loss is known.
        known = ~np.isnan(values)
        with np.errstate(under="ignore"):
            likelihood = np.exp(-np.maximum(np.where(known, values, np.inf), 0.0))
        for place, most in enumerate(limits.LIKELIHOOD_VISITS, start=4):
            fits[:, place] += likelihood * (visits < most)
        fits[:, 3] += likelihood
        if input_squares is not None:
            fits[:, 1] += 1.0
            fits[:, 2] += np.sqrt(input_squares.double().cpu().numpy())
        fits[:, 0] += known
        self._fits[slots] = fits

    def record(self, n: int) -> SampleRecord:
        """Record of each of the first n samples."""
        self.settle()
        visits, with_norms, norms, likelihood, *early = self._fits.T
        of_first = [
            np.where(visits >= most, summed / most, np.nan)
            for summed, most in zip(early, limits.LIKELIHOOD_VISITS, strict=True)
        ]
        means = np.stack([*of_first, _ratio(likelihood, visits)])
        classes = self._targets if self._are_classes else np.zeros(len(visits))
        return SampleRecord(
            self.means(n), self._at(means, n), self._at(_ratio(norms, with_norms), n), self._at(classes, n)
        )

    def means(self, n: int) -> FloatArray:
        """Mean weight of each of the first n samples over all steps; NaN where none is known."""
        self.settle()
        return self._at(_ratio(self._sums[:, 0], self._sums[:, 1]), n)

    def _at(self, remembered: FloatArray, n: int) -> FloatArray:
        """Bring what is remembered, (..., m), into the order of the first n samples; NaN where they aren't known."""
        slots = np.arange(n) if self._slots is None else self._slots[:n]
        missing = max(0, int(slots.max(initial=-1)) + 1 - remembered.shape[-1])
        padding = [(0, 0)] * (remembered.ndim - 1) + [(0, missing)]
        return np.pad(remembered, padding, constant_values=np.nan)[..., slots]

    def weigh(self, power: float) -> None:
        """Weigh from now on by what is remembered, where that is of some visits."""
        self.settle()
        remembered, visits = _ratio(self._sums[:, 2], self._sums[:, 3]), self._sums[:, 1]
        known = np.flatnonzero(visits >= limits.TRUST_VISITS)
        self.weights = np.ones(len(visits))
        strata = strata_of(self._targets[known], are_classes=self._are_classes)
        self.weights[known] = prior_weights(remembered[known], strata, power)

    def prior(self, batch: GroupedBatch) -> FloatArray | None:
        """Prior weights of the groups (g,) of a batch that are single samples or clients; None: all count alike."""
        if self.weights is None or batch.positions is None or not _is_of_known(batch):
            return None
        return self.prior_at(batch.positions[[part.start for part in batch.slices]])

    def prior_at(self, positions: NDArray[np.int64]) -> FloatArray | None:
        """Prior weights of the samples at some places, or of their clients; None: all count alike."""
        if self.weights is None or not self.has_places:
            return None
        slots = self._slots_at(positions)
        return self.weights[slots]

    def _slots_at(self, positions: NDArray[np.int64]) -> NDArray[np.intp]:
        """Slots of the samples at some places, for which there is room afterwards."""
        slots = positions if self._slots is None else self._slots[positions]
        size = int(slots.max()) + 1
        if len(self._sums) < size:
            more = 2 * size - len(self._sums)
            self._sums, self._fits = (np.pad(held, ((0, more), (0, 0))) for held in (self._sums, self._fits))
            self._targets = np.pad(self._targets, (0, more))
            if self.weights is not None:
                self.weights = np.pad(self.weights, (0, more), constant_values=1.0)
        return slots

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered, as plain containers and tensors."""
        self.settle()
        return {
            "sums": torch.from_numpy(self._sums.copy()),
            "fits": torch.from_numpy(self._fits.copy()),
            "targets": torch.from_numpy(self._targets.copy()),
            "are_classes": self._are_classes,
            "ids": self.ids,
            "n": self._n,
        }

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of a device that others may not have.
        self.settle()
        return vars(self).copy()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what :meth:`state_dict` gave, in the training that has begun."""
        self._visits = []
        if (state["ids"] is None) != (self._slots is None):
            return
        self._sums, self._fits = (state[name].cpu().numpy().copy() for name in ("sums", "fits"))
        self._targets = state["targets"].cpu().numpy().copy()
        self._are_classes = bool(state["are_classes"])
        if self._slots is not None and self.ids is not None:
            begun, self.ids = np.array(self.ids, dtype=object)[self._slots], list(state["ids"])
            self.begin(self._n, begun, are_clients=self._are_clients)


def _is_of_known(batch: GroupedBatch) -> bool:
    """True if each group is a sample or a client."""
    return batch.has_clients or batch.slices.longest == 1


def _concatenated(parts: Sequence[Any]) -> Any:
    """Arrays, or tensors, one after the other; None of None."""
    if parts[0] is None:
        return None
    return (
        torch.cat([part.flatten() for part in parts]) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)
    )


def _ratio(sums: FloatArray, counts: FloatArray) -> FloatArray:
    ratio: FloatArray = np.where(counts > 0.0, sums / np.where(counts > 0.0, counts, 1.0), np.nan)
    return ratio
