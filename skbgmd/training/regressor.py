"""Robust regressor: a network trained by block coordinate geometric median descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from skorch import NeuralNet

from skbgmd._utils import limits
from skbgmd._utils.checks import as_targets, check_targets
from skbgmd._utils.columns import naming_columns
from skbgmd._utils.random import random_source
from skbgmd.rows.gram import lower_weighted_median
from skbgmd.training._data.far_targets import far_targets
from skbgmd.training._data.inputs import is_sparse, mapped, unpacked
from skbgmd.training._data.leverage import have_lengths
from skbgmd.training._data.samples import Samples, check_of_samples, unique_or_none, weights_of_score
from skbgmd.training._data.scaling import location_and_scale, smooth_l1_of_zero
from skbgmd.training._estimator.base_estimator import BlockGMDBase, in_training, shape_of_samples
from skbgmd.training._estimator.changes import warn_of_changes
from skbgmd.training._estimator.parameters import PARAMETERS
from skbgmd.training._lifecycle.stopping import HeldOutStopping, ResidualStopping
from skbgmd.training._losses import traits_of
from skbgmd.training._ranks import Ranks, current_ranks
from skbgmd.training._strength.evidence import (
    STRENGTHS_OF_NUMBERS,
    Utilities,
    described,
    error_scores,
    errors_ahead,
    look_gross,
)
from skbgmd.training.nets import RobustNeuralNetRegressor

#: Scaled units from which on the default loss counts errors linearly.
LINEAR_FROM = 2.0


class BlockGMDRegressor(RegressorMixin, BlockGMDBase):  # noqa: D101
    __doc__ = f"""Neural network regressor that withstands gross targets, wrong features, gradients and clients.

    It is trained as :class:`BlockGMDClassifier` is, by block coordinate geometric median descent (BGMD) and its
    relatives; y may have several columns. The regressor scales targets by their median and their median absolute
    deviation, and scales predictions back.
{
        PARAMETERS.format(
            huber="None",
            rule="``GeometricMedian(rejection=10.0, ties='huber', tol=0.0001)``",
            criterion='''None: ``SmoothL1Loss`` of the scaled targets with ``criterion__beta=2.0``: errors are squared
        up to two robust standard deviations, and count linearly beyond.''',
            class_weight="",
            strengths='{"mild", "firm"}',
            unchosen=''' Shorter fits and ``partial_fit`` are "firm" where targets look gross, with the default
          criterion.''',
            settings=described(STRENGTHS_OF_NUMBERS),
            score='''minus the mean of log(1 + (r / 3s)²), where r are the residuals and s, by which all epochs are
          compared, is the smallest median of their sizes in an epoch so far. A second score has the robust standard
          deviation of the targets as s, and a third is of those far targets alone that inputs tell. Training goes on
          as long as one of them improves, and the best epoch has the largest sum''',
            classes="",
        )
    }
    See Also
    --------
    BlockGMDClassifier : The same for classification.
    RobustNeuralNetRegressor : The skorch net underneath.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skbgmd import BlockGMDRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = BlockGMDRegressor(max_epochs=30, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.4)
    True
    """

    _center: NDArray[np.float64]
    _scale: NDArray[np.float64]
    # None: center and scale stay as they are.
    _provisional: _Provisional | None = None
    _one_column: bool
    _net_class = RobustNeuralNetRegressor
    _default_criterion = torch.nn.SmoothL1Loss
    _strengths = STRENGTHS_OF_NUMBERS
    _as_well = limits.AS_WELL_NUMBERS

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
        clients: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features); with a module also other inputs
            Training data. Sparse matrices become dense a batch at a time. Your own module may also take

            - samples of any shape, (n_samples, ...);
            - a dict of arrays, by the names of the arguments of ``forward``;
            - a list of arrays, which it gets as a list;
            - a map-style Dataset of pairs (X, y);
            - with a ``collate_fn``, a list of samples of different lengths.

            See :ref:`inputs`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets. None: those of the Dataset X, whose items are each read once for them.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, of the groups in the geometric median and of the samples within a group.
        groups : array-like of shape (n_samples,), default=None
            Another name of ``clients``, if given to ``fit`` itself. In searches and cross-validation ``groups`` belong
            to the splitter, and metadata routing doesn't pass them on.
        sample_id : array-like of shape (n_samples,), default=None
            Ids by which samples are remembered from call to call, where ``trust_power`` is in use. None: samples are
            known by their order, in data of as many samples as in the call before.
        clients : array-like of shape (n_samples,), default=None
            Id of the client of each sample. If given, each row of the gradient matrix comes from one client.

        Returns
        -------
        self
        """
        with in_training(self):
            resume = self.warm_start and hasattr(self, "net_")
            return self._fit(X, y, sample_weight, groups, sample_id, clients, resume=resume, epochs=None)

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
        clients: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch, on these samples.

        The first calls set the scale of the targets, as soon as they have 32 samples or more whose targets differ.
        Until then the samples are kept, of earlier calls at most the last 1,024. Whenever their number has doubled, the
        network is trained anew on all of them with the scale of all, as if that had been known from the first.

        Parameters
        ----------
        X, y, sample_weight, groups, sample_id, clients
            As in :meth:`fit`.

        Returns
        -------
        self
        """
        with in_training(self):
            self._refuse_part()
            return self._fit(X, y, sample_weight, groups, sample_id, clients, resume=hasattr(self, "net_"), epochs=1)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        sample_id: Any,
        clients: Any,
        *,
        resume: bool,
        epochs: int | None,
    ) -> Self:
        if resume:
            warn_of_changes(self._params_in_fit or {}, self.get_params(deep=False))
        self._check_loss("numbers")
        _refuse_sparse(y)
        given = y
        X, y = self._validated(X, y, reset=not resume)
        ranks = current_ranks()
        self._check_ranks(X, y, has_clients=not (groups is None and clients is None), resume=resume, epochs=epochs)
        n, of_samples = len(y), check_of_samples(y, sample_weight, groups, sample_id, clients)
        chosen, (X, y, weight, clients, sample_id) = self._share(X, y, *of_samples)
        columns = _columns(y, given)
        if not resume:
            self._choose_leverage(X, y, weight, clients, epochs=epochs)
            self._choose_strength(X, y, weight, clients, epochs=epochs)
        if resume and columns.shape[1] != len(self._center):
            raise ValueError(f"y must have {len(self._center)} columns, as before; found {columns.shape[1]}.")
        part = _Part(X, columns, weight, clients, sample_id, epochs, unique_or_none(of_samples[1]))
        before = self._provisional if resume else _Provisional()
        after = None if before is None else before.after(part, is_whole=epochs is None).agreed(ranks)
        if after is not None and after.is_due:
            net, trained = None, after.parts
            if resume and epochs is not None:
                # The first call's targets may have been few.
                self._choose_strength(None, *after.targets(), clients, epochs=epochs)
            # A rank with wrong targets has no say in what the others call large.
            center, scale = ranks.median(location_and_scale(*after.targets()), "location and scale of the targets")
        else:
            net, trained = self.net_, (part,)
            center, scale = self._center, self._scale
        encode = partial(_scaled, center=center, scale=scale)
        for some in trained:
            samples = self._samples(some.X, encode(some.y), some.weight, some.clients, some.sample_id, some.weight)
            samples = samples.among(n, chosen) if some is part else samples
            samples = replace(samples, every_client=some.every_client)
            net = self._train(net, samples, columns.shape[1], some.epochs, encode)
            if net._is_interrupted_:
                break
        self._center, self._scale, self._one_column = center, scale, np.ndim(y) == 1
        self._provisional = None if after is None or after.is_settled else after.stored()
        return self._keep(net, samples)

    def _unchosen_strength(self) -> str | None:
        # Of another loss it isn't known how large it is, and what a tilt does.
        return "firm" if self.criterion is None and not isinstance(self.module, NeuralNet) else None

    def _without_choice(self, X: Any, y: Any, weight: Any, *, epochs: int | None) -> str | None:
        if self._unchosen_strength() is None:
            return None
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        are_gross = look_gross(columns, np.ones(len(y)) if weight is None else weight)
        # Where nothing looks gross, only tails can be given up.
        if float(current_ranks().median([float(are_gross)], "whether targets look gross")[0]) <= 0.5:
            return next(iter(self._strengths))
        return super()._without_choice(X, y, weight, epochs=epochs)

    def _allows_choice(self) -> bool:
        # Of a loss of the user's own it isn't known what the network predicts by it.
        criterion = self._default_criterion if self.criterion is None else self.criterion
        return traits_of(criterion, overridden=True) is not None and super()._allows_choice()

    def _most_long(self, X: Any, *, can_try: bool) -> float:
        # The default loss bounds what a target can do; others may not, nor that one from far enough on. Limits of rows
        # that are given have none of a strength's beside them.
        of_loss = [name for name in self._routed() if name.startswith("criterion__")]
        is_default = self.criterion is None and not (of_loss or isinstance(self.module, NeuralNet))
        bounds = is_default and self._takes_strength(of_samples=True)
        return 0.0 if bounds and can_try and have_lengths(X) else -1.0

    def _strata(self, y: NDArray[Any]) -> NDArray[np.intp]:
        return np.zeros(len(y), dtype=np.intp)

    def _predicted(self, X: Any) -> tuple[Any, None]:
        return BlockGMDRegressor.predict(self, X), None

    def _utilities(
        self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]
    ) -> Sequence[Utilities]:
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        residuals = {name: numbers.reshape(columns.shape) - columns for name, numbers in predicted.items()}
        return error_scores(residuals, columns)

    def _constant(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[Any]:
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        return np.broadcast_to([lower_weighted_median(column, weight) for column in columns.T], columns.shape)

    def _errors_ahead(self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]) -> float:
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        gentlest = np.asarray(next(iter(predicted.values())), dtype=np.float64)
        return errors_ahead(gentlest.reshape(columns.shape), columns, weight)

    def _objects(
        self, X: Any, y: NDArray[Any], weight: NDArray[np.float64] | None, held_out: Any = None, predicted: Any = None
    ) -> bool:
        columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        by_length = self._by_length(X, y, weight)
        counted = np.ones(len(y), dtype=bool) if weight is None else weight > 0.0
        # Wrong features tell which targets are wrong with them.
        counted &= True if by_length is None else by_length == 1.0
        found = far_targets(X, columns, counted, int(random_source(self.random_state).randint(0, 2**31 - 1)))
        if predicted is None:
            objects = found.share_told > limits.TOLD_BY_INPUTS
        else:
            residuals = np.asarray(predicted, dtype=np.float64).reshape(-1, columns.shape[1]) - columns[held_out]
            objects = found.are_given_up(held_out, residuals)
        return float(current_ranks().median([float(objects)], "far targets that inputs tell")[0]) > 0.5

    def _held_out_stopping(self, **settings: Any) -> HeldOutStopping:
        return ResidualStopping(**settings)

    def _constant_loss(self, samples: Samples) -> float:
        return smooth_l1_of_zero(samples.y, samples.weight, float(self._routed().get("criterion__beta", LINEAR_FROM)))

    def _own_settings(self) -> dict[str, Any]:
        return {"criterion__beta": LINEAR_FROM} if self.criterion is None else {}

    def _suited(self, net: NeuralNet, samples: Samples) -> Samples:
        found, n = net.predict(self._some(samples)).shape[1:], samples.y.shape[1]
        if found == () and n == 1:
            return replace(samples, y=samples.y[:, 0])
        # A loss of the user's own may compare other numbers with the targets than one for each.
        if traits_of(net._criterion(), overridden=True) is not None and found != (n,):
            raise ValueError(
                f"module must give an output for each target, shape (n_samples, {n}); found shape "
                f"{shape_of_samples(found)}."
            )
        return samples

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted targets, of the shape and scale of y in :meth:`fit`.

        Parameters
        ----------
        X : array-like, sparse matrix, or what else :meth:`fit` takes

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        scaled = self._forward(X, "predict")
        targets: NDArray[Any] = self._center + self._scale * scaled.reshape(len(scaled), -1)
        return targets[:, 0] if self._one_column else targets

    def _scaling(self) -> dict[str, Any]:
        return {"center": self._center, "scale": self._scale, "one_column": self._one_column}

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination R² of :meth:`predict`, the mean over the targets.

        Parameters
        ----------
        X : array-like, sparse matrix, or what else :meth:`fit` takes
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True targets; None: those of the Dataset that is X.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score.

        Returns
        -------
        score : float
        """
        X, y = unpacked(X, y, reads_targets=True)
        check_targets(y)
        _refuse_sparse(y)
        return float(super().score(X, as_targets(y, "y"), weights_of_score(sample_weight)))


def _refuse_sparse(y: Any) -> None:
    """Refuse sparse targets, of which most would be zero."""
    # Nested tensors have a layout of their own, and are refused wherever arrays are asked for.
    if is_sparse(y) or (isinstance(y, torch.Tensor) and y.layout != torch.strided and not y.is_nested):
        raise TypeError(
            f"y must be dense for a regressor; found a sparse {type(y).__name__}. Give y.toarray(), or y.to_dense() of "
            f"a tensor."
        )


def _columns(y: Any, given: Any) -> NDArray[np.float64]:
    """Targets (n, k) in float64; numbers of other kinds may be beyond it. What was given has names of columns."""
    found = ""
    try:
        with np.errstate(over="ignore"), naming_columns(y if given is None else given, "y"):
            columns = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        beyond = ~np.isfinite(columns)
        if not beyond.any():
            return columns
        found = f"; found {np.asarray(y).reshape(columns.shape)[beyond][0]!s}"
    except OverflowError:
        # Of Python's integers.
        pass
    raise ValueError(f"y must be finite in float64, which targets are scaled in{found}.")


class _Part(NamedTuple):
    """Data of one call of a regressor, checked, with targets (n, k) and epochs to train; None: all of a fit."""

    X: Any
    y: NDArray[np.float64]
    weight: NDArray[np.float64] | None
    clients: Any
    sample_id: Any
    epochs: int | None
    every_client: Any = None

    def shares(self) -> NDArray[np.float64]:
        """Weights of the samples, one where they have none."""
        return np.ones(len(self.y)) if self.weight is None else self.weight

    def copied(self, start: int) -> _Part:
        """A copy, from a sample on."""
        of_samples = (self.weight, self.clients, self.sample_id)
        weight, clients, ids = (None if values is None else np.array(values)[start:] for values in of_samples)
        X = mapped(self.X, lambda part: part[start:].copy())
        return _Part(X, self.y[start:].copy(), weight, clients, ids, self.epochs, self.every_client)


class _Provisional(NamedTuple):
    """Data of a regressor so far, while they are too few to scale targets by.

    Attributes
    ----------
    parts : tuple of _Part
        The last of it.
    seen, used : int
        Samples so far, and those that the scale is of.
    is_spread : ndarray of shape (k,), bool
        Which targets differ.
    is_due, is_settled : bool
        Whether the scale is to be estimated now, and whether it is to stay.
    """

    parts: tuple[_Part, ...] = ()
    seen: int = 0
    used: int = 0
    is_spread: NDArray[np.bool_] = np.zeros(1, dtype=bool)
    is_due: bool = True
    is_settled: bool = False

    def after(self, part: _Part, *, is_whole: bool) -> _Provisional:
        """Add a part; ``is_whole`` where more isn't to be expected."""
        kept, n = [part], 0
        for earlier in reversed(self.parts):
            n += len(earlier.y)
            if n > limits.TARGETS_KEPT:
                break
            kept.insert(0, earlier)
        parts = tuple(kept)
        seen = self.seen + int((part.shares() > 0.0).sum())
        y, weight = _Provisional(parts).targets()
        is_spread = self.is_spread | (np.ptp(y[weight > 0.0], axis=0) > 0.0)
        # Of several targets one may be the same for good.
        enough = 1 if is_whole else limits.TARGETS_SETTLED if is_spread.all() else 8 * limits.TARGETS_SETTLED
        is_settled = bool(is_spread.any()) and seen >= enough
        is_new = bool((is_spread & ~self.is_spread).any())
        is_due = is_settled or is_new or seen >= 2 * self.used
        return _Provisional(parts, seen, seen if is_due else self.used, is_spread, is_due, is_settled)

    def agreed(self, ranks: Ranks) -> _Provisional:
        """The same with what all ranks do next, and as many parts as all have."""
        if ranks.size == 1:
            return self
        due, settled, n = zip(
            *ranks.gather([self.is_due, self.is_settled, len(self.parts)], "targets so far"), strict=True
        )
        used = self.seen if any(due) else self.used
        return self._replace(parts=self.parts[-min(n) :], used=used, is_due=any(due), is_settled=all(settled))

    def stored(self) -> _Provisional:
        """The same with copies, as arrays are the caller's to change; of a single part as much as is kept."""
        return self._replace(parts=tuple(part.copied(-limits.TARGETS_KEPT) for part in self.parts))

    def targets(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Targets (n, k) of the parts, and their weights (n,)."""
        return np.concatenate([part.y for part in self.parts]), np.concatenate([part.shares() for part in self.parts])


def _scaled(y: NDArray[Any], center: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (np.asarray(y, dtype=np.float64).reshape(len(y), -1) - center) / scale
    return scaled
