"""Robust training and robust means for scikit-learn and PyTorch users."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        robust_backward,
    )

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
    "robust_backward",
]

# Names are imported when they are asked for: torch takes seconds.


def __getattr__(name: str) -> Any:
    """A name of ``__all__``, or a subpackage.

    Raises
    ------
    AttributeError
        There is neither.
    """
    if name in __all__:
        room = "location" if name.lower().endswith(("median", "result")) else "training"
        value = getattr(importlib.import_module(f"skbgmd.{room}"), name)
    elif name in _subpackages():
        value = importlib.import_module(f"skbgmd.{name}")
    else:
        raise AttributeError(f"module 'skbgmd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_subpackages(), "suspects", *(name for name in globals() if name.startswith("__"))})


def _subpackages() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}


class _Suspects(ModuleType):
    """A second name of ``skbgmd.inspection.suspects``, under which users look for it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("skbgmd.inspection.suspects"), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module("skbgmd.inspection.suspects"))


suspects = sys.modules[f"{__name__}.suspects"] = _Suspects(f"{__name__}.suspects")
suspects.__spec__ = ModuleSpec(suspects.__name__, None)
