"""Rules and derivatives of torch's layers, a file for each family; importing a file registers them."""

from skbgmd.ghost.layers import (
    activation,
    attention,
    convolution,
    dropout,
    embedding,
    linear,
    normalization,
    pooling,
    recurrent,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "shape",
]
