"""Interrupted trainings: Ctrl-C keeps what was learnt and warns, and stops searches and ensembles."""

from __future__ import annotations

import warnings
from typing import Any, Self

from sklearn.base import BaseEstimator
from skorch.callbacks import EarlyStopping


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C in the training of a clone: what was learnt is kept, and whoever made the clone stops as well."""


class TrainingEnded(KeyboardInterrupt):
    """The end of a training before its last epoch, by the exception that skorch's loop ends by; no interrupt."""


class Interruptible(BaseEstimator):
    """An estimator whose training can be interrupted; a clone hands the interrupt on.

    A search, a cross-validation and an ensemble fit clones, in this process or in another. It is them that a user
    stops then: a fit that only kept what it had would make them go on with the next one.
    """

    _hands_interrupts_on = False

    def __sklearn_clone__(self) -> Self:
        twin: Self = super().__sklearn_clone__()
        twin._hands_interrupts_on = True
        return twin

    def _tell_of_interrupt(self) -> None:
        message = "Training interrupted by user."
        if self._hands_interrupts_on:
            raise TrainingInterrupted(message)
        warnings.warn(message, UserWarning, stacklevel=3)


def was_stopped_early(error: KeyboardInterrupt) -> bool:
    """True if early stopping, ours or skorch's, ended a training in skorch's way, which is no interrupt."""
    if isinstance(error, TrainingEnded):
        return True
    where: Any = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return where is not None and where.tb_frame.f_code is EarlyStopping.on_epoch_end.__code__
