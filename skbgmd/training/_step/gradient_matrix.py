"""The gradient matrix of a training step: a row for each group of samples, and back to the parameters."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import accumulate
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import nn

from skbgmd._utils.allocation import empty
from skbgmd._utils.backward_passes import refuse_reentrant, unwritten
from skbgmd.ghost import Chain, GradientRecorder
from skbgmd.rows import Rows
from skbgmd.rows.blocks import ParameterBlock

#: Something that computes the loss of some samples.
Loss = Callable[[], torch.Tensor]
#: A backward pass that isn't looked at.
AS_EVER = nullcontext()


class GradientRows(NamedTuple):
    """The rows of a step.

    Attributes
    ----------
    rows : Rows
        Gradients, to be aggregated.
    losses : tensor of shape (g,)
        Mean losses of the batch's groups.
    predictions : tensor, or tensors in containers
        What was predicted of the batch's samples, in their order.
    own : slice
        Rows that are of the batch's groups, in their order; others come from elsewhere.
    input_squares : tensor of shape (g,), or None
        For single samples, squared norms of what all linear and convolutional layers were given; None: not known.
    """

    rows: Rows
    losses: torch.Tensor
    predictions: Any
    own: slice = slice(None)
    input_squares: torch.Tensor | None = None


class GradientMatrix:
    """Memory for the gradients of groups of samples, one row each; used again in each step.

    Parameters
    ----------
    parameters : sequence of tensors
        What the loss is differentiated by.

    Attributes
    ----------
    n_columns : int
        Numbers in a row: the elements of the parameters, in their order; of complex ones the real and imaginary parts.
    units : ParameterBlock
        Their units.
    used : list of bool
        Which parameters the losses of the rows were found to depend on.
    are_written_out : dict of int to bool
        Whether gradients of so many samples of the chain are better written out.
    recorder : GradientRecorder, or None
        What recorded a pass for these parameters last.
    """

    # The chain that the module is; None where it is none; of no module yet.
    _chain: Chain | None = None
    _chained: nn.Module | None = None

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("The module must have parameters that require gradients; found none.")
        values = [_real(parameter.detach()) for parameter in self.parameters]
        self.sizes = [value.numel() for value in values]
        self._shapes = [value.shape for value in values]
        self._stops = list(accumulate(self.sizes))
        self.n_columns = self._stops[-1]
        wide = any(value.dtype == torch.float64 for value in values)
        self.dtype = torch.float64 if wide else torch.float32
        self.device = self.parameters[0].device
        self.units = ParameterBlock.of(values)
        self.used = [False] * len(self.parameters)
        self._memory: torch.Tensor | None = None
        self.recorder: GradientRecorder | None = None
        # A backward pass was looked at, and left gradients to be asked for.
        self._is_looked_at = False
        self.are_written_out: dict[int, bool] = {}

    def chain(self, module: nn.Module) -> Chain | None:
        """The chain that a module is; None where it is none, or no longer is."""
        if self._chained is not module or (self._chain is not None and not self._chain.is_as_it_was):
            self._chained, self._chain = module, Chain.of(module, self.parameters)
            self.are_written_out = {}
        return self._chain

    def give_up_chain(self) -> None:
        """The module is none after all."""
        self._chain = None

    def begin(self, parameters: Sequence[torch.Tensor]) -> bool:
        """Begin a step for these very parameters, or say that it was made for others."""
        if len(parameters) != len(self.parameters) or not all(map(is_, parameters, self.parameters)):
            return False
        self.used = [False] * len(self.parameters)
        return True

    def use(self, starts: Iterable[int]) -> None:
        """Note the columns at which parts of gradients begin: the parameters there are used."""
        for start in starts:
            self.used[bisect_right(self._stops, start)] = True

    def use_all(self) -> None:
        """Note that all parameters are used."""
        self.used = [True] * len(self.parameters)

    def rows(self, n: int) -> torch.Tensor:
        """The first n rows, as they were left."""
        if self._memory is None or len(self._memory) < n:
            self._memory = empty((n, self.n_columns), self.dtype, self.device)
        return self._memory[:n]

    def differentiate(
        self,
        loss: torch.Tensor,
        row: torch.Tensor,
        *,
        direction: torch.Tensor | None = None,
        retain_graph: bool = False,
    ) -> None:
        """Write the gradient of a loss to a row; zero for parameters that it doesn't depend on.

        Parameters
        ----------
        loss : tensor
            A scalar; or losses (n,), with a direction (n,) to multiply them by, or directions (m, n) for as many rows.
        row : tensor of shape (n_columns,), or (m, n_columns)
            Where to write.
        direction : tensor, default=None
        retain_graph : bool, default=False
            Keep the graph for another backward pass.

        Raises
        ------
        ValueError
            The first pass found parts of the graph that don't give gradients back, but write them to ``grad``.
        """
        gradients = self._gradients_of(loss, direction, retain_graph, is_grads_batched=row.ndim > 1)
        for part, gradient in zip(torch.split(row, self.sizes, dim=-1), gradients, strict=True):
            if gradient is None:
                part.zero_()
            else:
                part.copy_(_real(gradient.to_dense() if gradient.is_sparse else gradient).reshape(part.shape))

    def local_sgd_displacement(self, losses: Iterable[Loss], lr: float, row: torch.Tensor) -> list[torch.Tensor]:
        """Take plain gradient steps on one loss after the other; write the way back, divided by ``lr``, to a row.

        The parameters are put back to where they were. One step of any length writes the gradient.

        Returns
        -------
        list of tensors
            The losses.
        """
        before = [parameter.detach().clone() for parameter in self.parameters]
        seen = []
        try:
            for compute in losses:
                loss = compute()
                gradients = self._gradients_of(loss)
                with torch.no_grad():
                    for parameter, gradient in zip(self.parameters, gradients, strict=True):
                        if gradient is not None:
                            parameter.sub_(gradient, alpha=lr)
                seen.append(loss)
        finally:
            with torch.no_grad():
                for part, start, parameter in zip(torch.split(row, self.sizes), before, self.parameters, strict=True):
                    part.copy_(_real((start - parameter) / lr).reshape(-1))
                    parameter.copy_(start)
        return seen

    def _gradients_of(
        self,
        loss: torch.Tensor,
        direction: torch.Tensor | None = None,
        retain_graph: bool = False,
        *,
        is_grads_batched: bool = False,
    ) -> Sequence[torch.Tensor | None]:
        """Ask autograd for gradients, and note which parameters are used; the first pass is looked at."""
        if not self._is_looked_at:
            refuse_reentrant(loss)
        with AS_EVER if self._is_looked_at else unwritten(self.parameters):
            gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(
                loss, self.parameters, direction, retain_graph, allow_unused=True, is_grads_batched=is_grads_batched
            )
        self._is_looked_at = True
        self.used = [used or gradient is not None for used, gradient in zip(self.used, gradients, strict=True)]
        return gradients

    def add_to_gradients(self, vector: torch.Tensor) -> None:
        """Add a vector (d,) to the parameters' ``grad``; it must not be used elsewhere afterwards.

        What the losses don't depend on gets no gradient, as in a plain step: weight decay and momentum leave it alone.
        Then hooks by ``register_post_accumulate_grad_hook`` are called, as after a backward pass.
        """
        hooked: list[torch.Tensor] = []
        parts = torch.split(vector, self.sizes)
        for parameter, part, used, shape in zip(self.parameters, parts, self.used, self._shapes, strict=True):
            # Of what it did depend on, an aggregator may have kept something.
            if not used and not bool(part.any()):
                continue
            if parameter._post_accumulate_grad_hooks:
                hooked.append(parameter)
            gradient, before = part.view(shape), parameter.grad
            if parameter.is_complex():
                # A copy, for there is no complex view of a part that begins at an odd place.
                gradient = torch.view_as_complex(gradient.clone())
            if before is None:
                parameter.grad = _laid_out(gradient, parameter)
            elif before.is_sparse:
                parameter.grad = _laid_out(before.to_dense().add_(gradient.to(before.device)), parameter)
            else:
                before.add_(gradient.to(before.device))
        for parameter in hooked:
            for hook in list(parameter._post_accumulate_grad_hooks.values()):
                hook(parameter)


def is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether the numbers of a tensor fill a piece of memory, each place once, in whatever order."""
    if tensor.is_contiguous():
        return True
    # torch keeps the strides of these tensors alone.
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def dtype_of_gradient(parameter: torch.Tensor) -> torch.dtype:
    """Look up the dtype that gradients of a parameter are to have."""
    # Early versions of torch know no other than the parameter's; None is any.
    dtype: torch.dtype | None = getattr(parameter, "grad_dtype", None)
    return parameter.dtype if dtype is None else dtype


def _laid_out(gradient: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Put a contiguous gradient in a parameter's device, strides and dtype of gradients, as autograd does.

    Fused optimizers go through the memory of both, whatever the strides are.
    """
    dtype = dtype_of_gradient(parameter)
    if parameter.is_contiguous() or not is_dense(parameter):
        return gradient.to(parameter.device, dtype)
    return torch.empty_like(parameter, dtype=dtype, requires_grad=False).copy_(gradient)


def _real(value: torch.Tensor) -> torch.Tensor:
    """A tensor, or the real and imaginary parts of a complex one along a last axis."""
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
