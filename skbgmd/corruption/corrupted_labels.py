"""Meta-estimator that trains a classifier on corrupt labels."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils import check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skbgmd._utils.doc_link import DocumentationLink
from skbgmd.corruption.labels import as_class_labels, corrupt_labels, is_column

Method = TypeVar("Method", bound=Callable[..., Any])


def _delegated(name: str) -> Callable[[Method], Method]:
    """Make a method available if the estimator has it."""

    def check(self: CorruptedLabels) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    decorate: Callable[[Method], Method] = available_if(check)
    return decorate


class CorruptedLabels(DocumentationLink, ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Train a classifier on corrupt labels, and score it on clean ones.

    ``fit`` corrupts y with :func:`corrupt_labels` and fits a clone of the estimator. All other methods are those of the
    fitted estimator. In ``cross_validate`` or a search, it therefore trains on corrupt folds and is scored on clean
    ones.

    With metadata routing enabled, ``fit`` and the other methods pass on what the estimator requests, such as
    ``sample_weight``; without it, they pass on everything. ``set_fit_request(y_corrupt=True)`` requests ``y_corrupt``.

    Parameters
    ----------
    estimator : classifier
        Classifier to train; ``fit`` clones it.
    fraction : float, default=0.0
        Share ψ of the labels to corrupt, in [0, 1]; for a backdoor, the share of those that aren't ``target``.
    kind : {"uniform", "pair", "backdoor"}, default="uniform"
        New label: any other class, the next class, or ``target``; see :func:`corrupt_labels`.
    target : label, default=None
        Class that a backdoor assigns.
    random_state : int, RandomState, Generator or None, default=None
        Source of randomness for the labels. It doesn't touch the estimator's own ``random_state``.

    Attributes
    ----------
    estimator_ : classifier
        The fitted clone.
    corrupted_ : ndarray of shape (n_samples,), bool
        Mask of the labels that were changed.
    classes_ : ndarray of shape (n_classes,)
        The estimator's classes.
    n_features_in_ : int
        The estimator's number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        The estimator's feature names, if it has them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skbgmd.corruption import CorruptedLabels
    >>> X, y = load_iris(return_X_y=True)
    >>> model = CorruptedLabels(GaussianNB(), fraction=0.4, kind="backdoor", target=2, random_state=0).fit(X, y)
    >>> int(model.corrupted_.sum()), round(model.score(X, y), 2), round(GaussianNB().fit(X, y).score(X, y), 2)
    (40, 0.92, 0.96)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        fraction: float = 0.0,
        kind: str = "uniform",
        target: Any = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.fraction, self.kind, self.target, self.random_state = fraction, kind, target, random_state

    def fit(self, X: Any, y: ArrayLike, y_corrupt: ArrayLike | None = None, **params: Any) -> CorruptedLabels:
        """Fit the estimator to corrupt labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training rows, passed on as they are.
        y : array-like of shape (n_samples,)
            Clean labels.
        y_corrupt : array-like of shape (n_samples,), default=None
            Corrupt labels to use as they are. None: draw them.
        **params : dict
            Parameters for the estimator's ``fit``.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the estimator isn't a classifier: a regression has no labels to corrupt.
        ValueError
            If a parameter is out of its range, if y has no classes, if labels are masked or missing, or if X and y
            differ in length.
        """
        if not is_classifier(self.estimator):
            raise TypeError(f"estimator must be a classifier: only labels are corrupted; found {self.estimator!r}.")
        if y is None:
            raise ValueError("y must be given: CorruptedLabels requires y to be passed, but the target y is None.")
        check_consistent_length(X, y, y_corrupt)
        if y_corrupt is None:
            given, corrupted = corrupt_labels(
                y, fraction=self.fraction, kind=self.kind, target=self.target, random_state=self.random_state
            )
        else:
            labels = as_class_labels(y_corrupt, "y_corrupt")
            given = y_corrupt if is_column(y_corrupt) else labels
            corrupted = labels != as_class_labels(y)
        routed = self._routed("fit", params)
        self.estimator_ = clone(self.estimator).fit(X, given, **routed)
        self.corrupted_ = corrupted
        return self

    @_delegated("predict")
    def predict(self, X: Any, **params: Any) -> Any:
        """Predict classes by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        **params : dict
            For the estimator's ``predict``.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        return self._delegate("predict", X, **params)

    @_delegated("predict_proba")
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """Predict probabilities of the classes by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        **params : dict
            For the estimator's ``predict_proba``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return self._delegate("predict_proba", X, **params)

    @_delegated("predict_log_proba")
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """Predict logarithms of probabilities by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        **params : dict
            For the estimator's ``predict_log_proba``.

        Returns
        -------
        logarithms : ndarray of shape (n_samples, n_classes)
        """
        return self._delegate("predict_log_proba", X, **params)

    @_delegated("decision_function")
    def decision_function(self, X: Any, **params: Any) -> Any:
        """Confidence scores by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        **params : dict
            For the estimator's ``decision_function``.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        return self._delegate("decision_function", X, **params)

    @_delegated("score")
    def score(self, X: Any, y: ArrayLike, **params: Any) -> float:
        """Score of the fitted estimator on these labels, as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows.
        y : array-like of shape (n_samples,)
            Clean labels.
        **params : dict
            For the estimator's ``score``.

        Returns
        -------
        score : float
        """
        return float(self._delegate("score", X, y, **params))

    @property
    def classes_(self) -> NDArray[Any]:
        """The fitted estimator's classes."""
        classes: NDArray[Any] = self._fitted("classes_")
        return classes

    @property
    def n_features_in_(self) -> int:
        """The fitted estimator's number of features."""
        return int(self._fitted("n_features_in_"))

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """The fitted estimator's names of features."""
        names: NDArray[Any] = self._fitted("feature_names_in_")
        return names

    def get_metadata_routing(self) -> MetadataRouter:
        """Route metadata: ``y_corrupt`` stays here, all else goes to the estimator.

        Returns
        -------
        router : MetadataRouter
        """
        mapping = MethodMapping()
        for method in ("fit", "predict", "predict_proba", "predict_log_proba", "decision_function", "score"):
            mapping = mapping.add(caller=method, callee=method)
        router = MetadataRouter(owner=self)
        return router.add_self_request(self).add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = deepcopy(inner.classifier_tags)
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = False
        tags.input_tags = deepcopy(inner.input_tags)
        tags.non_deterministic, tags.no_validation = inner.non_deterministic, inner.no_validation
        return tags

    def _fitted(self, attribute: str) -> Any:
        if "estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has {attribute} once it is fitted.")
        return getattr(self.estimator_, attribute)

    def _delegate(self, method: str, *arrays: Any, **params: Any) -> Any:
        check_is_fitted(self)
        return getattr(self.estimator_, method)(*arrays, **self._routed(method, params))

    def _routed(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if not get_config()["enable_metadata_routing"]:
            return params
        routed: dict[str, Any] = process_routing(self, method, **params).estimator[method]
        return routed
