"""A trained network as a module that predicts by itself, to be exported to where there is no estimator."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetBinaryClassifier

from skbgmd.training._data.samples import network_of
from skbgmd.training._estimator.wrapping import deep_copies

#: Methods that lie between the network and what an estimator predicts.
_WAY = ("infer", "evaluation_step", "forward_iter", "predict_proba", "_get_predict_nonlinearity")
_KNOWN = re.compile(r"skbgmd\.|skorch\.(net|classifier|regressor)$")


class Predictor(torch.nn.Module):
    """A network, the nonlinearity behind it, and the scale of its targets.

    Parameters
    ----------
    network : Module
        Gives a tensor (n, ...), or a tuple whose first item it is.
    nonlinearity : callable
        Makes what is predicted of that, (n, ...) too.
    flatten : bool, default=False
        The network gives a number a sample, (n,) or (n, 1), which the nonlinearity takes as (n,).
    center, scale : ndarray of shape (n_outputs,), default=None
        Predictions are multiplied by the scale, and the center is added, in float64.
    one_column : bool, default=False
        Scaled predictions are (n,) rather than (n, n_outputs).
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        network: torch.nn.Module,
        nonlinearity: Callable[[torch.Tensor], torch.Tensor],
        *,
        flatten: bool = False,
        center: NDArray[np.float64] | None = None,
        scale: NDArray[np.float64] | None = None,
        one_column: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.nonlinearity, self.flatten, self.one_column = network, nonlinearity, flatten, one_column
        self.is_scaled = center is not None
        if center is not None:
            device = next((parameter.device for parameter in network.parameters()), None)
            self.register_buffer("center", torch.tensor(center, device=device))
            self.register_buffer("scale", torch.tensor(scale, device=device))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Predictions (n, ...) for samples X (n, ...) of the network's dtype."""
        found = self.network(X)
        found = found[0] if isinstance(found, tuple) else found
        # A module that squeezes takes the axis of a single sample, too.
        found = self.nonlinearity(found.reshape(-1) if self.flatten else found.reshape(X.shape[0], -1))
        if self.is_scaled:
            found = self.center + self.scale * found
            found = found[:, 0] if self.one_column else found
        return found


def predictor_of(net: NeuralNet, **scaling: Any) -> Predictor:
    """A copy of a net's network, in evaluation mode, that gives what ``predict_proba`` of the net does.

    Parameters
    ----------
    net : NeuralNet
        An initialized net.
    **scaling
        Scale of the targets, as :class:`Predictor` takes it.

    Raises
    ------
    ValueError
        The net predicts in a way of its own, which no module has.
    """
    own = [
        name for name in _WAY for kind in type(net).__mro__ if name in vars(kind) and not _KNOWN.match(kind.__module__)
    ]
    if own:
        raise ValueError(
            f"The net must predict as skorch's nets do to be made a module; found {', '.join(own)} of "
            f"{type(net).__name__}'s own."
        )
    network = network_of(net)
    # What torch.compile made is exported as what it was made of.
    network = deep_copies({"network": getattr(network, "_orig_mod", network)})["network"]
    flatten = isinstance(net, NeuralNetBinaryClassifier)
    return Predictor(network, net._get_predict_nonlinearity(), flatten=flatten, **scaling).eval()


__all__ = ["Predictor", "predictor_of"]
