"""The classifier that is trained on corrupt labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.fixes import parse_version

from skbgmd.corruption import CorruptedLabels, corrupt_labels

IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_it_is_the_estimator_trained_on_corrupt_labels():
    X, y = IRIS
    model = CorruptedLabels(GaussianNB(), fraction=0.3, kind="pair", random_state=4).fit(X, NAMES[y])
    y_corrupt, corrupted = corrupt_labels(NAMES[y], fraction=0.3, kind="pair", random_state=4)
    plain = GaussianNB().fit(X, y_corrupt)
    np.testing.assert_array_equal(model.corrupted_, corrupted)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        np.testing.assert_array_equal(getattr(model, method)(X), getattr(plain, method)(X))
    np.testing.assert_array_equal(model.classes_, NAMES)
    assert model.n_features_in_ == 4
    assert model.score(X, NAMES[y]) == plain.score(X, NAMES[y])


def test_it_is_scored_on_clean_labels():
    X, y = IRIS
    # Every label is wrong: who learns them perfectly gets nothing right.
    model = CorruptedLabels(GaussianNB(), fraction=1.0, kind="pair")
    scores = cross_validate(model, X, y, return_train_score=True)
    assert scores["train_score"].max() < 0.05
    assert scores["test_score"].max() < 0.2


def test_methods_are_those_of_the_estimator():
    X, y = IRIS
    ridge = CorruptedLabels(RidgeClassifier())
    assert hasattr(ridge, "decision_function")
    assert not hasattr(ridge, "predict_proba")
    assert not hasattr(CorruptedLabels(GaussianNB()), "decision_function")
    assert not hasattr(ridge, "n_features_in_")
    assert not hasattr(ridge, "classes_")
    ridge.fit(X, y)
    np.testing.assert_array_equal(ridge.decision_function(X), RidgeClassifier().fit(X, y).decision_function(X))
    assert not hasattr(ridge, "feature_names_in_")
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert list(ridge.fit(frame, y).feature_names_in_) == list("abcd")


def test_tags_follow_the_estimator():
    assert is_classifier(CorruptedLabels(GaussianNB()))
    assert get_tags(CorruptedLabels(LinearSVC())).input_tags.sparse
    assert not get_tags(CorruptedLabels(GaussianNB())).input_tags.sparse
    assert get_tags(CorruptedLabels(DummyClassifier())).classifier_tags.poor_score


def test_regressors_are_refused():
    with pytest.raises(TypeError, match=r"estimator must be a classifier.*found LinearRegression\(\)"):
        CorruptedLabels(LinearRegression()).fit(*IRIS)


def test_given_corrupt_labels_are_used_as_they_are():
    X, y = IRIS
    given_labels = np.where(np.arange(150) < 20, 2, y)
    model = CorruptedLabels(GaussianNB(), fraction=1.0, kind="pair").fit(X, y, y_corrupt=given_labels)
    np.testing.assert_array_equal(model.predict(X), GaussianNB().fit(X, given_labels).predict(X))
    np.testing.assert_array_equal(model.corrupted_, given_labels != y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y, y_corrupt=given_labels[1:])


def test_metadata_without_routing():
    X, y = IRIS
    weight = np.where(y == 0, 0.01, 1.0)
    model = CorruptedLabels(GaussianNB()).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(model.estimator_.class_prior_, GaussianNB().fit(X, y, weight).class_prior_)
    assert model.score(X, y, sample_weight=weight) == model.estimator_.score(X, y, sample_weight=weight)


@pytest.mark.usefixtures("routing")
def test_metadata_is_routed():
    X, y = IRIS
    weight, wrong = np.where(y == 0, 0.01, 1.0), (y + 1) % 3
    inner = GaussianNB().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    model = CorruptedLabels(inner).set_fit_request(y_corrupt=True)
    fitted = clone(model).fit(X, y, y_corrupt=wrong, sample_weight=weight)
    np.testing.assert_array_equal(fitted.estimator_.class_prior_, GaussianNB().fit(X, wrong, weight).class_prior_)
    assert fitted.score(X, y, sample_weight=weight) == fitted.estimator_.score(X, y, sample_weight=weight)
    with pytest.raises(TypeError, match="not routed to any object"):
        CorruptedLabels(GaussianNB()).fit(X, y, other=weight)
    if parse_version(sklearn.__version__) < parse_version("1.8"):
        return  # Searches don't ask pipelines what their scores request.
    # Through a pipeline and a search, each fold gets its own part.
    search = GridSearchCV(make_pipeline(MinMaxScaler(), model), {"corruptedlabels__fraction": [0.0]}, cv=3)
    search.fit(X, y, y_corrupt=wrong, sample_weight=weight)
    assert search.best_score_ < 0.1
    np.testing.assert_allclose(search.best_estimator_[-1].estimator_.class_prior_, fitted.estimator_.class_prior_)


def test_parameters_are_searched():
    search = GridSearchCV(
        CorruptedLabels(LogisticRegression(max_iter=500), kind="pair"),
        {"fraction": [0.9, 0.0], "estimator__C": [1.0]},
        cv=3,
    ).fit(*IRIS)
    assert search.best_params_ == {"fraction": 0.0, "estimator__C": 1.0}


class Remembers(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.seen_, self.classes_ = y, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_a_series_is_handed_on_as_one():
    X = np.zeros((20, 1))
    y = pd.Series(list("abab") * 5, dtype="category", name="label", index=range(5, 25))
    model = CorruptedLabels(Remembers(), fraction=0.5, random_state=0).fit(X, y)
    assert (model.estimator_.seen_.dtype, model.estimator_.seen_.name) == (y.dtype, "label")
    assert model.estimator_.seen_.index.equals(y.index)
    given = y.copy()
    given.iloc[:3] = "a"
    model.fit(X, y, y_corrupt=given)
    assert model.estimator_.seen_ is given
    assert model.corrupted_.tolist() == (given != y).tolist()
