"""Multi-head attention: linear layers inside of a function of torch, which a hook on the layer alone doesn't see.

``torch.nn.functional.multi_head_attention_forward`` multiplies by the layer's matrices itself. While the layer is
called, a copy of that function runs in which ``linear`` also records its arguments; nothing of torch is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skbgmd.ghost.factors import Factor
from skbgmd.ghost.layers.linear import linear_factors
from skbgmd.ghost.registry import Part, Product, register_watch

_ATTENTION: Any = F.multi_head_attention_forward
#: Functions of it that multiply by matrices of one parameter, and of several.
_IN_PROJECTIONS: dict[str, Any] = {
    name: _ATTENTION.__globals__[name] for name in ("_in_projection_packed", "_in_projection")
}


@register_watch(nn.MultiheadAttention)
class AttentionProducts(TorchFunctionMode):
    """Lists the products inside of multi-head attention while it is entered."""

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.layer = layer
        self.products: list[Product] = []

    @staticmethod
    def sees_all(layer: nn.MultiheadAttention) -> bool:
        return layer.bias_k is None and layer.bias_v is None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ATTENTION:
            watched = {name: _with_names(each, linear=self._linear) for name, each in _IN_PROJECTIONS.items()}
            func = _with_names(_ATTENTION, linear=self._linear, **watched)
        return func(*args, **(kwargs or {}))

    def _linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = F.linear(x, weight, bias)
        self.products.append(Product(x, weight, bias, output))
        return output

    def parts(self, product: Product, gradient: torch.Tensor, n: int) -> Iterator[Part]:
        """Factors of a product for n samples, from the gradient with respect to its output."""
        if gradient.numel() % (n * gradient.shape[-1]):
            raise NotImplementedError(f"it must be given whole batches of {n} samples")
        factors = linear_factors(_by_sample(product.given, n), _by_sample(gradient, n))
        for used, factor in ((product.weight, factors["weight"]), (product.bias, factors["bias"])):
            if used is not None and isinstance(factor, Factor):
                yield (*self._units_of(used), factor)

    def _units_of(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Find the parameter that a matrix or bias is a part of, and the unit at which the part begins."""
        for parameter in self.layer.parameters():
            if tensor is parameter:
                return parameter, 0
            if tensor._base is parameter:
                offset = tensor.storage_offset() - parameter.storage_offset()
                return parameter, offset // max(1, parameter.stride(0))
        raise NotImplementedError("multi-head attention multiplies by something that isn't a part of a parameter")


def _with_names(function: Any, **names: Any) -> Any:
    """Copy a function so that it looks up some global names elsewhere."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def _by_sample(x: torch.Tensor, n: int) -> torch.Tensor:
    """Reshape (positions, n, d) or (positions * n, d), as attention has it inside, to (n, positions, d)."""
    return x.reshape(-1, n, x.shape[-1]).transpose(0, 1)
