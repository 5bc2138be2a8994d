"""Label flip: targets of all kinds, and gradients of a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nets import dataset_of
from skbgmd import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.corruption import LabelFlip
from skbgmd.corruption.gradients.label_flip import flipped
from skbgmd.training import ArrayLoader

GROUPS = [slice(0, 2), slice(2, 4), slice(4, 6)]


@pytest.mark.parametrize(
    ("targets", "kind", "expected"),
    [
        (torch.tensor([0, 1, 2]), "classes", [2, 1, 0]),
        (torch.tensor([0, 1, 2]), None, [2, 1, 0]),
        (torch.tensor([0, -100, 2]), "classes", [2, -100, 0]),  # to be ignored
        (torch.tensor([[0, 1], [2, 2]]), "classes", [[2, 1], [0, 0]]),
        (torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.75, 0.25]]), "classes", [[0.0, 0.0, 1.0], [0.25, 0.75, 0.0]]),
        (torch.tensor([0.0, 1.0]), "binary", [1.0, 0.0]),
        (torch.tensor([0, 1]), "binary", [1, 0]),
        (torch.tensor([False, True]), None, [True, False]),
        (torch.tensor([-1.0, 1.0]), "signs", [1.0, -1.0]),
        (torch.tensor([-1, 1]), "signs", [1, -1]),
        (torch.tensor([2.5, -1.0]), "numbers", [-2.5, 1.0]),
        (torch.tensor([2.5, -1.0]), None, [-2.5, 1.0]),
    ],
)
def test_flipped(targets, kind, expected):
    found = flipped(targets, kind, 3)
    assert found.dtype == targets.dtype
    assert found.tolist() == expected
    assert torch.equal(flipped(found, kind, 3), targets)


def test_classes_must_be_counted():
    with pytest.raises(ValueError, match=r"n_classes must be given.*found None"):
        LabelFlip(corrupt=[0]).corrupt_targets(torch.tensor([0, 1, 0, 1, 0, 1]), GROUPS)
    with pytest.raises(ValueError, match="n_classes must be at least 2"):
        LabelFlip(n_classes=1).corrupt_targets(torch.zeros(6), GROUPS)


def test_only_corrupt_groups_change_and_the_given_targets_stay():
    targets = {"a": torch.arange(6.0) + 1.0, "b": torch.ones(6, 2)}
    found = LabelFlip(corrupt=[2, 9]).corrupt_targets(targets, GROUPS)
    assert found["a"].tolist() == [1.0, 2.0, 3.0, 4.0, -5.0, -6.0]
    assert found["b"][:, 0].tolist() == [1.0, 1.0, 1.0, 1.0, -1.0, -1.0]
    assert targets["a"].min() == 1.0
    with pytest.warns(UserWarning, match=r"No rule withstands fraction=0\.5") as caught:
        LabelFlip(fraction=0.5).corrupt_targets(targets, GROUPS, 0)
    assert caught[0].filename == __file__


def fitted(kind, X, y, **settings):
    torch.manual_seed(0)
    n_outputs = 3 if np.issubdtype(y.dtype, np.integer) else 1
    net = kind(
        torch.nn.Linear(4, n_outputs).double(),
        max_epochs=2,
        lr=0.1,
        verbose=0,
        train_split=None,
        group_size=5,
        # The library's own loader deals samples out to groups by their classes.
        **{
            "aggregator": "geometric_median",
            "iterator_train": torch.utils.data.DataLoader,
            "batch_size": 30,
            **settings,
        },
    )
    net.fit(X, y)
    return torch.cat([parameter.detach().flatten() for parameter in net.module_.parameters()])


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_training_is_one_on_flipped_labels(forked, rng, gradients, weighted):
    X, y = rng.normal(size=(60, 4)), rng.integers(0, 3, size=60)
    wrong = y.copy()
    for start in (0, 10, 30, 40):  # groups 0 and 2 of each batch
        wrong[start : start + 5] = 2 - y[start : start + 5]
    settings = {"criterion": torch.nn.CrossEntropyLoss, "gradients": gradients}
    if weighted:
        settings["criterion__weight"] = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    attack = LabelFlip(corrupt=[0, 2])
    found = fitted(RobustNeuralNetClassifier, X, y, gradient_corruption=attack, **settings)
    torch.testing.assert_close(found, fitted(RobustNeuralNetClassifier, X, wrong, **settings))
    assert not torch.allclose(found, fitted(RobustNeuralNetClassifier, X, y, **settings))
    # A net that knows of no classes is told.
    told = LabelFlip(corrupt=[0, 2], n_classes=3)
    torch.testing.assert_close(found, fitted(RobustNeuralNet, X, y, gradient_corruption=told, **settings))


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_numbers_of_a_training_change_their_sign(forked, rng, gradients):
    X, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 1))
    wrong = y.copy()
    for start in (5, 35):
        wrong[start : start + 5] *= -1.0
    attack = LabelFlip(corrupt=[1])
    found = fitted(RobustNeuralNetRegressor, X, y, gradient_corruption=attack, gradients=gradients)
    torch.testing.assert_close(found, fitted(RobustNeuralNetRegressor, X, wrong, gradients=gradients))
    assert not torch.allclose(found, fitted(RobustNeuralNetRegressor, X, y, gradients=gradients))


def test_fixed_rows_are_clients_in_sorted_order(forked, rng):
    X, y = rng.normal(size=(80, 4)), rng.integers(0, 3, size=80)
    clients = np.repeat(["d", "b", "a", "c"], 20)
    wrong = np.where(clients == "b", 2 - y, y)
    loader = {"iterator_train": ArrayLoader, "criterion": torch.nn.CrossEntropyLoss, "batch_size": 10}
    found, expected = (
        fitted(
            RobustNeuralNetClassifier,
            dataset_of(X, labels, None, clients),
            labels,
            gradient_corruption=attack,
            **loader,
        )
        for labels, attack in ((y, LabelFlip(corrupt=[1])), (wrong, None))
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, fitted(RobustNeuralNetClassifier, dataset_of(X, y, None, clients), y, **loader))
