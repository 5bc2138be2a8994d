"""The convolutional network that the paper trains on Fashion-MNIST."""

from __future__ import annotations

import torch

from skbgmd._utils.arrays import check_integer


class LeNet(torch.nn.Sequential):
    """Two convolutions and two linear layers for images of 28 x 28 pixels; gives logits.

    With ten classes it has 1,163,978 parameters, those of the network in Acharya et al. (2022).

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.
    dropout : float, default=0.5
        Probability with which a unit of the hidden linear layer is left out in training.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.lenet import LeNet
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
