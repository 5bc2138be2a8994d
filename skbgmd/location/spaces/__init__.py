"""The two homes of a geometric median's points: R^d (few columns) and the span of the rows (few rows)."""

from __future__ import annotations

from skbgmd.location.spaces.grams import GramSpace
from skbgmd.location.spaces.points import PointSpace

__all__ = ["GramSpace", "PointSpace"]
