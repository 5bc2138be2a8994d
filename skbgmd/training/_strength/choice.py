"""The part of an estimator that chooses its strength by held-out samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, GradientNormClipping, LRScheduler, ParamMapper

from skbgmd._utils import limits
from skbgmd._utils.checks import brief
from skbgmd._utils.doc_link import DocumentationLink
from skbgmd._utils.random import random_source, seeded
from skbgmd.aggregators import Aggregator, NonFiniteRowsError
from skbgmd.training._data.copies import first_copies
from skbgmd.training._data.inputs import n_samples, take
from skbgmd.training._data.leverage import LEVERAGE, have_lengths, leverage_weights
from skbgmd.training._data.scaling import scale_ratio
from skbgmd.training._lifecycle.interrupts import TrainingInterrupted
from skbgmd.training._ranks import current_ranks
from skbgmd.training._strength.defaults import AUTO, HUBER_OF_NUMBERS, REJECTION, has_default, is_auto
from skbgmd.training._strength.evidence import (
    OF_STRENGTH,
    Evidence,
    Strength,
    Utilities,
    choose,
    hold_out,
)
from skbgmd.training._strength.held_out_labels import HeldOutLabels, held_out_labels
from skbgmd.training._strength.long_inputs import (
    CONSTANT,
    NETWORK,
    PERFECT,
    UNCLEAR,
    Skill,
    are_predicted,
    lies_apart,
    share_of_most,
    skill,
)

#: Callbacks that change what a training learns, rather than to watch or to save it.
STEERING = (LRScheduler, GradientNormClipping, ParamMapper)


class StrengthChoice(DocumentationLink, BaseEstimator):
    """Base of estimators whose strength says how they judge samples, or is chosen by held-out ones."""

    _strengths: ClassVar[Mapping[str, Strength]]
    _as_well: ClassVar[float]
    _default_huber: ClassVar[float | None] = HUBER_OF_NUMBERS
    #: Standard errors that are asked for, or fewer, where something is surely wrong.
    _proof: ClassVar[float] = limits.CLEAR_GAIN
    #: Whether a strength is chosen for trainings that end by themselves.
    _chooses_if_stopped: ClassVar[bool] = True
    #: Whether lengths of inputs say that no row is to be left out, whatever the strength; and that no input is long, so
    #: that a limit against wrong ones is of no use.
    _keeps_rows: bool = False
    _are_short: bool = False
    module: Any
    device: Any
    group_size: int | None
    local_steps: int
    aggregator: str | Aggregator
    huber: float | str | None
    rejection: float | str | None
    leverage: float | str | None
    beta: float | None
    trust_power: float | None
    tilt: float | None
    strength: str | None
    gradient_corruption: Any
    early_stopping: bool | str
    random_state: Any
    strength_: str | None
    leverage_: float | None
    strength_scores_: dict[str, Evidence]
    _held_out: HeldOutLabels | None

    def _source(self) -> Any:
        """The object with the settings of the training: the estimator, or the net that it was given."""
        return self.module if isinstance(self.module, NeuralNet) else self

    def _takes_strength(self, *, of_samples: bool) -> bool:
        """True if the strength says how samples are judged, rather than the parameters that it stands for."""
        if self.strength is None or not (of_samples and has_default(self.aggregator)):
            return False
        return self.strength != AUTO or not self._given(*OF_STRENGTH)

    def _setting(self, *, of_samples: bool) -> Strength:
        """The strength that was given or chosen; or what the parameters stand for."""
        chosen = None
        if self._takes_strength(of_samples=of_samples):
            chosen = getattr(self, "strength_", None) if self.strength == AUTO else self.strength
        if chosen is not None:
            setting = self._strengths[chosen]
            if self.gradient_corruption is not None:
                # Tails aren't what is far then.
                return setting._replace(rejection=REJECTION)
            # A limit of rows is for wrong inputs; what else is far are tails, and classes that lie apart or are rare.
            return setting._replace(rejection=None) if self._keeps_all(setting) else setting
        huber = self._default_huber if isinstance(self.huber, str) else self.huber
        rejection = None if self._keeps_rows else REJECTION
        return Strength(huber, self.beta, self.trust_power or 0.0, self.tilt or 0.0, rejection)

    def _keeps_all(self, setting: Strength) -> bool:
        """True if no row is to be left out by a setting."""
        return self._keeps_rows or (self._are_short and setting.keeps_short)

    def _judges_samples(self, clients: Any) -> bool:
        """True if rows are of single samples."""
        return self.group_size == 1 and clients is None and self.local_steps == 1

    def _can_hold_out(self, n: int, epochs: int | None) -> bool:
        """True if held-out samples can say something: there are enough of them, and a training long enough."""
        few = n < limits.CHOICE_SAMPLES or self._source().max_epochs < limits.CHOICE_LEAST_EPOCHS
        return not few and epochs is None and self._allows_choice()

    def _drawn(
        self,
        X: Any,
        y: NDArray[Any],
        strata: NDArray[np.intp],
        weight: NDArray[np.float64],
        share: float = limits.CHOICE_HELD_OUT,
    ) -> tuple[int, NDArray[np.intp], NDArray[np.intp]]:
        """Draw a seed, and by it samples to train candidates on and to hold out; of the latter, those with weight."""
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        mask = hold_out(strata, share, np.random.RandomState(seed), first_copies(X, y, strata))
        return seed, np.flatnonzero(~mask), np.flatnonzero(mask & (weight > 0.0))

    def _try(
        self, model: Self, X: Any, y: Any, weight: Any, trained: Any, held_out: Any, *, epochs: int
    ) -> tuple[Any, NDArray[Any] | None]:
        """Train a candidate for more epochs on some samples, and predict others; None twice where it diverges."""
        # A subclass may fit and predict otherwise.
        kind: Any = next(base for base in type(self).__mro__ if base.__module__.startswith("skbgmd.training"))
        model._source().set_params(max_epochs=epochs)
        try:
            with warnings.catch_warnings():
                # The training on all samples will say it again.
                warnings.simplefilter("ignore")
                kind.fit(model, take(X, trained), y[trained], None if weight is None else weight[trained])
                # Loaders draw from the global generators.
                with seeded(0, self.device):
                    found: tuple[Any, NDArray[Any] | None] = kind._predicted(model, take(X, held_out))
        except NonFiniteRowsError:
            return None, None
        except TrainingInterrupted as error:
            # Nothing was learnt yet that is to be kept.
            raise KeyboardInterrupt(str(error)) from None
        return found

    def _choose_leverage(self, X: Any, y: Any, weight: Any, clients: Any, *, epochs: int | None) -> None:
        """Say from which length of inputs on samples weigh less, if at all, and whether rows may be left out.

        A network that doesn't look at lengths is trained as the gentlest candidate is. Where it predicts held-out
        samples with long inputs, they are right, all weigh alike, and no row is left out. Nor is it beside a class that
        lies apart, which takes no training to see.
        """
        limit: Any = self.leverage
        self.leverage_, self._keeps_rows, self._are_short = None if is_auto(limit) else limit, False, False
        if self.leverage_ is not None and not have_lengths(X):
            warnings.warn(
                f'leverage must be "auto" or None where no input has a length: integers that a module takes have none, '
                f"nor have samples that a Dataset makes one by one; found {limit!r}, which is ignored.",
                stacklevel=4,
            )
        ranks, looks = current_ranks(), limit is not None and epochs is None and self._judges_samples(clients)
        # Other ranks may have another rule, and then no part in what this one would try.
        if not ranks.all(looks and has_default(self.aggregator), "whether lengths of inputs are looked at"):
            return
        can_try = ranks.all(is_auto(limit) and self._can_hold_out(len(y), epochs), "whether samples can be held out")
        # What is made of gradients later no input tells.
        are_own = self.gradient_corruption is None
        strata = self._strata(y)
        given = np.ones(len(y)) if weight is None else weight
        every = _are_long(X, weight, None)
        # What is long for its class is long for all.
        of_class = _are_long(X, weight, strata) if every.any() else every
        share, share_of_class = (float(long[given > 0.0].mean()) for long in (every, of_class))
        # A length is in the features' own units; where these differ, gradients are as long as the largest features.
        are_scaled = scale_ratio(X) < limits.SCALES_APART
        # Next to most others the rows of such a class are as long as wrong ones.
        is_apart = are_scaled and lies_apart(every & ~of_class, strata, given)
        # Fewer are kept in check by their gradients, and aren't worth a training.
        if not (ranks.any(share_of_class > limits.FEW_LONG, "whether inputs are long") and can_try):
            # What is long for all and not for its class is a class that lies far from the others.
            keeps = is_apart or (share > limits.FEW_LONG and share_of_class == 0.0 and are_scaled)
            self._keeps_rows = ranks.all(keeps and are_own, "whether inputs are as those of their class")
            are_short = share_of_class <= self._most_long(X, can_try=can_try) and are_scaled
            self._are_short = ranks.all(are_short and are_own, "whether no input is long")
            return
        self._keeps_rows = ranks.all(is_apart and are_own, "whether a class lies apart")
        if is_apart and share_of_most(strata[of_class], given[of_class]) < limits.ONE_CLASS:
            # Few with wrong labels would be a class of the long ones.
            right = self._are_predicted(X, y, weight, strata, of_class, np.zeros_like(strata))
        else:
            # Those of a class that are long for it may be the whole of a group that is long for all.
            right = self._are_predicted(X, y, weight, strata, every, strata)
        if right is None:
            return
        self.leverage_ = None if right > UNCLEAR else LEVERAGE
        self._keeps_rows |= right > UNCLEAR and ranks.all(are_scaled and are_own, "whether features are of one scale")

    def _are_predicted(
        self,
        X: Any,
        y: Any,
        weight: Any,
        strata: NDArray[np.intp],
        are_long: NDArray[np.bool_],
        groups: NDArray[np.intp],
    ) -> float | None:
        """Tell whether held-out samples with long inputs are predicted, as :func:`are_predicted` does.

        By a training on a third of the samples, and where that can't say, on two thirds. None: none can be held out.
        Groups count alike.
        """
        ranks, given = current_ranks(), np.ones(len(y)) if weight is None else weight
        found = None
        for part in (limits.CHOICE_HELD_OUT, limits.SECOND_HELD_OUT):
            seed, trained, held_out = self._drawn(X, y, strata, given, part)
            if not ranks.all(len(held_out) and given[trained].any(), "whether there are samples to judge lengths by"):
                break
            strength = next(iter(self._strengths)) if self._takes_strength(of_samples=True) else None
            probe = self._candidate(strength, seed)
            probe.set_params(leverage=None)
            # A third of the samples and a third of the epochs may be too few steps to learn anything.
            predicted, _ = self._try(probe, X, y, weight, trained, held_out, epochs=self._choice_epochs())
            long, own = are_long[held_out], 0.0
            if predicted is not None and long.any() and not long.all():
                of_each = y[held_out], given[held_out]
                every: Any = predicted, self._constant(*of_each), *of_each, groups[held_out]
                of_long, of_others = (self._skills(*(values[some] for values in every)) for some in (long, ~long))
                own = are_predicted(of_long, of_others, self._as_well)
            found = float(ranks.median([own], "what long inputs predict")[0])
            # Few that are hard may be predicted by a training on more.
            if found != UNCLEAR:
                break
        return found

    def _most_long(self, X: Any, *, can_try: bool) -> float:
        """Share of long inputs up to which there is no use in a limit of rows; less than zero: there always is."""
        raise NotImplementedError

    def _skills(self, predicted: Any, constant: Any, y: Any, weight: Any, strata: NDArray[np.intp]) -> list[Skill]:
        """Skill of predictions of some samples beside those of a constant, by each score."""
        by_name = {CONSTANT: constant, NETWORK: predicted, PERFECT: y}
        return [skill(utilities, strata, weight) for utilities in self._utilities(by_name, y, weight)]

    def _constant(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[Any]:
        """The best prediction of targets that knows nothing of the inputs."""
        raise NotImplementedError

    def _by_length(self, X: Any, y: NDArray[Any], weight: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Weights of samples by the lengths of their inputs; None: all are one."""
        limit = self.leverage_
        return None if limit is None else leverage_weights(X, float(limit), weight, self._strata(y))

    def _given(self, *names: str) -> list[str]:
        """Those of some parameters that aren't at their defaults, with their values."""
        defaults = _defaults_of(type(self).__init__)
        return [
            f"{name}={brief(getattr(self, name))}"
            for name in names
            if name in defaults and getattr(self, name) != defaults[name]
        ]

    def _choose_strength(self, X: Any, y: Any, weight: Any, clients: Any, *, epochs: int | None) -> None:
        """Choose the strength by held-out samples, where it is to be chosen and they can say anything.

        Each candidate is trained on the others as the estimator itself.
        """
        self.strength_, self.strength_scores_, self._held_out = None, {}, None
        ranks, takes = current_ranks(), self._takes_strength(of_samples=self._judges_samples(clients))
        if self.strength != AUTO:
            self.strength_ = self.strength if takes else None
            return
        if not ranks.all(takes, "whether a strength is to be chosen"):
            self.strength_ = self._unchosen_strength() if takes else None
            return
        is_open = self._chooses_if_stopped or not self._ends_by_itself()
        if not ranks.all(is_open and self._can_hold_out(len(y), epochs), "whether a strength can be chosen"):
            self.strength_ = self._without_choice(X, y, weight, epochs=epochs)
            return
        strata, by_length = self._strata(y), self._by_length(X, y, weight)
        held_weight = np.ones(len(y)) if weight is None else weight
        held_weight = held_weight if by_length is None else held_weight * by_length
        seed, trained, held_out = self._drawn(X, y, strata, held_weight)
        if not ranks.all(len(held_out) and held_weight[trained].any(), "whether there are samples to choose by"):
            self.strength_ = self._without_choice(X, y, weight, epochs=epochs)
            return
        candidates = {name: self._candidate(name, seed) for name in self._strengths}
        probabilities: dict[str, NDArray[Any]] = {}
        likelihoods: dict[str, NDArray[np.float64]] = {}
        noted: set[str] = set()

        def predict(name: str, more: int) -> Any:
            model = candidates[name]
            labels, numbers = self._try(model, X, y, weight, trained, held_out, epochs=more)
            if numbers is not None:
                # Later, wrong labels are learnt by heart.
                probabilities.setdefault(name, numbers)
                likelihoods.setdefault(name, model.sample_record_.likelihood[0])
            return labels

        def errors_ahead(predicted: Mapping[str, Any]) -> float:
            if probabilities.keys() > noted:
                noted.update(probabilities)
                mean = np.stack(list(probabilities.values())).mean(axis=0, dtype=np.float64)
                gentle = likelihoods.get(next(iter(candidates)), np.full(len(trained), np.nan))
                self._held_out = held_out_labels(mean, strata[held_out], held_out, trained, gentle, len(y))
            return self._errors_ahead(predicted, y[held_out], held_weight[held_out])

        self.strength_, self.strength_scores_ = choose(
            list(candidates),
            predict,
            lambda predicted: self._utilities(predicted, y[held_out], held_weight[held_out]),
            strata[held_out],
            held_weight[held_out],
            epochs=self._choice_epochs(),
            agree=_over_ranks,
            ahead=errors_ahead,
            proof=self._proof,
            objects=lambda predicted: self._objects(X, y, weight, held_out, predicted),
        )

    def _allows_choice(self) -> bool:
        """True if candidates can be trained as the estimator itself, but for what watches and saves."""
        source = self._source()
        # A training that is steered by held-out samples is another one on a third of them.
        return source.train_split is None or not _steering(source.callbacks)

    def _ends_by_itself(self) -> bool:
        """True if a training may end before its last epoch."""
        return bool(self.early_stopping) or any(
            issubclass(kind, EarlyStopping) for _, kind in _callbacks(self._source().callbacks)
        )

    def _choice_epochs(self) -> int:
        """Epochs that candidates are trained for, which don't end by themselves."""
        most: int = self._source().max_epochs
        return min(most, limits.CHOICE_MOST_EPOCHS) if self._ends_by_itself() else most

    def _unchosen_strength(self) -> str | None:
        """The strength where held-out samples can't say; None: the parameters say it."""
        return None

    def _without_choice(self, X: Any, y: Any, weight: Any, *, epochs: int | None) -> str | None:
        """The strength where held-out samples can't say, or the gentlest where that is objected to."""
        strength, gentlest = self._unchosen_strength(), next(iter(self._strengths))
        # A small part of the data says too little.
        is_enough = epochs is None or (X is not None and len(y) >= limits.CHOICE_SAMPLES)
        is_open = strength not in (None, gentlest) and current_ranks().all(is_enough, "whether inputs can be asked")
        return gentlest if is_open and self._objects(X, y, weight) else strength

    def _candidate(self, strength: str | None, seed: int) -> Self:
        """A copy to be trained by a strength on some of the samples, with no effects besides."""
        params = self.get_params(deep=False)
        module = clone(self.module) if isinstance(self.module, NeuralNet) else self.module
        kept = _steering(self._source().callbacks)
        names = {each[0] for each in kept if isinstance(each, tuple)}
        # What isn't kept may be expensive to copy, or can't be.
        settings = {"callbacks": kept, "train_split": None, "verbose": 0}
        if module is not self.module:
            module.set_params(**settings)
            for name in [name for name in vars(module) if name.startswith("callbacks__")]:
                if name.split("__")[1] not in names:
                    delattr(module, name)
        params = {
            name: value
            for name, value in params.items()
            if not name.startswith("callbacks__") or name.split("__")[1] in names
        }
        own = {"module": module, "strength": strength, "leverage": self.leverage_, "random_state": seed}
        own["early_stopping"] = False
        keeps = self._keeps_rows if strength is None else self._keeps_all(self._strengths[strength])
        if keeps and is_auto(self.rejection):
            own["rejection"] = None
        given = {**params, **settings, **own, "warm_start": True}
        twin: Self = clone(type(self)(**given))
        return twin

    def _strata(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Strata of targets, within which samples are held out and their scores averaged."""
        raise NotImplementedError

    def _predicted(self, X: Any) -> tuple[Any, NDArray[Any] | None]:
        """Predict samples; with probabilities of classes (n_samples, n_classes), where there are any."""
        raise NotImplementedError

    def _utilities(
        self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]
    ) -> Sequence[Utilities]:
        """Utilities of held-out samples by what was predicted of them, those of each score."""
        raise NotImplementedError

    def _errors_ahead(self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]) -> float:
        """Standard errors by which another strength must be ahead of the gentlest, by what was predicted."""
        return limits.CLEAR_GAIN

    def _objects(
        self, X: Any, y: NDArray[Any], weight: NDArray[np.float64] | None, held_out: Any = None, predicted: Any = None
    ) -> bool:
        """True if a strength isn't to be taken that predicted held-out samples so; None: it didn't."""
        return False


@lru_cache(maxsize=64)
def _defaults_of(initialize: Callable[..., None]) -> dict[str, Any]:
    """Defaults of a class's parameters."""
    return {name: parameter.default for name, parameter in signature(initialize).parameters.items()}


def _are_long(X: Any, weight: NDArray[np.float64] | None, strata: NDArray[np.intp] | None) -> NDArray[np.bool_]:
    """Samples (n,) whose inputs are long."""
    found = leverage_weights(X, LEVERAGE, weight, strata)
    return np.zeros(n_samples(X), dtype=bool) if found is None else found < 1.0


def _over_ranks(evidence: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Medians over the ranks of what the held-out samples of each say: a rank with wrong labels has no majority."""
    medians = current_ranks().median(list(evidence.values()), "evidence for strengths")
    return {name: Evidence(*map(float, row)) for name, row in zip(evidence, medians, strict=True)}


def _callbacks(given: Any) -> list[tuple[Any, type]]:
    """Callbacks as skorch takes them, (name, callback) among them, with their classes."""
    callbacks = [] if isinstance(given, str) else list(given or [])
    bare = [each[1] if isinstance(each, tuple) else each for each in callbacks]
    return [(each, one if isinstance(one, type) else type(one)) for each, one in zip(callbacks, bare, strict=True)]


def _steering(given: Any) -> list[Any]:
    """Those of some callbacks that change what a training learns."""
    return [each for each, kind in _callbacks(given) if issubclass(kind, STEERING)]
