"""Training samples of a fitted estimator: trust, a record of each, and the suspects among them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skbgmd._utils.checks import as_numpy, brief, refuse_masks
from skbgmd._utils.typing import BoolArray
from skbgmd.inspection._suspect_groups import Suspects, suspects_in
from skbgmd.training._data.inputs import n_samples
from skbgmd.training._estimator.parameters import RobustParameters
from skbgmd.training._step.trust import SampleRecord
from skbgmd.training._strength.evidence import STRENGTHS_OF_CLASSES
from skbgmd.training._strength.held_out_labels import HeldOutLabels

#: The strength that lets a network fit most samples.
GENTLEST = next(iter(STRENGTHS_OF_CLASSES))


def innermost(estimator: Any) -> Any:
    """The estimator itself, or the one at the end of a pipeline or within a search, whatever it is."""
    while isinstance(estimator, Pipeline) or hasattr(estimator, "best_estimator_"):
        estimator = estimator[-1] if isinstance(estimator, Pipeline) else estimator.best_estimator_
    return estimator


def robust_estimator_in(estimator: Any) -> Any:
    """The estimator itself, or the one at the end of a pipeline or within a search.

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        A search without a fitted estimator.
    """
    inner = innermost(estimator)
    if not hasattr(inner, "fit"):
        raise TypeError(f"estimator must be a fitted BlockGMDClassifier or BlockGMDRegressor; found {type(inner)}.")
    if hasattr(inner, "refit"):
        raise NotFittedError(
            f"A search must be fitted, with refit=True, to hold an estimator; found {type(inner).__name__} without "
            f"best_estimator_."
        )
    return inner


def sample_trust(estimator: Any) -> NDArray[np.float64]:
    """Trust in the training samples, by an estimator or the one within a pipeline or a search.

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    ValueError
        The trust is unknown.
    """
    inner = robust_estimator_in(estimator)
    if not isinstance(inner, RobustParameters):
        raise TypeError(
            f"estimator must be a BlockGMDClassifier or BlockGMDRegressor, or a pipeline or search that ends with one; "
            f"found {type(inner).__name__}. Of one that wraps an estimator, give what was fitted, such as estimator_."
        )
    check_is_fitted(inner, "sample_trust_")
    trust = np.asarray(inner.sample_trust_, dtype=np.float64)
    if not np.isfinite(trust).any():
        raise ValueError("sample_trust_ must be known; found only NaN: the aggregator doesn't weigh rows.")
    return trust


def check_training_samples(n: int, **given: Any) -> None:
    """Check that what is given, by its name, is of the n training samples of an estimator and has no masks."""
    for name, value in given.items():
        refuse_masks(value, name)
        found = None if value is None else n_samples(value)
        if found != n:
            raise ValueError(f"{name} must be of the {n} samples that the estimator was fitted on; found {found}.")


def mask_of_samples(values: Any, name: str, n: int) -> BoolArray:
    """Mask (n,) of training samples; numbers other than 0 and 1, as of scores, are none.

    Raises
    ------
    ValueError
    """
    check_training_samples(n, **{name: values})
    try:
        mask = np.asarray(as_numpy(values, name), dtype=np.float64)
    except (TypeError, ValueError):
        # Of text.
        mask = np.full(n, np.nan)
    if mask.shape != (n,) or not np.isin(mask, (0.0, 1.0)).all():
        raise ValueError(f"{name} must be True or False for each sample, of shape ({n},); found {brief(values)}.")
    return mask.astype(bool)


class KnownSamples(NamedTuple):
    """Record of the samples that something is known of, and their indices."""

    record: SampleRecord
    indices: NDArray[np.intp]


def known_of(estimator: Any) -> KnownSamples | None:
    """Record of the samples whose trust and likelihood are known; None where there are none."""
    record = getattr(estimator, "sample_record_", None)
    if record is None:
        return None
    known = np.flatnonzero(np.isfinite(record.trust) & np.isfinite(record.likelihood[-1]))
    return KnownSamples(SampleRecord(*(values[..., known] for values in record)), known) if len(known) else None


def suspects_of(estimator: Any, of_single: KnownSamples, *, by_groups: bool = False) -> Suspects:
    """Suspects among the samples that something is known of in an estimator's training; by groups alone if so asked."""
    held_out = None if by_groups else getattr(estimator, "_held_out", None)
    # Where several processes trained together it is of this one's share.
    if held_out is not None and len(held_out.predicted) != len(estimator.sample_trust_):
        held_out = None
    if held_out is not None:
        held_out = HeldOutLabels(*(values[of_single.indices] for values in held_out))
    fits_all = getattr(estimator, "strength_", None) == GENTLEST
    return suspects_in(of_single.record, fits_all=fits_all, held_out=held_out)
