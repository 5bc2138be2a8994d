"""Per-sample gradients of one parameter, kept as the factors that they are products of."""

from skbgmd.ghost.factors.base import Factor, IntArray
from skbgmd.ghost.factors.dense import DenseFactor
from skbgmd.ghost.factors.embedding import EmbeddingFactor
from skbgmd.ghost.factors.kernel import KernelFactor
from skbgmd.ghost.factors.outer_product import AffineFactor, OuterProductFactor, outer_product, with_biases

__all__ = [
    "AffineFactor",
    "DenseFactor",
    "EmbeddingFactor",
    "Factor",
    "IntArray",
    "KernelFactor",
    "OuterProductFactor",
    "outer_product",
    "with_biases",
]
