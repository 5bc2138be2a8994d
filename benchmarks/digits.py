"""Digits, and how they are split by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits(seed: int) -> tuple[Any, ...]:
    """Training and test samples, in [0, 1], then training and test labels."""
    X, y = load_digits(return_X_y=True)
    return tuple(train_test_split((X / 16.0).astype(np.float32), y, test_size=0.25, random_state=seed, stratify=y))
