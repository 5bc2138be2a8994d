"""A device that isn't there, to see what would go wrong on one that is.

Tensors "elsewhere" are wrapped ones of the CPU. They say that they are on another device, are refused by operations
that mix devices, and by NumPy; what is fetched from them is counted. It is no substitute for CUDA: kernels are those of
the CPU, and what is done by torch in place on the shape of a wrapped tensor goes by unseen.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: The only device besides the CPU that a build of torch without any other knows.
DEVICE = torch.device("meta")
_ATEN = torch.ops.aten
#: Torch itself takes indices from the CPU on any device.
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default)


class Elsewhere(torch.Tensor):
    """A tensor of the CPU that says that it isn't."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    def tolist(self) -> Any:
        fetched.append(self.inner.numel())
        return self.inner.tolist()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        product = func in (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul)
        if product and args[0].ndim == 1 and args[1].ndim == 2:
            # Torch would squeeze the product in place, which a wrapped tensor can't follow.
            return torch.mv(args[1].T, args[0])
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


#: Numbers of elements that were fetched from elsewhere.
fetched: list[int] = []


class Pretending(TorchDispatchMode):
    """While entered, tensors can be made on the device that isn't there, or brought to it."""

    def __enter__(self) -> Any:
        fetched.clear()
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    wrapped = [value for value in tensors if isinstance(value, Elsewhere)]
    device = kwargs.get("device")
    moves = func in (_ATEN._to_copy.default, _ATEN.copy_.default)
    if wrapped and not moves and func not in _INDEXING:
        here = [value for value in tensors if not isinstance(value, Elsewhere) and value.ndim > 0]
        if here:
            raise RuntimeError(f"Expected all tensors to be on the same device; found two in {func}.")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(lambda v: v.inner if isinstance(v, Elsewhere) else v, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if func is _ATEN._local_scalar_dense.default:
        fetched.append(1)
        return result
    stays = torch.device(device).type == DEVICE.type if device is not None else bool(wrapped)
    if func is _ATEN.copy_.default:
        if wrapped and not isinstance(args[0], Elsewhere):
            fetched.append(args[0].numel())
        return args[0]
    if not stays:
        if wrapped:
            fetched.append(result.numel())
        return result
    return tree_map(lambda value: _wrap(value, wrapped), result)


def _wrap(value: Any, wrapped: list[Elsewhere]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    # What was changed in place, or written to, is the tensor that was given.
    same = [given for given in wrapped if given.inner is value and given.shape == value.shape]
    return same[0] if same else Elsewhere(value)


def moved(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and buffers are elsewhere."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        for name, parameter in list(layer._parameters.items()):
            if parameter is not None:
                there = Elsewhere(parameter.detach().clone())
                layer._parameters[name] = nn.Parameter(there, requires_grad=parameter.requires_grad)
        for name, buffer in list(layer._buffers.items()):
            layer._buffers[name] = None if buffer is None else Elsewhere(buffer.clone())
    return module
