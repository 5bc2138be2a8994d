"""Corruptions: the three sources of error of Acharya et al. (2022), in features, labels and gradients, and others.

For tests and comparisons of what is robust. ``fraction`` is the share of rows that are corrupt, and ``random_state``
the source of what is random.
"""

from __future__ import annotations

from skbgmd.corruption.corrupted_labels import CorruptedLabels
from skbgmd.corruption.features import FeatureCorruption, GaussianNoise, ImpulseNoise
from skbgmd.corruption.gradients import (
    GRADIENT_CORRUPTIONS,
    AdditiveNoise,
    ALittleIsEnough,
    BitFlip,
    ConstantRows,
    DecoyBlock,
    GradientCorruption,
    InnerProduct,
    Mimic,
    MinMax,
    MinSum,
    NonFinite,
    SignFlip,
    get_gradient_corruption,
)
from skbgmd.corruption.labels import LabelCorruption, corrupt_labels

__all__ = [
    "GRADIENT_CORRUPTIONS",
    "ALittleIsEnough",
    "AdditiveNoise",
    "BitFlip",
    "ConstantRows",
    "CorruptedLabels",
    "DecoyBlock",
    "FeatureCorruption",
    "GaussianNoise",
    "GradientCorruption",
    "ImpulseNoise",
    "InnerProduct",
    "LabelCorruption",
    "Mimic",
    "MinMax",
    "MinSum",
    "NonFinite",
    "SignFlip",
    "corrupt_labels",
    "get_gradient_corruption",
]
