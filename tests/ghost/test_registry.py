"""Rules of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from single import check
from single import forked_initialisation as forked_initialisation
from skbgmd import RobustNeuralNetClassifier
from skbgmd.ghost import DenseFactor, GhostError, GradientRecorder, register_rule, registry
from skbgmd.ghost.factors import OuterProductFactor


class Scale(nn.Module):
    """A layer that there is no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((3,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Shifted(nn.Module):
    """A layer of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


@pytest.fixture
def own_rules() -> Iterator[None]:
    with patch.dict(registry.RULES):
        yield


@pytest.mark.usefixtures("own_rules")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda gradient: None, "the layer '0', Shifted, must give a dict of factors.*found NoneType"),
        (lambda gradient: {"shift": gradient}, "must give factors, such as DenseFactor or OuterProductFactor"),
        (
            lambda gradient: {"shift": [DenseFactor(gradient), gradient]},
            "must give factors, such as DenseFactor or OuterProductFactor",
        ),
        (lambda gradient: {"shift": DenseFactor(gradient), "other": DenseFactor(gradient)}, r"found \['other'\]"),
        (
            lambda gradient: {"shift": DenseFactor(gradient[:3])},
            "must give 5 rows of 4 numbers for 'shift'; found 3 of 4",
        ),
        (lambda gradient: {"shift": DenseFactor(gradient[:, :3])}, "must give 5 rows of 4 numbers.*found 5 of 3"),
    ],
)
def test_answers_of_registered_rules_are_checked(answer: Any, message: str) -> None:
    register_rule(Shifted)(lambda layer, inputs, gradient: answer(gradient))
    module = nn.Sequential(Shifted())
    with GradientRecorder(module, list(module.parameters())) as recorder:
        losses = module(torch.ones(5, 4)).square().sum(dim=1)
    with pytest.raises(TypeError, match=message):
        recorder.factors(losses)


def test_rules_are_for_modules() -> None:
    for layers in ((), (3,), (int,)):
        with pytest.raises(TypeError, match="layers must be classes of modules"):
            register_rule(*layers)


@pytest.mark.usefixtures("own_rules")
def test_a_wrong_rule_is_reported() -> None:
    register_rule(Shifted)(lambda layer, inputs, gradient: {"shift": DenseFactor(2.0 * gradient)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(Shifted(), nn.Linear(4, 2))
        X, y = torch.randn(20, 4), torch.arange(20) % 2
    settings: dict[str, Any] = {"criterion": nn.CrossEntropyLoss, "group_size": 1, "verbose": 0, "train_split": None}
    net = RobustNeuralNetClassifier(module, max_epochs=2, **settings)
    with torch.random.fork_rng(devices=[]), pytest.warns(UserWarning, match="A rule was registered, and yet.*is wrong"):
        net.fit(X, y)
    with (
        torch.random.fork_rng(devices=[]),
        pytest.raises(GhostError, match="or a registered rule or derivative is wrong"),
    ):
        RobustNeuralNetClassifier(module, gradients="one_pass", **settings).fit(X, y)


class Container(nn.Module):
    """A layer of a user's own with another in it, and a parameter that it doesn't have."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.inner = nn.Parameter(torch.zeros(4)), nn.Linear(4, 4, bias=False)
        self.register_parameter("missing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x) + self.shift
        return result


@pytest.mark.usefixtures("own_rules")
def test_rules_of_layers_with_layers_in_them() -> None:
    def rule(layer: nn.Module, inputs: Any, gradient: Any) -> Any:
        weight = OuterProductFactor(gradient[:, None], inputs[0][:, None])
        return {"shift": DenseFactor(gradient), "inner.weight": weight, "missing": DenseFactor(gradient)}

    rule.__module__ = None  # type: ignore[assignment]
    register_rule(Container)(rule)
    check(Container(), torch.randn(5, 4))
