"""Random cases of every magnitude, dtype and layout, and what must hold of each answer."""
