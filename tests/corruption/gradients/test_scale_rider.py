"""Scale rider: its distance and direction."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd.corruption import ScaleRider


@pytest.mark.parametrize("scale", [0.5, 1.8, 30.0])
def test_it_is_a_number_of_typical_distances_off(scale):
    gradients = matrix(21, 60)
    attacked, corrupt, honest = split(ScaleRider(fraction=0.4, scale=scale), gradients)
    mean = gradients[honest].mean(dim=0)
    typical = (gradients[honest] - mean).norm(dim=1).median()
    step = attacked[corrupt[0]] - mean
    assert torch.equal(attacked[corrupt], attacked[corrupt[0]].expand(len(corrupt), -1))
    assert float(step.norm() / typical) == pytest.approx(scale)
    assert float(torch.cosine_similarity(step, -mean, dim=0)) == pytest.approx(1.0)


def test_without_a_direction_it_stays_at_the_mean():
    gradients = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [5.0]])
    assert ScaleRider(corrupt=[4])(gradients)[4].item() == 0.0
