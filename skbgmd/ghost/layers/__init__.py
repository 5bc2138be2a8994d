"""Rules for torch's layers, a file for each family; importing a file registers its rules."""

from skbgmd.ghost.layers import activation, attention, convolution, embedding, linear, normalization, recurrent

__all__ = ["activation", "attention", "convolution", "embedding", "linear", "normalization", "recurrent"]
