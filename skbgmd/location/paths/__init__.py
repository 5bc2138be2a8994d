"""Paths to a geometric median of dense rows, each for data of a kind, and the choice among them."""
