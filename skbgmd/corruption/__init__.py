"""Corruptions, for tests and comparisons of what is robust."""

from __future__ import annotations

from skbgmd.corruption.features import FeatureCorruption, GaussianNoise, ImpulseNoise

__all__ = ["FeatureCorruption", "GaussianNoise", "ImpulseNoise"]
