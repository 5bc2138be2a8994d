"""Parameters of the robust estimators: what each is for, those handed on to parts, and their checks."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from skorch import NeuralNet

from skbgmd._utils.checks import (
    brief,
    check_choice,
    check_device,
    check_flag,
    check_integer,
    check_number,
    check_verbosity,
)
from skbgmd.aggregators import Aggregator, Mean, NearestNeighborMixing
from skbgmd.location.block_selection import BLOCKS, SELECTIONS
from skbgmd.training._estimator.hints import hints_for
from skbgmd.training._lifecycle.callbacks import check_each_callback
from skbgmd.training._lifecycle.stopping import (
    HeldOutStopping,
    stopping_of,
)
from skbgmd.training._ranks import current_ranks
from skbgmd.training._strength.choice import StrengthChoice
from skbgmd.training._strength.defaults import (
    AUTO,
    default_rule,
    has_default,
    ignored_parameters,
    is_auto,
    named_rule,
    with_default,
)
from skbgmd.training._strength.evidence import OF_STRENGTH

#: Parts that parameters are handed on to.
ROUTED = ("module", "criterion", "optimizer", "iterator_train", "iterator_valid", "callbacks")

PARAMETERS = """
    Parameters
    ----------
    module : Module class, Module, skorch net, or None, default=None
        The network. None: a multilayer perceptron that fits the data's shape and dtype.

        - Your own module may take images, sequences, several inputs or samples of a Dataset, see :meth:`fit`. It
          returns a number for each class or target. With ``BCEWithLogitsLoss`` or ``BCELoss`` it returns one number for
          two classes, with or without an axis of its own.
        - An unfitted skorch net keeps its own settings; only its training step is replaced. Of the parameters below,
          these apply: ``group_size`` to ``gradient_corruption``, ``early_stopping`` to ``tol``, ``warm_start``,
          ``random_state`` and a classifier's ``class_weight``.
    hidden_layer_sizes : sequence of int, default=(100,)
        Hidden layers of the perceptron.
    criterion : loss class, default=None
        {criterion}
        With a loss that skorch doesn't know, the module's output is taken for the prediction.
    optimizer : Optimizer class, default=torch.optim.Adam
        Takes the steps; parameters that it isn't given get no gradients. Torch's own Adam and AdamW are fused on CPU
        and CUDA. They aren't if you give ``optimizer__fused`` or ``optimizer__foreach``, nor for parameters that are
        complex or have gaps in memory, such as slices, for which torch's fused steps are wrong.
    lr : float, default=0.005
        Learning rate.
    max_epochs : int, default=100
        Passes over the data. In ``fit``, epochs of a checkpoint that a callback loads count among them.
    batch_size : int, default=256
        Samples in a step; with ``clients``, samples of each client in a step.
    group_size : int or None, default=1
        Number of samples whose mean gradient is one row of the matrix that the rule aggregates. 1: each sample is
        judged by itself. Larger groups suit networks with layers that mix samples. None: plain training.
    beta : float or None, default=None
        Share of the coordinates by which rows are judged, in (0, 1]. None: the rule's own, which is 1, all of them, for
        "auto", and 0.1, as in the paper, for "block_geometric_median" and "bgmd_paper".
    selection : {{"top", "sample", "uniform"}}, default="top"
        How the coordinates of the block are chosen, see :func:`skbgmd.block_geometric_median`.
    block : {{"unit", "coordinate"}}, default="unit"
        "unit": the block is made of whole slices of the parameters along their first axis, such as all weights of one
        output. "coordinate": of single coordinates, as in the paper.
    memory : {{"weighted", "mean"}} or None, default=None
        What becomes of the coordinates outside the block.

        - None: every coordinate moves in each step, by the block's weights or, where rows are groups, by weights of
          their own (``complement="filtered"`` of :class:`skbgmd.aggregators.BlockGeometricMedian`).
        - "weighted": the step is confined to the block; what is left out is kept for later steps.
        - "mean": the same, kept as in the paper; not robust.
    huber : float, "auto" or None, default="auto"
        Rows within this many typical distances of the median count in full; farther rows count by their direction. The
        typical distance is remembered from step to step, see :class:`skbgmd.aggregators.BlockGeometricMedian`. Smaller
        values withstand more wrong labels and targets, larger ones keep minorities.

        - None: the geometric median. It overrules minorities; in regression it withstands gross outliers. Where many
          samples are alike, as empty or constant ones are, the other samples still have a say.
        - "auto": {huber}, where no strength sets it.

        It applies to rows of single samples only: means of groups and of clients are much more alike.
    rejection : float, "auto" or None, default="auto"
        Rows farther from the median than this many typical distances, more than 1, are left out, and the median is
        taken of the others. With ``huber`` the typical distance is the largest that five steps in a row have had, so
        that what is learnt last stays.

        - None: no row is left out; one that is far off pulls as much as any other.
        - "auto": as the strength says, otherwise 10.0. It is None where the lengths of inputs, see ``leverage``, say
          that none is wrong, and where a class lies apart, whose rows are as long as wrong ones. Where no input is
          long it is None for "mild", because a limit would give up rare classes, and for numbers by any strength.
    leverage : float, "auto" or None, default="auto"
        Samples whose inputs are longer than this many times the median length, at least 1, weigh less, by the square of
        the ratio. A gradient is as long as a residual times an input, and samples with wrong features pull by their
        inputs. Lengths are of features that are centred and scaled by medians, see
        :func:`~skbgmd.training._data.leverage.leverage_weights`; for classes, the median of the sample's class counts
        where it is larger.

        - None: inputs aren't looked at. Integers that a module takes have no length, nor have samples that a Dataset
          makes one by one.
        - "auto": 3.0 under the conditions in which ``strength="auto"`` holds out samples, unless the held-out samples
          with long inputs are predicted. A network that is trained on a third of the samples predicts them, or one
          trained on two thirds where that can't say.
    pre_aggregation : {{"nearest"}} or None, default=None
        "nearest": replaces each row by the mean of its nearest rows first. This withstands attacks of ordinary length
        better, and costs accuracy where data are clean or clients differ.
    trust_power : float or None, default=None
        Weighs samples in later epochs by the trust that they earned in earlier ones, to this power. Trust is relative
        to the median of the sample's class, or of samples with targets near its own, and at most one. Powers from 1 to
        3 withstand many more wrong labels and targets, which stay far from the others when the rest is learnt. On clean
        data they cost what is hard. Clients are remembered likewise. 0 and None: nothing is remembered.
    tilt : float or None, default=None
        Weighs samples by :math:`e^{{-tilt \\cdot loss}}`, and groups by their mean loss. The step is that of tilted
        empirical risk minimization and, with cross-entropy, of generalized cross-entropy, whose weight is the
        probability of the label to this power. 0.7 withstands wrong labels, and 2.0 gross targets; hard samples get
        less weight as well. 0 and None: no tilt.
    strength : {strengths}, "auto" or None, default="auto"
        How strongly to distrust samples. A name sets ``huber``, ``beta``, ``trust_power`` and ``tilt`` together:
        {settings}.

        - "auto": held-out samples choose, with their labels or targets as they are, between trainings on a third of the
          samples; then all samples are trained on. A strength other than "mild" must predict the held-out samples
          better by more than one standard error. For classes a quarter of one is enough where some labels are surely
          wrong; for numbers it takes more where few targets are gross or they have a tail, and the strength must not
          miss far targets that inputs tell. The choice takes place in ``fit`` with at least 100 samples and 20 epochs,
          where rows are single samples.{unchosen} A fit with the choice takes 1.2 to 2.7 times as long as one without,
          and three to five times on a few hundred samples.
        - None, or "auto" with one of the four parameters or an ``aggregator`` given, or with rows of groups or clients:
          the parameters say how rows are judged.
    aggregator : str or Aggregator, default="auto"
        The rule.

        - "auto": the rule that ``beta``, ``selection``, ``block``, ``memory``, ``huber`` and ``rejection`` describe.
          With their defaults this is {rule} for single samples, and
          ``GeometricMedian(rejection=10.0, tol=0.0001)`` for groups and clients. ``net_.aggregator_.aggregator`` is the
          rule of a fitted estimator.
        - A key of :data:`skbgmd.aggregators.AGGREGATORS`, such as "bgmd_paper", the paper's algorithm to the letter, or
          an aggregator. The estimator warns of parameters that the rule ignores.
    local_steps : int, default=1
        Steps that each group takes by itself, see :class:`skbgmd.RobustNeuralNet`.
    gradients : {{"auto", "one_pass", "micro_batches"}}, default="auto"
        How the rows are computed, see :class:`skbgmd.RobustNeuralNet`.
    gradient_corruption : GradientCorruption, default=None
        Corrupts gradients in training, to see what a rule withstands.
    {class_weight}train_split : callable or None, default=None
        As in skorch: holds out data for validation. Data of their own, by ``skorch.helper.predefined_split``, have
        labels and targets as y has.
    callbacks : list of callbacks, default=None
        As in skorch.
    early_stopping : bool or "loss", default=False
        When to end before ``max_epochs``; a warning tells if these were reached first.

        - False: never.
        - True: hold out some of the samples, or of the clients where these are given, and end once their score hasn't
          improved by ``tol`` for ``n_iter_no_change`` epochs. The parameters are then those of the best epoch. Held-out
          samples may be as corrupt as the others; their score is
          {score}.
        - "loss": end once the training loss hasn't improved by so much, as scikit-learn's perceptrons do by default,
          with the last parameters.
    validation_fraction : float, default=0.1
        Share that is held out, of each class for a classifier; of the clients, where these are given.
    n_iter_no_change : int or "auto", default="auto"
        Epochs without an improvement after which training ends. "auto": 10, and as many as have 50 steps.
    tol : float, default=1e-4
        Least improvement that counts as one.
    warm_start : bool, default=False
        Continue from the last ``fit`` rather than begin anew, for ``max_epochs`` more. Changes of ``max_epochs``,
        ``verbose`` and ``class_weight`` take effect; other parameters stay as they were, and a warning says so.
    shuffle : bool, default=True
        Draw a new order of the samples in each epoch.
    device : str, default="cpu"
        Where to train, as in torch.
    compile : bool, default=False
        Compile the module, for predictions and plain training. Gradients of single samples are computed by the module
        as it was before, as a compiled one hides its layers.
    random_state : int, RandomState or None, default=None
        Seed of the initialisation, the order of the samples, dropout, and what aggregators and corruptions draw. Global
        generators are left as they were, except by your own iterators in predictions. As torch draws from a global one,
        trainings in threads of one process take turns: a callback mustn't wait for another training.
    verbose : int, default=0
        Print a line for each epoch.
    **module__kwargs
        Parameters of the parts: ``module__x``, ``criterion__x``, ``optimizer__x``, ``iterator_train__x``,
        ``iterator_valid__x``, ``callbacks__x``.

    Attributes
    ----------
    {classes}n_features_in_ : int
        Features seen in ``fit``, where X is one array.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, where X has any.
    net_ : NeuralNet
        The trained skorch net, to which the next four belong.
    module_ : Module
        The trained network.
    history_ : skorch.history.History
        Losses and times of each epoch. Also ``aggregation_time`` in seconds; ``lower_half_weight``, the weight on the
        half of the rows that is trusted least; ``selected_mass``, the share of the squared gradients in the block,
        where there is one; and ``corrupt_share``, the estimated share of corrupt rows, of rules with
        ``fraction="auto"``.
    n_iter_ : int
        Epochs trained.
    loss_curve_ : list of float
        Training loss of each epoch.
    leverage_ : float or None
        The ``leverage`` that was given. With "auto": 3.0 where samples with long inputs were taken for wrong, None
        where they weren't.
    strength_ : str or None
        The strength that was given or chosen; None: the parameters say it.
    strength_scores_ : dict
        Evidence for the choice, for each strength that was tried: its score on held-out samples, its gain over the
        gentlest one, the standard error of this gain, and by how many standard errors it had to be ahead.
    validation_scores_ : list of float, or None
        Score of the held-out samples in each epoch; None without ``early_stopping=True``.
    best_validation_score_ : float or None
        Score of the epoch, of the last ``fit``, whose parameters were kept.
    sample_trust_ : ndarray of shape (n_samples,)
        Mean weight that each training sample got: 1 as in a plain mean, 0 ignored, more than 1 where others got less.
        NaN for samples that no step was taken on, because they have no weight or were held out, and where the
        aggregator doesn't weigh rows.
    sample_record_ : SampleRecord
        Notes of the training on each sample, for :func:`skbgmd.inspection.find_suspects`: trust, likelihood, norm of
        the layers' inputs and class.
"""


#: Parameters that a skorch net has of its own.
OF_NET = (
    *("criterion", "optimizer", "lr", "max_epochs", "batch_size", "train_split", "callbacks"),
    *("shuffle", "device", "compile", "verbose"),
)


class RobustParameters(StrengthChoice):
    """Parameters of the robust classifier and regressor, with their checks."""

    def __init__(
        self,
        module: Any = None,
        *,
        hidden_layer_sizes: Sequence[int] = (100,),
        criterion: Any = None,
        optimizer: Any = torch.optim.Adam,
        lr: float = 0.005,
        max_epochs: int = 100,
        batch_size: int = 256,
        group_size: int | None = 1,
        beta: float | None = None,
        selection: str = "top",
        block: str = "unit",
        memory: str | None = None,
        huber: float | str | None = AUTO,
        rejection: float | str | None = AUTO,
        leverage: float | str | None = AUTO,
        pre_aggregation: str | None = None,
        trust_power: float | None = None,
        tilt: float | None = None,
        strength: str | None = AUTO,
        aggregator: str | Aggregator = AUTO,
        local_steps: int = 1,
        gradients: str = "auto",
        gradient_corruption: Any = None,
        train_split: Any = None,
        callbacks: Any = None,
        early_stopping: bool | str = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | str = "auto",
        tol: float = 1e-4,
        warm_start: bool = False,
        shuffle: bool = True,
        device: str = "cpu",
        compile: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        **module__kwargs: Any,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.criterion = criterion
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.group_size = group_size
        self.beta = beta
        self.selection = selection
        self.block = block
        self.memory = memory
        self.huber = huber
        self.rejection = rejection
        self.leverage = leverage
        self.pre_aggregation = pre_aggregation
        self.trust_power = trust_power
        self.tilt = tilt
        self.strength = strength
        self.aggregator = aggregator
        self.local_steps = local_steps
        self.gradients = gradients
        self.gradient_corruption = gradient_corruption
        self.train_split = train_split
        self.callbacks = callbacks
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.shuffle = shuffle
        self.device = device
        self.compile = compile
        self.random_state = random_state
        self.verbose = verbose
        self._take_routed(module__kwargs)

    def _take_routed(self, routed: dict[str, Any]) -> None:
        unknown = [name for name in routed if not _is_routed(name)]
        if unknown:
            kind = "an unexpected keyword argument" if len(unknown) == 1 else "unexpected keyword arguments"
            names = ", ".join(map(repr, unknown))
            raise TypeError(f"{type(self).__name__} got {kind} {names}.{self._hints(unknown)}")
        for name, value in routed.items():
            setattr(self, name, value)

    def _hints(self, unknown: list[str]) -> str:
        """Say what parameters that there aren't are called here."""
        return hints_for(unknown, self._get_param_names(), ROUTED)

    def _routed(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if _is_routed(name)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, those that are handed on included."""
        return {**super().get_params(deep=deep), **self._routed()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``module__x`` and the like are handed on."""
        own = {}
        known = self._get_param_names()
        unknown = [name for name in params if name.split("__")[0] not in known and not _is_routed(name)]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise ValueError(
                f"Invalid parameter{'s' * (len(unknown) > 1)} {names} for estimator {self}.{self._hints(unknown)} "
                f"Valid parameters are {known}, and those of parts, such as 'optimizer__x'."
            )
        for name, value in params.items():
            # A net or another estimator as the module takes its parameters itself.
            nested = name.split("__")[0] == "module" and hasattr(self.module, "set_params")
            if _is_routed(name) and not nested:
                setattr(self, name, value)
            else:
                own[name] = value
        super().set_params(**own)
        return self

    def _checked_aggregator(self, seed: int, *, of_samples: bool = True) -> Aggregator:
        """The aggregator that the parameters describe, for rows that are of single samples or not."""
        if self.beta is not None:
            check_number(self.beta, "beta", at_most=1.0)
        check_choice(self.selection, "selection", SELECTIONS)
        check_choice(self.block, "block", BLOCKS)
        check_choice(self.memory, "memory", (None, "weighted", "mean"))
        check_choice(self.pre_aggregation, "pre_aggregation", (None, "nearest"))
        if not (self.huber is None or is_auto(self.huber)):
            check_number(self.huber, "huber")
        if self.rejection is not None and not is_auto(self.rejection):
            check_number(self.rejection, "rejection", above=1.0)
        if self.leverage is not None and not is_auto(self.leverage):
            check_number(self.leverage, "leverage", at_least=1.0)
        for name in ("trust_power", "tilt"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, at_least=0.0)
        check_choice(self.strength, "strength", (None, AUTO, *self._strengths))
        if has_default(self.aggregator):
            setting = self._setting(of_samples=of_samples)
            rejection: Any = setting.rejection if is_auto(self.rejection) else self.rejection
            default = default_rule(
                huber=setting.huber,
                of_samples=of_samples,
                beta=setting.beta,
                selection=self.selection,
                block=self.block,
                memory=self.memory,
                rejection=rejection,
                random_state=seed,
            )
            aggregator = with_default(self.aggregator, default)
        else:
            aggregator = named_rule(self.aggregator)
            if isinstance(self.aggregator, str) and self.beta is not None and "beta" in aggregator.get_params():
                aggregator.set_params(beta=self.beta)
        if self.pre_aggregation is None or isinstance(aggregator, Mean):
            return aggregator
        return NearestNeighborMixing(aggregator)

    def _warn_of_ignored(self, *, of_samples: bool, has_clients: bool) -> None:
        """Warn of parameters that don't matter to the rule, and aren't at their defaults."""
        if isinstance(self.module, NeuralNet) and (settings := self._given(*OF_NET)):
            warnings.warn(
                f"Settings that a skorch net has itself must be left at their defaults, and be given to the net, as in "
                f"module__{settings[0]}; found {', '.join(settings)} with module={type(self.module).__name__}(...).",
                stacklevel=2,
            )
        of_rule = ("aggregator", "beta", "selection", "block", "memory", "huber", "rejection", "pre_aggregation")
        names = (*of_rule, "trust_power", "tilt", "strength")
        # Of clients each gives a row, whatever the size of groups is.
        is_plain = self.group_size is None and not has_clients and current_ranks().size == 1
        beta = self._setting(of_samples=of_samples).beta
        ignored = set(names) if is_plain else ignored_parameters(self.aggregator, beta, of_samples=of_samples)
        if not self._takes_strength(of_samples=of_samples):
            ignored.add("strength")
        elif self.strength != AUTO:
            ignored |= set(OF_STRENGTH)
        elif self.strength_scores_ and any(setting.beta for setting in self._strengths.values()):
            # Another choice would have looked at them.
            ignored -= {"selection", "block", "memory"}
        # Whoever wants none gets none.
        ignored -= {"strength"} if self.strength is None else set()
        # Plain training by any name.
        if self.aggregator == "mean" or isinstance(self.aggregator, Mean):
            ignored -= {"aggregator"}
        found = self._given(*(name for name in names if name in ignored))
        if has_clients and self.group_size is not None:
            found += self._given("group_size")
        if found:
            rows = "single samples" if of_samples else "groups or clients"
            by = "group_size=None, which is plain training" if is_plain else f"rows of {rows}"
            is_strong = self._takes_strength(of_samples=of_samples) and self.strength != AUTO
            others = [f"strength={self.strength!r}"] if is_strong else []
            others += [f"{name}={brief(getattr(self, name))}" for name in ("aggregator", "beta") if name not in ignored]
            beside = f"{', '.join(others)} and {by}" if others else by
            warnings.warn(
                f"Parameters that the rule ignores must be left at their defaults; found {', '.join(found)} with "
                f"{beside}.",
                stacklevel=2,
            )

    def _check_parameters(self) -> None:
        self._checked_aggregator(0)
        self._check_early_stopping()
        if isinstance(self.module, NeuralNet):
            if getattr(self.module, "initialized_", False):
                raise ValueError("module must be an unfitted skorch net; found one that is initialized.")
            return
        is_module = isinstance(self.module, torch.nn.Module) or callable(self.module)
        if not (self.module is None or is_module):
            raise TypeError(
                f"module must be a Module, a class of modules, a skorch net or None; found {self.module!r}."
            )
        for name in ("max_epochs", "batch_size", "local_steps"):
            check_integer(getattr(self, name), name)
        for name in ("warm_start", "shuffle", "compile"):
            check_flag(getattr(self, name), name)
        if self.group_size is not None:
            check_integer(self.group_size, "group_size")
        check_number(self.lr, "lr")
        check_verbosity(self.verbose)
        check_device(self.device)
        self._check_parts()
        sizes = self.hidden_layer_sizes
        if isinstance(sizes, str) or not isinstance(sizes, (Sequence, np.ndarray)) or np.ndim(sizes) != 1:
            raise TypeError(f"hidden_layer_sizes must be a sequence of integers; found {sizes!r}.")
        for size in sizes:
            check_integer(size, "hidden_layer_sizes")

    def _check_early_stopping(self) -> None:
        given = self.early_stopping
        if not (isinstance(given, (bool, np.bool_)) or (isinstance(given, str) and given == "loss")):
            raise ValueError(f'early_stopping must be True, False or "loss"; found {given!r}.')
        check_number(self.tol, "tol", at_least=0.0)
        if not is_auto(self.n_iter_no_change):
            check_integer(self.n_iter_no_change, "n_iter_no_change")
        if not 0.0 < check_number(self.validation_fraction, "validation_fraction", above=-math.inf) < 1.0:
            raise ValueError(f"validation_fraction must be between 0 and 1; found {self.validation_fraction!r}.")
        split = self._source().train_split
        if self._holds_out() and split is not None:
            whose = "the net that is the module" if isinstance(self.module, NeuralNet) else "the estimator"
            raise ValueError(
                f"train_split of {whose} must be None with early_stopping=True, which holds out data itself; found "
                f"{split!r}."
            )

    def _holds_out(self) -> bool:
        return not isinstance(self.early_stopping, str) and bool(self.early_stopping)

    def _refuse_part(self) -> None:
        """Refuse to hold out samples of a call of ``partial_fit``."""
        net = getattr(self, "net_", None)
        if self._holds_out() or (net is not None and isinstance(stopping_of(net), HeldOutStopping)):
            raise ValueError("partial_fit does not support early_stopping=True")

    def _check_parts(self) -> None:
        kind = torch.optim.Optimizer
        if not callable(self.optimizer) or (isinstance(self.optimizer, type) and not issubclass(self.optimizer, kind)):
            raise TypeError(
                f"optimizer must be a class of optimizers, such as torch.optim.SGD; found {self.optimizer!r}."
            )
        # A function of predictions and targets, such as those of torch.nn.functional, makes no loss.
        is_loss = isinstance(self.criterion, (type, torch.nn.Module)) or not callable(self.criterion)
        needed = set() if is_loss else _required(self.criterion)
        given = {name.removeprefix("criterion__") for name in self._routed()}
        if not (self.criterion is None or callable(self.criterion)) or needed - given:
            raise TypeError(
                f"criterion must be a class of losses, such as torch.nn.CrossEntropyLoss, an instance of one, or None; "
                f"found {self.criterion!r}."
            )
        is_disabled = isinstance(self.callbacks, str) and self.callbacks == "disable"
        if not (self.callbacks is None or is_disabled or isinstance(self.callbacks, list)):
            raise TypeError(
                "callbacks must be a list of callbacks, such as [skorch.callbacks.EarlyStopping()], None or 'disable'; "
                f"found {self.callbacks!r}."
            )
        check_each_callback(self.callbacks)
        if not (self.train_split is None or callable(self.train_split)):
            raise TypeError(
                f"train_split must be callable, such as skorch.dataset.ValidSplit(5), or None; found "
                f"{self.train_split!r}."
            )


def _required(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters that a function can't be called without; none of those that have no signature."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return set()
    return {each.name for each in parameters if each.default is each.empty and each.kind not in several}


def _is_routed(name: str) -> bool:
    return re.match(rf"({'|'.join(ROUTED)})__", name) is not None
