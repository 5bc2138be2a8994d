"""Hooks of a layer that record its calls: by its inputs and outputs, or by the products inside of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from skbgmd.ghost.before_call import BeforeCall
from skbgmd.ghost.call_hook import CallHook
from skbgmd.ghost.computed_parameters import is_computed
from skbgmd.ghost.per_sample import per_sample_factors
from skbgmd.ghost.recorded_layers import GhostError, Layer
from skbgmd.ghost.registry import Factors, Part, Product, Rule, Watch, check_answer

#: Half precision.
HALF = (torch.float16, torch.bfloat16)


class Recorder(Protocol):
    """Object that is told of the calls of layers, such as :class:`skbgmd.ghost.GradientRecorder`."""

    def record(
        self, layer: Layer, given: list[torch.Tensor], outputs: list[torch.Tensor], parts: Callable[..., Iterator[Part]]
    ) -> None:
        """Add a call of a layer."""
        ...


class LayerHook:
    """Base of hooks that tell a recorder of a layer's calls."""

    def __init__(self, recorder: Recorder, layer: Layer) -> None:
        # Weakly, or a net that is dropped would keep its module until the collector of cycles comes.
        self.recorder, self.layer = weakref.proxy(recorder), layer


class RuleHook(LayerHook):
    """Forward hooks that record a layer's calls."""

    def register(self) -> list[Any]:
        """Hook the layer, until the handles are removed."""
        module = self.layer.module
        # What comes out before other hooks change it.
        handles: list[Any] = [module.register_forward_hook(CallHook(self.after), with_kwargs=True, prepend=True)]
        if self.layer.rule is None:
            self._before: list[BeforeCall] = []
            # What comes in after other hooks changed it; but torch's own are run again.
            first = is_computed(module)
            handles.append(module.register_forward_pre_hook(CallHook(self.before), prepend=first))
        return handles

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._before.append(BeforeCall(module))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        rule = self.layer.rule
        before = self._before.pop() if rule is None else None
        everything = _tensors(output)
        if len(everything) > 1:
            # One may have been made of another: what comes back to the other by way of the first isn't to count twice.
            output = tree_map_only(torch.Tensor, _alias, output)
            everything = _tensors(output)
        differentiable = [number for number, value in enumerate(everything) if value.grad_fn is not None]
        if not differentiable:
            return output
        given = _tensors(args[0] if len(args) == 1 and not kwargs else _in_order(module, args, kwargs))
        # What follows may change it in place.
        outputs = [] if rule is not None else [value.detach().clone() for value in everything]

        def parts(gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
            of_all: list[torch.Tensor | None] = [None] * len(everything)
            for number, gradient in zip(differentiable, gradients, strict=True):
                of_all[number] = gradient
            if rule is None:
                assert before is not None, "taken before each call"
                factors: Factors = per_sample_factors(module, before, (args, kwargs), outputs, of_all, n)
            else:
                factors = self._by_rule(rule, given, of_all, n)
            held = module.named_parameters() if module._modules else module._parameters.items()
            for name, parameter in held:
                if parameter is None:
                    continue
                if rule is not None and name not in factors:
                    raise NotImplementedError(f"its rule doesn't know the parameter {name!r}")
                unit, named = 0, factors.get(name, [])
                for factor in named if isinstance(named, Sequence) else [named]:
                    yield parameter, unit, factor
                    unit += factor.n_units

        self.recorder.record(self.layer, given, [everything[number] for number in differentiable], parts)
        return output

    def _by_rule(self, rule: Rule, given: list[torch.Tensor], gradients: list[torch.Tensor | None], n: int) -> Factors:
        axis, alone = self.layer.sample_axis, gradients[0] if len(gradients) == 1 else None
        # Older versions of torch see no tensors in packed sequences.
        shape = tuple(given[0].shape) if given else ()
        if len(shape) <= axis or shape[axis] != n or (alone is not None and len(alone) != n):
            raise GhostError(
                f"The samples must be along the {('first', 'second')[axis]} axis of what goes into a layer; "
                f"found {n} samples and, at the layer {self.layer.name!r}, shape {shape}."
            )
        wide = tuple(None if gradient is None else _wide(gradient) for gradient in gradients)
        factors = rule(self.layer.module, tuple(_wide(value) for value in given), wide if len(wide) > 1 else wide[0])
        if self.layer.is_own:
            check_answer(factors, self.layer.module, self.layer.name, n)
        return factors


class WatchHook(LayerHook):
    """Forward hooks that record the products inside of a layer."""

    def register(self) -> list[Any]:
        """Hook the layer, until the handles are removed."""
        module = self.layer.module
        return [
            module.register_forward_pre_hook(CallHook(self.before)),
            module.register_forward_hook(CallHook(self.after), always_call=True),
        ]

    def before(self, module: nn.Module, args: Any) -> None:
        assert self.layer.watch is not None, "a hook for layers that are watched"
        self.watch = self.layer.watch(module)
        self.watch.__enter__()

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        watch = self.watch
        del self.watch
        watch.__exit__(None, None, None)
        for product in watch.products:
            if product.output.grad_fn is not None:
                parts = partial(_parts_of_product, watch, product)
                self.recorder.record(self.layer, [product.given], [product.output], parts)


def _parts_of_product(watch: Watch, product: Product, gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
    (gradient,) = gradients
    assert gradient is not None, "a product has one output"
    return watch.parts(product._replace(given=_wide(product.given)), _wide(gradient), n)


def _in_order(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put arguments into the order in which the layer declares them."""
    if not kwargs:
        return args
    return tuple(signature(layer.forward).bind(*args, **kwargs).arguments.values())


def _alias(value: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, so that only gradients of what follows come back to it."""
    # Not a view, for those who are given it may change it in place.
    return value.clone() if value.grad_fn is not None else value


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Detach a tensor, and convert half to single precision."""
    values = values.detach()
    return values.float() if values.dtype in HALF else values


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
