"""What hooks record of a layer's calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from single import check, ghost, loss, made, reference
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder


def test_samples_along_another_axis_are_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x.flatten(0, 1)).view(x.shape)
            return result

    with pytest.raises(GhostError, match=r"found 5 samples and, at the layer 'layer', shape \(20, 3\)"):
        ghost(Flat(), made((5, 4, 3), torch.float32, 0), loss)


class Related(nn.Module):
    """A layer without a rule, one of whose outputs is made of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        one = (x @ self.matrix).tanh()
        return {"one": one, "others": (one.exp(), one)}


def test_outputs_that_are_made_of_one_another() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Related()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.layer(x)
            return torch.cat([found["one"], *found["others"]], dim=1)

    torch.manual_seed(0)
    check(Both(), made((5, 3), torch.float64, 0))


def test_outputs_that_are_changed_in_place_afterwards() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, last = self.layer(x)
            out += 0.3 * x.sum(dim=2, keepdim=True)
            result: torch.Tensor = out.flatten(1) * last[0].repeat(1, x.shape[1])
            return result

    torch.manual_seed(0)
    check(Changing(), made((5, 4, 3), torch.float32, 0), 3e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer, name: prune.random_unstructured(layer, name, 0.4),
        nn.utils.weight_norm,
        lambda layer, name: nn.utils.spectral_norm(layer, name).eval(),
        parametrizations.weight_norm,
    ],
    ids=["pruning", "old weight_norm", "old spectral_norm", "weight_norm"],
)
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: nn.Linear(6, 5, bias=False), "weight"),
        (lambda: nn.Conv1d(4, 3, 2), "weight"),
        (lambda: nn.LSTM(6, 3, batch_first=True), "weight_hh_l0"),
    ],
    ids=["linear", "convolution", "recurrent"],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weights_that_are_computed(layer: Any, name: str, change: Any) -> None:
    module = layer().double()
    recorder = GradientRecorder(module)
    assert recorder.layers[0].rule is not None
    change(module, name)
    x = made((5, 4, 6), torch.float64, 0)
    with recorder:
        losses = loss(module(x))
    rows = GhostRows(recorder.factors(losses), 5, sum(each.numel() for each in recorder.parameters), device=x.device)
    torch.testing.assert_close(rows.columns(torch.arange(rows.n_columns)), reference(module, x, loss))
