"""The products inside of multi-head attention, which a hook on the layer alone doesn't see.

``torch.nn.functional.multi_head_attention_forward`` multiplies by the layer's matrices itself. While the layer is
called, a copy of that function runs in which ``linear`` also says what it was given; nothing of torch is changed.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: One product: input, weight, bias, and output.
Product = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]
_ATTENTION: Any = F.multi_head_attention_forward
_IN_PROJECTION: Any = _ATTENTION.__globals__["_in_projection_packed"]


class AttentionProducts(TorchFunctionMode):
    """While entered, lists the products inside of multi-head attention."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ATTENTION:
            func = _with_names(_ATTENTION, linear=self._linear, _in_projection_packed=self._in_projection)
        return func(*args, **(kwargs or {}))

    def _linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = F.linear(x, weight, bias)
        self.products.append((x, weight, bias, output))
        return output

    def _in_projection(self, *args: Any, **kwargs: Any) -> Any:
        return _with_names(_IN_PROJECTION, linear=self._linear)(*args, **kwargs)


def _with_names(function: Any, **names: Any) -> Any:
    """A copy of a function that looks up some global names elsewhere."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def units_of(layer: nn.MultiheadAttention, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The parameter that a matrix or bias is (a part of), and the unit at which the part begins."""
    for parameter in layer.parameters():
        if tensor is parameter:
            return parameter, 0
        if tensor._base is parameter:
            offset = tensor.storage_offset() - parameter.storage_offset()
            return parameter, offset // max(1, parameter.stride(0))
    raise NotImplementedError("multi-head attention multiplies by something that isn't a part of a parameter")


def by_sample(x: torch.Tensor, n: int) -> torch.Tensor:
    """(positions, n, d), or (positions * n, d), as attention has it inside, as (n, positions, d)."""
    return x.reshape(-1, n, x.shape[-1]).transpose(0, 1)
