"""The networks of the paper: LeNet is the library's; an 18-layer ResNet for images of 32 x 32 pixels."""

from __future__ import annotations

import torch
from torch import nn

from skbgmd.training.networks import MLP, LeNet


class Block(nn.Module):
    """Two 3 x 3 convolutions around which the input goes. He et al. (2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = before == after and stride == 1
        self.around = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(X) + self.around(X))


class ResNet18(nn.Sequential):
    """Four stages of two blocks each; 11.2 million parameters with ``width=64``."""

    def __init__(self, width: int = 64, n_classes: int = 10) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        for stage in range(4):
            after = width * 2**stage
            layers += [Block(channels, after, 1 if stage == 0 else 2), Block(after, after, 1)]
            channels = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))


def network(name: str, width: int) -> nn.Module:
    """A new network."""
    if name == "LeNet":
        return LeNet()
    return ResNet18(width) if name == "ResNet-18" else MLP(64, 10, (32,))
