"""Per-sample gradients from one forward and backward pass, without writing them out."""

from skbgmd.ghost import layers  # noqa: F401 - its rules register themselves
from skbgmd.ghost.chain import Chain
from skbgmd.ghost.derivatives import register_derivative
from skbgmd.ghost.factors import DenseFactor, EmbeddingFactor, Factor, OuterProductFactor
from skbgmd.ghost.recorded_layers import GhostError
from skbgmd.ghost.recorder import GradientRecorder
from skbgmd.ghost.registry import register_rule
from skbgmd.ghost.rows import GhostRows

__all__ = [
    "Chain",
    "DenseFactor",
    "EmbeddingFactor",
    "Factor",
    "GhostError",
    "GhostRows",
    "GradientRecorder",
    "OuterProductFactor",
    "register_derivative",
    "register_rule",
]
