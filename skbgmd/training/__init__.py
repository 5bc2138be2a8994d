"""Robust training: scikit-learn estimators, skorch nets, and the training step between them."""

from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._losses import register_loss
from skbgmd.training._skops import SKOPS_TRUSTED
from skbgmd.training.backward import BackwardState, robust_backward
from skbgmd.training.classifier import BlockGMDClassifier
from skbgmd.training.nets import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.training.regressor import BlockGMDRegressor
from skbgmd.training.trimmed_loss import TrimmedLoss

__all__ = [
    "SKOPS_TRUSTED",
    "ArrayLoader",
    "BackwardState",
    "BlockGMDClassifier",
    "BlockGMDRegressor",
    "RobustNeuralNet",
    "RobustNeuralNetClassifier",
    "RobustNeuralNetRegressor",
    "TrimmedLoss",
    "register_loss",
    "robust_backward",
]
