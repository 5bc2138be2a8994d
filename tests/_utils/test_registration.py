"""What classes are registered with goes with them, and with nothing else."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import torch

from skbgmd._utils.registration import attach, registered


def test_a_class_sent_by_value_has_what_it_is_registered_with() -> None:
    class Own(torch.nn.Module):
        pass

    class Derived(Own):
        pass

    attach(Own, "color", "red")
    attach(Derived, "size", 3)
    # The class is made anew, as in a process that doesn't know of it.
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.pop(Own, None)
    sent = cloudpickle.dumps(Own)
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    made = pickle.loads(sent)
    assert made is not Own
    assert registered({}, made, "color") == "red"
    assert registered({}, made, "size") is None
    # Parents speak for themselves, and a registry counts more.
    assert registered({}, Derived, "color") is None
    assert registered({Own: "blue"}, Own, "color") == "blue"


def test_torchs_classes_stay_as_they_are() -> None:
    before: dict[str, Any] = dict(vars(torch.nn.Linear))
    attach(torch.nn.Linear, "color", "red")
    assert dict(vars(torch.nn.Linear)) == before
