"""Trainings that end by themselves: once a score of held-out samples, or the loss, no longer improves."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit

from skbgmd._utils import limits
from skbgmd.training._data.far_targets import far_targets
from skbgmd.training._data.leverage import LEVERAGE, leverage_weights
from skbgmd.training._lifecycle.held_out_scores import bounded_likelihood, quantiles, residual_scores, smallest_medians
from skbgmd.training._lifecycle.interrupts import TrainingEnded
from skbgmd.training._ranks import current_ranks

#: Names in the history of an epoch's score, and of whether it is the best so far.
SCORE, IS_BEST = "validation_score", "validation_score_best"


class StoppingCriterion(Callback):
    """Count the epochs since a score last improved; it comes before callbacks that save what is counted.

    Parameters
    ----------
    tol : float, default=1e-4
        A score that is better than the best by less has not improved.
    n_iter_no_change : int or "auto", default="auto"
        Epochs without an improvement after which a training is over; "auto": 10, and as many as have 50 steps.

    Attributes
    ----------
    misses_ : int
        Epochs since the last improvement.
    n_steps_ : float
        Steps of an epoch.
    is_waiting_ : bool
        Whether the last epoch couldn't have been the last of the training.
    """

    def __init__(self, tol: float = 1e-4, n_iter_no_change: int | str = "auto") -> None:
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.misses_, self.n_steps_, self.is_waiting_ = 0, math.inf, False

    @property
    def patience(self) -> int:
        """Epochs without an improvement that are too many."""
        if not isinstance(self.n_iter_no_change, str):
            return self.n_iter_no_change
        return max(limits.PATIENCE_EPOCHS, math.ceil(limits.PATIENCE_STEPS / max(self.n_steps_, 1.0)))

    @property
    def is_over(self) -> bool:
        """True if the training is to end."""
        return self.misses_ >= self.patience

    def count(self, scores: ArrayLike, best: ArrayLike) -> None:
        """Count an epoch whose scores are to be compared with the best ones before: one that improves is enough."""
        # So that a score which isn't a number is no improvement.
        scores = np.asarray(scores, dtype=np.float64)
        improves = (scores >= np.asarray(best, dtype=np.float64) + self.tol) & (scores > -np.inf)
        self.misses_ = 0 if improves.any() else self.misses_ + 1


class LossStopping(StoppingCriterion):
    """End by the mean training loss of the epochs."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_train_begin(net, **kwargs)
        self.best_score_ = -np.inf

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        loss, n_steps = current_ranks().median([mean_loss(net.history[-1]), steps_of(net.history[-1])], "training loss")
        self.n_steps_, score = float(n_steps), -float(loss)
        self.count(score, self.best_score_)
        self.best_score_ = max(score, self.best_score_)


class HeldOutStopping(StoppingCriterion):
    """End by a score of held-out samples, and restore the parameters of the best epoch.

    Parameters
    ----------
    tol, n_iter_no_change
        As in :class:`StoppingCriterion`.
    fraction : float, default=0.1
        Share of the samples, or of the clients, to hold out.
    seed : int, default=0
        Seed of which these are.

    Attributes
    ----------
    summaries_ : tensor of shape (epochs, m, n_outputs)
        What the scores of the epochs so far are computed from, while the training lasts.
    best_epoch_ : int
        The best of them.
    best_model_weights_ : dict, or None
        States of the network and the loss in that epoch, while the training lasts.
    seed_ : int
        The seed, that of a checkpoint once it is loaded.
    """

    best_model_weights_: dict[str, Any] | None

    def __init__(
        self, tol: float = 1e-4, n_iter_no_change: int | str = "auto", fraction: float = 0.1, seed: int = 0
    ) -> None:
        super().__init__(tol, n_iter_no_change)
        self.fraction = fraction
        self.seed = seed

    def initialize(self) -> Any:
        self.seed_ = self.seed
        return super().initialize()

    # ---- what is held out -------------------------------------------------------------------------------------------

    def hold_out(self, dataset: Any, y: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Split a dataset, as a ``train_split`` of skorch does, into samples to train on and to score by.

        Raises
        ------
        ValueError
            There are too few samples, or too few clients.
        """
        settings = {"n_splits": 1, "test_size": self.fraction, "random_state": self.seed_}
        clients = getattr(dataset, "clients", None)
        self.examine(dataset, y)
        if clients is not None:
            _check_counts(len(np.unique(clients)), self.fraction, 1, "clients")
            train, valid = ValidSplit(GroupShuffleSplit(**settings))(dataset, y, groups=clients)
        else:
            train, valid = self.split(dataset, y, settings)
        self.check_split(y, train.indices)
        self.keep(dataset, y, valid.indices)
        return train, valid

    def examine(self, dataset: Any, y: NDArray[Any]) -> None:
        """Look at the samples before some of them are held out."""

    def split(self, dataset: Any, y: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Split a dataset without clients; ``settings`` are those of a splitter of scikit-learn."""
        _check_counts(len(y), self.fraction, 2, "samples")
        return cast(tuple[Any, Any], ValidSplit(ShuffleSplit(**settings))(dataset, y))

    def check_split(self, y: NDArray[Any], train: NDArray[np.intp]) -> None:
        """Raise an error where targets y[train] aren't enough to train on."""

    def keep(self, dataset: Any, y: NDArray[Any], held_out: NDArray[np.intp]) -> None:
        """Keep what the scores need of the samples that are held out."""
        weight = getattr(dataset, "sample_weight", None)
        self.y_, self.weight_ = y[held_out], None if weight is None else weight[held_out]

    # ---- scores -----------------------------------------------------------------------------------------------------

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        """Numbers that an epoch's score is computed from, (m, n_outputs)."""
        raise NotImplementedError

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (epochs, k) of summaries (epochs, m, n_outputs); NaN: there is none."""
        raise NotImplementedError

    def is_yet_to_learn(self, summaries: NDArray[np.float64]) -> bool:
        """True if something that inputs tell was predicted in none of the epochs."""
        return False

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_train_begin(net, **kwargs)
        # A copy of a net may still split by the one that this is a copy of.
        net.train_split = self.hold_out
        self.summaries_, self.best_epoch_, self.best_model_weights_ = torch.zeros(0, 0, 0, device="cpu"), 0, None

    def on_epoch_end(self, net: Any, dataset_valid: Any = None, **kwargs: Any) -> None:
        summary = torch.from_numpy(self.summary(net, dataset_valid))[None]
        self.summaries_ = torch.cat([self.summaries_.to(summary), summary]) if len(self.summaries_) else summary
        ranks, summaries = current_ranks(), self.summaries_.numpy()
        scores = ranks.median(self.scores(summaries), SCORE)
        scores = np.where(np.isnan(scores), 0.0, scores)
        sums, last = scores.sum(axis=1), len(scores) - 1
        # Few samples with a rule of their own are learnt late, and at first to the detriment of the others.
        self.count(scores[last], scores[:last].max(axis=0, initial=-np.inf))
        of_epoch = [self.is_yet_to_learn(summaries), steps_of(net.history[-1])]
        is_waiting, n_steps = ranks.median(of_epoch, "whether a group is yet to be learnt")
        self.n_steps_ = float(n_steps)
        self.is_waiting_ = bool(is_waiting > 0.5 and len(scores) <= limits.EPOCHS_WAITED)
        if self.is_waiting_:
            self.misses_ = 0
        is_best = last == 0 or bool(sums[last] > sums[self.best_epoch_])
        if is_best:
            self.best_epoch_ = last
            self.best_model_weights_ = {name: copy.deepcopy(part.state_dict()) for name, part in _parts(net)}
        # Earlier ones may have changed.
        for row, score in zip(net.history[::-1], sums[::-1], strict=False):
            row[SCORE] = float(score)
        net.history.record(IS_BEST, is_best)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        if self.best_model_weights_ is not None:
            for name, part in _parts(net):
                part.load_state_dict(self.best_model_weights_[name])
        self.best_model_weights_ = None
        for name in ("y_", "weight_", "told_", "summaries_"):
            if hasattr(self, name):
                delattr(self, name)

    def __getstate__(self) -> dict[str, Any]:
        # skorch's early stopping doesn't save the parameters twice, either.
        return {**super().__getstate__(), "best_model_weights_": None}


class LikelihoodStopping(HeldOutStopping):
    """End by the :func:`bounded_likelihood` of held-out labels, of which each class has its share.

    Parameters
    ----------
    tol, n_iter_no_change, fraction, seed
        As in :class:`HeldOutStopping`.
    classes : array-like of shape (n_classes,), default=None
        Labels of the classes, whose places are the targets.
    """

    def __init__(
        self,
        tol: float = 1e-4,
        n_iter_no_change: int | str = "auto",
        fraction: float = 0.1,
        seed: int = 0,
        classes: ArrayLike | None = None,
    ) -> None:
        super().__init__(tol, n_iter_no_change, fraction, seed)
        self.classes = classes

    def split(self, dataset: Any, y: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
        codes, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"early_stopping=True must have two samples and more of each class, to hold some out and train on "
                f"others; found 1 sample of class {self._label(codes[counts.argmin()])!r}."
            )
        _check_counts(len(y), self.fraction, len(codes), "samples", of="for as many classes")
        return cast(tuple[Any, Any], ValidSplit(StratifiedShuffleSplit(**settings), stratified=True)(dataset, y))

    def check_split(self, y: NDArray[Any], train: NDArray[np.intp]) -> None:
        lost = np.setdiff1d(y, y[train])
        if len(lost):
            raise ValueError(
                f"validation_fraction must leave samples of each class to train on; found none of class "
                f"{self._label(lost[0])!r} among those that aren't held out, with {self.fraction}."
            )

    def _label(self, code: Any) -> Any:
        label = code if self.classes is None else np.asarray(self.classes)[int(code)]
        return label.item() if isinstance(label, np.generic) else label

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        probabilities = net.predict_proba(valid)
        return np.array([[bounded_likelihood(probabilities, self.y_.astype(np.intp), self.weight_)]])

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.nan_to_num(summaries[:, :1, 0], nan=-np.inf, neginf=-np.inf)


class LabelStopping(HeldOutStopping):
    """End by the :func:`bounded_likelihood` of held-out labels, several a sample: the mean over all of them."""

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        probabilities, given = net.predict_proba(valid), self.y_ > 0.0
        scores = [
            bounded_likelihood(np.stack([1.0 - of_label, of_label], axis=1), right.astype(np.intp), self.weight_)
            for of_label, right in zip(probabilities.T.astype(np.float64), given.T, strict=True)
        ]
        return np.array([[np.mean(scores)]])

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.nan_to_num(summaries[:, :1, 0], nan=-np.inf, neginf=-np.inf)


class ResidualStopping(HeldOutStopping):
    """End by robust scores of the residuals of held-out samples, see :func:`residual_scores`.

    Far targets that inputs tell are a group, rather than gross: they have their share of what is held out, and a score
    of their own.
    """

    def examine(self, dataset: Any, y: NDArray[Any]) -> None:
        X = dataset.inputs
        by_length = leverage_weights(X, LEVERAGE)
        # Wrong features tell which targets are wrong with them.
        counted = np.ones(len(y), dtype=bool) if by_length is None else by_length == 1.0
        self.told_ = far_targets(X, y.reshape(len(y), -1).astype(np.float64), counted, self.seed_).group

    def split(self, dataset: Any, y: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
        if not self.told_.any():
            return super().split(dataset, y, settings)
        _check_counts(len(y), self.fraction, 2, "samples")
        splitter = ValidSplit(StratifiedShuffleSplit(**settings), stratified=True)
        return cast(tuple[Any, Any], splitter(dataset, self.told_))

    def keep(self, dataset: Any, y: NDArray[Any], held_out: NDArray[np.intp]) -> None:
        super().keep(dataset, y, held_out)
        self.told_ = self.told_[held_out]

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        predicted, y = net.predict(valid), self.y_
        if predicted.size != y.size:
            raise ValueError(
                f"module must give a number for each target for early_stopping=True to score it; found predictions of "
                f"shape {predicted.shape} for targets of shape {y.shape}."
            )
        residuals = np.abs(predicted.astype(np.float64) - y.reshape(predicted.shape)).reshape(len(y), -1)
        residuals, weight = np.nan_to_num(residuals, nan=np.inf), self.weight_
        of_all = quantiles(residuals, weight, limits.HELD_OUT_QUANTILES)
        if not self.told_.any():
            return of_all
        told = None if weight is None else weight[self.told_]
        return np.concatenate([of_all, quantiles(residuals[self.told_], told, limits.HELD_OUT_QUANTILES)])

    def _divided(self, summaries: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Residuals (..., m, n_outputs) of all, and of those that are told."""
        most = limits.HELD_OUT_QUANTILES
        n = min(len(self.y_), most) if self.weight_ is None else most
        return summaries[..., :n, :], summaries[..., n:, :]

    def is_yet_to_learn(self, summaries: NDArray[np.float64]) -> bool:
        told = self._divided(summaries)[1]
        if not told.size:
            return False
        # Targets are less their median, in robust standard deviations.
        sizes = np.median(np.abs(self.y_[self.told_]).reshape(-1, told.shape[2]), axis=0)
        missed = np.median(told, axis=1).min(axis=0) > 0.5 * sizes
        return bool(np.any(missed & (sizes > limits.MISSED_TARGET)))

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        every, told = self._divided(summaries)
        # Of a group without gross errors what is within three times its median differs, too.
        of_told = residual_scores(told, smallest_medians(told)) if told.size else np.full(len(told), np.nan)
        return np.stack([residual_scores(every), residual_scores(every, limits.MISSED_TARGET), of_told], axis=1)


class EndOfTraining(Callback):
    """End a training whose criterion is met; it comes after the other callbacks, which all see the last epoch."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        criterion = stopping_of(net)
        if criterion is not None and criterion.is_over:
            if net.verbose:
                print(f"Nothing has improved for {criterion.patience} epochs: the training is over.")
            raise TrainingEnded


def mean_loss(epoch: Any, part: str = "train") -> float:
    """Mean loss of a part of the data in an epoch of a skorch net's history, of its batches where no callback has it.

    NaN where there is neither.
    """
    if f"{part}_loss" in epoch:
        return float(epoch[f"{part}_loss"])
    batches = [batch for batch in epoch["batches"] if f"{part}_loss" in batch]
    sizes = [batch[f"{part}_batch_size"] for batch in batches]
    return float(np.average([batch[f"{part}_loss"] for batch in batches], weights=sizes)) if batches else float("nan")


def steps_of(epoch: Any) -> int:
    """Number of steps in an epoch of a skorch net's history."""
    return sum("train_batch_size" in batch for batch in epoch["batches"])


def add_stopping(net: NeuralNet, criterion: StoppingCriterion) -> None:
    """Let trainings of a net, which is yet to be initialized, end by a criterion."""
    is_disabled = isinstance(net.callbacks, str)
    for name, _ in net.get_default_callbacks() if is_disabled else ():
        setattr(net, f"callbacks__{name}", None)
    others = [] if is_disabled else list(net.callbacks or [])
    # Where there are none, skorch can't set them as parameters.
    net.callbacks = [("stopping_criterion", criterion), *others, ("end_of_training", EndOfTraining())]
    if isinstance(criterion, HeldOutStopping):
        net.train_split = criterion.hold_out


def stopping_of(net: NeuralNet) -> StoppingCriterion | None:
    """The criterion by which trainings of an initialized net end; None where there is none."""
    return next((callback for _, callback in net.callbacks_ if isinstance(callback, StoppingCriterion)), None)


def check_monitors(net: NeuralNet) -> None:
    """Refuse callbacks of an initialized net that watch held-out data, where there are none.

    Raises
    ------
    ValueError
        A callback of skorch's monitors a loss or score that nothing records.
    """
    if net.train_split:
        return
    given = [callback for name, callback in net.callbacks_ if name not in dict(net.get_default_callbacks())]
    watching = [callback for callback in given if isinstance(_monitor(callback), str)]
    others = [callback for callback in given if callback not in watching]
    if not all(type(callback).__module__.startswith(("skorch.", __name__)) for callback in others):
        # One of a user's own may record it.
        return
    scoring = [callback for callback in others if getattr(callback, "on_train", False)]
    recorded = {getattr(callback, "name_", callback.name) for callback in scoring}
    for callback in watching:
        name = _monitor(callback)
        if name.startswith("valid_") and name.removesuffix("_best") not in recorded:
            raise ValueError(
                f"train_split must hold out data, such as skorch.dataset.ValidSplit(5), for "
                f"{type(callback).__name__} to monitor {name!r}; found None. Give one, or early_stopping=True instead "
                f"of the callback."
            )


def _monitor(callback: Any) -> Any:
    return getattr(callback, "monitor", None)


def _parts(net: NeuralNet) -> list[tuple[str, torch.nn.Module]]:
    """Modules and losses that learn, by their names."""
    names = [*net._modules, *net._criteria]
    parts = [(name, getattr(net, f"{name}_")) for name in names]
    return [(name, part) for name, part in parts if isinstance(part, torch.nn.Module)]


def _check_counts(n: int, fraction: float, at_least: int, what: str, *, of: str = "") -> None:
    """Check that of n samples, or clients, enough are held out and enough are left."""
    n_valid = math.ceil(fraction * n)
    if min(n_valid, n - n_valid) < at_least:
        raise ValueError(
            f"early_stopping=True must hold out {at_least} {what} or more{of and ' ' + of}, and leave as many to train "
            f"on; found n_{what}={n}, of which validation_fraction={fraction} holds out {n_valid}. Give another "
            f"fraction, or early_stopping=False."
        )
