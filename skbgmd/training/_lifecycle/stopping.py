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
from skbgmd.training._lifecycle.interrupts import TrainingEnded
from skbgmd.training._losses import wrong_probabilities
from skbgmd.training._ranks import current_ranks

#: Names in the history of an epoch's score, and of whether it is the best so far.
SCORE, IS_BEST = "validation_score", "validation_score_best"


class StoppingCriterion(Callback):
    """Count the epochs since a score last improved; it comes before callbacks that save what is counted.

    Parameters
    ----------
    tol : float, default=1e-4
        A score that is better than the best by less has not improved.
    n_iter_no_change : int, default=10
        Epochs without an improvement after which a training is over.

    Attributes
    ----------
    misses_ : int
        Epochs since the last improvement.
    """

    def __init__(self, tol: float = 1e-4, n_iter_no_change: int = 10) -> None:
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.misses_ = 0

    @property
    def is_over(self) -> bool:
        """True if the training is to end."""
        return self.misses_ >= self.n_iter_no_change

    def count(self, score: float, best: float) -> None:
        """Count an epoch whose score is to be compared with the best one before."""
        # So that a score which isn't a number is no improvement.
        self.misses_ = 0 if score >= best + self.tol else self.misses_ + 1


class LossStopping(StoppingCriterion):
    """End by the mean training loss of the epochs."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_train_begin(net, **kwargs)
        self.best_score_ = -np.inf

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        score = -float(current_ranks().median([mean_loss(net.history[-1])], "training loss")[0])
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

    def __init__(self, tol: float = 1e-4, n_iter_no_change: int = 10, fraction: float = 0.1, seed: int = 0) -> None:
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
        clients, weight = getattr(dataset, "clients", None), getattr(dataset, "sample_weight", None)
        if clients is not None:
            _check_counts(len(np.unique(clients)), self.fraction, 1, "clients")
            train, valid = ValidSplit(GroupShuffleSplit(**settings))(dataset, y, groups=clients)
        else:
            train, valid = self.split(dataset, y, settings)
        self.check_split(y, train.indices)
        self.y_ = y[valid.indices]
        self.weight_ = None if weight is None else weight[valid.indices]
        return train, valid

    def split(self, dataset: Any, y: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Split a dataset without clients; ``settings`` are those of a splitter of scikit-learn."""
        _check_counts(len(y), self.fraction, 2, "samples")
        return cast(tuple[Any, Any], ValidSplit(ShuffleSplit(**settings))(dataset, y))

    def check_split(self, y: NDArray[Any], train: NDArray[np.intp]) -> None:
        """Raise an error where targets y[train] aren't enough to train on."""

    # ---- scores -----------------------------------------------------------------------------------------------------

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        """Numbers that an epoch's score is computed from, (m, n_outputs)."""
        raise NotImplementedError

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (epochs,) of summaries (epochs, m, n_outputs)."""
        raise NotImplementedError

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_train_begin(net, **kwargs)
        # A copy of a net may still split by the one that this is a copy of.
        net.train_split = self.hold_out
        self.summaries_, self.best_epoch_, self.best_model_weights_ = torch.zeros(0, 0, 0), 0, None

    def on_epoch_end(self, net: Any, dataset_valid: Any = None, **kwargs: Any) -> None:
        summary = torch.from_numpy(self.summary(net, dataset_valid))[None]
        self.summaries_ = torch.cat([self.summaries_.to(summary), summary]) if len(self.summaries_) else summary
        scores = current_ranks().median(self.scores(self.summaries_.numpy()), SCORE)
        last = len(scores) - 1
        best = scores[self.best_epoch_] if last > 0 else -np.inf
        self.count(scores[last], best)
        is_best = bool(scores[last] > best) or last == 0
        if is_best:
            self.best_epoch_ = last
            self.best_model_weights_ = {name: copy.deepcopy(part.state_dict()) for name, part in _parts(net)}
        # Earlier ones may have changed.
        for row, score in zip(net.history[::-1], scores[::-1], strict=False):
            row[SCORE] = float(score)
        net.history.record(IS_BEST, is_best)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        if self.best_model_weights_ is not None:
            for name, part in _parts(net):
                part.load_state_dict(self.best_model_weights_[name])
        self.best_model_weights_ = None
        for name in ("y_", "weight_", "summaries_"):
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
        n_iter_no_change: int = 10,
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
        return np.nan_to_num(summaries[:, 0, 0], nan=-np.inf, neginf=-np.inf)


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
        return np.nan_to_num(summaries[:, 0, 0], nan=-np.inf, neginf=-np.inf)


class ResidualStopping(HeldOutStopping):
    """End by a robust score of the residuals of held-out samples, see :func:`residual_scores`."""

    def summary(self, net: Any, valid: Any) -> NDArray[np.float64]:
        predicted, y = net.predict(valid), self.y_
        if predicted.size != y.size:
            raise ValueError(
                f"module must give a number for each target for early_stopping=True to score it; found predictions of "
                f"shape {predicted.shape} for targets of shape {y.shape}."
            )
        residuals = np.abs(predicted.astype(np.float64) - y.reshape(predicted.shape)).reshape(len(y), -1)
        return quantiles(np.nan_to_num(residuals, nan=np.inf), self.weight_, limits.HELD_OUT_QUANTILES)

    def scores(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        return residual_scores(summaries)


class EndOfTraining(Callback):
    """End a training whose criterion is met; it comes after the other callbacks, which all see the last epoch."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        criterion = stopping_of(net)
        if criterion is not None and criterion.is_over:
            if net.verbose:
                print(f"Nothing has improved for {criterion.n_iter_no_change} epochs: the training is over.")
            raise TrainingEnded


def bounded_likelihood(
    probabilities: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[np.float64] | None = None
) -> float:
    r"""Score probabilities of classes by labels, wrong ones among which count for little.

    That is the mean of :math:`\log(p + 1 / 10K)`, where :math:`p` is the probability of a sample's label, one of
    :math:`K`. It tells more of a few samples than their accuracy does, which is the score of numbers that aren't
    probabilities.

    Parameters
    ----------
    probabilities : ndarray of shape (n, n_classes)
    codes : ndarray of shape (n,)
        Places of the labels.
    weight : ndarray of shape (n,), default=None
        Weights of the samples.
    """
    if wrong_probabilities(probabilities).any():
        points = (probabilities.argmax(axis=1) == codes).astype(np.float64)
    else:
        of_label = probabilities[np.arange(len(codes)), codes].astype(np.float64)
        points = np.log(of_label + limits.LEAST_LIKELIHOOD / probabilities.shape[1])
    return float(np.average(points, weights=weight))


def residual_scores(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Score epochs by the sizes of their residuals, gross errors among which count for little.

    That is minus the mean of :math:`\log(1 + (r / 3s)^2)`, where :math:`s` is the smallest median of an epoch; of
    several outputs each has its own, and the mean is over all.

    Parameters
    ----------
    residuals : ndarray of shape (epochs, m, n_outputs)
        Absolute residuals.

    Returns
    -------
    scores : ndarray of shape (epochs,)
    """
    scale = np.maximum(np.median(residuals, axis=1).min(axis=0), limits.LEAST_RESIDUAL)
    with np.errstate(invalid="ignore"):
        # Nothing overflows in it.
        scores: NDArray[np.float64] = -2.0 * np.log(np.hypot(1.0, residuals / (3.0 * scale))).mean(axis=(1, 2))
    return np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)


def quantiles(values: NDArray[np.float64], weight: NDArray[np.float64] | None, m: int) -> NDArray[np.float64]:
    """At most m numbers, sorted, with the distribution of values (n, k) of some weights (n,): (m, k)."""
    n = len(values)
    if weight is None and n <= m:
        return np.sort(values, axis=0)
    order = np.argsort(values, axis=0)
    totals = np.cumsum((np.ones(n) if weight is None else weight)[order], axis=0)
    at = (np.arange(m) + 0.5) / m
    columns = [
        column[of][np.searchsorted(total / total[-1], at)]
        for column, of, total in zip(values.T, order.T, totals.T, strict=True)
    ]
    return np.stack(columns, axis=1)


def mean_loss(epoch: Any, part: str = "train") -> float:
    """Mean loss of a part of the data in an epoch of a skorch net's history, of its batches where no callback has it.

    NaN where there is neither.
    """
    if f"{part}_loss" in epoch:
        return float(epoch[f"{part}_loss"])
    batches = [batch for batch in epoch["batches"] if f"{part}_loss" in batch]
    sizes = [batch[f"{part}_batch_size"] for batch in batches]
    return float(np.average([batch[f"{part}_loss"] for batch in batches], weights=sizes)) if batches else float("nan")


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
