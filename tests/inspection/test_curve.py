"""Robustness curves: what is corrupt and what is scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.covariance import EmpiricalCovariance, MinCovDet
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from conftest import end_workers
from skbgmd.aggregators import get_aggregator
from skbgmd.corruption import BitFlip, GaussianNoise, ImpulseNoise, LabelCorruption
from skbgmd.inspection import robustness_curve
from skbgmd.inspection.curve import gradient_parameter
from skbgmd.rows import DenseRows

IRIS = load_iris(return_X_y=True)


@pytest.fixture(autouse=True, scope="module")
def _no_idle_workers():
    """Joblib's workers serve all tests here, which follow one another: they take seconds to start."""
    yield
    end_workers()


class DescentRegressor(RegressorMixin, BaseEstimator):
    """Least squares by steps along an aggregate of gradients, one of each group of samples."""

    def __init__(self, aggregator="mean", gradient_corruption=None, n_steps=60):
        self.aggregator, self.gradient_corruption, self.n_steps = aggregator, gradient_corruption, n_steps

    def fit(self, X, y):
        X, y = torch.as_tensor(X), torch.as_tensor(y)
        aggregator, state, source = get_aggregator(self.aggregator), None, np.random.RandomState(0)
        weight = torch.zeros(X.shape[1], dtype=X.dtype)
        for _ in range(self.n_steps):
            gradients = torch.stack(
                [x.T @ (x @ weight - t) / len(x) for x, t in zip(X.split(4), y.split(4), strict=True)]
            )
            if self.gradient_corruption is not None:
                self.gradient_corruption.apply_(gradients, source)
            aggregate, state = aggregator(DenseRows(gradients), state)
            weight -= 0.2 * aggregate.vector
        self.coef_ = weight.numpy()
        return self

    def predict(self, X):
        return np.asarray(X) @ self.coef_


@pytest.fixture
def regression(rng):
    X = rng.normal(size=(96, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=96)


def test_without_corruption_it_is_cross_validation():
    X, y = IRIS
    for corruption in (GaussianNoise(), LabelCorruption()):
        fractions, train, test = robustness_curve(GaussianNB(), X, y, corruption=corruption, fractions=[0.0], cv=4)
        expected = cross_validate(GaussianNB(), X, y, cv=4, return_train_score=True)
        assert fractions.tolist() == [0.0]
        np.testing.assert_array_equal(train[0], expected["train_score"])
        np.testing.assert_array_equal(test[0], expected["test_score"])


def test_shapes_and_defaults():
    fractions, train, test = robustness_curve(GaussianNB(), *IRIS, corruption=GaussianNoise(std=30.0), random_state=0)
    assert fractions.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert train.shape == test.shape == (5, 5)
    assert test[-1].mean() < test[0].mean()


def test_features_are_corrupt_in_the_training_part_only(regression):
    X, y = regression
    seen = []

    class Looking(Ridge):
        def fit(self, X, y):
            seen.append(("fit", X.copy()))
            return super().fit(X, y)

        def score(self, X, y):
            seen.append(("score", X.copy()))
            return super().score(X, y)

    splitter = KFold(3)
    robustness_curve(Looking(), X, y, corruption=GaussianNoise(std=5.0), fractions=[0.25], cv=splitter, random_state=1)
    for fold, (train, test) in enumerate(splitter.split(X)):
        (_, fitted), (_, first), (_, second) = seen[3 * fold : 3 * fold + 3]
        assert (fitted != X[train]).any(axis=1).sum() == len(train) // 4
        np.testing.assert_array_equal(first, X[train])
        np.testing.assert_array_equal(second, X[test])


def test_labels_are_corrupt_in_the_training_part_only():
    X, y = IRIS
    _, train, test = robustness_curve(
        GaussianNB(), X, y, corruption=LabelCorruption(kind="pair"), fractions=[0.0, 1.0], random_state=0
    )
    # Trained on labels that are all wrong, and scored on those that are right.
    assert train[0].min() > 0.9
    assert max(train[1].max(), test[1].max()) < 0.1


def test_gradients_are_corrupt_by_the_estimators_parameter(regression):
    X, y = regression
    options = {"corruption": BitFlip(), "fractions": [0.0, 0.3], "cv": 3, "random_state": 0, "scoring": "r2"}
    scores = {
        name: robustness_curve(DescentRegressor(name), X, y, **options)[2] for name in ("mean", "geometric_median")
    }
    assert scores["mean"][0].min() > 0.9
    assert not scores["mean"][1].max() > 0.0
    assert scores["geometric_median"].min() > 0.9
    by_name = robustness_curve(DescentRegressor("mean"), X, y, **(options | {"corruption": "bit_flip"}))[2]
    np.testing.assert_array_equal(by_name, scores["mean"])
    with pytest.raises(ValueError, match=r"^corruption must be an instance such as LabelC.*; found 'pair'"):
        robustness_curve(DescentRegressor("mean"), X, y, **(options | {"corruption": "pair"}))


def test_gradient_parameter_of_a_part(regression):
    X, y = regression
    pipeline = make_pipeline(StandardScaler(), DescentRegressor("geometric_median"))
    assert gradient_parameter(pipeline) == "descentregressor__gradient_corruption"
    assert gradient_parameter(DescentRegressor(gradient_corruption=BitFlip())) == "gradient_corruption"
    _, _, test = robustness_curve(pipeline, X, y, corruption=BitFlip(), fractions=[0.2], cv=3, random_state=0)
    assert test.min() > 0.9
    assert pipeline[-1].gradient_corruption is None
    with pytest.raises(ValueError, match=r"must have one parameter gradient_corruption.*found none in Ridge\(\)"):
        robustness_curve(Ridge(), X, y, corruption=BitFlip())
    two = Pipeline([("a", DescentRegressor()), ("b", DescentRegressor())])
    with pytest.raises(ValueError, match="found a__gradient_corruption, b__gradient_corruption in"):
        gradient_parameter(two)


@pytest.mark.parametrize(
    "corruption",
    [GaussianNoise(), ImpulseNoise(), LabelCorruption(), LabelCorruption(kind="backdoor", target=0)],
    ids=lambda corruption: f"{type(corruption).__name__}",
)
def test_a_seed_decides_everything_whatever_the_number_of_jobs(corruption):
    def curve(**options):
        return robustness_curve(GaussianNB(), *IRIS, corruption=corruption, fractions=[0.0, 0.3], **options)

    before = corruption.get_params()
    one = curve(random_state=3, n_jobs=1)
    for got, expected in zip(curve(random_state=3, n_jobs=2), one, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert (curve(random_state=4)[2][1] != one[2][1]).any()
    np.testing.assert_array_equal(curve(random_state=4)[2][0], one[2][0])
    assert corruption.get_params() == before


def test_folds_have_seeds_of_their_own_and_fractions_share_them():
    X, y = np.zeros((40, 2)), np.arange(40.0)
    masks = []

    class Looking(LinearRegression):
        def fit(self, X, y):
            masks.append((X != 0).any(axis=1))
            return super().fit(X, y)

    robustness_curve(Looking(), X, y, corruption=GaussianNoise(), fractions=[0.2, 0.4], cv=2, random_state=0)
    assert (masks[0] <= masks[1]).all()
    assert (masks[2] <= masks[3]).all()
    assert (masks[0] != masks[2]).any()


@pytest.mark.parametrize("module", ["pandas", None])
def test_frames_keep_their_names(module):
    X = pd.DataFrame(IRIS[0], columns=list("abcd")) if module else IRIS[0].tolist()
    _, _, test = robustness_curve(
        GaussianNB(), X, IRIS[1].tolist(), corruption=GaussianNoise(), fractions=[0.2], random_state=0
    )
    expected = robustness_curve(GaussianNB(), *IRIS, corruption=GaussianNoise(), fractions=[0.2], random_state=0)[2]
    np.testing.assert_array_equal(test, expected)


def test_groups_scoring_and_metadata_are_handed_on():
    X, y = IRIS
    groups, weight = np.arange(150) % 3, np.where(y == 1, 0.01, 1.0)
    _, _, test = robustness_curve(
        GaussianNB(),
        X,
        y,
        corruption=GaussianNoise(),
        fractions=[0.0],
        groups=groups,
        cv=GroupKFold(3),
        scoring="neg_log_loss",
        params={"sample_weight": weight},
    )
    expected = cross_validate(
        GaussianNB(), X, y, groups=groups, cv=GroupKFold(3), scoring="neg_log_loss", params={"sample_weight": weight}
    )
    np.testing.assert_array_equal(test[0], expected["test_score"])
    options = {"corruption": GaussianNoise(), "fractions": [0.0]}
    array, listed, unweighted = (
        robustness_curve(GaussianNB(), X, y, **options, params=params)[2]
        for params in ({"sample_weight": weight}, {"sample_weight": weight.tolist()}, None)
    )
    np.testing.assert_array_equal(listed, array)
    assert (array != unweighted).any()


def test_metadata_is_routed():
    X, y = IRIS
    groups, weight = np.arange(150) % 3, np.where(y == 0, 0.01, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        options = {
            "cv": GroupKFold(3).set_split_request(groups=True),
            "scoring": make_scorer(accuracy_score).set_score_request(sample_weight=True),
            "params": {"sample_weight": weight, "groups": groups},
        }
        model = GaussianNB().set_fit_request(sample_weight=True)
        _, train, test = robustness_curve(model, X, y, corruption=GaussianNoise(), fractions=[0.0], **options)
        expected = cross_validate(model, X, y, return_train_score=True, **options)
        np.testing.assert_array_equal(train[0], expected["train_score"])
        np.testing.assert_array_equal(test[0], expected["test_score"])
        with pytest.raises(ValueError, match="groups must be passed in params"):
            robustness_curve(model, X, y, corruption=GaussianNoise(), groups=groups)


class Failing(GaussianNB):
    """Fails in the folds whose training part holds the first sample."""

    def fit(self, X, y):
        if (IRIS[0][0] == X).all(axis=1).any():
            raise RuntimeError("no such luck")
        return super().fit(X, y)


def test_failures():
    X, y = IRIS
    cv = StratifiedKFold(3)
    options = {"corruption": LabelCorruption(), "fractions": [0.0, 0.2], "cv": cv, "random_state": 0}
    n_failing = sum((X[train] == X[0]).all(axis=1).any() for train, _ in cv.split(X, y))
    assert 0 < n_failing < 3
    with pytest.warns(FitFailedWarning, match=rf"(?s){2 * n_failing} of 6 fits failed, and count as nan.*no such luck"):
        _, train, test = robustness_curve(Failing(), X, y, **options)
    assert np.isnan(train).sum() == np.isnan(test).sum() == 2 * n_failing
    with pytest.warns(FitFailedWarning):
        assert (robustness_curve(Failing(), X, y, error_score=-1.0, **options)[2] == -1.0).sum() == 2 * n_failing
    with pytest.raises(RuntimeError, match="no such luck"):
        robustness_curve(Failing(), X, y, error_score="raise", **options)
    with pytest.raises(ValueError, match=r"(?s)All 6 fits failed.*no such luck"):
        robustness_curve(Failing(), np.tile(X[0], (150, 1)), y, **options)


class Plain(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"corruption": BitFlip(corrupt=[1])}, ValueError, r"must have corrupt=None .*found fixed rows, corrupt=\[1\]"),
        ({"corruption": GaussianNoise}, TypeError, "corruption must be an instance with a parameter fraction"),
        ({"corruption": MinMaxScaler()}, TypeError, r"found MinMaxScaler\(\)"),
        ({"corruption": Plain()}, TypeError, r"found Plain\(\)"),
        ({"corruption": None}, TypeError, "found None"),
        ({"corruption": "noise"}, ValueError, "^corruption must be an instance such as"),
        ({"fractions": [0.0, 1.5]}, ValueError, r"Each of fractions must be at least 0 and at most 1; found 1\.5"),
        ({"fractions": 0.5}, ValueError, r"fractions must have one dimension.*found shape \(\)"),
        ({"fractions": []}, ValueError, r"found shape \(0,\)"),
        ({"scoring": ["accuracy", "r2"]}, TypeError, "scoring must be None, a name or a callable"),
        ({"error_score": "ignore"}, ValueError, "error_score must be 'raise' or a number; found 'ignore'"),
        ({"corruption": GaussianNoise(std=-1)}, ValueError, "std must be greater than 0"),
    ],
)
def test_what_is_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        robustness_curve(GaussianNB(), *IRIS, **({"corruption": GaussianNoise()} | options))


def test_tensors_with_a_gradient_are_targets():
    X, y = IRIS[0][:60], IRIS[0][:60, 0] * 2.0
    of_grad = torch.tensor(y, requires_grad=True)
    settings = {"corruption": GaussianNoise(), "fractions": [0.2], "cv": 2, "random_state": 0}
    model = DescentRegressor(n_steps=3)
    found, expected = (
        robustness_curve(make_pipeline(MinMaxScaler(), model), *data, **settings, error_score="raise")
        for data in ((X, of_grad), (X, y))
    )
    np.testing.assert_array_equal(found[2], expected[2])


def test_estimators_without_targets_are_scored():
    options = {"corruption": GaussianNoise(std=3.0), "fractions": [0.0, 0.2], "cv": 3, "random_state": 0}
    plain, robust = (
        robustness_curve(covariance, IRIS[0], None, **options)[2].mean(axis=1)
        for covariance in (EmpiricalCovariance(), MinCovDet(random_state=0))
    )
    np.testing.assert_array_equal(
        plain, robustness_curve(EmpiricalCovariance(), IRIS[0], np.zeros(150), **options)[2].mean(axis=1)
    )
    assert np.ptp(robust) < 0.7 * np.ptp(plain)
    with pytest.raises(ValueError, match="y must be given: LabelCorruption requires y"):
        robustness_curve(EmpiricalCovariance(), IRIS[0], None, corruption=LabelCorruption())


def test_columns_whose_names_are_numbers_have_no_names(recwarn):
    X, y = IRIS
    options = {"corruption": GaussianNoise(std=3.0), "fractions": [0.0, 0.2], "cv": 3, "random_state": 0}
    scores, expected = (robustness_curve(GaussianNB(), rows, y, **options)[2] for rows in (pd.DataFrame(X), X))
    np.testing.assert_array_equal(scores, expected)
    assert not recwarn.list


def test_texts_are_samples():
    texts, y = ["red", "red wine", "blue", "blue sky"] * 10, [0, 0, 1, 1] * 10
    model = make_pipeline(CountVectorizer(), MultinomialNB())
    options = {"corruption": LabelCorruption(), "fractions": [0.0, 1.0], "cv": 2, "random_state": 0}
    for samples in (texts, pd.Series(texts)):
        assert robustness_curve(model, samples, y, **options)[2].mean(axis=1).tolist() == [1.0, 0.0]
