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
from sklearn.base import is_classifier
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import PrintLog
from skorch.dataset import Dataset, unpack_data
from skorch.hf import AccelerateMixin
from skorch.utils import is_dataset, multi_indexing
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from skbgmd._utils.checks import check_choice, check_integer, is_plain, refuse_masks, refuse_masks_and_dates
from skbgmd._utils.random import random_source
from skbgmd._utils.slices import Slices
from skbgmd.aggregators import Aggregate, Aggregator, Mean, NonFiniteRowsError, get_aggregator
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder
from skbgmd.ghost.rules import is_registered, rule_of
from skbgmd.rows import DenseRows
from skbgmd.training._defaults import DEFAULT, HUBER_OF_CLASSES, HUBER_OF_NUMBERS, default_rule
from skbgmd.training._divergence import diverged, explanation
from skbgmd.training._groups import (
    group_slices,
    group_sums,
    group_weights,
    is_sorted,
    loss_shares,
    pieces,
)
from skbgmd.training._loader import ArrayLoader, gives_batches, known_of_samples, refuse_in, source
from skbgmd.training._losses import (
    BINARY_LOSSES,
    CLASS_LOSSES,
    check_probabilities,
    complaint,
    mean_weight,
    of_samples,
    reduction,
    weighted_mean,
)
from skbgmd.training._micro_batches import GradientMatrix
from skbgmd.training._one_pass import (
    KNOWN_WAYS,
    OnePassCheck,
    WrongRowsError,
    exact_sum,
    group_rows,
    is_better_written_out,
    is_cheaper,
    one_pass_error,
    one_pass_obstacle,
    refuse_broadcasting,
    write_out,
)
from skbgmd.training._resume import ResumableNet
from skbgmd.training._stateful import StatefulAggregator

_PARAMETERS = """
    Parameters
    ----------
    module : torch module (class or instance)
        As in skorch.
    aggregator : str or Aggregator, default="block_geometric_median"
        What makes one gradient of the groups' gradients: a key of :data:`skbgmd.aggregators.AGGREGATORS`, or an
        aggregator. "block_geometric_median" is the rule of :class:`skbgmd.BlockGMDClassifier` and
        :class:`skbgmd.BlockGMDRegressor` with their defaults: all coordinates, ``rejection=10.0``, and for classes and
        groups of one ``huber=2.0``.
    group_size : int or None, default=8
        Samples whose mean gradient is a row. A batch is split into as few groups of at most so many samples as can
        be, of sizes as equal as can be. None: the whole batch is one group, which is plain training. Where targets are
        classes, the default loader deals the samples of each class out to all groups of a batch, unless
        ``iterator_train__stratify=None``; so it does under a binary loss, where they are whole numbers.
    local_steps : int, default=1
        Steps of plain gradient descent that each group takes by itself, on as many equal parts of its samples; its
        row is then the way it went, divided by the learning rate.
    gradients : {"auto", "one_pass", "micro_batches"}, default="auto"
        How the groups' gradients are had. "one_pass": of one forward and backward pass of the whole batch, from what
        went into the layers and what came back to them; the module must treat each sample by itself. In the first
        steps, and now and then later, a sum of these gradients is compared with that of a backward pass more.
        "micro_batches": a pass for each group. "auto": one pass where the module and the loss are known to allow it and
        groups have no more than 32 samples, 8 where a CPU has convolutions to do, or 2 where a layer has no rule. The
        results are the same but for rounding, for what dropout draws, and by up to a per cent for the scale of
        ``huber``, which is taken about a rough median; where many samples are tied, the scale may only be raised by
        later steps that take the Gram matrix.
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
    _check_: OnePassCheck | None = None
    _has_places_ = True
    # Whether samples are dealt out to groups, which is for batches to train on; whether a robust step was ever taken;
    # whether the next batch is the first of a training.
    _deals_ = False
    _has_stepped_ = False
    _is_first_batch_ = False
    # Of a training: groups and samples of the largest batch so far, and whether that was told of.
    _most_groups_ = 0
    _most_samples_ = 0
    _is_told_ = False
    cuda_dependent_attributes_: ClassVar[list[str]] = [*NeuralNet.cuda_dependent_attributes_, "aggregator_"]

    def __init__(
        self,
        module: Any,
        *args: Any,
        aggregator: str | Aggregator = DEFAULT,
        group_size: int | None = 8,
        local_steps: int = 1,
        gradients: str = "auto",
        gradient_corruption: Any = None,
        random_state: Any = None,
        iterator_train: Any = ArrayLoader,
        iterator_valid: Any = ArrayLoader,
        **kwargs: Any,
    ) -> None:
        _refuse_other_steps(type(self))
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
            part = self._rule() if head == "aggregator" else self.gradient_corruption
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
        if type(self).get_loss in KNOWN_WAYS and not hasattr(self, "criterion_"):
            raise ValueError(
                f"initialize_criterion must set criterion_, which skorch's get_loss is of, or get_loss must be the "
                f"net's own; found {self._criteria}."
            )
        # Only with the data it is known whether samples have clients, whose rule is another one.
        self._initialize_aggregator(self._rule(), provisional=self._has_default_rule())
        self._gradients_: GradientMatrix | None = None
        self._trust_: NDArray[np.float64] | None = None
        return self

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Train anew, as in skorch; an error for what is no data before the net is initialized."""
        self._refuse(X, y)
        return super().fit(X, y, **fit_params)

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        self._refuse(X, y)
        return super().get_dataset(X, y)

    def _refuse(self, X: Any, y: Any) -> None:
        """Refuse masked data, and such as torch makes no tensors of, where nothing of a user's own does."""
        if is_plain(X) and is_plain(y):
            return
        own = self.dataset is not Dataset or any(
            getattr(self, name) is not ArrayLoader or "collate_fn" in self.get_params_for(name)
            for name in ("iterator_train", "iterator_valid")
        )
        refuse = refuse_masks if own else refuse_masks_and_dates
        if is_dataset(X):
            refuse_in(X)
        else:
            refuse(X, "X")
        refuse(y, "y")

    def check_data(self, X: Any, y: Any = None) -> None:
        needs = isinstance(self, (NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor))
        # skorch asks this of its default loader only.
        if needs and y is None and not is_dataset(X) and self.iterator_train is ArrayLoader:
            raise ValueError(
                "No y-values are given (y=None). y must be given, or a Dataset that has it as X, or a loader of your "
                "own that makes it as iterator_train."
            )
        super().check_data(X, y)

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> Any:
        # In predictions samples keep their order; to a mean it doesn't matter.
        self._deals_ = self.iterator_train is ArrayLoader and self._compares_groups() and self._may_have_classes()
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except (RuntimeError, ValueError) as error:
            # Losses and scores may refuse what diverged parameters predict, before these are looked at.
            if not isinstance(error, NonFiniteRowsError):
                self._refuse_divergence(X, y)
            raise
        finally:
            self._deals_ = False

    def get_params_for(self, prefix: str) -> dict[str, Any]:
        params: dict[str, Any] = super().get_params_for(prefix)
        if prefix == "iterator_train" and self._deals_:
            params.setdefault("stratify", self.group_size)
        return params

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
        # All data come by here: those to train on, to validate by and to predict of.
        collates = getattr(iterator, "collate_fn", None) is default_collate
        if collates and getattr(type(source(dataset)), "transform", None) is Dataset.transform:
            # What torch itself makes tensors of; datasets and functions of a user's own may do so with dates.
            refuse_in(dataset, refuse_masks_and_dates)
        elif not isinstance(iterator, ArrayLoader):
            refuse_in(dataset)
        lost = known_of_samples(dataset) if training and not gives_batches(iterator) else []
        if lost:
            raise ValueError(
                f"iterator_train must be an ArrayLoader that takes whole batches of arrays, without a collate_fn, "
                f"sampler or batch_sampler, for samples to have {' and '.join(lost)}; found {iterator!r}."
            )
        return iterator

    def initialize_module(self) -> Any:
        # What steps have found of the module: that it doesn't allow one pass for all groups, or what they saw of it.
        self._no_one_pass_, self._check_ = False, None
        return super().initialize_module()

    def _initialize_aggregator(self, aggregator: Aggregator, *, provisional: bool = False) -> None:
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        # A copy: changing the parameter in the middle of a training must be noticed.
        self.aggregator_ = StatefulAggregator(copy.deepcopy(aggregator), seed, provisional=provisional)

    def _has_default_rule(self) -> bool:
        return isinstance(self.aggregator, str) and self.aggregator == DEFAULT

    def _rule(self, X: Any = None) -> Aggregator:
        """What ``aggregator`` stands for in a training on X."""
        if not self._has_default_rule():
            return get_aggregator(self.aggregator)
        by_clients = is_dataset(X) and "clients" in known_of_samples(X)
        return default_rule(
            huber=HUBER_OF_CLASSES if self._learns_classes() else HUBER_OF_NUMBERS,
            of_samples=self.group_size == 1 and self.local_steps == 1 and not by_clients,
        )

    def _learns_classes(self) -> bool:
        return is_classifier(self) or self._has_loss(CLASS_LOSSES)

    def _may_have_classes(self) -> bool:
        """Whether targets may be classes; of a binary loss they may as well be shares, or numbers of many outputs."""
        return self._learns_classes() or self._has_loss((*BINARY_LOSSES, nn.MultiMarginLoss))

    def _has_loss(self, kinds: tuple[type, ...]) -> bool:
        # Before it is initialized there is what it is to be made of.
        criterion = self._criterion() or self.criterion
        return issubclass(criterion if isinstance(criterion, type) else type(criterion), kinds)

    def _compares_groups(self) -> bool:
        """Whether batches are to be split into groups for a rule that can tell them apart."""
        return self.group_size is not None and not isinstance(self.aggregator_.aggregator, Mean)

    def _criterion(self) -> Any:
        """The one loss, whatever its name; None where there are several, or none yet."""
        if hasattr(self, "criterion_"):
            return self.criterion_
        return getattr(self, f"{self._criteria[0]}_", None) if len(self._criteria) == 1 else None

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
        if not hasattr(self, "aggregator_"):
            raise TypeError(
                f"initialize must be that of the robust net; found {type(self).__name__}, of which a class in front of "
                f"it doesn't call super().initialize()."
            )
        self._check_parameters()
        self._has_stepped_, self._is_first_batch_ = False, True
        self._most_groups_, self._most_samples_, self._is_told_ = 0, 0, False
        aggregator, loaded = self._rule(X), self.aggregator_.hand_over()
        held = self.aggregator_.aggregator
        is_other = type(aggregator) is not type(held) or repr(aggregator.get_params()) != repr(held.get_params())
        was_provisional, self.aggregator_.provisional = self.aggregator_.provisional, False
        if is_other:
            self._initialize_aggregator(aggregator)
        if loaded is not None and (is_other or was_provisional):
            # Only now it is known which rule it was loaded for.
            self.aggregator_.load_state_dict(loaded)
        self._trust_ = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_epoch_begin(net, **kwargs)
        self._records_: list[dict[str, float]] = []

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        super().on_batch_end(net, batch=batch, training=training, **kwargs)
        if training:
            self._check_step()
            self.aggregator_.commit()

    def on_grad_computed(self, net: Any, named_parameters: Any, training: bool = False, **kwargs: Any) -> None:
        # Before the optimizer takes the gradients.
        super().on_grad_computed(net, named_parameters, training=training, **kwargs)
        if training:
            self._check_step()

    def _check_step(self) -> None:
        if self._has_stepped_:
            return
        order = type(self).__mro__
        in_front = order[: order.index(_RobustTraining)]
        steps = [f"{kind.__name__}.{name}" for kind in in_front for name in _STEPS if name in vars(kind)]
        raise TypeError(
            f"The training step must be the robust net's: gradients would be plain ones; found one that doesn't call "
            f"super().train_step_single: {', '.join(steps)}."
        )

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        for name in sorted({name for record in self._records_ for name in record}):
            values = [record[name] for record in self._records_ if name in record]
            self.history.record(name, sum(values) if name == "aggregation_time" else sum(values) / len(values))
        losses = [batch.get("train_loss", 0.0) for batch in self.history[-1]["batches"]]
        if not np.isfinite(losses).all():
            self._refuse_divergence(kwargs.get("dataset_train"))
        self._warn_of_one_group()
        super().on_epoch_end(net, **kwargs)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any) -> Any:
        """Train on, as in skorch; an error for what is no data, or parameters that are not finite afterwards."""
        self._refuse(X, y)
        super().partial_fit(X, y, classes=classes, **fit_params)
        # A callback may have loaded others in the end.
        self._refuse_divergence(X, y)
        return self

    def _refuse_divergence(self, X: Any, y: Any = None) -> None:
        """Refuse parameters that aren't finite: a plain step has no rows that would tell, nor has the last step."""
        parameters = (parameter for _, parameter in self.get_all_learnable_params())
        held = source(X)
        data = {"X": getattr(held, "X", X), "y": getattr(held, "y", y)}
        reason = diverged(self, [each for each in parameters if each.requires_grad and not is_lazy(each)], data)
        if reason is not None:
            raise NonFiniteRowsError(f"The network's parameters must stay finite. {reason}")

    def _warn_of_one_group(self) -> None:
        """Warn, once a training, where no batch had groups to be compared."""
        if self._most_groups_ != 1 or self._is_told_ or not self._compares_groups():
            return
        if self._has_clients_:
            found = "found one client, so that there was nothing to compare: this is plain training."
            warnings.warn(f"clients, groups in an estimator's fit, must be several; {found}", stacklevel=2)
        elif self.group_size != 1:
            warnings.warn(
                f"group_size must be smaller than the batches, for a rule to have groups to compare; found "
                f"group_size={self.group_size} and no batch of more than {self._most_samples_} samples, with "
                f"batch_size={self.batch_size}: this is plain training. Take smaller groups, or group_size=None.",
                stacklevel=2,
            )
        self._is_told_ = True

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
        # Memory to work in, and what was seen of this very module, are not a part of the net.
        work = ("_gradients_", "_check_")
        return {key: value for key, value in super().__getstate__().items() if key not in work}

    # ---- the step ---------------------------------------------------------------------------------------------------

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Add the aggregate of the groups' gradients to the parameters' ``grad``.

        Returns
        -------
        step : dict
            ``loss``, the mean over the samples, and ``y_pred``, as skorch's own step gives them.
        """
        slices = group_slices(batch, self.group_size)
        n_groups, n = len(slices), slices[-1].stop
        # skorch looks at each attribute that is set: not in every step.
        if not self._has_stepped_ or n_groups > self._most_groups_ or n > self._most_samples_:
            self._has_stepped_, self._has_clients_ = True, getattr(batch, "slices", None) is not None
            self._most_groups_ = max(self._most_groups_, n_groups)
            self._most_samples_ = max(self._most_samples_, n)
        weight = getattr(batch, "weight", None)
        if n_groups == 1 and weight is None and self.local_steps == 1 and self.gradient_corruption is None:
            self._remember_trust(batch, slices, np.ones(1))
            step: dict[str, Any] = super().train_step_single(batch, **fit_params)
            self._look_at(batch, step["y_pred"])
            return step
        gradients = self._gradient_matrix(batch)
        self._set_training(True)
        weights = group_weights(slices, weight)
        divisor = None if self._sums_losses() else mean_weight(self._criterion(), unpack_data(batch)[1], weight)
        collected = self._one_pass(gradients, batch, slices, weights, divisor, fit_params)
        if collected is None:
            collected = self._micro_batches(gradients, batch, slices, weights, divisor, fit_params)
        rows, losses, predictions = collected
        self._look_at(batch, predictions)
        try:
            aggregate = self._aggregate(rows, weights)
        except NonFiniteRowsError as error:
            reason = explanation(self, batch, rows, gradients.parameters, losses, predictions)
            raise NonFiniteRowsError(f"{error} {reason}") from None
        factor = float(weights.sum()) if self._sums_losses() else 1.0
        gradients.add_to_gradients(aggregate.vector if factor == 1.0 else factor * aggregate.vector)
        if aggregate.weights is not None:
            self._remember_trust(batch, slices, aggregate.weights * weights.sum() / np.maximum(weights, 1e-300))
        return {"loss": factor * weighted_mean(losses, weights), "y_pred": predictions}

    def _look_at(self, batch: Any, predicted: Any) -> None:
        """See what is likely to be a mistake in the first batch of a training."""
        if not self._is_first_batch_:
            return
        self._is_first_batch_ = False
        predicted = predicted[0] if isinstance(predicted, tuple) else predicted
        takes_logarithms = type(self).get_loss is NeuralNetClassifier.get_loss
        if takes_logarithms and isinstance(self._criterion(), nn.NLLLoss):
            check_probabilities(predicted)
        found = complaint(self._criterion(), predicted) if type(self).get_loss in KNOWN_WAYS else None
        if found is not None:
            warnings.warn(found, stacklevel=2)
        size = self.group_size or 1
        is_told_apart = self._compares_groups() and size > 1 and not self._has_clients_ and self._may_have_classes()
        if is_told_apart and is_sorted(unpack_data(batch)[1], size, binary=self._has_loss(BINARY_LOSSES)):
            warnings.warn(
                "Samples must be shuffled, or be dealt out to the groups: the first batch is sorted by class, and of "
                "groups of one class the most overrule the others. Give iterator_train__shuffle=True; an ArrayLoader "
                "that takes whole batches of arrays deals them out.",
                stacklevel=2,
            )

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Predictions for a batch, as in skorch; those of a single sample have an axis for it."""
        predicted = super().infer(x, **fit_params)
        if not isinstance(predicted, tuple):
            return _of_samples(predicted, x)
        first = _of_samples(predicted[0], x)
        return predicted if first is predicted[0] else (first, *predicted[1:])

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
        check = self._check_of(gradients)
        try:
            tape = self._tape(gradients, slices)
            if tape is None:
                return None
            with tape:
                predicted = self.infer(X, **fit_params)
            with reduction(self._criterion(), "none"):
                each = self.get_loss(predicted, y, X=X, training=True)
            refuse_broadcasting(each, predicted, y)
            each = loss_shares(each, batch, slices, weights, summed=self._sums_losses())
            each = each if divisor is None else each / divisor.to(each)
            half, exact = tape.in_half_precision, None
            if check.is_due():
                exact = exact_sum(each, slices, tape.parameters)
            ghosts = group_rows(tape, each, slices, weights / weights.max(), gradients.units)
            if exact is not None:
                check.compare(ghosts, exact, tape.parameters, half=half)
            gradients.use(start for start, _ in ghosts.factors)
        except GhostError as error:
            if self.gradients == "one_pass":
                raise
            if any(is_registered(rule_of(layer)) for module in self._networks() for layer in module.modules()):
                warnings.warn(f"A rule was registered, and yet there is a pass for each group. {error}", stacklevel=2)
            elif check.n_unseen > 0:
                # Only a comparison says anything of the steps before.
                wrong = f"; up to {check.n_unseen} steps before had wrong gradients"
                before = wrong if isinstance(error, WrongRowsError) else ", which may be slower"
                warnings.warn(f"There is a pass for each group from now on{before}. {error}", stacklevel=2)
            # It won't do in the next step either.
            self._no_one_pass_ = True
            return None
        rows: DenseRows | GhostRows = ghosts
        if self.gradient_corruption is not None or is_better_written_out(ghosts):
            rows = write_out(ghosts, gradients.rows(len(slices)))
        return Collected(rows, group_sums(each, slices), predicted)

    def _check_of(self, gradients: GradientMatrix) -> OnePassCheck:
        """What compares the rows of one pass; anew for other parameters."""
        if self._check_ is None or len(self._check_.seen) != len(gradients.parameters):
            self._check_ = OnePassCheck(len(gradients.parameters))
        return self._check_

    def _tape(self, gradients: GradientMatrix, slices: Slices) -> GradientRecorder | None:
        """What records one pass; None where there is to be none, and a GhostError where there can't be one."""
        if self.gradients == "micro_batches" or self.local_steps > 1 or self._no_one_pass_:
            return None
        if not hasattr(self, "module_"):
            raise one_pass_error("the net's module isn't module_")
        tape = GradientRecorder(self.module_, gradients.parameters)
        if self.gradients == "auto" and not is_cheaper(tape, slices):
            return None
        reason = one_pass_obstacle(self)
        if reason is not None:
            raise one_pass_error(reason)
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
            for module in self._networks():
                _refuse_batch_norm(module)
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
                seen = gradients.local_sgd_displacement(compute, self._learning_rate(), matrix[number])
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
        with reduction(self._criterion(), "none"):
            losses = self.get_loss(predicted, yi, X=Xi, training=True)
        each = of_samples(losses, part.stop - part.start, summed=self._sums_losses())
        each = each if divisor is None else each / divisor.to(each)
        if weight is None:
            return each.mean()
        # Shares of the group's weight, whatever that is: they are numbers in the losses' dtype.
        of_sample = weight[part].double()
        shares = of_sample / of_sample.sum().clamp_min(torch.finfo(torch.float64).tiny)
        mean: torch.Tensor = each @ shares.to(each)
        return mean

    def _aggregate(self, rows: DenseRows | GhostRows, weights: NDArray[np.float64]) -> Aggregate:
        if self.gradient_corruption is not None and isinstance(rows, DenseRows):
            self.gradient_corruption.apply_(rows.matrix, self.aggregator_.random_state())
            # Nothing that was known of the rows holds any longer.
            rows = DenseRows(rows.matrix, rows.weights, units=rows.units)
        start = time.perf_counter()
        aggregate = self.aggregator_(rows)
        self._record(aggregate, weights, time.perf_counter() - start)
        return aggregate

    def _record(self, aggregate: Aggregate, weights: NDArray[np.float64], seconds: float) -> None:
        record = {"aggregation_time": seconds}
        if aggregate.weights is not None:
            half = len(weights) // 2
            least = np.argpartition(aggregate.weights / np.maximum(weights, 1e-300), half)[:half]
            record["lower_half_weight"] = float(aggregate.weights[least].sum())
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
        return float(getattr(self, f"{self._optimizers[0]}_").param_groups[0]["lr"])

    def _networks(self) -> list[nn.Module]:
        return [getattr(self, f"{name}_") for name in self._modules]

    def _sums_losses(self) -> bool:
        return getattr(self._criterion(), "reduction", "mean") == "sum"


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


#: What skorch calls to take a step.
_STEPS = ("train_step", "train_step_single")


def _refuse_other_steps(kind: type) -> None:
    """Refuse nets with a training step besides the robust one, which would take its place or be lost.

    Raises
    ------
    TypeError
        There is one behind the robust step, or accelerate's.
    """
    if issubclass(kind, AccelerateMixin):
        raise TypeError(
            f"A robust net must take its gradients itself, a row for each group, which accelerate's training step "
            f"doesn't; found {kind.__name__}, which has skorch's AccelerateMixin."
        )
    order = kind.__mro__
    for position, base in enumerate(order):
        of_skorch = base in NeuralNet.__mro__ or position < order.index(_RobustTraining) or base is _RobustTraining
        steps = _STEPS if position > order.index(NeuralNet) else _STEPS[1:]
        found = [] if of_skorch else [name for name in steps if name in vars(base)]
        if found:
            raise TypeError(
                f"A net to be made robust must have skorch's own training step, which the robust step replaces; found "
                f"{base.__name__}.{found[0]}. Put what it does to the loss into get_loss, or override the step of the "
                f"robust net and call super().train_step_single."
            )


def _of_samples(predicted: Any, X: Any) -> Any:
    """Predictions (n, ...) for X; a module that squeezes takes the axis of the samples, too, where there is one."""
    if not isinstance(predicted, torch.Tensor) or 1 in predicted.shape:
        return predicted
    if isinstance(X, torch.Tensor):
        return predicted[None] if X.ndim and len(X) == 1 else predicted
    # What has no axis of samples, or another number of lines, such as tokens of several texts, says nothing.
    lengths = {len(part) for part in tree_leaves(X) if isinstance(part, (torch.Tensor, np.ndarray)) and part.ndim}
    return predicted[None] if lengths == {1} else predicted


def _refuse_batch_norm(module: torch.nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
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
