"""Derivative of dropout."""

import pytest
import torch
from torch import nn

from skbgmd.ghost.layers.dropout import dropout


@pytest.mark.usefixtures("forked")
def test_factors_are_the_same_both_ways():
    layer, x = nn.Dropout(0.25), torch.rand(50, 20) + 1.0
    output, back = dropout(layer, x)
    factors = output / x
    assert sorted(factors.round(decimals=4).unique().tolist()) == pytest.approx([0.0, 4 / 3], abs=1e-4)
    torch.testing.assert_close(back(torch.ones_like(x)), factors)


@pytest.mark.usefixtures("forked")
def test_all_or_nothing():
    x, before = torch.ones(3, 2), torch.get_rng_state()
    for layer in (nn.Dropout(0.5).eval(), nn.Dropout(0.0)):
        output, back = dropout(layer, x)
        assert output is x
        assert back(x) is x
    assert torch.equal(torch.get_rng_state(), before)
    output, back = dropout(nn.Dropout(1.0), x)
    assert not output.any()
    assert not back(x).any()
