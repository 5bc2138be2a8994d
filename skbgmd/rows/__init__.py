"""Rows: n vectors of d numbers, in memory or elsewhere, as aggregators see them.

An aggregator sees the vectors only through the protocol :class:`Rows`: their Gram matrix, weighted sums, norms, scores
of the columns, and single columns. :class:`DenseRows` holds a matrix and reads it in chunks of columns, without a copy.
Rows in other places (the factors of one backward pass, the ranks of a process group) give the same answers.
"""

from skbgmd.rows.averaged import AveragedRows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.rows.dense import DenseRows
from skbgmd.rows.gram import Gram
from skbgmd.rows.protocol import Rows
from skbgmd.rows.scaled import ScaledRows

__all__ = [
    "AveragedRows",
    "ChunkedRows",
    "CoordinateBlock",
    "DenseRows",
    "Gram",
    "ParameterBlock",
    "Rows",
    "ScaledRows",
]
