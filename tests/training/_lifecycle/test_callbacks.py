"""What callbacks listen to, and what they count."""

from __future__ import annotations

import pytest
from checkpointed import estimator
from skorch.callbacks import Callback, EarlyStopping

from skbgmd.training._lifecycle.callbacks import count_of, listens


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


class Custom(Callback):
    """A scheduler that can't tell its state, and one whose state can't be saved."""

    def on_train_begin(self, net, **kwargs):
        self.lr_scheduler_ = object() if len(net.history) else LambdaState()


class LambdaState:
    def state_dict(self):
        return {"function": len}


def test_schedulers_of_any_kind(data, folder):
    assert estimator(folder, epochs=2, callbacks=[("custom", Custom())]).fit(*data).n_iter_ == 2
    assert estimator(folder, epochs=3, callbacks=[("custom", Custom())]).fit(*data).n_iter_ == 3


class Watches(Callback):
    def on_batch_end(self, net, **kwargs):
        pass


def test_who_listens():
    assert listens(Watches(), "on_batch_end")
    assert not listens(Watches(), "on_batch_begin")
    patched = Callback()
    patched.on_batch_begin = print
    assert listens(patched, "on_batch_begin")


def test_counts_of_epochs():
    stopping = EarlyStopping()
    stopping.misses_, stopping.best_epoch_ = 2, 5
    assert count_of(stopping) == (2, 5)
    assert count_of(Watches()) is None
