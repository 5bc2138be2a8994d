"""Pickles inside of saved nets, that load nothing but the classes and functions listed beside them.

skorch keeps a net's modules and optimizers as the bytes of a pickle. Whoever audits a file by the types that it names,
as skops does, doesn't see into these bytes, which may name anything, and call it. So what they may name is listed
beside them, as objects, for the audit to see.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import reduce
from typing import Any, ClassVar

import torch

#: The function by which storages of tensors are unpickled, which runs what a pickle of torch's says.
_STORAGE = ("torch.storage", "_load_from_bytes")
#: How bound methods and torch's builtin functions are pickled. Whoever may call it as it is may call anything.
_GETATTR = ("builtins", "getattr")


def named_in(payload: bytes) -> list[Any]:
    """Classes and functions that a pickle names, each once, in the order of their names.

    Parameters
    ----------
    payload : bytes
        A pickle of protocol 4 or 5 that this process has just made.

    Returns
    -------
    list
        Classes and functions; of a nested class, the outermost one.
    """
    found = {}
    for module, name in sorted(set(_names(payload)) - {_STORAGE, _GETATTR}):
        is_class = isinstance(_attribute(sys.modules[module], name), type)
        shown = name.partition(".")[0] if is_class else name
        found[module, shown] = _attribute(sys.modules[module], shown)
    return [thing for thing in found.values() if callable(thing)]


def load_naming(payload: bytes, named: Iterable[Any], map_location: Any = None) -> Any:
    """Load a pickle that names only the given classes and functions, and tensors.

    Parameters
    ----------
    payload : bytes
        The pickle, from whomever.
    named : iterable of classes and functions
        What it may name.
    map_location : torch.device, optional
        Where its tensors go.

    Raises
    ------
    pickle.UnpicklingError
        It names something else.

    Examples
    --------
    >>> import pickle
    >>> payload = pickle.dumps({"layer": torch.nn.Identity()})
    >>> named_in(payload)
    [<class 'collections.OrderedDict'>, <class 'torch.nn.modules.linear.Identity'>]
    >>> load_naming(payload, named_in(payload))
    {'layer': Identity()}
    >>> load_naming(pickle.dumps(print), [torch.nn.Identity])
    Traceback (most recent call last):
    _pickle.UnpicklingError: A saved net must name what it holds; found builtins.print, which is not listed.
    """
    return _Unpickler(payload, named, map_location).load()


class _Unpickler(pickle._Unpickler):
    # Written in Python: what sets attributes can't be overridden in the one that is compiled.
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, payload: bytes, named: Iterable[Any], map_location: Any) -> None:
        super().__init__(io.BytesIO(payload))
        self._known = {(pickle.whichmodule(thing, thing.__qualname__), thing.__qualname__): thing for thing in named}  # type: ignore[attr-defined]
        self._map_location = map_location

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _STORAGE:
            return self._storage
        if (module, name) == _GETATTR:
            return _method
        if (module, name) in self._known:
            return self._known[module, name]
        root, _, nested = name.partition(".")
        known = self._known.get((module, root))
        if known is not None:
            found = _attribute(known, nested)
            # Attributes such as __globals__ lead anywhere.
            if isinstance(found, type) and (found.__module__, found.__qualname__) == (module, name):
                return found
        elif module in sys.modules:
            # Dtypes and the like, which are pickled by their name alone.
            found = _attribute(sys.modules[module], name)
            if _is_named_only(found):
                return found
        raise pickle.UnpicklingError(
            f"A saved net must name what it holds; found {module}.{name}, which is not listed."
        )

    def load_build(self) -> None:
        thing = self.stack[-2]
        # The attributes of a class or a function are everyone's.
        if callable(thing) and hasattr(thing, "__qualname__"):
            raise pickle.UnpicklingError(f"A saved net must set attributes of its own objects only; found {thing!r}.")
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build

    def _storage(self, data: bytes) -> Any:
        # torch before 2.6 runs code of such files, whatever weights_only says.
        if tarfile.is_tarfile(io.BytesIO(data)):
            raise pickle.UnpicklingError("A saved net must hold no tar archives; found one.")
        return torch.load(io.BytesIO(data), map_location=self._map_location, weights_only=True)


def _method(thing: Any, name: str) -> Any:
    """A method of a module, or a function of torch's: the attributes of others lead anywhere."""
    found = getattr(thing, name, None)
    is_own = isinstance(thing, torch.nn.Module) and getattr(found, "__self__", None) is thing
    is_of_torch = thing is torch._C._VariableFunctionsClass and (  # type: ignore[attr-defined]
        hasattr(torch.nn.functional, name) or hasattr(torch.Tensor, name)
    )
    if is_own or is_of_torch:
        return found
    raise pickle.UnpicklingError(
        f"A saved net must hold no methods but those of its modules, and functions of torch; found {name} of {thing!r}."
    )


def _is_named_only(thing: Any) -> bool:
    with suppress(TypeError):
        return not callable(thing) and isinstance(thing.__reduce_ex__(4), str)
    return False


def _attribute(thing: Any, path: str) -> Any:
    return reduce(lambda part, name: getattr(part, name, None), path.split("."), thing)


def _names(payload: bytes) -> Iterator[tuple[str, str]]:
    """Modules and qualified names of all that a pickle looks up."""
    memo: list[Any] = []
    before, last = None, None
    for opcode, argument, _ in pickletools.genops(payload):
        if opcode.name == "FRAME":
            # One may begin between two names that belong together.
            continue
        if opcode.name == "MEMOIZE":
            memo.append(last)
            continue
        if opcode.name == "STACK_GLOBAL":
            yield str(before), str(last)
        is_text = opcode.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
        is_known = opcode.name in ("BINGET", "LONG_BINGET")
        before, last = last, argument if is_text else memo[int(argument or 0)] if is_known else None


__all__ = ["load_naming", "named_in"]
