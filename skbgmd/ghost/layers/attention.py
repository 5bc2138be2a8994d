"""Multi-head attention: linear layers inside of a function of torch, which a hook on the layer alone doesn't see.

``torch.nn.functional.multi_head_attention_forward`` multiplies by the layer's matrices itself, and repeats the key and
the value that ``add_bias_kv`` adds. While the layer is called, a copy of that function runs under a mode that sees
both; nothing of torch is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skbgmd.ghost.factors import DenseFactor, outer_product
from skbgmd.ghost.layers.linear import sum_positions
from skbgmd.ghost.registry import Part, Product, register_watch

_ATTENTION: Any = F.multi_head_attention_forward


@register_watch(nn.MultiheadAttention)
class AttentionProducts(TorchFunctionMode):
    """Lists the products inside of multi-head attention while it is entered."""

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.layer = layer
        self.products: list[Product] = []
        self._is_inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _ATTENTION:
            return self._attention(*args, **kwargs)
        output = func(*args, **kwargs)
        if self._is_inside and func is F.linear:
            self._add(output, *args, **kwargs)
        elif self._is_inside and func is torch.Tensor.repeat:
            # A product of nothing, and a bias.
            self._add(output, args[0], bias=args[0])
        return output

    def _attention(self, *args: Any, **kwargs: Any) -> Any:
        self._is_inside = True
        try:
            with self:
                return _alone(_ATTENTION)(*args, **kwargs)
        finally:
            self._is_inside = False

    def _add(
        self,
        output: torch.Tensor,
        x: torch.Tensor,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        self.products.append(Product(x, weight, bias, output))

    def parts(self, product: Product, gradient: torch.Tensor, n: int) -> Iterator[Part]:
        """Factors of a product for n samples, from the gradient with respect to its output."""
        if gradient.numel() % (n * gradient.shape[-1]):
            raise NotImplementedError(f"it must be given whole batches of {n} samples")
        delta = _by_sample(gradient, n)
        if product.weight is not None:
            yield (*self._units_of(product.weight), outer_product(delta, _by_sample(product.given, n)))
        if product.bias is not None:
            # One that is repeated has leading axes of one element.
            summed = sum_positions(delta).reshape(n, *product.bias.shape)
            yield (*self._units_of(product.bias), DenseFactor(summed))

    def _units_of(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Find the parameter that a matrix or bias is a part of, and the unit at which the part begins."""
        for parameter in self.layer.parameters():
            if tensor is parameter:
                return parameter, 0
            if tensor._base is parameter:
                offset = tensor.storage_offset() - parameter.storage_offset()
                return parameter, offset // max(1, parameter.stride(0))
        raise NotImplementedError("multi-head attention multiplies by something that isn't a part of a parameter")


def _alone(function: Any) -> Any:
    """Copy a function of torch so that it doesn't hand itself over to a mode."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda tensors: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def _by_sample(x: torch.Tensor, n: int) -> torch.Tensor:
    """Reshape (positions, n, d) or (positions * n, d), as attention has it inside, to (n, positions, d)."""
    return x.reshape(-1, n, x.shape[-1]).transpose(0, 1)
