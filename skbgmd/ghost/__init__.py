"""Gradients of single samples by one forward and backward pass, without writing them out."""

from skbgmd.ghost import recurrent  # noqa: F401 - its rules register themselves
from skbgmd.ghost.embedding_factor import EmbeddingFactor
from skbgmd.ghost.factors import DenseFactor, Factor, OuterProductFactor
from skbgmd.ghost.recorder import GhostError, GradientRecorder
from skbgmd.ghost.rows import GhostRows
from skbgmd.ghost.rules import register_rule

__all__ = [
    "DenseFactor",
    "EmbeddingFactor",
    "Factor",
    "GhostError",
    "GhostRows",
    "GradientRecorder",
    "OuterProductFactor",
    "register_rule",
]
