"""Checkpoints of a skorch net that hold all that its training depends on.

skorch saves parameters, the optimizer's state and the history, each in a file. A training depends on more: what a rule
remembers, where the generators of random numbers were, what schedulers have counted. All that goes into the file of the
optimizer, which nobody saves but to go on with a training. So skorch's callbacks for checkpoints save and load it
without knowing of it, and to others the file is that of an optimizer as before.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Container, Mapping
from contextlib import suppress
from string import Formatter
from types import MappingProxyType
from typing import Any

import torch
from skorch import NeuralNet
from skorch.history import History
from torch.nn.parameter import is_lazy

from skbgmd._utils.random import generator_states
from skbgmd._utils.saving import written_whole
from skbgmd.training._lifecycle.callbacks import EACH_BATCH, callback_states, listens
from skbgmd.training._lifecycle.interrupts import Interruptible
from skbgmd.training._lifecycle.plain import plain, plain_numbers

#: The key of the training's state in the optimizer's file.
KEY = "skbgmd"


class CheckpointedNet(Interruptible, NeuralNet):
    """Saves and loads, with the optimizer, the rest of what a training depends on."""

    # What was loaded, until a training begins with it.
    _loaded_: Mapping[str, Any] | None = None
    # Where the global generators were when the training began, for what it drew before its first epoch.
    _began_: dict[str, Any] | None = None
    _generators_: Mapping[str, list[torch.Generator]] = MappingProxyType({})
    _states_of_loaders_: Mapping[str, list[torch.Tensor]] = MappingProxyType({})
    _counted_: Mapping[str, Any] = MappingProxyType({})
    _unsaved_: tuple[str, ...] = ()
    # All callbacks, and those that do something in each batch of an epoch, by event.
    _listening_: Mapping[str, tuple[list[Any], list[Any]]] = MappingProxyType({})
    _is_over_ = False
    history_: Any

    def initialize(self) -> Any:
        # Whoever begins anew doesn't go on.
        self._loaded_ = None
        return super().initialize()

    # ---- what is saved ----------------------------------------------------------------------------------------------

    def _state_of_training(self) -> dict[str, Any]:
        """State that a subclass's training depends on besides, as plain containers and tensors."""
        return {}

    def _take_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`_state_of_training` returned, when it is loaded."""

    def _begin_with_state(self, state: Mapping[str, Any]) -> None:
        """Take over what the beginning of a training would lose."""

    def _get_module(self, name: str, msg: str) -> Any:
        module = super()._get_module(name, msg)
        return _WithTraining(module, self) if self._optimizers and name == f"{self._optimizers[0]}_" else module

    def _whole_state(self) -> dict[str, Any]:
        names = (*self._modules, *self._criteria, *self._optimizers[1:])
        parts = ((name, _state_of(self, name)) for name in names)
        drawn = {name: [one.get_state() for one in own] for name, own in self._generators_.items()}
        return {
            **plain(self._state_of_training()),
            # Whoever is killed between two files leaves those of two moments; this one has all of its own.
            "history": _as_json(self.history),
            "parts": {name: state for name, state in parts if state is not None},
            # skorch's Freezer and Unfreezer have set it in an epoch that won't come again.
            "requires_grad": [parameter.requires_grad for _, parameter in self.get_all_learnable_params()],
            "began": self._began_,
            "generators": generator_states(),
            "loaders": {**self._states_of_loaders_, **drawn},
            "callbacks": dict(callback_states(self.callbacks_, self._counted_)),
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
        if method_name in EACH_BATCH:
            getattr(self, method_name)(self, **cb_kwargs)
            for callback in self._listening_to(method_name):
                getattr(callback, method_name)(self, **cb_kwargs)
        else:
            super().notify(method_name, **cb_kwargs)
        if self._unsaved_:
            reasons, self._unsaved_ = "; ".join(self._unsaved_), ()
            warnings.warn(f"A checkpoint is not complete. {reasons}", UserWarning, stacklevel=2)

    def _listening_to(self, event: str) -> list[Any]:
        """Find the callbacks that do something at an event of each batch; telling all the others takes long."""
        callbacks = [callback for _, callback in self.callbacks_]
        known = self._listening_.get(event)
        if known is None or known[0] != callbacks:
            known = callbacks, [callback for callback in callbacks if listens(callback, event)]
            self._listening_ = {**self._listening_, event: known}
        return known[1]

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
            A checkpoint lacks a file, or a file is not whole; or the names of a checkpoint's files are not known.

        Warns
        -----
        UserWarning
            With the optimizer, or in a checkpoint, there is nothing of the rest of the training; or a checkpoint was
            interrupted in the middle, so that its files are of two moments or not all there. Then the optimizer's has
            all of its own, as it has what a checkpoint keeps no file of.
        """
        if checkpoint is not None and not self.initialized_:
            self.initialize()
        files = {"f_params": f_params, "f_optimizer": f_optimizer, "f_criterion": f_criterion, "f_history": f_history}
        files = {name: file for name, file in {**files, **kwargs}.items() if file}
        if checkpoint is None:
            self._load(files, use_safetensors)
        else:
            files |= self._load_checkpoint(checkpoint, files, use_safetensors)
        optimizer = self._file_of_training()
        if self._loaded_ is None and not self._is_over_ and (checkpoint is not None or optimizer in files):
            anew = [] if "f_aggregator" in files else ["the state of the rule"]
            anew += ["the generators of random numbers", "the trust in samples"]
            if checkpoint is not None:
                kept = {"f_params": "the parameters", optimizer: "the optimizer", "f_history": "the history"}
                anew += [what for name, what in kept.items() if name not in files]
            warnings.warn(
                f"What was loaded has no state of a training but the optimizer's at most: {', '.join(anew[:-1])} and "
                f"{anew[-1]} begin anew. It is in the file of the optimizer, {optimizer}, where one of this library's "
                f"nets saved it.",
                UserWarning,
                stacklevel=2,
            )

    def _load(self, files: Mapping[str, Any], use_safetensors: bool) -> None:
        """Load files; say which it was that couldn't be loaded, and leave the history as it was."""
        history, optimizer = getattr(self, "history_", None), self._file_of_training()
        if optimizer in files:
            self._loaded_ = None
        try:
            super().load_params(use_safetensors=use_safetensors, **files)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
            if history is not None:
                self.history_ = history
            if optimizer in files:
                # Nothing is to go on from half of it.
                self._loaded_ = None
            if not isinstance(error, FileNotFoundError | PermissionError) and not use_safetensors:
                for name, file in files.items():
                    if not _is_whole(name, file):
                        raise ValueError(f"{file} must be a whole file; found {error}") from error
            raise

    def _load_checkpoint(self, checkpoint: Any, given: Mapping[str, Any], use_safetensors: bool) -> dict[str, Any]:
        """Load what there is of a checkpoint's files, but for those that are given, and have them of one moment.

        Returns
        -------
        dict
            The checkpoint's files.
        """
        files = {name: file for name, file in self._files_of(checkpoint, given).items() if name not in given}
        optimizer = self._file_of_training()
        missing = [name for name, file in files.items() if _is_missing(file)]
        if not missing:
            self._loaded_ = None
            self._load({**files, **given}, use_safetensors)
        else:
            lacks = (
                f"A checkpoint must have all of its files; found "
                f"{', '.join(str(file) for name, file in files.items() if name not in missing)}, but not "
                f"{', '.join(str(files[name]) for name in missing)}"
            )
            # The history is the last to be written: with it, the checkpoint was complete.
            if "f_history" in files and "f_history" not in missing:
                raise ValueError(f"{lacks}.")
            if optimizer not in files or optimizer in missing:
                if len(missing) < len(files):
                    warnings.warn(
                        f"{lacks}: it was interrupted before it was complete, and nothing of it is loaded.",
                        UserWarning,
                        stacklevel=3,
                    )
                # skorch's way to say that there is nothing to go on with.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(files[missing[0]]))
            self._load({optimizer: files[optimizer], **given}, use_safetensors)
            if self._loaded_ is None:
                raise ValueError(f"{lacks}.")
            warnings.warn(
                f"{lacks}: it was interrupted before it was complete. The training goes on from what "
                f"{files[optimizer]} has of its own.",
                UserWarning,
                stacklevel=3,
            )
        # At the end it is skorch's way to the best epoch, and not to go on.
        if self._loaded_ is not None and not self._is_over_:
            odd = [
                str(files[name])
                for name in files
                if name not in missing and not self._is_as_saved(_part_of(name), self._loaded_)
            ]
            if odd and not missing:
                warnings.warn(
                    f"The checkpoint was interrupted while it was saved: its files are of two moments, "
                    f"{', '.join(odd)} of another than {files.get(optimizer, 'the file of the optimizer')}. The "
                    f"training goes on from that of the optimizer's file.",
                    UserWarning,
                    stacklevel=3,
                )
            if self._loaded_["history"] is None and "f_history" not in {*files, *given}:
                warnings.warn(
                    "The history must hold nothing but what JSON can for the file of the optimizer to have it; it "
                    "begins anew, and epochs are counted from there.",
                    UserWarning,
                    stacklevel=3,
                )
            self._take_parts(self._loaded_, {_part_of(name) for name in given})
        return files

    def _file_of_training(self) -> str:
        """The parameter by which the file is given that has the state of the training."""
        return f"f_{self._optimizers[0]}" if self._optimizers else "f_optimizer"

    def _files_of(self, checkpoint: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The files of a checkpoint by what they hold, but for the pickle, which isn't loaded.

        Names may be of the last epoch of the history. Before there is one, those of the others are known.
        """
        kept, own = self.history_, checkpoint.f_history_
        source = given.get("f_history", own)
        history = _read_history(source) if isinstance(source, (str, os.PathLike)) else kept
        named = {name: file for name, file in checkpoint._f_kwargs().items() if file is not None}
        asking = {name: file for name, file in named.items() if _asks_for_epoch(file)}
        if not history and asking and source is None:
            name, file = next(iter(asking.items()))
            raise ValueError(
                f"checkpoint must have f_history where the names of its files are of an epoch; found f_history=None "
                f"and {name}={file!r}. Give f_history, or load the files by their names."
            )
        try:
            if history:
                self.history_ = history
                files = checkpoint.get_formatted_files(self)
            else:
                # skorch looks at the last batch of the last epoch, whatever the names are.
                self.history_ = History([{"batches": [{}]}])
                files = {name: checkpoint._format_target(self, named[name], -1) for name in named if name not in asking}
        finally:
            self.history_ = kept
        # In the order in which they are written.
        files = {**{name: file for name, file in files.items() if name != "f_history"}, "f_history": own}
        return {name: file for name, file in files.items() if file is not None and name != "f_pickle"}

    def _is_as_saved(self, part: str, state: Mapping[str, Any]) -> bool:
        """True if a part of the net, or the history, is as it was when the state of the training was saved."""
        if part == "history":
            return state["history"] is None or state["history"] == _as_json(self.history)
        return part not in state["parts"] or _are_same(_state_of(self, part), state["parts"][part])

    def _take_parts(self, state: Mapping[str, Any], but: Container[str]) -> None:
        """Take all that a checkpoint's files hold, whether or not there is one for it, from the optimizer's."""
        for part, saved in state["parts"].items():
            if part not in but and hasattr(self, f"{part}_"):
                # What was changed, and has no file, stays as it is; that is told of when a training begins.
                with suppress(RuntimeError, ValueError):
                    getattr(self, f"{part}_").load_state_dict(saved)
        if state["history"] is not None and "history" not in but:
            self.history_ = History(json.loads(state["history"]))


class _WithTraining:
    """An optimizer whose state has that of the training in it."""

    def __init__(self, optimizer: Any, net: CheckpointedNet) -> None:
        self.optimizer, self.net = optimizer, net

    def state_dict(self) -> dict[str, Any]:
        # A rate of a NumPy dtype, as of a grid by logspace, would keep the file from being loaded.
        return {**plain_numbers(self.optimizer.state_dict()), KEY: self.net._whole_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != KEY})
        state = state_dict.get(KEY)
        if state is not None:
            self.net._take_state(state)
            groups = [
                {key: value for key, value in group.items() if key != "params"} for group in state_dict["param_groups"]
            ]
            self.net._loaded_ = {**state, "groups": groups}


def _as_json(history: History) -> str | None:
    try:
        return json.dumps(history.to_list())
    except TypeError:
        # A callback records what no file of a history can hold, which is told where that is written.
        return None


def _part_of(name: str) -> str:
    """The part of the net that a file is of, by the name of its parameter."""
    return "module" if name == "f_params" else name.removeprefix("f_")


def _state_of(net: NeuralNet, part: str) -> Any:
    state: Any = getattr(getattr(net, f"{part}_", None), "state_dict", None)
    return None if state is None else state()


def _are_same(found: Any, saved: Any) -> bool:
    """True if states hold the same tensors in the same places, but for dtypes; settings beside them don't count."""
    if isinstance(found, torch.Tensor) and isinstance(saved, torch.Tensor):
        if is_lazy(found) or is_lazy(saved):
            return is_lazy(found) and is_lazy(saved)
        if found.shape != saved.shape:
            return False
        saved = saved.to(found)
        return bool(((found == saved) | ((found != found) & (saved != saved))).all())
    if isinstance(found, Mapping) and isinstance(saved, Mapping):
        return found.keys() == saved.keys() and all(_are_same(found[key], saved[key]) for key in found)
    return True


def _is_missing(file: Any) -> bool:
    return isinstance(file, (str, os.PathLike)) and not os.path.exists(file)


def _read_history(file: Any) -> History:
    """A history; an empty one where there is no file."""
    if _is_missing(file):
        return History()
    try:
        return History.from_file(file)
    except ValueError as error:
        raise ValueError(f"{file} must be a whole file; found {error}") from error


def _asks_for_epoch(file: Any) -> bool:
    """True if the name of a checkpoint's file is of the last epoch or batch."""
    fields = [field or "" for _, field, _, _ in Formatter().parse(file)] if isinstance(file, str) else []
    return any(re.match(r"last_epoch|last_batch|net\.history", field) for field in fields)


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
