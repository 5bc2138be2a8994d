"""Per-sample gradients of one parameter, kept as the factors that they are products of."""

from skbgmd.ghost.factors.affine import AffineFactor, JoinedFactor, with_biases, without_biases
from skbgmd.ghost.factors.base import Factor, IntArray
from skbgmd.ghost.factors.dense import DenseFactor
from skbgmd.ghost.factors.embedding import EmbeddingFactor
from skbgmd.ghost.factors.kernel import KernelFactor
from skbgmd.ghost.factors.outer_product import OuterProductFactor, outer_product

__all__ = [
    "AffineFactor",
    "DenseFactor",
    "EmbeddingFactor",
    "Factor",
    "IntArray",
    "JoinedFactor",
    "KernelFactor",
    "OuterProductFactor",
    "outer_product",
    "with_biases",
    "without_biases",
]
