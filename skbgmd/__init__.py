"""Robust training and robust means for scikit-learn and PyTorch users."""

from skbgmd.estimators import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.location.block import BlockGeometricMedianResult, block_geometric_median
from skbgmd.location.median import GeometricMedianResult, geometric_median
from skbgmd.net import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor

__version__ = "0.1.0"

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
