"""The robust step of a perceptron by single samples, in a fraction of the calls of the step for all cases."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from skorch.callbacks import EpochScoring, EpochTimer, PassthroughScoring, PrintLog
from skorch.utils import TeeGenerator

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread, one_thread_of_products
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregate, Aggregator, BlockGeometricMedian, HuberMean
from skbgmd.aggregators.huber_active_set import huber_active_set
from skbgmd.aggregators.zeno import with_sample_loss
from skbgmd.ghost import Chain
from skbgmd.ghost.derivatives import is_called_plainly
from skbgmd.ghost.perceptron import Perceptron
from skbgmd.ghost.perceptron_rows import PerceptronRows
from skbgmd.ghost.registry import is_registered
from skbgmd.rows import Rows
from skbgmd.training._data.loader import ArrayLoader, Batch, has_no_target
from skbgmd.training._lifecycle.callbacks import EACH_BATCH, EACH_EPOCH, listens
from skbgmd.training._losses import traits_of
from skbgmd.training._ranks import current_ranks
from skbgmd.training._step.compiled import original_of
from skbgmd.training._step.displaced_loss import DisplacedLoss
from skbgmd.training._step.gradient_matrix import GradientMatrix, dtype_of_gradient
from skbgmd.training._step.groups import relative_weights, tilted_weights
from skbgmd.training._step.history import StepRecord
from skbgmd.training._step.one_pass import KNOWN_WAYS, infers_as_skorch, is_better_written_out, write_out
from skbgmd.training._step.optimizer_step import IN_PLACE, has_hooks, in_place_step
from skbgmd.training._step.trust import earned_trust
from skbgmd.training._step.unit_block import is_of_units, unit_block_mean

#: Methods that have a part in a training step.
STEPS = (
    *("train_step", "train_step_single", "make_rows", "get_loss", "infer", "notify", "on_grad_computed"),
    *("get_train_step_accumulator", "_zero_grad_optimizer", "_step_optimizer", "get_all_learnable_params"),
)
#: Methods that are called between the batches of two epochs.
EPOCHS = ("fit_loop", "on_epoch_begin", "on_epoch_end", "run_single_epoch", "validation_step", "evaluation_step")
#: Callbacks that note predictions or losses of batches, for the score of an epoch.
NOTING = frozenset({EpochScoring, EpochTimer, PassthroughScoring, PrintLog})


class FusedStep:
    """A training step of single samples of a perceptron on a CPU.

    What it computes is what :meth:`skbgmd.training._step.robust_step.RobustStep.train_step_single` does, to rounding.
    All that may make a difference is looked up once a training; in each epoch where something of a user's own is called
    between two of them, and in each batch where it is called there. Where the data of a batch make one, the step is
    given up before anything is changed, and the step for all cases is taken.
    """

    def __init__(self, net: Any, chain: Chain, perceptron: Perceptron) -> None:
        self._net, self._chain, self._perceptron = net, chain, perceptron
        self._criterion, self._optimizer = net._criterion(), net.optimizer_
        gradients: GradientMatrix = net._gradients_
        self._gradients = gradients
        callbacks = [callback for _, callback in net.callbacks_]
        self._hears_of_gradients = any(listens(callback, "on_grad_computed") for callback in callbacks)
        #: Something of a user's own is called from batch to batch, which may change anything.
        self.is_watched = (
            self._hears_of_gradients
            or any(map(watches_batches, callbacks))
            or not all(is_own(net, name) for name in EACH_BATCH)
            or type(net._train_iterator_) is not ArrayLoader
        )
        traits = traits_of(self._criterion)
        self._derivative: Any = None if traits is None else traits.derivative
        # A target that counts for nothing, in means as well.
        self._ignored = getattr(self._criterion, "ignore_index", None)
        if self._ignored is not None and not self.is_watched and has_no_target(net._train_iterator_, self._ignored):
            self._ignored = None
        gradient = torch.zeros(gradients.n_columns, dtype=gradients.dtype, device="cpu")
        self._memory, parts = gradient.numpy(), torch.split(gradient, gradients.sizes)
        self._parts = [part.view(each.shape) for part, each in zip(parts, gradients.parameters, strict=True)]
        self._is_small = gradients.n_columns <= limits.ONE_THREAD_PARAMETERS
        self._limited = ExitStack()
        self._ones: dict[int, FloatArray] = {}
        self._descend: Callable[[], Any] = net.optimizer_.step if self.is_watched else self._quick_step()
        if not self.is_watched and self._descend == net.optimizer_.step:
            self._descend = self._first_step
        #: Nothing of a user's own is called between two epochs either, so that the next one has the same step.
        self.lasts = not self.is_watched and all(map(is_quiet, callbacks)) and all(is_own(net, name) for name in EPOCHS)

    def _quick_step(self) -> Callable[[], Any]:
        return in_place_step(self._optimizer, self._gradients.parameters, self._parts)

    def _first_step(self) -> None:
        """Take a step by the optimizer itself, which makes the state that quicker ones begin with."""
        self._optimizer.step()
        self._descend = self._quick_step()

    @classmethod
    def of(cls, net: Any, batch: Any) -> FusedStep | None:
        """Find the step of a net for an epoch; None where something else takes part in the net's training."""
        chain = chain_to_fuse(net, batch)
        perceptron = None if chain is None else Perceptron.of(chain, net._gradients_.units)
        if chain is None or perceptron is None or perceptron.dtype != net._gradients_.dtype:
            return None
        # Gradients have the strides of their parameters, and here they are views of one vector.
        for each in net._gradients_.parameters:
            if not each.is_contiguous() or dtype_of_gradient(each) != each.dtype:
                return None
        return cls(net, chain, perceptron)

    @property
    def is_as_it_was(self) -> bool:
        """Nothing that a callback may have changed in the midst of an epoch makes a difference."""
        net = self._net
        same = net._criterion() is self._criterion and net.optimizer_ is self._optimizer
        return same and self._perceptron.is_in_place and chain_to_fuse(net) is self._chain

    def open(self) -> None:
        """Begin an epoch, or what is left of it."""
        if self.is_watched or not self._net.module_.training:
            self._net._set_training(True)
        if self._is_small:
            self._limited.enter_context(one_thread_of_products())

    def close(self) -> None:
        """Let products have their threads again: the epoch is over."""
        self._limited.close()

    def __call__(self, batch: Any) -> dict[str, Any] | None:
        """Take a step on a batch; None: nothing is changed, and the step for all cases is to be taken."""
        net = self._net
        if not (type(batch) is Batch and batch.slices is None and batch.items is None):
            return None
        (X, y), n = batch, len(batch.positions)
        are_plain = type(X) is type(y) is torch.Tensor and X.ndim == 2 and X.dtype == self._gradients.dtype
        # A batch of one takes a plain step.
        if not are_plain or X.shape[0] != n or n == 1 or torch.is_autocast_enabled("cpu"):
            return None
        if self._ignored is not None and (y.dtype != torch.int64 or (y.numpy() == self._ignored).any()):
            return None
        if self.is_watched:
            net._set_training(True)
        own = self._weights_of(batch.weight, n)
        if batch.weight is not None and not own.any():
            return None
        # What overflows is seen by its norms.
        with np.errstate(all="ignore"), self._one_thread(), torch.no_grad():
            try:
                predicted, given, back = self._perceptron.forward(X)
                losses, gradient = self._derivative(self._criterion, predicted, y)
            except NotImplementedError:
                return None
            if losses.ndim > 1:
                losses, gradient = losses.flatten(1).mean(dim=1), gradient / predicted.shape[1]
            prior = net._trust_.prior_at(batch.positions)
            tilted = tilted_weights(losses, net.tilt) if net.tilt else None
            are_equal = batch.weight is prior is tilted is None
            weights = own if are_equal else relative_weights(own, prior, tilted)
            rows = self._perceptron.rows(given, back, gradient, weights)
            if are_equal:
                rows.has_equal_weights = True
            if not math.isfinite(np.add.reduce(rows.norms())):
                return None
        net._note_batch(batch, n, predicted)
        with self._one_thread():
            vector, of_rows = self._aggregate(rows, X, y)
        self._hand_on(vector)
        if self._hears_of_gradients:
            named = TeeGenerator(net.get_all_learnable_params())
            net.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        with self._one_thread():
            self._descend()
        trust = None
        if of_rows is not None:
            trust = n * of_rows if are_equal else earned_trust(of_rows, weights, tilted)
        net._trust_.add_samples(batch.positions, trust, y, losses, torch.from_numpy(rows.input_squares))
        equal = batch.weight is None or own.min() == own.max()
        if equal:
            # torch's mean takes longer, and so does NumPy's.
            values = losses.numpy()
            # An epoch whose losses overflow is refused.
            with np.errstate(over="ignore", invalid="ignore"):
                loss = torch.from_numpy(np.asarray(np.add.reduce(values) / values.dtype.type(n)))
        else:
            loss = losses @ torch.from_numpy(own / own.sum()).to(losses)
        return {"loss": loss, "y_pred": predicted}

    def _weights_of(self, given: torch.Tensor | None, n: int) -> FloatArray:
        """Weights (n,) of samples, as they are given; all one, and not to be changed, where they have none."""
        if given is not None:
            return given.numpy().astype(np.float64)
        ones = self._ones.get(n)
        if ones is None:
            ones = self._ones[n] = np.ones(n)
        return ones

    def _one_thread(self) -> AbstractContextManager[None]:
        return one_thread() if self._is_small else nullcontext()

    def _hand_on(self, vector: torch.Tensor) -> None:
        """Make a vector (d,) the parameters' gradients; where somebody may keep them, in memory of their own."""
        if self.is_watched:
            self._optimizer.zero_grad()
            self._gradients.use_all()
            self._gradients.add_to_gradients(vector)
            return
        self._memory[:] = (vector.detach() if vector.requires_grad else vector).numpy()
        for parameter, part in zip(self._gradients.parameters, self._parts, strict=True):
            if parameter.grad is not part:
                parameter.grad = part

    def _aggregate(
        self, rows: PerceptronRows, X: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, FloatArray | None]:
        """Aggregate rows: their aggregate (d,), and the weights (n,) that they have in it."""
        n, known = rows.n_rows, self._gradients.are_written_out
        if n not in known:
            known[n] = is_better_written_out(rows)
        aggregator, start = self._net.aggregator_, time.perf_counter()
        rule, state = aggregator.rule, aggregator.state
        # The choice of the step for all cases: by a Gram matrix the scale may be another, by up to half a per cent.
        if not known[n] and state is not None and rows.weights.min() > 0.0:
            # What the rule would do, without what it does for other rows.
            found = quick_mean(rows, rule, state)
            if found is not None:
                aggregate, after = found
                aggregator.advance(after)
                seconds = time.perf_counter() - start
                self._net._record(StepRecord(seconds, {}, aggregate.weights, rows.weights, aggregate.mass))
                return aggregate.vector, aggregate.weights
        every: Rows = write_out(rows, self._gradients.rows(n)) if known[n] else rows
        with with_sample_loss(DisplacedLoss(self._net, self._gradients.parameters, X, y)):
            aggregate = self._net._aggregate(every)
        return aggregate.vector, aggregate.weights


def quick_mean(rows: PerceptronRows, rule: Aggregator, state: Any) -> tuple[Aggregate, Any] | None:
    """Aggregate rows of positive weight as a default rule would, with its next state; None: that takes the rule."""
    if type(rule) is HuberMean and rule.remember:
        found = huber_active_set(rows, rule.c, rule.rejection, state, tol=rule.tol, max_iter=rule.max_iter)
        return None if found is None else (Aggregate(found.vector(), found.weights), found.scale)
    if type(rule) is BlockGeometricMedian and is_of_units(rule):
        return unit_block_mean(rows, rule, state)
    return None


def chain_to_fuse(net: Any, batch: Any = None) -> Chain | None:
    """Find the chain that a net's module is, where nothing else takes part in a step; None otherwise.

    A batch serves to find out what the parameters are of; None: they are known.
    """
    plain = net.group_size == 1 and net.local_steps == 1 and net.gradient_corruption is None
    if not plain or net.gradients == "micro_batches" or net._no_one_pass_ or current_ranks().size > 1:
        return None
    if not has_plain_step(net) or not is_plain_mean(net._criterion()):
        return None
    if net._modules != ["module"] or net._optimizers != ["optimizer"] or type(net.optimizer_) not in IN_PLACE:
        return None
    if batch is not None:
        net._gradient_matrix(batch)
    gradients, groups = net._gradients_, net.optimizer_.param_groups
    # What sees a gradient, sees those that autograd would leave.
    if has_hooks(net.optimizer_) or any(each._post_accumulate_grad_hooks for each in groups[0]["params"]):
        return None
    same = len(groups) == 1 and gradients.begin([each for each in groups[0]["params"] if each.requires_grad])
    return gradients.chain(original_of(net.module_)) if same and infers_as_skorch(type(net)) else None


def has_plain_step(net: Any) -> bool:
    """Tell whether a net takes its steps by the methods of this library and of skorch, all of them."""
    return all(is_own(net, name) for name in STEPS) and type(net).get_loss in KNOWN_WAYS


def is_own(net: Any, name: str) -> bool:
    """Tell whether a method of a net is this library's or skorch's, by the file that its code is in."""
    method: Any = getattr(type(net), name)
    code, module = getattr(method, "__code__", None), method.__module__ or ""
    if name in vars(net) or code is None or not module.startswith(("skbgmd.", "skorch.")):
        return False
    return bool(code.co_filename == getattr(sys.modules.get(module), "__file__", None))


def watches_batches(callback: Any) -> bool:
    """Tell whether a callback does something in each batch, but for those of skorch that only note results."""
    return type(callback) not in NOTING and any(listens(callback, name) for name in EACH_BATCH)


def is_quiet(callback: Any) -> bool:
    """Tell whether a callback does nothing between two epochs but to note and to print."""
    if isinstance(callback, EpochScoring):
        # A function may do anything.
        return type(callback) is EpochScoring and (callback.scoring is None or isinstance(callback.scoring, str))
    if isinstance(callback, PrintLog):
        return callback.sink is print and type(callback).__module__.startswith(("skbgmd.", "skorch."))
    return type(callback) in NOTING or not any(listens(callback, event) for event in EACH_EPOCH)


def is_plain_mean(criterion: Any) -> bool:
    """Tell whether a loss has a derivative of this library's, and is a plain mean over samples."""
    traits = traits_of(criterion)
    # One of a user's own is compared with autograd now and then, in the step for all cases.
    if traits is None or traits.derivative is None or is_registered(traits.derivative):
        return False
    if getattr(criterion, "reduction", None) != "mean":
        return False
    plain = is_called_plainly(criterion) and "forward" not in vars(criterion)
    return plain and getattr(criterion, "weight", None) is None
