"""One model on several ranks: the same at the beginning and after each epoch, with the same scores to decide by."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.utils import multi_indexing
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Subset

from skbgmd._utils.random import random_source
from skbgmd.training._data.inputs import checksums
from skbgmd.training._ranks import current_ranks, scores_agreed
from skbgmd.training._step.stateful import StatefulAggregator


class AgreeingNet(NeuralNet):
    """A net that ranks train together; in one process it is as any other."""

    aggregator_: StatefulAggregator
    local_steps: int
    random_state: Any

    def _share(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Take a rank's share of data that all ranks have."""
        dataset = self.get_dataset(X, y)
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        chosen = current_ranks().share(len(dataset), seed, {"X": checksums(X), "y": checksums(y)})
        if chosen is None:
            return X, y
        return Subset(dataset, chosen.tolist()), None if y is None else multi_indexing(y, chosen)

    def _begin_together(self) -> None:
        """Begin with the same model on all ranks."""
        ranks = current_ranks()
        if ranks.size == 1:
            return
        if hasattr(self, "classes_inferred_"):
            self.classes_inferred_: NDArray[Any] = ranks.union(self.classes_inferred_)
        trained = {"epochs": len(self.history), "steps": self.aggregator_.n_batches}
        ranks.check_same(trained, "What was trained before")
        # A row of two steps is about twice as long.
        ranks.check_same(str(self.local_steps), "local_steps")
        self._begin_as_first_rank()

    def _begin_as_first_rank(self) -> None:
        """Take over the first rank's parameters, buffers and states of optimizers, which must have the same shapes."""
        ranks = current_ranks()
        if ranks.size == 1:
            return
        parts = [*self._learning_parts(), *((name, getattr(self, f"{name}_")) for name in self._optimizers)]
        tensors = dict(chain.from_iterable(_tensors(part.state_dict(), name) for name, part in parts))
        tensors = {name: tensor for name, tensor in tensors.items() if not is_lazy(tensor)}
        # What follows takes them in their order; a state lacks some buffers, and may have an order of its own.
        named = [
            (f"{part}.{name}", tensor)
            for part, module in self._learning_parts()
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
            if not is_lazy(tensor)
        ]
        ranks.check_same(
            {name: f"{tuple(tensor.shape)}, {tensor.dtype}" for name, tensor in (*tensors.items(), *named)},
            "The shapes of parameters, buffers and states of optimizers",
        )
        ranks.check_same(
            {f"number {i}": name for i, name in enumerate((*tensors, *(name for name, _ in named)))},
            "The order of parameters, buffers and states of optimizers",
        )
        settings = {
            f"{optimizer}, group {number}, {name}": value
            for optimizer in self._optimizers
            for number, group in enumerate(getattr(self, f"{optimizer}_").param_groups)
            for name, value in group.items()
            if value is None or isinstance(value, (bool, int, float, str))
        }
        ranks.check_same(settings, "The settings of optimizers")
        ranks.make_equal(list(tensors.values()))

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """Go once through the batches of an iterator, as skorch does."""
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        if training:
            self._agree_on_model()

    def _agree_on_model(self) -> None:
        """Make buffers the same on all ranks, robustly, at the end of an epoch, and check that parameters are.

        Buffers such as the means of batch normalization are of this rank's data.
        """
        ranks = current_ranks()
        if ranks.size == 1:
            return
        modules = [part for _, part in self._learning_parts()]
        buffers = [buffer for module in modules for buffer in module.buffers() if buffer.numel()]
        floating = [buffer for buffer in buffers if buffer.is_floating_point()]
        if floating:
            wide = torch.float64 if any(buffer.dtype == torch.float64 for buffer in floating) else torch.float32
            vector = torch.cat([buffer.detach().reshape(-1).to(floating[0].device, wide) for buffer in floating])
            parts = torch.split(ranks.combine(vector), [buffer.numel() for buffer in floating])
            for buffer, part in zip(floating, parts, strict=True):
                buffer.copy_(part.view(buffer.shape))
        if len(floating) < len(buffers):
            ranks.make_equal([buffer for buffer in buffers if not buffer.is_floating_point()])
        self._check_same_model()

    def _check_same_model(self) -> None:
        """Check that parameters and buffers have the same bits on all ranks."""
        ranks = current_ranks()
        if ranks.size > 1:
            found = {
                f"{part}.{name}": zlib.crc32(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
                for part, module in self._learning_parts()
                for name, tensor in (*module.named_parameters(), *module.named_buffers())
                if not is_lazy(tensor) and tensor.numel()
            }
            ranks.check_same(found, "The checksums of trained parameters and buffers")

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Tell the net and its callbacks of an event; of several ranks, those that decide by scores see the medians."""
        if method_name != "on_epoch_end" or current_ranks().size == 1:
            super().notify(method_name, **cb_kwargs)
            return
        callbacks: list[tuple[str, Any]] = vars(self)["callbacks_"]
        self.callbacks_ = scores_agreed(callbacks)
        try:
            super().notify(method_name, **cb_kwargs)
        finally:
            self.callbacks_ = callbacks

    def _learning_parts(self) -> list[tuple[str, nn.Module]]:
        """Modules and losses, by their names."""
        parts = [(name, getattr(self, f"{name}_", None)) for name in (*self._modules, *self._criteria)]
        return [(name, part) for name, part in parts if isinstance(part, nn.Module)]


def _tensors(state: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in a state of nested containers, by their places."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, (Mapping, list, tuple)):
        items = state.items() if isinstance(state, Mapping) else enumerate(state)
        for key, value in items:
            yield from _tensors(value, f"{name}.{key}")
