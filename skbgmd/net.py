"""skorch nets whose training step aggregates the gradients of groups of samples robustly.

Only the step is replaced: callbacks, history, schedulers, gradient clipping, closures of optimizers, accumulation of
gradients, validation, saving and loading are skorch's own.
"""

from __future__ import annotations

import copy
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import PrintLog
from skorch.dataset import unpack_data
from skorch.utils import is_dataset, multi_indexing
from torch.nn.parameter import is_lazy

from skbgmd.aggregators import Aggregate, Aggregator, NonFiniteRowsError, get_aggregator
from skbgmd.arrays import check_choice, check_integer
from skbgmd.batches import ArrayLoader, gives_batches, known_of_samples, source
from skbgmd.ghost import GhostError, GhostRows, Tape
from skbgmd.ghost.rules import is_registered, rule_of
from skbgmd.groups import group_slices, group_sums, group_weights, loss_shares, pieces, sample_classes
from skbgmd.losses import mean_weight, of_samples, reduction, weighted_mean
from skbgmd.microbatch import GradientMatrix
from skbgmd.onepass import (
    check_rows,
    exact_sum,
    group_rows,
    is_better_written_out,
    is_cheaper,
    refusal,
    refuse_broadcasting,
    why_not,
    write_out,
)
from skbgmd.randomness import random_source
from skbgmd.resume import ResumableNet
from skbgmd.rows import DenseRows
from skbgmd.slices import Slices
from skbgmd.stateful import StatefulAggregator

_PARAMETERS = """
    Parameters
    ----------
    module : torch module (class or instance)
        As in skorch.
    aggregator : str or Aggregator, default="block_geometric_median"
        What makes one gradient of the groups' gradients: a key of :data:`skbgmd.aggregators.AGGREGATORS`, or an
        aggregator.
    group_size : int or None, default=8
        Samples whose mean gradient is a row. A batch is split into as few groups of at most so many samples as can
        be, of sizes as equal as can be. None: the whole batch is one group, which is plain training.
    local_steps : int, default=1
        Steps of plain gradient descent that each group takes by itself, on as many equal parts of its samples; its
        row is then the way it went, divided by the learning rate.
    gradients : {"auto", "one_pass", "micro_batches"}, default="auto"
        How the groups' gradients are had. "one_pass": of one forward and backward pass of the whole batch, from what
        went into the layers and what came back to them; the module must treat each sample by itself. In the first step
        a sum of these gradients is compared with that of a backward pass more. "micro_batches": a pass for each group.
        "auto": one pass where the module and the loss are known to allow it and groups have no more than 32 samples, 8
        where a CPU has convolutions to do, or 2 where a layer has no rule. The results are the same but for rounding,
        for what dropout draws, and by up to a per cent for the scale of ``huber``, which is taken about a rough median.
    gradient_corruption : GradientCorruption, default=None
        Corrupts rows before they are aggregated, to see what a rule withstands.
    random_state : int, RandomState or None, default=None
        Seed of what the gradient corruption draws, and an aggregator without a seed of its own.
    **kwargs
        Parameters of the skorch net.
"""


class _RobustTraining(ResumableNet):
    """The robust training step, for any of skorch's nets."""

    # For those who override initialize_module.
    _no_one_pass_ = False
    _is_known_to_allow_one_pass_ = False
    _has_places_ = True
    cuda_dependent_attributes_: ClassVar[list[str]] = [*NeuralNet.cuda_dependent_attributes_, "aggregator_"]

    def __init__(
        self,
        module: Any,
        *args: Any,
        aggregator: str | Aggregator = "block_geometric_median",
        group_size: int | None = 8,
        local_steps: int = 1,
        gradients: str = "auto",
        gradient_corruption: Any = None,
        random_state: Any = None,
        iterator_train: Any = ArrayLoader,
        iterator_valid: Any = ArrayLoader,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, *args, iterator_train=iterator_train, iterator_valid=iterator_valid, **kwargs)
        self.aggregator = aggregator
        self.group_size = group_size
        self.local_steps = local_steps
        self.gradients = gradients
        self.gradient_corruption = gradient_corruption
        self.random_state = random_state

    def set_params(self, **kwargs: Any) -> Any:
        """Set parameters by name; ``aggregator__x`` and ``gradient_corruption__x`` are those of these objects."""
        nested = {name for name in kwargs if re.match(r"(aggregator|gradient_corruption)__", name)}
        super().set_params(**{name: value for name, value in kwargs.items() if name not in nested})
        for name in sorted(nested):
            head, _, tail = name.partition("__")
            part = get_aggregator(self.aggregator) if head == "aggregator" else self.gradient_corruption
            if not hasattr(part, "set_params"):
                raise ValueError(f"{head} must have parameters for {name!r} to be set; found {part!r}.")
            setattr(self, head, part.set_params(**{tail: kwargs[name]}))
        return self

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        callbacks = super()._default_callbacks
        return [(name, _Log() if type(callback) is PrintLog else callback) for name, callback in callbacks]

    # ---- life cycle -------------------------------------------------------------------------------------------------

    def initialize(self) -> Any:
        self._check_parameters()
        super().initialize()
        self._initialize_aggregator()
        self._gradients_: GradientMatrix | None = None
        self._trust_: NDArray[np.float64] | None = None
        return self

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        train, valid = super().get_split_datasets(X, y, **fit_params)
        # What a split made itself has other places, and neither weights nor clients.
        self._has_places_ = not is_dataset(X) or source(train) is source(X)
        lost = known_of_samples(X)
        if lost and not self._has_places_:
            raise ValueError(
                f"train_split must give the training data or a subset of them, for samples to have "
                f"{' and '.join(lost)}; found {train!r}."
            )
        return train, valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        iterator = super().get_iterator(dataset, training=training)
        lost = known_of_samples(dataset) if training and not gives_batches(iterator) else []
        if lost:
            raise ValueError(
                f"iterator_train must be an ArrayLoader that takes whole batches of arrays, without a collate_fn, "
                f"sampler or batch_sampler, for samples to have {' and '.join(lost)}; found {iterator!r}."
            )
        return iterator

    def initialize_module(self) -> Any:
        # What steps have found of the module: that it doesn't allow one pass for all groups, or that it does.
        self._no_one_pass_ = False
        self._is_known_to_allow_one_pass_ = False
        return super().initialize_module()

    def _initialize_aggregator(self) -> None:
        # A copy: changing the parameter in the middle of a training must be noticed.
        aggregator = copy.deepcopy(get_aggregator(self.aggregator))
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        self.aggregator_ = StatefulAggregator(aggregator, seed)

    def _check_parameters(self) -> None:
        if self.group_size is not None:
            check_integer(self.group_size, "group_size")
        check_integer(self.local_steps, "local_steps")
        check_choice(self.gradients, "gradients", ("auto", "one_pass", "micro_batches"))
        if self.gradients == "one_pass" and self.local_steps > 1:
            raise ValueError(f'gradients="one_pass" must have local_steps=1; found {self.local_steps}.')
        corruption = self.gradient_corruption
        if corruption is not None and not callable(getattr(corruption, "apply_", None)):
            raise TypeError(
                f"gradient_corruption must be None or have a method apply_(gradients, random_state); "
                f"found {corruption!r}."
            )

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        super().on_train_begin(net, X=X, y=y, **kwargs)
        self._check_parameters()
        aggregator = get_aggregator(self.aggregator)
        if repr(aggregator.get_params()) != repr(self.aggregator_.aggregator.get_params()) or type(
            aggregator
        ) is not type(self.aggregator_.aggregator):
            self._initialize_aggregator()
        self._trust_ = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_epoch_begin(net, **kwargs)
        self._records_: list[dict[str, float]] = []

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        super().on_batch_end(net, batch=batch, training=training, **kwargs)
        if training:
            self.aggregator_.commit()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        for name in sorted({name for record in self._records_ for name in record}):
            values = [record[name] for record in self._records_ if name in record]
            self.history.record(name, sum(values) if name == "aggregation_time" else sum(values) / len(values))
        super().on_epoch_end(net, **kwargs)

    def _state_of_training(self) -> dict[str, Any]:
        return {
            "aggregator": self.aggregator_.state_dict(),
            "no_one_pass": self._no_one_pass_,
            "trust": None if self._trust_ is None else torch.from_numpy(self._trust_.copy()),
        }

    def _take_state(self, state: Mapping[str, Any]) -> None:
        self.aggregator_.load_state_dict(state["aggregator"])
        # A pass that is tried in vain draws dropout.
        self._no_one_pass_ = state["no_one_pass"]

    def _begin_with_state(self, state: Mapping[str, Any]) -> None:
        trust = state["trust"]
        self._trust_ = None if trust is None else trust.cpu().numpy().copy()

    def __getstate__(self) -> dict[str, Any]:
        # The matrix is memory to work in, not a part of the net.
        return {key: value for key, value in super().__getstate__().items() if key != "_gradients_"}

    # ---- the step ---------------------------------------------------------------------------------------------------

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Add the aggregate of the groups' gradients to the parameters' ``grad``.

        Returns
        -------
        step : dict
            ``loss``, the mean over the samples, and ``y_pred``, as skorch's own step gives them.
        """
        slices = group_slices(batch, self.group_size)
        weight = getattr(batch, "weight", None)
        if len(slices) == 1 and weight is None and self.local_steps == 1 and self.gradient_corruption is None:
            self._remember_trust(batch, slices, np.ones(1))
            step: dict[str, Any] = super().train_step_single(batch, **fit_params)
            return step
        gradients = self._gradient_matrix(batch)
        self._set_training(True)
        weights = group_weights(slices, weight)
        divisor = None if self._sums_losses() else mean_weight(self.criterion_, unpack_data(batch)[1], weight)
        collected = self._one_pass(gradients, batch, slices, weights, divisor, fit_params)
        if collected is None:
            collected = self._micro_batches(gradients, batch, slices, weights, divisor, fit_params)
        rows, losses, predictions = collected
        binary = isinstance(self.criterion_, (torch.nn.BCELoss, torch.nn.BCEWithLogitsLoss))
        aggregate = self._aggregate(rows, weights, sample_classes(batch, slices, binary=binary))
        factor = float(weights.sum()) if self._sums_losses() else 1.0
        gradients.add_to_gradients(aggregate.vector if factor == 1.0 else factor * aggregate.vector)
        if aggregate.weights is not None:
            self._remember_trust(batch, slices, aggregate.weights * weights.sum() / np.maximum(weights, 1e-300))
        return {"loss": factor * weighted_mean(losses, weights), "y_pred": predictions}

    def _one_pass(
        self,
        gradients: GradientMatrix,
        batch: Any,
        slices: Slices,
        weights: NDArray[np.float64],
        divisor: torch.Tensor | None,
        fit_params: dict[str, Any],
    ) -> Collected | None:
        """Rows of one forward and backward pass; None where micro-batches it must be, or they are cheaper."""
        X, y = unpack_data(batch)
        try:
            tape = self._tape(gradients, slices)
            if tape is None:
                return None
            with tape:
                predicted = self.infer(X, **fit_params)
            with reduction(self.criterion_, "none"):
                each = self.get_loss(predicted, y, X=X, training=True)
            refuse_broadcasting(each, predicted, y)
            each = loss_shares(each, batch, slices, weights, summed=self._sums_losses())
            each = each if divisor is None else each / divisor.to(each)
            known = self._is_known_to_allow_one_pass_
            exact = None if known else exact_sum(each, slices, tape.parameters)
            ghosts = group_rows(tape, each, slices, weights / weights.max(), gradients.units)
            if exact is not None:
                self._is_known_to_allow_one_pass_ = check_rows(ghosts, exact, tape.parameters)
            gradients.use(start for start, _ in ghosts.factors)
        except GhostError as error:
            if self.gradients == "one_pass":
                raise
            if any(is_registered(rule_of(layer)) for layer in self.module_.modules()):
                warnings.warn(f"A rule was registered, and yet there is a pass for each group. {error}", stacklevel=2)
            # It won't do in the next step either.
            self._no_one_pass_ = True
            return None
        rows: DenseRows | GhostRows = ghosts
        if self.gradient_corruption is not None or is_better_written_out(ghosts):
            rows = write_out(ghosts, gradients.rows(len(slices)))
        return Collected(rows, group_sums(each, slices), predicted)

    def _tape(self, gradients: GradientMatrix, slices: Slices) -> Tape | None:
        """What records one pass; None where there is to be none, and a GhostError where there can't be one."""
        if self.gradients == "micro_batches" or self.local_steps > 1 or self._no_one_pass_:
            return None
        tape = Tape(self.module_, gradients.parameters)
        if self.gradients == "auto" and not is_cheaper(tape, slices):
            return None
        reason = why_not(self)
        if reason is not None:
            raise refusal(reason)
        return tape

    def _micro_batches(
        self,
        gradients: GradientMatrix,
        batch: Any,
        slices: Slices,
        weights: NDArray[np.float64],
        divisor: torch.Tensor | None,
        fit_params: dict[str, Any],
    ) -> Collected:
        """Rows of a forward and backward pass for each group."""
        if slices.shortest < 2 * self.local_steps:
            _refuse_batch_norm(self.module_)
        matrix = gradients.rows(len(slices))
        losses, norms, predictions = self._fill(gradients, matrix, batch, slices, divisor, fit_params)
        lengths = norms.cpu().numpy().astype(np.float64)
        # A norm that overflowed or is lost in rounding is for the rows to find out.
        known = lengths if np.all((lengths > 1e-16) & (lengths < np.inf)) else None
        rows = DenseRows(matrix, weights / weights.max(), norms=known, units=gradients.units)
        return Collected(rows, losses, _concatenate(predictions))

    def _fill(
        self,
        gradients: GradientMatrix,
        matrix: torch.Tensor,
        batch: Any,
        slices: Slices,
        divisor: torch.Tensor | None,
        fit_params: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        """Write the groups' gradients to the rows of a matrix; mean losses, norms of the rows, and predictions."""
        weight = getattr(batch, "weight", None)
        norms = torch.empty(len(slices), dtype=matrix.dtype, device=matrix.device)
        losses: list[torch.Tensor] = []
        predictions: list[Any] = []
        for number, part in enumerate(slices):
            compute = [
                partial(self._group_loss, batch, piece, weight, divisor, predictions, fit_params)
                for piece in pieces(part, self.local_steps)
            ]
            if self.local_steps == 1:
                seen = [compute[0]()]
                gradients.differentiate(seen[0], matrix[number])
            else:
                seen = gradients.displace(compute, self._learning_rate(), matrix[number])
            # While the row is still in the cache; fetched later, so that no group waits for another.
            torch.linalg.vector_norm(matrix[number], out=norms[number])
            losses.append(torch.stack(seen).mean())
        return torch.stack(losses), norms, predictions

    def _group_loss(
        self,
        batch: Any,
        part: slice,
        weight: torch.Tensor | None,
        divisor: torch.Tensor | None,
        predictions: list[Any],
        fit_params: dict[str, Any],
    ) -> torch.Tensor:
        """Mean loss of some samples of a batch; what was predicted is appended to ``predictions``."""
        X, y = unpack_data(batch)
        Xi, yi = multi_indexing(X, part), multi_indexing(y, part)
        predicted = self.infer(Xi, **fit_params)
        predictions.append(predicted)
        if weight is None and divisor is None:
            loss: torch.Tensor = self.get_loss(predicted, yi, X=Xi, training=True)
            return loss / (part.stop - part.start) if self._sums_losses() else loss
        with reduction(self.criterion_, "none"):
            losses = self.get_loss(predicted, yi, X=Xi, training=True)
        each = of_samples(losses, summed=self._sums_losses())
        each = each if divisor is None else each / divisor.to(each)
        if weight is None:
            return each.mean()
        # Shares of the group's weight, whatever that is: they are numbers in the losses' dtype.
        of_sample = weight[part].double()
        shares = of_sample / of_sample.sum().clamp_min(torch.finfo(torch.float64).tiny)
        mean: torch.Tensor = each @ shares.to(each)
        return mean

    def _aggregate(
        self, rows: DenseRows | GhostRows, weights: NDArray[np.float64], classes: torch.Tensor | None
    ) -> Aggregate:
        if self.gradient_corruption is not None and isinstance(rows, DenseRows):
            self.gradient_corruption.apply_(rows.matrix, self.aggregator_.random_state())
            # Nothing that was known of the rows holds any longer.
            rows = DenseRows(rows.matrix, rows.weights, units=rows.units)
        rows.labels = classes
        start = time.perf_counter()
        try:
            aggregate = self.aggregator_(rows)
        except NonFiniteRowsError as error:
            raise NonFiniteRowsError(
                f"{error} The training diverged, which a smaller lr may prevent, or there are huge or non-finite "
                f"numbers in the data."
            ) from None
        self._record(aggregate, weights, time.perf_counter() - start)
        return aggregate

    def _record(self, aggregate: Aggregate, weights: NDArray[np.float64], seconds: float) -> None:
        record = {"aggregation_time": seconds}
        if aggregate.weights is not None:
            half = len(weights) // 2
            least = np.argpartition(aggregate.weights / np.maximum(weights, 1e-300), half)[:half]
            record["distrusted_weight"] = float(aggregate.weights[least].sum())
        if aggregate.mass is not None:
            record["selected_mass"] = aggregate.mass
        # Outside an epoch, in a training step made by hand, there is no one to tell.
        if hasattr(self, "_records_"):
            self._records_.append(record)

    def _remember_trust(self, batch: Any, slices: Slices, trust: NDArray[np.float64]) -> None:
        positions = getattr(batch, "positions", None)
        if positions is None or not self._has_places_:
            return
        size = int(positions.max()) + 1
        if self._trust_ is None or self._trust_.shape[1] < size:
            old, self._trust_ = self._trust_, np.zeros((2, 2 * size))
            if old is not None:
                self._trust_[:, : old.shape[1]] = old
        of_sample = np.repeat(trust, slices.lengths)
        np.add.at(self._trust_[0], positions, of_sample)
        np.add.at(self._trust_[1], positions, 1.0)

    def sample_trust(self, n: int) -> NDArray[np.float64]:
        """Mean weight of each of the first n samples of the last training's dataset, one as in a plain mean.

        NaN where nothing is known: the sample was never trained on, or the aggregator doesn't weigh rows.
        """
        sums = np.zeros((2, n))
        if self._trust_ is not None:
            width = min(n, self._trust_.shape[1])
            sums[:, :width] = self._trust_[:, :width]
        trust: NDArray[np.float64] = np.where(sums[1] > 0.0, sums[0] / np.maximum(sums[1], 1.0), np.nan)
        return trust

    def _gradient_matrix(self, batch: Any) -> GradientMatrix:
        # Those that are stepped on: a walk through all modules would take longer.
        groups = [group for name in self._optimizers for group in getattr(self, f"{name}_").param_groups]
        every = dict.fromkeys(parameter for group in groups for parameter in group["params"])
        parameters = [parameter for parameter in every if parameter.requires_grad]
        held = getattr(self, "_gradients_", None)
        if held is None or not held.fits(parameters):
            if any(is_lazy(parameter) for parameter in parameters):
                self.evaluation_step(batch)  # Only now it is known what they are of.
            self._gradients_ = held = GradientMatrix(parameters)
        held.begin()
        return held

    def _learning_rate(self) -> float:
        return float(self.optimizer_.param_groups[0]["lr"])

    def _sums_losses(self) -> bool:
        return getattr(self.criterion_, "reduction", "mean") == "sum"


class RobustNeuralNet(_RobustTraining):  # noqa: D101
    __doc__ = f"""skorch's ``NeuralNet`` with a robust training step.
{_PARAMETERS}"""


class RobustNeuralNetClassifier(_RobustTraining, NeuralNetClassifier):  # noqa: D101
    __doc__ = f"""skorch's ``NeuralNetClassifier`` with a robust training step.
{_PARAMETERS}
    Examples
    --------
    >>> import numpy as np, torch
    >>> from skbgmd import RobustNeuralNetClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> y = (X[:, 0] > 0).astype(np.int64)
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softmax(dim=-1))
    >>> net = RobustNeuralNetClassifier(module, lr=0.5, verbose=0).fit(X, y)
    >>> bool(net.score(X, y) > 0.9)
    True
    """


class RobustNeuralNetRegressor(_RobustTraining, NeuralNetRegressor):  # noqa: D101
    __doc__ = f"""skorch's ``NeuralNetRegressor`` with a robust training step.
{_PARAMETERS}"""


class _Log(PrintLog):
    """Lines for the epochs, which are not made up where nobody is to see them."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


class Collected(NamedTuple):
    """The rows of a step, the groups' mean losses (g,), and what was predicted."""

    rows: DenseRows | GhostRows
    losses: torch.Tensor
    predictions: Any


def _refuse_batch_norm(module: torch.nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ValueError(
                f"Groups must have at least two samples to pass through batch normalization; found a group of one and "
                f"the layer {name!r}. Raise group_size, or use torch.nn.GroupNorm or LayerNorm."
            )


def _concatenate(predictions: Sequence[Any]) -> Any:
    if isinstance(predictions[0], tuple):
        return tuple(_concatenate(parts) for parts in zip(*predictions, strict=True))
    # Those of a group of one may have lost their axis.
    return torch.cat([part if part.ndim else part[None] for part in predictions])


__all__ = [
    "RobustNeuralNet",
    "RobustNeuralNetClassifier",
    "RobustNeuralNetRegressor",
]
