"""Iterative trimmed loss minimization: train on the samples of lowest loss, and select them anew again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from skorch.dataset import get_len, unpack_data

from skbgmd._utils.checks import check_integer, check_number
from skbgmd._utils.cumulated_weights import in_units, rounding
from skbgmd._utils.typing import FloatArray
from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._losses import of_samples, unreduced


class TrimmedLoss(Callback):
    r"""Train on the samples of lowest loss only, selected anew by the network itself: iterative trimmed loss.

    It is a callback for nets and estimators, beside any rule, the mean included. It alternates between two things: it
    selects the share :math:`1 - \alpha` of the samples, by weight, whose losses are lowest, and the net trains some
    epochs on these alone. The method is that of Shen and Sanghavi (2019), "Learning with bad training data via
    iterative trimmed loss minimization".

    Use it if a known share of the samples has wrong targets or features, and the others are much alike. A sample that
    is left out has no influence at all, whereas a robust mean of gradients leaves it some. Selection is over all
    samples rather than those of a batch.

    Don't use it for clean data, rare classes or long tails: rare or hard samples have large losses as well, and are
    left out with the wrong ones.

    Each selection costs a forward pass over all samples, and memory for n losses. Epochs are shorter by the share that
    is left out.

    Parameters
    ----------
    fraction : float
        Share α of the samples to leave out, in [0, 1): the share that is wrong, or a little more.
    warm_up : int, default=10
        Number of epochs on all samples before the first selection. A selection that is too early leaves out whole
        classes that the network has yet to learn, and then never learns. One that is too late comes after wrong labels
        were learnt by heart.
    every : int, default=1
        Number of epochs from one selection to the next.

    Attributes
    ----------
    kept_ : tensor of shape (n,), bool, or None
        Which training samples the last epoch was trained on, out of those that ``train_split`` leaves for training;
        None: all.

    Raises
    ------
    TypeError
        In a training: if the net isn't of this library, if batches come from a loader other than :class:`ArrayLoader`
        with arrays, or if samples have clients.
    ValueError
        In a training: if a parameter is out of its range, or if the criterion has no attribute ``reduction``.

    Notes
    -----
    Samples whose losses are not finite are left out first. With several ranks, each rank selects among its own samples.
    The selection is saved with checkpoints, so that a resumed training goes on as if it hadn't been interrupted.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skbgmd import RobustNeuralNetRegressor
    >>> from skbgmd.training import TrimmedLoss
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> y = X @ np.array([[1.0], [-2.0]], dtype=np.float32)
    >>> y[:60] = 50.0  # wrong
    >>> net = RobustNeuralNetRegressor(
    ...     torch.nn.Linear(2, 1), aggregator="mean", group_size=None, callbacks=[TrimmedLoss(0.3)], lr=0.1,
    ...     max_epochs=40, batch_size=20, iterator_train__shuffle=True, train_split=None, verbose=0
    ... ).fit(X, y)
    >>> bool(np.abs(net.module_.weight.detach().numpy() - [[1.0, -2.0]]).max() < 0.01)
    True
    """

    kept_: torch.Tensor | None

    def __init__(self, fraction: float, warm_up: int = 10, every: int = 1) -> None:
        self.fraction, self.warm_up, self.every = fraction, warm_up, every

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        if check_number(self.fraction, "fraction", at_least=0.0, at_most=1.0) == 1.0:
            raise ValueError("fraction must be less than 1, for samples to be left to train on; found 1.")
        check_integer(self.warm_up, "warm_up", at_least=0)
        check_integer(self.every, "every")
        self.kept_ = None

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        iterator = getattr(net, "_train_iterator_", None)
        if not isinstance(iterator, ArrayLoader):
            raise TypeError(
                f"TrimmedLoss must be a callback of a net of this library whose iterator_train is an ArrayLoader; "
                f"found {type(net).__name__} with {type(iterator).__name__}."
            )
        iterator.restrict(None)
        # The epoch that begins is in the history already.
        since = len(net.history) - 1 - self.warm_up
        if since < 0:
            return
        if self.kept_ is None or since % self.every == 0:
            losses, weight = losses_of(net, dataset_train), iterator.dataset.weight  # type: ignore[attr-defined]
            weight = np.ones(len(losses)) if weight is None else weight.double().numpy()
            self.kept_ = torch.from_numpy(lowest(losses, weight, 1.0 - self.fraction))
        iterator.restrict(self.kept_.cpu().numpy())


def lowest(losses: FloatArray, weight: FloatArray, share: float) -> NDArray[np.bool_]:
    """Select samples of lowest loss that have a share of the weight: a mask (n,), of one sample at least.

    Parameters
    ----------
    losses : ndarray of shape (n,)
        Those that are not finite come last.
    weight : ndarray of shape (n,)
        Positive weights.
    share : float
        In (0, 1]; rounded down to whole samples.

    Examples
    --------
    >>> lowest(np.array([3.0, 1.0, np.nan, 2.0]), np.ones(4), 0.5)
    array([False,  True, False,  True])
    """
    order = np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")
    mass = np.cumsum(in_units(weight)[order])
    total, kept = int(mass[-1]), np.zeros(len(losses), dtype=bool)
    most = int(share * total) + rounding(total, len(mass))
    kept[order[: max(1, int(mass.searchsorted(most, side="right")))]] = True
    return kept


def losses_of(net: Any, dataset: Any) -> FloatArray:
    """Losses (n,) of the samples of a dataset by a net's criterion, as in predictions: without dropout."""
    found = []
    # Loaders draw from the global generator, whether they need to or not.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in net.get_iterator(dataset, training=False):
            X, y = unpack_data(batch)
            predicted = net.evaluation_step(batch, training=False)
            losses = unreduced(net, net._criterion(), predicted, y, X)
            found.append(of_samples(losses, get_len(X), summed=False).double().cpu().numpy())
    return np.concatenate(found)
