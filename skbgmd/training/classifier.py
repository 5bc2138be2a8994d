"""Robust classifier: a network trained by block coordinate geometric median descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier

from skbgmd._utils import limits
from skbgmd._utils.checks import as_labels, as_targets, check_targets, refuse_unknown_objects
from skbgmd._utils.label_dtypes import comparable
from skbgmd.aggregators import Aggregator
from skbgmd.training._data.encoding import Encoder
from skbgmd.training._data.inputs import unpacked
from skbgmd.training._data.samples import Samples, check_of_samples, unique_or_none, weights_of_score
from skbgmd.training._data.scaling import cross_entropy_of_shares
from skbgmd.training._estimator.base_estimator import BlockGMDBase, in_training, shape_of_samples
from skbgmd.training._estimator.changes import warn_of_changes
from skbgmd.training._estimator.class_weight import check_class_weight, weighted_by_class
from skbgmd.training._estimator.multilabel import (
    RobustMultilabelNet,
    balanced_points,
    check_loss_of_labels,
    check_net_of_labels,
    has_columns,
    indicator_matrix,
    probabilities_by,
    signs_matrix,
    wrong_label_probabilities,
)
from skbgmd.training._estimator.parameters import PARAMETERS
from skbgmd.training._estimator.wrapping import robust_class
from skbgmd.training._lifecycle.stopping import HeldOutStopping, LabelStopping, LikelihoodStopping
from skbgmd.training._losses import check_probabilities, targets_of, wrong_probabilities
from skbgmd.training._ranks import current_ranks
from skbgmd.training._strength.defaults import AUTO, HUBER_OF_CLASSES
from skbgmd.training._strength.evidence import STRENGTHS_OF_CLASSES, Utilities, described
from skbgmd.training._strength.held_out_labels import errors_ahead_of_classes
from skbgmd.training.nets import RobustNeuralNetClassifier


class BlockGMDClassifier(ClassifierMixin, BlockGMDBase):  # noqa: D101
    __doc__ = f"""Neural network classifier that withstands wrong labels, features, gradients and clients.

    It is trained by block coordinate geometric median descent (BGMD) [1]_ and its relatives. Each step splits its batch
    into groups, takes their gradients as the rows of a matrix, and follows a robust mean of these rows. Samples,
    clients or machines that send wrong gradients lose their say as long as most groups are sound.

    By default each row is the gradient of a single sample, and held-out samples choose how strongly to distrust the
    others. The strengths "mild" and "firm" judge rows by all columns; "strict" judges them by a block of a tenth of the
    columns, with remembered trust. With ``beta`` below 1 rows are judged by a block in any case.
    ``aggregator="bgmd_paper"`` is the paper's algorithm to the letter.
{
        PARAMETERS.format(
            huber="16.0",
            rule="``HuberMean(c=16.0, rejection=10.0, remember=True, tol=0.0001)``",
            criterion='''None: cross-entropy of logits; for an indicator matrix, ``BCEWithLogitsLoss`` of each label.
        ``NLLLoss`` takes probabilities, as in skorch.''',
            class_weight='''class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn; "balanced" counts samples by their ``sample_weight``.
    predict_nonlinearity : callable, "auto" or None, default="auto"
        Makes probabilities of what the module returns, a tensor, as in skorch. "auto" knows what to do for the losses
        of skorch and torch. With a loss of your own, ``predict_proba`` needs this, or a module that returns
        probabilities.
    ''',
            strengths='{"mild", "firm", "strict"}',
            unchosen=' Shorter fits, ``partial_fit`` and trainings that end by themselves are "mild".',
            settings=described(STRENGTHS_OF_CLASSES),
            score='''the mean of log(p + 1 / 10K), where p is the probability of a sample's label among K; or the
          accuracy, where the network doesn't return probabilities. Of several labels it is the mean over them''',
            classes='''classes_ : ndarray of shape (n_classes,)
        The labels, sorted; for an indicator matrix the numbers of its columns, from 0 on.
    multilabel_ : bool
        True if y was an indicator matrix.
    ''',
        )
    }
    See Also
    --------
    BlockGMDRegressor : The same for regression.
    RobustNeuralNetClassifier : The skorch net underneath.

    References
    ----------
    .. [1] Robust Training in High Dimensions via Block Coordinate Geometric Median Descent (2021).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skbgmd import BlockGMDClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=30, random_state=0)).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """

    classes_: NDArray[Any]
    multilabel_: bool
    # Whether y came as a sparse matrix, which predictions then are as well.
    _has_sparse_labels = False
    _net_class = RobustNeuralNetClassifier
    _strengths = STRENGTHS_OF_CLASSES
    _as_well = limits.AS_WELL_CLASSES
    _proof = limits.CLEAR_GAIN_OF_WRONG
    # Few wrong labels are learnt by then: a choice gained 0.8 points in the mean of five kinds of dirt, for
    # twice the time of a training.
    _chooses_if_stopped = False
    _default_huber = HUBER_OF_CLASSES

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
        class_weight: Any = None,
        predict_nonlinearity: Any = "auto",
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
        super().__init__(
            module,
            hidden_layer_sizes=hidden_layer_sizes,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            group_size=group_size,
            beta=beta,
            selection=selection,
            block=block,
            memory=memory,
            huber=huber,
            rejection=rejection,
            leverage=leverage,
            pre_aggregation=pre_aggregation,
            trust_power=trust_power,
            tilt=tilt,
            strength=strength,
            aggregator=aggregator,
            local_steps=local_steps,
            gradients=gradients,
            gradient_corruption=gradient_corruption,
            train_split=train_split,
            callbacks=callbacks,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            shuffle=shuffle,
            device=device,
            compile=compile,
            random_state=random_state,
            verbose=verbose,
            **module__kwargs,
        )
        self.class_weight = class_weight
        self.predict_nonlinearity = predict_nonlinearity

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def _default_criterion(self) -> Any:
        return torch.nn.BCEWithLogitsLoss if self._has_several_labels() else torch.nn.CrossEntropyLoss

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
        y : array-like of shape (n_samples,), or array-like or sparse matrix (n_samples, n_labels), default=None
            Labels of any type; or an indicator matrix of 0 and 1, where a sample may have several labels. None: the
            labels of the Dataset X, whose items are each read once for them.
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
            X, y = self._validated(X, y, reset=not resume)
            y = self._checked_labels(y, resume)
            self._check_ranks(X, y, has_clients=not (groups is None and clients is None), resume=resume, epochs=None)
            classes = current_ranks().union(np.arange(y.shape[1]) if self.multilabel_ else np.unique(y))
            if resume and not np.array_equal(*comparable(classes, self.classes_)):
                raise ValueError(f"y must have the classes of the last fit to go on from it; found {classes}.")
            return self._fit(X, y, sample_weight, groups, sample_id, clients, classes, resume=resume, epochs=None)

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
        clients: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch, on these samples.

        Parameters
        ----------
        X, y, sample_weight, groups, sample_id, clients
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels there are; needed in the first call. For an indicator matrix they are the numbers of its columns,
            from 0 on, and needn't be given.

        Returns
        -------
        self
        """
        with in_training(self):
            self._refuse_part()
            check_class_weight(self.class_weight)
            if isinstance(self.class_weight, str) and self.class_weight == "balanced":
                raise ValueError('class_weight="balanced" needs all the data; give the weights as a dict.')
            resume = hasattr(self, "net_")
            X, y = self._validated(X, y, reset=not resume)
            y = self._checked_labels(y, resume)
            self._check_ranks(X, y, has_clients=not (groups is None and clients is None), resume=resume, epochs=1)
            if self.multilabel_ and classes is None:
                classes = np.arange(y.shape[1])
            known = current_ranks().union(self._known_classes(classes, resume))
            if self.multilabel_ and not np.array_equal(known, np.arange(y.shape[1])):
                raise ValueError(
                    f"classes must be the numbers of the columns of y, 0 to {y.shape[1] - 1}, where that is an "
                    f"indicator matrix; found {classes!r}."
                )
            return self._fit(X, y, sample_weight, groups, sample_id, clients, known, resume=resume, epochs=1)

    def _takes_columns(self, y: Any) -> bool:
        return has_columns(y)

    def _has_several_labels(self) -> bool:
        return getattr(self, "multilabel_", False)

    def _checked_labels(self, y: Any, resume: bool) -> NDArray[Any]:
        """Labels (n,); or of several a sample the indicator matrix (n, n_labels)."""
        refuse_unknown_objects(y)
        check_classification_targets(y)
        multilabel = has_columns(y)
        if resume and multilabel != self.multilabel_:
            expected = "an indicator matrix" if self.multilabel_ else "labels of shape (n,)"
            raise ValueError(f"y must be {expected}, as before; found shape {y.shape}.")
        self.multilabel_, self._has_sparse_labels = multilabel, issparse(y)
        return indicator_matrix(y, len(self.classes_) if resume else y.shape[1]) if multilabel else y

    def _known_classes(self, classes: Any, resume: bool) -> NDArray[Any]:
        """The classes that ``partial_fit`` is to tell apart."""
        if classes is None:
            if not resume:
                raise ValueError("classes must be given in the first call of partial_fit; found None.")
            return self.classes_
        given = np.unique(as_labels(classes, "classes"))
        if resume and not np.array_equal(*comparable(given, self.classes_)):
            raise ValueError(
                f"classes must be those of the first call of partial_fit, {self.classes_}; found {classes}."
            )
        return given

    def _weights(
        self, weight: NDArray[np.float64] | None, y: NDArray[Any], classes: NDArray[Any]
    ) -> NDArray[np.float64] | None:
        """Weights of the samples, those of their classes included."""
        if self.class_weight is None:
            return weight
        if self.multilabel_:
            raise ValueError(
                f"class_weight must be None where y has several labels, each with two classes; found "
                f"{self.class_weight!r}. BCEWithLogitsLoss has weights of labels: give criterion__pos_weight."
            )
        return weighted_by_class(self.class_weight, weight, y, classes)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        sample_id: Any,
        clients: Any,
        classes: NDArray[Any],
        *,
        resume: bool,
        epochs: int | None,
    ) -> Self:
        if resume:
            warn_of_changes(self._params_in_fit or {}, self.get_params(deep=False))
        self._check_loss("labels" if self.multilabel_ else "classes")
        if self.multilabel_ and isinstance(self.module, NeuralNet):
            check_net_of_labels(self.module)
        elif self.multilabel_:
            check_loss_of_labels(self._default_criterion if self.criterion is None else self.criterion)
        binary = isinstance(self.net_, NeuralNetBinaryClassifier) if resume else self._is_binary()
        if binary and len(classes) != 2:
            raise ValueError(f"y must have two classes for a binary loss; found {len(classes)}: {classes}.")
        n, of_samples = len(y), check_of_samples(y, sample_weight, groups, sample_id, clients)
        chosen, (X, y, weight, clients, sample_id) = self._share(X, y, *of_samples)
        whole_weight = self._weights(weight, y, classes)
        if resume:
            # Of other samples, maybe.
            self._held_out = None
        else:
            self._choose_leverage(X, y, weight, clients, epochs=epochs)
            self._choose_strength(X, y, weight, clients, epochs=epochs)
        encode: Encoder = partial(_codes, classes=classes, binary=binary)
        if self.multilabel_:
            given = self.module.criterion if isinstance(self.module, NeuralNet) else self.criterion
            matrix = signs_matrix if targets_of(given) == "signs" else indicator_matrix
            encode = partial(matrix, n_labels=len(classes))
        codes = encode(y)
        samples = self._samples(X, codes, whole_weight, clients, sample_id, weight).among(n, chosen)
        samples = replace(samples, every_client=unique_or_none(of_samples[1]))
        self.classes_ = classes
        net = self._train(self.net_ if resume else None, samples, 1 if binary else len(classes), epochs, encode)
        return self._keep(net, samples)

    def _strata(self, y: NDArray[Any]) -> NDArray[np.intp]:
        if self.multilabel_:
            return np.zeros(len(y), dtype=np.intp)
        return np.unique(y, return_inverse=True)[1].reshape(-1)

    def _predicted(self, X: Any) -> tuple[Any, NDArray[Any] | None]:
        if self.multilabel_:
            return BlockGMDClassifier.predict(self, X), None
        # Those with the largest number, probabilities or not.
        numbers = self._forward(X, "predict_proba")
        return self.classes_[numbers.argmax(axis=1)], numbers

    def _utilities(
        self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]
    ) -> Sequence[Utilities]:
        if self.multilabel_:
            return [balanced_points(predicted, y, weight)]
        return [{name: (labels == y).astype(np.float64) for name, labels in predicted.items()}]

    def _most_long(self, X: Any, *, can_try: bool) -> float:
        return limits.FEW_LONG

    def _unchosen_strength(self) -> str | None:
        return next(iter(self._strengths))

    def _constant(self, y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[Any]:
        if self.multilabel_:
            return np.broadcast_to(np.average(y, axis=0, weights=weight) > 0.5, y.shape)
        labels, places = np.unique(y, return_inverse=True)
        return np.broadcast_to(labels[np.bincount(places.reshape(-1), weight).argmax()], y.shape)

    def _is_binary(self) -> bool:
        """True if the network gives one number a sample, for the second of two classes."""
        if self._has_several_labels():
            return False
        if isinstance(self.module, NeuralNet):
            return isinstance(self.module, NeuralNetBinaryClassifier)
        return targets_of(self.criterion) == "binary"

    def _check_parts(self) -> None:
        super()._check_parts()
        given = self.predict_nonlinearity
        if not (given is None or callable(given) or (isinstance(given, str) and given == "auto")):
            raise TypeError(f'predict_nonlinearity must be callable, "auto" or None; found {given!r}.')

    def _errors_ahead(self, predicted: Mapping[str, Any], y: NDArray[Any], weight: NDArray[np.float64]) -> float:
        return errors_ahead_of_classes(self._held_out)

    def _held_out_stopping(self, **settings: Any) -> HeldOutStopping:
        return LabelStopping(**settings) if self.multilabel_ else LikelihoodStopping(classes=self.classes_, **settings)

    def _constant_loss(self, samples: Samples) -> float:
        if self.multilabel_:
            positive = np.average(samples.y.astype(np.float64), axis=0, weights=samples.weight)
            return float(np.mean([cross_entropy_of_shares(np.array([share, 1.0 - share])) for share in positive]))
        counts = np.bincount(samples.y, weights=samples.weight)
        return cross_entropy_of_shares(counts / counts.sum())

    def _own_settings(self) -> dict[str, Any]:
        criterion = self._default_criterion if self.criterion is None else self.criterion
        return {"predict_nonlinearity": self._nonlinearity(self.predict_nonlinearity, criterion)}

    def _settings_of_wrapped(self) -> dict[str, Any]:
        given = self.module.predict_nonlinearity
        return {"predict_nonlinearity": self._nonlinearity(given, self.module.criterion)}

    def _nonlinearity(self, given: Any, criterion: Any) -> Any:
        # To skorch, a sigmoid is that of two classes.
        return probabilities_by(criterion) if self.multilabel_ and isinstance(given, str) else given

    def _kind_of_net(self) -> Any:
        if self.multilabel_:
            return RobustMultilabelNet
        return robust_class(NeuralNetBinaryClassifier) if self._is_binary() else self._net_class

    def _suited(self, net: NeuralNet, samples: Samples) -> Samples:
        predicted, n = net.predict_proba(self._some(samples)), len(self.classes_)
        if isinstance(net, NeuralNetBinaryClassifier) and predicted.ndim == 1:
            raise ValueError(
                f"predict_nonlinearity must make two probabilities of a number, shape (n_samples, 2), for the "
                f"criterion {type(net._criterion()).__name__}; found shape (n_samples) with "
                f"{net.predict_nonlinearity!r}."
            )
        if predicted.shape[1:] != (n,):
            raise ValueError(
                f"module must give an output for each of the {n} {'labels' if self.multilabel_ else 'classes'}, shape "
                f"(n_samples, {n}); found shape {shape_of_samples(predicted.shape[1:])}."
            )
        if self.multilabel_:
            self._check_probabilities(net, predicted)
        takes_logarithms = type(net).get_loss is NeuralNetClassifier.get_loss
        if takes_logarithms and isinstance(net._criterion(), torch.nn.NLLLoss):
            check_probabilities(predicted)
        return samples

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of the classes, or of each of several labels.

        Parameters
        ----------
        X : array-like, sparse matrix, or what else :meth:`fit` takes

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), or (n_samples, n_labels)
            In the order of ``classes_``. Of classes they add up to one.

        Raises
        ------
        ValueError
            What the network gives isn't known to be probabilities: the criterion is of your own.
        """
        probabilities = self._forward(X, "predict_proba")
        self._check_probabilities(self.net_, probabilities)
        return probabilities

    def _check_probabilities(self, net: NeuralNet, probabilities: NDArray[Any]) -> None:
        wrong = (wrong_label_probabilities if self.multilabel_ else wrong_probabilities)(probabilities)
        if wrong.any():
            function = "sigmoid" if self.multilabel_ else "softmax"
            raise ValueError(
                f"predict_nonlinearity must make probabilities of what the module gives for the criterion "
                f"{type(net._criterion()).__name__}; found {probabilities[wrong][0]} with "
                f"{net.predict_nonlinearity!r}. Give a function, such as a {function}, to the estimator, or to the "
                f"skorch net that is its module; or end the module with {function.capitalize()}, if the criterion is "
                f"of probabilities."
            )

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            logarithms: NDArray[Any] = np.log(self.predict_proba(X))
        return logarithms

    def predict(self, X: Any) -> Any:
        """Predict the most probable classes, (n_samples,), or which of several labels are more probable than not.

        Parameters
        ----------
        X : array-like, sparse matrix, or what else :meth:`fit` takes

        Returns
        -------
        labels : ndarray of shape (n_samples,), or ndarray or csr_matrix of shape (n_samples, n_labels)
            For an indicator matrix in ``fit`` one of int64, sparse where that was.
        """
        check_is_fitted(self)
        if self.multilabel_:
            indicators: NDArray[Any] = (self.predict_proba(X) > 0.5).astype(np.int64)
            return csr_matrix(indicators) if self._has_sparse_labels else indicators
        return BlockGMDClassifier._predicted(self, X)[0]

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of :meth:`predict`: of several labels, the share of samples all of whose labels are right.

        Parameters
        ----------
        X : array-like, sparse matrix, or what else :meth:`fit` takes
        y : array-like of shape (n_samples,), or indicator matrix of shape (n_samples, n_labels)
            True labels; None: those of the Dataset that is X.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score.

        Returns
        -------
        score : float
        """
        X, y = unpacked(X, y, reads_targets=True)
        check_targets(y)
        return float(super().score(X, as_targets(y, "y"), weights_of_score(sample_weight)))


def _codes(y: NDArray[Any], classes: NDArray[Any], binary: bool) -> NDArray[Any]:
    """Places of labels among the classes: indices into what a network gives, or numbers to compare with it."""
    y, classes = comparable(y, classes)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(f"y must have labels among the classes {classes}; found {unknown}.")
    codes = np.searchsorted(classes, y)
    return codes.astype(np.float64) if binary else codes
