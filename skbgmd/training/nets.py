"""Robust skorch nets: the life cycle around a training step that aggregates the gradients of groups of samples.

Only the step is replaced: callbacks, history, schedulers, gradient clipping, closures of optimizers, accumulation of
gradients, validation, saving and loading are skorch's own.
"""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import PrintLog
from skorch.dataset import get_len
from skorch.exceptions import DeviceWarning
from skorch.utils import get_map_location, is_dataset
from torch.nn.parameter import is_lazy

from skbgmd._utils import limits
from skbgmd._utils.checks import (
    brief,
    check_choice,
    check_integer,
    check_number,
    listed,
    plain_ids,
)
from skbgmd._utils.random import random_source
from skbgmd.aggregators import Aggregator, NonFiniteRowsError
from skbgmd.training._data.checked_data import CheckedDataNet
from skbgmd.training._data.loader import ArrayLoader, known_of_samples, source
from skbgmd.training._lifecycle.callbacks import check_each_callback
from skbgmd.training._lifecycle.checked_pickle import load_naming, named_in
from skbgmd.training._lifecycle.compiled_pickle import compiled_kind, dumps
from skbgmd.training._lifecycle.loss_dtype import in_dtype_of
from skbgmd.training._lifecycle.resume import ResumableNet
from skbgmd.training._ranks import RankFailedError, current_ranks, together
from skbgmd.training._step.divergence import diverged
from skbgmd.training._step.gradient_matrix import is_dense
from skbgmd.training._step.history import StepRecord, entries_of
from skbgmd.training._step.one_pass import KNOWN_WAYS
from skbgmd.training._step.other_steps import refuse_other_steps, refuse_skipped_step
from skbgmd.training._step.robust_step import RobustStep
from skbgmd.training._step.stateful import StatefulAggregator
from skbgmd.training._step.trust import SampleRecord, SampleTrust
from skbgmd.training._strength.defaults import (
    AUTO,
    HUBER_OF_CLASSES,
    HUBER_OF_NUMBERS,
    default_rule,
    has_default,
    named_rule,
    with_default,
)

#: Where skorch keeps the pickle of modules and optimizers in a net's state, and where the list is of what it names.
_PICKLED, _NAMED = "__cuda_dependent_attributes__", "_named_in_pickle_"

_PARAMETERS = """
    Parameters
    ----------
    module : torch module (class or instance)
        As in skorch.
    aggregator : str or Aggregator, default="auto"
        The rule that makes one gradient of the groups' gradients.

        - "auto": the rule of :class:`skbgmd.BlockGMDClassifier` and :class:`skbgmd.BlockGMDRegressor` with their
          defaults, by what the net learns and whether rows are of single samples. ``aggregator_.aggregator`` is the
          rule of a net.
        - A key of :data:`skbgmd.aggregators.AGGREGATORS`, such as "bgmd_paper", or an aggregator.
    group_size : int or None, default=8
        Largest number of samples whose mean gradient is one row. A batch is split into as few groups as possible, of
        sizes as equal as possible. None: the whole batch is one group, which is plain training.

        - Where targets are classes, the default loader deals the samples of each class out to all groups of a batch,
          unless ``iterator_train__stratify=None``. It does so under a binary loss, too, if targets are whole numbers.
        - The default loader makes the batches of an epoch as equal in size as possible, unless
          ``iterator_train__even=False``: a small batch at the end may be a single group, which nothing is compared
          with. Other loaders should drop it (``drop_last=True``), because a batch of one group takes a plain step,
          however long its gradient is.
    local_steps : int, default=1
        Steps of plain gradient descent that each group takes by itself, on as many equal parts of its samples. Its row
        is then the way it went, divided by the learning rate.
    gradients : {"auto", "one_pass", "micro_batches"}, default="auto"
        How the groups' gradients are computed.

        - "one_pass": by one forward and backward pass of the whole batch, from the inputs of the layers and the
          gradients at their outputs. The module must treat each sample by itself. In the first steps, and now and then
          later, a sum of these gradients is compared with that of one more backward pass.
        - "micro_batches": by a pass for each group.
        - "auto": by one pass where the module and the loss are known to allow it and groups are small: at most 32
          samples, 8 if the network has convolutions on a CPU, or 2 if a layer has no rule.

        The results are the same, with these exceptions: rounding, what dropout draws, samples at the border of
        rejection, and up to half a per cent in the scale of ``huber``, because steps without a Gram matrix remember an
        upper bound of it. Where many samples are tied, the scale may rise only in later steps that take the Gram
        matrix.
    trust_power : float, default=0.0
        Weighs samples in later epochs by the trust that they earned in earlier ones, relative to their class, to this
        power; clients likewise. It is for ``group_size=1`` or clients. ``partial_fit`` goes on with it if the dataset
        is as long as before, or if datasets have an attribute ``sample_id``. 0: nothing is remembered.
    tilt : float, default=0.0
        Weighs groups by :math:`e^{-tilt \\cdot loss}` of their mean loss, as in tilted empirical risk minimization
        and, for losses that are minus a log-probability, in generalized cross-entropy.
    gradient_corruption : GradientCorruption, default=None
        Corrupts rows before they are aggregated, or the targets that they come from, to see what a rule withstands.
    random_state : int, RandomState or None, default=None
        Seed of what the gradient corruption draws, and of an aggregator without a seed of its own.
    **kwargs
        Parameters of the skorch net.
"""


def _for_numpy(nonlinearity: Any, predicted: Any) -> Any:
    """Apply a nonlinearity to what a module gives, both in single precision in the place of bfloat16."""
    return _without_bfloat16(nonlinearity(_without_bfloat16(predicted)))


def _without_bfloat16(values: Any) -> Any:
    return values.float() if isinstance(values, torch.Tensor) and values.dtype == torch.bfloat16 else values


class _RobustTraining(RobustStep, CheckedDataNet, ResumableNet):
    """The life cycle of a robust training, for any of skorch's nets."""

    # Whether batches are as equal as can be, and samples are dealt out to groups, which is for batches to train on;
    # whether a training was told that its batches are of one group.
    _evens_ = _deals_ = _is_told_ = False
    # That the optimizer is fused is no wish of the user's.
    _fuses_where_it_can_ = False
    # The batches of the training that is going on, for callbacks that select samples.
    _train_iterator_: Any = None
    cuda_dependent_attributes_: ClassVar[list[str]] = [*NeuralNet.cuda_dependent_attributes_, "aggregator_"]

    def __init__(
        self,
        module: Any,
        *args: Any,
        aggregator: str | Aggregator = AUTO,
        group_size: int | None = 8,
        local_steps: int = 1,
        gradients: str = "auto",
        gradient_corruption: Any = None,
        random_state: Any = None,
        trust_power: float = 0.0,
        tilt: float = 0.0,
        iterator_train: Any = ArrayLoader,
        iterator_valid: Any = ArrayLoader,
        **kwargs: Any,
    ) -> None:
        refuse_other_steps(type(self))
        super().__init__(module, *args, iterator_train=iterator_train, iterator_valid=iterator_valid, **kwargs)
        self.aggregator = aggregator
        self.group_size = group_size
        self.local_steps = local_steps
        self.gradients = gradients
        self.gradient_corruption = gradient_corruption
        self.random_state = random_state
        self.trust_power = trust_power
        self.tilt = tilt

    def set_params(self, **kwargs: Any) -> Any:
        """Set parameters by name; ``aggregator__x`` and ``gradient_corruption__x`` set those of these objects."""
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

    def _get_predict_nonlinearity(self) -> Any:
        # NumPy has no bfloat16, which modules give under autocast.
        return partial(_for_numpy, super()._get_predict_nonlinearity())

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
        self._gradients_, self._trust_ = None, SampleTrust()
        self._clients_, self._seen_by_attack_ = {}, {}
        return self

    def torch_compile(self, module: Any, name: str) -> Any:
        """Compile a module as skorch does; not a loss, which is asked for those of single samples as well."""
        return module if name in self._criteria else super().torch_compile(module, name)

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Train from new parameters, as in skorch; data that can't be used raise an error before initialization."""
        with together(self.aggregator):
            self._refuse(X, y)
            return super().fit(X, y, **fit_params)

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> Any:
        # In predictions samples keep their order; to a mean it doesn't matter.
        self._evens_ = self.iterator_train is ArrayLoader and self._compares_groups()
        self._deals_ = self._evens_ and self._may_have_classes()
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except (RuntimeError, ValueError) as error:
            # Losses and scores may refuse what diverged parameters predict, before these are looked at.
            if not isinstance(error, (NonFiniteRowsError, RankFailedError)):
                self._refuse_divergence(X, y)
            raise
        finally:
            self._deals_, self._evens_, self._train_iterator_ = False, False, None
            self._end_fused_steps()
            self._listening_ = {}

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        iterator = super().get_iterator(dataset, training=training)
        if training:
            self._train_iterator_ = iterator
        return iterator

    def get_params_for(self, prefix: str) -> dict[str, Any]:
        params: dict[str, Any] = super().get_params_for(prefix)
        if prefix == "iterator_train" and self._deals_:
            params.setdefault("stratify", self.group_size)
        if prefix == "iterator_train" and self._evens_ and not params.get("drop_last"):
            params.setdefault("even", "at_most")
        return params

    def initialize_module(self) -> Any:
        # What steps have found of the module: that it doesn't allow one pass for all groups, or what they saw of it.
        self._no_one_pass_, self._check_ = False, None
        return super().initialize_module()

    def _initialize_criterion(self, *args: Any, **kwargs: Any) -> Any:
        super()._initialize_criterion(*args, **kwargs)
        # Before an optimizer takes its parameters.
        with self._current_init_context("criterion"):
            for name in (f"{each}_" for each in self._criteria):
                if hasattr(self, name):
                    setattr(self, name, in_dtype_of(self._networks(), getattr(self, name)))
        return self

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        if self._fuses_where_it_can_ and not all(_may_fuse(each) for _, each in self.get_all_learnable_params()):
            self.optimizer__fused = False
        return super().initialize_optimizer(*args, **kwargs)

    def _initialize_aggregator(self, aggregator: Aggregator, *, provisional: bool = False) -> None:
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        # A copy: changing the parameter in the middle of a training must be noticed.
        self.aggregator_ = StatefulAggregator(copy.deepcopy(aggregator), seed, provisional=provisional)

    def _has_default_rule(self) -> bool:
        return has_default(self.aggregator)

    def _rule(self, X: Any = None) -> Aggregator:
        """The rule that ``aggregator`` stands for in a training on X."""
        if not self._has_default_rule():
            return named_rule(self.aggregator)
        by_clients = is_dataset(X) and "clients" in known_of_samples(X)
        default = default_rule(
            huber=HUBER_OF_CLASSES if self._learns_classes() else HUBER_OF_NUMBERS,
            of_samples=self.group_size == 1 and self.local_steps == 1 and not by_clients,
        )
        return with_default(self.aggregator, default)

    def _check_parameters(self) -> None:
        if self.group_size is not None:
            check_integer(self.group_size, "group_size")
        check_integer(self.local_steps, "local_steps")
        check_choice(self.gradients, "gradients", ("auto", "one_pass", "micro_batches"))
        for name in ("trust_power", "tilt"):
            check_number(getattr(self, name), name, at_least=0.0)
        check_each_callback(self.callbacks)
        if self.gradients == "one_pass" and self.local_steps > 1:
            raise ValueError(f'gradients="one_pass" must have local_steps=1; found {self.local_steps}.')
        corruption = self.gradient_corruption
        if isinstance(corruption, type):
            raise TypeError(
                f"gradient_corruption must be an instance; found {corruption!r}, a class; an instance is "
                f"{corruption.__name__}()."
            )
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
        self._most_groups_, self._most_samples_, self._is_told_, self._is_told_of_share_ = 0, 0, False, False
        aggregator, loaded = self._rule(X), self.aggregator_.hand_over()
        # Another group is no other rule.
        self.aggregator_.join(aggregator)
        held = self.aggregator_.aggregator
        is_other = type(aggregator) is not type(held) or repr(aggregator.get_params()) != repr(held.get_params())
        was_provisional, self.aggregator_.provisional = self.aggregator_.provisional, False
        if is_other:
            self._initialize_aggregator(aggregator)
        if loaded is not None and (is_other or was_provisional):
            # Only now it is known which rule it was loaded for.
            self.aggregator_.load_state_dict(loaded)
        data = source(X) if is_dataset(X) else None
        clients = getattr(data, "clients", None)
        # Others than those of a net that this one is a copy of.
        self._clients_ = dict(getattr(self, "_clients_", {}))
        self._seen_by_attack_ = dict(getattr(self, "_seen_by_attack_", {}))
        if clients is not None:
            # Those that are held out or have no weight, too: others have the same numbers with them and without.
            everyone = getattr(data, "every_client", None)
            for id_ in plain_ids(np.unique(clients if everyone is None else everyone)):
                self._clients_.setdefault(id_, len(self._clients_))
        if not self.trust_power:
            self._trust_ = SampleTrust()
        n = get_len(X) if data is None else len(data) if hasattr(data, "__len__") else None
        self._trust_.begin(
            n, getattr(data, "sample_id", None) if clients is None else clients, are_clients=clients is not None
        )
        self._begin_together()

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_epoch_begin(net, **kwargs)
        self._records_: list[StepRecord] = []
        self._begin_fused_steps()
        if self.trust_power:
            self._trust_.weigh(self.trust_power)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        super().on_batch_end(net, batch=batch, training=training, **kwargs)
        if training:
            self._refuse_skipped_step()
            self.aggregator_.commit()

    def on_grad_computed(self, net: Any, named_parameters: Any, training: bool = False, **kwargs: Any) -> None:
        # Before the optimizer takes the gradients.
        super().on_grad_computed(net, named_parameters, training=training, **kwargs)
        if training:
            self._refuse_skipped_step()

    def _refuse_skipped_step(self) -> None:
        if not self._has_stepped_:
            refuse_skipped_step(type(self))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        records, self._records_ = entries_of(self._records_), []
        self._pause_fused_steps()
        # Samples of one epoch are added up at once, those of several one after the other.
        self._trust_.settle()
        for name in sorted({name for record in records for name in record}):
            values = [record[name] for record in records if name in record]
            total = np.add.reduce(values, axis=0)
            self.history.record(name, (total if name == "aggregation_time" else total / len(values)).tolist())
        losses = [batch.get("train_loss", 0.0) for batch in self.history[-1]["batches"]]
        if not np.isfinite(losses).all():
            self._refuse_divergence(kwargs.get("dataset_train"))
        self._warn_of_one_group()
        self._warn_of_many_corrupt()
        self._warn_of_absent()
        if self.trust_power and not self._trust_.tells_rows_apart and len(self.history) == 1:
            warnings.warn(
                f"trust_power must be 0 where no trust is remembered: where rows are neither of single samples nor of "
                f"clients, the rule doesn't weigh rows, or batches don't know their samples; found "
                f"{self.trust_power} with group_size={self.group_size} and {brief(self.aggregator_.aggregator)}.",
                stacklevel=2,
            )
        super().on_epoch_end(net, **kwargs)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any) -> Any:
        """Continue training, as in skorch; unusable data, or parameters that aren't finite afterwards, are errors."""
        with together(self.aggregator) as ranks:
            self._refuse(X, y)
            if ranks.splits_data:
                X, y = self._share(X, y)
            super().partial_fit(X, y, classes=classes, **fit_params)
            # A callback may have loaded others in the end.
            self._refuse_divergence(X, y)
            self._check_same_model()
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
        if self._most_groups_ != 1 or self._is_told_ or not self._compares_groups() or current_ranks().size > 1:
            return
        if self._has_clients_:
            found = "found one client, so that there was nothing to compare: this is plain training."
            warnings.warn(f"clients must be several; {found}", stacklevel=2)
        elif self.group_size != 1:
            warnings.warn(
                f"group_size must be smaller than the batches, for a rule to have groups to compare; found "
                f"group_size={self.group_size} and no batch of more than {self._most_samples_} samples, with "
                f"batch_size={self.batch_size}: this is plain training. Take smaller groups, or group_size=None.",
                stacklevel=2,
            )
        self._is_told_ = True

    def _warn_of_absent(self) -> None:
        """Warn, once, of clients or groups that an attack names and that had no row in any step so far."""
        absent = getattr(self.gradient_corruption, "absent", None)
        # Of several ranks each has rows of its own.
        if absent is None or current_ranks().size > 1:
            return
        if never := absent(self._seen_by_attack_):
            known = {number: id_ for id_, number in self._clients_.items()}
            names = [f"{number} ({known[number]!r})" if number in known else str(number) for number in never]
            what = "clients that take part in the steps" if self._has_clients_ else "places of groups in the batches"
            warnings.warn(
                f"Workers that gradient_corruption names must be {what}; found {listed(names)} without a row so far, "
                f"of which no attack came.",
                stacklevel=2,
            )
            self._seen_by_attack_.update(dict.fromkeys(never))

    def _warn_of_many_corrupt(self) -> None:
        """Warn, once a training, where over an epoch nearly half of the rows looked corrupt."""
        share = self.history[-1].get("corrupt_share", 0.0)
        if share < limits.MANY_CORRUPT or self._is_told_of_share_:
            return
        warnings.warn(
            f"Corrupt rows must be fewer than half, for any rule to help; found, over epoch {len(self.history)}, "
            f"{100.0 * share:.0f} % of the rows far from the others, tied to each other, or pointing away from most. "
            f"Look for what sends them, and leave it out; where single samples are corrupt take smaller groups, of "
            f"which fewer hold one. Repeated samples are tied as well.",
            stacklevel=2,
        )
        self._is_told_of_share_ = True

    def _state_of_training(self) -> dict[str, Any]:
        return {
            "aggregator": self.aggregator_.state_dict(),
            "no_one_pass": self._no_one_pass_,
            "trust": self._trust_.state_dict(),
            "clients": list(self._clients_),
        }

    def _take_state(self, state: Mapping[str, Any]) -> None:
        self.aggregator_.load_state_dict(state["aggregator"])
        # A pass that is tried in vain draws dropout.
        self._no_one_pass_ = state["no_one_pass"]
        known = dict.fromkeys((*state.get("clients", ()), *self._clients_))
        self._clients_ = {id_: number for number, id_ in enumerate(known)}

    def _begin_with_state(self, state: Mapping[str, Any]) -> None:
        self._trust_.load_state_dict(state["trust"])

    def __getstate__(self) -> dict[str, Any]:
        # Memory to work in, and what was seen of this very module, are not a part of the net.
        work = ("_gradients_", "_check_", "_train_iterator_", "_fused_", "_may_fuse_", "_listening_")
        state = {key: value for key, value in super().__getstate__().items() if key not in work}
        if compiled_kind() in named_in(state[_PICKLED]):
            # With torch's compiler in it, of which a checked pickle loads nothing.
            prefixes = tuple(self.cuda_dependent_attributes_)
            state[_PICKLED] = dumps({key: value for key, value in vars(self).items() if key.startswith(prefixes)})
        return {**state, _NAMED: named_in(state[_PICKLED])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            # Of a device that isn't there skorch tells afterwards.
            warnings.simplefilter("ignore", DeviceWarning)
            location = get_map_location(state["device"])
        parts = load_naming(state[_PICKLED], state.get(_NAMED, ()), location)
        rest = {key: value for key, value in state.items() if key != _NAMED}
        # skorch would call whatever the bytes name.
        super().__setstate__({**rest, **parts, _PICKLED: pickle.dumps({})})

    def sample_trust(self, n: int) -> NDArray[np.float64]:
        """Mean weight of each of the first n samples of the last training's dataset, one as in a plain mean.

        NaN where nothing is known: the sample was never trained on, or the aggregator doesn't weigh rows.
        """
        return self._trust_.means(n)

    def sample_record(self, n: int) -> SampleRecord:
        """Evidence about each of the first n samples of the last training's dataset: trust, likelihood, input norm."""
        return self._trust_.record(n)


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

    def initialize(self) -> Any:
        super().initialize()
        # A list of numbers is too long for a line.
        self.keys_ignored_.add("rank_weights")
        return self

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


def _may_fuse(parameter: torch.Tensor) -> bool:
    """Tell whether torch's fused optimizers are right for a parameter: one of real numbers, without gaps in memory."""
    return not parameter.requires_grad or is_lazy(parameter) or (parameter.is_floating_point() and is_dense(parameter))


__all__ = [
    "RobustNeuralNet",
    "RobustNeuralNetClassifier",
    "RobustNeuralNetRegressor",
]
