"""Several labels a sample: indicator matrices in, indicator matrices out, as scikit-learn's MLPClassifier has them."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix, issparse
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from naming import without_address
from skbgmd import BlockGMDClassifier
from skbgmd.corruption import LabelCorruption, corrupt_labels
from skbgmd.inspection import find_suspects, label_losses, sample_losses
from skbgmd.training import register_loss
from skbgmd.training._estimator.multilabel import balanced_points, indicator_matrix
from skbgmd.training._lifecycle.stopping import LabelStopping, bounded_likelihood
from skbgmd.training._losses import differentiated

K = 4


@pytest.fixture(scope="module")
def data():
    X, y = make_multilabel_classification(160, 10, n_classes=K, random_state=0)
    return StandardScaler().fit_transform(X), y


def quick(**settings):
    # A skorch net has settings of its own.
    own = {} if isinstance(settings.get("module"), NeuralNet) else {"max_epochs": 12, "lr": 0.02}
    return BlockGMDClassifier(**{**own, "strength": None, "random_state": 0, **settings})


def linear():
    return torch.nn.Linear(10, K, dtype=torch.float64)


# ---- as scikit-learn has it -----------------------------------------------------------------------------------------


def test_as_a_perceptron_of_scikit_learn(data):
    X, y = data
    model, peer = quick(max_epochs=30).fit(X, y), MLPClassifier(max_iter=30, random_state=0)
    with pytest.warns(UserWarning, match="converged"):
        peer.fit(X, y)
    np.testing.assert_array_equal(model.classes_, peer.classes_)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        ours, theirs = getattr(model, method)(X), getattr(peer, method)(X)
        assert ours.shape == theirs.shape == (160, K)
        assert (ours.dtype.kind, type(ours)) == (theirs.dtype.kind, type(theirs))
    np.testing.assert_array_equal(model.predict(X), model.predict_proba(X) > 0.5)
    assert model.score(X, y) == accuracy_score(y, model.predict(X)) > peer.score(X, y) - 0.05
    assert model.multilabel_
    assert not quick(max_epochs=1).fit(X, y[:, 0]).multilabel_
    assert isinstance(model.net_.criterion_, torch.nn.BCEWithLogitsLoss)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


@pytest.mark.parametrize(
    "make",
    [
        np.ndarray.tolist,
        lambda y: y.astype(bool),
        lambda y: y.astype(np.float32),
        pd.DataFrame,
        torch.from_numpy,
        csr_matrix,
        csr_array,
        lambda y: csr_matrix(y).tocsc(),
    ],
)
def test_any_indicator_matrix(data, make):
    X, y = data
    expected = quick(max_epochs=2).fit(X, y)
    model = quick(max_epochs=2).fit(X, make(y))
    found = model.predict(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    assert issparse(found) == issparse(make(y))
    np.testing.assert_array_equal(found.toarray() if issparse(found) else found, expected.predict(X))
    assert model.score(X, make(y)) == expected.score(X, y)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda y: y + np.eye(160, K, dtype=int), r"indicator matrix of 0 and 1.*found .*2.*MultiOutputClassifier"),
        (lambda y: 2 * y - 1, "indicator matrix of 0 and 1.*-1"),
        (lambda y: y + 1, "indicator matrix of 0 and 1.*2"),
        (lambda y: np.array(["a", "b"])[y], "indicator matrix of 0 and 1.*'b'"),
        (lambda y: y + 0.5, "Unknown label type: continuous-multioutput"),
        (lambda y: np.where(y > 0, np.nan, y), "NaN"),
        (lambda y: y[:-1], "inconsistent numbers of samples"),
    ],
)
def test_other_targets_of_several_columns_are_refused(data, change, match):
    X, y = data
    model = quick()
    with pytest.raises(ValueError, match=match):
        model.fit(X, change(y))
    assert not hasattr(model, "multilabel_")


def test_several_targets_of_more_classes_by_an_estimator_each(data):
    X, y = data
    model = MultiOutputClassifier(quick(max_epochs=1)).fit(X, y + y[:, ::-1])
    assert model.predict(X).shape == (160, K)


# ---- all that a fit takes -------------------------------------------------------------------------------------------


def test_going_on(data):
    X, y = data
    model = quick(warm_start=True, max_epochs=3).fit(X, y).fit(X, y)
    assert model.n_iter_ == 6
    parts = [quick().partial_fit(X, y, **given) for given in ({}, {"classes": np.arange(K)}, {"classes": range(K)})]
    first = parts[0].predict_proba(X)
    for part in parts:
        np.testing.assert_array_equal(part.predict_proba(X), first)
        part.partial_fit(X[:20], csr_matrix(y[:20]))
        assert part.n_iter_ == 2
    for other, match in ((y[:, 0], "y must be an indicator matrix, as before"), (y[:, :3], r"of 4 labels.*\(160, 3\)")):
        for method in (model.fit, parts[0].partial_fit):
            with pytest.raises(ValueError, match=match):
                method(X, other)
    assert model.multilabel_
    with pytest.raises(ValueError, match=r"y must be labels of shape \(n,\), as before"):
        quick(warm_start=True, max_epochs=1).fit(X, y[:, 0]).fit(X, y)
    with pytest.raises(ValueError, match="classes must be the numbers of the columns of y, 0 to 3"):
        quick().partial_fit(X, y, classes=[0, 1])


def test_weights_and_clients(data):
    X, y = data
    weight = np.where(np.arange(160) % 3 == 0, 0.0, 2.0)
    model = quick(max_epochs=3).fit(X, y, sample_weight=weight)
    assert (np.isnan(model.sample_trust_) == (weight == 0.0)).all()
    alone = quick(max_epochs=3).fit(X[weight > 0], y[weight > 0])
    np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), atol=1e-5)
    # Of equal samples one with their weight is learnt.
    twice = quick(max_epochs=3).fit(np.repeat(X, 2, axis=0)[:200], np.repeat(y, 2, axis=0)[:200])
    merged = quick(max_epochs=3).fit(X[:100], y[:100], sample_weight=np.full(100, 2.0))
    np.testing.assert_allclose(merged.predict_proba(X), twice.predict_proba(X), atol=1e-5)
    by_clients = quick(max_epochs=3, batch_size=16).fit(X, y, sample_weight=weight, clients=np.arange(160) % 5)
    assert np.isfinite(by_clients.predict_proba(X)).all()
    model = make_pipeline(StandardScaler(), quick(max_epochs=2))
    search = GridSearchCV(model, {"blockgmdclassifier__lr": [1e-9, 0.05]}, cv=2, error_score="raise")
    search.fit(X, y, blockgmdclassifier__sample_weight=weight)
    assert search.predict(X).shape == y.shape


def test_class_weight_is_refused(data):
    for class_weight in ("balanced", {0: 1.0, 1: 2.0}):
        with pytest.raises(ValueError, match=r"class_weight must be None where y has several labels.*pos_weight"):
            quick(class_weight=class_weight).fit(*data)


@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [{}, {"criterion__pos_weight": torch.tensor([1.0, 2.0, 3.0, 4.0])}], ids=str)
def test_one_pass_takes_the_gradients_of_each_sample(data, group_size, reduction, weights):
    X, y = data
    ways = [
        quick(
            gradients=gradients,
            max_epochs=3,
            batch_size=32,
            group_size=group_size,
            criterion=torch.nn.BCEWithLogitsLoss,
            criterion__reduction=reduction,
            **weights,
        )
        .fit(X, y, sample_weight=1.0 + np.arange(160) % 2)
        .predict_proba(X)
        for gradients in ("one_pass", "micro_batches")
    ]
    np.testing.assert_allclose(*ways, atol=2e-3)


def test_derivative_in_closed_form(data):
    y = torch.as_tensor(data[1], dtype=torch.float64)
    predicted = torch.randn(160, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        net = NeuralNet(linear, criterion=torch.nn.BCEWithLogitsLoss).initialize()
    losses, gradient = differentiated(net, net.criterion_, predicted, y, None)
    predicted.requires_grad_()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(predicted, y, reduction="none")
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), predicted)[0])


# ---- networks and losses of one's own -------------------------------------------------------------------------------


class Focal(torch.nn.BCEWithLogitsLoss):
    """Of logits."""

    def forward(self, predicted, y):
        losses = torch.nn.functional.binary_cross_entropy_with_logits(predicted, y, reduction="none")
        losses = (1.0 - torch.exp(-losses)) ** 2 * losses
        return losses if self.reduction == "none" else losses.mean()


class Brier(torch.nn.Module):
    """Of anything: nobody knows what makes probabilities of it."""

    reduction = "mean"

    def forward(self, predicted, y):
        losses = (predicted - y) ** 2
        return losses if self.reduction == "none" else losses.mean()


register_loss(Brier)


@pytest.mark.parametrize(
    "settings",
    [
        {"module": linear, "criterion": torch.nn.BCEWithLogitsLoss},
        {"module": linear},
        {"criterion": Focal},
        {"criterion": torch.nn.SoftMarginLoss},
        {"criterion": torch.nn.MultiLabelSoftMarginLoss},
        {"module": lambda: torch.nn.Sequential(linear(), torch.nn.Sigmoid()), "criterion": torch.nn.BCELoss},
        {"module": lambda: torch.nn.Sequential(linear(), torch.nn.Sigmoid()), "criterion": Brier},
        {"criterion": Brier, "predict_nonlinearity": partial(torch.clamp, min=0.0, max=1.0)},
        {"module": NeuralNet(linear, torch.nn.BCEWithLogitsLoss, lr=1.0, max_epochs=60, train_split=None, verbose=0)},
    ],
    ids=without_address,
)
def test_own_networks_and_losses(data, settings):
    X, y = data
    own = {} if isinstance(settings.get("module"), NeuralNet) else {"max_epochs": 60, "lr": 0.05}
    model = quick(**own, **settings).fit(X, y)
    assert model.predict(X).shape == model.predict_proba(X).shape == y.shape
    always = np.maximum(y.mean(axis=0), 1.0 - y.mean(axis=0)).mean()
    assert (model.predict(X) == y).mean() > always + 0.05


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {"criterion": torch.nn.CrossEntropyLoss},
            "criterion must be a loss of each label by itself.*CrossEntropyLoss",
        ),
        ({"module": linear, "criterion": torch.nn.NLLLoss}, "criterion must be a loss of each label"),
        ({"module": lambda: torch.nn.Linear(10, 3)}, r"output for each of the 4 labels, shape \(n_samples, 4\)"),
        ({"criterion": Brier}, "predict_nonlinearity must make probabilities.*Brier.*sigmoid"),
        ({"module": NeuralNetBinaryClassifier(linear)}, "module must be a plain NeuralNet"),
        ({"module": NeuralNetClassifier(linear, criterion=torch.nn.BCELoss)}, "module must be a plain NeuralNet"),
        ({"module": NeuralNet(linear, torch.nn.CrossEntropyLoss)}, "criterion must be a loss of each label"),
    ],
)
def test_what_is_of_one_class_among_several_is_refused(data, settings, match):
    model = quick(**settings)
    with pytest.raises(ValueError, match=match):
        model.fit(*data)
    assert not hasattr(model, "net_")


# ---- held-out samples and suspects ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_early_stopping_by_the_likelihood_of_all_labels(data):
    X, y = data
    model = quick(early_stopping=True, max_epochs=200, lr=0.05, n_iter_no_change=3).fit(X, y)
    assert model.n_iter_ < 200
    assert np.isnan(model.sample_trust_).sum() == 16
    held_out = np.isnan(model.sample_trust_)
    # The parameters are those of the best epoch.
    probabilities = model.predict_proba(X[held_out])
    scores = [
        bounded_likelihood(np.stack([1.0 - p, p], axis=1), labels)
        for p, labels in zip(probabilities.T, y[held_out].T, strict=True)
    ]
    assert model.best_validation_score_ == pytest.approx(np.mean(scores), rel=1e-5) == max(model.validation_scores_)
    assert isinstance(dict(model.net_.callbacks_)["stopping_criterion"], LabelStopping)
    weight = 1.0 + np.arange(160) % 2
    for given in ({"sample_weight": weight}, {"clients": np.arange(160) // 8}):
        assert quick(early_stopping="loss", tol=10.0, n_iter_no_change=10).fit(X, y, **given).n_iter_ == 11
        assert (
            len(quick(early_stopping=True, tol=10.0, n_iter_no_change=10).fit(X, y, **given).validation_scores_) == 11
        )


def test_validation_data_have_labels_as_y(data):
    X, y = data
    model = quick(train_split=predefined_split(Dataset(X[:40], y[:40])), max_epochs=2).fit(X, y)
    assert model.history_[-1]["valid_acc"] == pytest.approx(model.score(X[:40], y[:40]))


def test_strength_is_chosen_by_balanced_accuracy(data):
    X, y = data
    model = quick(strength="auto", max_epochs=20).fit(X, y)
    assert model.strength_ in model.strength_scores_
    assert all(0.5 < evidence.score <= 1.0 for evidence in model.strength_scores_.values())
    weighted = quick(strength="auto", max_epochs=20).fit(X, y, sample_weight=1.0 + np.arange(160) % 2)
    assert weighted.strength_scores_ != model.strength_scores_


def test_points_are_a_balanced_accuracy():
    rng = np.random.default_rng(0)
    y, predicted, weight = rng.integers(0, 2, (50, 3)), rng.integers(0, 2, (50, 3)), rng.uniform(0.5, 2.0, 50)
    y[:, 2] = 1
    points = balanced_points({"a": predicted}, y.astype(float), weight)["a"]
    accuracies = [
        np.mean([np.average(p[t == v] == v, weights=weight[t == v]) for v in np.unique(t)])
        for p, t in zip(predicted.T, y.T, strict=True)
    ]
    assert np.average(points, weights=weight) == pytest.approx(np.mean(accuracies))


def test_suspects_have_wrong_labels(data):
    X, y = data
    wrong, rng = y.copy(), np.random.default_rng(0)
    changed = rng.choice(160, 16, replace=False)
    wrong[changed] = 1 - wrong[changed]
    model = quick(max_epochs=40, strength="firm").fit(X, wrong)
    found = find_suspects(model, 16)
    assert len(set(found) & set(changed)) >= 8
    losses = sample_losses(model, X, csr_matrix(wrong))
    assert losses[changed].mean() > 2.0 * np.delete(losses, changed).mean()
    np.testing.assert_array_equal(losses, sample_losses(model, X, wrong))


def test_the_label_that_is_wrong_has_the_largest_loss(rng):
    X = rng.normal(size=(160, K))
    y = (X > 0.0).astype(int)
    wrong = y.copy()
    changed, label = rng.choice(160, 16, replace=False), rng.integers(K, size=16)
    wrong[changed, label] = 1 - wrong[changed, label]
    model = quick(max_epochs=40, strength="firm").fit(X, wrong)
    losses = label_losses(model, X, wrong)
    assert losses.shape == (160, K)
    assert (losses[changed].argmax(axis=1) == label).mean() > 0.8
    np.testing.assert_allclose(losses.mean(axis=1), sample_losses(model, X, csr_matrix(wrong)))
    for other, rule in ((y[:, 0], "several labels"), (y[:, :3], "the shape"), (y[:9], "the shape")):
        with pytest.raises(ValueError, match=f"y must be an indicator matrix of {rule}.*; found shape "):
            label_losses(model, X, other)
    several = MultiOutputClassifier(LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match=r"estimator must predict probabilities of .*; found \(4, 160, 2\)"):
        label_losses(several, X, y)


# ---- corruption -----------------------------------------------------------------------------------------------------


def test_labels_are_corrupted_column_by_column(data):
    X, y = data
    for given in (y, csr_matrix(y), y.tolist()):
        with pytest.raises(ValueError, match=r"y must have shape \(n,\); found shape \(160, 4\).*each column"):
            corrupt_labels(given, fraction=0.1)
        with pytest.raises(ValueError, match="corrupt each column by itself"):
            LabelCorruption(0.1).fit_resample(X, given)


def test_indicator_matrices():
    np.testing.assert_array_equal(indicator_matrix([[0, 1], [1, 1]]), [[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match=r"indicator matrix of 3 labels; found shape \(2, 2\)"):
        indicator_matrix(np.eye(2), 3)
