"""Nets out of the ordinary, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import torch
from skorch.dataset import Dataset
from torch import nn
from torch.utils.checkpoint import checkpoint

from skbgmd import RobustNeuralNetClassifier


class Renamed:
    """Other names for the module and the loss, to be put in front of a class of nets."""

    def initialize_criterion(self):
        self.loss_ = self.initialized_instance(self.criterion, self.get_params_for("criterion"))
        return self

    def initialize_module(self):
        self.network_ = self.initialized_instance(self.module, self.get_params_for("module"))
        return self

    def infer(self, x, **fit_params):
        return self.network_(x)

    def get_loss(self, predicted, y, *args, **kwargs):
        return self.loss_(predicted, y)


def dataset_of(X: Any, y: Any, sample_weight: Any = None, clients: Any = None) -> Dataset:
    """A skorch dataset whose samples have weights and clients, as estimators make them."""
    dataset = Dataset(X, y)
    dataset.sample_weight, dataset.clients = sample_weight, clients
    return dataset


class Narrow(nn.Module):
    """A perceptron that computes in bfloat16, or in what is told from outside."""

    def __init__(self, inputs: int, outputs: int, inside: bool = True) -> None:
        super().__init__()
        self.first, self.last, self.inside = nn.Linear(inputs, 16), nn.Linear(16, outputs), inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.inside:
            return self.computed(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.computed(x)

    def computed(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.tanh(self.first(x)))
        return result


class Checkpointed(nn.Module):
    """A perceptron whose first layers are run once more in the backward pass, which torch takes inside of it."""

    def __init__(self, reentrant: bool = True, computed: bool = False) -> None:
        super().__init__()
        self.before = nn.Linear(4, 4) if computed else None
        self.block = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.last = nn.Linear(5, 3)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As models have it whose first layers are frozen: a leaf that requires a gradient.
        given = x.clone().requires_grad_() if self.before is None else self.before(x)
        result: torch.Tensor = self.last(checkpoint(self.block, given, use_reentrant=self.reentrant))
        return result


class _SavesMemory(torch.autograd.Function):
    """Runs a block once more in the backward pass, by a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, block: nn.Module) -> torch.Tensor:
        ctx.block = block
        ctx.save_for_backward(x)
        with torch.no_grad():
            result: torch.Tensor = block(x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.backward(ctx.block(x), gradient)
        return x.grad, None


class Reversible(nn.Module):
    """A perceptron with a block whose backward pass writes to ``grad``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.block = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        self.last = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(_SavesMemory.apply(self.first(x), self.block))
        return result


def linear_net(kind=RobustNeuralNetClassifier, **settings):
    """A net of two classes and four features."""
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "max_epochs": 3, **settings}
    return kind(nn.Linear(4, 2), **settings)
