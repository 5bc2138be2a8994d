"""Suspicious training samples: which they are, how many there are, and a picture of them."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from skbgmd._utils.checks import check_integer, check_number, check_targets, refuse_masks
from skbgmd.inspection._plotting import BLUE, ORANGE, add_legend, foreground, panels_to_draw_on
from skbgmd.inspection._suspect_groups import Suspects, quality_of, suspects_in
from skbgmd.training._data.inputs import n_samples
from skbgmd.training._estimator.multilabel import has_columns, indicator_matrix
from skbgmd.training._estimator.parameters import RobustParameters
from skbgmd.training._step.trust import SampleRecord
from skbgmd.training._strength.evidence import STRENGTHS_OF_CLASSES
from skbgmd.training._strength.held_out_labels import HeldOutLabels

#: The strength that lets a network fit most samples.
GENTLEST = next(iter(STRENGTHS_OF_CLASSES))


class SuspectEstimate(NamedTuple):
    """Estimate of the number of suspicious training samples.

    Attributes
    ----------
    n : int
        Number of suspects.
    low, high : int
        Bounds of it: where the two groups of samples may as well be told apart, and a standard error of counting; and
        as few and as many wrong labels as held-out samples allow, where the strength was chosen by some. These are of
        labels that are wrong irrespective of the features; with ``n=0``, ``high`` says how many there may be still.
    n_badly_fitted : int
        Suspects that the training fitted badly, as mislabeled ones.
    n_unusual_inputs : int
        Suspects with unusually large inputs, as ones with wrong features.
    threshold : float
        Likelihood below which the former are; NaN where there are none.
    """

    n: int
    low: int
    high: int
    n_badly_fitted: int
    n_unusual_inputs: int
    threshold: float


def find_suspects(estimator: Any, n_suspects: int | None = None, *, fraction: float | None = None) -> NDArray[np.int64]:
    """Find suspicious training samples, such as mislabeled ones and ones with wrong features, or as many as there are.

    Parameters
    ----------
    estimator : BlockGMDClassifier or BlockGMDRegressor
        Fitted; or a pipeline that ends with one, or a search for its parameters. Only ``group_size=1`` tells single
        samples apart, best with ``strength="firm"``.
    n_suspects : int, default=None
        Number of samples to list. With neither this nor a fraction it is estimated, see :func:`estimate_n_suspects`.
    fraction : float, default=None
        Or their share, in (0, 1]; rounded up.

    Returns
    -------
    indices : ndarray of shape (n_suspects,), int64
        Indices of training samples, the most suspicious first. Samples that nothing is known of are left out. An empty
        array says that no group of suspects stands out, not that there are none: with few samples, or after a training
        that trusted all of them, ``n_suspects`` still lists the most suspicious ones.

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    ValueError
        Both of the two are given, one is out of its range, or the trust is unknown: the aggregator doesn't weigh rows.
        Of samples in groups, or in plain training, also where all are trusted alike or a number is to be estimated.

    Notes
    -----
    Samples are ranked by their mean likelihood over the training, with cross-entropy the probability of the given
    label, and by the size of their inputs: a network is slow to fit wrong labels, and samples with huge inputs are
    fitted by chance. Where samples were in groups, they are ranked by trust, the mean weight in training
    (``sample_trust_``). Rare and hard samples are suspicious, too: inspect suspects before you drop them. A sample with
    several labels is judged as a whole, by their mean loss; which of them looks wrong, :func:`label_losses` tells.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection import find_suspects
    >>> X, y = load_digits(return_X_y=True)
    >>> X, wrong = X / 16.0, np.arange(0, len(X), 10)
    >>> clean = BlockGMDClassifier(strength="mild", max_epochs=50, random_state=0).fit(X, y)
    >>> len(find_suspects(clean))
    0
    >>> y[wrong] = (y[wrong] + 1) % 10
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X, y)
    >>> found = find_suspects(model)
    >>> 150 < len(found) < 210, len(set(found) & set(wrong)) > 150
    (True, True)
    >>> find_suspects(model, 5).tolist() == found[:5].tolist()
    True
    """
    inner = robust_estimator_in(estimator)
    trust = sample_trust(inner)
    if n_suspects is not None and fraction is not None:
        raise ValueError(
            f"One of n_suspects and fraction may be given; found n_suspects={n_suspects!r}, fraction={fraction!r}."
        )
    known = np.flatnonzero(np.isfinite(trust))
    if not len(known):
        raise ValueError("sample_trust_ must be known; found only NaN: the aggregator doesn't weigh rows.")
    if n_suspects is None and fraction is None:
        n = estimate_n_suspects(inner).n
    elif fraction is not None:
        n = max(1, int(np.ceil(check_number(fraction, "fraction", at_most=1.0) * len(trust) - 1e-9)))
    else:
        n = check_integer(n_suspects, "n_suspects")
        if n > len(trust):
            raise ValueError(f"n_suspects must be at most the number of samples, {len(trust)}; found {n}.")
    of_single = _known_of(inner)
    # To list all samples is no choice.
    if of_single is None and n < len(known) and np.allclose(trust[known], trust[known[0]], rtol=1e-6, atol=0.0):
        raise ValueError(
            f"sample_trust_ must differ for samples to be suspects; found {trust[known[0]]:g} for all {len(known)} "
            f"that it is known of: the aggregator trusts all alike, or had nothing to compare, as in plain training, "
            f"with one group in each batch."
        )
    if of_single is None:
        order = known[np.argsort(trust[known], kind="stable")]
    else:
        record, known = of_single
        quality = quality_of(record.likelihood[-1], record.input_norm)
        # How many there are is no reason to rank others first.
        chosen = _found(inner, of_single, by_groups=True).chosen
        order = known[np.lexsort((quality, ~chosen))]
    return order[:n].astype(np.int64)


def estimate_n_suspects(estimator: Any) -> SuspectEstimate:
    """Estimate the number of suspicious training samples, with bounds.

    Two kinds are counted: those of a separate group of small likelihoods, as mislabeled samples are, and those with
    large inputs from where on they are fitted worse than the others, as samples with wrong features are. Where classes
    overlap or the network fits wrong labels early, neither stands out, and there are none; ``strength="firm"`` makes it
    fit them later. Where ``strength="auto"`` chose one, the labels of samples held out for that say how many are wrong,
    and bound it: a group of hard samples isn't taken for one of wrong labels, and few among overlapping classes and
    many that were learnt by heart are counted. Labels that are wrong near the boundary between classes alone can't be
    told from overlap, unless a gentle training tells them apart as well. How far the estimate is off is measured in
    :doc:`/samples`.

    Parameters
    ----------
    estimator : BlockGMDClassifier or BlockGMDRegressor
        Fitted with ``group_size=1``; or a pipeline that ends with one, or a search for its parameters.

    Returns
    -------
    SuspectEstimate

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    ValueError
        Nothing is known of single samples: they were in groups, of clients for example, or this is plain training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.corruption import corrupt_labels
    >>> from skbgmd.inspection import estimate_n_suspects
    >>> X, y = load_digits(return_X_y=True)
    >>> y, wrong = corrupt_labels(y, fraction=0.1, random_state=0)
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X / 16.0, y)
    >>> estimate = estimate_n_suspects(model)
    >>> estimate.low <= int(wrong.sum()) <= estimate.high
    True
    """
    inner = robust_estimator_in(estimator)
    sample_trust(inner)
    of_single = _known_of(inner)
    if of_single is None:
        raise ValueError(
            "The number of suspects is estimated of single samples, by their losses; nothing is known of them where "
            "rows are groups or clients, or training is plain. Give n_suspects or fraction, or train with group_size=1."
        )
    return SuspectEstimate(*_found(inner, of_single).estimate)


def robust_estimator_in(estimator: Any) -> Any:
    """The estimator itself, or the one at the end of a pipeline or within a search.

    Raises
    ------
    TypeError
        Not an estimator.
    """
    inner = estimator
    while isinstance(inner, Pipeline) or hasattr(inner, "best_estimator_"):
        inner = inner[-1] if isinstance(inner, Pipeline) else inner.best_estimator_
    if not hasattr(inner, "fit"):
        raise TypeError(f"estimator must be a fitted BlockGMDClassifier or BlockGMDRegressor; found {type(inner)}.")
    return inner


def sample_trust(estimator: Any) -> NDArray[np.float64]:
    """Trust in the training samples, by an estimator or the one within a pipeline or a search.

    Raises
    ------
    TypeError
        Not an estimator.
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    """
    inner = robust_estimator_in(estimator)
    if not isinstance(inner, RobustParameters):
        raise TypeError(
            f"estimator must be a BlockGMDClassifier or BlockGMDRegressor, or a pipeline or search that ends with one; "
            f"found {type(inner).__name__}. Of one that wraps an estimator, give what was fitted, such as estimator_."
        )
    check_is_fitted(inner, "sample_trust_")
    return np.asarray(inner.sample_trust_, dtype=np.float64)


def check_training_samples(n: int, **given: Any) -> None:
    """Check that what is given, by its name, is of the n training samples of an estimator and has no masks."""
    for name, value in given.items():
        refuse_masks(value, name)
        found = n if value is None else n_samples(value)
        if found != n:
            raise ValueError(f"{name} must be of the {n} samples that the estimator was fitted on; found {found}.")


class _Known(NamedTuple):
    """Record of the samples that something is known of, and their indices."""

    record: SampleRecord
    indices: NDArray[np.intp]


def _known_of(estimator: Any) -> _Known | None:
    """Record of the samples whose trust and likelihood are known; None where there are none."""
    record = getattr(estimator, "sample_record_", None)
    if record is None:
        return None
    known = np.flatnonzero(np.isfinite(record.trust) & np.isfinite(record.likelihood[-1]))
    return _Known(SampleRecord(*(values[..., known] for values in record)), known) if len(known) else None


def _found(estimator: Any, of_single: _Known, *, by_groups: bool = False) -> Suspects:
    """Suspects among the samples that something is known of in an estimator's training; by groups alone if so asked."""
    held_out = None if by_groups else getattr(estimator, "_held_out", None)
    # Where several processes trained together it is of this one's share.
    if held_out is not None and len(held_out.predicted) != len(estimator.sample_trust_):
        held_out = None
    if held_out is not None:
        held_out = HeldOutLabels(*(values[of_single.indices] for values in held_out))
    fits_all = getattr(estimator, "strength_", None) == GENTLEST
    return suspects_in(of_single.record, fits_all=fits_all, held_out=held_out)


class SampleTrustDisplay:
    """Visualization of suspicious training samples: how likely the training found them, and trust against loss.

    On the left the histogram of the mean likelihoods, with counts on a logarithmic scale and the threshold that
    :func:`find_suspects` estimates; of the mean weights, ``sample_trust_``, where single samples aren't known. On the
    right trust against the loss of the trained estimator. Suspects are drawn apart, or samples known to be corrupt.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    trust : ndarray of shape (n_samples,)
        Trust in each sample.
    loss : ndarray of shape (n_samples,)
        Loss of each sample.
    known : ndarray of shape (n_samples,), bool, default=None
        Samples that are known to be corrupt, drawn apart.
    likelihood : ndarray of shape (n_samples,), default=None
        Mean likelihood of each sample in training; None: the histogram is of the trust.
    suspects : ndarray of shape (n_samples,), bool, default=None
        Suspects, drawn apart where no sample is known to be corrupt.
    threshold : float, default=nan
        Likelihood below which badly fitted samples are suspects; NaN: none.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
        Of the histogram, and of trust against loss.
    figure_ : matplotlib Figure
        Their figure.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skbgmd import BlockGMDClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BlockGMDClassifier(group_size=1, max_epochs=20, random_state=0).fit(X, y)
    >>> display = SampleTrustDisplay.from_estimator(model, X, y)
    >>> [axes.get_xlabel() for axes in display.axes_]
    ['mean likelihood in training', 'trust (mean weight)']
    """

    axes_: Any
    figure_: Any

    def __init__(
        self,
        trust: NDArray[np.float64],
        loss: NDArray[np.float64],
        known: NDArray[np.bool_] | None = None,
        *,
        likelihood: NDArray[np.float64] | None = None,
        suspects: NDArray[np.bool_] | None = None,
        threshold: float = float("nan"),
    ) -> None:
        self.trust, self.loss, self.known = trust, loss, known
        self.likelihood, self.suspects, self.threshold = likelihood, suspects, threshold

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, corrupted: ArrayLike | None = None, ax: Any = None
    ) -> Self:
        """Compute the losses of the training samples and draw the picture.

        Parameters
        ----------
        estimator : BlockGMDClassifier or BlockGMDRegressor
            Fitted on X and y; or a pipeline that ends with one, or a search for its parameters.
        X, y : array-like
            The training data, as the estimator, or the whole pipeline, was given them.
        corrupted : array-like of shape (n_samples,), bool, default=None
            Samples that are known to be corrupt; None: suspects are drawn apart.
        ax : matplotlib Axes or array-like of two of them, default=None
            Axes to draw on, or one within whose bounds both are made; None: a new figure.

        Returns
        -------
        SampleTrustDisplay

        Raises
        ------
        ImportError
            matplotlib isn't installed.
        TypeError
            Not an estimator.
        sklearn.exceptions.NotFittedError
            The estimator isn't fitted.
        ValueError
            Other data than those of the training, or neither one axes nor two.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        trust = sample_trust(estimator)
        check_training_samples(len(trust), X=X, y=y, corrupted=corrupted)
        known = None if corrupted is None else np.asarray(corrupted, dtype=bool)
        found: dict[str, Any] = {}
        inner = robust_estimator_in(estimator)
        of_single = _known_of(inner)
        if of_single is not None:
            chosen, estimate, seen = _found(inner, of_single)
            likelihood, suspects = np.full(len(trust), np.nan), np.zeros(len(trust), dtype=bool)
            likelihood[of_single.indices], suspects[of_single.indices] = seen, chosen
            found = {"likelihood": likelihood, "suspects": suspects, "threshold": SuspectEstimate(*estimate).threshold}
        return cls(trust, sample_losses(estimator, X, y), known, **found).plot(ax)

    def plot(self, ax: Any = None, *, bins: int = 40) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of two of them, default=None
            Axes to draw on, or one within whose bounds both are made; None: a new figure.
        bins : int, default=40
            Bars of the histogram.

        Returns
        -------
        SampleTrustDisplay

        Raises
        ------
        ImportError
            matplotlib isn't installed.
        ValueError
            Neither one axes nor two.
        """
        axes = panels_to_draw_on(ax, 2, f"{type(self).__name__}.plot", figsize=(9.0, 3.6)).ravel()
        left, right = axes
        shown = self.trust if self.likelihood is None else self.likelihood
        finite = np.isfinite(shown) & np.isfinite(self.trust)
        # Losses of samples that have been learnt differ by orders of magnitude, and some are zero.
        loss = np.maximum(self.loss, 1e-6)
        edges = np.histogram_bin_edges(shown[finite], bins=bins, range=None if self.likelihood is None else (0.0, 1.0))
        highest = 1.0
        for chosen, label, style in self._kinds():
            some = chosen & finite
            color, marker, hatch = style
            counts, *_ = left.hist(
                shown[some], bins=edges, color=color, alpha=0.7, hatch=hatch, label=f"{label} ({some.sum():,})"
            )
            right.plot(self.trust[some], loss[some], marker, color=color, markersize=4, alpha=0.7, label=label)
            highest = max(highest, counts.max())
        if np.isfinite(self.threshold):
            left.axvline(
                self.threshold,
                color=foreground(left),
                linestyle="--",
                linewidth=1.2,
                label=f"threshold {self.threshold:.2f}",
            )
        left.set(
            xlabel="trust (mean weight)" if self.likelihood is None else "mean likelihood in training",
            ylabel="number of samples",
            yscale="log",
        )
        # The legend has its place above the bars.
        left.set_ylim(0.7, highest * (highest / 0.7) ** 0.55)
        right.set(xlabel="trust (mean weight)", ylabel="loss after training", yscale="log")
        add_legend(left, loc="upper center")
        self.axes_, self.figure_ = axes, left.figure
        return self

    def _kinds(self) -> list[tuple[NDArray[np.bool_], str, tuple[str, str, str | None]]]:
        """Samples to be drawn apart, with their name, color, marker and hatch, the last in front."""
        many, few = (BLUE, ".", None), (ORANGE, "x", "////")
        if self.known is not None:
            return [(~self.known, "clean", many), (self.known, "corrupted", few)]
        if self.suspects is not None:
            return [(~self.suspects, "others", many), (self.suspects, "suspects", few)]
        return [(np.ones(len(self.trust), dtype=bool), "samples", many)]


def sample_losses(estimator: Any, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Compute the loss of each sample: minus the log-probability of its label, or labels' mean, or the squared error.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``, or regressor
        Fitted.
    X, y : array-like
        Samples and their targets.

    Returns
    -------
    losses : ndarray of shape (n_samples,)

    Raises
    ------
    TypeError
        Targets that are dates or durations.
    ValueError
        Labels that the classifier doesn't know, targets of another shape than the predictions, masked entries or
        missing targets.
    """
    refuse_masks(X, "X")
    check_targets(y)
    if hasattr(estimator, "predict_proba"):
        if has_columns(y):
            of_labels: NDArray[np.float64] = label_losses(estimator, X, y).mean(axis=1)
            return of_labels
        probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        unknown = np.setdiff1d(y, estimator.classes_)
        if len(unknown):
            raise ValueError(f"y must have labels among the classes {estimator.classes_}; found {unknown}.")
        place = np.searchsorted(estimator.classes_, np.asarray(y))
        chosen = probabilities[np.arange(len(place)), place]
        losses: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
        return losses
    predicted, targets = (np.asarray(values, dtype=np.float64) for values in (estimator.predict(X), y))
    columns = predicted.reshape(len(predicted), -1)
    if targets.reshape(len(targets), -1).shape != columns.shape:
        raise ValueError(f"y must have the shape of the predictions, {predicted.shape}; found {targets.shape}.")
    squares: NDArray[np.float64] = np.square(columns - targets.reshape(columns.shape)).mean(axis=1)
    return squares


def label_losses(estimator: Any, X: ArrayLike, y: Any) -> NDArray[np.float64]:
    """Compute the loss of each label of samples with several, to see which label of a suspicious sample looks wrong.

    Minus the log-probability that the label is as it was given, there or not.

    Parameters
    ----------
    estimator : classifier with ``predict_proba`` of shape (n_samples, n_labels)
        Fitted.
    X : array-like of shape (n_samples, ...)
        Samples.
    y : array-like or sparse matrix of shape (n_samples, n_labels)
        Indicator matrix of 0 and 1.

    Returns
    -------
    losses : ndarray of shape (n_samples, n_labels)

    Raises
    ------
    ValueError
        No indicator matrix of as many labels as are predicted, masked entries, or an estimator that predicts them
        otherwise, such as scikit-learn's MultiOutputClassifier.

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd import BlockGMDClassifier
    >>> from skbgmd.inspection import find_suspects, label_losses
    >>> X = np.random.default_rng(0).normal(size=(300, 4))
    >>> y = (X > 0.0).astype(int)
    >>> y[7, 2] = 1 - y[7, 2]
    >>> model = BlockGMDClassifier(strength="firm", max_epochs=30, random_state=0).fit(X, y)
    >>> suspects = find_suspects(model, 10)
    >>> bool(7 in suspects), int(label_losses(model, X, y)[7].argmax())
    (True, 2)
    """
    refuse_masks(X, "X")
    check_targets(y)
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    if probabilities.ndim != 2:
        raise ValueError(
            f"estimator must predict probabilities of shape (n_samples, n_labels); found {probabilities.shape}."
        )
    given = indicator_matrix(y)
    if given.shape != probabilities.shape:
        raise ValueError(
            f"y must be an indicator matrix of the shape of the predictions, {probabilities.shape}; found shape "
            f"{given.shape}."
        )
    likelihood = np.where(given > 0.5, probabilities, 1.0 - probabilities)
    losses: NDArray[np.float64] = -np.log(np.maximum(likelihood, 1e-12))
    return losses
