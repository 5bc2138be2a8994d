"""Losses of samples; those of several labels are beside the other tests of such."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.inspection import label_losses, sample_losses


def test_losses_are_of_targets_that_can_be() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:60] / 16.0, y[:60]
    model = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"labels among the classes.*found \[-1\]"):
        sample_losses(model, X, np.where(np.arange(60) == 3, -1, y))
    X, y = make_regression(50, 3, random_state=0)
    regressor = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y)
    assert sample_losses(regressor, X, y[:, None]).tolist() == sample_losses(regressor, X, y).tolist()
    with pytest.raises(ValueError, match=r"shape of the predictions, \(50,\); found \(50, 2\)"):
        sample_losses(regressor, X, np.stack([y, y], axis=1))
    both = BlockGMDRegressor(max_epochs=1).fit(X[:5], np.stack([y[:5]] * 2, axis=1))
    with pytest.raises(ValueError, match=r"found \(2, 5\)"):
        sample_losses(both, X[:5], np.stack([y[:5]] * 2))


CLASSIFIERS = {
    "robust": BlockGMDClassifier(max_epochs=1, random_state=0),
    "pipeline": make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=1, random_state=0)),
    "other": LogisticRegression(max_iter=200),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_labels_are_as_many_as_samples(kind: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(60, 3))
    y = np.where(X[:, 0] > 0.0, "yes", "no")
    model = CLASSIFIERS[kind].fit(X, y)
    for n_samples, n_labels in ((60, 40), (60, 1), (60, 0), (40, 60), (1, 60)):
        with pytest.raises(ValueError, match=rf"y must have a label for each of the {n_samples} .* found {n_labels}\."):
            sample_losses(model, X[:n_samples], y[:n_labels])
    expected = sample_losses(model, X, y)
    assert expected.shape == (60,)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        np.testing.assert_array_equal(sample_losses(model, X, y[:, None]), expected)
    with pytest.raises(ValueError, match="y must"):
        sample_losses(model, X, y[None])
    with pytest.raises(ValueError, match=r"y must have shape \(n,\); found shape \(\)"):
        sample_losses(model, X, y[0])


def test_targets_are_as_many_as_samples(rng: np.random.Generator) -> None:
    X = rng.normal(size=(60, 3))
    model = BlockGMDRegressor(max_epochs=1, random_state=0).fit(X, X[:, 0])
    for wrong in (X[:40, 0], X[:1, 0], X[:0, 0], X[:0], X[0, 0]):
        with pytest.raises(ValueError, match=r"y must have the shape of the predictions, \(60,\); found \("):
            sample_losses(model, X, wrong)


def test_several_labels_are_no_classes(rng: np.random.Generator) -> None:
    X = rng.normal(size=(60, 3))
    y = (X[:, :2] > 0.0).astype(int)
    model = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=1, random_state=0)).fit(X, y)
    for wrong in (y[:, 0], y[:, :1], y[:40], y[:0]):
        with pytest.raises(ValueError, match="y must be an indicator matrix"):
            sample_losses(model, X, wrong)
    given = torch.tensor(y, dtype=torch.float64, requires_grad=True)
    np.testing.assert_array_equal(label_losses(model, X, given), label_losses(model, X, y))
    np.testing.assert_array_equal(sample_losses(model, X, given), label_losses(model, X, y).mean(axis=1))


@pytest.mark.parametrize(
    "model",
    [
        LinearSVC(random_state=0),
        make_pipeline(RidgeClassifier()),
        GridSearchCV(SVC(random_state=0), {"C": [1.0]}, cv=2),
    ],
)
def test_classifiers_without_probabilities_have_no_losses(model):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="estimator must be a classifier with predict_proba, or a regressor; found"):
        sample_losses(model.fit(X, y), X, y)


def test_classes_in_any_order():
    X, y = load_iris(return_X_y=True)
    model = GaussianNB().fit(X, y)
    expected, order = sample_losses(model, X, y), np.array([2, 0, 1])
    shuffled = SimpleNamespace(classes_=model.classes_[order], predict_proba=lambda X: model.predict_proba(X)[:, order])
    np.testing.assert_array_equal(sample_losses(shuffled, X, y), expected)
