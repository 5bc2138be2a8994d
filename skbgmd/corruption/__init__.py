"""Corruptions of features, labels and gradients, to test robustness: gross corruption and Byzantine attacks.

The three sources of error of Acharya et al. (2022), and attacks from the literature. ``fraction`` is the share of
corrupt rows, ``random_state`` the source of random draws.
"""

from __future__ import annotations

from skbgmd.corruption.corrupted_labels import CorruptedLabels
from skbgmd.corruption.features import FeatureCorruption, GaussianNoise, ImpulseNoise
from skbgmd.corruption.gradients import (
    GRADIENT_CORRUPTIONS,
    AdditiveNoise,
    ALittleIsEnough,
    AttackContext,
    BitFlip,
    ConstantRows,
    ConstantVote,
    DecoyBlock,
    Framing,
    GradientCorruption,
    InnerProduct,
    LabelFlip,
    MemoryFiller,
    Mimic,
    MinMax,
    MinSum,
    NonFinite,
    ScaleRider,
    SearchedALittleIsEnough,
    SearchedInnerProduct,
    Shadowing,
    SignFlip,
    Simplex,
    Sleeper,
    Squatter,
    get_gradient_corruption,
)
from skbgmd.corruption.labels import LabelCorruption, corrupt_labels

__all__ = [
    "GRADIENT_CORRUPTIONS",
    "ALittleIsEnough",
    "AdditiveNoise",
    "AttackContext",
    "BitFlip",
    "ConstantRows",
    "ConstantVote",
    "CorruptedLabels",
    "DecoyBlock",
    "FeatureCorruption",
    "Framing",
    "GaussianNoise",
    "GradientCorruption",
    "ImpulseNoise",
    "InnerProduct",
    "LabelCorruption",
    "LabelFlip",
    "MemoryFiller",
    "Mimic",
    "MinMax",
    "MinSum",
    "NonFinite",
    "ScaleRider",
    "SearchedALittleIsEnough",
    "SearchedInnerProduct",
    "Shadowing",
    "SignFlip",
    "Simplex",
    "Sleeper",
    "Squatter",
    "corrupt_labels",
    "get_gradient_corruption",
]
