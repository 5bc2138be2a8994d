"""Trained networks as modules that predict by themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

pytestmark = pytest.mark.usefixtures("forked")


class Squeezed(torch.nn.Sequential):
    """Gives one number a sample, without an axis for it."""

    def __init__(self, n=1):
        super().__init__(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, n))

    def forward(self, X):
        return super().forward(X).squeeze()


class Twofold(torch.nn.Linear):
    """Gives its inputs besides."""

    def forward(self, X):
        return super().forward(X), X


class OfTwofold(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred[0], y_true, *args, **kwargs)


class Images(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24, 3))


def halves(X):
    return torch.stack([torch.sigmoid(X[:, 0]), torch.sigmoid(-X[:, 0])], dim=1)


LOGITS = {"criterion": torch.nn.BCEWithLogitsLoss}
PLAIN = {"train_split": None, "verbose": 0, "max_epochs": 2}
#: Estimators, and which targets they learn of the features (n, 4).
KINDS = {
    "classes": (BlockGMDClassifier(), "classes"),
    "two": (BlockGMDClassifier(), "two"),
    "binary": (BlockGMDClassifier(Squeezed, **LOGITS), "two"),
    "binary probabilities": (
        BlockGMDClassifier(
            lambda: torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid()), criterion=torch.nn.BCELoss
        ),
        "two",
    ),
    "probabilities": (
        BlockGMDClassifier(
            lambda: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(1)), criterion=torch.nn.NLLLoss
        ),
        "classes",
    ),
    "own nonlinearity": (
        BlockGMDClassifier(torch.nn.Linear(4, 2), criterion=torch.nn.MultiMarginLoss, predict_nonlinearity=halves),
        "two",
    ),
    "instance": (BlockGMDClassifier(torch.nn.Linear(4, 3)), "classes"),
    "skorch": (
        BlockGMDClassifier(NeuralNetClassifier(Squeezed, module__n=3, criterion=torch.nn.CrossEntropyLoss, **PLAIN)),
        "classes",
    ),
    "skorch, several outputs": (
        BlockGMDClassifier(OfTwofold(Twofold(4, 3), criterion=torch.nn.CrossEntropyLoss, **PLAIN)),
        "classes",
    ),
    "skorch, binary": (BlockGMDClassifier(NeuralNetBinaryClassifier(Squeezed, **PLAIN)), "two"),
    "images": (BlockGMDClassifier(Images), "images"),
    "numbers": (BlockGMDRegressor(), "numbers"),
    "column": (BlockGMDRegressor(), "column"),
    "columns": (BlockGMDRegressor(), "columns"),
    "constant": (BlockGMDRegressor(), "constant"),
    "squeezed numbers": (BlockGMDRegressor(Squeezed), "numbers"),
    "skorch, columns": (BlockGMDRegressor(NeuralNetRegressor(torch.nn.Linear(4, 2), **PLAIN)), "columns"),
}


def data_for(targets, rng, dtype=np.float32):
    X = rng.normal(size=(80, 4)).astype(dtype)
    numbers = 1e4 + 300.0 * X[:, 0].astype(np.float64)
    classes = np.array(["b", "a", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
    y = {
        "classes": classes,
        "images": classes,
        "two": np.where(X[:, 0] > 0, "yes", "no"),
        "numbers": numbers,
        "column": numbers[:, None],
        "columns": np.column_stack([numbers, -X[:, 1]]),
        "constant": np.full(80, 7.0),
    }[targets]
    return rng.normal(size=(80, 1, 5, 6)).astype(dtype) if targets == "images" else X, y


def predictions(model, X):
    return model.predict_proba(X) if isinstance(model, BlockGMDClassifier) else model.predict(X)


@pytest.mark.parametrize("kind", KINDS)
def test_modules_predict_as_estimators(kind, rng):
    model, targets = KINDS[kind]
    X, y = data_for(targets, rng)
    model.set_params(random_state=0)
    if not isinstance(model.module, (NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor)):
        model.set_params(max_epochs=2)
    module = model.fit(X, y).to_module()
    assert not module.training
    for some in (X, X[:1]):
        with torch.no_grad():
            found = module(torch.from_numpy(some)).numpy()
        expected = predictions(model, some)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_double_precision(rng):
    X, y = data_for("numbers", rng, np.float64)
    model = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y)
    with torch.no_grad():
        np.testing.assert_array_equal(model.to_module()(torch.from_numpy(X)), model.predict(X))


def test_a_module_is_a_copy(rng):
    X, y = data_for("numbers", rng)
    model = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y)
    expected, module = model.predict(X), model.to_module()
    with torch.no_grad():
        for value in module.state_dict().values():
            value.zero_()
    np.testing.assert_array_equal(model.predict(X), expected)
    assert set(module.state_dict()) == {*(f"network.{name}" for name in model.module_.state_dict()), "center", "scale"}


class Doubled(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return 2.0 * super().infer(x, **fit_params)


def test_what_is_no_module(rng):
    with pytest.raises(NotFittedError):
        BlockGMDClassifier().to_module()
    X, y = data_for("classes", rng)
    net = Doubled(torch.nn.Linear(4, 3), criterion=torch.nn.CrossEntropyLoss, **PLAIN)
    model = BlockGMDClassifier(net, random_state=0).fit(X, y)
    with pytest.raises(
        ValueError, match="must predict as skorch's nets do to be made a module; found infer of RobustDoubled"
    ):
        model.to_module()
