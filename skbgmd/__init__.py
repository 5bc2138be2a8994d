"""Robust training and robust means for scikit-learn and PyTorch users."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skbgmd.block import BlockGeometricMedianResult, block_geometric_median
    from skbgmd.estimators import BlockGMDClassifier, BlockGMDRegressor
    from skbgmd.median import GeometricMedianResult, geometric_median
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

#: Which module has which of the names. They are imported when they are asked for: torch takes seconds.
_HELD = {
    "block": ("BlockGeometricMedianResult", "block_geometric_median"),
    "estimators": ("BlockGMDClassifier", "BlockGMDRegressor"),
    "median": ("GeometricMedianResult", "geometric_median"),
    "net": ("RobustNeuralNet", "RobustNeuralNetClassifier", "RobustNeuralNetRegressor"),
}
_HOMES = {name: module for module, names in _HELD.items() for name in names}


def __getattr__(name: str) -> Any:
    """A name of ``__all__``, or a module of the package, which is imported by that.

    Raises
    ------
    AttributeError
        There is neither.
    """
    if name in _HOMES:
        value = getattr(importlib.import_module(f"skbgmd.{_HOMES[name]}"), name)
    elif name in _modules():
        value = importlib.import_module(f"skbgmd.{name}")
    else:
        raise AttributeError(f"module 'skbgmd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_modules(), *(name for name in globals() if name.startswith("__"))})


def _modules() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
