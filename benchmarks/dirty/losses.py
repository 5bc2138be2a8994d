"""Losses of logits that are made for wrong labels."""

from __future__ import annotations

import torch

from skbgmd.training import register_loss


class _OfLogits(torch.nn.Module):
    """A mean over samples of a function of the logarithm of the given label's probability."""

    reduction = "mean"

    def forward(self, predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        losses = self.of_sample(torch.nn.functional.log_softmax(predicted, dim=1).gather(1, y[:, None])[:, 0])
        return losses if self.reduction == "none" else getattr(losses, self.reduction)()

    def of_sample(self, log_probability: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class GeneralizedCrossEntropy(_OfLogits):
    """(1 - p^q) / q with q = 0.7 (Zhang & Sabuncu 2018)."""

    q = 0.7

    def of_sample(self, log_probability: torch.Tensor) -> torch.Tensor:
        return -torch.expm1(self.q * log_probability) / self.q


class SymmetricCrossEntropy(_OfLogits):
    """Cross entropy with weight 0.1 and its reverse with weight 1, where log 0 counts as -4 (Wang et al. 2019)."""

    alpha, beta, A = 0.1, 1.0, -4.0

    def of_sample(self, log_probability: torch.Tensor) -> torch.Tensor:
        return -self.alpha * log_probability + self.beta * self.A * torch.expm1(log_probability)


register_loss(_OfLogits, targets="classes")
