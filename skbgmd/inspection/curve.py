"""Robustness curves: scores over the share of corrupt training rows."""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Sequence
from traceback import format_exc
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed

from skbgmd._utils.checks import as_targets, check_number, refuse_masks, refuse_masks_and_dates
from skbgmd._utils.frames import as_frame
from skbgmd._utils.random import random_source
from skbgmd._utils.typing import FloatArray
from skbgmd.corruption.gradients import GRADIENT_CORRUPTIONS, GradientCorruption, get_gradient_corruption
from skbgmd.training._data.inputs import n_samples

FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4)


def robustness_curve(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    corruption: Any,
    fractions: ArrayLike = FRACTIONS,
    groups: ArrayLike | None = None,
    cv: Any = None,
    scoring: Any = None,
    n_jobs: int | None = None,
    random_state: Any = None,
    error_score: float | str = np.nan,
    verbose: int = 0,
    params: dict[str, Any] | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cross-validated scores of an estimator over the share of corrupt training rows.

    It works like :func:`sklearn.model_selection.learning_curve`, with corrupt rows in place of fewer rows. For each
    fold and each fraction it clones the corruption and the estimator, corrupts the training part, fits the estimator to
    it, and scores the estimator on clean rows.

    Each fold has a seed of its own, the same for all fractions. So the rows that are corrupt at a small fraction are
    among those at a larger one. With an int as ``random_state`` (and as the estimator's, if it has one) the curve is
    the same each time, whatever ``n_jobs`` is. Curves of several estimators then compare the same corrupt rows.

    Parameters
    ----------
    estimator : object with ``fit`` and the methods that ``scoring`` needs
        Estimator to fit; it is cloned.
    X : array-like of shape (n_samples, ...)
        Clean rows.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), or None
        Clean targets; None for an estimator that needs none, such as a covariance or a detector of outliers.
    corruption : object or str
        Corruption with a parameter ``fraction`` and, unless nothing in it is random, ``random_state``:

        - features: a transformer such as :class:`skbgmd.corruption.GaussianNoise`, whose ``fit_transform`` is applied
          to the training rows;
        - labels: a sampler such as :class:`skbgmd.corruption.LabelCorruption`, whose ``fit_resample`` is applied to
          the training part;
        - gradients: a :class:`skbgmd.corruption.GradientCorruption`, or a key of
          :data:`skbgmd.corruption.GRADIENT_CORRUPTIONS`, which becomes the estimator's parameter
          ``gradient_corruption``: its own or that of one of its parts, such as a pipeline's last step.
    fractions : array-like of shape (n_fractions,), default=(0.0, 0.1, 0.2, 0.3, 0.4)
        Shares of corrupt rows, in [0, 1].
    groups : array-like of shape (n_samples,), default=None
        Groups for the splitter. With metadata routing enabled, pass them in ``params``.
    cv : int, splitter, iterable or None, default=None
        Splitter, as in scikit-learn. None: 5 folds, stratified for a classifier.
    scoring : str, callable or None, default=None
        One score, as in scikit-learn. None: the estimator's ``score``.
    n_jobs : int or None, default=None
        Number of jobs; -1: one for each processor.
    random_state : int, RandomState, Generator or None, default=None
        Source of the folds' seeds. None: different seeds each time, never drawn from NumPy's global source.
    error_score : "raise" or float, default=nan
        Score to record if fitting or scoring fails, with a ``FitFailedWarning``. "raise": raise the error.
    verbose : int, default=0
        The larger, the more messages.
    params : dict, default=None
        Metadata for the estimator's ``fit``, such as ``sample_weight``; arrays as long as X are split like X. With
        metadata routing enabled, metadata for whatever requests it: the estimator, the splitter, the scorer.

    Returns
    -------
    fractions : ndarray of shape (n_fractions,)
        As they were given.
    train_scores : ndarray of shape (n_fractions, n_folds)
        Scores on the training rows as they were before the corruption. They say how much of the truth was learned, not
        how much of the corruption.
    test_scores : ndarray of shape (n_fractions, n_folds)
        Scores on the test rows, which are clean, too.

    Raises
    ------
    TypeError
        If ``corruption`` is none of the three kinds, or if ``scoring`` gives several scores.
    ValueError
        If a parameter is out of range; if there are masked entries; if the estimator has no parameter
        ``gradient_corruption``, or more than one; if an attack is by fixed workers, because its fraction can't be
        varied; or if every fit failed.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skbgmd.corruption import LabelCorruption
    >>> from skbgmd.inspection import robustness_curve
    >>> X, y = load_iris(return_X_y=True)
    >>> corruption = LabelCorruption(kind="backdoor", target=2)
    >>> fractions, train_scores, test_scores = robustness_curve(
    ...     GaussianNB(), X, y, corruption=corruption, fractions=[0.0, 0.4], random_state=0)
    >>> test_scores.mean(axis=1).round(2)
    array([0.95, 0.88])
    """
    shares = _fractions(fractions)
    if isinstance(corruption, str):
        if corruption not in GRADIENT_CORRUPTIONS:
            raise ValueError(
                "corruption must be an instance such as LabelCorruption() or GaussianNoise() for labels and features, "
                f"or, for gradients, one of {', '.join(map(repr, GRADIENT_CORRUPTIONS))}; found {corruption!r}."
            )
        corruption = get_gradient_corruption(corruption)
    _check_corruption(corruption)
    parameter = gradient_parameter(estimator) if isinstance(corruption, GradientCorruption) else None
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise TypeError(f"scoring must be None, a name or a callable that gives one score; found {scoring!r}.")
    if not (error_score == "raise" or isinstance(error_score, numbers.Real)):
        raise ValueError(f"error_score must be 'raise' or a number; found {error_score!r}.")
    for name, values in (("X", X), ("y", y), ("groups", groups), ("params", params)):
        refuse_masks(values, name)
    X, y, groups = indexable(X, as_targets(y, "y"), as_targets(groups, "groups"))
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    scorer = check_scoring(estimator, scoring=scoring)
    to_fit, to_split, to_score = _routed(estimator, splitter, scorer, groups, params or {})
    folds = list(splitter.split(X, y, **to_split))
    seeds = random_source(random_state).randint(np.iinfo(np.int32).max, size=len(folds))
    results = Parallel(n_jobs=n_jobs, verbose=verbose)(
        delayed(_fit_and_score)(
            clone(estimator),
            X,
            y,
            scorer,
            _configured(corruption, float(fraction), int(seed)),
            parameter,
            train,
            test,
            to_fit,
            to_score,
            error_score,
        )
        for (train, test), seed in zip(folds, seeds, strict=True)
        for fraction in shares
    )
    _report_failures([failure for _, _, failure in results if failure is not None], len(results), error_score)
    scores = np.array([pair for *pair, _ in results], dtype=np.float64).reshape(len(folds), len(shares), 2)
    return shares, scores[:, :, 0].T, scores[:, :, 1].T


def gradient_parameter(estimator: Any) -> str:
    """Name of the estimator's only parameter ``gradient_corruption``, be it its own or a part's.

    Raises
    ------
    ValueError
        No such parameter, or more than one.
    """
    names = [name for name in estimator.get_params() if f"__{name}".endswith("__gradient_corruption")]
    if len(names) != 1:
        raise ValueError(
            "estimator must have one parameter gradient_corruption, its own or a part's, for a corruption of "
            f"gradients; found {', '.join(names) or 'none'} in {estimator!r}."
        )
    return str(names[0])


def _fractions(fractions: ArrayLike) -> FloatArray:
    refuse_masks_and_dates(fractions, "fractions")
    given = np.asarray(fractions)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"fractions must have one dimension and at least one entry; found shape {given.shape}.")
    return np.array(
        [check_number(fraction, "Each of fractions", at_least=0.0, at_most=1.0) for fraction in given.tolist()]
    )


def _check_corruption(corruption: Any) -> None:
    kinds = (
        isinstance(corruption, GradientCorruption),
        *(hasattr(corruption, method) for method in ("fit_resample", "fit_transform")),
    )
    if isinstance(corruption, type) or not any(kinds) or "fraction" not in corruption.get_params():
        raise TypeError(
            "corruption must be an instance with a parameter fraction that is a transformer (features), a sampler "
            f"(labels) or a GradientCorruption (gradients); found {corruption!r}."
        )
    if isinstance(corruption, GradientCorruption) and corruption.corrupt is not None:
        raise ValueError(
            "corruption must have corrupt=None for its fraction to be varied; found fixed rows, "
            f"corrupt={corruption.corrupt!r}."
        )


def _configured(corruption: BaseEstimator, fraction: float, seed: int) -> Any:
    values = {"fraction": fraction, "random_state": seed}
    known = corruption.get_params(deep=False)
    return clone(corruption).set_params(**{name: value for name, value in values.items() if name in known})


def _routed(
    estimator: Any, splitter: Any, scorer: Any, groups: Any, params: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Metadata for the estimator's fit, the splitter and the scorer."""
    if not get_config()["enable_metadata_routing"]:
        return params, {"groups": groups}, {}
    if groups is not None:
        raise ValueError("groups must be passed in params where metadata routing is enabled; found groups.")
    router = (
        MetadataRouter(owner="robustness_curve")
        .add(estimator=estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        .add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        .add(scorer=scorer, method_mapping=MethodMapping().add(caller="fit", callee="score"))
    )
    routed = process_routing(router, "fit", **params)
    return routed["estimator"]["fit"], routed["splitter"]["split"], routed["scorer"]["score"]


def _fit_and_score(
    estimator: Any,
    X: Any,
    y: Any,
    scorer: Any,
    corruption: Any,
    parameter: str | None,
    train: Any,
    test: Any,
    to_fit: dict[str, Any],
    to_score: dict[str, Any],
    error_score: Any,
) -> tuple[float, float, str | None]:
    """Scores on the clean training rows and on the test rows, or the traceback of a failure."""
    n = n_samples(X)

    def samples(index: Any) -> tuple[Any, ...]:
        return tuple(_safe_indexing(values, index) for values in (X, y) if values is not None)

    clean = samples(train)
    if parameter is None:
        corrupt = _corrupt(corruption, *clean)
    else:
        estimator.set_params(**{parameter: corruption})
        corrupt = clean
    try:
        estimator.fit(*corrupt, **_part(to_fit, train, n))
        train_score = scorer(estimator, *clean, **_part(to_score, train, n))
        return float(train_score), float(scorer(estimator, *samples(test), **_part(to_score, test, n))), None
    except Exception:
        if error_score == "raise":
            raise
        return error_score, error_score, format_exc()


def _corrupt(corruption: Any, X: Any, y: Any = None) -> tuple[Any, ...]:
    if hasattr(corruption, "fit_resample"):
        corrupt: tuple[Any, ...] = corruption.fit_resample(X, y)
        return corrupt
    # An estimator that was fitted to an array would warn of the names of the clean rows. Numbers count as no names.
    library = type(X).__module__.partition(".")[0]
    if library in ("pandas", "polars") and all(isinstance(name, str) for name in getattr(X, "columns", ())):
        corruption.set_output(transform=library)
    rows, frame = corruption.fit_transform(X, y), as_frame(X)
    if library == "pyarrow" and frame is not None:
        # scikit-learn makes no tables of it.
        rows = sys.modules[library].table(dict(zip(frame.names, np.asarray(rows).T, strict=True)))
    return (rows,) if y is None else (rows, y)


def _part(params: dict[str, Any], index: Any, n: int) -> dict[str, Any]:
    """Metadata for some of n samples: arrays of n entries are indexed."""

    def samples(value: Any) -> bool:
        shape = getattr(value, "shape", None)
        if shape is not None:
            return len(shape) > 0 and bool(shape[0] == n)
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == n

    return {name: _safe_indexing(value, index) if samples(value) else value for name, value in params.items()}


def _report_failures(failures: list[str], total: int, error_score: Any) -> None:
    if not failures:
        return
    if len(failures) == total:
        raise ValueError(f"All {total} fits failed. The last of them:\n{failures[-1]}")
    warnings.warn(
        f"{len(failures)} of {total} fits failed, and count as {error_score}. The last of them:\n{failures[-1]}",
        FitFailedWarning,
        stacklevel=3,
    )
