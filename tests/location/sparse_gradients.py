"""Rows around a sparse direction."""

from __future__ import annotations

import numpy as np


def gradients(rng, n=20, d=400, noise=0.3):
    """Rows around a sparse direction, as gradients are."""
    direction = np.where(rng.random(d) < 0.1, 1.0, 0.05)
    return direction + noise * rng.normal(size=(n, d)), direction
