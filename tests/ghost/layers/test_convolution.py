"""Convolutions, against one backward pass for each sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from single import DTYPES, check, ghost, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd._utils import limits
from skbgmd.ghost.factors import KernelFactor


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=80)
@given(data=st.data(), axes=st.integers(1, 3), transposed=st.booleans(), dtype=DTYPES, seed=st.integers(0, 99))
def test_convolutions(data: Any, axes: int, transposed: bool, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    each = st.tuples(*[st.integers(1, 3)] * axes)
    kernel, stride, dilation = data.draw(each), data.draw(each), data.draw(st.tuples(*[st.integers(1, 2)] * axes))
    groups = data.draw(st.integers(1, 2))
    channels = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    padding = data.draw(st.tuples(*[st.integers(0, 2)] * axes))
    size = tuple(data.draw(st.integers(5, 6)) for _ in range(axes))
    x = made((3, channels[0], *size), dtype, seed)
    common = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": data.draw(st.booleans()),
        "dtype": dtype,
    }
    layer: nn.Module
    if transposed:
        extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        common["padding"] = tuple(min(p, (k - 1) * d) for p, k, d in zip(padding, kernel, dilation, strict=True))
        layer = kind(*channels, output_padding=extra, **common)
    else:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        mode = data.draw(st.sampled_from(["zeros", "circular", "same"]))
        if mode == "same":
            common |= {"padding": "same", "stride": 1}
        else:
            common["padding_mode"] = mode
        layer = kind(*channels, **common)
    check(layer, x)


@pytest.mark.parametrize("n_rows", [2, 7])
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(8, 3, 3), (8, 7, 7)),
        (nn.Conv2d(8, 4, (2, 3), stride=(1, 2), dilation=2, groups=2, padding=1), (8, 9, 9)),
        (nn.Conv1d(6, 2, 4, padding=3, padding_mode="circular"), (6, 12)),
        (nn.ConvTranspose2d(3, 8, 3, stride=2, output_padding=1), (3, 7, 7)),
        (nn.Conv2d(1, 5, 3), (1, 9, 9)),
        (nn.Conv2d(8, 3, 1), (8, 7, 7)),
    ],
)
def test_patches_with_the_channels_or_the_places_last(
    layer: nn.Module, size: tuple[int, ...], n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many samples at a time as fit, however few these are."""
    monkeypatch.setattr(limits, "UNFOLDED_ELEMENTS", 5000)
    weight = layer.weight
    x = made((n_rows, *size), torch.float32, 0)
    rows = ghost(layer, x, loss)
    ((_, kernel), *_) = rows.factors
    wide = weight.shape[0 if isinstance(layer, nn.ConvTranspose2d) else 1] > 1 and weight.shape[-1] > 1
    assert isinstance(kernel, KernelFactor) == wide
    check(layer, x)
