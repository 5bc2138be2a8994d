"""Modules that ``torch.compile`` made of others: inside of them hooks aren't called, and layers aren't seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from skbgmd.ghost.derivatives import is_hooked


def original_of(module: Any) -> Any:
    """Find the module that a compiled one was made of, with the same parameters; itself where it is none.

    One with hooks of its own stays what it is: they see calls of it alone.
    """
    original = getattr(module, "_orig_mod", None) if isinstance(module, nn.Module) else None
    return module if original is None or is_hooked(module) else original


@contextmanager
def uncompiled(net: Any) -> Iterator[None]:
    """Have a net infer by the module that its compiled one was made of."""
    module = net.module_
    vars(net)["module_"] = original_of(module)
    try:
        yield
    finally:
        vars(net)["module_"] = module
