"""Memory filler: where it pushes, how far, and that pushes add up."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import MemoryFiller


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_it_pushes_the_columns_of_the_lowest_scores(share):
    gradients = matrix(20, 40)
    gradients[:, ::2] *= 10.0
    attacked, corrupt, honest = split(MemoryFiller(fraction=0.4, share=share), gradients)
    pushed = (attacked != gradients)[corrupt].all(dim=0)
    assert int(pushed.sum()) == 40 * share
    if share < 1.0:
        assert not pushed[::2].any()
    std = gradients[honest].std(dim=0, correction=0)
    expected = (0.5 * std * pushed).expand(len(corrupt), -1)
    torch.testing.assert_close((attacked - gradients)[corrupt], expected, rtol=1e-9, atol=1e-12)


def test_pushes_add_up_and_noise_does_not():
    total, honest_total = torch.zeros(40), torch.zeros(40)
    for seed in range(200):
        gradients = torch.randn(20, 40, generator=torch.Generator().manual_seed(seed))
        attacked = MemoryFiller(corrupt=[0], share=1.0)(gradients)
        total += attacked[0]
        honest_total += attacked[1]
    # 200 pushes of half a standard deviation, against a random walk of about 14.
    assert total.min() > 40.0
    assert honest_total.abs().max() < 60.0
    assert total.mean() == pytest.approx(100.0, rel=0.1)
