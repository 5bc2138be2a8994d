"""Callbacks of a training: which of them listen to batches, and what they count, saved and taken up again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping

from skbgmd.training._lifecycle.plain import plain
from skbgmd.training._lifecycle.stopping import EndOfTraining

#: Events of each batch.
EACH_BATCH = ("on_batch_begin", "on_batch_end")
#: Events between the batches of two epochs.
EACH_EPOCH = ("on_epoch_begin", "on_epoch_end")
#: Counts of early stopping, the best score of callbacks that score, what scores of held-out samples are of, and which
#: samples a trimmed loss keeps.
_COUNTED = (
    *("misses_", "n_steps_", "dynamic_threshold_", "best_epoch_", "best_model_weights_"),
    *("best_score_", "summaries_", "seed_", "kept_"),
)


def listens(callback: Any, event: str) -> bool:
    """Tell whether a callback does something at an event."""
    return getattr(type(callback), event, None) is not getattr(Callback, event) or event in getattr(
        callback, "__dict__", {}
    )


def check_each_callback(callbacks: Any) -> None:
    """Check that a list of callbacks holds them, or classes of them, with names or without; None: one that is off.

    Raises
    ------
    TypeError
    """
    for held in callbacks if isinstance(callbacks, (list, tuple)) else ():
        is_named = isinstance(held, tuple) and len(held) == 2 and isinstance(held[0], str)
        callback = held[1] if is_named else held
        # What does all that is asked of one needn't be a Callback.
        if callback is not None and not (hasattr(callback, "initialize") and hasattr(callback, "set_params")):
            raise TypeError(
                f"callbacks must hold callbacks, such as skorch.callbacks.EarlyStopping(), or pairs of a name and one; "
                f"found {held!r}."
            )


def count_of(callback: Any) -> Any:
    """Count of a callback's epochs, by which it is seen if it has counted the last one; None: it counts none."""
    if isinstance(callback, EarlyStopping):
        return getattr(callback, "misses_", None), getattr(callback, "best_epoch_", None)
    return getattr(getattr(callback, "lr_scheduler_", None), "last_epoch", None)


def callback_states(
    callbacks: Iterable[tuple[str, Any]], before: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Counts of skorch's callbacks, and whether they have yet to count the last epoch."""
    for name, callback in callbacks:
        scheduler: Any = getattr(callback, "lr_scheduler_", None)
        kept = vars(callback)
        counted = {key: kept[key] for key in _COUNTED if key in kept}
        try:
            state = plain(_with_tensors(scheduler.state_dict()) if hasattr(scheduler, "state_dict") else counted)
        except TypeError:
            # It would keep the whole file from being loaded; skorch makes the callback anew.
            yield name, {"state": None, "is_behind": False}
            continue
        count = count_of(callback)
        if state:
            yield name, {"state": state, "is_behind": count is not None and before.get(name) == count}


def _with_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a scheduler with tensors in the place of arrays, which files of torch don't hold."""
    return {
        key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else value
        for key, value in state.items()
    }


def _with_arrays(state: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a scheduler with arrays where it has arrays now."""
    return {
        key: value.numpy().copy() if isinstance(now.get(key), np.ndarray) and isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }


def resume_callbacks(net: NeuralNet, states: Mapping[str, Any]) -> None:
    behind = []
    for name, callback in net.callbacks_:
        if name not in states:
            continue
        state = states[name]["state"]
        if state is None:
            warnings.warn(
                f"The state of {type(callback).__name__}, callback {name!r}, must be made of numbers, text, tensors "
                f"and arrays to be saved; it wasn't, and begins anew.",
                UserWarning,
                stacklevel=4,
            )
            continue
        if isinstance(callback, EarlyStopping) and state.get("misses_") == callback.patience:
            # It stopped there; whoever goes on nonetheless has its patience again.
            continue
        scheduler: Any = getattr(callback, "lr_scheduler_", None)
        if hasattr(scheduler, "load_state_dict"):
            scheduler.load_state_dict(_with_arrays(state, scheduler.state_dict()))
        else:
            vars(callback).update(state)
        if states[name]["is_behind"]:
            behind.append(callback)
    # One that was over stays so.
    behind += [callback for _, callback in net.callbacks_ if isinstance(callback, EndOfTraining)]
    for callback in behind:
        callback.on_epoch_end(net)
