"""The first step of DistributedDataParallel with a static graph, which doesn't say which bucket is the last."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


class StepOfBuckets:
    """Tells where a step of DDP begins and ends, as a communication hook sees its buckets.

    Buckets have numbers, but for those of a static graph's first step: DDP hands them over after the backward pass,
    each as the first of several. There are several only of a model with parameters of several dtypes. Such a step ends
    with the last of the parameters, which the wrapper knows.
    """

    def __init__(self) -> None:
        #: The model's wrapper, once it was looked for, its parameters, and the last one whose first step has begun.
        self._wrapper: Callable[[], Any] = type(None)
        self._had_step: Callable[[], Any] = type(None)
        self._of_wrapper: set[torch.Tensor] = set()
        #: Parameters that are still to come where buckets have no numbers.
        self._missing: set[torch.Tensor] = set()

    def begins(self, bucket: Any) -> bool:
        """True if a bucket is the first one of a step."""
        parameters = bucket.parameters()
        if bucket.index() != 0 or self._missing.issuperset(parameters):
            return False
        self._missing = set() if bucket.is_last() else self._to_come(parameters[0])
        return True

    def ends(self, bucket: Any) -> bool:
        """True if a bucket is the last one of its step; to be asked once of each."""
        is_without_numbers = bool(self._missing)
        self._missing.difference_update(bucket.parameters())
        return bucket.is_last() or (is_without_numbers and not self._missing)

    def _to_come(self, first: torch.Tensor) -> set[torch.Tensor]:
        """Parameters of a step whose buckets have no numbers; none where they have."""
        wrapper = self.wrapper_of(first)
        if wrapper is None or wrapper is self._had_step():
            return set()
        self._had_step = weakref.ref(wrapper)
        if not wrapper.static_graph:
            return set()
        named, ignored = dict(wrapper.module.named_parameters()), wrapper.parameters_to_ignore
        return {each for name, each in named.items() if each.requires_grad and name not in ignored}

    def wrapper_of(self, parameter: torch.Tensor) -> Any:
        """The wrapper of a model with this parameter; None: there is none that can be found."""
        wrapper = self._wrapper()
        if wrapper is None or parameter not in self._of_wrapper:
            # It doesn't make itself known to its hook.
            wrapper = next((each for each in gc.get_objects() if _is_wrapper_of(each, parameter)), None)
            if wrapper is not None:
                self._wrapper, self._of_wrapper = weakref.ref(wrapper), set(wrapper.module.parameters())
        return wrapper


def sparse_layers(wrapper: Any) -> list[str]:
    """Names of the layers of a wrapped model whose gradients are sparse, as DDP itself tells them."""
    ignored = wrapper.parameters_to_ignore
    return [
        name or type(layer).__name__
        for name, layer in wrapper.module.named_modules()
        if isinstance(layer, (torch.nn.Embedding, torch.nn.EmbeddingBag))
        and layer.sparse
        and layer.weight.requires_grad
        and f"{name}.weight" not in ignored
    ]


def delayed_parameters(wrapper: Any) -> list[str]:
    """Names of the parameters of a wrapped model whose gradients DDP averages itself, without its hook."""
    delayed = {id(parameter) for parameter in getattr(wrapper, "_delay_all_reduce_params", ())}
    return [name for name, parameter in wrapper.module.named_parameters() if id(parameter) in delayed]


def _is_wrapper_of(found: Any, parameter: torch.Tensor) -> bool:
    """True if something is a wrapper of a model with this parameter."""
    # What only looks like one, as a weak proxy does, may not be asked.
    is_wrapper = issubclass(type(found), DistributedDataParallel)
    return is_wrapper and any(each is parameter for each in found.module.parameters())
