"""Networks: the multilayer perceptron of the estimators' default, and the LeNet of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from skbgmd._utils.checks import check_integer


class MLP(torch.nn.Sequential):
    """Multilayer perceptron: linear layers with rectified linear units between them.

    Parameters
    ----------
    n_features, n_outputs : int
        Numbers of inputs and outputs.
    hidden_layer_sizes : sequence of int, default=(100,)
        Units of each hidden layer; empty: a linear model.
    dtype : torch.dtype, default=torch.float32
        Dtype of the parameters.

    Examples
    --------
    >>> MLP(4, 3, hidden_layer_sizes=(5,))
    MLP(
      (0): Linear(in_features=4, out_features=5, bias=True)
      (1): ReLU()
      (2): Linear(in_features=5, out_features=3, bias=True)
    )
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int] = (100,),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = [n_features, *hidden_layer_sizes]
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after, dtype=dtype), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(sizes[-1], n_outputs, dtype=dtype))


class LeNet(torch.nn.Sequential):
    """LeNet for images of 28 x 28 pixels: two convolutions and two linear layers, which return logits.

    With ten classes it has 1,163,978 parameters, as many as the network in Acharya et al. (2022).

    Parameters
    ----------
    n_classes : int, default=10
        Number of classes, and so of logits.
    dropout : float, default=0.5
        Probability that a unit of the hidden linear layer is left out in training.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.training.networks import LeNet
    >>> model = LeNet()
    >>> sum(parameter.numel() for parameter in model.parameters())
    1163978
    >>> model(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, n_classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__(
            torch.nn.Conv2d(1, 64, kernel_size=5),
            torch.nn.MaxPool2d(2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, 64, kernel_size=5),
            torch.nn.MaxPool2d(2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(1024, 1024),
            torch.nn.ReLU(),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(1024, check_integer(n_classes, "n_classes")),
        )
