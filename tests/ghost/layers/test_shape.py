"""Derivatives of layers that leave numbers as they are."""

import torch
from torch import nn

from skbgmd.ghost.layers.shape import flatten, identity, unflatten


def test_shapes_there_and_back():
    x = torch.arange(24.0).view(2, 3, 4)
    for derivative, layer, shape in (
        (flatten, nn.Flatten(), (2, 12)),
        (flatten, nn.Flatten(1, 1), (2, 3, 4)),
        (unflatten, nn.Unflatten(2, (2, 2)), (2, 3, 2, 2)),
        (unflatten, nn.Unflatten(-1, (-1, 1)), (2, 3, 4, 1)),
        (identity, nn.Identity(), (2, 3, 4)),
    ):
        output, back = derivative(layer, x)
        assert output.shape == shape
        torch.testing.assert_close(back(output), x)
