"""Spaces that the solver works in: R^d, in two ways (few columns, or many), and the span of the rows (few rows)."""

from __future__ import annotations

from skbgmd.location.spaces.euclidean import EuclideanSpace
from skbgmd.location.spaces.expanded import ExpandedSpace
from skbgmd.location.spaces.gram import GramSpace
from skbgmd.location.spaces.unformed import UnformedGramSpace, space_of

__all__ = ["EuclideanSpace", "ExpandedSpace", "GramSpace", "UnformedGramSpace", "space_of"]
