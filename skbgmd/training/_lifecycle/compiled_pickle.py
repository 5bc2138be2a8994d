"""Pickles of modules that ``torch.compile`` made: the modules that they were made of, which are compiled anew."""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

#: Inductor's modes besides its default.
_MODES = ("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class CompilationPickler(pickle.Pickler):
    """A pickler that writes of a compiled module no more than what it was made of, and by which backend.

    torch pickles the compiler itself, with bound methods and wrapped functions, which a checked pickle doesn't load.

    Examples
    --------
    >>> file = io.BytesIO()
    >>> CompilationPickler(file).dump(torch.compile(torch.nn.Linear(2, 1), backend="eager"))
    >>> type(pickle.loads(file.getvalue())).__name__
    'OptimizedModule'
    """

    def reducer_override(self, obj: Any) -> Any:
        if (kind := compiled_kind()) is not None and isinstance(obj, kind):
            return compiled_again, (obj._orig_mod, *_settings(obj))
        if type(obj) is torch.nn.Parameter and vars(obj) and all(name.startswith("_dynamo") for name in vars(obj)):
            # Marks that the compiler makes for itself.
            return torch._utils._rebuild_parameter, (obj.data, obj.requires_grad, OrderedDict())
        return NotImplemented


def compiled_kind() -> Any:
    """The class of compiled modules; None where torch's compiler isn't loaded, and so nothing is compiled."""
    # It is large, and imported by whoever compiles.
    return getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", None)


def dumps(thing: Any) -> bytes:
    """Pickle a thing, and the compiled modules that it holds."""
    file = io.BytesIO()
    CompilationPickler(file).dump(thing)
    return file.getvalue()


def compiled_again(
    module: torch.nn.Module,
    backend: str | Callable[..., Any],
    mode: str | None = None,
    dynamic: bool | None = None,
    fullgraph: bool = False,
) -> Any:
    """Compile a module as one was that was saved; torch does it in the first call.

    Inductor's single options aren't taken from a file: some of them name programs to be run.

    Raises
    ------
    pickle.UnpicklingError
        The parameters aren't those of a compiled module.
    """
    is_known = (
        isinstance(module, torch.nn.Module)
        and (isinstance(backend, str) or callable(backend))
        and (mode is None or mode in _MODES)
        and (dynamic is None or isinstance(dynamic, bool))
    )
    if not is_known:
        raise pickle.UnpicklingError(
            f"A saved compiled module must have a backend and a mode; found {backend}, {mode}."
        )
    return torch.compile(module, backend=backend, mode=mode, dynamic=dynamic, fullgraph=bool(fullgraph))


def _settings(compiled: Any) -> tuple[str | Callable[..., Any], str | None, bool | None, bool]:
    """Backend, mode, whether sizes are dynamic, and whether the graph is whole; torch's defaults where unknown."""
    context = compiled.dynamo_ctx
    backend: Any = getattr(context, "callback", None)
    while hasattr(backend, "_torchdynamo_orig_backend"):
        backend = backend._torchdynamo_orig_backend
    name = getattr(backend, "compiler_name", "inductor")
    function = getattr(backend, "compiler_fn", None)
    known = name if function is None or name in torch._dynamo.list_backends(None) else function
    dynamic = getattr(backend, "dynamic", None)
    mode = _mode(getattr(backend, "config", {}), dynamic) if known == "inductor" else None
    return known, mode, dynamic, bool(getattr(context, "fullgraph", False))


def _mode(config: dict[str, Any], dynamic: bool | None) -> str | None:
    if not config:
        return None
    from torch._inductor import list_mode_options

    return next((mode for mode in _MODES if list_mode_options(mode, dynamic) == config), None)


__all__ = ["CompilationPickler", "compiled_again", "compiled_kind", "dumps"]
