"""The network that an estimator builds where it is given none: a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch


class MLP(torch.nn.Sequential):
    """Linear layers with rectified linear units between them.

    Parameters
    ----------
    n_features, n_outputs : int
        Numbers of inputs and outputs.
    hidden_layer_sizes : sequence of int, default=(100,)
        Units of each hidden layer; empty: a linear model.
    dtype : torch.dtype, default=torch.float32
        Dtype of the parameters.

    Examples
    --------
    >>> MLP(4, 3, hidden_layer_sizes=(5,))
    MLP(
      (0): Linear(in_features=4, out_features=5, bias=True)
      (1): ReLU()
      (2): Linear(in_features=5, out_features=3, bias=True)
    )
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int] = (100,),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = [n_features, *hidden_layer_sizes]
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after, dtype=dtype), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(sizes[-1], n_outputs, dtype=dtype))
