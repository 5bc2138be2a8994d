"""Pickles inside of nets: what they may name, and ways to name something else."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools

import pytest
import torch

from skbgmd.training._checked_pickle import load_naming, named_in


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
