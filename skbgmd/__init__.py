"""Robust training and robust means for scikit-learn and PyTorch users."""

import sys

from skbgmd.inspection import suspects
from skbgmd.location import (
    BlockGeometricMedianResult,
    GeometricMedianResult,
    block_geometric_median,
    geometric_median,
)
from skbgmd.training import (
    BlockGMDClassifier,
    BlockGMDRegressor,
    RobustNeuralNet,
    RobustNeuralNetClassifier,
    RobustNeuralNetRegressor,
)

__version__ = "0.1.0"

# `from skbgmd.suspects import find_suspects`, too: users look for it there, and it has its place in inspection.
sys.modules[f"{__name__}.suspects"] = suspects

__all__ = [
    "BlockGMDClassifier",
    "BlockGMDRegressor",
    "BlockGeometricMedianResult",
    "GeometricMedianResult",
    "RobustNeuralNet",
    "RobustNeuralNetClassifier",
    "RobustNeuralNetRegressor",
    "block_geometric_median",
    "geometric_median",
]
