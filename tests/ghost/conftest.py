"""What the tests of ghost rows share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _initialisation_from_a_fork() -> Iterator[None]:
    """Layers are initialised from torch's global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        yield
