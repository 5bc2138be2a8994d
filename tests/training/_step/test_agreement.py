"""One model on several ranks, the others of which answer what a test says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from skbgmd import RobustNeuralNetClassifier
from skbgmd.aggregators import GeometricMedian
from skbgmd.training._ranks import Ranks, together

# Layers draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


class Other(Ranks):
    """A second rank that says the same, but for one answer, and whose vectors are zero."""

    rank, size, splits_data = 0, 2, True
    differs = ""

    def gather(self, value: Any, what: str) -> list[Any]:
        return [value, "other" if self.differs and what.startswith(self.differs) else value]

    def combine(self, vector: torch.Tensor) -> torch.Tensor:
        return vector / 2


class WithOther(GeometricMedian):
    """A rule of two ranks."""

    other: Ranks = Ranks()

    def ranks(self) -> Ranks:
        return self.other


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> RobustNeuralNetClassifier:
    monkeypatch.setattr(WithOther, "other", Other())
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return RobustNeuralNetClassifier(module, aggregator=WithOther(), random_state=0, verbose=0).initialize()


def test_buffers_are_combined_and_counts_are_the_first_ranks(net: Any) -> None:
    with together(net.aggregator):
        net.module_[1].running_var.fill_(3.0)
        net._agree_on_model()
    assert net.module_[1].running_var.tolist() == [1.5] * 3
    assert net.module_[1].num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("differs", "call"),
    [
        ("What was trained", "_begin_together"),
        ("The shapes of parameters", "_begin_together"),
        ("The settings of optimizers", "_begin_together"),
        ("The checksums", "_agree_on_model"),
    ],
)
def test_what_differs_is_named(net: Any, differs: str, call: str) -> None:
    WithOther.other.differs = differs
    with together(net.aggregator), pytest.raises(ValueError, match=f"{differs}.*must be the same on all ranks"):
        getattr(net, call)()


def test_a_rank_takes_its_share_of_the_data(net: Any) -> None:
    X, y = np.arange(28, dtype=np.float32).reshape(7, 4), np.arange(7)
    with together(net.aggregator):
        part, targets = net._share(X, y)
    assert 3 <= len(part) < 7
    assert [part[i][0][0] / 4 for i in range(len(part))] == targets.tolist()


def test_alone_nothing_is_agreed_on(net: Any) -> None:
    net.module_[1].running_var.fill_(3.0)
    net._begin_together()
    net._agree_on_model()
    assert net.module_[1].running_var.tolist() == [3.0] * 3
