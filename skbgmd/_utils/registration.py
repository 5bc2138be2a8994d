"""Registrations of classes that go with them to other processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

V = TypeVar("V")


def attach(kind: type, name: str, value: Any) -> None:
    """Write what a class is registered with into the class, for :func:`registered` to find in another process.

    A class of a script, a notebook or a function is sent by value to the workers of a parallel search, which never run
    the line that registers it: what stands in the class arrives with it. One that workers import is registered there
    by the module that does it here.

    Parameters
    ----------
    kind : class
        The class; torch's own are left as they are.
    name : str
        Name of the registry.
    value : object
        What the class is registered with.
    """
    if kind.__module__.partition(".")[0] != "torch":
        setattr(kind, _attribute(name), value)


def registered(registry: Mapping[Any, V], kind: type, name: str) -> V | None:
    """Look a class up, its parents not included, in a registry and in what :func:`attach` wrote; None: in neither."""
    found: V | None = registry.get(kind, vars(kind).get(_attribute(name)))
    return found


def _attribute(name: str) -> str:
    return f"_skbgmd_{name}"
