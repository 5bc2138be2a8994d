"""Gram matrices that rows are asked for."""

from __future__ import annotations

from typing import Any

import pytest


def gram_sizes(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> list[int]:
    """Numbers of rows of each Gram matrix that rows of some kinds are asked for from now on."""
    sizes: list[int] = []

    def watched(whole: Any) -> Any:
        def gram(self: Any, *given: Any, **named: Any) -> Any:
            sizes.append(self.n_rows)
            return whole(self, *given, **named)

        return gram

    for kind in kinds:
        monkeypatch.setattr(kind, "gram", watched(kind.gram))
    return sizes
