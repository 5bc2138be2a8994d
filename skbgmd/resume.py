"""A skorch net that goes on, after it was saved and loaded, exactly as if nothing had interrupted it.

skorch saves parameters, the optimizer's state and the history, each in a file. A training depends on more: what a rule
remembers, where the generators of random numbers were, what schedulers have counted. All that goes into the file of the
optimizer, which nobody saves but to go on with a training. So skorch's callbacks for checkpoints save and load it
without knowing of it, and to others the file is that of an optimizer as before.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping
from skorch.history import History

from skbgmd.interrupts import Interruptible, was_stopped_early
from skbgmd.randomness import generator_states, generators_of, set_generator_states
from skbgmd.saving import written_whole

#: What the optimizer's file has it under.
KEY = "skbgmd"
#: What early stopping has counted, and the best score of those that score.
_COUNTED = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_", "best_score_")


class ResumableNet(Interruptible, NeuralNet):
    """Saves and loads, with the optimizer, the rest of what a training depends on."""

    # What was loaded, until a training begins with it, and then until its first epoch does.
    _loaded_: Mapping[str, Any] | None = None
    _resumed_: Mapping[str, Any] | None = None
    # Where the global generators were when the training began, for what it drew before its first epoch.
    _began_: dict[str, Any] | None = None
    _generators_: Mapping[str, list[torch.Generator]] = MappingProxyType({})
    _states_of_loaders_: Mapping[str, list[torch.Tensor]] = MappingProxyType({})
    _counted_: Mapping[str, Any] = MappingProxyType({})
    _unsaved_: tuple[str, ...] = ()
    history_: Any
    _is_over_ = _is_interrupted_ = _is_resumed_ = False
    #: Whether epochs that were loaded at the beginning of a training count among ``max_epochs``.
    _counts_loaded_epochs_ = False
    #: Whether an estimator trains it just now, which tells of an interrupt itself.
    _is_estimators_ = False

    def initialize(self) -> Any:
        # Whoever begins anew doesn't go on.
        self._loaded_ = None
        return super().initialize()

    # ---- what is saved ----------------------------------------------------------------------------------------------

    def _state_of_training(self) -> dict[str, Any]:
        """What a subclass's training depends on besides, as plain containers and tensors."""
        return {}

    def _take_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`_state_of_training` returned, when it is loaded."""

    def _begin_with_state(self, state: Mapping[str, Any]) -> None:
        """Take over what the beginning of a training would lose."""

    def _get_module(self, name: str, msg: str) -> Any:
        module = super()._get_module(name, msg)
        return _WithTraining(module, self) if self._optimizers and name == f"{self._optimizers[0]}_" else module

    def _whole_state(self) -> dict[str, Any]:
        parts = {name: getattr(self, f"{name}_") for name in (*self._modules, *self._criteria)}
        drawn = {name: [one.get_state() for one in own] for name, own in self._generators_.items()}
        return {
            **_plain(self._state_of_training()),
            # Whoever is killed between two files leaves those of two moments; this one has all of its own.
            "history": _as_json(self.history),
            "parts": {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")},
            # skorch's Freezer and Unfreezer have set it in an epoch that won't come again.
            "requires_grad": [parameter.requires_grad for _, parameter in self.get_all_learnable_params()],
            "began": self._began_,
            "generators": generator_states(),
            "loaders": {**self._states_of_loaders_, **drawn},
            "callbacks": dict(_callback_states(self.callbacks_, self._counted_)),
        }

    def save_params(
        self,
        f_params: Any = None,
        f_optimizer: Any = None,
        f_criterion: Any = None,
        f_history: Any = None,
        use_safetensors: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save parameters and states, as skorch does; the optimizer's with all else that a training depends on.

        Files are written beside those that are there, and take their places once they are whole.

        Raises
        ------
        OSError
            A file can't be written.
        """
        targets = {
            "f_params": f_params,
            "f_optimizer": f_optimizer,
            "f_criterion": f_criterion,
            "f_history": f_history,
            **kwargs,
        }
        try:
            with written_whole(targets) as files:
                super().save_params(**files, use_safetensors=use_safetensors)
        except (OSError, TypeError, ValueError, pickle.PicklingError) as error:
            # skorch's callbacks catch it, and tell nobody.
            self._unsaved_ = (*self._unsaved_, str(error))
            raise

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Tell the net and its callbacks of an event; warn where they couldn't save what they wanted to."""
        if self._unsaved_:
            self._unsaved_ = ()
        super().notify(method_name, **cb_kwargs)
        if self._unsaved_:
            reasons, self._unsaved_ = "; ".join(self._unsaved_), ()
            warnings.warn(f"A checkpoint is not complete. {reasons}", UserWarning, stacklevel=2)

    # ---- what is loaded ---------------------------------------------------------------------------------------------

    def load_params(
        self,
        f_params: Any = None,
        f_optimizer: Any = None,
        f_criterion: Any = None,
        f_history: Any = None,
        checkpoint: Any = None,
        use_safetensors: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load parameters and states, as skorch does; with the optimizer's, all else that a training depends on.

        Generators of random numbers are put to where they were when the next training begins.

        Raises
        ------
        ValueError
            A checkpoint lacks a file, or a file is not whole.

        Warns
        -----
        UserWarning
            With the optimizer, or in a checkpoint, there is nothing of the rest of the training; or a checkpoint was
            interrupted in the middle, so that its files are of two moments. Then the optimizer's has all of its own.
        """
        if checkpoint is not None and not self.initialized_:
            self.initialize()
        self._loaded_ = None
        files = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion, "f_history": f_history}
        files = {name: file for name, file in {**files, **kwargs}.items() if file}
        with self._blamed(files, checkpoint, use_safetensors):
            super().load_params(checkpoint=checkpoint, use_safetensors=use_safetensors, **files)
        if self._is_over_:
            # It is skorch's way to the best epoch, and not to go on.
            return
        if checkpoint is not None:
            files = {name: file for name, file in {**checkpoint._f_kwargs(), **files}.items() if file}
            self._mend(files)
        if self._loaded_ is None and (checkpoint is not None or "f_optimizer" in files):
            rule = "" if "f_aggregator" in files else "the state of the rule, "
            warnings.warn(
                f"What was loaded has no state of a training but the optimizer's at most: {rule}the generators of "
                f"random numbers and the trust in samples begin anew. It is in the file of the optimizer, where one of "
                f"this library's nets saved it.",
                UserWarning,
                stacklevel=2,
            )

    @contextmanager
    def _blamed(self, files: Mapping[str, Any], checkpoint: Any, use_safetensors: bool) -> Iterator[None]:
        """Say which file it was that couldn't be loaded, and leave the history as it was."""
        history = getattr(self, "history_", None)
        try:
            yield
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            if checkpoint is not None:
                found = checkpoint.f_history_ if self.history_ is not history else None
                known = checkpoint.get_formatted_files(self) if found else {}
                files = {**known, "f_history": checkpoint.f_history_, **files}
                self.history_ = history
                if isinstance(error, FileNotFoundError) and found:
                    raise ValueError(
                        f"A checkpoint must have all of its files; found {found}, but not {error.filename}."
                    ) from error
            if not isinstance(error, FileNotFoundError | PermissionError) and not use_safetensors:
                for name, file in files.items():
                    if not _is_whole(name, file):
                        raise ValueError(f"{file} must be a whole file; found {error}") from error
            raise

    def _mend(self, files: Mapping[str, Any]) -> None:
        """Take all from the optimizer's file, where a checkpoint's history isn't that which it was saved with."""
        state = self._loaded_
        if state is None or not state["history"] or "f_history" not in files:
            return
        if state["history"] == _as_json(self.history):
            return
        warnings.warn(
            "The checkpoint was interrupted while it was saved: its files are of two moments. The training goes on "
            "from that of the optimizer's file.",
            UserWarning,
            stacklevel=3,
        )
        for name in files:
            part = {"f_params": "module"}.get(name, name.removeprefix("f_"))
            if part in state["parts"]:
                getattr(self, f"{part}_").load_state_dict(state["parts"][part])
        self.history_ = History(json.loads(state["history"]))

    # ---- training ---------------------------------------------------------------------------------------------------

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self._is_over_ = False
        super().on_train_begin(net, X=X, y=y, **kwargs)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self._is_over_ = True
        super().on_train_end(net, X=X, y=y, **kwargs)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if self._resumed_ is not None:
            set_generator_states(self._resumed_["generators"])
            self._resumed_ = None
        super().on_epoch_begin(net, **kwargs)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self._counted_ = {name: _count(callback) for name, callback in self.callbacks_}
        super().on_epoch_end(net, **kwargs)

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """Go once through the batches of an iterator, as skorch does."""
        if prefix not in self._generators_:
            self._generators_ = {**self._generators_, prefix: generators_of(iterator)}
            states = self._states_of_loaders_.get(prefix, ())
            for generator, state in zip(self._generators_[prefix], states, strict=False):
                generator.set_state(state.cpu())
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> Any:
        """Train for ``epochs`` epochs, or ``max_epochs``; from what was loaded, if anything was."""
        epochs = self.max_epochs if epochs is None else epochs
        self._resumed_, self._loaded_ = self._loaded_, None
        self._is_resumed_ = self._resumed_ is not None
        self._generators_, self._states_of_loaders_, self._counted_ = {}, {}, {}
        try:
            if self._resumed_ is not None:
                self._resume(self._resumed_)
                if self._counts_loaded_epochs_:
                    epochs = max(0, epochs - sum(map(is_whole, self.history)))
                    if epochs == 0:
                        warnings.warn(
                            f"The checkpoint that was loaded has all of max_epochs={self.max_epochs} epochs already: "
                            f"nothing is left to train, whatever the data are.",
                            UserWarning,
                            stacklevel=2,
                        )
            self._began_ = generator_states()
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt as error:
            self._is_interrupted_ = not was_stopped_early(error)
            raise
        finally:
            if self._resumed_ is not None:
                # There was no epoch to begin.
                set_generator_states(self._resumed_["generators"])
                self._resumed_ = None

    def _resume(self, state: Mapping[str, Any]) -> None:
        self._begin_with_state(state)
        self._states_of_loaders_ = state["loaders"]
        for (_, parameter), requires_grad in zip(self.get_all_learnable_params(), state["requires_grad"], strict=False):
            parameter.requires_grad_(requires_grad)
        if any(hasattr(callback, "lr_scheduler_") for name, callback in self.callbacks_ if name in state["callbacks"]):
            # Schedulers have set them anew.
            optimizer = getattr(self, f"{self._optimizers[0]}_")
            for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
                group.update(saved)
        _resume_callbacks(self, state["callbacks"])
        if state["began"] is not None:
            # What is drawn before the first epoch, such as what is held out, was drawn then.
            set_generator_states(state["began"])

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any) -> Any:
        """Train without beginning anew, as skorch does; warn where it is interrupted, or as a clone hand that on.

        Raises
        ------
        KeyboardInterrupt
            The training was interrupted before its first step, or that of a clone was.
        """
        self._is_interrupted_ = self._is_over_ = False
        try:
            super().partial_fit(X, y, classes=classes, **fit_params)
        except KeyboardInterrupt:
            # In the end all is learnt. skorch lets it pass there, as it does before the beginning.
            if not self._is_over_:
                raise
            self._is_interrupted_ = True
        finally:
            self._is_over_ = False
        if self._loaded_ is not None:
            self._begin_with_state(self._loaded_)
            self._loaded_ = None
        if self._is_interrupted_:
            if not any("train_loss" in batch for row in self.history for batch in row["batches"]):
                raise KeyboardInterrupt("Training interrupted by user before its first step.")
            if not self._is_estimators_:
                self._tell_of_interrupt()
        return self

    def __getstate__(self) -> dict[str, Any]:
        passing = {"_loaded_", "_resumed_", "_began_", "_generators_", "_states_of_loaders_"}
        return {key: value for key, value in super().__getstate__().items() if key not in passing}


class _WithTraining:
    """An optimizer whose state has that of the training in it."""

    def __init__(self, optimizer: Any, net: ResumableNet) -> None:
        self.optimizer, self.net = optimizer, net

    def state_dict(self) -> dict[str, Any]:
        return {**self.optimizer.state_dict(), KEY: self.net._whole_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != KEY})
        state = state_dict.get(KEY)
        if state is not None:
            self.net._take_state(state)
            groups = [
                {key: value for key, value in group.items() if key != "params"} for group in state_dict["param_groups"]
            ]
            self.net._loaded_ = {**state, "groups": groups}


def is_whole(epoch: Mapping[str, Any]) -> bool:
    """Whether an epoch of a history went through all of its batches."""
    return "train_batch_count" in epoch


def _as_json(history: History) -> str | None:
    try:
        return json.dumps(history.to_list())
    except TypeError:
        # A callback records what no file of a history can hold, which is told where that is written.
        return None


def _is_whole(name: str, file: Any) -> bool:
    if not isinstance(file, (str, os.PathLike)) or name == "f_pickle":
        return True
    if name != "f_history":
        return zipfile.is_zipfile(file)
    try:
        History.from_file(file)
    except ValueError:
        return False
    return True


def _count(callback: Any) -> Any:
    """What tells whether a callback that counts epochs has counted the last one; None: it counts none."""
    if isinstance(callback, EarlyStopping):
        return getattr(callback, "misses_", None), getattr(callback, "best_epoch_", None)
    return getattr(getattr(callback, "lr_scheduler_", None), "last_epoch", None)


def _callback_states(
    callbacks: Iterable[tuple[str, Any]], before: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What skorch's callbacks have counted, and whether they have yet to count the last epoch."""
    for name, callback in callbacks:
        scheduler: Any = getattr(callback, "lr_scheduler_", None)
        kept = vars(callback)
        counted = {key: kept[key] for key in _COUNTED if key in kept}
        try:
            state = _plain(scheduler.state_dict() if hasattr(scheduler, "state_dict") else counted)
        except TypeError:
            # It would keep the whole file from being loaded; skorch makes the callback anew.
            continue
        count = _count(callback)
        if state:
            yield name, {"state": state, "is_behind": count is not None and before.get(name) == count}


def _resume_callbacks(net: NeuralNet, states: Mapping[str, Any]) -> None:
    behind = []
    for name, callback in net.callbacks_:
        if name not in states:
            continue
        state = states[name]["state"]
        if isinstance(callback, EarlyStopping) and state.get("misses_") == callback.patience:
            # It stopped there; whoever goes on nonetheless has its patience again.
            continue
        scheduler: Any = getattr(callback, "lr_scheduler_", None)
        if hasattr(scheduler, "load_state_dict"):
            scheduler.load_state_dict(state)
        else:
            vars(callback).update(state)
        if states[name]["is_behind"]:
            behind.append(callback)
    for callback in behind:
        callback.on_epoch_end(net)


def _plain(value: Any) -> Any:
    """A value made of what ``torch.load`` reads without executing anything; a TypeError where it can't be."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor):
        return value
    if type(value) in (dict, OrderedDict, Counter):
        return type(value)({_plain(key): _plain(item) for key, item in value.items()})
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    raise TypeError(
        f"The state of a training, such as its aggregator's, must be made of tensors, numbers, text, None and "
        f"containers of these to be saved; found {type(value)}."
    )


__all__ = ["KEY", "ResumableNet", "is_whole"]
