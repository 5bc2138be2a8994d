"""Rows of all groups of a batch from one forward and backward pass, where nothing mixes the samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.utils import to_tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skbgmd._utils import limits
from skbgmd._utils.backward_passes import is_in_half_precision, refuse_reentrant, unwritten
from skbgmd._utils.slices import Slices
from skbgmd._utils.typing import FloatArray
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder
from skbgmd.ghost.factors import AffineFactor, JoinedFactor, OuterProductFactor
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training._losses import differentiated, traits_of, unreduced
from skbgmd.training._step.compiled import uncompiled
from skbgmd.training._step.gradient_matrix import GradientMatrix, GradientRows
from skbgmd.training._step.groups import GroupedBatch

#: skorch's own inference, and its ways to a loss; one of the user's may hold anything.
KNOWN_INFERENCE = NeuralNet.infer
KNOWN_WAYS = {kind.get_loss for kind in (NeuralNet, NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor)}


def one_pass_rows(
    net: Any, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]
) -> GradientRows | None:
    """Rows of one forward and backward pass; None where a pass for each group is likely to be cheaper.

    Parameters
    ----------
    net : RobustNeuralNet
        The net that is trained.
    batch : GroupedBatch
        The samples.
    gradients : GradientMatrix
        Memory for rows that are better written out, and the parameters.
    fit_params : dict
        What skorch hands on to the module.

    Raises
    ------
    GhostError
        The net, its loss or its module doesn't allow it.
    """
    if not hasattr(net, "module_"):
        raise one_pass_error("the net's module isn't module_")
    with uncompiled(net):
        return _rows_of_module(net, batch, gradients, fit_params)


def _rows_of_module(
    net: Any, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]
) -> GradientRows | None:
    """As :func:`one_pass_rows`, of a module that isn't compiled as a whole, or is hooked."""
    recorder = gradients.recorder
    if recorder is None or recorder.module is not net.module_:
        recorder = gradients.recorder = GradientRecorder(net.module_, gradients.parameters)
    longest = batch.slices.longest
    # Groups of so few take one pass whatever the layers are.
    if (
        net.gradients == "auto"
        and longest > limits.ONE_PASS_GROUP_WITHOUT_RULE
        and longest > largest_group(recorder, len(batch.slices))
    ):
        return None
    criterion = net._criterion()
    obstacle = one_pass_obstacle(net, criterion)
    if obstacle is not None:
        raise one_pass_error(obstacle)
    if net._check_ is None or len(net._check_.seen) != len(gradients.parameters):
        net._check_ = OnePassCheck(len(gradients.parameters))
    is_due = net._check_.is_due()
    found = None if fit_params else chained_factors(net, criterion, batch, gradients, is_due=is_due)
    found = found or recorded_factors(net, criterion, batch, recorder, fit_params, is_due=is_due)
    rows = group_rows(found.factors, found.shares, batch, gradients.units)
    if found.exact is not None:
        net._check_.compare(rows, found.exact, gradients.parameters)
    if rows.covers_all:
        gradients.use_all()
    else:
        gradients.use([start for start, _ in rows.factors])
    squares = input_squares(rows) if longest == 1 else None
    if net.gradient_corruption is not None or is_better_written_out(rows, of_groups=longest > 1):
        written = write_out(rows, gradients.rows(rows.n_rows))
        return GradientRows(written, batch.sums(found.shares), found.predicted, input_squares=squares)
    return GradientRows(rows, batch.sums(found.shares), found.predicted, input_squares=squares)


class Differentiated(NamedTuple):
    """Per-sample gradients of a batch.

    Attributes
    ----------
    factors : list of (int, Factor or AffineFactor)
        The gradients of the shares.
    predicted : tensor, or tensors in containers
        What the module gave.
    shares : tensor of shape (n,)
        Share of each sample's loss in its group's mean.
    exact : Exact, or None
        A weighted sum of the gradients, if it was their turn to be compared.
    """

    factors: Sequence[tuple[int, JoinedFactor]]
    predicted: Any
    shares: torch.Tensor
    exact: Exact | None = None


def chained_factors(
    net: Any, criterion: Any, batch: GroupedBatch, gradients: GradientMatrix, *, is_due: bool
) -> Differentiated | None:
    """Per-sample gradients in closed form, where the module is a chain of layers that are known; None: it isn't.

    Nothing of a user's own may have a part in it, such as an ``infer``, a hook or an automatic cast of dtypes.
    """
    kind: Any = type(net)
    chain = gradients.chain(net.module_) if infers_as_skorch(kind) and "infer" not in vars(net) else None
    if chain is None:
        return None
    X: Any = to_tensor(batch.X, device=net.device) if isinstance(batch.X, torch.Tensor) else None
    if not chain.takes(X) or len(X) != batch.n_samples:
        return None
    # What is tried in vain, or made once more, must not draw other numbers.
    random = RandomNumbers(X.device) if is_due or not chain.is_tried else None
    try:
        went = chain.forward(X)
        losses, gradient = differentiated(net, criterion, went.output, batch.y, batch.X)
        refuse_broadcasting(losses, went.output, batch.y)
        each = batch.shares(losses)
        batch.tilt(batch.sums(each), net.tilt)
        factors = chain.factors(went, batch.shared(gradient, losses))
    except NotImplementedError:
        gradients.give_up_chain()
        if random is not None:
            random.restore()
        return None
    chain.is_tried = True
    if not is_due:
        return Differentiated(factors, went.output, each)
    assert random is not None, "kept where a comparison is due"
    random.restore()
    predicted = net.infer(batch.X)
    of_samples = batch.shares(unreduced(net, criterion, predicted, batch.y, batch.X))
    return Differentiated(factors, predicted, each, exact_sum(of_samples, batch.slices, gradients.parameters))


def infers_as_skorch(kind: Any) -> bool:
    """Tell whether nets of a class predict what their module gives, and nothing of a user's own is done to it."""
    own = [vars(base)["infer"] for base in kind.__mro__ if "infer" in vars(base)]
    return all(infer is KNOWN_INFERENCE or getattr(infer, "keeps_batches", False) for infer in own)


class RandomNumbers:
    """State of torch's random numbers on a device, to be drawn once more."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._state = torch.get_rng_state() if self._cuda is None else torch.cuda.get_rng_state(device)

    def restore(self) -> None:
        """Go back to that state."""
        if self._cuda is None:
            torch.set_rng_state(self._state)
        else:
            torch.cuda.set_rng_state(self._state, self._cuda)


def recorded_factors(
    net: Any,
    criterion: Any,
    batch: GroupedBatch,
    recorder: GradientRecorder,
    fit_params: dict[str, Any],
    *,
    is_due: bool,
) -> Differentiated:
    """Per-sample gradients by hooks on the layers and autograd; with an exact sum of them now and then."""
    with recorder:
        predicted = net.infer(batch.X, **fit_params)
    try:
        losses = unreduced(net, criterion, predicted, batch.y, batch.X)
        refuse_broadcasting(losses, predicted, batch.y)
        each = batch.shares(losses)
    except BaseException:
        # Its graph would be held until the next step.
        recorder.calls = []
        raise
    batch.tilt(batch.sums(each), net.tilt)
    if not is_due:
        return Differentiated(recorder.factors(each), predicted, each)
    with unwritten(recorder.parameters):
        exact = exact_sum(each, batch.slices, recorder.parameters)
        return Differentiated(recorder.factors(each), predicted, each, exact)


def input_squares(rows: GhostRows) -> torch.Tensor | None:
    """Squared norms (n,) of what all linear and convolutional layers were given; None where there are none."""
    squares = [factor.right_squares for factor in rows.parts if isinstance(factor, (AffineFactor, OuterProductFactor))]
    return sum(squares[1:], squares[0]) if squares else None


def one_pass_obstacle(net: NeuralNet, criterion: Any) -> str | None:
    """The obstacle to one pass for all samples that is known beforehand; None: there is none."""
    if type(net).get_loss not in KNOWN_WAYS or "get_loss" in vars(net):
        return "the net has a get_loss of its own"
    traits = traits_of(criterion)
    if traits is None or getattr(criterion, "reduction", None) not in ("mean", "sum"):
        return f"the loss {type(criterion).__name__} may not be a mean over samples"
    if getattr(criterion, "weight", None) is not None and not traits.weighs_classes:
        return "the loss has weights, which may not be one for each sample"
    if not isinstance(net.module_, nn.Module) or hasattr(net.module_, "_orig_mod"):
        return "the module is compiled"
    return None


def refuse_broadcasting(losses: torch.Tensor, predicted: Any, y: Any) -> None:
    """Refuse losses (n, ...) that aren't one for each prediction or target: a sample's own then aren't known.

    Raises
    ------
    GhostError
        Predictions and targets were broadcast against one another.
    """
    shapes = [value.shape for value in (predicted, y) if isinstance(value, torch.Tensor)]
    if losses.ndim > 1 and losses.shape not in shapes:
        found = " and ".join(str(tuple(shape)) for shape in shapes)
        raise one_pass_error(
            f"the losses have shape {tuple(losses.shape)}, of predictions and targets of shapes {found}"
        )


def largest_group(recorder: GradientRecorder, n_groups: int) -> float:
    """Samples in a group up to which one pass is likely to cost less than a pass for each of so many groups."""
    layers = recorder.layers
    if any(layer.rule is None and layer.watch is None for layer in layers):
        return limits.ONE_PASS_GROUP_WITHOUT_RULE
    if any(parameter.device.type != "cpu" for parameter in recorder.parameters):
        return math.inf if n_groups >= limits.ONE_PASS_GROUPS_OF_DEVICE else limits.ONE_PASS_GROUP
    convolves = any(isinstance(layer.module, _ConvNd) for layer in layers)
    return limits.ONE_PASS_GROUP_CONVOLVED if convolves else limits.ONE_PASS_GROUP


class WrongRowsError(GhostError):
    """A comparison found that the rows of one pass aren't the groups' gradients; nor may earlier ones have been."""


class Exact(NamedTuple):
    """A weighted sum of gradients.

    Attributes
    ----------
    vector : tensor of shape (d,)
        The sum.
    used : ndarray of shape (n_parameters,), bool
        Parameters that the losses depend on.
    half : bool, default=False
        A part of the graph was computed in half precision, as under autocast or in a frozen network.
    """

    vector: torch.Tensor
    used: NDArray[np.bool_]
    half: bool = False


def exact_sum(losses: torch.Tensor, slices: Slices, parameters: Sequence[torch.Tensor]) -> Exact:
    """A weighted sum of the groups' gradients by a backward pass through the parameters; the graph is kept.

    Parameters
    ----------
    losses : tensor of shape (n,)
        As in :func:`group_rows`.
    slices : Slices
        The groups, whose weights are those of :class:`OnePassCheck`.
    parameters : sequence of tensors
        What the losses are differentiated by.

    Raises
    ------
    ValueError
        The losses go through a reentrant checkpoint.
    """
    refuse_reentrant(losses)
    of_sample = np.repeat(_weights_to_check(len(slices)), slices.lengths)
    half = is_in_half_precision(losses)
    # By the gradient of the sum rather than the sum, which has no graph under torch.no_grad().
    weights = torch.from_numpy(of_sample).to(losses)
    gradients = torch.autograd.grad(losses, parameters, weights, retain_graph=True, allow_unused=True)
    parts = [
        torch.zeros_like(parameter) if gradient is None else gradient.to_dense()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    dtype = torch.promote_types(losses.dtype, torch.float32)
    vector = torch.cat([part.detach().reshape(-1).to(dtype) for part in parts])
    return Exact(vector, np.array([gradient is not None for gradient in gradients]), half)


class OnePassCheck:
    """Compares weighted sums of the rows of one pass with exact ones, now and then.

    They differ where something mixes samples, changes their order or shares parameters in a way that hooks on layers
    don't see. As long as a parameter has no gradient to speak of nothing can be seen of it: what is before a layer that
    begins at zero, a gate that is closed or an adapter. So there are comparisons in the first steps until each
    parameter that the loss depends on has had a gradient worth comparing; fewer and fewer after that, for what mixes
    samples may have a share in a gradient that only grows; and at intervals for what changes later.

    Parameters
    ----------
    n_parameters : int
        Number of parameters whose gradients the rows hold.
    """

    def __init__(self, n_parameters: int) -> None:
        self.seen: NDArray[np.bool_] = np.zeros(n_parameters, dtype=bool)
        self.n_steps = 0
        self._last = self._next = 0

    def is_due(self) -> bool:
        """Count a step, and say if its rows are to be compared."""
        self.n_steps += 1
        return self.n_steps > self._next

    def compare(self, rows: GhostRows, exact: Exact, parameters: Sequence[torch.Tensor]) -> None:
        """See whether the rows are the groups' gradients: whether a weighted sum of them is the exact one.

        Every row has a weight of its own, so that no mistake of any size cancels.

        Parameters
        ----------
        rows : GhostRows
            The rows.
        exact : Exact
            What :func:`exact_sum` gives for them.
        parameters : sequence of tensors
            Whose gradients they hold, in their order.

        Raises
        ------
        GhostError
            They aren't.
        """
        # Rows keep what they have computed, and go another way by it: a step must not depend on comparisons.
        rows = copy.copy(rows)
        sizes = [parameter.numel() for parameter in parameters]
        weights = _weights_to_check(rows.n_rows)
        of_rows = _norms_in_parts(rows, np.abs(weights), sizes)
        whole = float(np.abs(weights) @ rows.norms())
        if not (math.isfinite(whole) and np.isfinite(of_rows).all()):
            return  # It is for the aggregator to say that.
        vector = exact.vector
        found = rows.weighted_sum(weights).to(vector.dtype)
        norms, differences = _norms(vector, sizes), _norms(found - vector, sizes)
        lossy = exact.half or torch.get_float32_matmul_precision() != "highest"
        of_norm, of_part, of_whole = limits.CHECK_ROUNDING[torch.float16 if lossy else vector.dtype]
        rounding = of_part * of_rows + of_whole * whole
        wrong = differences > of_norm * norms + rounding
        if wrong.any():
            raise WrongRowsError(
                _refused(
                    "gradients of single samples don't add up to those of the batch: something mixes samples, "
                    "parameters are used other than by the layers that hold them, or a registered rule or derivative "
                    "is wrong"
                )
            )
        self.seen |= (norms > 0.0) & (norms >= limits.CHECK_WORTH * rounding)
        waits = bool((exact.used & ~self.seen).any())
        growth = limits.CHECK_GROWTH if waits else limits.CHECK_SEEN_GROWTH
        first = self.n_steps < limits.CHECK_FIRST_STEPS if waits else self.n_steps == 1
        after = 1 if first else int((growth - 1.0) * self.n_steps)
        self._last, self._next = self.n_steps, self.n_steps + min(after, limits.CHECK_INTERVAL) - 1

    @property
    def n_unseen(self) -> int:
        """Steps before the present one whose rows were not compared, since the last that were."""
        return self.n_steps - 1 - self._last


def _norms(vector: torch.Tensor, sizes: list[int]) -> FloatArray:
    """Norms of the parts of a vector."""
    norms: FloatArray = torch.stack([part.norm() for part in torch.split(vector, sizes)]).double().cpu().numpy()
    return norms


def _norms_in_parts(rows: GhostRows, weights: FloatArray, sizes: list[int]) -> FloatArray:
    """Weighted sums of the norms that the rows have in each of some parts of the columns."""
    stops = np.cumsum(sizes)
    squares = np.zeros((len(sizes), rows.n_rows))
    for start, factor in rows.factors:
        squares[np.searchsorted(stops, start, side="right")] += factor.squared_norms().double().cpu().numpy()
    return np.sqrt(np.maximum(squares, 0.0)) @ weights


def _weights_to_check(n: int) -> NDArray[np.float64]:
    """Numbers between a half and one in size, of either sign, no two alike and in no order.

    Of either sign, for what samples have in common must not hide what they haven't. Sizes and signs are of multiples of
    irrational numbers, modulo one.
    """
    places = np.arange(1, n + 1)
    sizes = 0.5 + 0.5 * np.modf(places * 0.6180339887498949)[0]
    weights: NDArray[np.float64] = np.where(np.modf(places * 0.4142135623730951)[0] < 0.5, sizes, -sizes)
    return weights


def one_pass_error(reason: str) -> GhostError:
    """The error that says why there can't be one pass."""
    return GhostError(_refused(reason))


def _refused(reason: str) -> str:
    return f"One pass for all groups can't be: {reason}."


def group_rows(
    factors: Sequence[tuple[int, JoinedFactor]], losses: torch.Tensor, batch: GroupedBatch, units: ParameterBlock
) -> GhostRows:
    """Gradients of the groups' losses.

    Parameters
    ----------
    factors : list of (int, Factor or AffineFactor)
        Gradients of the samples' losses.
    losses : tensor of shape (n,)
        Losses of the samples, divided so that they add up to their group's.
    batch : GroupedBatch
        The groups and their weights.
    units : ParameterBlock
        Units of all parameters.
    """
    n = len(losses)
    if batch.slices.longest == 1:
        return GhostRows(factors, n, units.total, batch.relative_weights, units=units, device=losses.device)
    samples = GhostRows(factors, n, units.total, units=units, device=losses.device)
    return samples.grouped(batch.slices, batch.relative_weights)


def is_better_written_out(rows: GhostRows, *, of_groups: bool = False) -> bool:
    """True if a matrix of the rows, of samples or of groups, costs less than working through their factors."""
    elements, small = rows.n_rows * rows.n_columns, limits.WRITE_OUT_ELEMENTS
    if rows.device.type != "cpu":
        small = limits.WRITE_OUT_ELEMENTS_OF_DEVICE if of_groups else small
    elif not of_groups:
        # A matrix costs more than the products of so few factors, and the default rule then takes all distances.
        small = 0
    if rows.n_rows <= limits.WRITE_OUT_ROWS and elements <= small:
        return True
    factored = sum(factor.multiplications for factor in rows.parts)
    return elements * (rows.n_rows + limits.AGGREGATION_PASSES) < factored


def write_out(rows: GhostRows, matrix: torch.Tensor) -> DenseRows:
    """Write rows to a matrix of their shape."""
    if sum(factor.n_columns for _, factor in rows.factors) < rows.n_columns:
        matrix.zero_()
    for start, factor in rows.factors:
        matrix[:, start : start + factor.n_columns] = factor.explicit(slice(0, factor.n_units))
    return DenseRows(matrix, rows.weights, units=rows.units)
