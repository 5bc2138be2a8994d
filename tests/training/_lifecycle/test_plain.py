"""State that is read without executing anything."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch

from skbgmd.training._lifecycle.plain import plain


def test_a_plain_value_is_read_without_executing_anything(tmp_path):
    value = {"a": (np.float64(0.5), torch.ones(2), None), "b": OrderedDict(c=[True, "text"])}
    torch.save(plain(value), tmp_path / "value.pt")
    read = torch.load(tmp_path / "value.pt", weights_only=True)
    assert read["a"][0] == 0.5
    assert type(read["a"][0]) is float
    assert read["b"] == value["b"]


@pytest.mark.parametrize(
    "value", [len, np.zeros(3), {"a": {1, 2}}, [object()]], ids=["function", "array", "set", "object"]
)
def test_what_is_not_plain_is_named(value):
    with pytest.raises(TypeError, match=r"must be made of tensors, numbers, text.*found <class"):
        plain(value)
