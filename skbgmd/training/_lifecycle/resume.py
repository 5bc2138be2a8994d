"""A skorch net that goes on, after it was saved and loaded, exactly as if nothing had interrupted it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from skorch import NeuralNet
from skorch.dataset import get_len

from skbgmd._utils.random import generator_states, generators_of, set_generator_states
from skbgmd.training._data.loader import Batch, gives_batches
from skbgmd.training._lifecycle.callbacks import count_of, resume_callbacks
from skbgmd.training._lifecycle.checkpoints import CheckpointedNet
from skbgmd.training._lifecycle.interrupts import was_stopped_early
from skbgmd.training._ranks import current_ranks, tell


class ResumableNet(CheckpointedNet):
    """Goes on from what was loaded, and tells of interrupts."""

    # What was loaded, from when a training begins with it until its first epoch does.
    _resumed_: Mapping[str, Any] | None = None
    _is_interrupted_ = _is_resumed_ = False
    # The interrupt that other ranks were told of, until it is raised.
    _told_: KeyboardInterrupt | None = None
    #: Whether epochs that were loaded at the beginning of a training count among ``max_epochs``.
    _counts_loaded_epochs_ = False
    #: Whether an estimator trains it just now, which tells of an interrupt itself.
    _is_estimators_ = False

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
        self._listening_ = {}
        self._counted_ = {name: count_of(callback) for name, callback in self.callbacks_}
        super().on_epoch_end(net, **kwargs)

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """Go once through the batches of an iterator, as skorch does."""
        if prefix not in self._generators_:
            self._generators_ = {**self._generators_, prefix: generators_of(iterator)}
            states = self._states_of_loaders_.get(prefix, ())
            for generator, state in zip(self._generators_[prefix], states, strict=False):
                generator.set_state(state.cpu())
        batches = current_ranks().in_step(iterator) if training else iterator
        run: Any = super().run_single_epoch
        if not gives_batches(iterator) or run.__func__ is not NeuralNet.run_single_epoch:
            run(batches, training, prefix, step_fn, **fit_params)
            return
        n_batches = 0
        for batch in batches:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            # skorch's own look-up takes as long as a small product.
            record = list.__getitem__(self.history, -1)["batches"][-1]
            record[f"{prefix}_loss"] = step["loss"].item()
            # skorch takes the length of X, which isn't that of the batch where samples are packed or concatenated.
            record[f"{prefix}_batch_size"] = len(batch.positions) if isinstance(batch, Batch) else get_len(batch[0])
            self.notify("on_batch_end", batch=batch, training=training, **step)
            n_batches += 1
        self.history.record(f"{prefix}_batch_count", n_batches)

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
            current_ranks().check_same(epochs, "max_epochs")
            self._began_ = generator_states()
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt as error:
            self._is_interrupted_ = not was_stopped_early(error)
            if self._is_interrupted_ and current_ranks().size > 1:
                # skorch's loop would let it pass, and the others wait.
                tell(current_ranks(), error)
                self._told_ = error
            raise
        finally:
            if self._resumed_ is not None:
                # There was no epoch to begin.
                set_generator_states(self._resumed_["generators"])
                self._resumed_ = None

    def _resume(self, state: Mapping[str, Any]) -> None:
        parts = [*state["parts"], *(["history"] if self.history else [])]
        odd = [part for part in parts if not self._is_as_saved(part, state)]
        if odd:
            warnings.warn(
                f"What was loaded must be of one moment for the training to go on as it was; found another "
                f"{', '.join(odd)} than the optimizer was saved with. Load all that was saved together, at once.",
                UserWarning,
                stacklevel=3,
            )
        self._begin_with_state(state)
        self._states_of_loaders_ = state["loaders"]
        for (_, parameter), requires_grad in zip(self.get_all_learnable_params(), state["requires_grad"], strict=False):
            parameter.requires_grad_(requires_grad)
        if any(hasattr(callback, "lr_scheduler_") for name, callback in self.callbacks_ if name in state["callbacks"]):
            # Schedulers have set them anew.
            optimizer = getattr(self, f"{self._optimizers[0]}_")
            for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
                group.update(saved)
        resume_callbacks(self, state["callbacks"])
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
            if not self._is_over_ or current_ranks().size > 1:
                raise
            self._is_interrupted_ = True
        finally:
            self._is_over_ = False
        if self._told_ is not None:
            told, self._told_ = self._told_, None
            raise KeyboardInterrupt("Training interrupted by user, on all ranks.") from told
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


def is_whole(epoch: Mapping[str, Any]) -> bool:
    """True if an epoch of a history went through all of its batches."""
    return "train_batch_count" in epoch
