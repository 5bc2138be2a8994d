"""The estimators within what users of scikit-learn put around them; README.md lists these and all other workflows."""

from __future__ import annotations

import ast
import re
from functools import cache, partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import RFE, SelectKBest, SequentialFeatureSelector
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.inspection import (
    DecisionBoundaryDisplay,
    PartialDependenceDisplay,
    partial_dependence,
    permutation_importance,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, PredictionErrorDisplay, RocCurveDisplay
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    LearningCurveDisplay,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
    ValidationCurveDisplay,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, OneHotEncoder, StandardScaler, scale
from sklearn.semi_supervised import SelfTrainingClassifier
from torch.utils.data import DataLoader, TensorDataset, random_split

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import GaussianNoise

TESTS = Path(__file__).parent


QUICK = {"lr": 0.05, "hidden_layer_sizes": (8,), "strength": None, "random_state": 0}


def classifier(**settings):
    return BlockGMDClassifier(**{**QUICK, "max_epochs": 12, **settings})


def regressor(**settings):
    return BlockGMDRegressor(**{**QUICK, "max_epochs": 15, **settings})


RATES = {"lr": [1e-9, 0.05]}


@pytest.fixture
def iris():
    found = load_iris()
    return scale(found.data), found.target_names[found.target]


# ---- searches and validation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "search",
    [
        lambda: HalvingGridSearchCV(
            classifier(), RATES, cv=2, resource="max_epochs", min_resources=4, max_resources=12, random_state=0
        ),
        lambda: RandomizedSearchCV(classifier(), RATES, n_iter=2, cv=2, random_state=0),
        lambda: GridSearchCV(
            classifier(), RATES, cv=2, scoring={"a": "accuracy", "likelihood": "neg_log_loss"}, refit="a"
        ),
    ],
    ids=["halving", "randomized", "several scores"],
)
def test_searches(iris, search):
    X, y = iris
    found = search().fit(X, y)
    assert found.best_params_["lr"] == 0.05
    assert found.score(X, y) > 0.6


def test_splits_by_groups_and_by_time(iris, line):
    X, y = iris
    groups = np.arange(150) % 6
    probabilities = cross_val_predict(classifier(), X, y, groups=groups, cv=GroupKFold(3), method="predict_proba")
    assert (np.unique(y)[probabilities.argmax(axis=1)] == y).mean() > 0.85
    assert cross_val_score(classifier(), X, y, groups=np.arange(150) % 3, cv=LeaveOneGroupOut()).min() > 0.75
    assert cross_val_score(regressor(), *line, cv=TimeSeriesSplit(2)).min() > 0.5


def test_any_scorer(iris):
    X, y = iris
    names = ["accuracy", "balanced_accuracy", "neg_log_loss", "roc_auc_ovr", "f1_macro", "top_k_accuracy"]
    found = cross_validate(classifier(), X, y, cv=2, scoring=names, return_estimator=True, return_train_score=True)
    assert found["test_roc_auc_ovr"].min() > 0.9
    assert {f"test_{name}" for name in names} <= set(found)
    assert [each.n_iter_ for each in found["estimator"]] == [12, 12]


def test_curves(iris):
    X, y = iris
    options = {"cv": 2, "train_sizes": [0.2, 1.0], "shuffle": True, "random_state": 0}
    lengths, _, scores = learning_curve(classifier(), X, y, **options)
    assert lengths.tolist() == [15, 75]
    assert scores.min() > 0.5
    by_parts = learning_curve(classifier(), X, y, exploit_incremental_learning=True, **options)
    assert by_parts[2].shape == (2, 2)
    slow, fast = validation_curve(classifier(), X, y, param_name="lr", param_range=[1e-9, 0.05], cv=2)[1].mean(axis=1)
    assert fast > slow
    _, shuffled, p = permutation_test_score(classifier(), X, y, n_permutations=4, cv=2, random_state=0)
    assert p == 1 / 5 > shuffled.max() - 0.5


def test_threads_give_what_processes_give(iris):
    X, y = iris
    expected = cross_val_score(classifier(), X, y, cv=2)
    with joblib.parallel_config(backend="threading"):
        np.testing.assert_array_equal(cross_val_score(classifier(), X, y, cv=2, n_jobs=2), expected)


# ---- estimators of estimators ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: VotingClassifier([("robust", classifier()), ("linear", LogisticRegression())], voting="soft"),
        lambda: StackingClassifier([("robust", classifier()), ("linear", LogisticRegression())], cv=2),
        lambda: BaggingClassifier(classifier(), n_estimators=2, random_state=0),
        lambda: AdaBoostClassifier(classifier(), n_estimators=2, random_state=0),
        lambda: OneVsRestClassifier(classifier()),
        lambda: OneVsOneClassifier(classifier()),
        lambda: OutputCodeClassifier(classifier(), random_state=0),
        lambda: CalibratedClassifierCV(classifier(), cv=2),
        lambda: CalibratedClassifierCV(classifier(), method="isotonic", cv=2),
    ],
)
def test_classifiers_of_classifiers(iris, make):
    X, y = iris
    assert make().fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize(
    "make",
    [
        lambda: VotingRegressor([("robust", regressor()), ("linear", Ridge())]),
        lambda: StackingRegressor([("robust", regressor()), ("linear", Ridge())], cv=2),
        lambda: BaggingRegressor(regressor(), n_estimators=2, random_state=0),
        lambda: AdaBoostRegressor(regressor(), n_estimators=2, random_state=0),
        lambda: TransformedTargetRegressor(regressor(), func=np.cbrt, inverse_func=lambda y: y**3, check_inverse=False),
        lambda: TransformedTargetRegressor(regressor(), transformer=StandardScaler()),
    ],
)
def test_regressors_of_regressors(line, make):
    X, y = line
    assert make().fit(X, y).score(X, y) > 0.8


def test_several_outputs_by_several_estimators(data, line):
    X, _ = data
    labels = (X[:, :3] > 0).astype(int)
    for kind in (ClassifierChain, MultiOutputClassifier):
        assert (kind(classifier()).fit(X, labels).predict(X) == labels).mean() > 0.85
    X, y = line
    for kind in (RegressorChain, MultiOutputRegressor):
        assert kind(regressor()).fit(X, np.stack([y, -y], axis=1)).score(X, np.stack([y, -y], axis=1)) > 0.8


def test_thresholds_and_labels_that_are_missing(iris):
    X, y = iris
    rare = y == "virginica"
    tuned = TunedThresholdClassifierCV(classifier(), cv=2, scoring="balanced_accuracy").fit(X, rare)
    assert 0.0 < tuned.best_threshold_ < 1.0
    always, never = (FixedThresholdClassifier(classifier(), threshold=at).fit(X, rare).predict(X) for at in (0.0, 1.0))
    assert always.all()
    assert not never.any()
    codes = np.unique(y, return_inverse=True)[1]
    known = np.where(np.arange(150) % 3, codes, -1)
    assert SelfTrainingClassifier(classifier()).fit(X, known).score(X, codes) > 0.85


def test_labels_that_are_sets(iris):
    X, y = iris
    tags = [("small", name) if x[2] < 0 else (name,) for x, name in zip(X, y, strict=True)]
    names = MultiLabelBinarizer()
    indicators = names.fit_transform(tags)
    found = names.inverse_transform(classifier(max_epochs=40).fit(X, indicators).predict(X))
    assert np.mean([set(each) == set(given) for each, given in zip(found, tags, strict=True)]) > 0.8


# ---- preparation and frames ------------------------------------------------------------------------------------------


def test_columns_of_many_kinds(iris, tmp_path):
    X, y = iris
    frame = pd.DataFrame({"length": X[:, 2], "width": X[:, 3], "kind": np.where(X[:, 0] > 0, "long", "short")})
    frame.loc[3, "length"] = np.nan
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["length", "width"]),
        (OneHotEncoder(sparse_output=False), ["kind"]),
        verbose_feature_names_out=False,
    )
    model = make_pipeline(columns, GaussianNoise(0.1, random_state=0), classifier(), memory=str(tmp_path))
    model = model.set_output(transform="pandas").fit(frame, pd.Series(y, dtype="category"))
    assert model.score(frame, y) > 0.85
    assert model[-1].feature_names_in_.tolist() == ["length", "width", "kind_long", "kind_short"]


def test_features_are_chosen_by_it(iris):
    X, y = iris
    X = np.hstack([X[:, 2:], np.random.default_rng(0).normal(size=(150, 2))])

    def sizes(model):
        return model.module_[0].weight.detach().abs().sum(dim=0).numpy()

    union = FeatureUnion([("components", PCA(1)), ("best", SelectKBest(k=1))])
    assert make_pipeline(union, classifier()).fit(X, y).score(X, y) > 0.75
    assert SequentialFeatureSelector(classifier(), n_features_to_select=1, cv=2).fit(X, y).get_support()[:2].any()
    assert RFE(classifier(), n_features_to_select=2, importance_getter=sizes).fit(X, y).support_[:2].all()
    X[::9, 0] = np.nan
    filled = IterativeImputer(regressor(), max_iter=1, tol=10.0, random_state=0).fit_transform(X)
    assert np.corrcoef(filled[::9, 0], load_iris().data[::9, 2])[0, 1] > 0.8


# ---- inspection ------------------------------------------------------------------------------------------------------


def test_importances_and_dependence(iris):
    X, y = iris
    X = np.hstack([X[:, 2:], np.random.default_rng(0).normal(size=(150, 1))])
    model = classifier().fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=2, random_state=0).importances_mean
    assert found[:2].sum() > 5 * abs(found[2])
    averages = partial_dependence(model, X, [0], response_method="predict_proba")["average"]
    assert averages[0, 0] > averages[0, -1]
    np.testing.assert_allclose(averages.sum(axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "draw",
    [
        lambda model, X, y: CalibrationDisplay.from_estimator(model, X, y).ax_,
        lambda model, X, y: RocCurveDisplay.from_estimator(model, X, y).ax_,
        lambda model, X, y: PrecisionRecallDisplay.from_estimator(model, X, y).ax_,
        lambda model, X, y: ConfusionMatrixDisplay.from_estimator(model, X, y).ax_,
        lambda model, X, y: PartialDependenceDisplay.from_estimator(model, X, [0]).axes_[0, 0],
        lambda model, X, y: DecisionBoundaryDisplay.from_estimator(model, X, grid_resolution=9).ax_,
        lambda model, X, y: LearningCurveDisplay.from_estimator(model, X, y, cv=2, train_sizes=[0.5, 1.0]).ax_,
        lambda model, X, y: (
            ValidationCurveDisplay.from_estimator(model, X, y, cv=2, param_name="lr", param_range=[0.01, 0.05]).ax_
        ),
        lambda model, X, y: PredictionErrorDisplay.from_estimator(regressor().fit(X, X[:, 0]), X, X[:, 0]).ax_,
    ],
)
def test_displays_of_scikit_learn(iris, draw):
    X, y = iris[0][:, 2:], iris[1] == "virginica"
    axes = draw(classifier(max_epochs=2).fit(X, y), X, y)
    assert axes.has_data()
    axes.figure.clear()


# ---- torch -----------------------------------------------------------------------------------------------------------


def test_datasets_and_their_parts(iris, forked):
    X, y = torch.tensor(iris[0], dtype=torch.float32), torch.tensor(np.unique(iris[1], return_inverse=True)[1])
    parts = random_split(TensorDataset(X, y), [100, 50], generator=torch.Generator().manual_seed(0))
    model = classifier(module=torch.nn.Linear(4, 3)).fit(parts[0])
    assert model.score(parts[1]) > 0.75
    assert classifier(module=torch.nn.Linear(4, 3)).fit(list(X), list(y)).score(X, y) > 0.75
    loader = DataLoader(parts[0], batch_size=8)
    for call in (model.fit, model.predict, model.score, regressor(module=torch.nn.Linear(4, 1)).fit):
        with pytest.raises(TypeError, match=r"X must be data or a dataset.*found a DataLoader.*loader\.dataset"):
            call(loader)


def test_functions_are_no_losses(iris, forked):
    X, y = iris

    def smoothed(amount):
        return torch.nn.CrossEntropyLoss(label_smoothing=amount)

    assert classifier(criterion=smoothed, criterion__amount=0.1).fit(X, y).score(X, y) > 0.85
    assert classifier(criterion=lambda **settings: smoothed(0.1, **settings)).fit(X, y).score(X, y) > 0.85

    class Squares:
        def of(self, predicted, y):
            return (predicted - y) ** 2

        __call__ = of

    made = partial(torch.nn.CrossEntropyLoss, label_smoothing=0.1)
    assert classifier(criterion=made).fit(X, y).score(X, y) > 0.85
    cross_entropy = torch.nn.functional.cross_entropy
    functions = (cross_entropy, partial(cross_entropy, label_smoothing=0.1), lambda predicted, y: (predicted - y) ** 2)
    for function in (*functions, smoothed, Squares(), Squares().of):
        with pytest.raises(TypeError, match=r"criterion must be a class of losses, such as .*; found "):
            classifier(criterion=function).fit(X, y)


@pytest.mark.parametrize(
    ("device", "error", "match"),
    [
        ("gpu", ValueError, "device must be one that torch has here; found 'gpu': Expected one of cpu, cuda"),
        ("auto", ValueError, "found 'auto'"),
        ("cuda:9999", ValueError, "found 'cuda:9999'"),
        ("meta", ValueError, "found 'meta'"),
        ("privateuseone", ValueError, "found 'privateuseone'"),
        ("lazy", ValueError, r"found 'lazy': [^.]+ 'aten::[\w.]+' [^.]+\.$"),
        (None, TypeError, "device must be a string such as 'cpu' or 'cuda', or a torch.device; found None"),
        (True, TypeError, "found True"),
    ],
)
def test_devices_that_are_not_there(iris, device, error, match):
    model = classifier(device=device)
    with pytest.raises(error, match=match):
        model.fit(*iris)
    assert not hasattr(model, "net_")


def test_devices_by_any_of_their_names(iris):
    X, y = iris
    found = [classifier(device=device).fit(X, y).predict_proba(X) for device in ("cpu", "cpu:0", torch.device("cpu"))]
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])


# ---- the list of workflows -------------------------------------------------------------------------------------------


@cache
def names_of_tests(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_list_of_workflows_names_tests_that_are_there():
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (TESTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[1:]
    rows = [row for row in rows if not row[0].startswith("-")]
    assert len(rows) == len({workflow for workflow, _ in rows}) >= 43
    for workflow, tests in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named, workflow
        for path, name in named:
            assert name in names_of_tests(path), f"{workflow}: {path}::{name}"
