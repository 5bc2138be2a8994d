"""Losses of samples and groups, against those that torch's criteria give."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from skbgmd import RobustNeuralNet
from skbgmd._utils import limits
from skbgmd.training import _losses
from skbgmd.training._losses import (
    LossTraits,
    check_probabilities,
    complaint,
    differentiated,
    mean_weight,
    of_samples,
    register_loss,
    target_weights,
    targets_of,
    traits_of,
    unreduced,
)

pytestmark = pytest.mark.usefixtures("forked")


def test_losses_of_parts_are_summed_or_averaged() -> None:
    losses = torch.arange(12.0).view(2, 3, 2)
    assert of_samples(losses, 2, summed=True).tolist() == [15.0, 51.0]
    assert of_samples(losses, 2, summed=False).tolist() == [2.5, 8.5]
    assert of_samples(losses[:, 0, 0], 2, summed=True).tolist() == [0.0, 6.0]


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("settings", [{"weight": torch.tensor([1.0, 4.0, 0.5])}, {"ignore_index": 1}])
def test_losses_divided_by_their_mean_weight_have_the_mean_of_the_criterion(kind: Any, settings: Any) -> None:
    criterion = kind(**settings)
    predicted = torch.linspace(-1.0, 1.0, 21).view(7, 3).log_softmax(dim=1)
    y = torch.tensor([0, 1, 2, 2, 1, 1, 0])
    divisor = mean_weight(target_weights(criterion, y))
    assert divisor is not None
    each = unreduced(Net(criterion), criterion, predicted, y, None)
    assert float((each / divisor).mean()) == pytest.approx(float(criterion(predicted, y)), rel=1e-6)


def test_where_nothing_has_a_weight_there_is_no_divisor() -> None:
    y = torch.tensor([0, 1])
    assert mean_weight(target_weights(nn.CrossEntropyLoss(), y)) is None
    assert mean_weight(target_weights(nn.CrossEntropyLoss(weight=torch.ones(2)), torch.eye(2))) is None
    assert mean_weight(target_weights(nn.MSELoss(), y)) is None
    assert mean_weight(target_weights(nn.CrossEntropyLoss(), [0, 1])) is None
    nothing = mean_weight(target_weights(nn.CrossEntropyLoss(ignore_index=0), torch.zeros(3, dtype=torch.int64)))
    assert nothing is not None
    assert float(nothing) == 1.0


class Net:
    """What is asked of a net for its losses."""

    device = "cpu"

    def __init__(self, criterion: Any) -> None:
        self.criterion_ = criterion

    def get_loss(self, predicted: Any, y: Any, *, X: Any, training: bool) -> Any:
        return self.criterion_(predicted, y)


def test_a_criterion_reduces_as_before_afterwards() -> None:
    criterion = nn.MSELoss(reduction="sum")
    losses = unreduced(Net(criterion), criterion, torch.zeros(3), torch.ones(3), None)
    assert losses.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(AttributeError):
        unreduced(Net(criterion), criterion, None, None, None)
    assert criterion.reduction == "sum"
    with pytest.raises(ValueError, match="must have an attribute `reduction`"):
        unreduced(Net(abs), abs, None, None, None)


def test_a_subclass_counts_as_its_parent_unless_it_does_something_else() -> None:
    class Same(nn.CrossEntropyLoss):
        pass

    class Other(nn.MSELoss):
        def forward(self, predicted: Any, y: Any) -> Any:
            return super().forward(predicted, y) + 1.0

    assert traits_of(Same()) is traits_of(Same) is traits_of(nn.CrossEntropyLoss)
    assert traits_of(Same).targets == "classes"
    assert traits_of(Other()) is None
    assert targets_of(Other) == "numbers"
    assert traits_of(nn.CTCLoss()) is targets_of(nn.CTCLoss) is None


def test_losses_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_losses, "_REGISTRY", dict(_losses._REGISTRY))

    class Own(nn.Module):
        reduction = "mean"

        def forward(self, predicted: Any, y: Any) -> Any:
            losses = (predicted - y).abs()
            return losses if self.reduction == "none" else losses.mean()

    assert traits_of(Own) is None
    register_loss(Own, targets="signs")
    assert traits_of(Own()) == LossTraits("signs")
    for wrong in (("mse",), (), (nn.Module,)):
        with pytest.raises(TypeError, match="losses must be classes of torch modules; found"):
            register_loss(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="targets must be one of"):
        register_loss(Own, targets="text")  # type: ignore[arg-type]


def test_a_registered_loss_need_not_have_what_torchs_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_losses, "_REGISTRY", dict(_losses._REGISTRY))

    class Bare(nn.Module):
        def forward(self, predicted: Any, y: Any) -> Any:
            return nn.functional.cross_entropy(predicted, y)

    register_loss(Bare, targets="classes", weighs_classes=True)
    assert mean_weight(target_weights(Bare(), torch.tensor([0, 1]))) is None
    X, y = torch.randn(12, 3).numpy(), (np.arange(12) % 2)
    net = RobustNeuralNet(nn.Linear(3, 2), criterion=Bare, group_size=2, max_epochs=1, verbose=0, train_split=None)
    assert net.fit(X, y)._no_one_pass_


def test_the_mean_of_weights_is_weighted_by_the_samples():
    """As of each sample so many times."""
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 10.0]))
    y, times = torch.tensor([0, 0, 1]), torch.tensor([5, 1, 2])
    repeated = mean_weight(target_weights(criterion, torch.repeat_interleave(y, times)))
    torch.testing.assert_close(mean_weight(target_weights(criterion, y), times.float()), repeated)
    images = torch.stack([y, y.flip(0)], dim=1)
    repeated = mean_weight(target_weights(criterion, torch.repeat_interleave(images, times, dim=0)))
    torch.testing.assert_close(mean_weight(target_weights(criterion, images), times.float()), repeated)


def test_losses_must_be_of_the_samples() -> None:
    assert of_samples(torch.tensor(3.0), 1, summed=False).tolist() == [3.0]
    for losses in (torch.tensor(3.0), torch.ones(5), torch.ones(1, 4)):
        with pytest.raises(ValueError, match=r"criterion must give a loss for each sample .*for 4 samples"):
            of_samples(losses, 4, summed=False)


def _logits(n: int = 6, classes: int = 3) -> torch.Tensor:
    return torch.linspace(-2.0, 3.0, n * classes).view(n, classes).requires_grad_()


def test_probabilities_are_no_logits() -> None:
    entropy, binary = nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()
    for predicted in (_logits().softmax(dim=1), _logits().double().softmax(dim=1), torch.eye(3)):
        assert "Leave out its last Softmax" in (complaint(entropy, predicted) or "")
        assert complaint(nn.NLLLoss(), predicted) is None
        assert complaint(binary, predicted) is None
    assert complaint(entropy, _logits(classes=400).bfloat16().softmax(dim=1)) is not None
    for predicted in (_logits(), _logits().log_softmax(dim=1), _logits().sigmoid(), _logits()[:1].softmax(dim=1)):
        assert complaint(entropy, predicted) is None


def test_sigmoids_are_told_by_what_was_computed() -> None:
    squashed, binary = _logits(classes=1).sigmoid(), nn.BCEWithLogitsLoss()
    for predicted in (squashed, squashed.squeeze(), squashed[:, 0], torch.cat([squashed, squashed]), squashed.double()):
        assert "Leave out its last Sigmoid" in (complaint(binary, predicted) or "")
    # The same numbers, as logits.
    for predicted in (squashed.detach(), squashed.log(), squashed + 0.0, _logits(classes=1)):
        assert complaint(binary, predicted) is None


def test_logarithms_are_of_probabilities() -> None:
    check_probabilities(_logits().softmax(dim=1))
    for wrong in (_logits(), _logits().log_softmax(dim=1).detach().numpy()):
        with pytest.raises(ValueError, match="must give probabilities for the criterion NLLLoss"):
            check_probabilities(wrong)


CLOSED_FORMS: dict[str, tuple[Any, Any]] = {
    "cross entropy": (nn.CrossEntropyLoss(), "classes"),
    "weights and what is ignored": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0, 0.5]), ignore_index=1),
        "classes",
    ),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), "classes"),
    "summed": (nn.CrossEntropyLoss(reduction="sum"), "classes"),
    "shares of classes": (nn.CrossEntropyLoss(), "shares"),
    "likelihood": (nn.NLLLoss(), "classes"),
    "squares": (nn.MSELoss(), "numbers"),
    "huber": (nn.HuberLoss(delta=0.7), "numbers"),
    "smooth": (nn.SmoothL1Loss(beta=0.5), "numbers"),
    "absolute": (nn.L1Loss(), "numbers"),
    "logits": (nn.BCEWithLogitsLoss(), "shares"),
    "weighted logits": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0])), "shares"),
}


@pytest.mark.parametrize(
    "criterion",
    [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.SmoothL1Loss(beta=0.0), nn.BCEWithLogitsLoss()],
    ids=str,
)
def test_derivatives_where_targets_are_met_are_those_of_autograd(criterion: Any) -> None:
    predicted, y = torch.tensor([[0.0], [1.0], [-2.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    leaf = predicted.clone().requires_grad_()
    unreduced(Net(criterion), criterion, leaf, y, None).sum().backward()
    _, found = differentiated(Net(criterion), criterion, predicted, y, None)
    torch.testing.assert_close(found, leaf.grad)


@pytest.mark.parametrize("gap", [0.0, 3.0, 12.0, 17.0, 40.0, 80.0])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_derivatives_of_confident_predictions_keep_their_digits(gap: float, n_classes: int) -> None:
    logits = torch.randn(50, n_classes, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % n_classes
    logits[torch.arange(50), y] += gap
    _, found = traits_of(nn.CrossEntropyLoss()).derivative(nn.CrossEntropyLoss(), logits, y)
    shares = torch.softmax(logits.double(), 1)
    shares[torch.arange(50), y] = 0.0
    expected = shares.scatter(1, y[:, None], -shares.sum(1, keepdim=True))
    # Of each number's own size, where one less a probability would be rounded to multiples of 6e-8.
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=0.0)
    if n_classes == 2:
        assert torch.equal(found[:, 0], -found[:, 1])


@pytest.mark.parametrize("n_classes", [1, 2, 10, limits.FEW_CLASSES, limits.FEW_CLASSES + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e30])
def test_cross_entropies_of_few_classes_are_torchs(n_classes: int, dtype: torch.dtype, scale: float) -> None:
    generator, criterion = torch.Generator().manual_seed(0), nn.CrossEntropyLoss()
    for n in (1, 2, 200):
        predicted = scale * torch.randn((n, n_classes), dtype=dtype, generator=generator)
        y = torch.randint(n_classes, (n,), generator=generator)
        given = predicted.clone()
        losses, found = differentiated(Net(criterion), criterion, predicted, y, None)
        leaf = predicted.clone().requires_grad_()
        expected = nn.functional.cross_entropy(leaf, y, reduction="none")
        (gradient,) = torch.autograd.grad(expected.sum(), leaf)
        torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-6)
        assert torch.equal(predicted, given)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_predictions_that_are_no_numbers_have_no_losses(value: float) -> None:
    criterion, predicted, y = nn.CrossEntropyLoss(), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    predicted[1, 1] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses, gradient = differentiated(Net(criterion), criterion, predicted, y, None)
    expected = nn.functional.cross_entropy(predicted, y, reduction="none")
    torch.testing.assert_close(losses, expected, equal_nan=True)
    assert torch.isfinite(gradient[[0, 2, 3]]).all()


class Tripled(nn.MSELoss):
    def __call__(self, *args: Any) -> Any:
        return 3.0 * super().__call__(*args)


def with_forward() -> Any:
    criterion = nn.MSELoss()
    criterion.forward = lambda predicted, y: 3.0 * (predicted - y).square()  # type: ignore[method-assign]
    return criterion


def with_hook(name: str, hook: Any) -> Any:
    criterion = nn.MSELoss()
    getattr(criterion, name)(hook)
    return criterion


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (Tripled, 3.0),
        (with_forward, 3.0),
        (lambda: with_hook("register_forward_hook", lambda module, given, output: 3.0 * output), 3.0),
        (lambda: with_hook("register_forward_pre_hook", lambda module, given: (given[1] + 0.0, given[0])), 1.0),
        (lambda: with_hook("register_full_backward_hook", lambda module, back, _: (3.0 * back[0], back[1])), 1.0),
    ],
    ids=["call", "forward", "hook", "pre-hook", "backward hook"],
)
def test_a_loss_that_is_watched_or_changed_is_called(make: Any, factor: float) -> None:
    criterion, predicted, y = make(), torch.randn(4, 2), torch.randn(4, 2)
    leaf = predicted.clone().requires_grad_()
    unreduced(Net(criterion), criterion, leaf, y, None).sum().backward()
    losses, gradient = differentiated(Net(criterion), criterion, predicted, y, None)
    torch.testing.assert_close(losses, factor * (predicted - y).square())
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_and_their_derivatives_are_those_of_autograd(name: str, scale: float) -> None:
    criterion, kind = CLOSED_FORMS[name]
    predicted = scale * torch.randn(9, 3)
    y = {"classes": torch.randint(3, (9,)), "shares": torch.rand(9, 3).softmax(dim=1), "numbers": torch.randn(9, 3)}
    leaf = predicted.clone().requires_grad_()
    expected = unreduced(Net(criterion), criterion, leaf, y[kind], None)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    losses, found = differentiated(Net(criterion), criterion, predicted, y[kind], None)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(found, gradient)
    assert not losses.requires_grad


def test_closed_forms_are_for_the_loss_that_they_are_registered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_losses, "_REGISTRY", dict(_losses._REGISTRY))

    class Own(nn.Module):
        reduction = "mean"

        def forward(self, predicted: Any, y: Any) -> Any:
            return (predicted - y).square().sum(dim=1) if self.reduction == "none" else None

    class Doubled(nn.MSELoss):
        def forward(self, predicted: Any, y: Any) -> Any:
            return 2.0 * super().forward(predicted, y)

    predicted, y = torch.randn(4, 2), torch.randn(4, 2)
    criterion = Doubled()
    losses, gradient = differentiated(Net(criterion), criterion, predicted, y, None)
    torch.testing.assert_close(losses, 2.0 * (predicted - y).square())
    torch.testing.assert_close(gradient, 4.0 * (predicted - y))
    register_loss(Own, derivative=lambda criterion, predicted, y: (predicted[:, 0], predicted + 1.0))
    losses, gradient = differentiated(Net(Own()), Own(), predicted, y, None)
    torch.testing.assert_close(losses, predicted[:, 0])
    torch.testing.assert_close(gradient, predicted + 1.0)
