"""Pickles inside of nets: what they may name, and ways to name something else."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import tarfile

import pytest
import torch

from skbgmd.training._lifecycle.checked_pickle import load_naming, named_in


class Outer(torch.nn.Module):
    """A layer with a class in it, whose instances it holds."""

    class Inner(torch.nn.Linear):
        pass

    def __init__(self):
        super().__init__()
        self.inner, self.activation, self.kind = self.Inner(2, 3), torch.nn.functional.relu, torch.float16
        self.register_buffer("count", torch.arange(3))

    def forward(self, X):
        return self.activation(self.inner(X))


class Calls:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def test_what_is_listed_is_loaded(forked):
    layer = Outer()
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    payload = pickle.dumps({"layer": layer, "optimizer": optimizer})
    named = named_in(payload)
    assert Outer in named
    assert Outer.Inner not in named
    assert torch.optim.Adam in named
    assert torch.nn.functional.relu in named
    again = load_naming(payload, named)
    assert type(again["layer"].inner) is Outer.Inner
    assert again["layer"].kind is torch.float16
    assert all(map(torch.equal, layer.state_dict().values(), again["layer"].state_dict().values()))
    assert str(again["optimizer"].state_dict()) == str(optimizer.state_dict())
    for left_out in named:
        with pytest.raises(pickle.UnpicklingError, match=f"found .*{left_out.__name__}.* is not listed"):
            load_naming(payload, [thing for thing in named if thing is not left_out])


def as_global(module, name, *args):
    """A pickle that calls what it finds under a dotted name."""
    reduced = b"(" + b"".join(pickle.dumps(arg, 2)[2:-1] for arg in args) + b"tR" if args else b""
    parts = (b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    payload = b"\x80\x04" + b"".join(parts) + b"\x93" + reduced + b"."
    pickletools.dis(payload, out=io.StringIO())
    return payload


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps(Calls(os.getpid)),
        pickle.dumps({"inside": [Calls(eval, "1 + 1")]}),
        pickle.dumps(Calls(eval, "1 + 1"), protocol=0),
        as_global("os", "environ"),
        as_global("sys", "modules"),
        as_global("skbgmd", "aggregators"),
        as_global("no_such_module", "thing"),
        as_global(__name__, "Outer.__init__.__globals__.get", "eval"),
        as_global(__name__, "Outer.__base__"),
        as_global(__name__, "Outer.__class__"),
        as_global(__name__, "Outer.forward"),
        as_global(__name__, "Outer.missing"),
        as_global("torch.serialization", "load"),
        b"\x80\x02cos\ngetpid\n)R.",
    ],
    ids=range(14),
)
def test_what_is_not_listed_is_neither_loaded_nor_called(payload):
    with pytest.raises(pickle.UnpicklingError, match="is not listed"):
        load_naming(payload, [Outer, collections.OrderedDict, torch.nn.Linear])


def test_storages_run_nothing():
    file = io.BytesIO()
    torch.save(Calls(os.getpid), file)
    payload = pickle.dumps(Calls(torch.storage._load_from_bytes, file.getvalue()))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_naming(payload, named_in(payload))


def test_tensors_go_where_they_are_asked_to():
    payload = pickle.dumps(torch.ones(2))
    assert load_naming(payload, named_in(payload), torch.device("meta")).is_meta


class Acting(torch.nn.Module):
    """A layer with functions of many kinds as attributes."""

    @staticmethod
    def doubled(X):
        return 2.0 * X

    def own(self, X):
        return X + 1.0

    def __init__(self):
        super().__init__()
        self.functions = [torch.tanh, torch.relu, torch.nn.functional.softplus, self.own, Acting.doubled]

    def forward(self, X):
        return sum(function(X) for function in self.functions)


def test_functions_and_methods_of_all_kinds_are_loaded():
    layer, X = Acting(), torch.linspace(-1.0, 1.0, 5)
    payload = pickle.dumps(layer)
    named = named_in(payload)
    assert getattr not in named
    assert torch.equal(load_naming(payload, named)(X), layer(X))


@pytest.mark.parametrize("padding", range(65_380, 65_540, 7))
def test_a_frame_may_begin_between_two_names(padding):
    # Small things are framed in 64 KiB.
    small = [bytes([i % 251]) * 97 for i in range(padding // 100)]
    payload = pickle.dumps([*small, b"b" * (padding % 100), torch.nn.Identity(), collections.Counter("ab")])
    named = named_in(payload)
    assert {torch.nn.Identity, collections.Counter} <= set(named)
    assert load_naming(payload, named)[-1] == collections.Counter("ab")


def helper():
    """A function whose globals lead anywhere."""


@pytest.mark.parametrize(
    ("thing", "name"), [(helper, "__globals__"), (helper, "__code__"), (torch._C._VariableFunctionsClass, "from_file")]
)
def test_attributes_that_lead_elsewhere_are_refused(thing, name):
    payload = pickle.dumps(Calls(getattr, thing, name))
    with pytest.raises(pickle.UnpicklingError, match=f"found {name} of"):
        load_naming(payload, [*named_in(payload), thing])


class Sets:
    """A pickle that sets attributes of a thing that it names."""

    def __init__(self, thing, state):
        self.thing, self.state = thing, state

    def __reduce__(self):
        return Passes, (self.thing,), self.state


class Passes:
    """Gives back what it is made with."""

    def __new__(cls, thing):
        return thing


@pytest.mark.parametrize("thing", [helper, Acting])
def test_attributes_of_functions_and_classes_stay(thing):
    payload = pickle.dumps(Sets(thing, (None, {"__doc__": "changed"})))
    before = thing.__doc__
    with pytest.raises(pickle.UnpicklingError, match="set attributes of its own objects only"):
        load_naming(payload, [Passes, thing])
    assert thing.__doc__ == before


def test_archives_in_the_place_of_storages_are_refused():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    payload = pickle.dumps(Calls(torch.storage._load_from_bytes, buffer.getvalue()))
    with pytest.raises(pickle.UnpicklingError, match="tar archives"):
        load_naming(payload, [])
