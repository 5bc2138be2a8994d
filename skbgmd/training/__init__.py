"""Robust training: scikit-learn estimators, skorch nets, and the training step between them."""

from skbgmd.training._loader import ArrayLoader
from skbgmd.training._losses import register_loss
from skbgmd.training.estimators import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training.nets import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor

__all__ = [
    "ArrayLoader",
    "BlockGMDClassifier",
    "BlockGMDRegressor",
    "RobustNeuralNet",
    "RobustNeuralNetClassifier",
    "RobustNeuralNetRegressor",
    "register_loss",
]
