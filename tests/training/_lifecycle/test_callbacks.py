"""What callbacks listen to, and what they count."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpointed import estimator
from skorch.callbacks import Callback, EarlyStopping

from skbgmd import BlockGMDClassifier, RobustNeuralNet
from skbgmd.training._lifecycle.callbacks import (
    callback_states,
    check_each_callback,
    count_of,
    listens,
    resume_callbacks,
)


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
    with pytest.warns(UserWarning, match="The state of Custom, callback 'custom', must be made of .* begins anew"):
        assert estimator(folder, epochs=3, callbacks=[("custom", Custom())]).fit(*data).n_iter_ == 3


class Table(torch.optim.lr_scheduler.LRScheduler):
    """Learning rates of an array, and others beside it."""

    def __init__(self, optimizer, last_epoch=-1):
        self.rates, self.names = np.linspace(0.1, 0.01, 8), np.array(["a"])
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [float(self.rates[self.last_epoch])] * len(self.base_lrs)


def test_states_with_arrays():
    def scheduler(steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        callback = Callback()
        callback.lr_scheduler_ = Table(optimizer)
        for _ in range(steps):
            optimizer.step()
            callback.lr_scheduler_.step()
        return callback

    after, anew = scheduler(3), scheduler(0)
    # Texts in arrays are in no file.
    with pytest.warns(UserWarning, match="callback 'table'"):
        resume_callbacks(SimpleNamespace(callbacks_=[("table", anew)]), dict(callback_states([("table", after)], {})))
    del after.lr_scheduler_.names, anew.lr_scheduler_.names
    states = dict(callback_states([("table", after)], {}))
    resume_callbacks(SimpleNamespace(callbacks_=[("table", anew)]), states)
    assert anew.lr_scheduler_.last_epoch == 3
    assert isinstance(anew.lr_scheduler_.rates, np.ndarray)
    np.testing.assert_array_equal(anew.lr_scheduler_.rates, after.lr_scheduler_.rates)


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


#: What is none, by its kind.
NO_CALLBACKS = {
    "number": 3,
    "text": "x",
    "named number": ("a", 3),
    "name alone": ("a",),
    "number as a name": (3, EarlyStopping()),
    "class": object,
    "named class": ("a", object),
}
CALLBACKS = {
    "off": None,
    "named and off": ("a", None),
    "class": EarlyStopping,
    "instance": EarlyStopping(),
    "named class": ("a", EarlyStopping),
    "plain": Callback(),
}


@pytest.mark.parametrize("held", NO_CALLBACKS.values(), ids=NO_CALLBACKS)
def test_what_is_no_callback_is_refused(held):
    with pytest.raises(TypeError, match=r"callbacks must hold callbacks, such as .*; found"):
        check_each_callback([EarlyStopping(), held])
    model = BlockGMDClassifier(callbacks=[held])
    before = dict(vars(model))
    with pytest.raises(TypeError, match="callbacks must hold callbacks"):
        model.fit(np.zeros((4, 3), dtype=np.float32), np.arange(4) % 2)
    assert vars(model) == before
    net = RobustNeuralNet(torch.nn.Linear, callbacks=[held], criterion=torch.nn.MSELoss)
    with pytest.raises(TypeError, match="callbacks must hold callbacks"):
        net.initialize()


@pytest.mark.parametrize("held", CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_by_name_by_class_and_off(held):
    check_each_callback([held])
    check_each_callback((held,))
    check_each_callback(None)
    check_each_callback("disable")
