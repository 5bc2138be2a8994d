"""Corruption of labels: the function, the classifier around a classifier, and the sampler."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags

from skbgmd.corruption import CorruptedLabels, LabelCorruption, corrupt_labels

IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.parametrize("kind", ["uniform", "pair", "backdoor"])
@given(
    codes=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    alphabet=st.sampled_from([np.arange(5), np.array(list("zyxwv")), np.array([0.0, 2.0, -3.0, 7.0, 1.0])]),
    fraction=st.sampled_from([0.0, 0.1, 0.29, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_exactly_the_drawn_labels_change(kind, codes, alphabet, fraction, seed):
    y = alphabet[codes]
    before = y.copy()
    target = y[0] if kind == "backdoor" else None
    y_corrupt, corrupted = corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=seed)
    eligible = len(y) if kind != "backdoor" else int((y != target).sum())
    assert corrupted.sum() == (int(np.floor(fraction * eligible + 1e-9)) if len(set(codes)) > 1 else 0)
    np.testing.assert_array_equal(y != y_corrupt, corrupted)
    np.testing.assert_array_equal(y, before)
    assert y_corrupt.dtype == y.dtype
    assert set(y_corrupt) <= set(y)
    if kind == "backdoor":
        assert (y_corrupt[corrupted] == target).all()
    again = corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=seed)
    np.testing.assert_array_equal(again[0], y_corrupt)


def test_uniform_draws_the_other_classes_at_even_odds():
    y_corrupt, corrupted = corrupt_labels(np.full(9000, 2), fraction=1.0, classes=range(4), random_state=0)
    assert corrupted.all()
    counts = np.bincount(y_corrupt, minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts[[0, 1, 3]], 3000, rtol=0.05)


def test_pair_goes_to_the_next_class_and_around():
    y = np.array(["coat", "bag", "shirt", "dress"])
    y_corrupt, _ = corrupt_labels(y, fraction=1.0, kind="pair")
    assert y_corrupt.tolist() == ["dress", "coat", "bag", "shirt"]


def test_backdoor_draws_from_the_other_classes_only():
    y = np.repeat([0, 1, 2], [70, 20, 10])
    y_corrupt, corrupted = corrupt_labels(y, fraction=0.4, kind="backdoor", target=0, random_state=0)
    assert corrupted[:70].sum() == 0
    assert corrupted.sum() == 12
    assert (y_corrupt[corrupted] == 0).all()
    everything, _ = corrupt_labels(y, fraction=1.0, kind="backdoor", target=0)
    assert not everything.any()


@pytest.mark.parametrize("kind", ["uniform", "pair", "backdoor"])
def test_a_single_class_stays(kind):
    target = "a" if kind == "backdoor" else None
    y_corrupt, corrupted = corrupt_labels(["a", "a"], fraction=1.0, kind=kind, target=target)
    assert y_corrupt.tolist() == ["a", "a"]
    assert not corrupted.any()


def test_classes_that_are_not_in_y():
    y_corrupt, corrupted = corrupt_labels(
        ["a", "b", "a"], fraction=1.0, kind="backdoor", classes=["a", "b", "longer"], target="longer"
    )
    assert y_corrupt.tolist() == ["longer"] * 3
    assert corrupted.all()
    with pytest.raises(ValueError, match=r"classes must hold every label of y; found .*'b'"):
        corrupt_labels(["a", "b"], fraction=0.5, classes=["a", "c"])


@pytest.mark.parametrize(
    "y", [pd.Series(["u", "v", "u", "v"], dtype="category"), pd.Series([True, False, True, False]), [1, 2, 1, 2]]
)
def test_kinds_of_labels(y):
    y_corrupt, corrupted = corrupt_labels(y, fraction=0.5, random_state=0)
    assert isinstance(y_corrupt, np.ndarray)
    np.testing.assert_array_equal(y_corrupt != np.asarray(y), corrupted)
    assert corrupted.sum() == 2


def test_more_labels_include_those_of_fewer():
    y = np.arange(100) % 5
    for kind, target in (("uniform", None), ("backdoor", 3)):
        masks = [
            corrupt_labels(y, fraction=fraction, kind=kind, target=target, random_state=2)[1]
            for fraction in (0.1, 0.2, 0.6)
        ]
        assert (masks[0] <= masks[1]).all()
        assert (masks[1] <= masks[2]).all()


@pytest.mark.parametrize(
    ("y", "parameters", "kind", "message"),
    [
        ([0, 1], {"fraction": 1.5}, ValueError, r"fraction must be at least 0 and at most 1; found 1\.5"),
        ([0, 1], {"fraction": None}, TypeError, "fraction must be a number"),
        ([0, 1], {"fraction": 0.5, "kind": "all"}, ValueError, "kind must be one of 'uniform', 'pair', 'backdoor'"),
        ([0, 1], {"fraction": 0.5, "kind": "backdoor"}, ValueError, r"target must be one of the classes \[0, 1\]"),
        ([0, 1], {"fraction": 0.5, "kind": "backdoor", "target": 2}, ValueError, "for kind='backdoor'; found 2"),
        ([0, 1], {"fraction": 0.5, "target": 1}, ValueError, "target must be None unless kind is 'backdoor'; found 1"),
        ([0.5, 1.5], {"fraction": 0.5}, ValueError, "Unknown label type: continuous"),
        ([0.0, np.nan], {"fraction": 0.5}, ValueError, "y contains NaN"),
        ([[0, 1], [1, 0]], {"fraction": 0.5}, ValueError, "y should be a 1d array"),
    ],
)
def test_what_is_refused(y, parameters, kind, message):
    with pytest.raises(kind, match=message):
        corrupt_labels(y, **parameters)


# The classifier


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
    # Through a pipeline and a search, each fold gets its own part.
    search = GridSearchCV(make_pipeline(MinMaxScaler(), model), {"corruptedlabels__fraction": [0.0]}, cv=3)
    search.fit(X, y, y_corrupt=wrong, sample_weight=weight)
    assert search.best_score_ < 0.1
    np.testing.assert_allclose(search.best_estimator_[-1].estimator_.class_prior_, fitted.estimator_.class_prior_)
    with pytest.raises(TypeError, match="not routed to any object"):
        CorruptedLabels(GaussianNB()).fit(X, y, other=weight)


def test_parameters_are_searched():
    search = GridSearchCV(
        CorruptedLabels(LogisticRegression(max_iter=500), kind="pair"),
        {"fraction": [0.9, 0.0], "estimator__C": [1.0]},
        cv=3,
    ).fit(*IRIS)
    assert search.best_params_ == {"fraction": 0.0, "estimator__C": 1.0}


# The sampler


def test_sampler_is_the_function():
    X, y = IRIS
    frame = pd.DataFrame(X)
    sampler = LabelCorruption(fraction=0.4, kind="backdoor", target=1, random_state=7)
    X_same, y_corrupt = sampler.fit_resample(frame, y)
    expected, corrupted = corrupt_labels(y, fraction=0.4, kind="backdoor", target=1, random_state=7)
    assert X_same is frame
    np.testing.assert_array_equal(y_corrupt, expected)
    np.testing.assert_array_equal(sampler.corrupted_, corrupted)
    assert corrupted.sum() == 40
    assert not sampler.fit(X, y).corrupted_.any()


def test_sampler_takes_any_features():
    X = np.array([["red", None], ["blue", np.nan], ["red", 3]], dtype=object)
    assert LabelCorruption(fraction=1.0, kind="pair").fit_resample(X, [0, 1, 0])[1].tolist() == [1, 0, 1]


def test_sampler_speaks_the_protocol_of_samplers():
    sampler = LabelCorruption()
    # A step that also transforms would be taken for a transformer.
    assert hasattr(sampler, "fit_resample")
    assert not hasattr(sampler, "transform")
    assert not hasattr(sampler, "fit_transform")
    with pytest.raises(ValueError, match="fraction must be at least 0"):
        LabelCorruption(fraction=-1).fit_resample(*IRIS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sampler.fit_resample(IRIS[0], IRIS[1][1:])
