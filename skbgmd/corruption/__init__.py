"""Corruptions, for tests and comparisons of what is robust."""

from __future__ import annotations

from skbgmd.corruption.features import FeatureCorruption, GaussianNoise, ImpulseNoise
from skbgmd.corruption.labels import CorruptedLabels, LabelCorruption, corrupt_labels

__all__ = [
    "CorruptedLabels",
    "FeatureCorruption",
    "GaussianNoise",
    "ImpulseNoise",
    "LabelCorruption",
    "corrupt_labels",
]
