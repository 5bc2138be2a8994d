"""Base of the robust estimators: checks of data, and the training of a skorch net."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet
from skorch.dataset import Dataset
from torch.utils.data import DataLoader

from skbgmd._utils import limits
from skbgmd._utils.checks import (
    as_numpy,
    as_targets,
    check_targets,
    check_tensor,
    refuse_masks_and_dates,
)
from skbgmd._utils.columns import naming_columns, numbers_of
from skbgmd._utils.random import generator_states, random_source, seeded, set_generator_states
from skbgmd.training._data.encoding import EncodedSplit, Encoder, encoded_trusted
from skbgmd.training._data.inputs import (
    Items,
    as_inputs,
    checksums,
    column_names,
    described,
    is_structured,
    n_samples,
    noted_if_sparse,
    refuse_other_columns,
    shapes,
    structure,
    take,
    unpacked,
)
from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._data.samples import Samples, cast, drop_and_merge, in_dtype_of, network_of, predicted_at_once
from skbgmd.training._data.scaling import scale_ratio, scaling_advice, stalls
from skbgmd.training._estimator.export import predictor_of
from skbgmd.training._estimator.loss_of_task import Task, check_loss_of_task, check_net_of_task
from skbgmd.training._estimator.parameters import RobustParameters
from skbgmd.training._estimator.wrapping import copied, deep_copies, wrapped
from skbgmd.training._lifecycle.interrupts import Interruptible, TrainingInterrupted
from skbgmd.training._lifecycle.resume import is_whole
from skbgmd.training._lifecycle.stopping import (
    IS_BEST,
    SCORE,
    HeldOutStopping,
    LossStopping,
    add_stopping,
    check_monitors,
    mean_loss,
    stopping_of,
)
from skbgmd.training._losses import traits_of
from skbgmd.training._ranks import current_ranks, together, with_group_of
from skbgmd.training._step.trust import SampleRecord
from skbgmd.training.networks import MLP


class BlockGMDBase(RobustParameters, Interruptible):
    """Base of the robust classifier and regressor."""

    _net_class: Any
    _default_criterion: Any
    # In searches and cross-validation groups are the splitter's; clients and the rest are routed where requested.
    __metadata_request__fit: ClassVar = {"groups": UNUSED}
    __metadata_request__partial_fit: ClassVar = {"groups": UNUSED}
    # What X was in fit: the names of its inputs, or their number.
    _structure: Any = None
    # And the columns of those of them that were data frames.
    _columns_in_fit: dict[Any, list[str]] | None = None
    # The parameters that the training began with.
    _params_in_fit: dict[str, Any] | None = None
    # What _kind_of_parameters() was in fit: parameters that are set later are of the next one.
    _kind_in_fit: tuple[bool, bool] | None = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self.module is not None
        tags.input_tags.sparse = True
        return tags

    # ---- data -------------------------------------------------------------------------------------------------------

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Data to train on, checked."""
        X, y = unpacked(X, y, reads_targets=True)
        if isinstance(y, torch.Tensor):
            check_tensor(y, "y", accept_sparse=True)
        if y is not None:
            check_targets(y)
        if reset:
            self._kind_in_fit = self._kind_of_parameters()
        # Only then an array may be made of it.
        multi_output, columns, targets = self._takes_columns(y), column_names(X), as_targets(y, "y")
        X = self._inputs(X, None if y is None else n_samples(y), fitted=None if reset else self._structure)
        if not is_structured(X):
            # scikit-learn looks for inf by a sum, which may overflow to both sides.
            with np.errstate(over="ignore", invalid="ignore"), naming_columns(X):
                X, y = validate_data(
                    self, as_numpy(X), targets, multi_output=multi_output, reset=reset, **self._kind_of_data()
                )
                X = numbers_of(X)
        else:
            y = validate_data(self, "no_validation", targets, multi_output=multi_output, reset=reset)
            if n_samples(X) != n_samples(y):
                raise ValueError(f"X and y must have as many samples; found {n_samples(X)} and {n_samples(y)}.")
            if not n_samples(X):
                raise ValueError("X must have at least one sample; found none.")
            if reset:
                self.__dict__.pop("n_features_in_", None)
        if reset:
            self._structure, self._columns_in_fit = structure(X), columns
            self._params_in_fit = self.get_params(deep=False)
        return X, y

    def _takes_columns(self, y: Any) -> bool:
        """True where targets may have several columns."""
        return isinstance(self, RegressorMixin)

    def _inputs(self, X: Any, n: int | None, *, fitted: Any) -> Any:
        """X as the module is to get it; an error where that is another kind of data than in ``fit``."""
        for name, part in [(f"X[{key!r}]", part) for key, part in X.items()] if isinstance(X, Mapping) else [("X", X)]:
            refuse_masks_and_dates(part, name)
        given, (is_perceptron, collates) = X, self._kind()
        X = as_inputs(X, n, fitted=fitted, collates=collates)
        if is_perceptron and is_structured(X):
            raise TypeError(
                f"X must be one array or sparse matrix, of shape (n_samples, n_features), for the perceptron that is "
                f"made without a module; found {described(X)}. Give a module that takes it."
            )
        if fitted is not None:
            refuse_other_columns(column_names(given), self._columns_in_fit or {})
        known = structure(X)
        # What the samples of a dataset are is for the module to say.
        if fitted is not None and known != fitted and not (known is None and isinstance(X, Items)):
            of_fit = f"a dict of {', '.join(fitted)}" if isinstance(fitted, list) else f"a list of {fitted}"
            raise ValueError(f"X must have the inputs that it had in fit, {of_fit}; found {described(X)}.")
        return X

    def _kind(self) -> tuple[bool, bool]:
        """Tell what :meth:`_kind_of_parameters` was in ``fit``, or is now before it."""
        return self._kind_of_parameters() if self._kind_in_fit is None else self._kind_in_fit

    @property
    def _is_perceptron(self) -> bool:
        """True for the perceptron that is made without a module."""
        return self._kind()[0]

    def _kind_of_parameters(self) -> tuple[bool, bool]:
        """Tell of the parameters: True if they ask for the perceptron, and True if samples are collated.

        The former is made without a module. The latter is done by a function or a class of the user's own, which makes
        batches of single samples.
        """
        module = self.module
        if not isinstance(module, NeuralNet):
            return module is None, "iterator_train__collate_fn" in self._routed()
        own = module.dataset is not Dataset or module.iterator_train not in (DataLoader, ArrayLoader)
        return False, own or "collate_fn" in module.get_params_for("iterator_train")

    def _check_loss(self, task: Task) -> None:
        """Refuse a loss that can't learn what is to be learnt."""
        _, collates = self._kind_of_parameters()
        if isinstance(self.module, NeuralNet):
            check_net_of_task(self.module, task, collates=collates)
        elif self.criterion is not None and not collates:
            check_loss_of_task(self.criterion, task)

    def _share(self, X: Any, y: Any, *of_samples: Any) -> tuple[NDArray[np.intp] | None, tuple[Any, ...]]:
        """Take a rank's share of data that all ranks have; which samples it is, None: all, and their data."""
        ranks = current_ranks()
        if not ranks.splits_data:
            return None, (X, y, *of_samples)
        seed = int(random_source(self.random_state).randint(0, 2**31 - 1))
        names = ("X", "y", "sample_weight", "clients", "sample_id")
        every = dict(zip(names, (X, y, *of_samples), strict=True))
        chosen = ranks.share(len(y), seed, {name: checksums(values) for name, values in every.items()})
        return chosen, tuple(
            values if values is None or chosen is None else take(values, chosen) for values in (X, y, *of_samples)
        )

    def _check_ranks(self, X: Any, y: Any, *, has_clients: bool, resume: bool, epochs: int | None) -> None:
        """Check that all ranks begin the same training, with the same decisions on the way."""
        call = {
            "features": shapes(X),
            **{f"feature_names_in_[{i}]": str(name) for i, name in enumerate(getattr(self, "feature_names_in_", ()))},
            "targets": list(y.shape[1:]),
            "goes on": resume,
            "epochs": epochs,
            "early_stopping": str(self.early_stopping),
            "strength": str(self.strength),
            # Groups may be of another size on each rank, but not of samples on some.
            "group_size": {None: "None", 1: "1"}.get(self.group_size, "more than 1"),
            "clients": "given" if has_clients else "not given",
        }
        current_ranks().check_same(call, "What is trained")

    def _kind_of_data(self) -> dict[str, Any]:
        if self._is_perceptron:
            return {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}
        return {"dtype": "numeric", "allow_nd": True, "accept_sparse": "csr"}

    # ---- training ---------------------------------------------------------------------------------------------------

    def _train(
        self, net: NeuralNet | None, samples: Samples, n_outputs: int, epochs: int | None, encode: Encoder
    ) -> NeuralNet:
        """Train a net, or a copy of one that is to go on; nothing of the estimator is changed.

        ``encode`` makes of targets those of the samples.
        """
        is_fit = epochs is None
        if net is None:
            seed = current_ranks().seed(int(random_source(self.random_state).randint(0, 2**31 - 1)))
            with seeded(seed, self.device):
                net = self._new_net(samples, n_outputs, seed, encode)
                self._add_stopping(net, seed)
                net = self._run(net, samples, epochs)
            self._warn_without_convergence(net, len(net.history) if is_fit else 0)
            self._warn_of_scales(net, samples, len(net.history) if is_fit else 0)
            return net
        before, net = len(net.history), copied(net)
        net.aggregator = with_group_of(net.aggregator, self.aggregator)
        source = self._source()
        net.set_params(verbose=source.verbose)
        epochs = source.max_epochs if epochs is None else epochs
        seed = np.random.SeedSequence([net.aggregator_.seed, len(net.history)]).generate_state(1)[0]
        with seeded(int(seed), self.device), _callbacks_restored_on_error(net):
            net = self._run(net, samples, epochs)
        self._warn_without_convergence(net, len(net.history) - before if is_fit else 0)
        self._warn_of_scales(net, samples, len(net.history) - before if is_fit else 0)
        return net

    def _add_stopping(self, net: NeuralNet, seed: int) -> None:
        settings: dict[str, Any] = {"tol": self.tol, "n_iter_no_change": self.n_iter_no_change}
        if self.early_stopping == "loss":
            add_stopping(net, LossStopping(**settings))
        elif self.early_stopping:
            add_stopping(net, self._held_out_stopping(fraction=self.validation_fraction, seed=seed, **settings))

    def _held_out_stopping(self, **settings: Any) -> HeldOutStopping:
        """The criterion of the estimator's scores of held-out samples."""
        raise NotImplementedError

    def _warn_without_convergence(self, net: NeuralNet, n_epochs: int) -> None:
        """Warn where so many epochs of a fit were all it may take, and it could have gone on."""
        criterion, most = stopping_of(net), self._source().max_epochs
        if criterion is None or criterion.is_over or net._is_interrupted_ or n_epochs < most:
            return
        if criterion.is_waiting_:
            found = "which don't predict far targets yet that the inputs tell"
        elif most <= criterion.patience:
            found = f"where one ends after {criterion.patience} without an improvement by tol={criterion.tol:g}"
        else:
            found = f"in the last {criterion.patience} of which it has still improved by tol={criterion.tol:g}"
        warnings.warn(
            f"max_epochs must be enough for a training to end by itself; found {most}, {found}. Give more, or "
            f"early_stopping=False.",
            ConvergenceWarning,
            stacklevel=5,
        )

    def _warn_of_scales(self, net: NeuralNet, samples: Samples, n_epochs: int) -> None:
        """Warn of features whose scales differ much, where so many epochs of a fit have hardly learnt anything."""
        losses = [mean_loss(epoch) for epoch in net.history[len(net.history) - n_epochs :] if is_whole(epoch)]
        # Of other modules and losses it isn't known what they make of scales, and what is little.
        if not self._is_perceptron or self.criterion is not None or len(losses) < limits.STALLED_EPOCHS:
            return
        # The losses are there; the scales take a look at all of the data.
        if stalls(losses, constant := self._constant_loss(samples)) and (
            advice := scaling_advice(scale_ratio(samples.X))
        ):
            warnings.warn(
                f"The training has stalled, at a loss of {losses[-1]:.2g} where a constant prediction has "
                f"{constant:.2g}. {advice}",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _constant_loss(self, samples: Samples) -> float:
        """Mean loss, by the default criterion, of a prediction that knows nothing of X."""
        raise NotImplementedError

    def _run(self, net: NeuralNet, samples: Samples, epochs: int | None) -> NeuralNet:
        if not net.initialized_:
            net.initialize()
        check_monitors(net)
        # A first fit takes max_epochs for all epochs, those of a checkpoint included.
        net._counts_loaded_epochs_ = epochs is None
        if epochs is not None:
            net.set_params(max_epochs=epochs)
        samples = in_dtype_of(network_of(net), samples)
        with noted_if_sparse(samples.X):
            if not self._is_perceptron or getattr(self, "multilabel_", False):
                samples = self._suited(net, samples)
            before = generator_states()
            net._is_estimators_ = True
            try:
                return net.partial_fit(samples.dataset_of(net), samples.y)
            finally:
                net._is_estimators_ = net._counts_loaded_epochs_ = False
                if net._is_resumed_:
                    # Not only torch's were put to where they were when the checkpoint was saved.
                    set_generator_states(before)

    def _suited(self, net: NeuralNet, samples: Samples) -> Samples:
        """Samples whose targets have the shape of what an initialized net predicts; an error where they can't."""
        raise NotImplementedError

    def _some(self, samples: Samples) -> Any:
        """Some of the samples, as many as a step takes: what sees its first data may set itself up by them."""
        n, size = len(samples.y), self._source().batch_size
        # To skorch, -1 is all of them.
        size = min(n, size) if size > 0 else n
        return take(samples.X, np.arange(0, n, n // size)[:size])

    def _new_net(self, samples: Samples, n_outputs: int, seed: int, encode: Encoder) -> NeuralNet:
        of_samples = self.group_size == 1 and samples.clients is None and self.local_steps == 1
        self._warn_of_ignored(of_samples=of_samples, has_clients=samples.clients is not None)
        setting = self._setting(of_samples=of_samples)
        named = partial(validate_data, self, reset=False, skip_check_array=True)
        check_columns = named if hasattr(self, "feature_names_in_") else None
        aggregator = self._checked_aggregator(seed, of_samples=of_samples)
        robust = {
            "aggregator": encoded_trusted(aggregator, encode, samples.X, check_columns),
            "group_size": self.group_size,
            "local_steps": self.local_steps,
            "trust_power": setting.trust_power,
            "tilt": setting.tilt,
            "gradients": self.gradients,
            "gradient_corruption": self.gradient_corruption,
            "random_state": seed,
            "warm_start": self.warm_start,
        }
        split = self._source().train_split
        robust["train_split"] = EncodedSplit(split, encode) if split else None
        if isinstance(self.module, NeuralNet):
            return wrapped(self.module, **robust, **self._settings_of_wrapped())
        module, routed = self.module, self._routed()
        if module is None:
            module = MLP
            dtype = torch.float64 if samples.X.dtype == np.float64 else torch.float32
            perceptron = {
                "n_features": samples.X.shape[1],
                "n_outputs": n_outputs,
                "hidden_layer_sizes": tuple(self.hidden_layer_sizes),
                "dtype": dtype,
            }
            routed = {**{f"module__{name}": value for name, value in perceptron.items()}, **routed}
        elif isinstance(module, torch.nn.Module):
            module = deep_copies({"module": module})["module"]
        settings = {
            # One that is given may learn, and would go on from where the last training left it.
            "criterion": self._default_criterion if self.criterion is None else copy.deepcopy(self.criterion),
            "optimizer": self.optimizer,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "callbacks": self.callbacks,
            "device": self.device,
            "compile": self.compile,
            "verbose": self.verbose,
            "iterator_train__shuffle": self.shuffle,
            "iterator_train__even": True,
            "iterator_train__stratify": self.group_size if isinstance(self, ClassifierMixin) else None,
            "iterator_valid__batch_size": max(self.batch_size, predicted_at_once(samples.X)),
            "iterator_valid__apart": True,
            **self._own_settings(),
        }
        fuses = self._can_fuse(routed)
        if fuses:
            settings["optimizer__fused"] = True
        net: NeuralNet = self._kind_of_net()(module, **{**settings, **robust, **routed})
        net._fuses_where_it_can_ = fuses
        return net

    def _own_settings(self) -> dict[str, Any]:
        """Settings of the net that not all estimators have."""
        return {}

    def _settings_of_wrapped(self) -> dict[str, Any]:
        """Settings of a net that was given which aren't its own."""
        return {}

    def _kind_of_net(self) -> Any:
        return self._net_class

    def _can_fuse(self, routed: dict[str, Any]) -> bool:
        """True if Adam can take its step in one pass over the parameters rather than a dozen."""
        told = {f"optimizer__{name}" for name in ("fused", "foreach", "capturable", "differentiable")} & set(routed)
        known = torch.device(self.device).type in ("cpu", "cuda")
        return known and not told and self.optimizer in (torch.optim.Adam, torch.optim.AdamW)

    def _samples(
        self, X: Any, y: Any, weight: Any, clients: Any, sample_id: Any, of_data: NDArray[np.float64] | None
    ) -> Samples:
        """Samples to train on; their lengths are typical by weights ``of_data``, without those of classes."""
        merge = 0 < len(y) <= self.batch_size and self._may_merge()
        by_length = self._by_length(X, y, of_data)
        if by_length is not None:
            weight = by_length if weight is None else weight * by_length
        return drop_and_merge(X, y, weight, clients, sample_id, merge=merge)

    def _may_merge(self) -> bool:
        """True if nothing can tell equal samples from one of their weight, nor the order of the samples."""
        routed = self._routed()
        sampled = any(name.startswith("iterator_train__") for name in routed)
        criterion = self._default_criterion if self.criterion is None else self.criterion
        reduction = routed.get("criterion__reduction", getattr(criterion, "reduction", "mean"))
        averages = traits_of(criterion) is not None and reduction == "mean"
        watched = self.train_split is not None or bool(self.callbacks) or self._holds_out()
        return self._is_perceptron and not watched and not sampled and averages

    def _keep(self, net: NeuralNet, samples: Samples) -> Self:
        self.net_ = net
        if not all(map(is_whole, net.history)):
            # Nobody can ask a history with part of an epoch for the losses of all.
            net.history[:] = filter(is_whole, net.history)
        self.sample_record_ = SampleRecord(*map(samples.spread, net.sample_record(len(samples.y))))
        self.sample_trust_ = self.sample_record_.trust
        if net._is_interrupted_:
            self._tell_of_interrupt()
        return self

    # What is the net's: a copy of the estimator, or one that is saved and loaded, has one of each.

    @property
    def module_(self) -> Any:
        """The trained network."""
        return network_of(self.net_)

    @property
    def history_(self) -> Any:
        """The history of the trained net."""
        return self.net_.history

    @property
    def loss_curve_(self) -> list[float]:
        """Training loss of each epoch."""
        return [mean_loss(epoch) for epoch in self.net_.history]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score of the held-out samples in each epoch; None without ``early_stopping=True``."""
        return [epoch[SCORE] for epoch in self.net_.history if SCORE in epoch] or None

    @property
    def best_validation_score_(self) -> float | None:
        """Score of the held-out samples in the best epoch of the last fit; None without ``early_stopping=True``."""
        return next((epoch[SCORE] for epoch in self.net_.history[::-1] if epoch.get(IS_BEST)), None)

    @property
    def n_iter_(self) -> int:
        """Epochs trained."""
        return len(self.net_.history)

    def to_module(self) -> torch.nn.Module:
        """Copy the trained network as a module that gives the predictions, to be exported: ONNX, ``torch.export``.

        Returns
        -------
        module : Module
            In evaluation mode, on the network's device. It takes a tensor (n_samples, ...) of the dtype of the
            network's parameters. A classifier's gives what ``predict_proba`` does, (n_samples, n_classes) in the order
            of ``classes_``, or numbers of which the largest is the predicted class where there are no probabilities; a
            regressor's gives what ``predict`` does, of the shape and scale of the targets, in float64.

        Raises
        ------
        NotFittedError
            The estimator isn't fitted.
        ValueError
            The estimator's skorch net predicts in a way of its own.

        Examples
        --------
        >>> import numpy as np, torch
        >>> from skbgmd import BlockGMDRegressor
        >>> X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        >>> model = BlockGMDRegressor(max_epochs=5, random_state=0).fit(X, 100.0 + X[:, 0])
        >>> with torch.no_grad():
        ...     found = model.to_module()(torch.from_numpy(X))
        >>> bool(np.allclose(found, model.predict(X)))
        True
        """
        check_is_fitted(self)
        return predictor_of(self.net_, **self._scaling())

    def _scaling(self) -> dict[str, Any]:
        """The scale of what the network predicts, where it has one."""
        return {}

    def _forward(self, X: Any, method: str) -> NDArray[Any]:
        check_is_fitted(self)
        X = self._inputs(unpacked(X)[0], None, fitted=self._structure)
        if self._structure is None and structure(X) is not None:
            raise ValueError(f"X must be what it was in fit, without several inputs; found {described(X)}.")
        if not is_structured(X):
            with np.errstate(over="ignore", invalid="ignore"), naming_columns(X):
                X = numbers_of(validate_data(self, as_numpy(X), reset=False, **self._kind_of_data()))
        result: NDArray[Any] = getattr(self.net_, method)(cast(X, network_of(self.net_)))
        return result


@contextmanager
def restored_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Give an estimator back the attributes it had, if what is done to it fails."""
    before = dict(vars(estimator))
    try:
        yield
    except TrainingInterrupted:
        # It has what it learnt until then.
        raise
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextmanager
def _callbacks_restored_on_error(net: NeuralNet) -> Iterator[None]:
    """Give a net's callbacks back what they had, if a training fails: its copy shares them."""
    before = [(callback, dict(vars(callback))) for _, callback in net.callbacks_]
    try:
        yield
    except BaseException:
        for callback, attributes in before:
            vars(callback).clear()
            vars(callback).update(attributes)
        raise


@contextmanager
def in_training(estimator: Any) -> Iterator[None]:
    """Train an estimator, together with other ranks where its rule has any; if that fails, it is as it was."""
    with restored_on_error(estimator), together(estimator.aggregator):
        estimator._check_parameters()
        yield


def shape_of_samples(of_sample: Sequence[int]) -> str:
    return f"({', '.join(map(str, ('n_samples', *of_sample)))})"
