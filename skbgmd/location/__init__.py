"""Robust location: geometric medians of rows, on all columns or a block of them, and Huber's M-estimate."""

from skbgmd.location.block import BlockGeometricMedianResult, block_geometric_median
from skbgmd.location.median import GeometricMedianResult, geometric_median

__all__ = [
    "BlockGeometricMedianResult",
    "GeometricMedianResult",
    "block_geometric_median",
    "geometric_median",
]
