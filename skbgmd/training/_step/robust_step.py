"""The robust training step: rows of gradients, their aggregate, and back to the parameters."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from skbgmd._utils.typing import AttackContext
from skbgmd.aggregators import Aggregate, Mean, NonFiniteRowsError
from skbgmd.aggregators.zeno import with_sample_loss
from skbgmd.ghost import GhostError
from skbgmd.ghost.derivatives import derivative_of
from skbgmd.ghost.registry import is_registered, rule_of
from skbgmd.rows import DenseRows, Rows
from skbgmd.training._losses import check_probabilities, complaint, targets_of
from skbgmd.training._ranks import RankFailedError, current_ranks
from skbgmd.training._step.agreement import AgreeingNet
from skbgmd.training._step.displaced_loss import DisplacedLoss
from skbgmd.training._step.divergence import explanation
from skbgmd.training._step.fused_step import FusedStep
from skbgmd.training._step.gradient_matrix import GradientMatrix, GradientRows
from skbgmd.training._step.groups import GroupedBatch, is_sorted
from skbgmd.training._step.history import StepRecord
from skbgmd.training._step.micro_batches import micro_batch_rows
from skbgmd.training._step.one_pass import KNOWN_WAYS, OnePassCheck, WrongRowsError, one_pass_rows
from skbgmd.training._step.stateful import StatefulAggregator
from skbgmd.training._step.trust import SampleTrust, earned_trust


class RobustStep(AgreeingNet):
    """skorch's training step, with the aggregate of the groups' gradients in the place of the batch's gradient."""

    aggregator_: StatefulAggregator
    group_size: int | None
    local_steps: int
    gradients: str
    gradient_corruption: Any

    # One pass doesn't do for the module, as a step has found; and what compares the rows of one pass.
    _no_one_pass_ = False
    _check_: OnePassCheck | None = None
    _gradients_: GradientMatrix | None = None
    # The step in a few calls; None: it isn't possible, or the next batch is to tell whether it is.
    _fused_: FusedStep | None = None
    _may_fuse_ = False
    _trust_: SampleTrust
    # Of a training: a robust step was taken; the next batch is the first; the largest batch so far, and its groups.
    _has_stepped_ = _is_first_batch_ = _has_clients_ = False
    _most_groups_ = _most_samples_ = 0
    # Numbers of clients, in the order in which trainings were given them; and those that an attack has seen rows of.
    _clients_: dict[Any, int]
    _seen_by_attack_: dict[int, None]

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Take a training step, as in skorch; where nobody can see the difference, in a fraction of the calls."""
        fused = self._fused_
        if self._may_fuse_ or (fused is not None and fused.is_watched and not fused.is_as_it_was):
            self._end_fused_steps()
            self._fused_ = fused = FusedStep.of(self, batch)
            if fused is not None:
                fused.open()
        if fused is not None and not fit_params:
            step = fused(batch)
            if step is not None:
                return step
        return super().train_step(batch, **fit_params)

    def _begin_fused_steps(self) -> None:
        """Begin an epoch, in which steps may be fused."""
        if self._fused_ is None:
            self._may_fuse_ = True
        else:
            self._fused_.open()

    def _pause_fused_steps(self) -> None:
        """End an epoch; the next one has the same step, where nobody can change anything in between."""
        if self._fused_ is not None and self._fused_.lasts:
            self._fused_.close()
        else:
            self._end_fused_steps()

    def _end_fused_steps(self) -> None:
        """No step is fused until the next epoch."""
        fused, self._fused_, self._may_fuse_ = self._fused_, None, False
        if fused is not None:
            fused.close()

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Add the aggregate of the groups' gradients to the parameters' ``grad``.

        Returns
        -------
        step : dict
            ``loss``, the mean over the samples, and ``y_pred``, as skorch's own step gives them.
        """
        grouped = GroupedBatch(batch, self.group_size, self._criterion())
        n_groups, n = len(grouped.slices), grouped.n_samples
        self._count_batch(n_groups, n, has_clients=grouped.has_clients)
        ranks = current_ranks()
        plain = grouped.weight is None and self.local_steps == 1 and self.gradient_corruption is None
        if n_groups == 1 and plain and ranks.size == 1:
            self._trust_.add(grouped, np.ones(1))
            step: dict[str, Any] = super().train_step_single(batch, **fit_params)
            self._look_at(grouped, step["y_pred"])
            return step
        if getattr(self.gradient_corruption, "acts_on_targets", False):
            self._corrupt_targets(grouped)
        grouped.prior = self._trust_.prior(grouped)
        gradients = self._gradient_matrix(batch)
        self._set_training(True)
        rows, losses, predictions, own, input_squares = self.make_rows(grouped, gradients, fit_params)
        self._look_at(grouped, predictions)
        if not grouped.counts and ranks.size == 1:
            # There is nothing to step by: parameters without gradients stay where they are, whatever the optimizer is.
            self._trust_.add(grouped, None, grouped.unweighted(losses), input_squares)
            return {"loss": grouped.mean(losses), "y_pred": predictions}
        try:
            with with_sample_loss(DisplacedLoss(self, gradients.parameters, grouped.X, grouped.y)):
                aggregate = self._aggregate(rows)
        except RankFailedError:
            # What is said of it is of the other rank.
            raise
        except NonFiniteRowsError as error:
            if rows.finite.all():
                # Of a loss elsewhere, as on trusted samples.
                raise
            reason = explanation(self, batch, rows, gradients.parameters, losses, predictions)
            raise NonFiniteRowsError(f"{error} {reason}") from None
        factor = float(grouped.weights.sum()) if grouped.summed else 1.0
        loss = factor * grouped.mean(losses)
        if ranks.size > 1:
            # Closures of optimizers decide by the loss, and they skip parameters without gradients.
            agreed = ranks.median([factor, float(loss.detach()), *gradients.used], "training step")
            factor, loss = float(agreed[0]), loss.new_tensor(agreed[1])
            gradients.used = (agreed[2:] > 0.0).tolist()
        gradients.add_to_gradients(aggregate.vector if factor == 1.0 else factor * aggregate.vector)
        trust = None
        if aggregate.weights is not None:
            trust = earned_trust(aggregate.weights, rows.weights, grouped.tilted, own)
        self._trust_.add(grouped, trust, grouped.unweighted(losses), input_squares)
        return {"loss": loss, "y_pred": predictions}

    def make_rows(self, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]) -> GradientRows:
        """Rows of gradients of a batch, one for each group; a hook for rows from elsewhere, such as other machines.

        Parameters
        ----------
        batch : GroupedBatch
            The samples and their groups.
        gradients : GradientMatrix
            The parameters, in the order of the rows' columns, their units, and memory for rows.
        fit_params : dict
            What skorch hands on to the module.

        Returns
        -------
        GradientRows
            The rows, others than the batch's included; the groups' mean losses; what was predicted.
        """
        made = None
        if self.gradients != "micro_batches" and self.local_steps == 1 and not self._no_one_pass_:
            try:
                made = one_pass_rows(self, batch, gradients, fit_params)
            except GhostError as error:
                if self.gradients == "one_pass":
                    raise
                self._give_up_one_pass(error)
                made, gradients.recorder = None, None
        made = made or micro_batch_rows(self, batch, gradients, fit_params)
        made.rows.ids = batch.clients
        return made

    def _give_up_one_pass(self, error: GhostError) -> None:
        """Take micro-batches from now on, for it won't do in the next step either."""
        layers = [layer for module in self._networks() for layer in module.modules()]
        registries: dict[str, Callable[[nn.Module], Any]] = {"rule": rule_of, "derivative": derivative_of}
        own = [name for name, find in registries.items() if any(is_registered(find(layer)) for layer in layers)]
        if own:
            warnings.warn(f"A {own[0]} was registered, and yet there is a pass for each group. {error}", stacklevel=2)
        elif self._check_ is not None and self._check_.n_unseen > 0:
            # Only a comparison says anything of the steps before.
            wrong = f"; up to {self._check_.n_unseen} steps before had wrong gradients"
            before = wrong if isinstance(error, WrongRowsError) else ", which may be slower"
            warnings.warn(f"There is a pass for each group from now on{before}. {error}", stacklevel=2)
        self._no_one_pass_ = True

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Predictions for a batch, as in skorch; those of a single sample have an axis for it."""
        # Autocast around a training would keep the parameters of the first step in half precision.
        torch.clear_autocast_cache()
        if isinstance(x, dict) and not all(isinstance(name, str) for name in x):
            other = next(name for name in x if not isinstance(name, str))
            raise TypeError(f"X must be a dict by the names of the arguments of forward; found the key {other!r}.")
        predicted = super().infer(x, **fit_params)
        if not isinstance(predicted, tuple):
            return _of_samples(predicted, x)
        first = _of_samples(predicted[0], x)
        return predicted if first is predicted[0] else (first, *predicted[1:])

    # It changes nothing that a layer with an axis of samples gives.
    infer.keeps_batches = True  # type: ignore[attr-defined]

    def _aggregate(self, rows: Rows) -> Aggregate:
        attack = self.gradient_corruption
        acts = attack is not None and not getattr(attack, "acts_on_targets", False)
        if acts and isinstance(rows, DenseRows):
            workers, known = self._attacked(rows.ids, rows.n_rows), {}
            if getattr(attack, "uses_context", False) or (workers is not None and hasattr(attack, "uses_context")):
                known = {"context": self.aggregator_.attack_context(rows, workers)}
            attack.apply_(rows.matrix, self.aggregator_.random_state(), **known)
            # Nothing that was known of the rows holds any longer.
            rows = rows.hold(rows.matrix)
        start = time.perf_counter()
        aggregate = self.aggregator_(rows)
        seconds = time.perf_counter() - start
        self._record(StepRecord(seconds, {**aggregate.record}, aggregate.weights, rows.weights, aggregate.mass))
        return aggregate

    def _record(self, record: StepRecord) -> None:
        # Outside an epoch, in a training step made by hand, there is no one to tell.
        if hasattr(self, "_records_"):
            self._records_.append(record)

    def _corrupt_targets(self, batch: GroupedBatch) -> None:
        """Replace targets of a batch by those of an attack on them."""
        classes, criterion = getattr(self, "classes_", None), self._criterion()
        targets = self.gradient_corruption.corrupt_targets(
            batch.y,
            batch.slices,
            self.aggregator_.random_state(),
            context=AttackContext(
                step=self.aggregator_.n_batches, workers=self._attacked(batch.clients, len(batch.slices))
            ),
            kind=targets_of(criterion),
            n_classes=None if classes is None else len(classes),
        )
        batch.take_targets(targets, criterion)

    def _attacked(self, ids: tuple[Any, ...] | None, n: int) -> tuple[int, ...] | None:
        """Numbers of the clients of n rows, None for groups; those that were attacked are known from then on."""
        numbers = None if ids is None else tuple(self._clients_.setdefault(id_, len(self._clients_)) for id_ in ids)
        self._seen_by_attack_.update(dict.fromkeys(range(n) if numbers is None else numbers))
        return numbers

    def _count_batch(self, n_groups: int, n: int, *, has_clients: bool) -> None:
        """Note that a step was taken, and how large batches are."""
        # skorch looks at each attribute that is set: not in every step.
        if not self._has_stepped_ or n_groups > self._most_groups_ or n > self._most_samples_:
            self._has_stepped_, self._has_clients_ = True, has_clients
            self._most_groups_ = max(self._most_groups_, n_groups)
            self._most_samples_ = max(self._most_samples_, n)

    def _note_batch(self, batch: Any, n: int, predicted: Any) -> None:
        """Note a batch of n single samples that a step is taken on, and look at the first one."""
        self._count_batch(n, n, has_clients=False)
        if self._is_first_batch_:
            self._look_at(GroupedBatch(batch, self.group_size, self._criterion()), predicted)

    def _look_at(self, batch: GroupedBatch, predicted: Any) -> None:
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
        binary = targets_of(self._criterion()) in ("binary", "signs")
        if is_told_apart and is_sorted(batch.y, size, binary=binary):
            warnings.warn(
                "Samples must be shuffled, or be dealt out to the groups: the first batch is sorted by class, and of "
                "groups of one class the most overrule the others. Give iterator_train__shuffle=True; an ArrayLoader "
                "that takes whole batches of arrays deals them out.",
                stacklevel=2,
            )

    def _compares_groups(self) -> bool:
        """True if batches are split into groups for a rule that can tell them apart."""
        return self.group_size is not None and not isinstance(self.aggregator_.aggregator, Mean)

    def _learns_classes(self) -> bool:
        return is_classifier(self) or self._targets() == "classes"

    def _may_have_classes(self) -> bool:
        """True if targets may be classes; of a binary loss they may as well be shares, or numbers of many outputs."""
        return self._learns_classes() or self._targets() in ("binary", "signs")

    def _targets(self) -> str | None:
        # Before it is initialized there is what it is to be made of.
        return targets_of(self._criterion() or self.criterion)

    def _gradient_matrix(self, batch: Any) -> GradientMatrix:
        # Those that are stepped on: a walk through all modules would take longer.
        groups = [group for name in self._optimizers for group in getattr(self, f"{name}_").param_groups]
        every = dict.fromkeys([parameter for group in groups for parameter in group["params"]])
        parameters = [parameter for parameter in every if parameter.requires_grad]
        held = self._gradients_
        if held is None or not held.begin(parameters):
            if any(is_lazy(parameter) for parameter in parameters):
                self.evaluation_step(batch)  # Only now it is known what they are of.
                self._begin_as_first_rank()
            self._gradients_ = held = GradientMatrix(parameters)
        return held

    def _criterion(self) -> Any:
        """The one loss, whatever its name; None where there are several, or none yet."""
        try:
            return self.criterion_
        except AttributeError:
            return getattr(self, f"{self._criteria[0]}_", None) if len(self._criteria) == 1 else None

    def _learning_rate(self) -> float:
        return float(getattr(self, f"{self._optimizers[0]}_").param_groups[0]["lr"])

    def _networks(self) -> list[nn.Module]:
        return [getattr(self, f"{name}_") for name in self._modules]


def _of_samples(predicted: Any, X: Any) -> Any:
    """Predictions (n, ...) for X; a module that squeezes takes the axis of the samples, too, where there is one."""
    if not isinstance(predicted, torch.Tensor) or 1 in predicted.shape:
        return predicted
    # What has no axis of samples, or another number of lines, such as tokens of several texts, says nothing.
    shapes = {
        tuple(part.shape) for part in tree_leaves(X) if isinstance(part, (torch.Tensor, np.ndarray)) and part.ndim
    }
    if {shape[0] for shape in shapes} != {1}:
        return predicted
    # A single step of time of several samples, where time comes first.
    is_step = predicted.ndim > 1 and any(shape[1:2] == predicted.shape[:1] for shape in shapes)
    return predicted if is_step else predicted[None]
