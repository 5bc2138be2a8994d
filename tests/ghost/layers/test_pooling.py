"""Derivatives of pooling."""

import torch
from torch import nn

from skbgmd.ghost.layers.pooling import adaptive_mean_pool, max_pool, mean_pool


def test_of_equal_values_the_first_gets_the_gradient():
    output, back = max_pool(nn.MaxPool2d(2), torch.ones(1, 1, 2, 4))
    assert output.tolist() == [[[[1.0, 1.0]]]]
    assert back(torch.tensor([[[[2.0, 3.0]]]])).tolist() == [[[[2.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]


def test_means_share_it():
    x = torch.arange(8.0).view(1, 1, 2, 4)
    for layer, derivative in ((nn.AvgPool2d(2), mean_pool), (nn.AdaptiveAvgPool2d((1, 2)), adaptive_mean_pool)):
        output, back = derivative(layer, x)
        assert output.tolist() == [[[[2.5, 4.5]]]]
        assert back(torch.tensor([[[[4.0, 8.0]]]])).tolist() == [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
