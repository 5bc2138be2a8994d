"""Gradients of single samples by one forward and backward pass, without writing them out."""

from skbgmd.ghost import recurrent  # noqa: F401 - its rules register themselves
from skbgmd.ghost.factors import Explicit, Factor, Outer
from skbgmd.ghost.lookup import Lookup
from skbgmd.ghost.rows import GhostRows
from skbgmd.ghost.rules import register_rule
from skbgmd.ghost.tape import GhostError, Tape

__all__ = ["Explicit", "Factor", "GhostError", "GhostRows", "Lookup", "Outer", "Tape", "register_rule"]
