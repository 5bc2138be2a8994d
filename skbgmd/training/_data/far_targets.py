"""Far targets that inputs tell: a group that is rare, or a tail, rather than gross errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier

from skbgmd._utils import limits
from skbgmd.training._data.copies import first_copies
from skbgmd.training._data.inputs import arrays_of, is_sparse, n_samples
from skbgmd.training._data.scaling import location_and_scale


class FarTargets(NamedTuple):
    """Samples whose targets are far, and those that a forest takes for such.

    Attributes
    ----------
    asked : ndarray of shape (n,)
        Samples that were looked at, bool.
    unit : ndarray of shape (k,)
        Robust standard deviations of the targets.
    deviations : ndarray of shape (n, k)
        Targets, less the medians, in these.
    far, told : ndarrays of shape (n,)
        Of these samples, those whose targets are far, and those whose inputs say so; bool.
    """

    asked: NDArray[np.bool_]
    unit: NDArray[np.float64]
    deviations: NDArray[np.float64]
    far: NDArray[np.bool_]
    told: NDArray[np.bool_]

    @property
    def share_told(self) -> float:
        """Share of the far ones that are told, less that of the others that are taken for such."""
        others = self.asked & ~self.far
        if not self.far.any() or not others.any():
            return 0.0
        return float(self.told[self.far].mean() - self.told[others].mean())

    @property
    def group(self) -> NDArray[np.bool_]:
        """Far ones that are told (n,), unless too few or too many of those that are taken for such aren't far."""
        right, n = self.told & self.far, int(self.told.sum())
        share = right.sum() / max(n, 1)
        is_sure = n >= limits.FEWEST_TOLD and share - np.sqrt(share * (1.0 - share) / n) > limits.TOLD_RIGHTLY
        return right if is_sure else np.zeros_like(right)

    def are_given_up(self, places: NDArray[np.intp], residuals: NDArray[np.float64]) -> bool:
        """True if predictions of some samples, with residuals (m, k), miss most of the group."""
        some = self.group[places]
        sizes = np.abs(self.deviations[places]).max(axis=1)
        errors = np.abs(np.nan_to_num(residuals / self.unit, nan=np.inf)).max(axis=1)
        return bool(some.any() and np.mean(errors[some] > 0.5 * sizes[some]) > 0.5)


def far_targets(X: Any, y: NDArray[np.float64], counted: NDArray[np.bool_], seed: int) -> FarTargets:
    """Find targets that are far, and ask a forest which are, by inputs of samples that it hasn't seen.

    Each sample is judged by the random trees without it in their bootstrap samples (out of the bag), see Breiman
    (2001). Of copies only the first is looked at: each would tell the others. Nothing tells gross errors at random: a
    third of the trees says so. Samples of a kind of their own a forest has long before a network predicts their
    targets, for all that it is asked is which they are.

    Parameters
    ----------
    X : ndarray of shape (n, ...), sparse matrix, or several of them
        Inputs. What isn't numbers is left out.
    y : ndarray of shape (n, k)
        Targets. Far ones are more than ``limits.MISSED_TARGET`` robust standard deviations from the median, in any
        column.
    counted : ndarray of shape (n,)
        Samples to look at, bool.
    seed : int
        Of the trees, and of the samples that are drawn where there are more than ``limits.FOREST_SAMPLES``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, everybody = rng.normal(size=(500, 3)), np.ones(500, dtype=bool)
    >>> y = X[:, :1] + 20.0 * (X[:, 1:2] > 1.6)
    >>> bool(far_targets(X, y, everybody, 0).share_told > 0.5)
    True
    >>> bool(abs(far_targets(X, rng.permutation(y), everybody, 0).share_told) < 0.1)
    True
    """
    center, unit = location_and_scale(y, counted.astype(np.float64))
    with np.errstate(over="ignore"):
        deviations = (y - center) / unit
    rng, places = np.random.RandomState(seed), np.flatnonzero(counted)
    first = first_copies(X, y, np.zeros(len(y), dtype=np.intp))[places]
    places = places[np.sort(np.unique(first, return_index=True)[1])]
    if len(places) > limits.FOREST_SAMPLES:
        places = np.sort(rng.permutation(places)[: limits.FOREST_SAMPLES])
    far, told, asked = np.zeros((3, len(y)), dtype=bool)
    asked[places] = True
    far[places] = np.any(np.abs(deviations[places]) > limits.MISSED_TARGET, axis=1)
    table = _table(X, places) if 0 < far.sum() < len(places) else None
    if table is not None:
        told[places] = _votes(table, far[places], seed) > limits.TOLD_FROM
    return FarTargets(asked, unit, deviations, far, told)


def _votes(table: Any, far: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """Share of the trees without a sample that take it for far (m,); none where few trees can't tell far ones."""
    forest = RandomForestClassifier(
        limits.FIRST_TREES, min_samples_leaf=limits.FOREST_LEAF, oob_score=True, warm_start=True, random_state=seed
    )
    votes = forest.fit(table, far).oob_decision_function_[:, 1]
    variance = votes[far].var() / far.sum() + votes[~far].var() / (~far).sum()
    if votes[far].mean() - votes[~far].mean() <= limits.TELLING * np.sqrt(variance):
        return np.zeros_like(votes)
    votes = forest.set_params(n_estimators=limits.FOREST_TREES).fit(table, far).oob_decision_function_[:, 1]
    return np.asarray(votes, dtype=np.float64)


def _table(X: Any, places: NDArray[np.intp]) -> Any:
    """The numbers of some samples' inputs in columns, as a forest takes them; None: there are none."""
    parts = [part for part in arrays_of(X) if part.dtype.kind in "fiub" and part.size and part.shape[0] == n_samples(X)]
    some = [part.tocsr()[places] if is_sparse(part) else part[places].reshape(len(places), -1) for part in parts]
    if not some:
        return None
    with np.errstate(over="ignore"):
        # As trees take them.
        some = [part.astype(np.float32) for part in some]
    if any(is_sparse(part) for part in some):
        table = sparse.hstack(some, format="csr")
        table.data = np.nan_to_num(table.data)
        return table
    return np.nan_to_num(np.hstack(some), copy=False)
